//! What stands where a new file is to be written and does not give way, be it no plain file or a file on which another is
//! mounted: it stops its own phext, and no other.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::root::Root;

/// Puts something in the way.
type Obstacle = fn(&Path);

const OBSTACLES: [(&str, Obstacle); 4] = [
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a folder that is not empty", |path| fs::create_dir_all(path.join("in it")).unwrap()),
    ("a link", |path| symlink("/etc/passwd", path).unwrap()),
    ("a pipe", |path| {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }),
];

#[test]
fn what_is_in_the_way_of_a_new_file_stops_its_own_phext_alone() {
    for suffix in [".phext", ".journal"] {
        for (what, put) in OBSTACLES {
            for is_in_memory in [false, true] {
                check(
                    &format!("{what} at {suffix}.tmp, in memory: {is_in_memory}"),
                    suffix,
                    put,
                    is_in_memory,
                );
            }
        }
    }
}

fn check(what: &str, suffix: &str, put: Obstacle, is_in_memory: bool) {
    let root = Root::empty();
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("notes.phext"), "old").unwrap();
    let mut worker = LoneWorker::start(&data_dir);
    let update = |worker: &LoneWorker, phext: &str| {
        worker.client.get(&format!("/api/v2/update?p={phext}&c=1.1.1/1.1.1/1.1.1&s=new"))
    };
    if is_in_memory {
        assert_eq!(worker.client.get("/api/v2/get?p=notes").ok(), "old");
    }
    let obstacle = data_dir.join(format!("notes{suffix}.tmp"));
    put(&obstacle);
    for _ in 0..3 {
        super::mention(what);
        let problem = update(&worker, "notes").refused(503, "worker_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("not a plain file") && detail.contains(".tmp"), "{what}: {detail}");
        update(&worker, "other").ok();
        let listed = worker.client.get("/api/v2/phexts");
        assert_eq!(listed.json().as_array().unwrap().len(), 2, "{what}: {listed}");
    }
    assert_eq!(fs::read_to_string(data_dir.join("notes.phext")).unwrap(), "old", "{what}");
    assert!(worker.try_ended().is_none(), "{what}");
    // The next start finds it as well, and so does fsck.
    worker.kill();
    let worker = LoneWorker::start(&data_dir);
    update(&worker, "notes").refused(503, "worker_unavailable");
    update(&worker, "other").ok();
    let fsck = sq_tests::process::run(
        std::process::Command::new(sq_tests::binaries::worker()).arg("fsck").arg(&data_dir),
    );
    assert_eq!(fsck.code(), Some(1), "{what}: {fsck:?}");
    assert!(fsck.stdout.contains("blocks the next save"), "{what}: {fsck:?}");

    let is_folder = obstacle.symlink_metadata().unwrap().is_dir();
    if is_folder {
        fs::remove_dir_all(&obstacle).unwrap()
    } else {
        fs::remove_file(&obstacle).unwrap()
    }
    update(&worker, "notes").ok();
    assert_eq!(fs::read_to_string(data_dir.join("notes.phext")).unwrap(), "new", "{what}");
    worker.stop();
}

/// As files are given to a container one by one.
#[test]
fn a_file_on_which_another_is_mounted_stops_its_own_phext_alone() {
    if !mount::works("a file that is mounted", &[]) {
        return;
    }
    for suffix in [".phext", ".journal", ".phext.tmp", ".journal.tmp"] {
        super::mention(suffix);
        let root = Root::empty();
        let data_dir = root.join("data");
        fs::create_dir(&data_dir).unwrap();
        let mut worker = LoneWorker::start(&data_dir);
        let ask = |worker: &LoneWorker, command: &str, phext: &str| {
            worker.client.get(&format!("/api/v2/{command}?p={phext}&c=1.1.1/1.1.1/1.1.1"))
        };
        for phext in ["notes", "other"] {
            ask(&worker, "update", &format!("{phext}&s=old")).ok();
        }
        let file = data_dir.join(format!("notes{suffix}"));
        if !file.exists() {
            fs::write(&file, "left over").unwrap();
        }
        let mounted = Mount::over_itself(&file);
        for _ in 0..2 {
            // Written or refused, and never both; nor is what was read before gone.
            let answer = ask(&worker, "update", "notes&s=new");
            let is_written = answer.status == 200;
            if !is_written {
                answer.refused(503, "worker_unavailable");
            }
            let expected = if is_written { "new" } else { "old" };
            assert_eq!(ask(&worker, "select", "notes").ok(), expected, "{suffix}");
            ask(&worker, "update", "other&s=new").ok();
            assert!(worker.try_ended().is_none(), "{suffix}");
            // The next start has what this one acknowledged.
            worker.kill();
            worker = LoneWorker::start(&data_dir);
            assert_eq!(ask(&worker, "select", "notes").ok(), expected, "{suffix}");
            assert_eq!(ask(&worker, "select", "other").ok(), "new", "{suffix}");
        }
        ask(&worker, "delete", "other").ok();
        ask(&worker, "delete", "notes");
        assert!(worker.try_ended().is_none(), "{suffix}");
        drop(mounted);
        ask(&worker, "update", "notes&s=later").ok();
        assert_eq!(ask(&worker, "select", "notes").ok(), "later", "{suffix}");
        worker.stop();
        assert_eq!(fs::read_to_string(data_dir.join("notes.phext")).unwrap(), "later", "{suffix}");
    }
}
