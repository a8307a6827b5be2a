//! The description of a deployment: its tenants, and the config besides the addresses.

use std::fmt::Write;
use std::net::Ipv4Addr;

use sq_shared::token::{BearerToken, TokenDigest};

/// Lines that a test adds to the config, by section. The harness's defaults turn the rate limits off, because all
/// tests share client addresses.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The tenants of the registry.
    pub tenants: Vec<Tenant>,
    /// Lines of `[gateway]`.
    pub gateway: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// Lines of `[timeouts]`.
    pub timeouts: String,
    /// Lines of `[cors]`.
    pub cors: String,
    /// Lines of `[pool]`.
    pub pool: String,
    /// Whole sections, such as `[plan.gold]`.
    pub plans: String,
}

impl Default for Setup {
    fn default() -> Self {
        let none = String::new;
        Self {
            tenants: vec![Tenant::new("alice", 1341), Tenant::new("bob", 1342)],
            gateway: none(),
            limits: none(),
            timeouts: none(),
            cors: none(),
            pool: none(),
            plans: none(),
        }
    }
}

/// The key of the admin API of every deployment.
pub const ADMIN_KEY: &str = "pmb-v1-the-admins-key";

/// A tenant to create.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub port: u16,
    /// `active`, `reserved` or `suspended`.
    pub state: &'static str,
    /// A `[plan.*]` of the setup.
    pub plan: Option<&'static str>,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A key to create.
#[derive(Debug, Clone)]
pub struct Key {
    /// The token itself.
    pub token: String,
    /// `write` or `read`.
    pub scope: &'static str,
    /// A TOML date and time.
    pub expires: Option<&'static str>,
}

impl Tenant {
    /// An active tenant with one key: [`key_of`] its name.
    pub fn new(name: &str, port: u16) -> Self {
        let key = Key { token: key_of(name), scope: "write", expires: None };
        Self { name: name.to_owned(), port, state: "active", plan: None, keys: vec![key] }
    }

    /// The tenant in another state.
    #[must_use]
    pub fn in_state(mut self, state: &'static str) -> Self {
        self.state = state;
        self
    }

    /// The tenant with another key.
    #[must_use]
    pub fn with_key(mut self, token: &str, scope: &'static str, expires: Option<&'static str>) -> Self {
        self.keys.push(Key { token: token.to_owned(), scope, expires });
        self
    }
}

/// This many tenants, `slot-001` and so on, from the first slot on.
pub fn tenants(count: u16) -> Vec<Tenant> {
    (0..count).map(|number| Tenant::new(&format!("slot-{:03}", number + 1), FIRST_SLOT + number)).collect()
}

/// The first slot.
const FIRST_SLOT: u16 = 1341;

/// The token of a tenant created by [`Tenant::new`].
pub fn key_of(name: &str) -> String {
    format!("pmb-v1-{name}-key")
}

/// The digest of a token, as in the config and the registry.
///
/// # Panics
/// It is not a token.
pub fn digest_of(token: &str) -> TokenDigest {
    BearerToken::parse(token.as_bytes()).expect("a token").digest()
}

/// The registry's text for these tenants.
///
/// # Panics
/// One of the tokens is not valid.
pub fn registry_text(tenants: &[Tenant]) -> String {
    let mut text = String::new();
    for tenant in tenants {
        let Tenant { name, port, state, .. } = tenant;
        writeln!(text, "[[tenant]]\nname = \"{name}\"\nport = {port}\nstate = \"{state}\"").unwrap();
        if let Some(plan) = tenant.plan {
            writeln!(text, "plan = \"{plan}\"").unwrap();
        }
        for (index, key) in tenant.keys.iter().enumerate() {
            let digest = digest_of(&key.token);
            let (number, scope) = (index + 1, key.scope);
            writeln!(text, "[[tenant.key]]\nid = \"k{number}\"\nsha256 = \"{digest}\"\nscope = \"{scope}\"")
                .unwrap();
            if let Some(expires) = key.expires {
                writeln!(text, "expires = {expires}").unwrap();
            }
        }
    }
    text
}

/// The config's text for a deployment on this address.
pub fn config_text(setup: &Setup, address: Ipv4Addr) -> String {
    let gateway = [
        ("listen", format!("\"{address}:1337\"")),
        ("admin_listen", format!("\"{address}:1338\"")),
        ("admin_key_sha256", format!("\"{}\"", digest_of(ADMIN_KEY))),
        ("threads", "1".to_owned()),
    ];
    let off = |key| (key, "\"off\"".to_owned());
    let limits = [off("per_ip"), off("per_tenant"), off("failed_keys")];
    let pool = [
        ("status_listen", format!("\"{address}:1339\"")),
        ("slot_address", format!("\"{address}\"")),
        ("sandbox", "\"try\"".to_owned()),
    ];
    let mut text = section("gateway", &gateway, &setup.gateway);
    text += &section("limits", &limits, &setup.limits);
    text += &section("timeouts", &[], &setup.timeouts);
    text += &section("cors", &[], &setup.cors);
    text += &section("pool", &pool, &setup.pool);
    text + &setup.plans
}

/// A section with the harness's values, unless the test sets the same key.
fn section(name: &str, defaults: &[(&str, String)], lines: &str) -> String {
    let is_given =
        |key: &str| lines.lines().any(|line| line.split('=').next().is_some_and(|left| left.trim() == key));
    let mut text = format!("[{name}]\n");
    for (key, value) in defaults.iter().filter(|(key, _)| !is_given(key)) {
        writeln!(text, "{key} = {value}").unwrap();
    }
    text + lines + "\n"
}
