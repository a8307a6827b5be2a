//! `gateway.toml`: the config of the gateway and the pool. `config/gateway.toml` documents every field with its
//! default; a test compares those with the defaults here.

pub mod fields;
mod listen_address;
pub mod units;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::COORDINATE_PART;
use crate::text_enum::text_enum;
use crate::token::TokenDigest;
use crate::toml_reader::{Document, Mistakes, Section};
use crate::{file_error, layout, regular_file};
use listen_address::parse_address;
pub use listen_address::{ListenAddress, SOCKET_PATH_BYTES};
use units::{Rate, parse_bytes, parse_coordinate_part, parse_count, parse_duration, parse_or_off};

/// The whole config, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[limits]`
    pub limits: Limits,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[cors]`
    pub cors: Cors,
    /// `[pool]`
    pub pool: Pool,
    /// `[plan.*]`
    pub plans: BTreeMap<String, Plan>,
}

/// The fields of the gateway, some of which the pool uses too.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// For clients.
    pub listen: ListenAddress,
    /// For the admin API.
    pub admin_listen: SocketAddr,
    /// Whether `admin_listen` may be an address that other machines reach.
    pub admin_allow_remote: bool,
    /// The digest of the admin's key. Without it the admin API answers 503.
    pub admin_key: Option<TokenDigest>,
    /// The registry.
    pub tenants: PathBuf,
    /// Where tenants' directories are, unless the registry says otherwise.
    pub data_root: PathBuf,
    /// The workers' ports.
    pub slots: RangeInclusive<u16>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads of the proxy; 0 is one per core.
    pub threads: usize,
    /// What happens when the audit log cannot be written.
    pub audit: Enforcement,
}

text_enum! {
    /// Whether a protection is required.
    pub enum Enforcement {
        /// Fail without it.
        Require = "require",
        /// Use it where it is available.
        Try = "try",
        /// Don't use it.
        Off = "off",
    }
}

/// `None` means off.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests of one client address.
    pub per_ip: Option<Rate>,
    /// Requests of one tenant.
    pub per_tenant: Option<Rate>,
    /// Wrong keys from one client address.
    pub failed_keys: Option<Rate>,
    /// Requests of one tenant at once.
    pub in_flight: Option<usize>,
    /// Client connections at once.
    pub connections: Option<usize>,
    /// Request line and headers together.
    pub head_bytes: Option<u64>,
    /// A request's body.
    pub body_bytes: Option<u64>,
    /// All of one tenant's phexts together.
    pub quota_bytes: Option<u64>,
    /// How many phexts one tenant may have.
    pub phexts: Option<usize>,
    /// The largest part of a new scroll's coordinate.
    pub coordinate: Option<u32>,
}

/// How long the gateway waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For a whole head, from its first byte (or from the connection's start).
    pub head: Duration,
    /// For the next request on a connection.
    pub idle: Duration,
    /// For a worker's answer, from the end of the request's body.
    pub answer: Duration,
    /// For requests in flight at a stop.
    pub drain: Duration,
}

/// Which origins a browser may call from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// Origins such as `https://app.example.org`; `*` alone allows every one.
    pub allow_origins: Vec<String>,
}

/// The fields of the pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its status page; `None` for no status.
    pub status_listen: Option<SocketAddr>,
    /// The address of the slots' sockets: the pool binds it, the gateway connects to it.
    pub slot_address: IpAddr,
    /// A worker without a request for this long is stopped.
    pub idle_timeout: Duration,
    /// What a worker may keep in memory.
    pub memory_bytes: u64,
    /// Whether workers are confined; `None` is as far as the kernel supports it.
    pub sandbox: Option<Enforcement>,
}

/// A preset of limits that a tenant's `plan` names. `None` is the value of `[limits]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Instead of `limits.per_tenant`.
    pub per_tenant: Option<Option<Rate>>,
    /// Instead of `limits.in_flight`.
    pub in_flight: Option<Option<usize>>,
    /// Instead of `limits.quota`.
    pub quota_bytes: Option<Option<u64>>,
    /// Instead of `limits.phexts`.
    pub phexts: Option<Option<usize>>,
    /// Instead of `pool.memory`.
    pub memory_bytes: Option<u64>,
}

/// The limits of one tenant; `None` means off.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantLimits {
    /// Requests.
    pub per_tenant: Option<Rate>,
    /// Requests at once.
    pub in_flight: Option<usize>,
    /// All its phexts together.
    pub quota_bytes: Option<u64>,
    /// How many phexts it may have.
    pub phexts: Option<usize>,
    /// What its worker may keep in memory.
    pub memory_bytes: u64,
}

