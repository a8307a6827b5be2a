//! Where the binaries under test are. They are built once per run, in the profile of the tests themselves, so that
//! `cargo test --workspace` is all that a fresh clone needs.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a folder with binaries to test instead of building them.
const BIN_DIR_VARIABLE: &str = "SQ_BIN_DIR";

/// The path of `sq-gateway`.
pub fn gateway() -> PathBuf {
    folder().join("sq-gateway")
}

/// The path of `sq-worker`.
pub fn worker() -> PathBuf {
    folder().join("sq-worker")
}

/// The folder that the workspace's `Cargo.toml` is in.
///
/// # Panics
/// The tests were moved out of it.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace around this crate")
}

/// A program of the machine's.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|program| program.is_file())
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os(BIN_DIR_VARIABLE) {
        Some(folder) => folder.into(),
        None => build(),
    })
}

/// Set by `cargo nextest`, which starts a process per test: the same for all tests of a run.
const RUN_VARIABLE: &str = "NEXTEST_RUN_ID";

/// Builds them, unless another process of the same run has.
fn build_once(profile_dir: &Path, build: impl FnOnce()) {
    let Ok(run) = std::env::var(RUN_VARIABLE) else { return build() };
    let path = profile_dir.join("sq-tests-built-for-run");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.as_mut().expect("a file beside the binaries");
    file.lock().expect("its lock");
    let mut built = String::new();
    file.read_to_string(&mut built).expect("the last run's id");
    if built != run {
        build();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(run.as_bytes()))
            .expect("this run's id");
    }
}

/// The tests' own program is `<target>/<profile>/deps/it-…`.
fn build() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the running test");
    let profile_dir = program.ancestors().nth(2).expect("a profile's folder").to_owned();
    let target_dir = profile_dir.parent().expect("a target folder");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args([
        "build",
        "--quiet",
        "--workspace",
        "--bins",
        "--profile",
        profile,
    ]);
    // `--tests` selects the same features of the libraries as `cargo test --workspace` did, so that none
    // of them is compiled twice. A bench has no use for them.
    if profile == "dev" {
        command.arg("--tests");
    }
    command.arg("--target-dir").arg(target_dir);
    build_once(&profile_dir, || {
        let status = command.status().expect("cargo can be run");
        assert!(status.success(), "the binaries under test do not build: {status}");
    });
    profile_dir
}
