//! The directories of tenants. A directory is a tenant's isolation: it is not another tenant's or inside one, it is
//! not the operating system's, and it holds no file of the service.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Registry, Tenant};
use crate::config::Config;
use crate::file_id::FileId;
use crate::layout;

/// Directories of the operating system: neither they nor directories in them are a tenant's. (The data root may be in
/// one: the operator has named it.)
const SYSTEM: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr",
];

/// Directories that many programs share: they are not a tenant's, but directories in them may be.
const SHARED: [&str; 16] = [
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var",
    "/var/backups",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",
];

/// A `data_dir` of a registry; a relative one is relative to the registry's folder.
pub(super) fn parse_data_dir(folder: &Path, text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() {
        return Err("an empty data_dir names no directory; leave the field out for <data root>/<name>");
    }
    if text.contains(char::is_control) {
        return Err("a data_dir has no control characters");
    }
    Ok(folder.join(text))
}

/// Why no tenant may have this directory (links followed), such as "a directory of the system"; `None` when a tenant
/// may.
pub fn unfit(real: &Path, config: &Config) -> Option<String> {
    Service::new(&config.gateway.tenants, config).objection(&Directory::at(real.to_owned()))
}

/// Each directory of a registry that cannot be its tenant's: the tenant's index, and what is wrong.
pub(super) fn mistakes(registry: &Registry, path: &Path, config: &Config) -> Vec<(usize, String)> {
    let service = Service::new(path, config);
    let mut found = Vec::new();
    let mut owners = Owners::default();
    let directories: Vec<Directory> =
        registry.tenants.iter().map(|tenant| Directory::from_tenant(tenant, &service.data_root)).collect();
    for (index, (tenant, directory)) in registry.tenants.iter().zip(&directories).enumerate() {
        if let Some(objection) = service.objection(directory) {
            let (name, real) = (&tenant.name, directory.real.display());
            let what =
                format!("the data_dir of tenant {name} is {real}, {objection}; give it another directory");
            found.push((index, what));
        } else if let Some(earlier) = owners.claim(directory, tenant) {
            found.push((
                index,
                format!("tenants {} and {} have the same data_dir", earlier.name, tenant.name),
            ));
        }
    }
    for (index, (tenant, directory)) in registry.tenants.iter().zip(&directories).enumerate() {
        if let Some(outer) = owners.around(directory) {
            let (name, outer) = (&tenant.name, &outer.name);
            found.push((index, format!("the data_dir of tenant {name} lies inside that of tenant {outer}")));
        }
    }
    found
}

/// Identifies a directory whatever its name: it may be a bind mount, or be spelled in another case where the file
/// system ignores that.
fn id_at(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().as_ref().map(FileId::from_metadata)
}

/// A tenant's directory as it is on the disk.
struct Directory {
    /// Its path, links followed.
    real: PathBuf,
    /// `None` while it does not exist.
    id: Option<FileId>,
    /// It is a folder of the data root and not a link, so its parents are known.
    is_plain: bool,
}

impl Directory {
    fn at(real: PathBuf) -> Self {
        Self { id: id_at(&real), real, is_plain: false }
    }

    /// `data_root` has its links followed.
    fn from_tenant(tenant: &Tenant, data_root: &Path) -> Self {
        let directory = tenant.directory(data_root);
        // Of 500 folders in the data root few are links: one `lstat` each is enough.
        match fs::symlink_metadata(&directory) {
            Ok(found) if found.is_symlink() => {}
            found if tenant.data_dir.is_none() => {
                return Self {
                    real: directory,
                    id: found.ok().as_ref().map(FileId::from_metadata),
                    is_plain: true,
                };
            }
            _ => {}
        }
        Self::at(layout::resolved(&directory))
    }
}

/// The service's own files.
struct Service {
    data_root: PathBuf,
    /// Each with its name; a link is listed by its folder.
    files: Vec<(&'static str, PathBuf)>,
    /// The folders around these files.
    folders: HashMap<FileId, &'static str>,
}

impl Service {
    fn new(registry: &Path, config: &Config) -> Self {
        let data_root = layout::resolved(&config.gateway.data_root);
        // Other files lie beside each of these, by its name: the lock, keys.csv, audit.log.
        let named = [
            ("the data root", "a link to the data root", config.gateway.data_root.as_path()),
            ("the config", "a link to the config", &config.path),
            ("the registry", "a link to the registry", registry),
            ("the registry", "a link to the registry", &config.gateway.tenants),
        ];
        let real = named.iter().map(|(what, _, path)| (*what, layout::resolved(path)));
        let links = named.iter().flat_map(|(_, what, path)| {
            layout::folders_of_links(path).into_iter().map(|folder| (*what, folder))
        });
        let files: Vec<_> = real.chain(links).collect();
        let around = |(what, path): &(&'static str, PathBuf)| {
            let ids: Vec<FileId> = path.ancestors().filter_map(id_at).collect();
            let what = *what;
            ids.into_iter().map(move |id| (id, what))
        };
        let folders = files.iter().rev().flat_map(around).collect();
        Self { data_root, files, folders }
    }

    /// Why no tenant may have a directory.
    fn objection(&self, directory: &Directory) -> Option<String> {
        let real = &directory.real;
        if !self.is_in_data_root(real) && is_of_the_system(real) {
            return Some("a directory of the system".to_owned());
        }
        if real.starts_with(layout::archives_dir(&self.data_root)) {
            return Some("a part of the archive of removed tenants".to_owned());
        }
        let by_path = || self.files.iter().find(|(_, file)| file.starts_with(real)).map(|(what, _)| *what);
        let by_id = || self.folders.get(&directory.id?).copied();
        by_path().or_else(by_id).map(|what| format!("a directory that holds {what}"))
    }

    /// A data root that is a directory of the operating system gives tenants nothing in it.
    fn is_in_data_root(&self, real: &Path) -> bool {
        let is_named = |names: &[&str]| names.iter().any(|name| self.data_root == Path::new(name));
        real.starts_with(&self.data_root) && !is_named(&SYSTEM) && !is_named(&SHARED)
    }
}

fn is_of_the_system(real: &Path) -> bool {
    SYSTEM.iter().any(|tree| real.starts_with(tree)) || SHARED.iter().any(|name| real == Path::new(name))
}

/// The owners of directories.
#[derive(Default)]
struct Owners<'t> {
    by_path: HashMap<PathBuf, &'t Tenant>,
    by_id: HashMap<FileId, &'t Tenant>,
}

impl<'t> Owners<'t> {
    /// Notes a directory's owner. Returns its earlier owner, if there is one.
    fn claim(&mut self, directory: &Directory, tenant: &'t Tenant) -> Option<&'t Tenant> {
        let of_id = directory.id.and_then(|id| self.by_id.get(&id));
        if let Some(earlier) = self.by_path.get(&directory.real).or(of_id) {
            return Some(earlier);
        }
        self.by_path.insert(directory.real.clone(), tenant);
        if let Some(id) = directory.id {
            self.by_id.insert(id, tenant);
        }
        None
    }

    /// The owner of a directory around this one. The parent of a plain one is the data root, which no tenant may
    /// have.
    fn around(&self, directory: &Directory) -> Option<&'t Tenant> {
        if directory.is_plain {
            return None;
        }
        let owner = |ancestor: &Path| {
            let of_id = || self.by_id.get(&id_at(ancestor)?);
            self.by_path.get(ancestor).or_else(of_id).copied()
        };
        directory.real.ancestors().skip(1).find_map(owner)
    }
}
