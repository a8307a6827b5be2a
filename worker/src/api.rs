//! The commands of SQ: a request becomes a [`Command`], a command runs on the [`Store`], and an
//! [`Outcome`] comes out. Everything a client can get wrong is refused while parsing; what is left can
//! only fail in the store. No socket is known here.

use bytes::Bytes;
use sq_shared::coordinate::{Coordinate, InvalidCoordinate};
use sq_shared::phext_name::{InvalidPhextName, PhextName};
use sq_shared::problem::{Code, Problem};
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::input::Input;
use crate::api::stream::{Pieces, Stream};
use crate::store::{Listing, Pending, Phext, State, Store, StoreError, Write, Written};

pub(crate) mod checksum;
mod delete;
mod delta;
mod get;
pub mod input;
mod insert;
mod json_export;
mod load;
pub mod params;
mod phexts;
mod query;
mod select;
mod status;
pub mod stream;
mod toc;
mod update;
mod version;
mod where_;

pub use crate::api::phexts::PhextRows;

/// A request that has been understood.
#[derive(Debug)]
#[expect(missing_docs, reason = "each variant is the command of its name; its file says what it does")]
pub enum Command {
    Version(version::Version),
    Select(select::Select),
    Insert(insert::Insert),
    Update(update::Update),
    Delete(delete::Delete),
    Load(load::Load),
    Status(status::Status),
    Toc(toc::Toc),
    Get(get::Get),
    Checksum(checksum::Checksum),
    Delta(delta::Delta),
    Query(query::Query),
    Where(where_::Where),
    JsonExport(json_export::JsonExport),
    Phexts(phexts::Phexts),
}

/// What a command answers.
#[derive(Debug)]
pub enum Outcome {
    /// Plain text.
    Text(Bytes),
    /// A scroll, with the checksum that stands for this state of it.
    Scroll {
        /// The text.
        text: Bytes,
        /// XXH3, 128 bits, as `checksum` of libphext has it in hexadecimal digits.
        checksum: u128,
    },
    /// What a write says.
    Written {
        /// A line.
        text: Bytes,
        /// The number in it.
        bytes: u64,
        /// Whether it was made before, and is only told again.
        is_replay: bool,
        /// That of the scroll with the write; not known of one that was made before.
        checksum: Option<u128>,
    },
    /// A whole phext.
    Phext {
        /// As a file.
        text: Stream,
        /// That of the file.
        checksum: u128,
    },
    /// JSON.
    Json(Bytes),
    /// Plain text that is longer than a piece.
    TextStream(Stream),
    /// JSON that is longer than a piece.
    JsonStream(Stream),
    /// The list of all phexts, as JSON: it is made while the client takes it, with the store's help.
    Listing(Listing),
}

/// What an answer keeps in memory until the client has taken it, beyond a few pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// About how many bytes; 0 stands for few.
    pub bytes: u64,
    /// What it is. Answers that keep the same keep it only once.
    pub part: Option<PinnedPart>,
}

/// A state of a phext, or of one scroll in it.
pub type PinnedPart = (State, Option<Coordinate>);

impl Pinned {
    const NOTHING: Self = Self { bytes: 0, part: None };

    /// All of a phext.
    fn phext(phext: &Phext) -> Self {
        Self { bytes: phext.file_bytes(), part: Some((phext.state(), None)) }
    }
}

impl Command {
    /// Reads a request.
    ///
    /// # Errors
    /// Says which parameter is missing or wrong.
    pub fn parse(input: Input<'_>) -> Result<Self, Problem> {
        Ok(match input.route {
            Route::Version => Self::Version(version::Version),
            Route::Select => Self::Select(select::Select::parse(&input)?),
            Route::Insert => Self::Insert(insert::Insert::parse(input)?),
            Route::Update => Self::Update(update::Update::parse(input)?),
            Route::Delete => Self::Delete(delete::Delete::parse(input)?),
            Route::Load => Self::Load(load::Load::parse(&input)?),
            Route::Status => Self::Status(status::Status::parse(&input)?),
            Route::Toc => Self::Toc(toc::Toc::parse(&input)?),
            Route::Get => Self::Get(get::Get::parse(&input)?),
            Route::Checksum => Self::Checksum(checksum::Checksum::parse(&input)?),
            Route::Delta => Self::Delta(delta::Delta::parse(&input)?),
            Route::Query => Self::Query(query::Query::parse(&input)?),
            Route::Where => Self::Where(where_::Where::parse(input)?),
            Route::JsonExport => Self::JsonExport(json_export::JsonExport::parse(&input)?),
            Route::Phexts => Self::Phexts(phexts::Phexts),
        })
    }

    /// The checksum of the scroll that a write was to change, as it is on disk; `None` of one that is no write, or cannot be
    /// read now.
    pub(crate) fn checksum_of_target(&self, store: &mut Store) -> Option<u128> {
        let (phext, at) = match self {
            Self::Insert(command) => command.target(),
            Self::Update(command) => command.target(),
            Self::Delete(command) => command.target(),
            _ => return None,
        };
        Some(xxh3_128(store.read(phext).ok()?.into_parts().0.scroll(at).as_bytes()))
    }

