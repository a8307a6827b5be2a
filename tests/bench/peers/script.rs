//! What `wrk` sends, as its Lua scripts. Requests are put together before the run where they can be: what the load
//! costs is taken from the proxies' processors.

use std::net::SocketAddr;
use std::path::PathBuf;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::setup::Tenant;

use super::fleet::key;

/// A script that `wrk` can run.
#[derive(Debug)]
pub(crate) struct Written {
    /// Its file.
    pub(crate) file: PathBuf,
    script: Script,
}

impl Written {
    /// The answer to a plain request of its kind, from this machine's own address and on a connection of its own.
    pub(crate) fn ask_once(&self, address: SocketAddr) -> Answer {
        let Script { method, target, body_bytes, keys, .. } = &self.script;
        let client = Client::new(address, keys.first().map(String::as_str));
        let body = "x".repeat(*body_bytes);
        client.request(method, target, "", (*body_bytes > 0).then_some(body.as_bytes()))
    }
}

/// Requests to be.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The script's file name.
    pub(crate) name: String,
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) target: String,
    /// Of so many bytes; 0 is none.
    pub(crate) body_bytes: usize,
    /// One after the other.
    pub(crate) keys: Vec<String>,
    /// More fields, as Lua.
    pub(crate) fields: &'static str,
    /// From so many client addresses, drawn by lot, as a proxy in front would tell them; 0 tells none.
    pub(crate) addresses: u32,
}

impl Script {
    /// Reads, with one key.
    pub(crate) fn get(name: &str, target: &str, tenants: &[Tenant]) -> Self {
        Self {
            name: name.replace([' ', ','], "-"),
            method: "GET",
            target: target.to_owned(),
            body_bytes: 0,
            keys: tenants.iter().map(|tenant| key(tenant).to_owned()).collect(),
            fields: "",
            addresses: 0,
        }
    }

    /// Writes the script into the folder.
    pub(crate) fn write(self, root: &Root) -> Written {
        let name = format!("{}.lua", self.name);
        root.write(&name, &self.text());
        Written { file: root.join(&name), script: self }
    }

    fn text(&self) -> String {
        let Self { method, target, body_bytes, fields, addresses, .. } = self;
        let keys: Vec<String> = self.keys.iter().map(|key| format!("\"{key}\"")).collect();
        let body =
            if *body_bytes == 0 { "nil".to_owned() } else { format!("string.rep(\"x\", {body_bytes})") };
        format!(
            r#"local keys = {{{}}}
local body = {body}
local function headers(key)
  return {{["Authorization"] = "Bearer " .. key{fields}}}
end
local requests, at, count = {{}}, 0, 0
function init()
  math.randomseed(os.time())
  for index, key in ipairs(keys) do
    requests[index] = wrk.format("{method}", "{target}", headers(key), body)
  end
  count = #requests
end
function request()
  at = at % count + 1
  if {addresses} == 0 then return requests[at] end
  local all = headers(keys[at])
  local address = math.random(0, {addresses} - 1)
  all["X-Forwarded-For"] = string.format("10.%d.%d.%d", math.floor(address / 65536), math.floor(address / 256) % 256, address % 256)
  return wrk.format("{method}", "{target}", all, body)
end
"#,
            keys.join(", ")
        )
    }
}
