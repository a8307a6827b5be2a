//! Power cuts: the disk as it was at some moment, with nothing that was only in the machine's memory.
//!
//! The worker's directory is on an ext4 in an image on a loop device. What the ext4 has sent to its disk is in
//! the image; what is only in its page cache or in the transaction that it has not committed yet is not, and
//! `commit=300` keeps it from committing by itself meanwhile. So a copy of the image is what a disk holds after
//! a power cut, if it is of one moment: the image lies on btrfs, whose clone of a file holds off every write
//! to it. Mounting the copy replays ext4's own journal, as the next boot would.
//!
//! It is a disk without a cache of its own: a sync that does not come at all is found, one that comes without
//! a flush is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::client::Client;
use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Moment, Write, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::notice::say;
use sq_tests::process;
use sq_tests::random::Random;
use sq_tests::root::Root;
use sq_tests::wait;

use super::{LARGE, SMALL, append, mention, remove, replace};

/// A phext in a folder, by the link to it.
const KEPT: &str = "kept";

/// How often the power is cut.
const CUTS: usize = 30;

/// How long a cut waits for the moment in which a large phext's file is made anew: it is a second after a
/// write at the latest.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);

/// A disk whose power can be cut. The fields go in this order: each stands on the next.
struct Disk {
    inner: Mount,
    outer: Mount,
    _memory: Mount,
    root: Root,
}

impl Disk {
    fn new() -> Self {
        let root = Root::empty();
        // In memory, because a sync of a real disk would wait for that too.
        let memory = Mount::tmpfs(&root.join("memory"), "1g");
        let outer_image = root.join("memory/image");
        mount::make_image(&outer_image, 400 << 20, &["mkfs.btrfs", "-q"]);
        let outer = Mount::image(&outer_image, &root.join("outer"), "");
        let inner_image = root.join("outer/image");
        mount::make_image(&inner_image, 64 << 20, &["mkfs.ext4", "-q", "-F"]);
        let inner = Mount::image(&inner_image, &root.join("inner"), ",commit=300");
        Self { inner, outer, _memory: memory, root }
    }

    /// Where the worker's directory is.
    fn data_dir(&self) -> PathBuf {
        self.inner.path().join("data")
    }

    /// Cuts the power: the image as it is now, in a file of its own.
    fn cut(&self) -> PathBuf {
        let cut = self.outer.path().join("cut");
        let image = self.outer.path().join("image");
        process::run(Command::new("cp").args(["--reflink=always"]).args([&image, &cut])).success();
        cut
    }

    /// Starts the machine again, on what the cut has left.
    fn boot(&self, cut: &Path) -> Mount {
        Mount::image(cut, &self.root.join("booted"), "")
    }
}

/// When the power is cut.
#[derive(Debug, Clone, Copy)]
enum When {
    /// In the middle of writing.
    Busy,
    /// Between two writes: all that was tried has been acknowledged. No later sync can make up for one that
    /// is missing.
    Quiet,
    /// While the file of the large phext is made anew.
    Saving,
}

/// The writers, and what they share with the one who cuts.
#[derive(Default)]
struct Writing {
    ledger: Ledger,
    /// Each write holds it for reading; whoever holds it for writing is alone.
    gate: RwLock<()>,
    acknowledged: AtomicUsize,
    is_done: AtomicBool,
}

#[test]
fn a_power_cut_takes_nothing_acknowledged() {
    if !mount::works("power cuts", &["mkfs.ext4", "mkfs.btrfs"]) {
        return;
    }
    let disk = Disk::new();
    assert_a_missing_sync_is_found(&disk);
    fs::create_dir(disk.data_dir()).unwrap();
    let writing = Writing::default();
    large_phext::write(&disk.data_dir(), LARGE, &writing.ledger);
    process::run(Command::new("sync").arg("-f").arg(disk.data_dir())).success();
    let worker = LoneWorker::start(&disk.data_dir());
    // Another program makes folders, a phext in them and a link, and syncs none of them.
    let folder = disk.data_dir().join("years/2026");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("kept.phext"), "").unwrap();
    symlink("years/2026/kept.phext", disk.data_dir().join("kept.phext")).unwrap();
    thread::scope(|scope| {
        for (writer, phext) in [SMALL, LARGE, KEPT].into_iter().enumerate() {
            let (client, writing) = (worker.client.clone(), &writing);
            scope.spawn(move || write(writer, phext, &client, writing));
        }
        let cutting = scope.spawn(|| cut_again_and_again(&disk, &writing)).join();
        writing.is_done.store(true, Ordering::Relaxed);
        cutting.unwrap();
    });
    worker.stop();
    let acknowledged = writing.acknowledged.load(Ordering::Relaxed);
    say(&format!("power cuts: {CUTS}, over {acknowledged} acknowledged writes"));
}

