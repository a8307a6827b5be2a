//! Who owns a file, and whether this process may use what another user owns.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User};

/// A user for people: with a name, if the system knows one.
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {} ({uid})", user.name),
        _ => format!("user {uid}"),
    }
}

/// Whether this process is root, or was and has not given it up.
pub fn is_root() -> bool {
    nix::unistd::getresuid().is_ok_and(|user| user.saved.is_root())
}

/// Refuses, for users other than root, to work on files of which this user owns none: it would leave files there that the
/// owner cannot read. Files of root may have been made for this user. (Root acts as the owner.)
pub fn refuse_wrong_user(paths: &[&Path]) -> io::Result<()> {
    let me = nix::unistd::geteuid();
    if is_root() {
        return Ok(());
    }
    let owners = || paths.iter().filter_map(|path| Some((path, path.metadata().ok()?.uid())));
    if owners().any(|(_, owner)| owner == me.as_raw()) {
        return Ok(());
    }
    let Some((path, owner)) = owners().find(|(_, owner)| *owner != 0 && is_known_here(*owner)) else {
        return Ok(());
    };
    Err(io::Error::other(format!(
        "{} belongs to {}, and this is {}, whose files that user could not read: nothing was done. Run it as that user \
         (`sudo -u '#{owner}' …`), or as root, which acts as that user; or give all of it to this one (`chown -R {me} …`)",
        path.display(),
        user(owner),
        user(me.as_raw()),
    )))
}

/// Whether a user exists in this user namespace. What belongs to users outside of it shows one owner as whom no process
/// inside can act (user_namespaces(7)); to this root, such a file is the system's.
pub fn is_known_here(uid: u32) -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return true };
    map.lines().any(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if uid >= first && uid - first < count)
    })
}
