//! The supervisor: observe, plan, act.
//!
//! It owns every slot's listening socket for ever. While a tenant sleeps, the socket is watched for a
//! waiting connection; then a worker is started on a copy of it, and it is the worker that accepts. So a
//! crash, an idle end or a restart leaves connections waiting, never refused.
//!
//! All news comes as an [`Event`] to one loop, which notes it in [`observed`], asks [`plan`] what to do
//! now, and does it.

pub mod backoff;
pub mod desired;
pub mod directories;
pub mod directory_check;
pub mod event;
pub mod handover;
pub mod metrics;
pub mod observed;
pub mod plan;
pub mod process;
pub mod program;
pub mod report;
pub mod slot;
pub mod status;
pub mod storage;
mod succession;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;
use sq_shared::config::Config;
use sq_shared::config_source::ConfigSource;
use sq_shared::data_root::DataRoot;
use sq_shared::process::signals::{StopSignal, upgrades};
use sq_shared::process::watch::{Reason, ReloadWatch};
use sq_shared::process::{output, service_manager};
use sq_shared::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use desired::{Account, Assignment, Desired};
use directories::DirectoryChecks;
pub use event::Event;
use handover::Handover;
use metrics::Metrics;
use observed::{ExitKind, Observed, StopReason};
use plan::Action;
use process::{End, Launcher, Process};
use program::Program;
use report::Report;
use slot::SlotSocket;
use status::{StatusServer, StatusSources};
use storage::Storage;
use succession::{Inherited, Succession};

/// Most events taken in before the next plan: one of each slot.
const EVENTS_AT_ONCE: usize = 512;

/// What [`StopSignal`] calls the signal to hand over.
const SIGQUIT: &str = "SIGQUIT";

