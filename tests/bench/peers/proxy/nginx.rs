//! nginx: a `map` from the key to an upstream, one upstream with kept connections a tenant, `limit_req` by address.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::super::fleet::key;
use super::{Rate, Site};

pub(super) fn command(program: &Path, folder: &Path, site: &Site<'_>, address: SocketAddr) -> Command {
    let shown = folder.display();
    let mut keys = String::new();
    let mut upstreams = String::new();
    for tenant in site.tenants {
        keys += &format!("    \"Bearer {}\" {};\n", key(tenant), tenant.name);
        upstreams += &format!(
            "  upstream {} {{ server {}:{}; keepalive 256; keepalive_requests 1000000000; }}\n",
            tenant.name, site.fleet.root.address, tenant.port
        );
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {shown}/{kind};\n"))
        .concat();
    let (rate, burst) = match site.rate {
        Rate::Never => ("1000000r/s", "burst=1000000 nodelay"),
        Rate::OneAMinute => ("1r/m", "nodelay"),
        Rate::RememberedForAMinute => ("1r/m", "burst=1440 nodelay"),
    };
    // Addresses come from a proxy in front, as they do to the gateway.
    let real_address = "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on;";
    let config = format!(
        r#"daemon off;
worker_processes 1;
user root;
pid {shown}/pid;
error_log {shown}/error.log;
events {{ worker_connections 8192; }}
http {{
{temporary}  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  map_hash_bucket_size 128;
  map_hash_max_size 8192;
  {real_address}
  limit_req_zone $binary_remote_addr zone=addresses:128m rate={rate};
  limit_req_status 429;
  limit_req_log_level info;
  proxy_max_temp_file_size 0;
  map $http_authorization $tenant {{
    default "";
{keys}  }}
{upstreams}  server {{
    listen {address} backlog=4096;
    location / {{
      if ($tenant = "") {{ return 401; }}
      limit_req zone=addresses {burst};
      proxy_pass http://$tenant;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"#
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("its config");
    let mut command = Command::new(program);
    command.arg("-c").arg(file);
    command
}
