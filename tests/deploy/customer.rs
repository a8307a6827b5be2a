//! Customers who write through nginx and TLS all the time, and remember what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use sq_tests::process;
use sq_tests::tls_curl::{PATIENCE, TlsCurl};

const INSERT: &str = "/api/v2/insert?p=ledger&c=1.1.1/1.1.1/1.1.1";
const SELECT: &str = "/api/v2/select?p=ledger&c=1.1.1/1.1.1/1.1.1";

/// A customer who appends a line after the other, each sent once. Nobody else writes to the scroll.
pub(crate) struct Customer {
    curl: TlsCurl,
    header: String,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    writing: JoinHandle<Vec<Line>>,
}

/// A line that was sent, and whether its answer was 200.
struct Line {
    text: String,
    is_acknowledged: bool,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Account {
    /// Lines that were sent.
    pub(crate) sent: usize,
    /// Lines that were acknowledged, all of which are there once.
    pub(crate) acknowledged: usize,
}

impl Customer {
    /// Begins to write with this key.
    pub(crate) fn start(curl: TlsCurl, key: &str) -> Self {
        let header = bearer(key);
        let is_over = Arc::new(AtomicBool::new(false));
        let (acknowledged, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let writing = std::thread::spawn({
            let (curl, header) = (curl.clone(), header.clone());
            let is_over = Arc::clone(&is_over);
            let (acknowledged, failed) = (Arc::clone(&acknowledged), Arc::clone(&failed));
            move || {
                write(&curl, &header, &is_over, |is_acknowledged| {
                    let count = if is_acknowledged { &acknowledged } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                })
            }
        });
        Self { curl, header, is_over, acknowledged, failed, writing }
    }

    /// How many lines have been acknowledged until now.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many lines have not been acknowledged.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Stops, reads the scroll, and compares: what was acknowledged is there once, the rest at most once, in order.
    ///
    /// # Panics
    /// It is not.
    pub(crate) fn stop(self) -> Account {
        self.is_over.store(true, Ordering::Relaxed);
        let lines = self.writing.join().expect("the writer");
        let (status, mut left) = self.curl.ask(&["-H", &self.header], SELECT);
        assert_eq!(status, 200, "{left}");
        for line in &lines {
            match left.strip_prefix(&line.text) {
                Some(rest) => left = rest.to_owned(),
                None => assert!(!line.is_acknowledged, "{} is lost; what follows: {left:.100}", line.text),
            }
        }
        assert_eq!(left, "", "something is there twice, or was never sent");
        let acknowledged = lines.iter().filter(|line| line.is_acknowledged).count();
        Account { sent: lines.len(), acknowledged }
    }
}

fn write(curl: &TlsCurl, header: &str, is_over: &AtomicBool, count: impl Fn(bool)) -> Vec<Line> {
    let mut lines = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let text = format!("<{}>", lines.len());
        let mut command = curl.command(&["-H", header, "-o", "/dev/null", "--data-binary", &text], INSERT);
        let answered = process::run_within(&mut command, PATIENCE).stdout;
        let is_acknowledged = answered.trim() == "200";
        count(is_acknowledged);
        lines.push(Line { text, is_acknowledged });
    }
    lines
}

/// The field that a key is sent in.
pub(crate) fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}
