//! `version`: this program's version.

use crate::api::outcome::Outcome;

#[derive(Debug)]
pub struct Version;

impl Version {
    pub(super) fn apply(&self) -> Outcome {
        Outcome::text(env!("CARGO_PKG_VERSION"))
    }
}
