//! Where new keys go, once: to a CSV file `tenant,port,key_id,key` of mode 0600, to standard output, or to the caller.
//! The registry stores only their digests.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sq_shared::process::{output, service_user};
use sq_shared::registry::Key;
use sq_shared::registry::edit::write_key;
use sq_shared::secret_file::{Appended, Lines, Tail};
use sq_shared::tenant::TenantName;
use sq_shared::token::{BearerToken, TOKEN_PREFIX};
use sq_shared::{file_error, regular_file, secret_file};

use super::ChangeError;

const HEAD: [&str; 4] = ["tenant", "port", "key_id", "key"];

/// The value of the column `tenant` for the key of the admin API.
pub(crate) const ADMIN: &str = "(admin)";

/// The length of a key that [`BearerToken::generate`] makes.
const GENERATED_BYTES: usize = TOKEN_PREFIX.len() + 32;

/// A new key and its owner.
pub(crate) struct NewKey {
    /// The tenant's name, or [`ADMIN`].
    pub tenant: String,
    /// The tenant's slot; `None` for the admin.
    pub port: Option<u16>,
    pub key_id: String,
    pub token: BearerToken,
}

impl NewKey {
    /// Generates a key for a tenant, and its entry for the registry.
    pub(crate) fn generate(
        tenant: &TenantName,
        port: u16,
        key_id: String,
    ) -> Result<(Self, Key), ChangeError> {
        let token = BearerToken::generate();
        let token = token.map_err(|error| ChangeError::NoRandomNumbers(io::Error::other(error)))?;
        let entry = write_key(key_id.clone(), token.digest());
        Ok((Self { tenant: tenant.to_string(), port: Some(port), key_id, token }, entry))
    }

    fn row(&self) -> [String; 4] {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        [self.tenant.clone(), port, self.key_id.clone(), self.token.expose().to_owned()]
    }
}

/// Where new keys go. They are stored nowhere else, so they are delivered before the registry accepts them.
#[derive(Debug, Clone)]
pub(crate) enum KeysOut {
    /// Appended to a CSV file of mode 0600.
    File(PathBuf),
    /// As CSV to standard output (`-`): for a pipe, or a container that may not write to the host's folders.
    CsvToStdout,
    /// As text to standard output, for a person.
    TextToStdout,
    /// Returned to the caller, which sends them in a response.
    Caller,
}

impl From<OsString> for KeysOut {
    fn from(text: OsString) -> Self {
        if text == "-" { Self::CsvToStdout } else { Self::File(text.into()) }
    }
}

impl fmt::Display for KeysOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::CsvToStdout | Self::TextToStdout => f.write_str("standard output"),
            Self::Caller => f.write_str("the caller"),
        }
    }
}

/// Keys that were delivered, but that the registry does not accept yet.
#[must_use = "publish the registry that accepts the keys, or retract them"]
pub(crate) struct Delivered(Option<(PathBuf, Appended)>);

impl Delivered {
    /// Removes the keys again, because the registry will not accept them. What was printed stays printed.
    ///
    /// # Errors
    /// The file still contains them.
    pub(crate) fn retract(self) -> io::Result<bool> {
        let Some((path, appended)) = self.0 else { return Ok(true) };
        service_user::as_owner_of(&path, || appended.take_back())?
    }
}

impl KeysOut {
    /// Checks whether keys may be written there, before a command changes anything.
    ///
    /// # Errors
    /// The file belongs to another user, who could read the keys; it is a link or cannot be looked up; or standard
    /// output is closed.
    pub(crate) fn check(&self) -> Result<(), ChangeError> {
        let checked = match self {
            Self::File(path) => {
                service_user::refuse_planted_at(path).map_err(|error| file_error::explained(path, error))
            }
            Self::CsvToStdout | Self::TextToStdout => output::check_open(),
            Self::Caller => Ok(()),
        };
        checked.map_err(|error| ChangeError::KeysOut(self.clone(), error))
    }

    /// Delivers keys, and returns when a file's are on disk or a pipe's reader has taken them.
    ///
    /// # Errors
    /// The keys cannot be written. A file is unchanged then.
    pub(crate) fn deliver(&self, keys: &[NewKey]) -> io::Result<Delivered> {
        if keys.is_empty() {
            return Ok(Delivered(None));
        }
        match self {
            Self::File(path) => {
                let (head, rows) = (csv(&[HEAD.map(str::to_owned)])?, csv(keys.iter().map(NewKey::row))?);
                let lines = Lines { head: &head, lines: &rows, tail };
                let appended = service_user::as_owner_of(path, || {
                    // The file may have been replaced since `check`.
                    let appended = secret_file::append(path, &lines, |file| {
                        service_user::refuse_planted(path, &file.metadata()?)
                    });
                    appended.map_err(|error| file_error::explained(path, error))
                })??;
                return Ok(Delivered(Some((path.clone(), appended))));
            }
            Self::CsvToStdout => {
                let rows = std::iter::once(HEAD.map(str::to_owned)).chain(keys.iter().map(NewKey::row));
                output::hand_over(&csv(rows)?)?;
            }
            Self::TextToStdout => {
                let line = |key: &NewKey| format!("{} {} {}\n", key.tenant, key.key_id, key.token.expose());
                output::hand_over(keys.iter().map(line).collect::<String>().as_bytes())?;
            }
            Self::Caller => {}
        }
        Ok(Delivered(None))
    }
}

fn csv<R: AsRef<[String]>>(rows: impl IntoIterator<Item = R>) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.as_ref())?;
    }
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// Whether the file contains a tenant's key.
pub(crate) fn has_tenants(file: &Path) -> bool {
    let rows = regular_file::read_to_string(file).unwrap_or_default();
    let is_of_tenant = |row: &str| is_row(row, |key| key.len() == GENERATED_BYTES) && !row.starts_with(ADMIN);
    rows.lines().any(is_of_tenant)
}

/// Classifies what follows a CSV's last line break: a line that an editor left without one, or part of a line of ours,
/// left by a command that was killed.
fn tail(bytes: &[u8]) -> Tail {
    // A power cut may leave zeros at the end of a file.
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

/// Whether a text is a row of ours or the beginning of one. `is_key` decides how much of the key must be there.
fn is_row(text: &str, is_key: impl Fn(&str) -> bool) -> bool {
    let mut fields = text.split(',');
    let is_tenant =
        |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'(' | b')'));
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_generated = |key: &str| match key.strip_prefix(TOKEN_PREFIX) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => TOKEN_PREFIX.starts_with(key),
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
    fn a_torn_line_is_told_from_a_whole_one_and_from_other_text() {
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
