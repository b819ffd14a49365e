//! The actor of one service: commands one after the other, and in between what happens to the process.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::doors::hms::wire::answer::Answer;
use crate::doors::hms::wire::payload::Service;
use crate::doors::hms::wire::texts::NO_BUILD_FETCHED;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::base::actors::hint;

use super::super::definition::document::Definition;
use super::super::node::build::fetch_build;
use super::super::store::state_file::ServiceRow;
use super::commands::{Command, Request};
use super::context::Context;
use super::snapshot::{SharedSnapshot, Snapshot};
use super::starter::folder;
use super::state_row::StateRow;
use super::supervisor::{Supervisor, SupervisorEvent};

/// The key of an update by which the hub tells that a process is registered on the bus. The value is that of
/// `ROLLBOOK_PROCESS` in the environment of the process.
const REGISTERED: &str = "registered";

/// The actor of one service.
#[derive(Debug)]
pub(super) struct Actor {
    service: String,
    context: Arc<Context>,
    state_row: StateRow,
    supervisor: Supervisor,
    snapshot: SharedSnapshot,
    /// None before the first `sync` and after `remove`.
    definition: Option<Definition>,
}

impl Actor {
    pub(super) fn new(service: &str, context: &Arc<Context>, snapshot: SharedSnapshot) -> Self {
        let state_row = StateRow::new(service, context);
        Self {
            service: service.to_owned(),
            context: Arc::clone(context),
            supervisor: Supervisor::new(service, context, state_row.clone(), snapshot.clone()),
            state_row,
            snapshot,
            definition: None,
        }
    }

