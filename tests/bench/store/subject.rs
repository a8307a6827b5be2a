//! A server that is measured, ours or the peer, and what it is asked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::peers::Server;
use sq_tests::random::Random;
use sq_tests::wait;

use super::corpus::{Corpus, NAME, coordinate, phext_file, prose};

/// The key of both; a key of the form that both take.
const KEY: &str = "pmb-v1-0123456789abcdef0123456789abcdef";

/// The text of an update, and of an insert, in bytes.
const UPDATE_BYTES: usize = 1000;
const INSERT_BYTES: usize = 100;

/// How long to wait for a large phext's own file, which follows a second after the last write.
const FILE_PATIENCE: Duration = Duration::from_secs(4);

/// The clock of a file's times moves in steps of at most so much.
const FILE_CLOCK_STEP: Duration = Duration::from_millis(20);

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Our worker.
    Ours,
    /// The peer.
    Theirs,
}

/// What is measured, in the order of the table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    /// The first select of a fresh process.
    ColdOpen,
    /// Any scroll.
    Select,
    /// The list of all scrolls.
    Toc,
    /// Another text for the scroll in the middle.
    Update,
    /// More text for the scroll after it.
    Insert,
}

/// A server on its own copy of a phext.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Whose it is.
    pub(crate) side: Side,
    /// The phext's size, as it was asked for.
    pub(crate) bytes: usize,
    /// How long its scrolls are, about.
    pub(crate) scroll_bytes: usize,
    scrolls: usize,
    data_dir: PathBuf,
    server: Server,
    random: Random,
    prose: String,
    /// Makes each text another: a write that changes nothing costs nothing.
    serial: usize,
    /// The text of the last update.
    updated: Option<String>,
    /// When the last write was sent.
    written: SystemTime,
}

impl Command {
    /// As a row of the table says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ColdOpen => "cold open",
            Self::Select => "select",
            Self::Toc => "toc",
            Self::Update => "update",
            Self::Insert => "insert",
        }
    }

    /// Whether it changes the phext.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Update | Self::Insert)
    }
}

impl Side {
    /// As a column of the tables says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "sq",
        }
    }
}

impl Subject {
    /// Starts a server, ours or this program of the peer, and waits until it answers.
    pub(crate) fn start(corpus: &Corpus, peer: Option<&Path>, data_dir: &Path) -> Self {
        let server = match peer {
            None => Server::worker(data_dir, KEY),
            Some(program) => Server::peer(program, data_dir, KEY),
        };
        let mut random = Random::new(1);
        let mut text = String::new();
        prose(&mut random, UPDATE_BYTES, &mut text);
        Self {
            side: if peer.is_some() { Side::Theirs } else { Side::Ours },
            bytes: corpus.bytes,
            scroll_bytes: corpus.scroll_bytes,
            scrolls: corpus.scrolls,
            data_dir: data_dir.to_owned(),
            server,
            random,
            prose: text,
            serial: 0,
            updated: None,
            written: SystemTime::UNIX_EPOCH,
        }
    }

    /// Asks, and gives how long the whole answer took, from opening the connection on.
    pub(crate) fn ask(&mut self, command: Command) -> Duration {
        let middle = self.scrolls / 2;
        match command {
            Command::ColdOpen | Command::Select => {
                let target = target("select", self.random.below(middle));
                self.timed(|client| client.get(&target), |text| !text.is_empty())
            }
            Command::Toc => {
                let target = format!("/api/v2/toc?p={NAME}");
                self.timed(|client| client.get(&target), |text| text.starts_with("* 1.1.1/1.1.1/1.1.1: "))
            }
            Command::Update => {
                let text = self.another_text(UPDATE_BYTES);
                self.updated = Some(text.clone());
                let target = target("update", middle);
                self.timed(|client| client.post(&target, &text), |text| text.starts_with("Updated "))
            }
            Command::Insert => {
                let text = self.another_text(INSERT_BYTES);
                let target = target("insert", middle + 1);
                self.timed(|client| client.post(&target, &text), |text| text.starts_with("Inserted "))
            }
        }
    }

    fn timed(&self, ask: impl FnOnce(&Client) -> Answer, is_right: impl FnOnce(&str) -> bool) -> Duration {
        let started = Instant::now();
        let answer = ask(&self.server.client);
        let time = started.elapsed();
        assert!(is_right(answer.ok()), "{}: {answer}", self.side.name());
        time
    }

    /// The text of a write that begins now.
    fn another_text(&mut self, bytes: usize) -> String {
        self.serial += 1;
        self.written = SystemTime::now();
        let mut text = format!("{:08} {}", self.serial, self.prose);
        text.truncate(bytes);
        text
    }

    /// Brings the peer's file to the disk, which it does not do itself.
    pub(crate) fn sync_for_peer(&self) {
        if self.side == Side::Theirs {
            File::open(phext_file(&self.data_dir)).and_then(|file| file.sync_all()).expect("a synced phext");
        }
    }

    /// Waits until our file holds what was written, so that this is not done while another is measured.
    pub(crate) fn await_file(&self) {
        if self.side == Side::Theirs {
            return;
        }
        let is_new = |modified: SystemTime| (modified + FILE_CLOCK_STEP >= self.written).then_some(());
        let modified = || phext_file(&self.data_dir).metadata().and_then(|metadata| metadata.modified());
        if wait::within(FILE_PATIENCE, || modified().ok().and_then(is_new)).is_none() {
            println!("note: after {FILE_PATIENCE:?} the .phext file is older than the last write");
        }
    }

    /// Checks that the last update is there.
    pub(crate) fn check(&self) {
        if let Some(text) = &self.updated {
            let answer = self.server.client.get(&target("select", self.scrolls / 2));
            assert_eq!(answer.ok(), text, "the last update of {}", self.side.name());
        }
    }

    /// What it says its version is.
    pub(crate) fn version(&self) -> String {
        self.server.client.get("/api/v2/version").ok().trim().to_owned()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Where connections that stay open are made.
    pub(crate) fn client(&self) -> &Client {
        &self.server.client
    }
}

/// The path and query of a command for the scroll of an index.
pub(crate) fn target(command: &str, index: usize) -> String {
    format!("/api/v2/{command}?p={NAME}&c={}", coordinate(index))
}
