//! Has the store's jobs run on threads of their own, and lets requests wait for what they rest on.
//!
//! All writes that arrive while a journal is being synced share the next sync: that is all there is to group
//! commit.

use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use crate::api::Failure;
use crate::server::worker::Worker;
use crate::store::job::Job;
use crate::store::usage::Scan;
use crate::store::{StoreError, Ticket};

/// How long a request waits for a phext that must be read, for memory that is taken by phexts which must be saved first,
/// or for a phext that another program has just changed.
const WAIT: Duration = Duration::from_secs(10);

/// What the requests and the jobs tell each other.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// There may be new jobs.
    wanted: Notify,
    /// A job has ended.
    progress: Notify,
}

impl Commits {
    /// Looks for new jobs, once whoever is ready to run has run: so the writes of all of them share a sync.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }
}

/// Runs jobs for as long as the worker lives.
pub(super) async fn run(worker: Rc<Worker>) {
    loop {
        start_jobs(&worker);
        let wakeup = worker.store.borrow().next_wakeup();
        let timer = async {
            match wakeup {
                Some(due) => sleep_until(Instant::from_std(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = worker.commits.wanted.notified() => {}
            () = timer => {}
        }
    }
}

/// Saves everything, and ends when that is done.
pub(super) async fn close(worker: &Rc<Worker>) {
    worker.store.borrow_mut().close();
    loop {
        let progress = worker.commits.progress.notified();
        start_jobs(worker);
        if worker.store.borrow().is_at_rest() {
            return;
        }
        progress.await;
    }
}

fn start_jobs(worker: &Rc<Worker>) {
    if let Some(scan) = worker.store.borrow_mut().next_scan() {
        tokio::task::spawn_local(run_scan(Rc::clone(worker), scan));
    }
    let jobs = worker.store.borrow_mut().next_jobs();
    if worker.store.borrow_mut().take_news() {
        worker.commits.progress.notify_waiters();
    }
    for job in jobs {
        tokio::task::spawn_local(run_job(Rc::clone(worker), job));
    }
}

async fn run_job(worker: Rc<Worker>, job: Job) {
    match spawn_blocking(|| job.run()).await {
        Ok(done) => worker.store.borrow_mut().finish(done),
        // It has panicked. Requests wait for it, and nothing else would end their wait.
        Err(_) => worker.store.borrow_mut().note_lost_job(),
    }
    note_state(&worker);
    worker.commits.progress.notify_waiters();
}

async fn run_scan(worker: Rc<Worker>, scan: Scan) {
    // Were it lost, the account would just stay as it is.
    let Ok(scanned) = spawn_blocking(|| scan.run()).await else { return };
    worker.store.borrow_mut().finish_scan(scanned);
    note_state(&worker);
    worker.commits.progress.notify_waiters();
}

/// Asks the store until it can say something.
pub(super) async fn ask<T>(
    worker: &Worker,
    mut question: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    // As a rule the first answer is the last, and needs no clock.
    let mut deadline = None;
    loop {
        let progress = worker.commits.progress.notified();
        let answer = question();
        if let Err(failure) = &answer {
            give_way(worker, failure.store_error()).await;
        }
        note_state(worker);
        if !matches!(answer, Err(Failure::Store(StoreError::NotYet))) {
            return answer;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + WAIT);
        if timeout_at(deadline, progress).await.is_err() {
            return answer;
        }
    }
}

/// When the directory is not the tenant's any more, no answer is given: the worker ends, the gateway sees the connection
/// end, and asks the next one.
pub(super) async fn give_way(worker: &Worker, error: Option<&StoreError>) {
    if !matches!(error, Some(StoreError::Io(_) | StoreError::InDoubt)) {
        return;
    }
    worker.store.borrow_mut().check_directory();
    if worker.store.borrow().is_displaced() {
        worker.store_failed.notify_one();
        std::future::pending().await
    }
}

/// Says so when there is work for the disk, or when the disk has failed.
fn note_state(worker: &Worker) {
    let store = worker.store.borrow();
    if store.is_in_doubt() {
        worker.store_failed.notify_one();
    } else if store.may_have_jobs() || store.is_scan_wanted() {
        worker.commits.wake();
    }
}

/// Waits until what was read or written is durable. An error says that it never will be.
pub(super) async fn settle(worker: &Worker, tickets: &[Ticket]) -> Result<(), StoreError> {
    loop {
        let progress = worker.commits.progress.notified();
        let settled = worker.store.borrow().is_settled(tickets);
        match settled {
            Ok(true) => return Ok(()),
            Ok(false) => progress.await,
            Err(error) => {
                give_way(worker, Some(&error)).await;
                return Err(error);
            }
        }
    }
}
