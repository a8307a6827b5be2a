//! Logs to standard error, as text or JSON, filtered by `RUST_LOG`. Only lines of this project's own code are
//! written.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use tracing::Metadata;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::text_enum::text_enum;
use crate::visible;

text_enum! {
    /// The format of log lines.
    #[derive(ValueEnum)]
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

/// The first part of each of our targets: the crates, and two that name a kind of line.
const OUR_TARGETS: [&str; 5] = ["sq_gateway", "sq_worker", "sq_shared", "access", "admin"];

/// Starts logging; a second call does nothing. `RUST_LOG` has levels, for all targets or by target, as in
/// `info,access=off`; an invalid one is ignored. (`EnvFilter` could do more, with a regex engine in the memory of
/// each of 500 workers.)
///
/// Libraries log whole heads, with keys and queries, at levels of their choice. So no `RUST_LOG` shows their lines:
/// those of the `log` crate, pingora's among them, have no logger, and [`is_ours`] drops the others.
pub fn init(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let is_coloured = format == LogFormat::Text && io::stderr().is_terminal() && !refuses_colours(&variable);
    let lines = lines(format, is_coloured, io::stderr);
    let filter = filter.and(filter_fn(is_ours));
    // A second subscriber cannot be set; the first one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// A variable of the environment.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The variable that turns colours off (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";

/// Whether standard error is a terminal where the environment turns colours off. Child processes with another
/// environment get [`NO_COLOR`].
pub fn is_terminal_without_colours() -> bool {
    io::stderr().is_terminal() && refuses_colours(&variable)
}

/// Whether standard error is a terminal where a line can be redrawn.
pub fn can_redraw() -> bool {
    io::stderr().is_terminal() && !is_dumb(&variable)
}

/// As in clap, which colours help and errors: a non-empty `NO_COLOR`, `CLICOLOR=0`, or `TERM=dumb`.
fn refuses_colours(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    variable(NO_COLOR).is_some_and(|value| !value.is_empty())
        || variable("CLICOLOR").is_some_and(|value| value == "0")
        || is_dumb(variable)
}

fn is_dumb(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// Writes each line to a writer from `out`.
fn lines<W: Write + 'static>(
    format: LogFormat,
    is_coloured: bool,
    out: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let visible = match format {
        LogFormat::Json => visible::json,
        LogFormat::Text if is_coloured => visible::coloured_line,
        LogFormat::Text => visible::line,
    };
    let lines = fmt::layer::<Registry>().with_writer(move || VisibleLines { visible, out: out() });
    match format {
        LogFormat::Text if is_coloured => {
            lines.fmt_fields(debug_fn(write_coloured).delimited(" ")).with_ansi(true).boxed()
        }
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Writes a field in the colours of the library's own writer, with its value made visible first: in the finished
/// line, the value's escapes could not be told from the colours'.
fn write_coloured(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = visible::line(&value);
    match field.name() {
        "message" => write!(writer, "{value}"),
        name => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
    }
}

/// Whether a line is written by this project's code.
fn is_ours(line: &Metadata<'_>) -> bool {
    line.target().split("::").next().is_some_and(|first| OUR_TARGETS.contains(&first))
}

/// Makes each line visible before it is written. The formatter writes a line in one piece.
struct VisibleLines<W> {
    visible: fn(&str) -> Cow<'_, str>,
    out: W,
}

impl<W: Write> Write for VisibleLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // A closed terminal or pipe, or a full disk: if the library saw the error, it would panic when it cannot
        // print that either.
        let _ = match (self.visible)(line) {
            Cow::Borrowed(_) => self.out.write_all(bytes),
            Cow::Owned(mut line) => {
                line.push('\n');
                self.out.write_all(line.as_bytes())
            }
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, is_coloured: bool, log: impl Fn()) -> String {
        let written = Lines::default();
        let out = written.clone();
        let lines = lines(format, is_coloured, move || out.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn colours_are_refused_as_other_programs_take_it() {
        let refuses = |variables: &[(&str, &str)]| {
            let known = |name: &str| variables.iter().find(|(known, _)| *known == name);
            refuses_colours(&|name: &str| known(name).map(|(_, value)| OsString::from(value)))
        };
        for refusing in [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            assert!(refuses(&[refusing, ("CLICOLOR_FORCE", "1")]), "{refusing:?}");
        }
        for taking in [("NO_COLOR", ""), ("CLICOLOR", "1"), ("TERM", "xterm"), ("COLOR", "never")] {
            assert!(!refuses(&[taking]), "{taking:?}");
        }
        assert!(!refuses(&[]));
    }

    #[test]
    fn a_reader_that_is_gone_stops_no_line() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut lines = VisibleLines { visible: visible::line, out: Gone };
        for line in ["plain\n", "hidden \u{202e}\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
    }

    #[test]
    fn on_a_terminal_no_value_has_colours_of_its_own() {
        let hostile = "a\u{1b}[31m\u{1b}]0;title\u{7}\u{202e}\u{2066}b\n";
        let error = io::Error::other(hostile);
        let log = || {
            let span = tracing::error_span!("worker", tenant = %hostile);
            let error: &dyn std::error::Error = &error;
            span.in_scope(
                || tracing::warn!(path = %hostile, name = hostile, error, count = 3, "no {hostile}"),
            );
        };
        let line = logged(LogFormat::Text, true, log);
        let ours = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[3m", "\u{1b}[33m"];
        let without = ours.iter().fold(line.clone(), |line, code| line.replace(code, ""));
        assert!(line.contains("\u{1b}[33m"), "it has no colours: {line:?}");
        let (text, end) = without.split_at(without.len() - 1);
        assert!(end == "\n" && !text.contains(char::is_control), "{without:?}");
        assert!(!text.contains(['\u{202e}', '\u{2066}']), "{without:?}");
        assert_eq!(text.matches("\\u{1b}[31m").count(), 5, "{without:?}");
        // Apart from the colours a line is the same in a file.
        let plain = logged(LogFormat::Text, false, log);
        let after_time = |line: &str| line.split_once(' ').map(|(_, rest)| rest.trim().to_owned()).unwrap();
        // There the library escapes the message first, in its own way.
        let escapes = [("\\n", "\\u{a}"), ("\\x1b", "\\u{1b}"), ("\\x07", "\\u{7}")];
        let same_escapes = |line: &str| {
            escapes.iter().fold(after_time(line), |line, (theirs, ours)| line.replace(theirs, ours))
        };
        assert_eq!(same_escapes(&without), same_escapes(&plain));
    }
}
