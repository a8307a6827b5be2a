//! The commands of SQ: an [`Input`] is parsed into an [`ApiCommand`], which runs on the [`Store`] and gives an
//! [`Outcome`]. Parsing refuses everything that a client can get wrong, so a parsed command fails only in the store.
//! Nothing here knows about sockets.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;
use sq_shared::route::Route;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::store::{Listing, Pending, Store};

// What comes in.
pub(crate) mod input;
pub mod params;

// The commands: one file for those that name a phext and nothing else, one for the three writes, one for each other.
mod delta;
mod query;
mod select;
mod r#where;
mod whole_phext;
mod write;

pub(crate) mod checksum;

// What goes out.
pub(crate) mod outcome;
mod phext_rows;
pub(crate) mod stream;

pub(crate) use crate::api::phext_rows::PhextRows;

/// A request that was parsed.
#[derive(Debug)]
pub(crate) enum ApiCommand {
    Version,
    Select(select::Select),
    Write(write::WriteScroll),
    Load(PhextName),
    Status { phext: PhextName, connection_id: u64 },
    Toc(PhextName),
    Get(PhextName),
    Checksum(PhextName),
    Delta(delta::Delta),
    Query(query::Query),
    Where(r#where::Where),
    JsonExport(PhextName),
    Phexts,
}

impl ApiCommand {
    pub(crate) fn parse(input: Input<'_>) -> Result<Self, Problem> {
        Ok(match input.route {
            Route::Version => Self::Version,
            Route::Select => Self::Select(select::Select::parse(&input)?),
            Route::Insert => Self::Write(write::WriteScroll::insert(input)?),
            Route::Update => Self::Write(write::WriteScroll::update(input)?),
            Route::Delete => Self::Write(write::WriteScroll::delete(input)?),
            Route::Load => Self::Load(input.phext_name()?),
            Route::Status => Self::Status { phext: input.phext_name()?, connection_id: input.connection_id },
            Route::Toc => Self::Toc(input.phext_name()?),
            Route::Get => Self::Get(input.phext_name()?),
            Route::Checksum => Self::Checksum(input.phext_name()?),
            Route::Delta => Self::Delta(delta::Delta::parse(&input)?),
            Route::Query => Self::Query(query::Query::parse(&input)?),
            Route::Where => Self::Where(r#where::Where::parse(input)?),
            Route::JsonExport => Self::JsonExport(input.phext_name()?),
            Route::Phexts => Self::Phexts,
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
    pub(crate) fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        Ok(match self {
            Self::Select(command) => command.pinned(store)?,
            Self::Query(command) => command.pinned(store)?,
            // The first line of a scroll may be all of it, and a client that has nothing yet gets all scrolls.
            Self::Toc(phext)
            | Self::Get(phext)
            | Self::JsonExport(phext)
            | Self::Delta(delta::Delta { phext, .. }) => Pinned::phext(store.peek(phext)?),
            Self::Phexts => Pinned { bytes: store.listing_bytes(), part: None },
            Self::Version
            | Self::Write(_)
            | Self::Load(_)
            | Self::Status { .. }
            | Self::Checksum(_)
            | Self::Where(_) => Pinned::NOTHING,
        })
    }

    pub(crate) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        Ok(match self {
            Self::Version => Pending::durable(Outcome::text(env!("CARGO_PKG_VERSION"))),
            Self::Select(command) => command.apply(store)?,
            Self::Write(command) => command.apply(store)?,
            // Reads the phext's file again if another program has changed it.
            Self::Load(phext) => store.load(phext)?.map(|_| Outcome::text(format!("Loaded {phext}.phext"))),
            Self::Status { phext, connection_id } => {
                store.read(phext)?.map(|text| whole_phext::status(phext, *connection_id, text))
            }
            Self::Toc(phext) => store.read(phext)?.map(whole_phext::toc),
            Self::Get(phext) => store.read(phext)?.map(whole_phext::get),
            Self::Checksum(phext) => store.read(phext)?.map(whole_phext::checksum),
            Self::Delta(command) => command.apply(store)?,
            Self::Query(command) => command.apply(store)?,
            Self::Where(command) => Pending::durable(command.apply()),
            Self::JsonExport(phext) => store.read(phext)?.map(whole_phext::json_export),
            Self::Phexts => Pending::durable(Outcome::Listing(Listing::default())),
        })
    }
}
