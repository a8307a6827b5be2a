//! Prints a command's result on standard output, and notes about it on standard error. A result that cannot be
//! written is a failure, whatever the command has done: a full disk or a closed pipe must not look like success.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::process::failure::Failure;
use crate::visible;

/// How long to wait for a pipe's reader. A slower one still has the bytes in its pipe.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// How often the pipe is checked.
const CHECK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Prints a line of a command's result.
pub fn say(line: impl fmt::Display) -> Result<(), Failure> {
    let line = line.to_string();
    print(format!("{}\n", visible::text(&line)).as_bytes()).map_err(|error| failure(&error))
}

/// The same for a result as JSON, which is read back exactly.
pub fn say_json(value: &serde_json::Value) -> Result<(), Failure> {
    say(visible::json(&value.to_string()))
}

/// Confirms a change. When that cannot be printed, the failure says it instead.
pub fn confirm(line: impl fmt::Display) -> Result<(), Failure> {
    let line = line.to_string();
    say(&line).map_err(|failure| match failure {
        Failure::Failed(why) => Failure::Failed(format!("done, but {why}; it was to say: {line}")),
        usage @ Failure::Usage(_) => usage,
    })
}

/// Prints a note about a result on standard error.
pub fn note(line: impl fmt::Display) {
    // When the note cannot be printed, the result is still right.
    let _ = writeln!(io::stderr(), "{}", visible::text(&line.to_string()));
}

/// Prints that a server is ready. The server runs even when that fails; a service may have no standard output.
pub fn announce(line: impl fmt::Display) {
    let line = line.to_string();
    if let Err(error) = write(format!("{}\n", visible::text(&line)).as_bytes()) {
        tracing::warn!(%error, "cannot write to standard output; serving all the same");
    }
}

/// Writes something that is stored nowhere else, such as a new key, and waits until a pipe's reader has taken it.
///
/// # Errors
/// It cannot be written, or the reader closed the pipe without reading all of it.
pub fn hand_over(bytes: &[u8]) -> io::Result<()> {
    print(bytes)?;
    wait_for_reader(&io::stdout(), READER_PATIENCE)
}

/// Checks that standard output can be written to, before a command changes anything.
///
/// # Errors
/// Standard output is closed, or open for reading alone.
pub fn check_open() -> io::Result<()> {
    if IS_UNWRITABLE.load(Ordering::Relaxed) { Err(Errno::BADF.into()) } else { Ok(()) }
}

/// The failure of a result that could not be written.
pub fn failure(error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write to standard output: {error}"))
}

fn print(bytes: &[u8]) -> io::Result<()> {
    check_open()?;
    write(bytes)
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Standard output was closed when the process started, or open only for reading. Rust reports writes to it as
/// successful.
static IS_UNWRITABLE: AtomicBool = AtomicBool::new(false);

/// Runs before `main`, because Rust's runtime replaces a closed descriptor by `/dev/null`, to keep its number from
/// other files. After that it looks like a `/dev/null` that the operator wants.
#[ctor::ctor(unsafe)]
fn note_whether_unwritable() {
    // A system call and a store: nothing here needs the runtime.
    let flags = rustix::fs::fcntl_getfl(rustix::stdio::stdout());
    let is_writable = flags.is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
    IS_UNWRITABLE.store(!is_writable, Ordering::Relaxed);
}

/// A write to a pipe succeeds even if its reader ends without reading, and unread bytes are then lost.
fn wait_for_reader(output: &impl AsFd, patience: Duration) -> io::Result<()> {
    let found = rustix::fs::fstat(output)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Fifo {
        return Ok(());
    }
    let began = Instant::now();
    while rustix::io::ioctl_fionread(output)? > 0 && began.elapsed() < patience {
        let mut reader = [PollFd::new(output, PollFlags::empty())];
        poll(&mut reader, Some(&CHECK_INTERVAL))?;
        let [reader] = reader;
        // A reader that closes after reading everything, as `head -1` and `read` do, has the key.
        if reader.revents().contains(PollFlags::ERR) && rustix::io::ioctl_fionread(output)? > 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn what_a_reader_leaves_unread_is_not_handed_over() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"key").unwrap();
        drop(reader);
        let refused = wait_for_reader(&writer, READER_PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);

        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"key").unwrap();
        reader.read_exact(&mut [0; 3]).unwrap();
        drop(reader);
        wait_for_reader(&writer, READER_PATIENCE).unwrap();

        let (_reader, mut writer) = pipe().unwrap();
        writer.write_all(b"key").unwrap();
        wait_for_reader(&writer, Duration::from_millis(5)).unwrap();

        // It reads all and closes while it is waited for.
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"key").unwrap();
        let reading = std::thread::spawn(move || reader.read_exact(&mut [0; 3]));
        wait_for_reader(&writer, READER_PATIENCE).unwrap();
        reading.join().unwrap().unwrap();
    }
}
