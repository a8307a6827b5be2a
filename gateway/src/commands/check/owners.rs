//! Finds the owner of a listening socket: a process of this system, or another. The kernel tells which process has a
//! socket open, and our processes name their config in their command line.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use sq_shared::config::Config;
use sq_shared::layout;

use super::sockets::Inode;

/// The default root of `up`.
const DEFAULT_ROOT: &str = "sq-data";

/// The program that may have a pool as its child.
const PROGRAM: &str = "sq-gateway";

/// The owner of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A process of this system.
    Ours,
    /// Another process, described for the operator.
    Other(String),
    /// A process that this user may not look at, or that runs in another container.
    Unknown,
}

/// The owners of the sockets that this user may see.
pub(super) struct Owners {
    sockets: HashMap<Inode, Owner>,
    /// A process of this system hides its descriptors from this user. Sockets without a visible owner are taken for its.
    is_ours_hidden: bool,
}

impl Owners {
    /// Looks at all processes of this machine.
    pub(super) fn scan(config: &Config) -> Self {
        let mut owners = Self { sockets: HashMap::new(), is_ours_hidden: false };
        let mut relations = Relations::default();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            owners.look_at(pid, &process.path(), config, &mut relations);
        }
        owners.is_ours_hidden |= relations.hidden.iter().any(|pid| relations.parents.contains(pid));
        owners
    }

    fn look_at(&mut self, pid: u32, process: &Path, config: &Config, relations: &mut Relations) {
        let is_ours = || config_of(process).is_some_and(|file| is_of_system(&file, config));
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
            self.is_ours_hidden |= is_ours();
            let command = fs::read_to_string(process.join("comm"));
            relations.hidden.extend(command.is_ok_and(|name| name.trim() == PROGRAM).then_some(pid));
            return;
        };
        let sockets: Vec<Inode> = descriptors
            .flatten()
            .filter_map(|descriptor| {
                let name = fs::read_link(descriptor.path()).ok()?;
                name.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            })
            .collect();
        if sockets.is_empty() {
            return;
        }
        let owner = if is_ours() {
            relations.parents.extend(parent_of(process));
            Owner::Ours
        } else {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Owner::Other(format!("process {pid}, {}", command.trim()))
        };
        for inode in sockets {
            // A worker shares its socket with its pool, but does not name the config.
            let known = self.sockets.entry(inode).or_insert_with(|| owner.clone());
            if owner == Owner::Ours {
                *known = Owner::Ours;
            }
        }
    }

    /// The owner of a socket, if it was found.
    pub(super) fn owner_of(&self, socket: Option<Inode>) -> Owner {
        match socket.and_then(|inode| self.sockets.get(&inode)) {
            Some(owner) => owner.clone(),
            None if self.is_ours_hidden => Owner::Ours,
            None => Owner::Unknown,
        }
    }
}

/// `up` hides its descriptors and its working directory after it has given up root. It is recognised as the parent of this
/// system's pool.
#[derive(Default)]
struct Relations {
    /// Gateways whose descriptors this user may not see.
    hidden: Vec<u32>,
    /// The parents of this system's processes.
    parents: HashSet<u32>,
}

fn parent_of(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The config of a process that runs `up`, `serve` or `pool`.
fn config_of(process: &Path) -> Option<PathBuf> {
    let line = fs::read(process.join("cmdline")).ok()?;
    let arguments: Vec<PathBuf> = line
        .split(|byte| *byte == 0)
        .map(|word| std::ffi::OsString::from_vec(word.to_vec()).into())
        .collect();
    let has = |verb: &str| arguments.iter().any(|argument| *argument == Path::new(verb));
    let value = |name: &str| {
        let mut after = arguments.iter().skip_while(|argument| **argument != Path::new(name)).skip(1);
        let joined =
            |argument: &PathBuf| argument.to_str()?.strip_prefix(name)?.strip_prefix('=').map(PathBuf::from);
        after.next().cloned().or_else(|| arguments.iter().find_map(joined))
    };
    if !["up", "serve", "pool"].into_iter().any(has) {
        return None;
    }
    let root = || value("--root").or_else(|| has("up").then(|| DEFAULT_ROOT.into()));
    let file = value("--config").or_else(|| root().map(|root| layout::config_file(&root)))?;
    if file.is_absolute() { Some(file) } else { Some(fs::read_link(process.join("cwd")).ok()?.join(file)) }
}

/// Whether a config is this system's: the same file, or an edited copy with the same registry.
fn is_of_system(file: &Path, config: &Config) -> bool {
    let is_same = |one: &Path, other: &Path| layout::resolved(one) == layout::resolved(other);
    is_same(file, &config.path)
        || Config::load(file).is_ok_and(|other| is_same(&other.gateway.tenants, &config.gateway.tenants))
}
