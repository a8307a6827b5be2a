//! The CSV that new keys go to, once: `tenant,port,key_id,key`, mode 0600. The registry has only digests.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sq_shared::process::{output, service_user};
use sq_shared::registry::Key;
use sq_shared::registry::edit::write_key;
use sq_shared::secret_file::{Appended, Lines, Tail};
use sq_shared::token::BearerToken;
use sq_shared::{file_error, regular_file, secret_file};

/// What stands in the column `tenant` for the key of the admin API.
pub const ADMIN: &str = "(admin)";

/// A new key and whose it is.
pub struct NewKey {
    /// The tenant's name, or [`ADMIN`].
    pub tenant: String,
    /// Its slot; the admin has none.
    pub port: Option<u16>,
    /// The key's id.
    pub key_id: String,
    /// The key.
    pub token: BearerToken,
}

impl NewKey {
    /// Makes a key for a tenant, and the entry that the registry keeps of it.
    ///
    /// # Errors
    /// The operating system has no random numbers to give.
    pub fn generate(tenant: &str, port: u16, key_id: String) -> io::Result<(Self, Key)> {
        let token = BearerToken::generate().map_err(io::Error::other)?;
        let entry = write_key(key_id.clone(), token.digest());
        Ok((Self { tenant: tenant.to_owned(), port: Some(port), key_id, token }, entry))
    }
}

/// Where new keys go. They are stored nowhere else, so they are there before the registry takes them.
#[derive(Debug, Clone)]
pub enum KeysOut {
    /// Appended to, of mode 0600.
    File(PathBuf),
    /// Said as `-`: for a pipe, and for a container that may write to no folder of the host's.
    StandardOutput,
    /// One key in a line, for a person.
    Screen,
    /// The caller gets them, and answers a request with them.
    Caller,
}

impl From<OsString> for KeysOut {
    fn from(text: OsString) -> Self {
        if text == "-" { Self::StandardOutput } else { Self::File(text.into()) }
    }
}

impl fmt::Display for KeysOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::StandardOutput | Self::Screen => f.write_str("standard output"),
            Self::Caller => f.write_str("the caller"),
        }
    }
}

/// Keys that are where they were to go, and that the registry does not take yet.
#[must_use = "the registry must take the keys, or they must be taken back"]
pub struct HandedOver(Option<(PathBuf, Appended)>);

impl HandedOver {
    /// Takes the keys back, because the registry will not take them. What was printed stays printed.
    ///
    /// # Errors
    /// A file has them still.
    pub fn take_back(self) -> io::Result<bool> {
        let Some((path, appended)) = self.0 else { return Ok(true) };
        service_user::as_owner_of(&path, || appended.take_back())?
    }
}

impl KeysOut {
    /// Whether keys may be written there, for a command that has changed nothing yet.
    ///
    /// # Errors
    /// The file is another user's, who would read them, is a link, or cannot be looked at; or standard output is closed.
    pub fn check(&self) -> io::Result<()> {
        match self {
            Self::File(path) => {
                service_user::refuse_planted_at(path).map_err(|error| file_error::explained(path, error))
            }
            Self::StandardOutput | Self::Screen => output::check_open(),
            Self::Caller => Ok(()),
        }
    }

    /// Hands keys over, and waits until they are there: a file has them on disk, a pipe's reader has taken them.
    ///
    /// # Errors
    /// They cannot be written. A file is as it was.
    pub fn hand_over(&self, keys: &[NewKey]) -> io::Result<HandedOver> {
        if keys.is_empty() {
            return Ok(HandedOver(None));
        }
        match self {
            Self::File(path) => {
                let (head, rows) = (csv(&[HEAD.map(str::to_owned)])?, csv(keys.iter().map(NewKey::row))?);
                let lines = Lines { head: &head, lines: &rows, tail };
                let appended = service_user::as_owner_of(path, || {
                    // It may have been put there since it was looked at.
                    let appended = secret_file::append(path, &lines, |file| {
                        service_user::refuse_planted(path, &file.metadata()?)
                    });
                    appended.map_err(|error| file_error::explained(path, error))
                })??;
                return Ok(HandedOver(Some((path.clone(), appended))));
            }
            Self::StandardOutput => {
                let rows = std::iter::once(HEAD.map(str::to_owned)).chain(keys.iter().map(NewKey::row));
                output::hand_over(&csv(rows)?)?;
            }
            Self::Screen => {
                let line = |key: &NewKey| format!("{} {} {}\n", key.tenant, key.key_id, key.token.expose());
                output::hand_over(keys.iter().map(line).collect::<String>().as_bytes())?;
            }
            Self::Caller => {}
        }
        Ok(HandedOver(None))
    }
}

