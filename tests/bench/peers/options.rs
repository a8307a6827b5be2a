//! What a run measures, from the command line.

use std::num::NonZero;
use std::time::Duration;

/// Which tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// One job after the other, all proxies.
    Jobs,
    /// The same request among more and more tenants, and more and more addresses.
    Growth,
    /// The gateway's memory over minutes of load.
    Memory,
    /// The worker without a proxy.
    Worker,
}

/// What a run measures.
#[derive(Debug)]
pub(crate) struct Options {
    /// In this order.
    pub(crate) parts: Vec<Part>,
    /// How often each is measured, in turn; the medians are printed.
    pub(crate) rounds: NonZero<usize>,
    /// How long each is measured each time.
    pub(crate) time: Duration,
    /// How long the gateway's memory is watched.
    pub(crate) memory_time: Duration,
    /// How far the workers lock themselves in.
    pub(crate) sandbox: String,
    /// Only the jobs that have one of these words in their titles; all, when there is none.
    words: Vec<String>,
    /// Only these proxies beside nginx; all, when there is none.
    proxies: Vec<String>,
}

impl Options {
    /// Reads the words after the command's name.
    pub(crate) fn from_command_line() -> Self {
        let mut options = Self {
            parts: Vec::new(),
            rounds: NonZero::new(5).expect("not zero"),
            time: Duration::from_secs(4),
            memory_time: Duration::from_mins(10),
            sandbox: "try".to_owned(),
            words: Vec::new(),
            proxies: Vec::new(),
        };
        for word in std::env::args().skip(1) {
            match word.as_str() {
                "--bench" => {}
                "jobs" => options.parts.push(Part::Jobs),
                "growth" => options.parts.push(Part::Growth),
                "memory" => options.parts.push(Part::Memory),
                "worker" => options.parts.push(Part::Worker),
                _ => options.take(&word),
            }
        }
        if options.parts.is_empty() {
            options.parts = vec![Part::Jobs, Part::Growth, Part::Worker, Part::Memory];
        }
        options
    }

    fn take(&mut self, word: &str) {
        let seconds = |text: &str| Duration::from_secs(text.parse().expect("whole seconds"));
        match word.split_once('=') {
            Some(("rounds", count)) => self.rounds = count.parse().expect("a number of rounds, 1 at least"),
            Some(("seconds", text)) => self.time = seconds(text),
            Some(("memory-seconds", text)) => self.memory_time = seconds(text),
            Some(("sandbox", enforcement)) => self.sandbox = enforcement.to_owned(),
            Some(("only", word)) => self.words.push(word.to_owned()),
            Some(("with", name)) => self.proxies.push(name.to_owned()),
            _ => panic!("{word:?} is nothing that tests/bench/run takes; its head says what is"),
        }
    }

    /// Whether a job of this title is asked for.
    pub(crate) fn wants_job(&self, title: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| title.contains(word.as_str()))
    }

    /// Whether a proxy of this name is asked for.
    pub(crate) fn wants_proxy(&self, name: &str) -> bool {
        self.proxies.is_empty() || self.proxies.iter().any(|wanted| wanted == name)
    }
}
