//! How a command of ours ends badly: a line on standard error, exit code 2 for wrong usage and 1 for
//! everything else.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::process::service_user;
use crate::visible;

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line does not fit together.
    #[error("{0}")]
    Usage(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::from_error(error)
    }
}

impl Failure {
    /// Makes a failure of any error.
    pub fn from_error(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Says it on standard error, with the program's name in front.
    pub fn report(&self, program: &str) -> ExitCode {
        let (message, code) = match self {
            Self::Usage(message) => (message, 2),
            Self::Failed(message) => (message, 1),
        };
        // Nobody is there to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "{program}: {}", visible::text(message));
        if let Some(remark) = service_user::remark_on(message) {
            let _ = writeln!(io::stderr(), "{program}: {}", visible::text(&remark));
        }
        ExitCode::from(code)
    }
}
