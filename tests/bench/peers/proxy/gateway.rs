//! Our gateway, as it is shipped but for its rates, one thread and the access log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use sq_tests::setup::{Setup, config_text, registry_text};

use super::{Rate, Site};

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let setup = &site.fleet.setup;
    let rate = match site.rate {
        Rate::Never => "1000000/s",
        Rate::OneAMinute => "1/min",
        Rate::RememberedForAMinute => "1440/day",
    };
    let admin = SocketAddr::new(address.ip(), address.port() + 1000);
    let own = Setup {
        gateway: format!("listen = \"{address}\"\nadmin_listen = \"{admin}\"\n"),
        limits: format!("per_ip = \"{rate}\"\n{}", setup.limits),
        ..setup.clone()
    };
    let file = folder.join("gateway.toml");
    std::fs::write(&file, config_text(&own, site.fleet.root.address)).expect("its config");
    std::fs::write(folder.join("tenants.toml"), registry_text(site.tenants)).expect("its registry");
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(file).env("RUST_LOG", "info,access=off");
    command
}
