//! A disk that can only be read: reads are served, and writes are refused with the reason.

use std::fs;
use std::path::Path;

use sq_tests::ledger::{Ledger, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::root::Root;

use super::{LARGE, append, remove};

/// An ext4 that can only be read once the kernel has found an error in it.
fn disk(root: &Root) -> Mount {
    let image = root.join("image");
    mount::make_image(&image, 64 << 20, &["mkfs.ext4", "-q", "-F", "-e", "remount-ro"]);
    Mount::image(&image, &root.join("disk"), "")
}

/// A small phext, and a large one whose last writes only its journal has.
fn fill(worker: &LoneWorker, data_dir: &Path, ledger: &Ledger) {
    sq_tests::large_phext::write(data_dir, LARGE, ledger);
    for phext in ["small", LARGE] {
        ledger.perform(&worker.client, append(phext, 40, "before")).unwrap().ok();
    }
}

/// Every read is answered as before, and every write is refused: also a delete, and one that makes a phext.
fn assert_only_reads(worker: &LoneWorker, ledger: &Ledger) {
    ledger.judge(&state_of(&worker.client).unwrap());
    for write in
        [append("small", 40, "x"), append(LARGE, 40, "x"), append("new", 1, "x"), remove("small", 40)]
    {
        let answer = ledger.perform(&worker.client, write).unwrap();
        let problem = answer.refused(503, "worker_unavailable");
        assert!(problem["detail"].as_str().unwrap().contains("can only be read"), "{answer}");
        assert_eq!(answer.header("retry-after"), None, "it does not pass by itself");
    }
    ledger.judge(&state_of(&worker.client).unwrap());
    worker.client.get("/api/v2/version").ok();
    worker.client.get("/api/v2/phexts").ok();
}

#[test]
fn a_disk_that_becomes_read_only_is_read_by_this_worker_and_by_the_next() {
    if !mount::works("a disk that can only be read", &["mkfs.ext4", "findmnt"]) {
        return;
    }
    let root = Root::empty();
    let disk = disk(&root);
    let data_dir = disk.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    let ledger = Ledger::default();
    let worker = LoneWorker::start(&data_dir);
    fill(&worker, &data_dir, &ledger);
    disk.break_to_read_only();
    assert_only_reads(&worker, &ledger);
    // It left its work undone, so the next one finds journals that it would begin again if it could.
    worker.kill();
    let worker = LoneWorker::start(&data_dir);
    assert_only_reads(&worker, &ledger);
    worker.stop();
}

/// The journal of one phext can only be read: the others are written to.
#[test]
fn a_phext_whose_journal_is_immutable_is_read_and_the_others_are_written() {
    if !mount::works("a journal that can only be read", &["mkfs.ext4", "chattr"]) {
        return;
    }
    let root = Root::empty();
    let disk = disk(&root);
    let data_dir = disk.path().join("data");
    let worker = LoneWorker::start(&data_dir);
    let update = |worker: &LoneWorker, text: &str| {
        worker.client.get(&format!("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s={text}"))
    };
    update(&worker, "old").ok();
    let journal = data_dir.join("notes.journal");
    let chattr = |flag: &str| {
        sq_tests::process::run(std::process::Command::new("chattr").arg(flag).arg(&journal)).success()
    };
    worker.kill();
    chattr("+i");
    let worker = LoneWorker::start(&data_dir);
    for _ in 0..2 {
        update(&worker, "new").refused(503, "worker_unavailable");
        assert_eq!(worker.client.get("/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1").ok(), "old");
        worker.client.get("/api/v2/insert?p=other&c=1.1.1/1.1.1/1.1.1&s=x").ok();
    }
    chattr("-i");
    update(&worker, "new").ok();
    assert_eq!(worker.client.get("/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1").ok(), "new");
    worker.stop();
}
