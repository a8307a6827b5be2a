//! Caddy: a `map` from the key to an upstream. Debian's has no module for rates.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::super::fleet::key;
use super::Site;

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let keys: String = site
        .tenants
        .iter()
        .map(|tenant| {
            format!("    \"Bearer {}\" \"{}:{}\"\n", key(tenant), site.fleet.root.address, tenant.port)
        })
        .collect();
    let config = format!(
        r#"{{
  admin off
  auto_https off
}}
http://:{} {{
  bind {}
  map {{http.request.header.Authorization}} {{upstream}} {{
{keys}    default ""
  }}
  @unknown vars {{upstream}} ""
  respond @unknown 401
  reverse_proxy {{upstream}} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
"#,
        address.port(),
        address.ip()
    );
    let file = folder.join("Caddyfile");
    std::fs::write(&file, config).expect("its config");
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    // As many threads as the others have.
    command.env("GOMAXPROCS", "1").env("HOME", folder);
    command
}
