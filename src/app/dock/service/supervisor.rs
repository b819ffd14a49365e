//! The processes of one service: which one runs, which ones are being stopped, and when the next one starts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::super::definition::document::Definition;
use super::super::definition::readiness::ReadinessCheck;
use super::super::jitter::{random_byte, spread};
use super::super::output::task::Output;
use super::super::process::running::{Exit, Process};
use super::super::store::builds::discard;
use super::super::store::state_file::ProcessRow;
use super::context::Context;
use super::ending::{Reporter, end_process};
use super::probe::{Position, watch};
use super::recovery::{adopt, rest_of};
use super::restart_history::{RestartDecision, RestartHistory};
use super::snapshot::{SharedSnapshot, Snapshot, Status, to_ms};
use super::starter::{Plan, SpawnError, folder, plan, start};
use super::state_row::StateRow;

/// How long a service waits for the services of its `after`.
const AFTER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of an ended process may take to end after SIGTERM.
const REST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before another attempt to start, when the state file could not be written.
const STATE_PAUSE: Duration = Duration::from_secs(10);

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
    /// A process is due to be started.
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
    snapshot: SharedSnapshot,
    output: Option<Arc<Output>>,
    process: Option<(Process, ProcessRow)>,
    phase: Phase,
    history: RestartHistory,
    restarts: u64,
    /// Processes that are being stopped while a newer one runs.
    retiring: JoinSet<()>,
    /// Watches a process that is not ready yet.
    probe: Option<AbortOnDropHandle<()>>,
}

impl Supervisor {
    pub(super) fn new(service: &str, context: &Arc<Context>, state_row: StateRow, snapshot: SharedSnapshot) -> Self {
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
                        self.note(&text);
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
        if let Err(error) = self.state_row.retire(&row.variable).await {
            // An agent that ended now would know only one of two processes: the old one stays the only one.
            self.process = Some((process, row));
            return Err(error);
        }
        self.end_probe();
        self.begin_anew();
        let spawned = self.spawn(definition).await;
        self.retire(process, row.variable, definition.stop_timeout);
        spawned
    }

    /// Stops the service, and returns when no process of it is left.
    pub(super) async fn stop(&mut self, definition: &Definition) {
        self.phase = Phase::Idle;
        self.end_probe();
        if let Some((process, row)) = self.process.take() {
            self.publish_status(definition, Status::Stopping, Some((process.pid(), process.started())));
            let grace = definition.stop_timeout;
            let ended = end_process(process, grace, &self.reporter, self.output.as_deref()).await;
            self.state_row.close(&row.variable, ended).await;
        }
        while self.retiring.join_next().await.is_some() {}
        self.publish(definition);
    }

