//! `version`: this program's version.

use crate::api::Outcome;

/// Asks for the version.
#[derive(Debug)]
pub struct Version;

impl Version {
    pub(super) fn apply(&self) -> Outcome {
        Outcome::text(env!("CARGO_PKG_VERSION"))
    }
}
