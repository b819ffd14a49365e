//! The mailbox of an actor, as others see it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::doors::hms::wire::answer::Answer;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::super::process::usage::Usage;
use super::actor::Actor;
use super::commands::{Command, Request};
use super::context::Context;
use super::snapshot::SharedSnapshot;

/// Most commands that wait for one service.
const COMMANDS_MAX: usize = 256;

/// One service, seen from outside.
#[derive(Debug)]
pub(crate) struct ServiceHandle {
    mailbox: mpsc::Sender<Request>,
    snapshot: SharedSnapshot,
    usage: Mutex<Usage>,
    /// Shared with each command that is not answered yet.
    pending: Arc<()>,
}

impl ServiceHandle {
    /// Starts the actor of a service that is not defined yet. The actor ends with the handle; its process does not.
    pub(crate) fn new(service: &str, context: &Arc<Context>) -> Self {
        let (mailbox, requests) = mpsc::channel(COMMANDS_MAX);
        let snapshot = SharedSnapshot::default();
        tokio::spawn(Actor::new(service, context, snapshot.clone()).run(requests));
        Self { mailbox, snapshot, usage: Mutex::default(), pending: Arc::new(()) }
    }

    /// Hands over a command. Commands are done in their order. None when too many wait.
    pub(crate) fn send(&self, command: Command) -> Option<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command, answer, _pending: Arc::clone(&self.pending) };
        self.mailbox.try_send(request).is_ok().then_some(answered)
    }

    /// Stops the service, however many commands wait, and returns when the service has no process.
    pub(crate) fn shut_down(&self) -> impl Future<Output = ()> + use<> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command: Command::Shutdown, answer, _pending: Arc::clone(&self.pending) };
        let mailbox = self.mailbox.clone();
        async move {
            // An actor that is gone has nothing left to do.
            if mailbox.send(request).await.is_ok() {
                answered.await.ok();
            }
        }
    }

    /// True when the service is not defined, and no command is under way that could define the service.
    pub(crate) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.pending) == 1 && !self.snapshot.is_defined()
    }

    /// The element of the list of `ps`. None when the service is not defined.
    pub(crate) fn to_json(&self, service: &str, ready: bool) -> Option<Value> {
        let snapshot = self.snapshot.get();
        let usage =
            snapshot.process.map(|(pid, _)| self.usage.lock().unwrap_or_else(PoisonError::into_inner).measure(pid));
        snapshot.defined.then(|| snapshot.to_json(service, usage, ready))
    }
}