/// The first line of the CSV.
const HEAD: [&str; 4] = ["tenant", "port", "key_id", "key"];

impl NewKey {
    fn row(&self) -> [String; 4] {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        [self.tenant.clone(), port, self.key_id.clone(), self.token.expose().to_owned()]
    }
}

fn csv<R: AsRef<[String]>>(rows: impl IntoIterator<Item = R>) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.as_ref())?;
    }
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// Whether the file has a tenant's key.
pub fn has_tenants(file: &Path) -> bool {
    let rows = regular_file::read_to_string(file).unwrap_or_default();
    let is_of_tenant = |row: &str| is_row(row, |key| key.len() == GENERATED_BYTES) && !row.starts_with(ADMIN);
    rows.lines().any(is_of_tenant)
}

/// What a CSV ends with, when that is no line break: a line that an editor left without one, or half a line of ours, which
/// a command that was stopped has left.
fn tail(bytes: &[u8]) -> Tail {
    // What a power cut left of a file may be zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let (text, zeros) = bytes.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return Tail::Foreign };
    let head = HEAD.join(",");
    let is_whole = text == head || is_row(text, |key| key.len() == GENERATED_BYTES);
    match (is_whole, zeros.is_empty()) {
        (true, true) => Tail::Line,
        (true, false) => Tail::Torn,
        _ if head.starts_with(text) || is_row(text, |key| key.len() < GENERATED_BYTES) => Tail::Torn,
        _ => Tail::Foreign,
    }
}

/// What the keys that we make begin with, and how long they are.
const GENERATED_PREFIX: &str = "pmb-v1-";
const GENERATED_BYTES: usize = GENERATED_PREFIX.len() + 32;

/// Whether a text is a row of ours, or begins one; `is_key` says how much of the key must be there.
fn is_row(text: &str, is_key: impl Fn(&str) -> bool) -> bool {
    let mut fields = text.split(',');
    let is_tenant =
        |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'(' | b')'));
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_generated = |key: &str| match key.strip_prefix(GENERATED_PREFIX) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => GENERATED_PREFIX.starts_with(key),
    };
    fields.next().is_none_or(is_tenant)
        && fields.next().is_none_or(is_port)
        && fields.next().is_none_or(is_id)
        && is_key(fields.next().unwrap_or_default())
        && text.split(',').nth(3).is_none_or(is_generated)
        && fields.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_line_of_ours_is_told_from_a_whole_one_and_from_anything_else() {
        let row = format!("slot-001,1341,k1,pmb-v1-{}", "0a".repeat(16));
        assert_eq!(tail(row.as_bytes()), Tail::Line);
        for end in 0..row.len() {
            assert_eq!(tail(&row.as_bytes()[..end]), Tail::Torn, "{}", &row[..end]);
        }
        assert_eq!(tail(b"tenant,port,key_id,key"), Tail::Line);
        assert_eq!(tail(b"tenant,port,ke"), Tail::Torn);
        assert_eq!(tail(format!("(admin),,admin,pmb-v1-{}", "0".repeat(32)).as_bytes()), Tail::Line);
        assert_eq!(tail(b"\0\0\0"), Tail::Torn);
        assert_eq!(tail(b"slot-001,13\0\0"), Tail::Torn);
        for foreign in [
            "# Batch 2",
            "Alice's key",
            "a,b,c,d",
            "a,1,k1,pmb-v1-xyz",
            &format!("{row}0"),
            &format!("{row},"),
        ] {
            assert_eq!(tail(foreign.as_bytes()), Tail::Foreign, "{foreign}");
        }
    }
}
