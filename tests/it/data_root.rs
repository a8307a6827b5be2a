//! A data root that is missing, because its disk is not mounted or was moved, is not served as empty: nothing is
//! created in its place, every request is refused, and service resumes when it is back.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Bound, Mount};
use sq_tests::process::Outcome;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{binaries, process, wait};

mod mounts;
mod upgrade;

const MARKER: &str = "data/.sq-data-root";
const ID: &str = "gateway.toml.data-root";

/// A system in which alice has a text, and bob sleeps.
fn served() -> Deployment {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").post(UPDATE, "hers").ok();
    running
}

/// A system that has stopped, in which alice has a text.
fn stopped() -> Arc<Root> {
    served().stop()
}

fn ready(running: &Deployment) -> u16 {
    running.client(None).get("/ready").status
}

/// No request is served, and each gets the reason, without `Retry-After`, because the state lasts.
fn assert_missing(running: &Deployment) {
    wait::until("the loss to be seen", || ready(running) == 503);
    for tenant in ["alice", "bob"] {
        for answer in [
            running.client_of(tenant).get(SELECT),
            running.client_of(tenant).post(UPDATE, "lost"),
            running.client_of(tenant).post(UPDATE, vec![b'x'; 200_000]),
        ] {
            answer.problem(503, "data_root_missing");
        }
    }
    // The pool's workers say so too when the gateway is bypassed.
    for (tenant, port) in [("alice", 1341), ("bob", 1342)] {
        let slot = running.slot(port, Some(&key_of(tenant)));
        // A worker that is just being killed sends no response.
        wait::until("the pool to see the loss", || {
            slot.try_get(SELECT).is_ok_and(|answer| answer.status == 503)
        });
        slot.get(SELECT).refused(503, "data_root_missing");
        slot.post(UPDATE, "lost").refused(503, "data_root_missing");
        running.slot(port, Some("another")).get(SELECT).refused(401, "invalid_key");
    }
    let told = running.client(None).get("/ready").problem(503, "data_root_missing")["detail"].to_string();
    assert!(told.contains("not mounted"), "{told}");
    running.admin_with(None).get("/ready").problem(503, "data_root_missing");
    running.client(None).get("/health").ok();
    running.client(Some("another")).get(SELECT).problem(401, "invalid_key");
    let metrics = Scrape::of_gateway(running.address);
    assert!((metrics.value("sq_gateway_data_root_missing") - 1.0).abs() < f64::EPSILON, "{}", metrics.text);
    let checked = running.with_config(&["check"]);
    assert_eq!(checked.code(), Some(1), "{checked:?}");
    assert!(checked.stderr.contains("disk mounted"), "{checked:?}");
    let added = running.with_config(&["tenants", "add", "carol"]);
    assert_eq!(added.code(), Some(1), "{added:?}");
    running.admin().post("/admin/tenants/add", r#"{"name":"dave"}"#).problem(503, "data_root_missing");
    let removed = running.with_config(&["tenants", "remove", "bob"]);
    assert_eq!(removed.code(), Some(1), "{removed:?}");
    let registry = running.read("tenants.toml");
    assert!(
        !registry.contains("carol") && !registry.contains("dave") && registry.contains("bob"),
        "{registry}"
    );
    assert!(
        running.log().contains("is its disk mounted?") || running.log().contains("right disk"),
        "{}",
        running.log()
    );
}

/// It serves the same data again, without a restart.
fn assert_back(running: &Deployment) {
    wait::until("the return to be seen", || ready(running) == 200);
    let alice = running.client_of("alice");
    wait::until("her worker", || alice.get(SELECT).status == 200);
    assert_eq!(alice.get(SELECT).ok(), "hers");
    alice.post(UPDATE, "hers").ok();
    wait::until("his worker", || running.client_of("bob").get(SELECT).status == 200);
    assert_eq!(running.with_config(&["check"]).success(), "ok\n");
    let value = Scrape::of_gateway(running.address).value("sq_gateway_data_root_missing");
    assert!(value.abs() < f64::EPSILON, "{value}");
}

#[test]
fn a_root_that_is_moved_away_is_missed_until_it_is_back() {
    let running = served();
    for _ in 0..2 {
        fs::rename(running.join("data"), running.join("away")).unwrap();
        assert_missing(&running);
        assert!(!running.join("data").exists(), "something was made in its place");
        fs::rename(running.join("away"), running.join("data")).unwrap();
        assert_back(&running);
    }
}

#[test]
fn a_root_in_whose_place_something_else_is_stays_missing() {
    let running = served();
    let other = served();
    let data = running.join("data");
    fs::rename(&data, running.join("away")).unwrap();
    type Way = (&'static str, Box<dyn Fn(&Path)>, fn(&Path));
    let folder = |data: &Path| fs::remove_dir(data).unwrap();
    let file = |data: &Path| fs::remove_file(data).unwrap();
    let theirs = other.join("data");
    let ways: [Way; 4] = [
        ("an empty folder", Box::new(|data| fs::create_dir(data).unwrap()), folder),
        ("a file", Box::new(|data| fs::write(data, "").unwrap()), file),
        ("a link to nothing", Box::new(|data| symlink("nowhere", data).unwrap()), file),
        ("another system's", Box::new(move |data| symlink(&theirs, data).unwrap()), file),
    ];
    for (what, put, take) in ways {
        put(&data);
        assert_missing(&running);
        if what == "an empty folder" {
            assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "something was made in it");
        }
        take(&data);
    }
    fs::rename(running.join("away"), &data).unwrap();
    assert_back(&running);
    assert_eq!(other.client_of("alice").get(SELECT).ok(), "hers");
}

#[test]
fn a_marker_that_is_gone_or_spoiled_alone_is_missed_too() {
    let running = served();
    let marker = running.join(MARKER);
    let good = running.read(MARKER);
    assert_eq!(good, running.read(ID));
    type Spoiling = (&'static str, fn(&Path));
    let ways: [Spoiling; 5] = [
        ("gone", |marker| fs::remove_file(marker).unwrap()),
        ("empty", |marker| fs::write(marker, "").unwrap()),
        ("garbage", |marker| fs::write(marker, [0xff; 9000]).unwrap()),
        ("another id", |marker| fs::write(marker, "0123456789abcdef0123456789abcdef\n").unwrap()),
        ("a folder", |marker| {
            fs::remove_file(marker).unwrap();
            fs::create_dir(marker).unwrap();
        }),
    ];
    for (what, spoil) in ways {
        spoil(&marker);
        assert_missing(&running);
        let told = running.with_config(&["check"]).stderr;
        assert!(told.contains("cp -p") && told.contains(marker.to_str().unwrap()), "{what}: {told}");
        if marker.is_dir() {
            fs::remove_dir(&marker).unwrap();
        }
        // The command in the message.
        fs::copy(running.join(ID), &marker).unwrap();
        assert_back(&running);
    }
    assert_eq!(running.read(MARKER), good);
}

/// The root is deleted, and restored from a backup with other inodes.
#[test]
fn a_root_that_is_deleted_is_missed_until_it_is_restored() {
    let running = served();
    let copy = |from: &str, to: &str| {
        let mut copy = Command::new("cp");
        process::run(copy.arg("-a").args([running.join(from), running.join(to)])).success();
    };
    wait::until("the save", || running.join("data/alice/text.phext").exists());
    copy("data", "backup");
    fs::remove_dir_all(running.join("data")).unwrap();
    assert_missing(&running);
    assert!(!running.join("data").exists(), "something was made in its place");
    copy("backup", "data");
    assert_back(&running);
}

/// A client that writes meanwhile: acknowledged writes are there afterwards, and refused ones are not.
#[test]
fn no_acknowledged_write_is_lost_while_the_root_goes_and_comes() {
    let running = served();
    let client = running.client_of("alice");
    let is_over = Arc::new(AtomicBool::new(false));
    let scroll = |number: u32| format!("p=log&c=1.1.1/1.1.1/1.1.{number}");
    let writing = thread::spawn({
        let (client, is_over) = (client.clone(), Arc::clone(&is_over));
        move || {
            let (mut written, mut refused) = (Vec::new(), Vec::new());
            for number in 1..20_000 {
                let answer = client.post(&format!("/api/v2/update?{}", scroll(number)), number.to_string());
                match answer.status {
                    200 => written.push(number),
                    // Its worker was stopped meanwhile, or the write was not begun.
                    502 => _ = answer.refused(502, "worker_failed"),
                    503 if answer.json()["code"] == "data_root_missing" => refused.push(number),
                    status => assert_eq!(status, 503, "{answer}"),
                }
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
            (written, refused)
        }
    });
    for _ in 0..3 {
        fs::rename(running.join("data"), running.join("away")).unwrap();
        wait::until("the loss to be seen", || ready(&running) == 503);
        assert!(!running.join("data").exists(), "something was made in its place");
        fs::rename(running.join("away"), running.join("data")).unwrap();
        assert_back(&running);
    }
    is_over.store(true, Ordering::Relaxed);
    let (written, refused) = writing.join().unwrap();
    assert!(written.len() > 10 && !refused.is_empty(), "{written:?} {refused:?}");
    let exported = client.get("/api/v2/json-export?p=log").json();
    let is_there = |number: &u32| {
        let coordinate = format!("1.1.1/1.1.1/1.1.{number}");
        exported.as_array().unwrap().iter().any(|row| row["coord"] == coordinate)
    };
    assert!(written.iter().all(is_there), "an acknowledged write is lost");
    assert!(!refused.iter().any(is_there), "a write that was told not to be made was made");
}

#[test]
fn a_disk_that_is_unmounted_and_mounted_again_under_the_system_is_served_again() {
    if !mount::works("a data root that is a mount point", &[]) {
        return;
    }
    let root = Root::new(&Setup::default());
    fs::create_dir(root.join("disk")).unwrap();
    let bind = |root: &Root| Bound::new(&root.join("disk"), &root.join("data"), "");
    let disk = bind(&root);
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(UPDATE, "hers").ok();
    drop(disk);
    assert_missing(&running);
    assert_eq!(
        fs::read_dir(running.join("data")).unwrap().count(),
        0,
        "something was made under the mount point"
    );
    let _disk = bind(&running);
    assert_back(&running);
    drop(running);
}

/// A mount over the root of a running system: its disk comes late, or another disk comes.
#[test]
fn a_mount_over_the_root_hides_it_and_what_comes_under_it_serves_nothing() {
    if !mount::works("a mount over the data root", &[]) {
        return;
    }
    let running = served();
    let over = Mount::tmpfs(&running.join("data"), "1m");
    assert_missing(&running);
    assert_eq!(fs::read_dir(over.path()).unwrap().count(), 0, "something was made in it");
    drop(over);
    assert_back(&running);
}

fn assert_refused(what: &str, outcome: &Outcome) {
    assert_eq!(outcome.code(), Some(1), "{what}: {outcome:?}");
    assert!(outcome.stderr.contains("disk mounted"), "{what}: {outcome:?}");
}

/// Each server, started on a root and run to its end.
fn starts(root: &Root) -> [(&'static str, Outcome); 3] {
    let mut pool = Command::new(binaries::worker());
    pool.current_dir(root.path()).args(["pool", "--config", "gateway.toml"]);
    [
        ("up", root.gateway(&["up", "--root", "."])),
        ("serve", root.gateway(&["serve", "--config", "gateway.toml"])),
        ("pool", process::run(&mut pool)),
    ]
}

#[test]
fn nothing_starts_without_its_root_and_nothing_is_made() {
    let root = stopped();
    fs::rename(root.join("data"), root.join("away")).unwrap();
    for is_mount_point in [false, true] {
        if is_mount_point {
            fs::create_dir(root.join("data")).unwrap();
        }
        for (what, outcome) in starts(&root) {
            assert_refused(what, &outcome);
        }
        for arguments in [
            &["check"][..],
            &["tenants", "add", "carol"],
            &["provision", "--slots", "3"],
            &["tenants", "make-directory", "alice"],
            &["tenants", "make-directory", "--all"],
        ] {
            assert_refused(arguments[0], &root.with_config(arguments));
        }
        // The registry may be changed where no directory is touched.
        root.with_config(&["tenants", "suspend", "bob"]).success();
        root.with_config(&["tenants", "activate", "bob"]).success();
        assert_eq!(root.join("data").exists(), is_mount_point);
        assert!(!is_mount_point || fs::read_dir(root.join("data")).unwrap().count() == 0);
    }
    fs::remove_dir(root.join("data")).unwrap();
    fs::rename(root.join("away"), root.join("data")).unwrap();
    let running = Deployment::up(root, &[]);
    assert_back(&running);
}

#[test]
fn another_systems_root_is_not_served() {
    let (root, other) = (stopped(), stopped());
    fs::rename(root.join("data"), root.join("away")).unwrap();
    symlink(other.join("data"), root.join("data")).unwrap();
    for (what, outcome) in starts(&root) {
        assert_refused(what, &outcome);
        assert!(outcome.stderr.contains("another data root"), "{what}: {outcome:?}");
    }
    // The operator declares that it belongs to this system.
    fs::copy(root.join(MARKER), root.join(ID)).unwrap();
    let running = Deployment::up(root, &[]);
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "hers");
}

#[test]
fn gateway_and_pool_apart_see_it_each_by_itself() {
    let root = Arc::new(Root::new(&Setup::default()));
    let (pool, gateway) = (Pool::start(&root), Gateway::serve(&root));
    let alice = gateway.client_of("alice");
    alice.post(UPDATE, "hers").ok();
    fs::rename(root.join("data"), root.join("away")).unwrap();
    wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
    alice.get(SELECT).problem(503, "data_root_missing");
    // The pool may have said so before the gateway notices.
    wait::until("the gateway to see the loss", || gateway.log().contains("disk mounted"));
    // A pool that dies now does not start again, and creates nothing.
    pool.stop();
    let mut next = Pool::begin(&root, &binaries::worker(), &[]);
    assert_eq!(next.ended().code(), Some(1));
    assert!(next.log().contains("disk mounted"), "{}", next.log());
    alice.post(UPDATE, "lost").problem(503, "data_root_missing");
    assert!(!root.join("data").exists());
    fs::rename(root.join("away"), root.join("data")).unwrap();
    let _pool = Pool::start(&root);
    wait::until("the return to be seen", || alice.get(SELECT).status == 200);
    assert_eq!(alice.get(SELECT).ok(), "hers");
}

#[test]
fn a_marker_that_cannot_be_read_is_told_by_its_name_and_the_systems_reason() {
    if rustix::process::geteuid().is_root() {
        // Root can read everything; the unit tests cover the other reasons.
        return;
    }
    let running = served();
    fs::set_permissions(running.join(MARKER), fs::Permissions::from_mode(0o0)).unwrap();
    wait::until("the loss to be seen", || ready(&running) == 503);
    let told = running.with_config(&["check"]).stderr;
    assert!(told.contains(MARKER) && told.contains("Permission denied"), "{told}");
    fs::set_permissions(running.join(MARKER), fs::Permissions::from_mode(0o600)).unwrap();
    assert_back(&running);
}

/// A stop does not wait for a missing root.
#[test]
fn a_system_without_its_root_stops_in_order() {
    let running = served();
    fs::rename(running.join("data"), running.join("away")).unwrap();
    wait::until("the loss to be seen", || ready(&running) == 503);
    let slot = running.slot(1341, Some(&key_of("alice")));
    wait::until("the pool to see the loss", || slot.try_get(SELECT).is_ok_and(|answer| answer.status == 503));
    running.signal(Signal::HUP);
    running.stop();
}

/// A registry that is lost, or on an unmounted disk, is not created again: other tenants would get its tenants'
/// slots.
#[test]
fn a_lost_registry_is_not_taken_for_a_new_system() {
    for has_log in [true, false] {
        let running = served();
        wait::until("the save", || running.join("data/alice/text.phext").exists());
        let root = running.stop();
        if !has_log {
            fs::remove_file(root.join("audit.log")).unwrap();
        }
        fs::rename(root.registry(), root.join("kept")).unwrap();
        for command in [&["up", "--root", "."][..], &["provision", "--slots", "2", "--root", "."]] {
            let refused = root.gateway(command);
            assert_eq!(refused.code(), Some(1), "{refused:?}");
            assert!(refused.stderr.contains("this system has had tenants"), "{refused:?}");
            assert!(!root.registry().exists() && !root.join("keys.csv").exists());
        }
        fs::rename(root.join("kept"), root.registry()).unwrap();
        assert_eq!(Deployment::up(root, &[]).client_of("alice").get(SELECT).ok(), "hers");
    }
}
