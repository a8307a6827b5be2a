//! The commands of SQ: an [`Input`] is parsed into an [`ApiCommand`], which runs on the [`Store`] and gives an
//! [`Outcome`]. Parsing refuses everything that a client can get wrong, so a parsed command fails only in the store.
//! Nothing here knows about sockets.

use sq_shared::problem::Problem;
use sq_shared::route::Route;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::store::{Pending, Store};

// What comes in.
pub mod input;
pub mod params;

// One file per command, but the three writes.
mod delta;
mod get;
mod json_export;
mod load;
mod phexts;
mod query;
mod select;
mod status;
mod toc;
mod version;
mod r#where;
mod write;

pub(crate) mod checksum;

// What goes out.
pub mod outcome;
pub mod stream;

pub use crate::api::phexts::PhextRows;

/// A request that was parsed.
#[derive(Debug)]
#[expect(missing_docs, reason = "each variant is the command of its name; its file says what it does")]
pub enum ApiCommand {
    Version(version::Version),
    Select(select::Select),
    Write(write::WriteScroll),
    Load(load::Load),
    Status(status::Status),
    Toc(toc::Toc),
    Get(get::Get),
    Checksum(checksum::Checksum),
    Delta(delta::Delta),
    Query(query::Query),
    Where(r#where::Where),
    JsonExport(json_export::JsonExport),
    Phexts(phexts::Phexts),
}

impl ApiCommand {
    /// Parses a request.
    ///
    /// # Errors
    /// A parameter is missing or invalid.
    pub fn parse(input: Input<'_>) -> Result<Self, Problem> {
        Ok(match input.route {
            Route::Version => Self::Version(version::Version),
            Route::Select => Self::Select(select::Select::parse(&input)?),
            Route::Insert => Self::Write(write::WriteScroll::insert(input)?),
            Route::Update => Self::Write(write::WriteScroll::update(input)?),
            Route::Delete => Self::Write(write::WriteScroll::delete(input)?),
            Route::Load => Self::Load(load::Load::parse(&input)?),
            Route::Status => Self::Status(status::Status::parse(&input)?),
            Route::Toc => Self::Toc(toc::Toc::parse(&input)?),
            Route::Get => Self::Get(get::Get::parse(&input)?),
            Route::Checksum => Self::Checksum(checksum::Checksum::parse(&input)?),
            Route::Delta => Self::Delta(delta::Delta::parse(&input)?),
            Route::Query => Self::Query(query::Query::parse(&input)?),
            Route::Where => Self::Where(r#where::Where::parse(input)?),
            Route::JsonExport => Self::JsonExport(json_export::JsonExport::parse(&input)?),
            Route::Phexts => Self::Phexts(phexts::Phexts),
        })
    }

    /// The durable checksum of the scroll that a write names; `None` for a read, or if the phext can't be read now.
    pub(crate) fn target_checksum(&self, store: &mut Store) -> Option<u128> {
        match self {
            Self::Write(command) => command.current_checksum(store),
            _ => None,
        }
    }

    /// What the answer will keep in memory. Changes nothing.
    ///
    /// # Errors
    /// The phext can't be read.
    pub fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        match self {
            Self::Select(command) => command.pinned(store),
            Self::Toc(command) => command.pinned(store),
            Self::Get(command) => command.pinned(store),
            Self::Delta(command) => command.pinned(store),
            Self::Query(command) => command.pinned(store),
            Self::JsonExport(command) => command.pinned(store),
            Self::Phexts(_) => Ok(phexts::Phexts::pinned(store)),
            Self::Version(_)
            | Self::Write(_)
            | Self::Load(_)
            | Self::Status(_)
            | Self::Checksum(_)
            | Self::Where(_) => Ok(Pinned::NOTHING),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The phext can't be read or changed, or the answer would be too large. After [`StoreError::NotYet`] it may be retried.
    ///
    /// [`StoreError::NotYet`]: crate::store::StoreError::NotYet
    pub fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        match self {
            Self::Version(command) => Ok(Pending::durable(command.apply())),
            Self::Select(command) => command.apply(store),
            Self::Write(command) => command.apply(store),
            Self::Load(command) => command.apply(store),
            Self::Status(command) => command.apply(store),
            Self::Toc(command) => command.apply(store),
            Self::Get(command) => command.apply(store),
            Self::Checksum(command) => command.apply(store),
            Self::Delta(command) => command.apply(store),
            Self::Query(command) => command.apply(store),
            Self::Where(command) => Ok(Pending::durable(command.apply())),
            Self::JsonExport(command) => command.apply(store),
            Self::Phexts(_) => Ok(Pending::durable(phexts::Phexts::apply())),
        }
    }
}
