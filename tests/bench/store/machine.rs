//! On what the figures were taken: a figure without its machine says little.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sq_tests::{binaries, machine, process};

use super::subject::{Side, Subject};

/// Prints the machine and the file system of a folder.
pub(crate) fn describe(folder: &Path) {
    println!("machine: {}", machine::description());
    println!("data: {}", file_system(folder));
    load();
}

/// Prints how busy the machine is.
pub(crate) fn load() {
    println!("load: {}", machine::load_average());
}

/// Prints whom the figures are of.
pub(crate) fn versions(subjects: &[Subject]) {
    let of = |program: PathBuf| process::run(Command::new(program).arg("--version")).success();
    let worker = binaries::worker();
    println!("ours: {} ({})", of(worker.clone()).trim(), profile(&worker));
    match subjects.iter().find(|subject| subject.side == Side::Theirs) {
        Some(peer) => println!("peer: sq {}", peer.version()),
        None => println!("peer: none"),
    }
    println!("compiler: {}", of(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into()).trim());
}

/// The folder of a program, which Cargo names after its profile.
fn profile(program: &Path) -> String {
    let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
    format!("built as {}", folder.to_string_lossy())
}

/// The mount that a folder lies on: the longest mount point that leads to it (proc_mounts(5)).
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut found: Vec<(usize, String)> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if folder.starts_with(point) {
            found.push((point.len(), format!("{kind} ({options})")));
        }
    }
    found
        .into_iter()
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, found)| found)
}
