//! The CSV that new keys go to, once: `tenant,port,key_id,key`, mode 0600. The registry has only digests.

use std::io;
use std::path::Path;

use sq_shared::registry::Key;
use sq_shared::registry::edit::write_key;
use sq_shared::secret_file;
use sq_shared::token::BearerToken;

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

/// Appends keys to the file, and waits until they are on disk: they are stored nowhere else.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, keys: &[NewKey]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    secret_file::append(path, |file, is_new| {
        let mut writer = csv::Writer::from_writer(file);
        if is_new {
            writer.write_record(["tenant", "port", "key_id", "key"])?;
        }
        for key in keys {
            let port = key.port.map(|port| port.to_string()).unwrap_or_default();
            writer.write_record([key.tenant.as_str(), &port, &key.key_id, key.token.expose()])?;
        }
        writer.flush()
    })
}
