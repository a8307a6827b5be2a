//! A data root that was moved to a disk: copied there, and the disk mounted over the folder. The copy that stays under the mount
//! point has the same marker, and must never be served again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Bound};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::key_of;
use sq_tests::{binaries, process, wait};

use super::{
    ID, MARKER, SELECT, UPDATE, assert_back, assert_missing, assert_refused, ready, served, starts, stopped,
};

const TEXT: &str = "data/alice/text.phext";

/// Copies the data root to the folder of a disk; what is left in its place is old from then on.
fn copy_to_disk(root: &Root) {
    process::run(Command::new("cp").arg("-a").args([root.join("data"), root.join("disk")])).success();
    let _ = fs::remove_file(root.join("data/alice/text.journal"));
    root.write(TEXT, "old");
}

fn mount_disk(root: &Root) -> Bound {
    Bound::new(&root.join("disk"), &root.join("data"), "")
}

/// A system that has stopped, and whose data root has been moved to a disk; `None` where nothing can be mounted.
fn moved_to_disk(what: &str) -> Option<(Arc<Root>, Bound)> {
    if !mount::works(what, &[]) {
        return None;
    }
    let root = stopped();
    copy_to_disk(&root);
    let disk = mount_disk(&root);
    Some((root, disk))
}

/// What lies under the mount point is as it was.
fn assert_untouched(root: &Root) {
    assert_eq!(root.read(TEXT), "old");
    assert!(!root.join("data/alice/text.journal").exists(), "a write went under the mount point");
}

fn knows_mount(root: &Root) -> bool {
    root.read(ID).contains(&format!("{}\n", root.join("data").display()))
}

/// The folder under the mount point serves nothing, before and after a start; the disk does when it is back.
#[test]
fn the_copy_under_the_mount_point_is_not_served() {
    let Some((root, disk)) = moved_to_disk("a data root that is moved to a disk") else { return };
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(UPDATE, "hers").ok();
    assert!(knows_mount(&running), "{}", running.read(ID));
    assert!(!running.read(MARKER).contains("mounted"));
    drop(disk);
    assert_missing(&running);
    assert_untouched(&running);
    let disk = mount_disk(&running);
    assert_back(&running);
    let root = running.stop();
    drop(disk);
    for (what, outcome) in starts(&root) {
        assert_refused(what, &outcome);
        assert!(outcome.stderr.contains("sed -i"), "{what}: {outcome:?}");
    }
    for arguments in [&["check"][..], &["tenants", "add", "carol"], &["tenants", "make-directory", "--all"]] {
        assert_refused(arguments[0], &root.with_config(arguments));
    }
    let mut fsck = Command::new(binaries::worker());
    assert_refused("fsck", &process::run(fsck.args(["fsck", "--root"]).arg(root.path())));
    assert_untouched(&root);
    let _disk = mount_disk(&root);
    let running = Deployment::up(root, &[]);
    assert_back(&running);
    drop(running);
}

#[test]
fn a_disk_that_is_mounted_over_the_running_system_is_missed_as_well() {
    if !mount::works("a disk that is mounted over the running system", &[]) {
        return;
    }
    let running = served();
    wait::until("the save", || running.join(TEXT).exists());
    copy_to_disk(&running);
    let disk = mount_disk(&running);
    wait::until("the mount to be noted", || knows_mount(&running));
    wait::until("the disk to be served", || running.client_of("alice").get(SELECT).body == b"hers");
    assert_back(&running);
    drop(disk);
    assert_missing(&running);
    assert_untouched(&running);
    let _disk = mount_disk(&running);
    assert_back(&running);
    drop(running);
}

/// What the message says, for data that is to lie in the folder again.
#[test]
fn the_operator_says_that_the_data_lies_in_a_folder_for_good() {
    let Some((root, disk)) = moved_to_disk("a data root that comes back from a disk") else { return };
    assert!(!knows_mount(&root));
    // A command that makes something notes it too; one that only looks does not.
    root.with_config(&["check"]).success();
    assert!(!knows_mount(&root));
    root.with_config(&["tenants", "add", "carol"]).success();
    assert!(knows_mount(&root), "{}", root.read(ID));
    drop(disk);
    let told = root.with_config(&["check"]).stderr;
    let (begin, end) = (told.find("sed -i").unwrap(), told.find(", and start").unwrap());
    process::run(Command::new("sh").args(["-c", &told[begin..end]])).success();
    let running = Deployment::up(root, &[]);
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "old");
    assert_eq!(running.with_config(&["check"]).success(), "ok\n");
    assert_eq!(running.read(MARKER), running.read(ID));
}