impl Config {
    /// Reads a config file.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        Self::parse(path, &read_text(path)?)
    }

    /// Reads a config file with mistakes as far as possible: defaults replace what is wrong.
    pub fn load_as_far_as_possible(path: &Path) -> Result<(Self, Option<Mistakes>), Mistakes> {
        Ok(Self::read(path, &read_text(path)?))
    }

    /// Reads a config's text. Relative paths in it are relative to the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Mistakes> {
        match Self::read(path, text) {
            (config, None) => Ok(config),
            (_, Some(mistakes)) => Err(mistakes),
        }
    }

    fn read(path: &Path, text: &str) -> (Self, Option<Mistakes>) {
        let document = Document::new(path, text);
        let table = document.parse();
        let root = Section::root(&document, &table);
        let folder = layout::folder_of(path);
        let config = Self {
            path: path.to_owned(),
            gateway: Gateway::read(root.section("gateway"), &folder),
            limits: Limits::read(root.section("limits")),
            timeouts: Timeouts::read(root.section("timeouts")),
            cors: Cors::read(root.section("cors")),
            pool: Pool::read(root.section("pool")),
            plans: read_plans(&root.section("plan")),
        };
        config.check_addresses(&root);
        (root.finish(config), document.finish(()).err())
    }

    /// No two of our servers may have the same port.
    fn check_addresses(&self, root: &Section<'_, '_>) {
        let listen = match &self.gateway.listen {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        };
        let servers = [
            ("gateway", "listen", listen),
            ("gateway", "admin_listen", Some(self.gateway.admin_listen)),
            ("pool", "status_listen", self.pool.status_listen),
        ];
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        for (section, key, address) in servers {
            let Some(address) = address else { continue };
            let field = format!("{section}.{key}");
            let mistake = |message| root.section(section).mistake_at(key, message);
            let clash = taken.iter().find(|(_, other)| overlap(address, *other));
            if let Some((other, _)) = clash {
                mistake(format!("{field} and {other} have the same address {address}"));
            }
            let in_slots = self.gateway.slots.contains(&address.port());
            if in_slots && overlap(address, SocketAddr::new(self.pool.slot_address, address.port())) {
                mistake(format!("{field} = {address} is one of the slots"));
            }
            taken.push((field, address));
        }
    }

    /// The limits of a tenant with this plan: the plan's, where it has one, or else those of `[limits]`.
    pub fn limits_of(&self, plan: Option<&str>) -> TenantLimits {
        let plan = plan.and_then(|name| self.plans.get(name)).cloned().unwrap_or_default();
        TenantLimits {
            per_tenant: plan.per_tenant.unwrap_or(self.limits.per_tenant),
            in_flight: plan.in_flight.unwrap_or(self.limits.in_flight),
            quota_bytes: plan.quota_bytes.unwrap_or(self.limits.quota_bytes),
            phexts: plan.phexts.unwrap_or(self.limits.phexts),
            memory_bytes: plan.memory_bytes.unwrap_or(self.pool.memory_bytes),
        }
    }
}

fn read_text(path: &Path) -> Result<String, Mistakes> {
    regular_file::read_to_string(path).map_err(|error| Mistakes::about(path, file_error::text(path, &error)))
}

impl Gateway {
    fn read(section: Section<'_, '_>, folder: &Path) -> Self {
        let path = |key, default: &str| folder.join(section.text(key).unwrap_or_else(|| default.to_owned()));
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let gateway = Self {
            listen: section.parsed("listen", str::parse).unwrap_or(ListenAddress::Tcp(loopback(1337))),
            admin_listen: section.parsed("admin_listen", parse_address).unwrap_or(loopback(1338)),
            admin_allow_remote: section.boolean("admin_allow_remote").unwrap_or(false),
            admin_key: section.parsed_secret("admin_key_sha256", str::parse),
            tenants: path("tenants", "tenants.toml"),
            data_root: path("data_root", "data"),
            slots: section.parsed("slots", parse_slots).unwrap_or(1341..=1840),
            trusted_proxies: section.list("trusted_proxies", parse_network).unwrap_or_else(default_proxies),
            threads: section.small_number("threads").map_or(0, usize::from),
            audit: section.parsed("audit", str::parse).unwrap_or(Enforcement::Try),
        };
        if !gateway.admin_listen.ip().is_loopback() && !gateway.admin_allow_remote {
            section.mistake_at(
                "admin_listen",
                "other machines could reach the admin API: give a loopback address, or set admin_allow_remote = true",
            );
        }
        section.finish(gateway)
    }
}

