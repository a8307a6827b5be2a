//! Where files lie. Every path of a tenant's data is built here, from checked names.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::phext_name::PhextName;
use crate::tenant::TenantName;

const PHEXT_SUFFIX: &str = ".phext";
const JOURNAL_SUFFIX: &str = ".journal";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The directories of removed tenants.
pub fn archives_dir(data_root: &Path) -> PathBuf {
    data_root.join(".archive")
}

/// The name of a removed tenant's directory in the archive; the time keeps two tenants of one name apart.
pub fn archive_name(tenant: &TenantName, now_s: u64) -> String {
    format!("{tenant}-{now_s}")
}

/// A tenant's directory, unless the registry names another one.
pub fn default_tenant_dir(data_root: &Path, name: &TenantName) -> PathBuf {
    data_root.join(name.as_str())
}

/// Marks the data root: a folder without it is not the data root, whatever its path.
pub fn data_root_marker(data_root: &Path) -> PathBuf {
    data_root.join(".sq-data-root")
}

/// The id of a system's data root, beside the config, which names the data root.
pub fn data_root_id(config: &Path) -> PathBuf {
    beside(config, ".data-root")
}

/// The notes about tenants whose directories have been seen: one file per tenant.
pub fn tenant_notes_dir(data_root: &Path) -> PathBuf {
    data_root.join(".sq-tenants")
}

/// The note of one tenant, in the folder of all notes.
pub fn tenant_note(notes_dir: &Path, name: &TenantName) -> PathBuf {
    notes_dir.join(name.as_str())
}

/// The path without links and `..`: absolute, links followed, dangling ones too. Two paths of one directory are the
/// same after this.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.canonicalize().unwrap_or_else(|_| followed(&absolute, |_| ()))
}

/// The folders, without links, of the links in a path. A user who may write to one of them decides where the path
/// leads.
pub fn folders_of_links(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut folders = Vec::new();
    followed(&absolute, |folder| folders.push(folder.to_owned()));
    folders
}

/// The number of links that the kernel follows in one path. It ends a circle of links too.
pub(crate) const LINKS: usize = 40;

/// `canonicalize` for a path that exists in part. Calls `tell` with the folder of each link that it follows.
fn followed(absolute: &Path, mut tell: impl FnMut(&Path)) -> PathBuf {
    let names = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
    };
    let (mut real, mut rest, mut links) = (PathBuf::new(), names(absolute), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            real.pop();
            continue;
        }
        // An absolute name replaces everything before it.
        let next = real.join(&name);
        match next.read_link() {
            Ok(target) if links < LINKS => {
                links += 1;
                tell(&real);
                rest.extend(names(&target));
            }
            _ => real = next,
        }
    }
    real
}

/// The folder that relative paths in a file are relative to, as an absolute path.
pub fn folder_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

fn file_of(tenant_dir: &Path, name: &PhextName, suffix: &str) -> PathBuf {
    let file_name = PathBuf::from([name.as_str(), suffix].concat());
    match name.folder() {
        // A worker names files relative to its directory, on each request.
        None if tenant_dir.as_os_str().is_empty() => file_name,
        None => tenant_dir.join(file_name),
        Some(folder) => tenant_dir.join(&folder.path).join(file_name),
    }
}

/// The file of a phext.
pub fn phext_file(tenant_dir: &Path, name: &PhextName) -> PathBuf {
    file_of(tenant_dir, name, PHEXT_SUFFIX)
}

/// The name of the phext in a file of this name; `None` for every other file.
pub fn phext_of_file(file_name: &OsStr) -> Option<PhextName> {
    PhextName::parse(file_name.to_str()?.strip_suffix(PHEXT_SUFFIX)?).ok()
}

/// The journal of a phext: writes that are not yet in its file.
pub fn journal_file(tenant_dir: &Path, name: &PhextName) -> PathBuf {
    file_of(tenant_dir, name, JOURNAL_SUFFIX)
}

/// The name of the phext whose journal has this name; `None` for every other file.
pub fn phext_of_journal(file_name: &OsStr) -> Option<PhextName> {
    PhextName::parse(file_name.to_str()?.strip_suffix(JOURNAL_SUFFIX)?).ok()
}

/// The phexts in folders of a tenant's directory to which links there lead: each file, and its journal, which may not
/// exist. Each is listed once, however many links lead to it.
pub fn files_in_folders(tenant_dir: &Path) -> BTreeSet<PathBuf> {
    let (Ok(directory), Ok(entries)) = (tenant_dir.canonicalize(), tenant_dir.read_dir()) else {
        return BTreeSet::new();
    };
    let is_link = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    let links =
        entries.flatten().filter(|entry| is_link(entry) && phext_of_file(&entry.file_name()).is_some());
    let files = links.map(|link| resolved(&link.path())).filter_map(|file| {
        let folder = file.parent().filter(|folder| *folder != directory && folder.starts_with(&directory))?;
        let name = phext_of_file(file.file_name()?)?;
        Some([phext_file(folder, &name), journal_file(folder, &name)])
    });
    files.flatten().collect()
}

/// The phext's part of the name of its file or journal, not yet checked; `None` for every other file.
pub fn stem(file_name: &OsStr) -> Option<&str> {
    let name = file_name.to_str()?;
    name.strip_suffix(PHEXT_SUFFIX).or_else(|| name.strip_suffix(JOURNAL_SUFFIX))
}

/// Disk space that a tenant's worker keeps for a full disk. No phext's name begins with a dot.
pub fn reserve_file(tenant_dir: &Path) -> PathBuf {
    tenant_dir.join(".reserve")
}

/// The keys of writes that may be repeated, for phexts without a journal. No phext's name begins with a dot.
pub fn remembered_keys_file(tenant_dir: &Path) -> PathBuf {
    tenant_dir.join(".keys")
}

/// Whether a worker reads and writes files of this name in a tenant's directory.
pub fn is_of_worker(file_name: &OsStr) -> bool {
    let here = Path::new("");
    stem(file_name).is_some()
        || [reserve_file(here), remembered_keys_file(here)].iter().any(|own| own == file_name)
}

/// The file that is written and synced before it replaces `path`.
pub fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, TEMPORARY_SUFFIX)
}

/// The name of the file that a temporary one is about to replace; `None` for every other file.
pub fn finished(file_name: &OsStr) -> Option<&OsStr> {
    Some(OsStr::new(file_name.to_str()?.strip_suffix(TEMPORARY_SUFFIX)?))
}

/// The file that is locked while the registry changes.
pub fn registry_lock(registry: &Path) -> PathBuf {
    with_suffix(registry, ".lock")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The gateway's log of all writes, beside its config.
pub fn audit_log(config: &Path) -> PathBuf {
    folder_of(config).join("audit.log")
}

/// The socket on which a gateway started with `--upgrade` waits for the running one's sockets: beside the config that
/// both have.
pub fn gateway_upgrade_socket(config: &Path) -> PathBuf {
    beside(config, ".handover")
}

/// The socket on which a pool started with `--upgrade` waits for the running one.
pub fn pool_upgrade_socket(config: &Path) -> PathBuf {
    beside(config, ".pool-upgrade")
}

/// The same path from every working directory.
fn beside(config: &Path, suffix: &str) -> PathBuf {
    with_suffix(&std::path::absolute(config).unwrap_or_else(|_| config.to_owned()), suffix)
}

/// The config in the root of `up`.
pub fn config_file(root: &Path) -> PathBuf {
    root.join("gateway.toml")
}

/// The new keys in the root of `up` and `provision`.
pub fn keys_file(root: &Path) -> PathBuf {
    root.join("keys.csv")
}
