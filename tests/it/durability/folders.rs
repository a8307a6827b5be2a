//! A phext in a folder, to which a link leads. The folder changes places with another one while clients write: each write
//! that was acknowledged is in the folder that was there, once.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Mount};
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::wait;

const SWAPS: usize = 40;

const WRITERS: usize = 4;

const SCROLL: &str = "p=notes&c=1.1.1/1.1.1/1.1.1";

/// A root in which alice has two folders, and a link into the first one.
fn two_folders() -> Root {
    let root = Root::new(&Setup { limits: "per_ip = \"off\"".to_owned(), ..Setup::default() });
    for folder in ["here", "there"] {
        let folder = root.join("data/alice").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("notes.phext"), "").unwrap();
    }
    symlink("here/notes.phext", root.join("data/alice/notes.phext")).unwrap();
    root
}

/// Inserts marks of its own until it is told to stop; gives those that were acknowledged to `acknowledged`.
fn write(writer: usize, client: &Client, acknowledged: &Mutex<Vec<String>>, is_done: &AtomicBool) {
    for number in 0.. {
        if is_done.load(Ordering::Relaxed) {
            return;
        }
        let mark = format!("({writer}.{number})");
        let answer = client.post(&format!("/api/v2/insert?{SCROLL}"), &mark);
        if answer.status == 200 {
            acknowledged.lock().unwrap().push(mark);
        } else {
            // The worker restarts.
            assert_eq!(answer.status, 503, "{answer}");
        }
    }
}

#[test]
fn a_folder_that_changes_places_with_another_loses_and_mixes_nothing() {
    let running = Deployment::up(two_folders(), &[]);
    let (acknowledged, is_done) = (Mutex::<Vec<String>>::default(), AtomicBool::new(false));
    let swap = || {
        let [here, there] = ["here", "there"].map(|folder| running.join("data/alice").join(folder));
        renameat_with(CWD, here, CWD, there, RenameFlags::EXCHANGE).unwrap();
    };
    let count = || acknowledged.lock().unwrap().len();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, acknowledged, is_done) = (running.client_of("alice"), &acknowledged, &is_done);
            scope.spawn(move || write(writer, &client, acknowledged, is_done));
        }
        for _ in 0..SWAPS {
            let enough = count() + 10;
            wait::within(Duration::from_secs(20), || (count() >= enough).then_some(())).unwrap();
            swap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let read = || {
        wait::until_some("alice's worker", || {
            let answer = running.client_of("alice").get(&format!("/api/v2/select?{SCROLL}"));
            (answer.status == 200).then(|| answer.text().to_owned())
        })
    };
    let here = read();
    swap();
    let texts = here + &read();
    let acknowledged = acknowledged.into_inner().unwrap();
    for mark in &acknowledged {
        assert_eq!(texts.matches(mark.as_str()).count(), 1, "{mark}");
    }
    say(&format!("folders: {SWAPS} times another one, over {} acknowledged writes", acknowledged.len()));
}

#[test]
fn a_folder_on_which_something_is_mounted_is_not_followed_and_nothing_is_made_below() {
    if !mount::works("folders with a disk of their own", &[]) {
        return;
    }
    let running = Deployment::up(two_folders(), &[]);
    let (alice, client) = (running.join("data/alice"), running.client_of("alice"));
    let write = || client.post(&format!("/api/v2/insert?{SCROLL}"), "x");
    write().ok();
    let mounted = Mount::tmpfs(&alice.join("here"), "1m");
    fs::write(alice.join("here/notes.phext"), "another disk's").unwrap();
    let problem = write().refused(503, "worker_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("another disk is mounted"), "{problem}");
    client.get(&format!("/api/v2/select?{SCROLL}")).refused(503, "worker_unavailable");
    assert_eq!(fs::read_dir(alice.join("here")).unwrap().count(), 1);
    drop(mounted);
    assert_eq!(client.get(&format!("/api/v2/select?{SCROLL}")).ok(), "x");
    write().ok();
}
