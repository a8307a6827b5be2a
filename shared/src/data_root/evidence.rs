//! Finds evidence that a system was used, when its data root or registry is missing: it is then lost, and not new.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Why;
use crate::config::Config;
use crate::registry::Registry;
use crate::{layout, regular_file};

/// How much of an audit log is read.
const AUDIT_LOG_BYTES: u64 = 256 * 1024;

/// What the audit log's line of a successful write contains.
const WRITTEN: &[u8] = br#""status":200"#;

/// Whether a root without a marker may be the system's: the system is new, or a tenant's directory is there. If
/// writes were made and no directory is there, the disk is not mounted.
pub(super) fn has_directories(config: &Config, registry: &Registry) -> Result<(), Why> {
    let data_root = &config.gateway.data_root;
    let directories = registry.tenants.iter().map(|tenant| tenant.directory(data_root));
    // A directory on another disk says nothing about this one.
    let in_root: Vec<PathBuf> = directories.filter(|directory| directory.starts_with(data_root)).collect();
    if in_root.is_empty() || in_root.iter().any(|directory| directory.is_dir()) {
        return Ok(());
    }
    let audit_log = layout::audit_log(&config.path);
    match with_writes(&audit_log) {
        Some(audit_log) => Err(Why::NoDirectories { tenants: in_root.len(), audit_log }),
        None => Ok(()),
    }
}

/// Evidence that a system without a registry had tenants: a write in its audit log, or files in a noted directory.
/// Its registry is then lost, or on a disk that is not mounted.
pub fn evidence_of_tenants(config: &Config) -> Option<PathBuf> {
    let root = &config.gateway.data_root;
    let noted = std::fs::read_dir(layout::tenant_notes_dir(root)).into_iter().flatten().flatten();
    let directories = noted.map(|note| root.join(note.file_name()));
    let is_used =
        |directory: &PathBuf| std::fs::read_dir(directory).is_ok_and(|mut files| files.next().is_some());
    with_writes(&layout::audit_log(&config.path)).or_else(|| directories.into_iter().find(is_used))
}

/// Some tenant's note: a tenant had a directory.
pub fn first_note(config: &Config) -> Option<PathBuf> {
    let notes = std::fs::read_dir(layout::tenant_notes_dir(&config.gateway.data_root)).ok()?;
    notes.flatten().map(|note| note.path()).next()
}

/// The audit log, if it has a write, or a rotated one.
fn with_writes(audit_log: &Path) -> Option<PathBuf> {
    if has_writes(audit_log) {
        return Some(audit_log.to_owned());
    }
    let (folder, name) = (audit_log.parent()?, audit_log.file_name()?.to_str()?);
    let is_rotated = |file: &Path| {
        let rest = file.file_name().and_then(|file| file.to_str()?.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    };
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.filter(|file| is_rotated(file)).find(|file| file.metadata().is_ok_and(|found| found.len() > 0))
}

/// Whether the log has a successful write. Its beginning is enough.
fn has_writes(audit_log: &Path) -> bool {
    // A pipe's content is for its reader, and is not waited for.
    if !std::fs::metadata(audit_log).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let Ok(file) = regular_file::open(audit_log) else { return false };
    let mut beginning = Vec::new();
    if file.take(AUDIT_LOG_BYTES).read_to_end(&mut beginning).is_err() {
        return false;
    }
    let mut lines = beginning.split_inclusive(|byte| *byte == b'\n');
    let is_made = |line: &[u8]| line.windows(WRITTEN.len()).any(|part| part == WRITTEN);
    lines.any(|line| line.ends_with(b"\n") && is_made(line))
}
