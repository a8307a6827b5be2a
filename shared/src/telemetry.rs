//! Logs: to standard error, as text or JSON, filtered by `RUST_LOG`. Only lines of this project's own code are written.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::visible;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The first part of every target of ours: the crates, and the two that name a kind of line.
const OUR_TARGETS: [&str; 5] = ["sq_gateway", "sq_worker", "sq_shared", "access", "admin"];

/// Starts logging; a second call does nothing. `RUST_LOG` takes levels, for all or by target, as in
/// `info,access=off`; one that cannot be read counts as not set. (`EnvFilter` could do more, with a regex
/// engine that every one of 500 workers would hold in memory.)
///
/// Libraries log whole heads, with keys and queries, at levels that they choose. So no level of `RUST_LOG` brings their
/// lines out: those of the `log` crate, pingora's among them, have no logger to go to, and [`is_ours`] stops the others.
pub fn init(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let is_coloured = format == LogFormat::Text && io::stderr().is_terminal();
    let lines = fmt::layer::<Registry>().with_writer(move || VisibleLines { format, is_coloured });
    let lines = match format {
        LogFormat::Text => lines.with_ansi(is_coloured).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = filter.and(filter_fn(is_ours));
    // A second subscriber cannot be set, and the first one then serves as well.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Whether a line is written by this project's code.
fn is_ours(line: &Metadata<'_>) -> bool {
    line.target().split("::").next().is_some_and(|first| OUR_TARGETS.contains(&first))
}

/// Standard error, with what a line hides made visible. The formatter writes a line in one piece.
struct VisibleLines {
    format: LogFormat,
    is_coloured: bool,
}

impl VisibleLines {
    fn visible<'l>(&self, line: &'l str) -> Cow<'l, str> {
        match (self.format, self.is_coloured) {
            (LogFormat::Json, _) => visible::json(line),
            (LogFormat::Text, true) => visible::coloured_line(line),
            (LogFormat::Text, false) => visible::line(line),
        }
    }
}

impl Write for VisibleLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        match self.visible(line) {
            Cow::Borrowed(_) => io::stderr().write_all(bytes)?,
            Cow::Owned(mut line) => {
                line.push('\n');
                io::stderr().write_all(line.as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
