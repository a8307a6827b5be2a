//! A tenant's directory disappears or is replaced: its worker stops at once, the replacement is served, and a missing
//! directory is not created again before the operator says so. Other tenants are not affected.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::process;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::setup::{Setup, Tenant, key_of, registry_text};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

const OTHER: &str = "/api/v2/select?p=other&c=1.1.1/1.1.1/1.1.1";
const READS: [&str; 6] =
    [SELECT, OTHER, "/api/v2/toc?p=text", "/api/v2/get?p=text", "/api/v2/load?p=other", "/api/v2/phexts"];

fn served() -> Deployment {
    let running = Deployment::start(&Setup::default());
    for tenant in ["alice", "bob"] {
        running.client_of(tenant).post(UPDATE, format!("of {tenant}")).ok();
    }
    running
}

fn hers(running: &Deployment) -> PathBuf {
    running.join("data/alice")
}

/// Alice's directory is missing: every request and the operator are told, nothing is created, and bob is served.
fn assert_gone(running: &Deployment) {
    let alice = running.client_of("alice");
    for target in READS {
        alice.get(target).problem(503, "data_root_missing");
    }
    alice.post(UPDATE, "lost").problem(503, "data_root_missing");
    alice.post(UPDATE, vec![b'x'; 200_000]).problem(503, "data_root_missing");
    running.slot(1341, Some(&key_of("alice"))).post(UPDATE, "lost").refused(503, "data_root_missing");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
    assert_eq!(running.client(None).get("/ready").status, 200);
    assert!(!hers(running).exists(), "it was made again");
    let directory = hers(running).display().to_string();
    let is_told =
        |line: &str| line.contains("ERROR") && line.contains(&directory) && line.contains("make-directory");
    assert!(running.log().lines().any(is_told), "{}", running.log());
    let checked = running.with_config(&["check"]);
    assert_eq!(checked.code(), Some(1), "{checked:?}");
    assert!(
        checked.stderr.contains(&directory) && checked.stderr.contains("make-directory alice"),
        "{checked:?}"
    );
    wait::until("the metric", || {
        (Scrape::of_pool(running.address).value("sq_pool_directories_missing") - 1.0).abs() < f64::EPSILON
    });
}

fn assert_serves(running: &Deployment, text: &str) {
    let alice = running.client_of("alice");
    wait::until("what is there to be served", || alice.get(SELECT).body == text.as_bytes());
    alice.post(UPDATE, "written").ok();
    assert_eq!(alice.get(SELECT).ok(), "written");
    assert_eq!(running.with_config(&["check"]).success(), "ok\n");
    wait::until("the metric", || {
        Scrape::of_pool(running.address).value("sq_pool_directories_missing").abs() < f64::EPSILON
    });
}

#[test]
fn a_directory_that_is_removed_is_never_read_as_empty() {
    let running = served();
    // The very next request is refused.
    fs::remove_dir_all(hers(&running)).unwrap();
    assert_gone(&running);
    fs::create_dir(hers(&running)).unwrap();
    fs::write(hers(&running).join("text.phext"), "restored").unwrap();
    assert_serves(&running, "restored");
}

#[test]
fn a_write_into_a_directory_that_is_removed_is_not_acknowledged() {
    for round in 0..4 {
        let running = served();
        // First only the journal has the text, later the file has it.
        if round % 2 == 1 {
            wait::until("the save", || hers(&running).join("text.phext").exists());
        }
        fs::remove_dir_all(hers(&running)).unwrap();
        let refused = running.client_of("alice").post(UPDATE, "lost");
        // A worker that noticed while it wrote leaves the outcome open.
        let code = if refused.status == 502 { "worker_failed" } else { "data_root_missing" };
        refused.refused(if refused.status == 502 { 502 } else { 503 }, code);
        assert_gone(&running);
    }
}

