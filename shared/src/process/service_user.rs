//! Root acts as the user who controls a path: a link that this user has planted then leads nowhere that the user
//! could not go alone. `docs/decisions/0014-root-and-the-service-user.md` says why.

use std::ffi::{CString, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, User};

use crate::config::Config;
use crate::file_error::is_absent;
use crate::file_owner::{self, is_known_here, is_root, refuse_wrong_user};
use crate::layout::{LINKS, folder_of};
use crate::process::terminal_guard;
use crate::regular_file;

/// The user as whom this process acts instead of root, once it is known.
static SERVICE_USER: OnceLock<PathOwner> = OnceLock::new();

/// The first owner other than root along a path.
#[derive(Debug)]
struct PathOwner {
    uid: Uid,
    gid: Gid,
    /// `None` when the user has no passwd entry, as in many containers.
    name: Option<CString>,
    /// What the user owns: a folder or link along the path, or the file.
    owned: PathBuf,
}

/// Acts from now on as the user who controls a system's config, registry or data root; stays root when only root
/// controls them.
pub fn act_for_system(config_file: &Path) -> io::Result<()> {
    act_as_owner_of(config_file)?;
    if !is_root() || SERVICE_USER.get().is_some() {
        return Ok(());
    }
    // Mistakes in it are reported when it is loaded for use.
    let Ok(config) = Config::load(config_file) else { return Ok(()) };
    act_as_owner_of(&config.gateway.tenants)?;
    act_as_owner_of(&config.gateway.data_root)
}

/// Acts from now on as the user who controls a path, unless that is root. Once there is such a user, it does not
/// change.
pub fn act_as_owner_of(path: &Path) -> io::Result<()> {
    if !is_root() || SERVICE_USER.get().is_some() {
        return Ok(());
    }
    let Some(owner) = PathOwner::along(path)? else { return Ok(()) };
    switch_to(Some(&owner))?;
    let _ = SERVICE_USER.set(owner);
    Ok(())
}

/// Runs `work` as the user who controls a path that the operator has named, which may be root: for a file outside the
/// system, such as the file for new keys. Only while the process has one thread.
pub fn as_owner_of<T>(path: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    acting_as(|| PathOwner::along(path), work)
}

/// Runs `work` as the owner of a directory, to see what that user may do there.
pub fn as_owner_of_directory<T>(path: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let owner = || match path.metadata()?.uid() {
        // Root may have left it behind.
        0 => PathOwner::along(path),
        uid if is_known_here(uid) => PathOwner::new(uid, path.to_owned()).map(Some),
        _ => Ok(None),
    };
    acting_as(owner, work)
}

fn acting_as<T>(
    owner: impl FnOnce() -> io::Result<Option<PathOwner>>,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    if !is_root() {
        return Ok(work());
    }
    let usual = SERVICE_USER.get();
    if usual.is_some() {
        switch_to(None)?;
    }
    let owner = owner()?;
    if owner.is_some() {
        switch_to(owner.as_ref())?;
    }
    let result = work();
    if usual.is_some() || owner.is_some() {
        switch_to(usual)?;
    }
    Ok(result)
}

/// For a process that stays root: refuses an opened file that is not the property of the user who controls its path,
/// and who may have redirected it.
pub fn refuse_foreign(path: &Path, opened: &File) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let Some(owner) = PathOwner::along(path)? else { return Ok(()) };
    if opened.metadata()?.uid() == owner.uid.as_raw() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} owns {}, and this, to which it leads, is another's: run as that user, or chown it",
        file_owner::user(owner.uid.as_raw()),
        owner.owned.display()
    )))
}

/// Refuses to append secrets to a file that another user may have planted, as anyone can in `/tmp`: its owner would
/// read them. The owner must be root, the command's user, or the user who controls the system or the file's folder.
pub fn refuse_planted(path: &Path, found: &Metadata) -> io::Result<()> {
    let owner = found.uid();
    let is_of_command = owner == 0 || owner == nix::unistd::getresuid()?.real.as_raw();
    let is_of_system = || SERVICE_USER.get().is_some_and(|user| user.uid.as_raw() == owner);
    if is_of_command || is_of_system() || !is_known_here(owner) {
        return Ok(());
    }
    let of_folder = PathOwner::along(&folder_of(path))?;
    if of_folder.is_some_and(|user| user.uid.as_raw() == owner) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the file is there already and belongs to {}, who could read them; remove it, or name a file in a folder that \
         only you may write to",
        file_owner::user(owner)
    )))
}

/// The same for a file at this path, before anything is done.
pub fn refuse_planted_at(path: &Path) -> io::Result<()> {
    as_owner_of(&folder_of(path), || match std::fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => Ok(()),
        found => {
            let found = found?;
            refuse_planted(path, &found)?;
            regular_file::check_appendable(&found)
        }
    })?
}

/// As [`refuse_wrong_user`], for a system that is to be served.
pub fn refuse_wrong_user_of(config_file: &Path) -> io::Result<()> {
    // Mistakes in it are reported when it is loaded for use.
    let Ok(config) = Config::load(config_file) else { return Ok(()) };
    refuse_wrong_user(&[&config.gateway.data_root, &config.gateway.tenants])
}