    /// What the answer will keep in memory. Nothing is changed.
    ///
    /// # Errors
    /// The phext cannot be read.
    pub fn pinned(&self, store: &mut Store) -> Result<Pinned, Failure> {
        match self {
            Self::Select(command) => command.pinned(store),
            Self::Toc(command) => command.pinned(store),
            Self::Get(command) => command.pinned(store),
            Self::Delta(command) => command.pinned(store),
            Self::Query(command) => command.pinned(store),
            Self::JsonExport(command) => command.pinned(store),
            Self::Version(_)
            | Self::Insert(_)
            | Self::Update(_)
            | Self::Delete(_)
            | Self::Load(_)
            | Self::Status(_)
            | Self::Checksum(_)
            | Self::Where(_) => Ok(Pinned::NOTHING),
            Self::Phexts(_) => Ok(phexts::Phexts::pinned(store)),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The phext cannot be read or changed, or the answer would be out of proportion. After
    /// [`StoreError::NotYet`] it may be tried again.
    pub fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        match self {
            Self::Version(command) => Ok(Pending::settled(command.apply())),
            Self::Select(command) => command.apply(store),
            Self::Insert(command) => command.apply(store),
            Self::Update(command) => command.apply(store),
            Self::Delete(command) => command.apply(store),
            Self::Load(command) => command.apply(store),
            Self::Status(command) => command.apply(store),
            Self::Toc(command) => command.apply(store),
            Self::Get(command) => command.apply(store),
            Self::Checksum(command) => command.apply(store),
            Self::Delta(command) => command.apply(store),
            Self::Query(command) => command.apply(store),
            Self::Where(command) => Ok(Pending::settled(command.apply())),
            Self::JsonExport(command) => command.apply(store),
            Self::Phexts(_) => Ok(Pending::settled(phexts::Phexts::apply())),
        }
    }
}

/// Why a command that was understood has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store says so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer would be far larger than what was asked for.
    #[error("the answer would have {bytes} bytes")]
    AnswerTooLarge {
        /// How many.
        bytes: u64,
    },
    /// An answer could not be written as JSON.
    #[error("the answer cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    /// What the store said, if it was the store.
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::AnswerTooLarge { .. } | Self::Json(_) => None,
        }
    }
}

impl Outcome {
    fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// What the client need not be sent, for it has it: the checksum by which it knows it.
    pub(crate) fn unless_known(&self, known: Option<&Known>) -> Option<u128> {
        let (checksum, is_empty) = match self {
            Self::Scroll { text, checksum } => (*checksum, text.is_empty()),
            Self::Phext { text, checksum } => (*checksum, text.left_bytes() == Some(0)),
            _ => return None,
        };
        let is_known = match known? {
            Known::Anything => !is_empty,
            Known::OneOf(checksums) => checksums.contains(&checksum),
        };
        is_known.then_some(checksum)
    }

    fn text_of(pieces: impl Pieces + 'static, exact_bytes: Option<u64>) -> Self {
        Stream::new(pieces, exact_bytes).into_whole().map_or_else(Self::TextStream, Self::Text)
    }

    fn json_of(pieces: impl Pieces + 'static) -> Self {
        Stream::new(pieces, None).into_whole().map_or_else(Self::JsonStream, Self::Json)
    }
}

/// What a client has of what it asks for (`If-None-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Whatever has a text.
    Anything,
    /// What has one of these checksums.
    OneOf(Vec<u128>),
}

/// Makes a change, and says what was done.
fn write(
    store: &mut Store,
    phext: &PhextName,
    write: &Write,
    done: &str,
) -> Result<Pending<Outcome>, Failure> {
    let written = store.write(phext, write)?;
    let scroll = store.latest_scroll(phext, &write.at);
    Ok(written.map(|Written { bytes, is_replay }| {
        let checksum = (!is_replay).then(|| xxh3_128(scroll.as_bytes()));
        Outcome::Written { text: format!("{done} {bytes} bytes").into(), bytes, is_replay, checksum }
    }))
}

/// Most coordinates in one request. Each takes some forty bytes and a place in a tree, so that a body full
/// of them would take many times its own length.
const COORDINATES: usize = 100_000;

/// A list of coordinates that is too long, in the parameter or body of this name.
fn too_many_coordinates(what: &str) -> Problem {
    let detail = format!("{what} has more than {COORDINATES} coordinates: ask in parts");
    Problem::new(Code::InvalidParameter, detail)
}

/// The phext that a request names; the unnamed one when it names none.
fn phext_name(input: &Input<'_>) -> Result<PhextName, Problem> {
    PhextName::parse(input.params.get("p").unwrap_or("")).map_err(|error| {
        let leaves = error == InvalidPhextName::LeavesDirectory;
        let code = if leaves { Code::ForbiddenPhext } else { Code::InvalidPhext };
        Problem::new(code, error.to_string())
    })
}

/// The coordinate that a request names.
fn coordinate(input: &Input<'_>) -> Result<Coordinate, Problem> {
    let text = input.params.get("c").ok_or_else(|| {
        Problem::new(Code::MissingParameter, "say which scroll: c=COORDINATE, as in c=1.1.1/1.1.1/1.1.1")
    })?;
    parse_coordinate(text, input.tenant)
}

/// A coordinate in any place of a request.
fn parse_coordinate(text: &str, tenant: Option<&TenantName>) -> Result<Coordinate, Problem> {
    Coordinate::parse(text, tenant).map_err(|error| {
        let foreign = matches!(error, InvalidCoordinate::ForeignNamespace { .. });
        let code = if foreign { Code::ForeignNamespace } else { Code::InvalidCoordinate };
        Problem::new(code, error.to_string())
    })
}
