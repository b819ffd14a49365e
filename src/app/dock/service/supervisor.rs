//! The processes of one service: which one runs, which ones are being stopped, and when the next one starts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::super::definition::document::Definition;
use super::super::definition::readiness::ReadinessCheck;
use super::super::output::task::Output;
use super::super::process::cgroup::Cgroup;
use super::super::process::running::{Exit, Process};
use super::super::process::tree::Tree;
use super::super::store::state_file::ProcessRow;
use super::context::Context;
use super::ending::{Reporter, end_process};
use super::probe::wait_ready;
use super::restart_history::{RestartDecision, RestartHistory, with_jitter};
use super::snapshot::{Snapshot, Status, from_ms, to_ms};
use super::starter::{Plan, folder, plan, start};
use super::state_row::StateRow;

/// How long a service waits for those that it starts after.
const AFTER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what an ended process left behind may take to end after SIGTERM.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// What the supervisor waits for beside the end of the process.
#[derive(Debug)]
enum Phase {
    /// Nothing.
    Idle,
    /// Services to be ready, until then.
    After { services: Vec<String>, until: Instant },
    /// The next restart.
    Pause { until: Instant },
    /// A command: the service ended too often.
    Crashed,
}

/// What happened while the supervisor waited.
#[derive(Debug)]
pub(super) enum SupervisorEvent {
    /// The process ended by itself.
    Exit(Exit),
    /// It is time to start a process.
    Due,
    /// A process that was told to stop is gone.
    Retired,
}

/// The processes of one service.
#[derive(Debug)]
pub(super) struct Supervisor {
    service: String,
    context: Arc<Context>,
    state_row: StateRow,
    reporter: Reporter,
    snapshot: Arc<Mutex<Snapshot>>,
    output: Option<Arc<Output>>,
    process: Option<(Process, ProcessRow)>,
    phase: Phase,
    history: RestartHistory,
    restarts: u64,
    /// Processes that are being stopped while a newer one runs.
    retiring: JoinSet<()>,
    /// Watches a process that is not ready yet.
    probe: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub(super) fn new(
        service: &str,
        context: &Arc<Context>,
        state_row: StateRow,
        snapshot: Arc<Mutex<Snapshot>>,
    ) -> Self {
        Self {
            service: service.to_owned(),
            reporter: Reporter::new(service, &context.outbox),
            context: Arc::clone(context),
            state_row,
            snapshot,
            output: None,
            process: None,
            phase: Phase::Idle,
            history: RestartHistory::default(),
            restarts: 0,
            retiring: JoinSet::new(),
            probe: None,
        }
    }

    /// True while a process runs or is about to.
    pub(super) fn is_active(&self) -> bool {
        self.process.is_some() || matches!(self.phase, Phase::After { .. } | Phase::Pause { .. })
    }