    /// Removes the output of a service that is stopped.
    pub(super) fn remove_output(&mut self) {
        // Ends the task that reads the files.
        self.output = None;
        discard(&self.context.data.logs(&self.service));
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
            match adopt(&row, &self.context.boot) {
                Some(process) => self.retire(process, row.variable, definition.stop_timeout),
                None => self.end_rest(&row).await,
            }
        }
        let Some(mut row) = process else { return };
        let Some(process) = adopt(&row, &self.context.boot) else {
            self.end_rest(&row).await;
            if row.pid != 0 {
                self.reporter.exit(Exit::Unknown, None).await;
            }
            return;
        };
        tracing::info!(service = self.service, pid = process.pid(), "took over a running process");
        if row.pid == 0 {
            // The agent ended between the start of the process and the event.
            (row.pid, row.start_time) = (process.pid(), process.tree().start_time);
            self.note_numbers(&row).await;
            self.reporter.spawn(process.pid());
        }
        if let Err(error) = self.open_output() {
            tracing::error!(service = self.service, error, "the output of the process is neither rotated nor sent");
        }
        self.process = Some((process, row));
        // Nobody knows whether the process was ready, and services that start after this one have waited once already.
        self.context.readiness.set(&self.service, true);
        self.publish(definition);
    }

    /// Ends what a process left behind that ended while no agent watched.
    async fn end_rest(&self, row: &ProcessRow) {
        let ended = rest_of(row).end(REST_TIMEOUT).await;
        self.state_row.close(&row.variable, ended).await;
    }

    /// Stops a process in the background.
    fn retire(&mut self, process: Process, variable: String, grace: Duration) {
        let (reporter, state_row, output) = (self.reporter.clone(), self.state_row.clone(), self.output.clone());
        self.retiring.spawn(async move {
            let ended = end_process(process, grace, &reporter, output.as_deref()).await;
            state_row.close(&variable, ended).await;
        });
    }

    async fn exited(&mut self, exit: Exit, definition: &Definition) {
        let Some((process, row)) = self.process.take() else { return };
        self.end_probe();
        let ran = process.ran();
        self.publish_status(definition, Status::Stopping, None);
        self.reporter.exit(exit, self.output.as_deref()).await;
        // What the process left behind would hold the ports that the next one needs. The row goes last, so that an agent
        // that ends in between ends the rest when the agent starts again.
        let ended = process.tree().end(REST_TIMEOUT.min(definition.stop_timeout)).await;
        self.state_row.close(&row.variable, ended).await;
        self.plan_restart(ran, exit != Exit::Code(0), definition);
    }

    fn plan_restart(&mut self, ran: Duration, failed: bool, definition: &Definition) {
        self.phase = match self.history.ended(ran, failed, &definition.restart) {
            RestartDecision::Rest => Phase::Idle,
            RestartDecision::Restart(delay) => Phase::Pause { until: Instant::now() + with_jitter(delay) },
            RestartDecision::Crash => {
                let text = format!("crashed: {} restarts within 60 s", definition.restart.max);
                self.note(&text);
                self.reporter.crash(text);
                Phase::Crashed
            }
        };
        self.publish(definition);
    }

    async fn spawn(&mut self, definition: &Definition) -> Result<(), String> {
        self.phase = Phase::Idle;
        self.context.readiness.set(&self.service, false);
        let Err(error) = self.try_spawn(definition).await else {
            self.publish(definition);
            return Ok(());
        };
        let text = error.to_string();
        tracing::warn!(service = self.service, error = text, "could not start");
        self.note(&format!("could not start: {text}"));
        match error {
            SpawnError::Service(_) => self.plan_restart(Duration::ZERO, true, definition),
            SpawnError::State(_) => {
                self.phase = Phase::Pause { until: Instant::now() + with_jitter(STATE_PAUSE) };
                self.publish(definition);
            }
        }
        Err(text)
    }

    async fn try_spawn(&mut self, definition: &Definition) -> Result<(), SpawnError> {
        let output = self.open_output()?;
        let plan = plan(&self.context, &self.service, definition)?;
        let (stdout, cgroup, mut row) = (output.stdout(), plan.cgroup.clone(), self.row(&plan));
        let hold = output.hold();
        let started = match self.state_row.set_process(row.clone()).await {
            Ok(()) => start(&self.context, &self.service, definition, plan, &output).await.map_err(SpawnError::Service),
            Err(error) => Err(SpawnError::State(error)),
        };
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
                self.state_row.close(&row.variable, true).await;
                return Err(error);
            }
        };
        (row.pid, row.start_time) = (process.pid(), process.tree().start_time);
        self.note_numbers(&row).await;
        self.reporter.spawn(process.pid());
        drop(hold);
        self.process = Some((process, row));
        self.watch_readiness(definition, stdout, &output);
        Ok(())
    }

    /// Adds the numbers of a process to its row.
    async fn note_numbers(&self, row: &ProcessRow) {
        // The error is in the log. Without the numbers, the process is found by its variable.
        self.state_row.set_process(row.clone()).await.ok();
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

    fn watch_readiness(&mut self, definition: &Definition, stdout: Position, output: &Arc<Output>) {
        self.end_probe();
        match definition.ready.clone() {
            None => self.context.readiness.set(&self.service, true),
            Some(ready) => {
                let (readiness, output) = (Arc::clone(&self.context.readiness), Arc::clone(output));
                self.probe = Some(watch(self.service.clone(), ready, stdout, readiness, output));
            }
        }
    }

    fn end_probe(&mut self) {
        self.probe = None;
        self.context.readiness.set(&self.service, false);
    }

    /// A command begins the count of restarts anew.
    fn begin_anew(&mut self) {
        self.history = RestartHistory::default();
        self.restarts = 0;
        self.phase = Phase::Idle;
    }

    /// Writes a line of the agent into the output of the service, or into the log when the output cannot be opened.
    fn note(&mut self, text: &str) {
        match self.open_output() {
            Ok(output) => output.note(text),
            Err(error) => tracing::warn!(service = self.service, error, text, "no output to write into"),
        }
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
        self.snapshot.set(Snapshot {
            defined: true,
            status,
            process,
            command,
            cwd,
            env: definition.env.clone(),
            revision: definition.revision.clone(),
            deployed: definition.deployed.clone(),
            restarts: self.restarts,
        });
    }
}

/// The pause times 0.8 to 1.2, so that services that failed together do not start together.
fn with_jitter(pause: Duration) -> Duration {
    spread(pause, 0.8, 1.2, random_byte())
}
