//! A disk that is full, for true: a small file system, filled by the tenant's own writes.

use std::path::Path;

use sq_tests::ledger::{Edit, Ledger, Write, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::notice::say;
use sq_tests::root::Root;

use super::{SMALL, append, assert_files_hold_everything, remove};

/// More writes than any of the disks has room for.
const MOST_WRITES: usize = 4000;

/// How the disk is filled.
struct Filling {
    text_bytes: usize,
    scrolls_per_phext: usize,
}

impl Filling {
    fn write(&self, number: usize) -> Write {
        let (phext, scroll) = (number / self.scrolls_per_phext, number % self.scrolls_per_phext);
        let text = format!("{number:>8}").repeat(self.text_bytes / 8);
        Write::new(&format!("p{phext}"), scroll + 1, Edit::Append(text))
    }
}

#[test]
fn a_full_disk_of_small_phexts() {
    if !mount::works("a full disk in memory", &[]) {
        return;
    }
    let root = Root::empty();
    let disk = Mount::tmpfs(&root.join("disk"), "1m");
    fill_and_make_room(disk.path(), &Filling { text_bytes: 4 << 10, scrolls_per_phext: 5 });
}

#[test]
fn a_full_disk_of_one_phext() {
    if !mount::works("a full disk in memory", &[]) {
        return;
    }
    let root = Root::empty();
    let disk = Mount::tmpfs(&root.join("disk"), "4m");
    fill_and_make_room(disk.path(), &Filling { text_bytes: 64 << 10, scrolls_per_phext: MOST_WRITES });
}

#[test]
fn a_full_disk_of_large_phexts() {
    if !mount::works("a full disk on ext4", &["mkfs.ext4"]) {
        return;
    }
    let root = Root::empty();
    let image = root.join("image");
    // No blocks are kept back for root, which we are.
    mount::make_image(&image, 32 << 20, &["mkfs.ext4", "-q", "-F", "-m", "0"]);
    let disk = Mount::image(&image, &root.join("disk"), "");
    fill_and_make_room(&disk.path().join("data"), &Filling { text_bytes: 256 << 10, scrolls_per_phext: 12 });
}

/// Writes until there is no room, then does all that must still go: reads, deletes, and what they make
/// room for.
fn fill_and_make_room(data_dir: &Path, filling: &Filling) {
    let ledger = Ledger::default();
    let worker = LoneWorker::start(data_dir);
    let taken =
        (0..MOST_WRITES).take_while(|number| is_taken(&worker, &ledger, filling.write(*number))).count();
    assert!(taken < MOST_WRITES, "the disk did not become full");
    // Not only the first one that did not fit.
    for number in taken..taken + 3 {
        is_taken(&worker, &ledger, filling.write(number));
    }
    is_taken(&worker, &ledger, append(SMALL, 1, &"x".repeat(filling.text_bytes)));
    say(&format!("full disk: {taken} writes of {} bytes fit", filling.text_bytes));
    ledger.judge(&state_of(&worker.client).unwrap());

    let removed = |number| Write { edit: Edit::Remove, ..filling.write(number) };
    let room = 4.min(taken / 2);
    for number in 0..room {
        ledger.perform(&worker.client, removed(number)).unwrap().ok();
    }
    ledger.judge(&state_of(&worker.client).unwrap());
    ledger.perform(&worker.client, append(SMALL, 1, "there is room again")).unwrap().ok();
    ledger.perform(&worker.client, filling.write(0)).unwrap().ok();
    ledger.judge(&state_of(&worker.client).unwrap());

    worker.kill();
    let worker = LoneWorker::start(data_dir);
    ledger.judge(&state_of(&worker.client).unwrap());
    ledger.perform(&worker.client, remove(SMALL, 1)).unwrap().ok();
    ledger.judge(&state_of(&worker.client).unwrap());
    assert_files_hold_everything(data_dir, worker);
}

/// Whether there was room for a write; if not, it was refused as it must be.
fn is_taken(worker: &LoneWorker, ledger: &Ledger, write: Write) -> bool {
    let answer = ledger.perform(&worker.client, write).unwrap();
    if answer.status == 200 {
        return true;
    }
    let problem = answer.refused(507, "disk_full");
    assert!(problem["used"].is_u64(), "{answer}");
    false
}
