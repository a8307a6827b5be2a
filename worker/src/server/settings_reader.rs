//! Reads the pool's settings from standard input, on the worker's only thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;

use crate::settings::WorkerSettings;

/// Settings from the pool, one JSON object per line.
#[derive(Debug)]
pub(crate) struct SettingsReader {
    lines: Lines<BufReader<pipe::Receiver>>,
}

impl SettingsReader {
    /// Reads from standard input. Call it inside a runtime.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { lines: BufReader::new(pipe::Receiver::from_file(stdin)?).lines() })
    }

    /// The next settings; `None` at the end of standard input. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<WorkerSettings>> {
        // A pipe that fails to read counts as closed.
        let Ok(Some(line)) = self.lines.next_line().await else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line)?))
    }
}
