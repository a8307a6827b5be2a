//! Runs the store's jobs on blocking threads, and lets requests wait for them.
//!
//! Group commit: all writes that arrive while a journal is being synced share the next sync.

use std::rc::Rc;

use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use crate::api::outcome::CommandError;
use crate::server::worker::Worker;
use crate::store::job::Job;
use crate::store::usage::Scan;
use crate::store::{CommitPoint, StoreError};

/// How long a request waits for a phext to be read, for memory that phexts hold until they are saved, or for a phext that
/// another program has just changed.
const WAIT: Duration = Duration::from_secs(10);

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
            () = worker.jobs_wanted.notified() => {}
            () = timer => {}
        }
    }
}

/// Saves everything.
pub(super) async fn close(worker: &Rc<Worker>) {
    worker.store.borrow_mut().close();
    loop {
        let progress = worker.job_ended.notified();
        start_jobs(worker);
        if worker.store.borrow().is_idle() {
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
    if worker.store.borrow_mut().take_progress() {
        worker.job_ended.notify_waiters();
    }
    for job in jobs {
        tokio::task::spawn_local(run_job(Rc::clone(worker), job));
    }
}

async fn run_job(worker: Rc<Worker>, job: Job) {
    match spawn_blocking(|| job.run()).await {
        Ok(done) => worker.store.borrow_mut().finish(done),
        // The job panicked. Requests wait for it, and nothing else would wake them.
        Err(_) => worker.store.borrow_mut().note_lost_job(),
    }
    note_state(&worker);
    worker.job_ended.notify_waiters();
}

async fn run_scan(worker: Rc<Worker>, scan: Scan) {
    // If the scan panicked, the usage stays as it was.
    let Ok(scanned) = spawn_blocking(|| scan.run()).await else { return };
    worker.store.borrow_mut().finish_scan(scanned);
    note_state(&worker);
    worker.job_ended.notify_waiters();
}

/// Runs a store operation again after each job, until the store is ready for it or the wait times out.
pub(super) async fn retry_until_ready<T>(
    worker: &Worker,
    mut operation: impl FnMut() -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    // Usually the first attempt succeeds: don't read the clock for it.
    let mut deadline = None;
    loop {
        let progress = worker.job_ended.notified();
        let result = operation();
        if let Err(failure) = &result {
            hang_if_displaced(worker, failure.store_error()).await;
        }
        note_state(worker);
        if !matches!(result, Err(CommandError::Store(StoreError::NotYet))) {
            return result;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + WAIT);
        if timeout_at(deadline, progress).await.is_err() {
            return result;
        }
    }
}

/// Never returns if the tenant's directory was removed or replaced. The worker exits, which closes the connection without
/// an answer, and the gateway sends the request to the next worker.
pub(super) async fn hang_if_displaced(worker: &Worker, error: Option<&StoreError>) {
    if !matches!(error, Some(StoreError::Io(_) | StoreError::InDoubt)) {
        return;
    }
    worker.store.borrow_mut().check_directory();
    if worker.store.borrow().is_displaced() {
        worker.store_failed.notify_one();
        std::future::pending().await
    }
}

/// Wakes [`run`] if there is work for the disk, or the worker's end if the disk has failed. The wakeup runs after every
/// task that is ready now, so that all their writes share a sync.
fn note_state(worker: &Worker) {
    let store = worker.store.borrow();
    if store.is_in_doubt() {
        worker.store_failed.notify_one();
    } else if store.may_have_jobs() || store.is_scan_wanted() {
        worker.jobs_wanted.notify_one();
    }
}

/// Waits until what was read or written is durable; an error if it never will be.
pub(super) async fn wait_durable(worker: &Worker, commit_points: &[CommitPoint]) -> Result<(), StoreError> {
    loop {
        let progress = worker.job_ended.notified();
        let durable = worker.store.borrow().is_durable(commit_points);
        match durable {
            Ok(true) => return Ok(()),
            Ok(false) => progress.await,
            Err(error) => {
                hang_if_displaced(worker, Some(&error)).await;
                return Err(error);
            }
        }
    }
}