#[test]
fn a_directory_that_is_moved_away_comes_back_with_all_that_it_had() {
    let running = served();
    let away = running.join("away");
    fs::rename(hers(&running), &away).unwrap();
    wait::until("the loss to be seen", || running.client_of("alice").get(SELECT).status == 503);
    assert_gone(&running);
    fs::rename(&away, hers(&running)).unwrap();
    assert_serves(&running, "of alice");
}

#[test]
fn a_directory_that_is_replaced_is_served_by_a_new_worker() {
    let running = served();
    let before = running.worker_of("alice").unwrap().pid;
    fs::rename(hers(&running), running.join("away")).unwrap();
    fs::create_dir(hers(&running)).unwrap();
    fs::write(hers(&running).join("text.phext"), "of a backup").unwrap();
    assert_serves(&running, "of a backup");
    assert_ne!(running.worker_of("alice").unwrap().pid, before);
    let crashes = Scrape::of_pool(running.address).value("sq_pool_worker_crashes_total{tenant=\"alice\"}");
    assert!(crashes.abs() < f64::EPSILON, "it is no crash: {crashes}");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
}

/// Neither is a directory: a file in its place, and a dangling link.
#[test]
fn file_instead_of_a_directory_is_reported_and_left() {
    let running = served();
    type Obstacle = (&'static str, fn(&Path));
    let ways: [Obstacle; 2] = [
        ("a file", |path| fs::write(path, "a file").unwrap()),
        ("a link to nothing", |path| symlink("nowhere", path).unwrap()),
    ];
    for (what, put) in ways {
        let directory = hers(&running);
        let _ = fs::remove_dir_all(&directory);
        put(&directory);
        let alice = running.client_of("alice");
        wait::until(what, || alice.get(SELECT).status == 503);
        alice.get(SELECT).problem(503, "data_root_missing");
        alice.post(UPDATE, "lost").problem(503, "data_root_missing");
        let why = if directory.is_symlink() { "it is not there" } else { "what is there is not a directory" };
        assert!(running.log().contains(why), "{what}: {}", running.log());
        assert!(!directory.is_dir(), "{what} was replaced");
        fs::remove_file(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        assert_serves(&running, "");
        assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
    }
}

#[test]
fn a_directory_that_vanishes_while_its_tenant_sleeps_is_missed_at_the_next_request() {
    let setup = Setup { pool: "idle_timeout = \"100ms\"".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    for tenant in ["alice", "bob"] {
        running.client_of(tenant).post(UPDATE, format!("of {tenant}")).ok();
    }
    wait::until("sleep", || running.workers().is_empty());
    fs::rename(hers(&running), running.join("away")).unwrap();
    // Monitoring shows it before alice's next request.
    wait::until("the metric", || {
        (Scrape::of_pool(running.address).value("sq_pool_directories_missing") - 1.0).abs() < f64::EPSILON
    });
    assert_gone(&running);
    fs::rename(running.join("away"), hers(&running)).unwrap();
    assert_serves(&running, "of alice");
}

#[test]
fn a_directory_that_was_away_at_the_start_is_missed_and_another_one_is_served() {
    let root = served().stop();
    fs::rename(root.join("data/alice"), root.join("away")).unwrap();
    let running = Deployment::up(root, &[]);
    assert_gone(&running);
    fs::rename(running.join("away"), hers(&running)).unwrap();
    assert_serves(&running, "of alice");
}

#[test]
fn the_operator_says_that_a_tenant_begins_with_an_empty_directory() {
    let running = served();
    assert_eq!(
        running.with_config(&["tenants", "make-directory", "alice", "bob"]).success(),
        "nothing is missing\n"
    );
    fs::remove_dir_all(hers(&running)).unwrap();
    assert_gone(&running);
    let unknown = running.with_config(&["tenants", "make-directory", "carol"]);
    assert_eq!(unknown.code(), Some(1), "{unknown:?}");
    let made = running.with_config(&["tenants", "make-directory", "alice"]).success();
    assert!(made.contains(hers(&running).to_str().unwrap()), "{made}");
    assert_serves(&running, "");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
}

/// Commands create a tenant's directory before the registry names the tenant; an operator who edits the registry by
/// hand need not.
#[test]
fn a_new_tenant_gets_a_directory_however_it_is_added_and_keeps_it() {
    let running = served();
    running.with_config(&["tenants", "add", "carol"]).success();
    running.admin().post("/admin/tenants/add", r#"{"name":"dave"}"#);
    let by_hand = running.read("tenants.toml") + &registry_text(&[Tenant::new("erin", 1350)]);
    running.write_registry(&by_hand);
    let erin = running.client_of("erin");
    wait::until("erin to be served", || erin.get(SELECT).status == 200);
    erin.post(UPDATE, "of erin").ok();
    for name in ["carol", "dave", "erin"] {
        assert!(running.join("data").join(name).is_dir(), "{name} has no directory");
        fs::remove_dir_all(running.join("data").join(name)).unwrap();
    }
    erin.get(SELECT).problem(503, "data_root_missing");
    let told = running.with_config(&["check"]).stderr;
    for name in ["carol", "dave", "erin"] {
        assert!(told.contains(&format!("the directory of tenant {name}")), "{told}");
        assert!(!running.join("data").join(name).exists());
    }
}

/// A tenant that is removed, and another with the same name.
#[test]
fn name_of_a_removed_tenant_can_be_used_again() {
    let root = Root::new(&Setup::default());
    root.with_config(&["tenants", "add", "carol"]).success();
    root.with_config(&["tenants", "remove", "carol"]).success();
    let by_hand = root.read("tenants.toml") + &registry_text(&[Tenant::new("carol", 1350)]);
    root.write_registry(&by_hand);
    let running = Deployment::up(root, &[]);
    assert_eq!(running.client_of("carol").get(SELECT).ok(), "");
}

/// Directories outside the data root, as in old registries: a missing one is an unmounted disk as well.
#[test]
fn a_directory_outside_the_data_root_is_missed_too() {
    let root = Root::without_registry(&Setup::default());
    fs::create_dir_all(root.join("disk/alice")).unwrap();
    fs::write(root.join("disk/alice/text.phext"), "hers").unwrap();
    root.write("old", r#"{"tenants": {"t1": {"name": "alice", "data_dir": "disk/alice"}}}"#);
    let running = Deployment::up(root, &["--tenants", "old"]);
    let alice = running.client(Some("t1"));
    assert_eq!(alice.get(SELECT).ok(), "hers");
    for _ in 0..2 {
        fs::rename(running.join("disk"), running.join("away")).unwrap();
        wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
        alice.get(SELECT).problem(503, "data_root_missing");
        alice.post(UPDATE, "lost").problem(503, "data_root_missing");
        assert!(!running.join("disk").exists(), "it was made");
        fs::rename(running.join("away"), running.join("disk")).unwrap();
        wait::until("the return to be seen", || alice.get(SELECT).status == 200);
        assert_eq!(alice.get(SELECT).ok(), "hers");
    }
    let root = running.stop();
    fs::rename(root.join("disk"), root.join("away")).unwrap();
    let running = Deployment::up(root, &["--tenants", "old"]);
    running.client(Some("t1")).get(SELECT).problem(503, "data_root_missing");
    assert!(!running.join("disk").exists(), "it was made");
}

/// Each tenant's directory may be a separate file system. Under its mount point is an empty folder that is not the
/// tenant's.
#[test]
fn a_tenants_own_file_system_is_missed_when_it_is_not_mounted() {
    if !mount::works("a file system per tenant", &[]) {
        return;
    }
    let root = Root::new(&Setup::default());
    let disk = root.join("disk");
    fs::create_dir_all(&disk).unwrap();
    let bind = |root: &Root| {
        let point = root.join("data/alice");
        fs::create_dir_all(&point).unwrap();
        Mount::tmpfs(&point, "8m")
    };
    let mounted = bind(&root);
    let running = Deployment::up(root, &[]);
    let alice = running.client_of("alice");
    alice.post(UPDATE, "hers").ok();
    process::run(Command::new("umount").arg("--lazy").arg(mounted.path())).success();
    wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
    alice.get(SELECT).problem(503, "data_root_missing");
    alice.post(UPDATE, "lost").problem(503, "data_root_missing");
    let is_empty = |folder: &Path| fs::read_dir(folder).unwrap().count() == 0;
    assert!(is_empty(&hers(&running)), "something was made under the mount point");
    assert_eq!(running.with_config(&["check"]).code(), Some(1));
    // Another disk is mounted.
    let again = Mount::tmpfs(&hers(&running), "8m");
    fs::write(again.path().join("text.phext"), "restored").unwrap();
    assert_serves(&running, "restored");
    drop(running);
    drop((again, mounted));
}

/// A disk with the folders of several tenants, and empty folders under its mount point.
#[test]
fn a_directory_below_a_mount_point_is_missed_without_the_mount() {
    if !mount::works("a directory below a mount point", &[]) {
        return;
    }
    let root = Root::without_registry(&Setup::default());
    let mounted = |root: &Root| {
        let disk = Mount::tmpfs(&root.join("mnt"), "8m");
        fs::create_dir_all(disk.path().join("disk/alice")).unwrap();
        disk
    };
    fs::create_dir_all(root.join("mnt/disk/alice")).unwrap();
    root.write("old", r#"{"tenants": {"t1": {"name": "alice", "data_dir": "mnt/disk/alice"}}}"#);
    let under = |root: &Root| fs::read_dir(root.join("mnt/disk/alice")).unwrap().count();
    let disk = mounted(&root);
    let mut running = Deployment::up(root, &["--tenants", "old"]);
    running.client(Some("t1")).post(UPDATE, "hers").ok();
    process::run(Command::new("umount").arg("--lazy").arg(disk.path())).success();
    for is_restarted in [false, true] {
        if is_restarted {
            running = Deployment::up(running.stop(), &["--tenants", "old"]);
        }
        let alice = running.client(Some("t1"));
        wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
        alice.get(SELECT).problem(503, "data_root_missing");
        alice.post(UPDATE, "lost").problem(503, "data_root_missing");
        assert_eq!(under(&running), 0, "something was made under the mount point");
        assert!(running.log().contains("is not mounted"), "{}", running.log());
    }
    // Another disk is mounted, and not accepted either.
    let again = mounted(&running);
    let alice = running.client(Some("t1"));
    wait::until("the return to be seen", || alice.get(SELECT).status == 200);
    alice.post(UPDATE, "again").ok();
    process::run(Command::new("umount").arg("--lazy").arg(again.path())).success();
    wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
    assert_eq!(under(&running), 0, "something was made under the mount point");
    drop(running);
    drop((again, disk));
}

/// A mount over a tenant's directory replaces it. From then on the directory underneath is not the tenant's until the
/// operator says so.
#[test]
fn a_mount_over_a_directory_is_served_and_missed_when_it_is_gone() {
    if !mount::works("a mount over a tenant's directory", &[]) {
        return;
    }
    let running = served();
    let over = Mount::tmpfs(&hers(&running), "8m");
    fs::write(over.path().join("text.phext"), "mounted").unwrap();
    let alice = running.client_of("alice");
    wait::until("what is mounted to be served", || alice.get(SELECT).body == b"mounted");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
    process::run(Command::new("umount").arg("--lazy").arg(over.path())).success();
    wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
    alice.get(SELECT).problem(503, "data_root_missing");
    alice.post(UPDATE, "lost").problem(503, "data_root_missing");
    assert_eq!(running.with_config(&["check"]).code(), Some(1));
    running.with_config(&["tenants", "make-directory", "alice"]).success();
    assert_serves(&running, "of alice");
    drop(running);
    drop(over);
}

/// An operator's mistake with a link: no tenant gets another's directory.
#[test]
fn a_path_that_leads_to_another_tenants_directory_is_not_followed() {
    let running = served();
    let (alice, away) = (running.client_of("alice"), running.join("away"));
    fs::rename(hers(&running), &away).unwrap();
    symlink(running.join("data/bob"), hers(&running)).unwrap();
    wait::until("the loss to be seen", || alice.get(SELECT).status == 503);
    alice.get(SELECT).problem(503, "data_root_missing");
    alice.post(UPDATE, "hers").problem(503, "data_root_missing");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
    assert!(running.log().lines().any(|line| line.contains("ERROR") && line.contains("owner=bob")));
    fs::remove_file(hers(&running)).unwrap();
    fs::rename(&away, hers(&running)).unwrap();
    assert_serves(&running, "of alice");
}

/// The same before any request for either tenant: the link is refused.
#[test]
fn link_to_an_unconfirmed_directory_is_not_followed() {
    for target in ["bob", "bob/years", "."] {
        let running = Deployment::start(&Setup::default());
        fs::create_dir_all(running.join("data/bob/years")).unwrap();
        fs::write(running.join("data/bob/text.phext"), "of bob").unwrap();
        symlink(target, hers(&running)).unwrap();
        let alice = running.client_of("alice");
        alice.get(SELECT).problem(503, "data_root_missing");
        alice.post(UPDATE, "hers").problem(503, "data_root_missing");
        assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob", "{target}");
        assert!(running.log().lines().any(|line| line.contains("ERROR") && line.contains("owner=bob")));
        fs::remove_file(hers(&running)).unwrap();
        fs::create_dir(hers(&running)).unwrap();
        assert_serves(&running, "");
    }
}

/// A new tenant whose directory's path, or note's path, is occupied.
#[test]
fn obstacle_to_a_new_directory_is_reported_at_once() {
    for (way, told) in [
        ("data/alice", "what is there is not a directory"),
        ("data/.sq-tenants", ".sq-tenants/alice: Not a directory"),
    ] {
        let running = Deployment::start(&Setup::default());
        let way = running.join(way);
        fs::write(&way, "a file").unwrap();
        let alice = running.client_of("alice");
        alice.get(SELECT).problem(503, "data_root_missing");
        alice.post(UPDATE, "lost").problem(503, "data_root_missing");
        let is_told = |line: &str| ["ERROR", "tenant=alice", told].iter().all(|words| line.contains(words));
        assert!(running.log().lines().any(is_told), "{told}: {}", running.log());
        let checked = running.with_config(&["check"]);
        assert_eq!(checked.code(), Some(1), "{checked:?}");
        assert!(checked.stderr.contains(told), "{checked:?}");
        fs::remove_file(&way).unwrap();
        // The tenant is new, and gets a directory.
        assert_serves(&running, "");
    }
}

/// A disk that replaces a tenant's folder: the next start without it reports it missing.
#[test]
fn a_file_system_that_came_later_is_missed_at_the_next_start() {
    if !mount::works("a file system that comes later", &[]) {
        return;
    }
    let running = served();
    let root = running.stop();
    let over = Mount::tmpfs(&root.join("data/alice"), "8m");
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(UPDATE, "on the disk").ok();
    let root = running.stop();
    process::run(Command::new("umount").arg(over.path())).success();
    let running = Deployment::up(root, &[]);
    running.client_of("alice").get(SELECT).problem(503, "data_root_missing");
    running.client_of("alice").post(UPDATE, "lost").problem(503, "data_root_missing");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "of bob");
    drop(running);
    drop(over);
}

/// A worker without a pool is not restarted: it exits, and says why.
#[test]
fn a_worker_that_is_started_alone_ends_when_its_directory_is_removed() {
    let root = Root::empty();
    let directory = root.join("data");
    let mut worker = LoneWorker::start(&directory);
    worker.client.post(UPDATE, "text").ok();
    fs::remove_dir_all(&directory).unwrap();
    let read = worker.client.try_get(SELECT);
    assert!(read.as_ref().map_or(true, |answer| answer.status == 503), "{read:?}");
    let status = wait::until_some("its end", || worker.try_ended());
    assert_eq!(status.code(), Some(1));
    assert!(!directory.exists());
}