    /// Waits for what happens by itself. May be cancelled and called again.
    pub(super) async fn next(&mut self) -> SupervisorEvent {
        let due = async {
            match &self.phase {
                Phase::After { services, until } => tokio::select! {
                    () = self.context.readiness.wait(services) => {}
                    () = sleep_until(*until) => {}
                },
                Phase::Pause { until } => sleep_until(*until).await,
                Phase::Idle | Phase::Crashed => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = async {
                match &mut self.process {
                    Some((process, _)) => process.wait().await,
                    None => std::future::pending().await,
                }
            } => SupervisorEvent::Exit(exit),
            () = due => SupervisorEvent::Due,
            Some(_) = self.retiring.join_next() => SupervisorEvent::Retired,
        }
    }

    /// Does what follows.
    pub(super) async fn handle(&mut self, event: SupervisorEvent, definition: &Definition) {
        match event {
            SupervisorEvent::Exit(exit) => self.exited(exit, definition).await,
            SupervisorEvent::Retired => {}
            SupervisorEvent::Due => {
                if let Phase::After { services, .. } = &self.phase {
                    let missing = self.context.readiness.missing(services);
                    if !missing.is_empty() {
                        let text = format!("started though {} is not ready", missing.join(", "));
                        self.open_output().inspect(|output| output.note(&text)).ok();
                    }
                } else {
                    self.restarts = self.restarts.saturating_add(1);
                }
                // What went wrong is in the output of the service, and the next attempt is planned.
                self.spawn(definition).await.ok();
            }
        }
    }

    /// Starts the service, unless it runs. A service that starts after others first waits for them.
    ///
    /// # Errors
    ///
    /// The sentence says why no process runs. Another attempt follows by the restart policy.
    pub(super) async fn start(&mut self, definition: &Definition) -> Result<(), String> {
        if self.process.is_some() || matches!(self.phase, Phase::After { .. }) {
            return Ok(());
        }
        self.begin_anew();
        if self.context.readiness.missing(&definition.after).is_empty() {
            return self.spawn(definition).await;
        }
        // A definition that can never start is told at once.
        definition.arguments(&self.service).map_err(|error| error.to_string())?;
        self.phase = Phase::After { services: definition.after.clone(), until: Instant::now() + AFTER_TIMEOUT };
        self.publish(definition);
        Ok(())
    }

    /// Starts a new process at once, and stops the old one meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::start`].
    pub(super) async fn restart(&mut self, definition: &Definition) -> Result<(), String> {
        let Some((process, row)) = self.process.take() else { return self.start(definition).await };
        self.end_probe();
        self.begin_anew();
        self.restarts = 0;
        let started = self.state_row.change(|stored| {
            stored.process = None;
            stored.retiring.push(row.clone());
        });
        started.await.ok();
        let spawned = self.spawn(definition).await;
        self.retire(process, row.variable, definition.stop_timeout);
        spawned
    }

    /// Stops the service, and returns when no process of it is left.
    pub(super) async fn stop(&mut self, definition: &Definition) {
        self.phase = Phase::Idle;
        self.end_probe();
        if let Some((process, _)) = self.process.take() {
            self.publish_status(definition, Status::Stopping, Some((process.pid(), process.started())));
            end_process(process, definition.stop_timeout, &self.reporter, self.output.as_deref()).await;
            self.state_row.set_process(None).await;
        }
        while self.retiring.join_next().await.is_some() {}
        self.publish(definition);
    }

    /// Removes the output of a service that is stopped.
    pub(super) fn remove_output(&mut self) {
        self.open_output().inspect(|output| output.remove()).ok();
        self.output = None;
    }

    /// The hub says that the process with this value of the variable is registered on the bus.
    pub(super) fn registered(&mut self, value: &str, definition: &Definition) {
        let is_this = |row: &ProcessRow| row.variable.split_once('=').is_some_and(|(_, own)| own == value);
        let waits = definition.ready.as_ref().is_some_and(|ready| ready.check == ReadinessCheck::Bus);
        if waits && self.process.as_ref().is_some_and(|(_, row)| is_this(row)) {
            self.end_probe();
            self.context.readiness.set(&self.service, true);
        }
    }

    /// Takes over the processes of an earlier start of the agent. Those that ended meanwhile are told as exits.
    pub(super) async fn recover(
        &mut self,
        process: Option<ProcessRow>,
        retiring: Vec<ProcessRow>,
        definition: &Definition,
    ) {
        for row in retiring {
            match self.adopt(&row) {
                Some(process) => self.retire(process, row.variable, definition.stop_timeout),
                None => {
                    self.end_rest(&row).await;
                    self.state_row.forget_retired(&row.variable).await;
                }
            }
        }
        let Some(mut row) = process else { return };
        let Some(process) = self.adopt(&row) else {
            self.end_rest(&row).await;
            self.state_row.set_process(None).await;
            if row.pid != 0 {
                self.reporter.exit(Exit::Unknown, None).await;
            }
            return;
        };
        tracing::info!(service = self.service, pid = process.pid(), "took over a running process");
        if row.pid == 0 {
            // The agent ended between the start of the process and the event.
            (row.pid, row.start_time) = (process.pid(), process.tree().start_time);
            self.state_row.set_process(Some(row.clone())).await;
            self.reporter.spawn(process.pid());
        }
        self.open_output().ok();
        self.process = Some((process, row));
        self.context.readiness.set(&self.service, true);
        self.publish(definition);
    }

    fn adopt(&self, row: &ProcessRow) -> Option<Process> {
        if row.boot != self.context.boot {
            return None;
        }
        let mut tree = tree_of(row);
        if tree.pid == 0 {
            let first = tree.find_first()?;
            (tree.pid, tree.start_time) = (first.pid, first.start_time);
        }
        Process::adopt(tree, from_ms(row.started_ms))
    }

    /// Ends what a process left behind that ended while no agent watched.
    async fn end_rest(&self, row: &ProcessRow) {
        // Its number may belong to another process by now.
        let tree = Tree { pid: 0, start_time: 0, ..tree_of(row) };
        tree.end(REST_TIMEOUT).await;
    }

    /// Stops a process in the background.
    fn retire(&mut self, process: Process, variable: String, grace: Duration) {
        let (reporter, state_row, output) = (self.reporter.clone(), self.state_row.clone(), self.output.clone());
        self.retiring.spawn(async move {
            end_process(process, grace, &reporter, output.as_deref()).await;
            state_row.forget_retired(&variable).await;
        });
    }

    async fn exited(&mut self, exit: Exit, definition: &Definition) {
        let Some((process, _)) = self.process.take() else { return };
        self.end_probe();
        let ran = process.ran();
        self.reporter.exit(exit, self.output.as_deref()).await;
        self.state_row.set_process(None).await;
        // What the process left behind would hold the ports that the next one needs.
        process.tree().end(REST_TIMEOUT.min(definition.stop_timeout)).await;
        self.plan_restart(ran, exit != Exit::Code(0), definition);
    }

    fn plan_restart(&mut self, ran: Duration, failed: bool, definition: &Definition) {
        self.phase = match self.history.ended(ran, failed, &definition.restart) {
            RestartDecision::Rest => Phase::Idle,
            RestartDecision::Restart(delay) => {
                let random = uuid::Uuid::new_v4().into_bytes().first().copied().unwrap_or_default();
                Phase::Pause { until: Instant::now() + with_jitter(delay, random) }
            }
            RestartDecision::Crash => {
                let text = format!("crashed: {} restarts within 60 s", definition.restart.max);
                if let Some(output) = &self.output {
                    output.note(&text);
                }
                self.reporter.crash(text);
                Phase::Crashed
            }
        };
        self.publish(definition);
    }

    async fn spawn(&mut self, definition: &Definition) -> Result<(), String> {
        self.phase = Phase::Idle;
        self.context.readiness.set(&self.service, false);
        let spawned = self.try_spawn(definition).await;
        match &spawned {
            Ok(()) => self.publish(definition),
            Err(error) => {
                tracing::warn!(service = self.service, error, "could not start");
                if let Some(output) = &self.output {
                    output.note(&format!("could not start: {error}"));
                }
                self.plan_restart(Duration::ZERO, true, definition);
            }
        }
        spawned
    }

    async fn try_spawn(&mut self, definition: &Definition) -> Result<(), String> {
        let output = self.open_output()?;
        let plan = plan(&self.context, &self.service, definition)?;
        let stdout = output.stdout();
        let mut row = self.row(&plan);
        self.state_row.set_process(Some(row.clone())).await;
        let hold = output.hold();
        let process = match start(&self.context, &self.service, definition, plan, &output).await {
            Ok(process) => process,
            Err(error) => {
                self.state_row.set_process(None).await;
                return Err(error);
            }
        };
        (row.pid, row.start_time) = (process.pid(), process.tree().start_time);
        self.state_row.set_process(Some(row.clone())).await;
        self.reporter.spawn(process.pid());
        drop(hold);
        self.process = Some((process, row));
        self.watch_readiness(definition, stdout, &output);
        Ok(())
    }

    fn row(&self, plan: &Plan) -> ProcessRow {
        ProcessRow {
            boot: self.context.boot.clone(),
            variable: plan.variable.clone(),
            pid: 0,
            start_time: 0,
            started_ms: to_ms(SystemTime::now()),
            cgroup: plan.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            command: plan.arguments.clone(),
            folder: plan.folder.clone(),
        }
    }

    fn watch_readiness(&mut self, definition: &Definition, stdout: (std::path::PathBuf, u64), output: &Arc<Output>) {
        self.end_probe();
        let Some(ready) = definition.ready.clone() else {
            self.context.readiness.set(&self.service, true);
            return;
        };
        let (service, readiness, output) =
            (self.service.clone(), Arc::clone(&self.context.readiness), Arc::clone(output));
        self.probe = Some(tokio::spawn(async move {
            if tokio::time::timeout(ready.timeout, wait_ready(ready.check, stdout)).await.is_err() {
                output.note(&format!("not ready within {} s; counts as ready", ready.timeout.as_secs()));
            }
            readiness.set(&service, true);
        }));
    }

    fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        self.context.readiness.set(&self.service, false);
    }