/// Then the processes alone know it.
#[test]
fn a_mount_that_cannot_be_noted_is_missed_until_the_next_start() {
    if !mount::works("a mount that cannot be noted", &[]) {
        return;
    }
    let root = stopped();
    copy_to_disk(&root);
    // Root may write anywhere; a folder in the way of the temporary file is in root's way too.
    fs::create_dir_all(root.join(format!("{ID}.tmp/in-the-way"))).unwrap();
    let disk = mount_disk(&root);
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(UPDATE, "hers").ok();
    wait::until("a warning", || running.log().contains("cannot be noted beside the config"));
    drop(disk);
    wait::until("the loss to be seen", || ready(&running) == 503);
    for (tenant, port) in [("alice", 1341), ("bob", 1342)] {
        running.client_of(tenant).post(UPDATE, "lost").problem(503, "data_root_missing");
        let slot = running.slot(port, Some(&key_of(tenant)));
        wait::until("the pool to see the loss", || {
            slot.try_get(SELECT).is_ok_and(|answer| answer.status == 503)
        });
        slot.post(UPDATE, "lost").refused(503, "data_root_missing");
    }
    assert_untouched(&running);
    let _disk = mount_disk(&running);
    assert_back(&running);
    drop(running);
}

#[test]
fn gateway_and_pool_apart_miss_the_mount_each_by_itself() {
    let Some((root, disk)) = moved_to_disk("a mount that gateway and pool see") else { return };
    let (pool, gateway) = (Pool::start(&root), Gateway::serve(&root));
    let alice = gateway.client_of("alice");
    alice.post(UPDATE, "hers").ok();
    drop(disk);
    wait::until("the gateway to see the loss", || gateway.log().contains("disk mounted"));
    wait::until("the pool to see the loss", || pool.log().contains("disk mounted"));
    alice.get(SELECT).problem(503, "data_root_missing");
    pool.stop();
    let mut next = Pool::begin(&root, &binaries::worker(), &[]);
    assert_eq!(next.ended().code(), Some(1));
    assert_untouched(&root);
    let _disk = mount_disk(&root);
    let pool = Pool::start(&root);
    wait::until("the return to be seen", || alice.get(SELECT).status == 200);
    assert_eq!(alice.get(SELECT).ok(), "hers");
    drop((pool, gateway));
}

/// The folder with the data root, on a disk.
#[test]
fn a_root_below_a_mount_point_is_missed_without_its_disk() {
    if !mount::works("a data root below a mount point", &[]) {
        return;
    }
    let root = stopped();
    let config = root.read("gateway.toml").replacen("[gateway]", "[gateway]\ndata_root = \"mnt/sq/data\"", 1);
    root.write("gateway.toml", &config);
    fs::create_dir_all(root.join("mnt/sq")).unwrap();
    fs::rename(root.join("data"), root.join("mnt/sq/data")).unwrap();
    process::run(Command::new("cp").arg("-a").args([root.join("mnt"), root.join("disk")])).success();
    let bind = |root: &Root| Bound::new(&root.join("disk"), &root.join("mnt"), "");
    let disk = bind(&root);
    let running = Deployment::up(root, &[]);
    assert_back(&running);
    drop(disk);
    wait::until("the loss to be seen", || ready(&running) == 503);
    running.client_of("alice").post(UPDATE, "lost").problem(503, "data_root_missing");
    let _disk = bind(&running);
    assert_back(&running);
    drop(running);
}

/// As systemd does it for a service that may write nowhere else: commands outside see the same folder without a mount.
#[test]
fn a_root_that_is_mounted_on_itself_is_a_folder() {
    if !mount::works("a data root that is mounted on itself", &[]) {
        return;
    }
    let root = stopped();
    let data = root.join("data");
    let on_itself = Bound::new(&data, &data, "");
    let running = Deployment::up(root, &[]);
    assert_back(&running);
    assert_eq!(running.read(MARKER), running.read(ID));
    let root: Arc<Root> = running.stop();
    drop(on_itself);
    assert_eq!(root.with_config(&["check"]).success(), "ok\n");
    assert_back(&Deployment::up(root, &[]));
}

/// As a container has it: the mount is in its namespace, and the host has the very folder.
#[test]
fn a_root_that_another_process_has_as_a_mount_is_known_without_it() {
    if !mount::works("a data root that is another's mount", &[]) {
        return;
    }
    let root = stopped();
    fs::rename(root.join("data"), root.join("volume")).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    let script = "mount --make-rprivate / && mount --bind \"$1/volume\" \"$1/data\"";
    let add = root.gateway_command(&["tenants", "add", "carol", "--root", "."]);
    process::run(mount::in_private(script, root.path(), &add).current_dir(root.path())).success();
    assert!(knows_mount(&root), "{}", root.read(ID));
    assert_refused("check", &root.with_config(&["check"]));
    fs::remove_dir(root.join("data")).unwrap();
    fs::rename(root.join("volume"), root.join("data")).unwrap();
    let is_there = |path: &str| Path::new(&root.join(path)).exists();
    assert!(is_there("data/carol") && !is_there("volume"));
    assert_eq!(root.with_config(&["check"]).success(), "ok\n");
}