/// Gives root up for good when the process acts as another user: for processes that serve. Only while the process has
/// one thread.
pub fn give_up_root() -> io::Result<()> {
    let Some(PathOwner { uid, gid, .. }) = SERVICE_USER.get().filter(|_| is_root()) else { return Ok(()) };
    if let Err(error) = terminal_guard::refuse_typing() {
        tracing::warn!(%error, "failed to refuse typing into root's terminal; start this without a terminal");
    }
    nix::unistd::setresgid(*gid, *gid, *gid)?;
    Ok(nix::unistd::setresuid(*uid, *uid, *uid)?)
}

/// Advice when root was denied something because it acted as another user.
pub(crate) fn advice_for(failure: &str) -> Option<String> {
    let owner = SERVICE_USER.get().filter(|_| failure.contains("Permission denied"))?;
    Some(format!(
        "this was done as {}, who owns {}: root follows no path that another user can redirect. What it takes must be \
         that user's (chown), or lie where only root may write",
        file_owner::user(owner.uid.as_raw()),
        owner.owned.display()
    ))
}

/// Applies to all threads: the C library's calls do.
fn switch_to(user: Option<&PathOwner>) -> io::Result<()> {
    let switch = || {
        nix::unistd::seteuid(Uid::from_raw(0))?;
        let Some(PathOwner { uid, gid, name, .. }) = user else {
            nix::unistd::setgroups(&[])?;
            return nix::unistd::setegid(Gid::from_raw(0));
        };
        match name {
            Some(name) => nix::unistd::initgroups(name, *gid)?,
            None => nix::unistd::setgroups(&[])?,
        }
        nix::unistd::setegid(*gid)?;
        nix::unistd::seteuid(*uid)
    };
    switch().map_err(|error| {
        let who = user.map_or_else(|| "root".to_owned(), |user| file_owner::user(user.uid.as_raw()));
        io::Error::other(format!("failed to act as {who}: {error}; run the command as that user"))
    })
}

impl PathOwner {
    /// Examines every folder and link along the path, from the top. What only root controls cannot change meanwhile,
    /// and this stops at the first one that another user controls, so that user can exchange nothing in between.
    fn along(path: &Path) -> io::Result<Option<Self>> {
        let mut here = PathBuf::from("/");
        let mut rest = parts(&std::path::absolute(path)?);
        let mut links = 0;
        loop {
            let found = match std::fs::symlink_metadata(&here) {
                Err(error) if is_absent(&error) => return Ok(None),
                found => found
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", here.display())))?,
            };
            if found.uid() != 0 && is_known_here(found.uid()) {
                return Ok(Some(Self::new(found.uid(), here)?));
            }
            if found.is_symlink() {
                links += 1;
                if links > LINKS {
                    return Err(io::Error::other(format!("{}: too many symbolic links", path.display())));
                }
                let target = std::fs::read_link(&here)?;
                here = if target.is_absolute() { PathBuf::from("/") } else { parent(here) };
                rest.extend(parts(&target));
            }
            match rest.pop() {
                None => return Ok(None),
                Some(part) if part == ".." => here = parent(here),
                Some(part) => here.push(part),
            }
        }
    }

    fn new(uid: u32, owned: PathBuf) -> io::Result<Self> {
        let uid = Uid::from_raw(uid);
        Ok(match User::from_uid(uid)? {
            Some(user) => Self { uid, gid: user.gid, name: CString::new(user.name).ok(), owned },
            // The folder's group may be root's.
            None => Self { uid, gid: Gid::from_raw(uid.as_raw()), name: None, owned },
        })
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|part| part.as_os_str().to_owned()).collect()
}

fn parent(mut path: PathBuf) -> PathBuf {
    path.pop();
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    const USER: u32 = 65534;

    fn owner(path: &Path) -> Option<(u32, PathBuf)> {
        PathOwner::along(path).unwrap().map(|owner| (owner.uid.as_raw(), owner.owned))
    }

    #[test]
    fn the_first_owner_along_a_path_counts_through_links_too() {
        if !nix::unistd::geteuid().is_root() {
            // Only root can make files of another user.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let path = |name: &str| top.join(name);
        for name in ["own/deep", "theirs/deep", "plain"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        chown(path("theirs"), Some(USER), None).unwrap();
        symlink("theirs/deep/..", path("link")).unwrap();
        symlink(path("own"), path("own-link")).unwrap();
        symlink("own", path("their-link")).unwrap();
        lchown(path("their-link"), Some(USER), None).unwrap();
        symlink("round", path("round")).unwrap();
        let theirs = Some((USER, path("theirs")));
        let rows = [
            ("own/deep/file", None),
            ("own-link/deep/file", None),
            ("plain/../own", None),
            ("theirs", theirs.clone()),
            ("theirs/deep/file", theirs.clone()),
            ("theirs/absent/absent", theirs.clone()),
            ("plain/../theirs/file", theirs.clone()),
            ("link/file", theirs.clone()),
            ("theirs/../own", theirs),
            ("their-link/deep", Some((USER, path("their-link")))),
        ];
        for (name, expected) in rows {
            assert_eq!(owner(&path(name)), expected, "{name}");
        }
        assert!(
            PathOwner::along(&path("round/file"))
                .unwrap_err()
                .to_string()
                .contains("too many symbolic links")
        );
    }
}
