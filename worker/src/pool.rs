//! The supervisor: observe, plan, act.
//!
//! It owns every slot's listening socket as long as it lives. While a tenant sleeps, the socket is watched for a
//! waiting connection; then a worker is started on a copy of it, and the worker accepts. So after a crash, an idle end or
//! a restart connections wait, and are never refused.
//!
//! Every [`Event`] goes to one loop, which notes it in [`observed`], asks [`plan`] what to do now, and does it.

pub(crate) mod backoff;
pub(crate) mod desired;
pub(crate) mod directories;
pub(crate) mod directory_check;
pub(crate) mod event;
pub(crate) mod metrics;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod report;
pub(crate) mod slot;
pub(crate) mod status;
pub(crate) mod storage;
pub(crate) mod upgrade;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use sq_shared::config::Config;
use sq_shared::config_source::ConfigSource;
use sq_shared::data_root::DataRoot;
use sq_shared::process::signals::{Signal, Signals};
use sq_shared::process::watch::ReloadWatch;
use sq_shared::process::{output, service_manager};
use sq_shared::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};

use desired::{Account, Assignment, Desired};
use directories::DirectoryChecks;
pub(crate) use event::Event;
use metrics::Metrics;
use observed::{ExitKind, Observed, StopReason};
use plan::Action;
use process::{Exit, Launcher, Process};
use program::Program;
use report::Report;
use slot::SlotSocket;
use status::{StatusServer, StatusSocket, StatusSources};
use storage::Storage;
use upgrade::Inherited;

/// Most events that are noted before the next plan: one of each slot.
const EVENTS_AT_ONCE: usize = 512;

