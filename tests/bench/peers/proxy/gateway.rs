//! Our gateway, as it is shipped but for its rates, one thread and the access log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use sq_tests::setup::registry_text;

use super::{Rate, Site};

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let root = &site.fleet.root;
    let admin_port = address.port() + 1000;
    let rate = match site.rate {
        Rate::Never => "1000000/s",
        Rate::OneAMinute => "1/min",
        Rate::RememberedForAMinute => "1440/day",
    };
    let config = root
        .read("gateway.toml")
        .replace(&format!("{}:1337", root.address), &address.to_string())
        .replace(&format!("{}:1338", root.address), &format!("{}:{admin_port}", root.address))
        .replace("per_ip = \"1000000/s\"", &format!("per_ip = \"{rate}\""));
    let file = folder.join("gateway.toml");
    std::fs::write(&file, config).expect("its config");
    std::fs::write(folder.join("tenants.toml"), registry_text(site.tenants)).expect("its registry");
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(file).env("RUST_LOG", "info,access=off");
    command
}
