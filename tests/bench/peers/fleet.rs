//! The workers behind every proxy: a pool with 500 tenants, each with two scrolls to read.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sq_tests::address;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::separate::Pool;
use sq_tests::setup::{self, Setup, Tenant, config_text, registry_text};

use super::options::Options;

/// All the slots there are.
pub(crate) const TENANTS: u16 = 500;

/// The scroll that most jobs read, and how long it is.
pub(crate) const SHORT: &str = "p=bench&c=1.1.1/1.1.1/1.1.1";
pub(crate) const SHORT_BYTES: usize = 40;

/// A scroll that takes many reads and writes.
pub(crate) const LONG: &str = "p=long&c=1.1.1/1.1.1/1.1.1";
pub(crate) const LONG_BYTES: usize = 1 << 20;

/// Limits that are counted, and never reached; the rate of an address is each proxy's own.
const LIMITS: &str = "per_tenant = \"1000000/s\"\nfailed_keys = \"1000000/s\"\nin_flight = 1024\n";

/// Running workers.
pub(crate) struct Fleet {
    /// Their folder, and where they listen.
    pub(crate) root: Arc<Root>,
    /// Their tenants.
    pub(crate) tenants: Vec<Tenant>,
    /// What their config was made from.
    pub(crate) setup: Setup,
    _pool: Pool,
}

impl Fleet {
    /// Starts the pool, and writes the scrolls: the long one for the first tenant alone.
    pub(crate) fn start(options: &Options) -> Self {
        let tenants = setup::tenants(TENANTS);
        let setup = Setup {
            tenants: tenants.clone(),
            limits: LIMITS.to_owned(),
            pool: format!("sandbox = \"{}\"\n", options.sandbox),
            ..Setup::default()
        };
        let mut root = Root::empty();
        // Where SQ's router looks for workers.
        root.address = Ipv4Addr::LOCALHOST;
        root.write("gateway.toml", &config_text(&setup, root.address));
        root.write_registry(&registry_text(&tenants));
        let root = Arc::new(root);
        let pool = Pool::start(&root);
        let fleet = Self { root, tenants, setup, _pool: pool };
        for tenant in &fleet.tenants {
            fleet.write(tenant, SHORT, SHORT_BYTES);
        }
        if let Some(first) = fleet.tenants.first() {
            fleet.write(first, LONG, LONG_BYTES);
        }
        fleet
    }

    fn write(&self, tenant: &Tenant, place: &str, bytes: usize) {
        let client = Client::new(address::at(self.root.address, tenant.port), Some(key(tenant)));
        let answer = client.post(&format!("/api/v2/update?{place}"), "x".repeat(bytes));
        assert_eq!(answer.status, 200, "{answer}");
    }
}

/// The tenant's one key.
pub(crate) fn key(tenant: &Tenant) -> &str {
    tenant.keys.first().map_or("", |key| &key.token)
}
