//! The commands that read a phext and name nothing else.

use sq_shared::phext_name::PhextName;

use crate::api::checksum;
use crate::api::outcome::Outcome;
use crate::api::stream::{JsonRows, Lines, Stream};
use crate::store::Phext;

/// `get`: the whole phext, with its breaks.
pub(super) fn get(phext: &Phext) -> Outcome {
    let text = Stream::new(phext.joined(), Some(phext.file_bytes()));
    Outcome::Phext { text, checksum: checksum::checksum(phext) }
}

/// `toc`: one line per scroll, with its coordinate and the first line of its text.
pub(super) fn toc(phext: &Phext) -> Outcome {
    Outcome::TextStream(Stream::new(Lines::new(phext.cursor(..)), None))
}

/// `json-export`: every scroll as JSON, in coordinate order.
pub(super) fn json_export(phext: &Phext) -> Outcome {
    Outcome::Json(Stream::new(JsonRows::new(phext.cursor(..), "coord"), None))
}

/// `checksum`: the XXH3-128 of the whole phext, as 32 hexadecimal digits.
pub(super) fn checksum(phext: &Phext) -> Outcome {
    Outcome::text(format!("{:032x}", checksum::checksum(phext)))
}

/// `status`: SQ's four lines about a phext.
pub(super) fn status(name: &PhextName, connection_id: u64, phext: &Phext) -> Outcome {
    Outcome::text(format!(
        "Hosting: {name}\nConnection ID: {connection_id}\nPhext Size: {}\nScrolls: {}",
        phext.file_bytes(),
        phext.scroll_count()
    ))
}
