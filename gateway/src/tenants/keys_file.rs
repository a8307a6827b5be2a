//! The CSV that new keys go to, once: `tenant,port,key_id,key`, mode 0600. The registry has only digests.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use sq_shared::registry::Key;
use sq_shared::registry::edit::write_key;
use sq_shared::token::BearerToken;
use sq_shared::{secret_file, service_user};

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

/// Where new keys go: a file, or, said as `-`, standard output.
#[derive(Debug, Clone)]
pub enum KeysOut {
    /// Appended to, of mode 0600.
    File(PathBuf),
    /// For a pipe, and for a container that may write to no folder of the host's.
    StandardOutput,
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
            Self::StandardOutput => f.write_str("standard output"),
        }
    }
}

impl KeysOut {
    /// Whether keys may be written there, for a command that has changed nothing yet.
    ///
    /// # Errors
    /// The file is another user's, who would read them, or cannot be looked at.
    pub fn check(&self) -> io::Result<()> {
        match self {
            Self::File(path) => service_user::refuse_planted_at(path),
            Self::StandardOutput => Ok(()),
        }
    }

    /// Writes keys, and waits until a file has them on disk: they are stored nowhere else.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, keys: &[NewKey]) -> io::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        match self {
            Self::File(path) => service_user::as_owner_of(path, || {
                secret_file::append(path, |file, is_new| {
                    // It may have been put there since it was looked at.
                    service_user::refuse_planted(path, &file.metadata()?)?;
                    write_csv(file, keys, is_new)
                })
            })?,
            Self::StandardOutput => write_csv(io::stdout().lock(), keys, true),
        }
    }
}

fn write_csv(out: impl Write, keys: &[NewKey], with_head: bool) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    if with_head {
        writer.write_record(["tenant", "port", "key_id", "key"])?;
    }
    for key in keys {
        let port = key.port.map(|port| port.to_string()).unwrap_or_default();
        writer.write_record([key.tenant.as_str(), &port, &key.key_id, key.token.expose()])?;
    }
    writer.flush()
}
