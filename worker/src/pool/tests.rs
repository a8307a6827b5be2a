//! The loop itself, on real sockets.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::settings::WorkerSettings;

/// The kernel gives the slot a free port; to the pool its number is this.
const PORT: u16 = 0;
const LOCALHOST: std::net::IpAddr = std::net::IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A pool with one tenant.
fn pool(program: &str) -> (Pool, SocketAddr) {
    let (sender, events) = mpsc::unbounded_channel();
    let socket = SlotSocket::bind(LOCALHOST, PORT, &sender).unwrap();
    let address = TcpListener::from(socket.share().unwrap()).local_addr().unwrap();
    let missing = PathBuf::from("/nonexistent/gateway.toml");
    let config = Config::parse(&missing, "").unwrap();
    let settings = WorkerSettings {
        keys: Vec::new(),
        quota_bytes: None,
        phexts: None,
        coordinate: None,
        memory_bytes: 1,
        body_bytes: None,
        idle_timeout_ms: 1,
        drain_ms: 1,
        directory: None,
    };
    let data_dir = Path::new("/nonexistent").to_owned();
    let assignment = Assignment { tenant: "alice".parse().unwrap(), data_dir, settings };
    let assignments = BTreeMap::from([(PORT, Arc::new(assignment))]);
    let pool = Pool {
        source: ConfigSource {
            reader: sq_shared::config::fields::Reader::Pool,
            config: missing,
            overrides: Default::default(),
        },
        config,
        accounts: Arc::new([]),
        desired: Desired { assignments, stop_grace: Duration::from_secs(1), is_closing: false },
        observed: Observed::new([PORT]),
        sockets: BTreeMap::from([(PORT, socket)]),
        processes: BTreeMap::new(),
        launcher: Launcher::with_program(program.into()),
        directories: DirectoryChecks::default(),
        storage: Arc::default(),
        metrics: Arc::new(Metrics::new().unwrap()),
        status: None,
        replaced: None,
        is_halted: false,
        is_finding_successor: false,
        inherited: BTreeMap::new(),
        hangup: watch::channel(()).0,
        reloads: None,
        is_rejected: false,
        sender,
        events,
    };
    (pool, address)
}

async fn backing_off(sender: &mpsc::UnboundedSender<Event>) -> serde_json::Value {
    let (asker, report) = oneshot::channel();
    sender.send(Event::StatusRequested(asker)).unwrap();
    serde_json::to_value(report.await.unwrap()).unwrap()["workers"]["backing_off"].clone()
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again_for_the_connection_that_waits() {
    let (pool, address) = pool("/nonexistent/sq-worker");
    let sender = pool.sender.clone();
    let _waiting = TcpStream::connect(address).unwrap();
    let asking = async {
        // Nothing but the connection wakes the loop here. The first failure has no delay, so the tenant
        // backs off only after the second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let held = backing_off(&sender).await;
        sender.send(Event::Signalled(Signal::Stop("the end of the test"))).unwrap();
        held
    };
    let ((), held) = tokio::join!(pool.run(), asking);
    assert_eq!(held, 1);
}
