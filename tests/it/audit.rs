//! The audit log: one line per write, whole and in order, whatever happens to the request, the file or the process.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{fs, thread};

use rustix::fs::OFlags;
use serde_json::Value;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::{process, wait};

mod complete;
mod ends;
mod failing;
mod rotation;

const AT: &str = "c=1.1.1/1.1.1/1.1.1";

/// A system with these audit settings.
fn setup(audit: &str) -> Setup {
    Setup { gateway: format!("audit = \"{audit}\""), ..Setup::default() }
}

/// A request id that is unique in the run.
fn new_id() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    format!("{:032x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The lines of a file, each of which must be whole.
fn lines_in(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not whole: {text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no line: {line}")))
        .collect()
}

/// The current lines.
fn lines(running: &Deployment) -> Vec<Value> {
    let file = running.join("audit.log");
    wait::until("whole lines", || {
        fs::read(&file).is_ok_and(|log| log.last().is_none_or(|last| *last == b'\n'))
    });
    lines_in(&file)
}

/// A field of a line, as text.
fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// Waits until there are this many lines, and returns them.
fn lines_when(running: &Deployment, count: usize) -> Vec<Value> {
    let counted = |log: Vec<u8>| log.iter().filter(|byte| **byte == b'\n').count() >= count;
    wait::until("the lines", || fs::read(running.join("audit.log")).is_ok_and(counted));
    let lines = lines_in(&running.join("audit.log"));
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

/// A pipe that blocks its writer until it is read.
fn full_pipe(path: &Path) -> File {
    process::run(Command::new("mkfifo").arg(path)).success();
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut pipe = File::options().read(true).write(true).custom_flags(flags).open(path).unwrap();
    fill(&mut pipe);
    pipe
}

fn fill(pipe: &mut File) {
    for bytes in [4096, 1] {
        let error = (0..).find_map(|_| pipe.write_all(&vec![b'\n'; bytes]).err()).unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

/// A write as its client saw it.
#[derive(Debug)]
struct Seen {
    id: String,
    sent: Instant,
    answered: Instant,
    /// `None` if no response came.
    status: Option<u16>,
}

/// Writes to one scroll with a unique id, and returns the time and the result.
fn write(client: &Client, text: &str) -> Seen {
    let (id, sent) = (new_id(), Instant::now());
    let target = format!("/api/v2/insert?p=shared&{AT}");
    let headers = format!("X-Request-Id: {id}\r\n");
    let answer = client.try_request("POST", &target, &headers, Some(text.as_bytes()));
    Seen { id, sent, answered: Instant::now(), status: answer.ok().map(|answer| answer.status) }
}

/// Lets this many clients write to one scroll while `goes_on` returns true, and returns all their writes.
fn write_concurrently(client: &Client, writers: usize, goes_on: impl Fn(usize) -> bool + Sync) -> Vec<Seen> {
    let goes_on = &goes_on;
    thread::scope(|scope| {
        let writer = || (0..).take_while(|number| goes_on(*number)).map(|_| write(client, "+")).collect();
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().flat_map(|thread| -> Vec<Seen> { thread.join().unwrap() }).collect()
    })
}

/// Checks that each write has one line, that each line belongs to a write, and that the lines are in the order of the
/// writes: a write that was answered before another was sent comes first.
fn assert_complete_and_in_order(seen: &[Seen], lines: &[Value]) {
    let mut places = std::collections::HashMap::new();
    for (place, line) in lines.iter().enumerate() {
        let earlier = places.insert(text(line, "request_id").to_owned(), place);
        assert!(earlier.is_none(), "twice: {line}");
    }
    for write in seen {
        let place = *places.get(&write.id).unwrap_or_else(|| panic!("no line for {write:?}"));
        assert_eq!(lines[place]["status"], write.status.expect("an answer"), "{write:?}");
    }
    assert_eq!(lines.len(), seen.len(), "lines of nobody");
    let mut in_order: Vec<&Seen> = seen.iter().collect();
    in_order.sort_by_key(|write| places[&write.id]);
    let mut latest_sent: Option<&Seen> = None;
    for write in in_order {
        let before = latest_sent.filter(|earlier| write.answered < earlier.sent);
        assert!(before.is_none(), "{write:?} was answered before {before:?} was sent, and stands after it");
        latest_sent = latest_sent.filter(|earlier| earlier.sent > write.sent).or(Some(write));
    }
}
