//! Where a link in a tenant's directory leads. Read name by name: what the kernel would follow could lead out, and where
//! the worker's directory is the root of all paths, an absolute link would lead elsewhere than its maker meant.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// As many links as the kernel follows in one path; a circle of links ends there too.
const LINKS: usize = 40;

/// The end of a path that may have links in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Within the directory, and from it; there may be nothing by this name.
    Within(PathBuf),
    /// Outside.
    Outside,
    /// The links lead to each other.
    Nowhere,
}

/// Where a name in the directory leads. Absolute links count from the directory's own paths. `passed` is told of each link.
pub(super) fn follow(
    directory: &File,
    own_paths: &[PathBuf],
    name: &Path,
    passed: &mut Vec<PathBuf>,
) -> Result<End, (PathBuf, Errno)> {
    let (mut real, mut rest) = (PathBuf::new(), names(name));
    while let Some(name) = rest.pop() {
        if name == ".." {
            if !real.pop() {
                return Ok(End::Outside);
            }
            continue;
        }
        let next = real.join(&name);
        let target = read_link(directory, &next).map_err(|error| (next.clone(), error))?;
        let Some(target) = target else {
            real = next;
            continue;
        };
        if passed.len() == LINKS {
            return Ok(End::Nowhere);
        }
        passed.push(next);
        if target.is_absolute() {
            let within = own_paths.iter().find_map(|own| target.strip_prefix(own).ok());
            let Some(within) = within else { return Ok(End::Outside) };
            real = PathBuf::new();
            rest.extend(names(within));
        } else {
            rest.extend(names(&target));
        }
    }
    Ok(End::Within(real))
}

/// The names in a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// What a link says; `None` for what is no link, is not there, or has too long a name to be there.
fn read_link(directory: &File, path: &Path) -> rustix::io::Result<Option<PathBuf>> {
    match rustix::fs::readlinkat(directory, path, Vec::new()) {
        Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}
