//! Systems that have no marker yet, or know no id: of a version before there were markers, restored, moved.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Bound};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::{binaries, process, wait};

use super::{ID, MARKER, SELECT, UPDATE, assert_back, assert_refused, ready, starts, stopped};

/// A system of the version before there were markers: the same folder without marker, id and notes.
fn as_before_markers(root: &Root) {
    fs::remove_file(root.join(MARKER)).unwrap();
    fs::remove_file(root.join(ID)).unwrap();
    fs::remove_dir_all(root.join("data/.sq-tenants")).unwrap();
}

#[test]
fn an_upgrade_marks_the_root_once_and_asks_nothing_of_the_operator() {
    let root = stopped();
    as_before_markers(&root);
    assert_eq!(root.with_config(&["check"]).success(), "ok\n");
    assert!(!root.join(MARKER).exists(), "check has made something");
    let running = Deployment::up(root, &[]);
    assert_back(&running);
    assert_eq!(running.read(MARKER), running.read(ID));
    let root = running.stop();
    // Gateway and pool start at once.
    as_before_markers(&root);
    let (pool, gateway) = (Pool::begin(&root, &binaries::worker(), &[]), Gateway::begin(&root, &[]));
    pool.wait_ready();
    gateway.wait_ready();
    assert_eq!(gateway.client_of("alice").get(SELECT).ok(), "hers");
    assert_eq!(root.read(MARKER), root.read(ID));
}

#[test]
fn an_upgrade_whose_disk_is_not_mounted_is_refused() {
    let root = stopped();
    as_before_markers(&root);
    fs::rename(root.join("data"), root.join("away")).unwrap();
    for (what, outcome) in starts(&root) {
        assert_refused(what, &outcome);
    }
    assert_refused("check", &root.with_config(&["check"]));
    assert!(!root.join("data").exists() && !root.join(ID).exists());
    // The operator gives them up.
    // One tenant's is not all that is missing.
    let refused = root.with_config(&["tenants", "make-directory", "alice"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("is the data root's disk mounted"), "{refused:?}");
    root.with_config(&["tenants", "make-directory", "--all"]).success();
    let running = Deployment::up(root, &[]);
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "");
}

/// A restore on an empty host brings the marker, and no id: the root is taken.
#[test]
fn a_restored_root_is_taken_by_a_system_that_knows_no_id() {
    let root = stopped();
    let id = root.read(ID);
    fs::remove_file(root.join(ID)).unwrap();
    assert_eq!(root.with_config(&["check"]).success(), "ok\n");
    let running = Deployment::up(root, &[]);
    assert_back(&running);
    assert_eq!(running.read(ID), id);
}

/// The config's folder can only be read, as with a ConfigMap: the id cannot be kept, and the marker counts all the same.
#[test]
fn config_may_be_in_a_read_only_folder() {
    let root = stopped();
    fs::remove_file(root.join(ID)).unwrap();
    // Root may write anywhere; a folder in the way of the temporary file is in root's way too.
    fs::create_dir_all(root.join(format!("{ID}.tmp/in-the-way"))).unwrap();
    let running = Deployment::up(root, &[]);
    assert!(running.log().contains("cannot be noted"), "{}", running.log());
    fs::rename(running.join("data"), running.join("away")).unwrap();
    wait::until("the loss to be seen", || ready(&running) == 503);
    running.client_of("alice").get(SELECT).problem(503, "data_root_missing");
    fs::rename(running.join("away"), running.join("data")).unwrap();
    assert_back(&running);
}

/// The operator moves everything to a larger disk, with `cp -a` or `mv`: the marker moves too.
#[test]
fn a_root_that_moves_with_the_config_is_known_again() {
    let root = stopped();
    process::run(Command::new("cp").arg("-a").args([root.join("data"), root.join("larger")])).success();
    let config = root.read("gateway.toml").replacen("[gateway]", "[gateway]\ndata_root = \"larger\"", 1);
    root.write("gateway.toml", &config);
    let running = Deployment::up(Arc::clone(&root), &[]);
    assert_back(&running);
    let root = running.stop();
    // To an empty folder it is a mistake.
    root.write("gateway.toml", &config.replace("larger", "nowhere"));
    for (what, outcome) in starts(&root) {
        assert_refused(what, &outcome);
    }
    assert!(!root.join("nowhere").exists());
}

/// Nothing can be marked there, and it was served before there were markers: reads go on.
#[test]
fn an_upgrade_of_a_root_that_can_only_be_read_serves_reads() {
    if !mount::works("a data root that can only be read", &[]) {
        return;
    }
    let root = stopped();
    as_before_markers(&root);
    fs::rename(root.join("data"), root.join("disk")).unwrap();
    let disk = Bound::new(&root.join("disk"), &root.join("data"), "ro");
    let running = Deployment::up(root, &[]);
    assert!(running.log().contains("gets no marker"), "{}", running.log());
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "hers");
    running.client_of("alice").post(UPDATE, "lost").refused(503, "worker_unavailable");
    drop(disk);
    wait::until("the loss to be seen", || ready(&running) == 503);
    running.client_of("alice").get(SELECT).problem(503, "data_root_missing");
    assert_eq!(
        fs::read_dir(running.join("data")).unwrap().count(),
        0,
        "something was made under the mount point"
    );
}