    /// Runs until all handles are gone.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request { command, answer, _pending }) => {
                        let outcome = self.handle(command).await;
                        // The connection that asked may have ended.
                        hint(answer, outcome);
                    }
                    None => return,
                },
                event = self.supervisor.next() => self.supervise(event).await,
            }
        }
    }

    async fn supervise(&mut self, event: SupervisorEvent) {
        let retired = matches!(event, SupervisorEvent::Retired);
        if let Some(definition) = &self.definition {
            self.supervisor.handle(event, definition).await;
        }
        if retired {
            self.prune_builds().await;
        }
    }

    async fn handle(&mut self, command: Command) -> Answer {
        let done = match command {
            Command::Get => return self.get(),
            Command::Recover(row) => self.recover(row).await,
            Command::Sync(service) => self.sync(service).await,
            Command::Update(changes) => self.update(&changes).await,
            Command::Start => self.start(false).await,
            Command::Restart => self.start(true).await,
            Command::Stop => self.stop().await,
            Command::Remove => self.remove().await,
            Command::Shutdown => {
                if let Some(definition) = &self.definition {
                    self.supervisor.stop(definition).await;
                }
                Ok(())
            }
        };
        match done {
            Ok(()) => Answer::Done,
            Err(text) => Answer::Error(text),
        }
    }

    fn get(&self) -> Answer {
        let Some(definition) = &self.definition else { return Answer::json(&()) };
        let mut service = definition.document().clone();
        if let Ok(folder) = folder(&self.context, &self.service, definition) {
            service.insert("cwd".into(), folder.to_string_lossy().into());
        }
        Answer::json(&service)
    }

    async fn recover(&mut self, row: ServiceRow) -> Result<(), String> {
        // The process of a document that this version does not understand is taken over nevertheless.
        let definition = Definition::parse(row.service.clone()).unwrap_or_else(|error| {
            tracing::error!(service = self.service, error, "a stored service cannot be understood and is not started");
            Definition::empty(row.service.clone())
        });
        self.state_row.recover(row.clone());
        self.supervisor.publish(&definition);
        self.supervisor.recover(row.process, row.retiring, &definition).await;
        if definition.stopped {
            self.supervisor.stop(&definition).await;
        } else if !self.supervisor.is_active() && self.runs_here(&definition) {
            // What went wrong is in the output of the service, and the next attempt is planned.
            self.supervisor.start(&definition).await.ok();
        }
        self.definition = Some(definition);
        self.prune_builds().await;
        Ok(())
    }

    async fn sync(&mut self, service: Service) -> Result<(), String> {
        let definition = Definition::parse(service.clone())?;
        if definition.deployed.is_some() {
            let path = folder(&self.context, &self.service, &definition)?;
            if !path.is_dir() {
                self.fetch(&path).await?;
            }
        }
        self.context.readiness.set(&self.service, self.context.readiness.is_ready(&self.service));
        self.define(definition).await?;
        self.prune_builds().await;
        Ok(())
    }

    /// Brings a build to `path`. The process is watched meanwhile, because a download may take long.
    async fn fetch(&mut self, path: &Path) -> Result<(), String> {
        let (context, service) = (Arc::clone(&self.context), self.service.clone());
        let node = context.node.borrow().clone();
        let mut stopping = context.stopping.subscribe();
        let fetched = fetch_build(node, &context.builds, &service, path);
        let stopped = async { while !*stopping.borrow_and_update() && stopping.changed().await.is_ok() {} };
        tokio::pin!(fetched, stopped);
        loop {
            tokio::select! {
                fetched = &mut fetched => return fetched,
                () = &mut stopped => return Err(NO_BUILD_FETCHED.into()),
                event = self.supervisor.next() => self.supervise(event).await,
            }
        }
    }

    async fn update(&mut self, changes: &Service) -> Result<(), String> {
        let Some(definition) = &self.definition else { return Ok(()) };
        if let Some(process) = changes.get(REGISTERED).and_then(|value| value.as_str()) {
            self.supervisor.registered(process, definition);
        }
        let updated = definition.updated(changes)?;
        if updated.document() == definition.document() {
            return Ok(());
        }
        self.define(updated).await
    }

    /// Takes over a definition, and returns when the state file has the definition.
    async fn define(&mut self, definition: Definition) -> Result<(), String> {
        let service = definition.document().clone();
        self.supervisor.publish(&definition);
        self.definition = Some(definition);
        self.state_row.change(|row| row.service = service).await
    }

    async fn set_stopped(&mut self, definition: &Definition, stopped: bool) -> Result<(), String> {
        match definition.stopped == stopped {
            true => Ok(()),
            false => self.define(definition.with_stopped(stopped)).await,
        }
    }

    async fn start(&mut self, restart: bool) -> Result<(), String> {
        let Some(definition) = self.definition.clone().filter(|definition| self.runs_here(definition)) else {
            return Ok(());
        };
        self.set_stopped(&definition, false).await?;
        match restart {
            true => self.supervisor.restart(&definition).await,
            false => self.supervisor.start(&definition).await,
        }
    }

    /// The flag is stored first: an agent that ends in the middle stops the service when the agent starts again.
    async fn stop(&mut self) -> Result<(), String> {
        let Some(definition) = self.definition.clone() else { return Ok(()) };
        let stored = self.set_stopped(&definition, true).await;
        self.supervisor.stop(&definition).await;
        stored
    }

    async fn remove(&mut self) -> Result<(), String> {
        let Some(definition) = self.definition.take() else { return Ok(()) };
        self.supervisor.stop(&definition).await;
        let removed = self.state_row.remove().await;
        self.supervisor.remove_output();
        self.keep_builds(Vec::new()).await;
        self.remove_work_folder();
        self.context.readiness.remove(&self.service);
        self.snapshot.set(Snapshot::default());
        removed
    }

    fn runs_here(&self, definition: &Definition) -> bool {
        let context = &self.context;
        definition.start.is_some() && definition.belongs_to(&context.dock, &context.tags, context.default)
    }

    /// What the service itself wrote stays.
    fn remove_work_folder(&self) {
        let folder = self.context.data.work(&self.service);
        if let Err(error) = fs::remove_dir(&folder)
            && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty)
        {
            tracing::warn!(folder = %folder.display(), %error, "could not remove the folder of a service");
        }
    }

    /// Keeps the build of the definition, and those that processes run in.
    async fn prune_builds(&self) {
        let Some(definition) = &self.definition else { return };
        let mut kept = self.state_row.folders();
        kept.extend(folder(&self.context, &self.service, definition));
        self.keep_builds(kept).await;
    }

    /// Removes all other builds of the service, on another thread: builds may have many files.
    async fn keep_builds(&self, kept: Vec<PathBuf>) {
        let (context, service) = (Arc::clone(&self.context), self.service.clone());
        let pruned = spawn_blocking(move || context.builds.prune(&service, &kept)).await;
        if let Err(error) = pruned {
            tracing::error!(service = self.service, %error, "could not remove old builds");
        }
    }
}