/// The supervisor with its sockets and processes.
pub struct Pool {
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
    /// How many workers have made way for the newest program, while others have not yet.
    replaced: Option<usize>,
    /// They do not go on: the newest program has failed a tenant.
    is_halted: bool,
    succession: Succession,
    /// Taken when the pool runs.
    reloads: Option<ReloadWatch>,
    /// The last reload found mistakes.
    is_rejected: bool,
    /// Unbounded, yet short: each sender waits for an answer, or says a thing once.
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Pool {
    /// Binds every slot, then the status page: whoever reaches that can reach every tenant. What another pool hands
    /// on need not be bound. Call it inside a runtime.
    ///
    /// # Errors
    /// An address cannot be had, or the other pool does not hand over after all; the text says what to do.
    pub fn start(
        source: ConfigSource,
        config: Config,
        registry: &Registry,
        data_root: DataRoot,
        launcher: Launcher,
        handover: Option<Handover>,
    ) -> Result<Self, String> {
        let (sender, events) = mpsc::unbounded_channel();
        let storage = Arc::new(Storage::new(data_root.clone()));
        let defect = |error| format!("the metrics cannot be counted: {error}");
        let metrics = Arc::new(Metrics::new().map_err(defect)?);
        let mut inherited = Inherited::new(handover);
        let mut sockets = BTreeMap::new();
        for port in config.gateway.slots.clone() {
            let socket = match inherited.take(SocketAddr::new(config.pool.slot_address, port)) {
                Some(listener) => SlotSocket::take_over(listener, port, &sender),
                None => SlotSocket::bind(config.pool.slot_address, port, &sender)?,
            };
            sockets.insert(port, socket);
        }
        let no_signals = |error| format!("cannot take over signals: {error}");
        obey_signals(&sender, &launcher).map_err(no_signals)?;
        let reloads = ReloadWatch::new(source.files(&config)).map_err(no_signals)?;
        let status = config.pool.status_listen.map(|address| {
            let (events, metrics, is_local) =
                (sender.clone(), Arc::clone(&metrics), address.ip().is_loopback());
            let sources = StatusSources { events, metrics, storage: Arc::clone(&storage), is_local };
            StatusServer::start(address, inherited.take(address), sources)
        });
        let status = status.transpose()?;
        let mut observed = Observed::new(sockets.keys().copied());
        inherited.accept(&mut observed, &sender)?;
        let accounts = Account::all(&config, registry);
        metrics.sync_tenants(&accounts);
        let directories = DirectoryChecks::start(data_root, &sender)
            .map_err(|error| format!("failed to start the checks of the data root: {error}"))?;
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
            succession: Succession::default(),
            sender,
            events,
        })
    }

    /// Ends the pool when standard input ends.
    pub fn stop_when_stdin_closes(&mut self) {
        self.succession = Succession::Never;
        let sender = self.sender.clone();
        // A thread of its own: a read from standard input cannot be given up, and must not hold up the end.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = sender.send(Event::StopRequested("the end of standard input"));
        });
    }

    /// Runs until it has been told to stop and the last worker is gone.
    pub async fn run(mut self) {
        // The files may have changed between their first reading and the start of the watch. Read before the pool says that
        // it is ready: the watch then reports each later mistake once.
        self.reload();
        if let Some(reloads) = self.reloads.take() {
            let (files, sender) = (self.source.files(&self.config), self.sender.clone());
            tokio::spawn(reloads.run(files, move |reason| ask_for_reload(sender.clone(), reason)));
        }
        // Has those directories noted that are there.
        self.storage.measure_if_due(&self.accounts);
        self.say_ready();
        let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
        while !self.desired.is_closing || self.observed.worker_count() > 0 {
            self.act().await;
            let wakeup = plan::next_wakeup(&self.desired, &self.observed, Instant::now());
            let news = self.events.recv_many(&mut batch, EVENTS_AT_ONCE);
            match wakeup {
                // Woken by time instead of news, there is nothing to note, only to plan.
                Some(at) => _ = tokio::time::timeout_at(at.into(), news).await,
                None => _ = news.await,
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
            Event::WorkerEnded(port, end) => self.worker_ended(port, end),
            Event::ReloadRequested(reason, asker) => {
                if reason == Reason::Hangup {
                    tracing::info!("SIGHUP: looking at config, registry and program");
                }
                self.reload();
                // The asker goes only when the runtime ends.
                let _ = asker.send(self.source.files(&self.config));
            }
            Event::NewProgram(program, version) => self.renew(program, &version),
            Event::DataRootChanged { is_missing } => self.data_root_changed(is_missing),
            Event::DirectoryCheckDue => self.check_directories(),
            Event::DirectoryChecked(port, assignment, result) => {
                self.directory_checked(port, &assignment, result);
            }
            Event::HandoverRequested => self.seek_successor(),
            Event::UpgradeRequested => self.start_successor(),
            Event::SuccessorFound(found) => self.meet_successor(found).await,
            Event::StatusRequested(asker) => {
                let slots = self.sockets.len();
                let report =
                    Report::new(&self.desired, &self.observed, &self.accounts, slots, Instant::now());
                // The asker may have gone.
                let _ = asker.send(report);
            }
            Event::StopRequested(reason) if !self.desired.is_closing => {
                let workers = self.observed.worker_count();
                tracing::info!(reason, workers, "pool stops");
                service_manager::stopping();
                self.desired.close(self.config.timeouts.drain);
            }
            Event::StopRequested(_) => {}
        }
    }

    fn worker_served(&mut self, port: u16, at: Instant) {
        if let Some(waited) = self.observed.served(port, at) {
            self.metrics.cold_started(waited);
        }
    }

    fn worker_ended(&mut self, port: u16, end: End) {
        self.processes.remove(&port);
        let End { status, has_served } = end;
        if has_served {
            // Its word may have come together with its end.
            self.worker_served(port, Instant::now());
        }
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let Some((worker, exit)) = self.observed.ended(port, code, has_served, Instant::now()) else {
            return;
        };
        let is_sandbox = status.as_ref().is_ok_and(|status| status.signal() == Some(Signal::SYS.as_raw()));
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let (tenant, pid) = (&worker.assignment.tenant, worker.pid);
        if let Some(successor) = self.succession.successor() {
            handover::say_ended(successor, port);
        }
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
        let is_news = std::mem::take(&mut self.is_rejected) || desired != self.desired;
        self.desired = desired;
        self.accounts = Account::all(&config, &registry);
        self.metrics.sync_tenants(&self.accounts);
        self.config = config;
        if is_news {
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
        self.note_renewal();
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
                // One that the pool before this one started has no process here: that pool kills it.
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
                tracing::error!(%tenant, port, %error, "cannot start a worker");
                self.metrics.crashed(tenant);
                self.observed.start_failed(port, &assignment, Instant::now());
            }
        }
    }

    /// New workers are another program from now on; those that run make way for it one after the other.
    fn renew(&mut self, program: Program, version: &str) {
        self.launcher.replace(program);
        self.observed.program += 1;
        let workers = self.observed.outdated_count();
        tracing::info!(version, workers, "there is a new program; workers are replaced one after the other");
        self.replaced = Some(0);
        self.is_halted = false;
    }

    /// Says so when all workers are the newest program, or when it is no good.
    fn note_renewal(&mut self) {
        let outdated = self.observed.outdated_count();
        let failed = plan::failed_tenant(&self.desired, &self.observed).filter(|_| outdated > 0);
        if let Some(Assignment { tenant, .. }) = failed
            && !self.is_halted
        {
            tracing::error!(
                %tenant, workers = outdated,
                "a worker of the new program crashed before it had served; the workers that are left stay the old \
                 one until this tenant is served; put a program that works in its place and send SIGHUP"
            );
        }
        self.is_halted = failed.is_some();
        let is_over = outdated == 0 && self.observed.stopping_count(StopReason::NewProgram) == 0;
        if is_over && let Some(replaced) = self.replaced.take() {
            tracing::info!(replaced, "all workers are the new program");
        }
    }

    fn send_settings(&mut self, port: u16, assignment: Arc<Assignment>) {
        if let Some(Err(error)) = self.processes.get(&port).map(|process| process.tell(&assignment.settings))
        {
            tracing::error!(tenant = %assignment.tenant, port, %error, "cannot tell a worker its settings");
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
fn obey_signals(sender: &mpsc::UnboundedSender<Event>, launcher: &Launcher) -> io::Result<()> {
    let (mut stop, stopping) = (StopSignal::new()?, sender.clone());
    tokio::spawn(async move {
        loop {
            let reason = stop.received().await;
            let event =
                if reason == SIGQUIT { Event::HandoverRequested } else { Event::StopRequested(reason) };
            if stopping.send(event).is_err() {
                return;
            }
        }
    });
    let (mut upgrades, upgrading) = (upgrades()?, sender.clone());
    tokio::spawn(async move {
        while upgrades.recv().await.is_some() {
            if upgrading.send(Event::UpgradeRequested).is_err() {
                return;
            }
        }
    });
    match launcher.program() {
        Some(program) => {
            let sender = sender.clone();
            program::replace_on_hangup(program.clone(), move |program, version| {
                sender.send(Event::NewProgram(program, version)).is_ok()
            })
        }
        None => Ok(()),
    }
}

/// Has the pool's loop reload. Gives the files to watch from then on, `None` when the pool has ended.
async fn ask_for_reload(sender: mpsc::UnboundedSender<Event>, reason: Reason) -> Option<Vec<PathBuf>> {
    let (asker, files) = oneshot::channel();
    sender.send(Event::ReloadRequested(reason, asker)).ok()?;
    files.await.ok()
}

#[cfg(test)]
mod tests;
