//! The format of a line: one JSON object, in which a client's value can end neither a string nor the line.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sq_shared::clock;
use sq_shared::coordinate::Coordinate;
use sq_shared::tenant::TenantName;
use sq_shared::visible;

use super::health::Missing;

/// The line of a write. `docs/audit.md` explains the members.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    #[serde(serialize_with = "microseconds")]
    pub(super) time: Timestamp,
    pub(super) tenant: &'a str,
    pub(super) key_id: &'a str,
    pub(super) client: IpAddr,
    pub(super) request_id: &'a str,
    pub(super) command: &'static str,
    pub(super) phext: Option<&'a str>,
    pub(super) coordinate: Option<String>,
    pub(super) bytes: Option<u64>,
    pub(super) status: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) replayed: bool,
}

#[derive(Serialize)]
struct MissingLine {
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    missing: u64,
    #[serde(serialize_with = "microseconds")]
    from: Timestamp,
    #[serde(serialize_with = "microseconds")]
    to: Timestamp,
}

pub(super) fn missing_line(missing: Missing) -> Vec<u8> {
    let Missing { lines, from, to } = missing;
    json_line(&MissingLine { time: clock::now(), missing: lines, from, to })
}

/// A coordinate with its tenant's namespace.
pub(super) fn full_coordinate(tenant: &TenantName, coordinate: Option<Coordinate>) -> Option<String> {
    coordinate.map(|coordinate| format!("{tenant}.{coordinate}"))
}

/// A line's bytes, with the newline.
pub(super) fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialise.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut line = visible::json(&json).into_owned();
    line.push('\n');
    line.into_bytes()
}

/// RFC 3339 in UTC, always with six digits, so that the texts sort by time.
fn microseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_its_string_or_the_line() {
        let tenant: TenantName = "alice".parse().unwrap();
        let hostile = "a\n\"},{\"tenant\":\"bob\"\r\u{0}\u{2028}\u{202e}\u{200b}";
        let line = Line {
            time: Timestamp::UNIX_EPOCH,
            tenant: tenant.as_str(),
            key_id: "k1",
            client: "2001:db8::1".parse().unwrap(),
            request_id: hostile,
            command: "update",
            phext: Some(hostile),
            coordinate: full_coordinate(&tenant, Some(Coordinate::ORIGIN)),
            bytes: None,
            status: 200,
            replayed: false,
        };
        let bytes = json_line(&line);
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
        assert!(bytes.is_ascii(), "a hidden character is not escaped");
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&read["phext"], &read["tenant"]), (&hostile.into(), &"alice".into()));
        assert_eq!(read["time"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(read["coordinate"], "alice.1.1.1/1.1.1/1.1.1");
        assert!(read["bytes"].is_null() && read.get("replayed").is_none(), "{read}");
    }
}
