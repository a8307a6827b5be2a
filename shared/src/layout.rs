//! Where files lie. Every path of a tenant's data is made here, from names that have been checked.

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

/// What a removed tenant's directory is called there; the time keeps two of one name apart.
pub fn archive_name(tenant: &TenantName, now_s: u64) -> String {
    format!("{tenant}-{now_s}")
}

/// The directory that a tenant gets in the data root.
pub fn default_tenant_dir(data_root: &Path, name: &TenantName) -> PathBuf {
    data_root.join(name.as_str())
}

/// Marks the data root: without it, this is not the folder with the tenants' directories, whatever is at its path.
pub fn data_root_marker(data_root: &Path) -> PathBuf {
    data_root.join(".sq-data-root")
}

/// Where a system keeps the id of its data root: beside the config, which names the data root.
pub fn data_root_id(config: &Path) -> PathBuf {
    beside(config, ".data-root")
}

/// The notes of tenants whose directories have been seen: one file per tenant.
pub fn tenant_notes_dir(data_root: &Path) -> PathBuf {
    data_root.join(".sq-tenants")
}

/// The note of one tenant, in the folder of all notes.
pub fn tenant_note(notes_dir: &Path, name: &TenantName) -> PathBuf {
    notes_dir.join(name.as_str())
}

/// Where a path really leads: absolute, links followed, those to what does not exist too, and `..` taken away. Two paths
/// of one directory are the same after this.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.canonicalize().unwrap_or_else(|_| followed(&absolute, |_| ()))
}

/// The folders, with their own links followed, in which the links on the way to a path lie. Who may write to one of them
/// decides where the path leads.
pub fn folders_of_links(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut folders = Vec::new();
    followed(&absolute, |folder| folders.push(folder.to_owned()));
    folders
}

/// As many links as the kernel follows in one path; a circle of links ends there too.
pub(crate) const LINKS: usize = 40;

/// What `canonicalize` gives, for a path of which not all exists. Tells the folder of each link that it follows.
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
        // The root takes the place of everything before it.
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
        // A worker names its files from its own directory, and does so for each request.
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

/// The phexts in folders of a tenant's directory to which links there lead: the file of each, and its journal, which may not
/// exist. Each is given once, however many links it has.
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

/// The name of a phext as it stands in the name of its file or of its journal, not yet checked; `None` for every other
/// file.
pub fn stem(file_name: &OsStr) -> Option<&str> {
    let name = file_name.to_str()?;
    name.strip_suffix(PHEXT_SUFFIX).or_else(|| name.strip_suffix(JOURNAL_SUFFIX))
}

/// Room on the disk that a tenant's worker keeps for the moment when there is no other. The leading dot keeps
/// it apart from every phext.
pub fn reserve_file(tenant_dir: &Path) -> PathBuf {
    tenant_dir.join(".reserve")
}

/// The keys of writes that may come again, of phexts that have no journal. The leading dot keeps it apart from every phext.
pub fn remembered_keys_file(tenant_dir: &Path) -> PathBuf {
    tenant_dir.join(".keys")
}

/// Whether a file of this name in a tenant's directory is a worker's to read and write.
pub fn is_of_worker(file_name: &OsStr) -> bool {
    let here = Path::new("");
    stem(file_name).is_some()
        || [reserve_file(here), remembered_keys_file(here)].iter().any(|own| own == file_name)
}

/// The file that is written and synced before it takes the place of `path`.
pub fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, TEMPORARY_SUFFIX)
}

/// The name of the file whose place a temporary one is about to take; `None` for every other file.
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

/// Where the gateway notes every write: beside its config.
pub fn audit_log(config: &Path) -> PathBuf {
    folder_of(config).join("audit.log")
}

/// Where a gateway that is started with `--upgrade` waits for the sockets of the running one: beside the config that
/// both have.
pub fn gateway_upgrade_socket(config: &Path) -> PathBuf {
    beside(config, ".handover")
}

/// Where a pool that is started with `--upgrade` waits for the one that runs.
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
