//! The list of all phexts as the body of an answer: read and sent piece by piece, at the speed of the client.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use tokio::task::spawn_blocking;

use crate::api::{Failure, PhextRows};
use crate::server::answer_body::Content;
use crate::server::commits;
use crate::server::worker::Worker;
use crate::store::{Listing, StoreError};

/// What is left of a list, after the first piece.
pub(super) struct ListingBody {
    /// The next piece that was made already.
    first: Option<Bytes>,
    /// The one behind it; `None` at the end.
    next: Option<Pin<Box<NextPiece>>>,
}

type NextPiece = dyn Future<Output = (Maker, Result<Bytes, Failure>)>;

/// Makes the pieces.
struct Maker {
    worker: Rc<Worker>,
    listing: Listing,
    rows: PhextRows,
}

/// Begins a list. One that is no longer than a piece is whole.
pub(super) async fn begin(worker: &Rc<Worker>, listing: Listing) -> Result<Content, Failure> {
    let maker = Maker { worker: Rc::clone(worker), listing, rows: PhextRows::default() };
    let (maker, first) = maker.piece().await;
    let (first, next) = (first?, maker.next());
    Ok(match next {
        None => Content::Whole(first),
        next => Content::Listing(ListingBody { first: Some(first), next }),
    })
}

impl ListingBody {
    /// The next bytes, never empty; `None` at the end.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (maker, piece) = ready!(next.as_mut().poll(context));
        self.next = if piece.is_ok() { maker.next() } else { None };
        // The connection is closed early, by which the client sees that the list is not complete.
        Poll::Ready(Some(piece.map_err(|failure| {
            tracing::error!(%failure, "failed to list all phexts; the answer is cut off");
            io::Error::other(failure)
        })))
    }

    /// Whether all of it has been taken.
    pub(super) fn is_taken(&self) -> bool {
        self.first.is_none() && self.next.is_none()
    }
}

impl fmt::Debug for ListingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListingBody").finish_non_exhaustive()
    }
}

impl Maker {
    /// The next piece, made when it is asked for; `None` at the end.
    fn next(self) -> Option<Pin<Box<NextPiece>>> {
        if self.listing.is_over() { None } else { Some(Box::pin(self.piece())) }
    }

    async fn piece(mut self) -> (Self, Result<Bytes, Failure>) {
        let mut json = Vec::new();
        while json.is_empty() {
            if let Err(error) = self.add_rows(&mut json).await {
                commits::give_way(&self.worker, error.store_error()).await;
                return (self, Err(error));
            }
            if self.listing.is_over() {
                self.rows.end(&mut json);
            }
        }
        (self, Ok(json.into()))
    }

    async fn add_rows(&mut self, json: &mut Vec<u8>) -> Result<(), Failure> {
        let worker = &self.worker;
        // One step at a time of all lists: they leave the processor and the disk to other requests. It is never closed.
        let turn = worker.listing_turns.acquire().await;
        if self.listing.needs_page() {
            let job = worker.store.borrow().list_page(&self.listing)?;
            self.listing.turn(run(|| job.run()).await?.map_err(StoreError::from)?);
        }
        let (mut piece, job) = worker.store.borrow().list_piece(&mut self.listing)?;
        let mut unsaved = Vec::new();
        if !job.is_empty() {
            (unsaved, piece) = run(|| (job.run(&mut piece), piece)).await?;
        }
        drop(turn);
        for name in unsaved {
            match commits::ask(worker, || Ok(worker.store.borrow_mut().list_unsaved(&name, &mut piece)?))
                .await
            {
                // The others are listed all the same.
                Err(Failure::Store(StoreError::NotYet)) => {
                    worker.store.borrow().list_unread(&name, &mut piece);
                }
                listed => listed?,
            }
        }
        commits::settle(worker, &piece.tickets).await?;
        self.rows.add(&piece.into_rows(), json);
        Ok(())
    }
}

/// Runs work that waits for the disk on another thread.
async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    // It neither panics nor is it cancelled.
    spawn_blocking(work).await.map_err(|error| StoreError::Io(io::Error::other(error)))
}
