//! `where`: a coordinate that SQ derives from a text.

use libphext::phext;
use sq_shared::problem::{Code, Problem};

use crate::api::input::Input;
use crate::api::outcome::Outcome;
use crate::store::breaks::Runs;

/// SQ's own default for `limit`.
const DEFAULT_LIMIT: usize = 100;

/// SQ takes each pair of digits modulo this, which was once the largest part of a coordinate.
const CHECKSUM_MODULUS: u64 = 999;

#[derive(Debug)]
pub(crate) struct Where {
    algorithm: Algorithm,
    /// `xor` ignores runs of text that have fewer bytes.
    limit: usize,
    text: String,
}

#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Xor,
    Checksum,
}

impl Where {
    pub(super) fn parse(input: Input<'_>) -> Result<Self, Problem> {
        let algorithm = match input.params.get("algo") {
            None | Some("xor") => Algorithm::Xor,
            Some("checksum") => Algorithm::Checksum,
            Some(_) => return Err(Problem::new(Code::InvalidParameter, "algo= is xor or checksum")),
        };
        let limit = match input.params.get("limit") {
            None => DEFAULT_LIMIT,
            Some(limit) => limit.parse().map_err(|_| {
                Problem::new(Code::InvalidParameter, "limit= is a whole number of bytes, as in limit=100")
            })?,
        };
        Ok(Self { algorithm, limit, text: input.into_text()? })
    }

    pub(super) fn apply(&self) -> Outcome {
        let (name, parts) = match self.algorithm {
            Algorithm::Xor => ("xor", by_xor(&self.text, self.limit)),
            Algorithm::Checksum => ("checksum", by_checksum(&self.text)),
        };
        let [a, b, c, d, e, f, g, h, i] = parts;
        let limit = self.limit;
        Outcome::text(format!(
            "Calculated coordinate {a}.{b}.{c}/{d}.{e}.{f}/{g}.{h}.{i} for input (algo={name}, limit={limit})."
        ))
    }
}

/// The XOR, part by part, of the origin and the coordinates of all long runs. Parts of the result may be zero.
fn by_xor(text: &str, limit: usize) -> [u64; 9] {
    let mut composite = [1; 9];
    for run in Runs::new(text).filter(|run| run.text.len() >= limit) {
        for (part, other) in composite.iter_mut().zip(run.parts) {
            *part ^= other;
        }
    }
    composite
}

/// Each part comes from two digits of the checksum, taken as a big-endian number of two ASCII bytes.
fn by_checksum(text: &str) -> [u64; 9] {
    let digits = phext::checksum(text);
    let mut parts = [1; 9];
    for (part, pair) in parts.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let value = pair.iter().fold(0, |value, digit| value << 8 | u64::from(*digit));
        *part = (value % CHECKSUM_MODULUS).max(1);
    }
    parts
}