    /// A command begins the count of restarts anew.
    fn begin_anew(&mut self) {
        self.history = RestartHistory::default();
        self.restarts = 0;
        self.phase = Phase::Idle;
    }

    fn open_output(&mut self) -> Result<Arc<Output>, String> {
        if let Some(output) = &self.output {
            return Ok(Arc::clone(output));
        }
        let context = &self.context;
        let folder = context.data.logs(&self.service);
        let output =
            Output::open(&folder, &self.service, context.log_bytes_max, &context.outbox, &context.subscriptions)
                .map_err(|error| format!("could not open the output in {}: {error}", folder.display()))?;
        Ok(Arc::clone(self.output.insert(Arc::new(output))))
    }

    /// Shows the present state in `ps`.
    pub(super) fn publish(&self, definition: &Definition) {
        let process = self.process.as_ref().map(|(process, _)| (process.pid(), process.started()));
        let status = match (&process, &self.phase) {
            (Some(_), _) => Status::Running,
            (None, Phase::Idle) => Status::Stopped,
            (None, Phase::After { .. } | Phase::Pause { .. }) => Status::Sleeping,
            (None, Phase::Crashed) => Status::Crashed,
        };
        self.publish_status(definition, status, process);
    }

    fn publish_status(&self, definition: &Definition, status: Status, process: Option<(i32, SystemTime)>) {
        // A process shows what it was started with, though the definition may be another by now.
        let (command, cwd) = match &self.process {
            Some((_, row)) => (row.command.clone(), row.folder.clone()),
            None => (
                definition.arguments(&self.service).unwrap_or_default(),
                folder(&self.context, &self.service, definition).unwrap_or_default(),
            ),
        };
        *self.snapshot() = Snapshot {
            defined: true,
            status,
            process,
            command,
            cwd,
            env: definition.env.clone(),
            revision: definition.revision.clone(),
            deployed: definition.deployed.clone(),
            restarts: self.restarts,
        };
    }

    fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tree_of(row: &ProcessRow) -> Tree {
    Tree {
        pid: row.pid,
        start_time: row.start_time,
        variable: row.variable.clone(),
        cgroup: row.cgroup.clone().map(Cgroup::at),
    }
}
