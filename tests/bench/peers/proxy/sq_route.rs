//! SQ's own router: it listens on every address, and looks for workers on 127.0.0.1 alone; so the bench runs in a
//! network of its own, and its workers listen there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::super::fleet::key;
use super::Site;

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let tenant = |tenant: &sq_tests::setup::Tenant| serde_json::json!({ "token": key(tenant), "port": tenant.port, "data_dir": folder });
    let registry = serde_json::json!({ "tenants": site.tenants.iter().map(tenant).collect::<Vec<_>>() });
    let file = folder.join("tenants.json");
    std::fs::write(&file, registry.to_string()).expect("its registry");
    let mut command = Command::new(program);
    command.arg("route").arg(file).arg(address.port().to_string());
    command
}