fn default_proxies() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect()
}

impl Limits {
    fn read(section: Section<'_, '_>) -> Self {
        let rate = |key, count| {
            section.parsed(key, parse_or_off(str::parse)).unwrap_or(Some(Rate::per_minute(count)))
        };
        section.finish(Self {
            per_ip: rate("per_ip", 100),
            per_tenant: rate("per_tenant", 600),
            failed_keys: rate("failed_keys", 10),
            in_flight: count(&section, "in_flight").unwrap_or(Some(64)),
            connections: count(&section, "connections").unwrap_or(Some(10_000)),
            head_bytes: section.parsed("head", parse_or_off(parse_bytes)).unwrap_or(Some(64 << 10)),
            body_bytes: section.parsed("body", parse_or_off(parse_bytes)).unwrap_or(Some(64 << 20)),
            quota_bytes: section.parsed("quota", parse_or_off(parse_bytes)).unwrap_or(Some(1 << 30)),
            phexts: count(&section, "phexts").unwrap_or(Some(100_000)),
            coordinate: section
                .integer_or("coordinate", parse_or_off(parse_coordinate_part))
                .unwrap_or(Some(COORDINATE_PART)),
        })
    }
}

/// A count is a number, or `"off"`.
fn count(section: &Section<'_, '_>, key: &'static str) -> Option<Option<usize>> {
    section.integer_or(key, parse_or_off(parse_count))
}

impl Timeouts {
    fn read(section: Section<'_, '_>) -> Self {
        let duration =
            |key, seconds| section.parsed(key, parse_duration).unwrap_or(Duration::from_secs(seconds));
        section.finish(Self {
            head: duration("head", 10),
            idle: duration("idle", 75),
            answer: duration("answer", 30),
            drain: duration("drain", 30),
        })
    }
}

impl Cors {
    fn read(section: Section<'_, '_>) -> Self {
        section
            .finish(Self { allow_origins: section.list("allow_origins", parse_origin).unwrap_or_default() })
    }
}

impl Pool {
    fn read(section: Section<'_, '_>) -> Self {
        let status_listen = section.parsed("status_listen", parse_or_off(parse_address));
        section.finish(Self {
            status_listen: status_listen.unwrap_or(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1339)))),
            slot_address: section
                .parsed("slot_address", str::parse)
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            idle_timeout: section.parsed("idle_timeout", parse_duration).unwrap_or(Duration::from_secs(300)),
            memory_bytes: section.parsed("memory", parse_bytes).unwrap_or(64 << 20),
            sandbox: section.parsed("sandbox", str::parse),
        })
    }
}

fn read_plans(section: &Section<'_, '_>) -> BTreeMap<String, Plan> {
    let read = |section: Section<'_, '_>| {
        section.finish(Plan {
            per_tenant: section.parsed("per_tenant", parse_or_off(str::parse)),
            in_flight: count(&section, "in_flight"),
            quota_bytes: section.parsed("quota", parse_or_off(parse_bytes)),
            phexts: count(&section, "phexts"),
            memory_bytes: section.parsed("memory", parse_bytes),
        })
    };
    section.named_sections().into_iter().map(|(name, section)| (name, read(section))).collect()
}

/// Whether two addresses cannot both be bound. Port 0 is any free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| format!("\"{text}\" is not a network, as in 10.0.0.0/8"))
}

/// An origin as browsers send it (RFC 6454, 6.2): any other spelling would never match.
fn parse_origin(text: &str) -> Result<String, String> {
    let (host, default_port) = match text.split_once("://") {
        Some(("https", host)) => (host, ":443"),
        Some(("http", host)) => (host, ":80"),
        _ => ("", ""),
    };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte);
    let is_origin = !host.is_empty() && host.bytes().all(is_plain) && !host.ends_with(default_port);
    if is_origin || text == "*" {
        return Ok(text.to_owned());
    }
    Err(format!(
        "\"{text}\" is not an origin as browsers send it, as in https://app.example.org (lower case, no path, no \
         default port), nor \"*\""
    ))
}

fn parse_slots(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (0 < first && first <= last).then_some(first..=last)
    });
    range.ok_or_else(|| "a range of ports, as in 1341-1840".to_owned())
}

#[cfg(test)]
mod tests;
