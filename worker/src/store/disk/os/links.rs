//! Resolves links in a tenant's directory, name by name: the kernel could follow them out of it; and a worker whose root is
//! that directory would resolve absolute links differently than their author.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// As many as the kernel follows in one path; a cycle of links ends there too.
const LINKS: usize = 40;

/// Where a path with links in it leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LinkEnd {
    /// Here, relative to the directory. There may be no such file.
    Within(PathBuf),
    /// Out of the directory.
    Outside,
    /// Nowhere: the links form a cycle.
    Nowhere,
}

/// Resolves a name in the directory. Absolute links count from the directory's own paths. `passed` gets each link on the
/// way.
pub(super) fn follow(
    directory: &File,
    own_paths: &[PathBuf],
    name: &Path,
    passed: &mut Vec<PathBuf>,
) -> Result<LinkEnd, (PathBuf, Errno)> {
    let (mut real, mut rest) = (PathBuf::new(), names(name));
    while let Some(name) = rest.pop() {
        if name == ".." {
            if !real.pop() {
                return Ok(LinkEnd::Outside);
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
            return Ok(LinkEnd::Nowhere);
        }
        passed.push(next);
        if target.is_absolute() {
            let within = own_paths.iter().find_map(|own| target.strip_prefix(own).ok());
            let Some(within) = within else { return Ok(LinkEnd::Outside) };
            real = PathBuf::new();
            rest.extend(names(within));
        } else {
            rest.extend(names(&target));
        }
    }
    Ok(LinkEnd::Within(real))
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

/// The target of a link; `None` when this is not a link, is missing, or has a name that is too long to exist.
fn read_link(directory: &File, path: &Path) -> rustix::io::Result<Option<PathBuf>> {
    match rustix::fs::readlinkat(directory, path, Vec::new()) {
        Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}
