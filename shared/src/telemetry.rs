//! Logs: to standard error, as text or JSON, filtered by `RUST_LOG`.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

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

/// What is logged when `RUST_LOG` does not say. pingora logs what clients do as warnings and errors; what matters of it
/// stands in our own lines.
const DEFAULT_FILTER: &str = "info,pingora_core=off";

/// Starts logging; a second call does nothing. `RUST_LOG` takes levels, for all or by target, as in
/// `info,access=off`; one that cannot be read counts as not set. (`EnvFilter` could do more, with a regex
/// engine that every one of 500 workers would hold in memory.)
pub fn init(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.or_else(|| DEFAULT_FILTER.parse().ok()).unwrap_or_default();
    let lines = fmt::layer::<Registry>().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second subscriber cannot be set, and the first one then serves as well.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
