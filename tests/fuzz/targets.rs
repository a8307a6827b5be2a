//! The targets: what must hold for any bytes. Each is a function that panics when something does not.

mod body;
mod config;
mod coordinate;
mod credential;
mod head;
mod journal;
mod phext;
mod query;
mod registry;
mod torn_journal;
mod worker_request;

/// The name of a target, under which its corpus is kept, and what it checks.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: [Target; 11] = [
    ("body", body::check),
    ("config", config::check),
    ("coordinate", coordinate::check),
    ("credential", credential::check),
    ("head", head::check),
    ("journal", journal::check),
    ("phext", phext::check),
    ("query", query::check),
    ("registry", registry::check),
    ("torn_journal", torn_journal::check),
    ("worker_request", worker_request::check),
];
