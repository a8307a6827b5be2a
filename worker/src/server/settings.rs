//! Reads the pool's lines from standard input, without a thread of its own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;

use crate::settings::WorkerSettings;

/// The lines of settings from the pool.
#[derive(Debug)]
pub struct SettingsReader {
    lines: Lines<BufReader<pipe::Receiver>>,
}

impl SettingsReader {
    /// Takes standard input over, which must be a pipe. Needs a running runtime.
    ///
    /// # Errors
    /// It is not a pipe.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { lines: BufReader::new(pipe::Receiver::from_file(stdin)?).lines() })
    }

    /// The next settings; `None` when standard input ended. Nothing is lost when this is dropped half way.
    ///
    /// # Errors
    /// The line is not settings.
    pub async fn next(&mut self) -> io::Result<Option<WorkerSettings>> {
        // A pipe that cannot be read is as good as closed.
        let Ok(Some(line)) = self.lines.next_line().await else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line)?))
    }
}
