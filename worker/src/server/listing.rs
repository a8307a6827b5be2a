//! The list of all phexts as an answer's body, read and sent piece by piece, as fast as the client reads it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use tokio::task::spawn_blocking;

use crate::api::PhextRows;
use crate::api::outcome::CommandError;
use crate::server::commits;
use crate::server::worker::Worker;
use crate::store::{Listing, StoreError};

/// A list whose first piece was made.
pub(super) struct ListingBody {
    /// The first piece, until it is taken.
    first: Option<Bytes>,
    /// The piece after it; `None` at the end.
    next: Option<Pin<Box<NextPiece>>>,
}

type NextPiece = dyn Future<Output = (Maker, Result<Bytes, CommandError>)>;

struct Maker {
    worker: Rc<Worker>,
    listing: Listing,
    rows: PhextRows,
}

impl ListingBody {
    /// Makes the first piece.
    pub(super) async fn begin(worker: &Rc<Worker>, listing: Listing) -> Result<Self, CommandError> {
        let maker = Maker { worker: Rc::clone(worker), listing, rows: PhextRows::default() };
        let (maker, first) = maker.piece().await;
        Ok(Self { first: Some(first?), next: maker.next() })
    }

    /// All of it, if the first piece is; otherwise the list itself.
    pub(super) fn into_whole(self) -> Result<Bytes, Self> {
        if self.next.is_none() { Ok(self.first.unwrap_or_default()) } else { Err(self) }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (maker, piece) = ready!(next.as_mut().poll(context));
        self.next = if piece.is_ok() { maker.next() } else { None };
        // The error closes the connection early, which tells the client that the list is incomplete.
        Poll::Ready(Some(piece.map_err(|failure| {
            tracing::error!(%failure, "failed to list all phexts; the answer is cut off");
            io::Error::other(failure)
        })))
    }

    /// Whether every piece was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.first.is_none() && self.next.is_none()
    }
}

impl Maker {
    /// The next piece, made when polled; `None` at the end.
    fn next(self) -> Option<Pin<Box<NextPiece>>> {
        if self.listing.is_over() { None } else { Some(Box::pin(self.piece())) }
    }

    async fn piece(mut self) -> (Self, Result<Bytes, CommandError>) {
        let mut json = Vec::new();
        while json.is_empty() {
            if let Err(error) = self.add_rows(&mut json).await {
                commits::hang_if_displaced(&self.worker, error.store_error()).await;
                return (self, Err(error));
            }
            if self.listing.is_over() {
                self.rows.end(&mut json);
            }
        }
        (self, Ok(json.into()))
    }

    async fn add_rows(&mut self, json: &mut Vec<u8>) -> Result<(), CommandError> {
        let worker = &self.worker;
        // One step at a time of all lists, which leaves processor and disk to other requests. Never closed.
        let permit = worker.listing_permit.acquire().await;
        if self.listing.needs_page() {
            let job = worker.store.borrow().list_page(&self.listing)?;
            self.listing.turn(run(|| job.run()).await?.map_err(StoreError::from)?);
        }
        let (mut piece, job) = worker.store.borrow().list_piece(&mut self.listing)?;
        let mut unsaved = Vec::new();
        if !job.is_empty() {
            (unsaved, piece) = run(|| (job.run(&mut piece), piece)).await?;
        }
        drop(permit);
        for name in unsaved {
            match commits::retry_until_ready(worker, || {
                Ok(worker.store.borrow_mut().list_unsaved(&name, &mut piece)?)
            })
            .await
            {
                // Don't fail the whole list for one phext.
                Err(CommandError::Store(StoreError::NotYet)) => {
                    worker.store.borrow().list_unread(&name, &mut piece);
                }
                listed => listed?,
            }
        }
        commits::wait_durable(worker, &piece.commit_points).await?;
        self.rows.add(&piece.into_rows(), json);
        Ok(())
    }
}

/// Runs blocking disk work on another thread.
async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    // Fails only if the work panics, which it doesn't.
    spawn_blocking(work).await.map_err(|error| StoreError::Io(io::Error::other(error)))
}
