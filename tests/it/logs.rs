//! What the programs log: no key, query or body at any level, no line longer than necessary, and no character that
//! hides part of a line.

mod hidden;
mod length;
mod secrets;

use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::Setup;

/// A system that logs at this level and in this format. The harness puts its log beside the config.
fn deployment(format: &str, level: &str) -> Deployment {
    let root = Root::new(&Setup::default());
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = root.gateway_command(&["--log-format", format, "up", "--root", &folder]);
    command.env("RUST_LOG", level);
    Deployment::spawn(root, &mut command)
}
