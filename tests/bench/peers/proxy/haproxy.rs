//! HAProxy: a map file from the key to a backend, one backend a tenant, a stick table that counts requests by address.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::super::fleet::key;
use super::{Rate, Site};

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let map = folder.join("keys.map");
    let mut keys = String::new();
    let mut backends = String::new();
    for tenant in site.tenants {
        // The map's fields end at a blank, so the scheme is taken off before the lookup.
        keys += &format!("{} {}\n", key(tenant), tenant.name);
        backends += &format!(
            "backend {}\n  server worker {}:{}\n",
            tenant.name, site.fleet.root.address, tenant.port
        );
    }
    std::fs::write(&map, keys).expect("its map");
    let (period, most) = match site.rate {
        Rate::Never => ("1s", 1_000_000),
        Rate::OneAMinute => ("60s", 1),
        Rate::RememberedForAMinute => ("1d", 1440),
    };
    let config = format!(
        r#"global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 30s
  http-reuse always
frontend clients
  bind {address}
  stick-table type ip size 1m expire {period} store http_req_rate({period})
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {most} }}
  http-request set-var(txn.tenant) req.hdr(authorization),word(2,' '),map_str({})
  http-request deny deny_status 401 unless {{ var(txn.tenant) -m found }}
  use_backend %[var(txn.tenant)]
{backends}"#,
        map.display()
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).expect("its config");
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(file);
    command
}
