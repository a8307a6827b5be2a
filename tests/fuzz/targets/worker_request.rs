//! The bytes of a connection to a worker: whatever they are, the first answer is none of a failure, nobody panics,
//! and what the worker leaves on disk is in order and in its place.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use sq_shared::limits::COORDINATE_PART;
use sq_worker::server::run_connection;
use sq_worker::server::worker::{Access, Worker};
use sq_worker::store::fsck::{self, Finding};
use sq_worker::store::{DataDirectory, Limits, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, LocalOptions};

use super::journal::memory_folder;

/// What the tenant has when the connection comes.
const NOTES: &str = "first\x17second, \u{e4}\u{1f506}\x18\x19far\x01farther";

/// The largest body, small so that the fuzzer finds it.
const BODY_BYTES: u64 = 4096;

pub(crate) fn check(data: &[u8]) {
    let root = TempDir::with_prefix_in("sq-fuzz-", memory_folder()).unwrap();
    let dir = root.path().join("alice");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("notes.phext"), NOTES).unwrap();
    let answer = ask(&dir, data);
    if !answer.is_empty() {
        let line = String::from_utf8_lossy(&answer[..answer.len().min(20)]).into_owned();
        let status = line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse::<u16>().ok());
        assert!(status.is_some_and(|status| (100..500).contains(&status)), "{line}");
    }
    assert_in_order(root.path(), &dir);
}

/// All that the worker answers until the connection ends. Its time-outs are over as soon as there is nothing left
/// to do but wait.
fn ask(dir: &Path, data: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let store = Store::open(
            DataDirectory::open(dir).unwrap(),
            Limits {
                quota_bytes: None,
                phexts: None,
                coordinate: Some(COORDINATE_PART),
                memory_bytes: 16 << 20,
            },
        )
        .unwrap();
        let tenant = "alice".parse().unwrap();
        let worker = Rc::new(Worker::standalone(Some(tenant), store, Access::Open, Some(BODY_BYTES)));
        let (mut client, server) = duplex(1 << 20);
        let serving = tokio::task::spawn_local(run_connection(server, worker));
        let mut answer = Vec::new();
        let asking = async {
            client.write_all(data).await.unwrap();
            // A connection that is closed with bytes unread is reset; then what came before is there.
            let _ = client.read_to_end(&mut answer).await;
        };
        asking.await;
        serving.await.unwrap();
        answer
    })
}

fn assert_in_order(root: &Path, dir: &Path) {
    assert_eq!(fs::read_dir(root).unwrap().count(), 1, "a file outside the tenant's directory");
    for file in fsck::check(dir).unwrap().files {
        let is_good = match file.finding {
            Finding::Phext { .. } | Finding::Journal { .. } | Finding::Keys { .. } | Finding::Reserve => true,
            Finding::Link { .. } | Finding::Leftover | Finding::Damaged(_) | Finding::Unreadable(_) => false,
        };
        assert!(is_good, "{file:?}");
    }
}