pub(crate) struct Pool {
    source: ConfigSource,
    config: Config,
    /// The tenants of the registry.
    accounts: Arc<[Account]>,
    desired: Desired,
    observed: Observed,
    sockets: BTreeMap<u16, SlotSocket>,
    processes: BTreeMap<u16, Process>,
    launcher: Launcher,
    directories: DirectoryChecks,
    storage: Arc<Storage>,
    metrics: Arc<Metrics>,
    status: Option<StatusServer>,
    /// How many workers have been stopped for the newest program, until none is of an older one.
    replaced: Option<usize>,
    /// No more are: the newest program has failed a tenant.
    is_halted: bool,
    /// An upgrade has been asked for, and the new pool is not there yet.
    is_finding_successor: bool,
    /// By port, the processes of workers that the pool before this one had started.
    inherited: BTreeMap<u16, OwnedFd>,
    /// SIGHUP, for the watch of the files and for the check of the workers' program.
    hangup: watch::Sender<()>,
    /// Taken when the pool runs.
    reloads: Option<ReloadWatch>,
    /// The last reload found mistakes.
    is_rejected: bool,
    /// Unbounded, yet short: each sender waits for an answer, or sends each event once.
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Pool {
    /// Binds every slot, then the status page: when that answers, every tenant can be reached. Inherited sockets need not
    /// be bound.
    pub(crate) async fn start(
        source: ConfigSource,
        config: Config,
        registry: &Registry,
        data_root: DataRoot,
        launcher: Launcher,
        mut inherited: Inherited,
        signals: Signals,
    ) -> Result<Self, String> {
        let (sender, events) = mpsc::unbounded_channel();
        let storage = Arc::new(Storage::new(data_root.clone()));
        let defect = |error| format!("failed to register a metric: {error}");
        let metrics = Arc::new(Metrics::new().map_err(defect)?);
        let mut sockets = BTreeMap::new();
        for port in config.gateway.slots.clone() {
            let socket = match inherited.take(SocketAddr::new(config.pool.slot_address, port)) {
                Some(listener) => SlotSocket::take_over(listener, port, &sender),
                None => SlotSocket::bind(config.pool.slot_address, port, &sender)?,
            };
            sockets.insert(port, socket);
        }
        let (hangup, hangups) = watch::channel(());
        let reloads = ReloadWatch::new(source.files(&config), hangups);
        let status =
            config.pool.status_listen.map(|address| StatusSocket::listen(address, inherited.take(address)));
        let status = status.transpose()?;
        let directories = DirectoryChecks::start(data_root, &sender)
            .map_err(|error| format!("failed to start the checks of the data root: {error}"))?;
        let mut observed = Observed::new(sockets.keys().copied());
        // What can fail is done: after the commit this pool must serve.
        let inherited = inherited.accept(&mut observed, &sender).await?;
        let status = status.map(|socket| {
            let (events, metrics, storage) = (sender.clone(), Arc::clone(&metrics), Arc::clone(&storage));
            let is_local = socket.address.ip().is_loopback();
            socket.serve(StatusSources { events, metrics, storage, is_local })
        });
        let accounts = Account::all(&config, registry);
        metrics.sync_tenants(&accounts);
        let adopt = sender.clone();
        let adopt = move |program, version: String| adopt.send(Event::NewProgram(program, version)).is_ok();
        if let Some(program) = launcher.program() {
            program::replace_on_hangup(program.clone(), hangup.subscribe(), adopt);
        }
        pass_on_signals(signals, &sender);
        Ok(Self {
            accounts,
            directories,
            storage,
            desired: Desired::new(&config, registry),
            observed,
            processes: BTreeMap::new(),
            reloads: Some(reloads),
            is_rejected: false,
            source,
            config,
            sockets,
            launcher,
            metrics,
            status,
            replaced: None,
            is_halted: false,
            is_finding_successor: false,
            inherited,
            hangup,
            sender,
            events,
        })
    }

    /// Ends the pool when standard input ends.
    pub(crate) fn stop_when_stdin_closes(&self) {
        let sender = self.sender.clone();
        // On a separate thread: a read from standard input cannot be given up, and must not hold up the end.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = sender.send(Event::Signalled(Signal::Stop("the end of standard input")));
        });
    }

    /// Runs until it has been told to stop and the last worker is gone.
    pub(crate) async fn run(mut self) {
        // The files may have changed between their first reading and the start of the watch. Read before the pool says that
        // it is ready: the watch then reports each later mistake once.
        self.reload();
        if let Some(reloads) = self.reloads.take() {
            let (files, sender) = (self.source.files(&self.config), self.sender.clone());
            tokio::spawn(reloads.run(files, move |_| ask_for_reload(sender.clone())));
        }
        // Notes which directories are there.
        self.storage.measure_if_due(&self.accounts);
        self.say_ready();
        let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
        while !self.desired.is_closing || self.observed.worker_count() > 0 {
            self.act().await;
            let wakeup = plan::next_wakeup(&self.desired, &self.observed, Instant::now());
            let received = self.events.recv_many(&mut batch, EVENTS_AT_ONCE);
            match wakeup {
                // When the time is up there is nothing to note, only to plan.
                Some(at) => _ = tokio::time::timeout_at(at.into(), received).await,
                None => _ = received.await,
            }
            for event in batch.drain(..) {
                self.observe(event).await;
            }
        }
        tracing::info!("pool stopped");
    }

    fn say_ready(&self) {
        let (slots, tenants, active) =
            (self.sockets.len(), self.accounts.len(), self.desired.assignments.len());
        tracing::info!(slots, tenants, active, "pool ready");
        output::announce(format_args!("ready slots={slots} tenants={tenants}"));
        service_manager::ready(&format!("slots={slots} tenants={tenants}"));
    }

    async fn observe(&mut self, event: Event) {
        match event {
            Event::ConnectionWaits(port, at) => {
                self.check_before_first_start(port);
                self.observed.connection_waits(port, at);
            }
            Event::WorkerServed(port, at) => self.worker_served(port, at),
            Event::WorkerEnded(port, exit) => self.worker_ended(port, exit),
            Event::ReloadRequested(asker) => {
                self.reload();
                // The asker goes only when the runtime ends.
                let _ = asker.send(self.source.files(&self.config));
            }
            Event::NewProgram(program, version) => self.use_program(program, &version),
            Event::DataRootChanged { is_missing } => self.data_root_changed(is_missing),
            Event::DirectoryCheckDue => self.check_directories(),
            Event::DirectoryChecked(port, assignment, result) => {
                self.directory_checked(port, &assignment, result);
            }
            Event::Signalled(signal) => self.obey(signal),
            Event::SuccessorFound(found) => self.hand_off(found).await,
            Event::StatusRequested(asker) => {
                let slots = self.sockets.len();
                let report =
                    Report::new(&self.desired, &self.observed, &self.accounts, slots, Instant::now());
                // The asker may have gone.
                let _ = asker.send(report);
            }
        }
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::Stop(reason) if !self.desired.is_closing => {
                let workers = self.observed.worker_count();
                tracing::info!(reason, workers, "pool stops");
                service_manager::stopping();
                self.desired.close(self.config.timeouts.drain);
            }
            Signal::Stop(_) => {}
            Signal::Reload => {
                tracing::info!("SIGHUP: reading config and registry, and checking for a new program");
                self.hangup.send_replace(());
            }
            Signal::Upgrade | Signal::HandOff => self.find_successor(signal),
        }
    }

    fn worker_served(&mut self, port: u16, at: Instant) {
        if let Some(waited) = self.observed.served(port, at) {
            self.metrics.cold_started(waited);
        }
    }

    fn worker_ended(&mut self, port: u16, exit: Exit) {
        self.processes.remove(&port);
        self.inherited.remove(&port);
        let Exit { status, has_served } = exit;
        if has_served {
            // Its own event may not have been sent before it ended.
            self.worker_served(port, Instant::now());
        }
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let Some((worker, exit)) = self.observed.ended(port, code, has_served, Instant::now()) else {
            return;
        };
        let is_sandbox = status
            .as_ref()
            .is_ok_and(|status| status.signal() == Some(rustix::process::Signal::SYS.as_raw()));
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let (tenant, pid) = (&worker.assignment.tenant, worker.pid);
        if exit == ExitKind::Crashed {
            self.metrics.crashed(tenant);
        }
        match exit {
            ExitKind::Stopped => tracing::info!(%tenant, port, pid, status, "worker stopped"),
            ExitKind::Idle => tracing::debug!(%tenant, port, pid, "worker went to sleep"),
            ExitKind::Displaced => {
                tracing::debug!(%tenant, port, pid, "worker has not found its directory at its path");
                self.check_directory(port);
            }
            ExitKind::Crashed if is_sandbox => {
                tracing::error!(%tenant, port, pid, "worker made a system call that no worker makes; the sandbox ended it");
            }
            ExitKind::Crashed => tracing::error!(%tenant, port, pid, status, "worker crashed"),
        }
    }

    fn reload(&mut self) {
        if self.desired.is_closing {
            return;
        }
        let (config, registry) = match self.source.reload(&self.config) {
            Ok(read) => read,
            Err(mistakes) => {
                for mistake in &mistakes.0 {
                    tracing::error!("{mistake}");
                }
                self.is_rejected = true;
                return tracing::error!(mistakes = mistakes.0.len(), "reload rejected; nothing has changed");
            }
        };
        let mut desired = Desired::new(&config, &registry);
        self.observed.set_directories(&mut desired);
        // An operator who has corrected a mistake sees that it worked, even when nothing else has changed.
        let is_logged = std::mem::take(&mut self.is_rejected) || desired != self.desired;
        self.desired = desired;
        self.accounts = Account::all(&config, &registry);
        self.metrics.sync_tenants(&self.accounts);
        self.config = config;
        if is_logged {
            tracing::info!(
                tenants = self.accounts.len(),
                active = self.desired.assignments.len(),
                "reloaded"
            );
        }
    }

    async fn act(&mut self) {
        let plan = |pool: &Self| plan::plan(&pool.desired, &pool.observed, Instant::now());
        if !plan::run_to_fixpoint(self, plan, Self::perform).await {
            tracing::error!("the pool's plan did not converge; this is a defect");
        }
        self.note_replacement();
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::SetSocketMode(port, mode) => {
                if let Some(socket) = self.sockets.get(&port) {
                    socket.set_mode(mode);
                }
                self.observed.socket_mode_set(port, mode);
            }
            Action::Start(port, assignment) => {
                self.start_worker(port, assignment);
                // The new worker gets its settings before the next one is started.
                tokio::task::yield_now().await;
            }
            Action::SendSettings(port, assignment) => self.send_settings(port, assignment),
            Action::Stop(port, reason) => {
                // A worker whose data went missing or came back answers wrongly: don't let it finish.
                let is_wrong = reason == StopReason::DataChanged;
                self.with_process(port, if is_wrong { Process::kill } else { Process::stop });
                self.observed.stopping(port, reason, Instant::now());
                if reason == StopReason::NewProgram {
                    self.replaced = self.replaced.map(|count| count + 1);
                }
            }
            Action::Kill(port) => {
                // An inherited worker has no process here: the pool that started it kills it.
                self.with_process(port, |process| {
                    tracing::warn!(port, "worker did not stop in time and is killed");
                    process.kill();
                });
                self.observed.killed(port);
            }
        }
    }

    fn start_worker(&mut self, port: u16, assignment: Arc<Assignment>) {
        let Some(socket) = self.sockets.get(&port) else { return };
        let missing_data = self.observed.missing_data(port, &assignment);
        let started = socket.share().and_then(|listener| {
            self.launcher.start(port, listener, &assignment, missing_data, &self.sender)
        });
        let tenant = &assignment.tenant;
        match started {
            Ok(process) => {
                let pid = process.pid;
                tracing::debug!(%tenant, port, pid, absence = ?missing_data, "worker started");
                self.processes.insert(port, process);
                if let Some(reason) =
                    self.observed.started(port, Arc::clone(&assignment), pid, Instant::now())
                {
                    self.metrics.started(&assignment.tenant, reason);
                }
            }
            Err(error) => {
                tracing::error!(%tenant, port, %error, "failed to start a worker");
                self.metrics.crashed(tenant);
                self.observed.start_failed(port, &assignment, Instant::now());
            }
        }
    }

    /// Starts new workers from this program from now on; those that run are replaced one after the other.
    fn use_program(&mut self, program: Program, version: &str) {
        self.launcher.replace(program);
        self.observed.program += 1;
        let workers = self.observed.outdated_count();
        tracing::info!(version, workers, "there is a new program; workers are replaced one after the other");
        self.replaced = Some(0);
        self.is_halted = false;
    }

    /// Logs when all workers are the newest program, or when that fails a tenant.
    fn note_replacement(&mut self) {
        let outdated = self.observed.outdated_count();
        let failed = plan::failed_tenant(&self.desired, &self.observed).filter(|_| outdated > 0);
        if let Some(Assignment { tenant, .. }) = failed
            && !self.is_halted
        {
            tracing::error!(
                %tenant, workers = outdated,
                "a worker of the new program crashed before it had served; no more workers are replaced until this tenant \
                 is served; install a program that works and send SIGHUP"
            );
        }
        self.is_halted = failed.is_some();
        let is_over = outdated == 0 && self.observed.stopping_count(StopReason::NewProgram) == 0;
        if is_over && let Some(replaced) = self.replaced.take() {
            tracing::info!(replaced, "all workers are the new program");
        }
    }

    fn send_settings(&mut self, port: u16, assignment: Arc<Assignment>) {
        let sent = self.processes.get(&port).map(|process| process.send_settings(&assignment.settings));
        if let Some(Err(error)) = sent {
            tracing::error!(tenant = %assignment.tenant, port, %error, "failed to send a worker its settings");
        }
        self.observed.settings_sent(port, assignment);
    }

    fn with_process(&self, port: u16, act: impl FnOnce(&Process)) {
        if let Some(process) = self.processes.get(&port) {
            act(process);
        }
    }
}

/// Turns signals into events.
fn pass_on_signals(mut signals: Signals, sender: &mpsc::UnboundedSender<Event>) {
    let sender = sender.clone();
    tokio::spawn(async move { while sender.send(Event::Signalled(signals.next().await)).is_ok() {} });
}

/// Has the pool's loop reload. Gives the files to watch from then on, `None` when the pool has ended.
async fn ask_for_reload(sender: mpsc::UnboundedSender<Event>) -> Option<Vec<PathBuf>> {
    let (asker, files) = oneshot::channel();
    sender.send(Event::ReloadRequested(asker)).ok()?;
    files.await.ok()
}

#[cfg(test)]
mod tests;