/// The rig itself is tested first: a store that forgets a sync must lose something here.
fn assert_a_missing_sync_is_found(disk: &Disk) {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        process::run(command.current_dir(disk.inner.path()).args(["-ec", script])).success()
    };
    shell("echo old > file; echo old > renamed; sync -f .");
    shell("echo new > renamed.tmp; sync renamed.tmp; mv renamed.tmp renamed; echo new > file");
    let read_after_cut = || {
        let cut = disk.cut();
        let booted = disk.boot(&cut);
        ["file", "renamed"].map(|name| fs::read_to_string(booted.path().join(name)).unwrap())
    };
    assert_eq!(read_after_cut(), ["old\n", "old\n"], "a missing sync is not seen here");
    shell("sync file; sync .");
    assert_eq!(read_after_cut(), ["new\n", "new\n"], "what was synced is lost here");
}

fn cut_again_and_again(disk: &Disk, writing: &Writing) {
    let mut random = Random::new(7);
    for number in 0..CUTS {
        let when = [When::Busy, When::Quiet, When::Saving][number % 3];
        let enough = writing.acknowledged.load(Ordering::Relaxed) + 2 + random.below(20);
        wait::until("acknowledged writes", || writing.acknowledged.load(Ordering::Relaxed) >= enough);
        let (cut, from, until, alone) = match when {
            When::Quiet => {
                let alone = writing.gate.write().unwrap();
                let now = writing.ledger.now();
                (disk.cut(), now, now, alone)
            }
            When::Busy | When::Saving => {
                if matches!(when, When::Saving) {
                    let temporary = disk.data_dir().join("large.phext.tmp");
                    // It is there only for a moment.
                    let end = Instant::now() + SAVE_PATIENCE;
                    while !temporary.exists() && Instant::now() < end {
                        wait::pass(Duration::from_millis(1));
                    }
                }
                let from = writing.ledger.now();
                let cut = disk.cut();
                let until = writing.ledger.now();
                (cut, from, until, writing.gate.write().unwrap())
            }
        };
        judge_cut(disk, writing, (number, when), &cut, (from, until));
        drop(alone);
    }
}

fn judge_cut(disk: &Disk, writing: &Writing, which: (usize, When), cut: &Path, window: (Moment, Moment)) {
    let booted = disk.boot(cut);
    let worker = LoneWorker::start(&booted.path().join("data"));
    mention(which);
    writing.ledger.judge_between(window.0, window.1, &state_of(&worker.client).unwrap());
    replace(SMALL, 40, "after the cut").send(&worker.client).unwrap().ok();
    worker.stop();
    drop(booted);
    fs::remove_file(cut).unwrap();
}

/// Writes to a phext until it is told to stop: all kinds of edits, some scrolls again and again.
fn write(writer: usize, phext: &str, client: &Client, writing: &Writing) {
    let mut random = Random::new(writer as u64);
    for number in 0.. {
        if writing.is_done.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("{number}, {}", "x".repeat(random.below(2000)));
        let scroll = 30 + random.below(6);
        let edit: Write = match random.below(6) {
            0 => remove(phext, scroll),
            1 | 2 => append(phext, scroll, &text),
            _ => replace(phext, scroll, &text),
        };
        let open = writing.gate.read().unwrap();
        writing.ledger.perform(client, edit).unwrap().ok();
        writing.acknowledged.fetch_add(1, Ordering::Relaxed);
        drop(open);
    }
}
