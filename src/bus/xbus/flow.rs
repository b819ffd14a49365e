//! Envelopes and processes on their way: what programs do all the time, and who hears of what became of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rollbook_core::command::Command;
use rollbook_core::entry::{FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::change::{Change, FragmentReceived, ProcessChange, ProcessesChange};
use rollbook_core::xbus::done::{ProcessStep, Reception, XbusDone};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event as process;
use rollbook_core::xbus::process::row::ProcessStatus;
use serde_json::json;

use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::xbus::client::{XbusClient, done};
use crate::bus::xbus::envelopes::recent;
use crate::bus::xbus::schema::Schemas;

/// What became of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorNews {
    /// The actor is connected somewhere, and was not before.
    Online,
    /// The actor is connected nowhere any more.
    Offline,
    /// An operator has changed the actor.
    Changed,
}

/// Hears what changes did, to tell clients of it in their protocol. Must not block.
pub trait XbusListener: fmt::Debug + Send + Sync {
    /// A change was made, proposed by this node.
    fn happened(&self, done: &XbusDone);

    /// Something became of an actor.
    fn actor(&self, actor: &ActorRow, news: ActorNews);
}

struct Inner {
    client: XbusClient,
    schemas: Schemas,
    listener: OnceLock<Arc<dyn XbusListener>>,
}

/// Makes the changes of envelopes and processes. Clones share one state.
#[derive(Clone)]
pub struct Flow {
    inner: Arc<Inner>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("listener", &self.inner.listener.get()).finish_non_exhaustive()
    }
}

impl Flow {
    /// The flow of this node.
    #[must_use]
    pub fn new(client: XbusClient) -> Self {
        Self { inner: Arc::new(Inner { client, schemas: Schemas::default(), listener: OnceLock::new() }) }
    }

    /// The state of Xbus.
    #[must_use]
    pub fn client(&self) -> &XbusClient {
        &self.inner.client
    }

    /// The schemas of types of events, against which whoever stores a fragment holds its items before.
    #[must_use]
    pub fn schemas(&self) -> &Schemas {
        &self.inner.schemas
    }

    /// From now on this one hears of every change. The first listener stays.
    pub fn listen(&self, listener: Arc<dyn XbusListener>) {
        if self.inner.listener.set(listener).is_err() {
            tracing::error!("two listeners of what happens to envelopes");
        }
    }

    /// Makes a change, and tells of what it did.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn change(&self, change: Change) -> Result<XbusDone, Fault> {
        let done = self.client().change(change).await?;
        self.tell(&done);
        Ok(done)
    }

    /// Tells clients, and the book, of what a change did. For changes that were proposed elsewhere, by an operator.
    pub fn tell(&self, done: &XbusDone) {
        if let Some(listener) = self.inner.listener.get() {
            listener.happened(done);
        }
        done.actors.iter().for_each(|actor| self.tell_of_actor(actor, ActorNews::Changed));
        done.steps.iter().filter(|step| step.was.is_some()).for_each(|step| self.record(step));
    }

    /// Tells clients what became of an actor.
    pub fn tell_of_actor(&self, actor: &ActorRow, news: ActorNews) {
        if let Some(listener) = self.inner.listener.get() {
            listener.actor(actor, news);
        }
    }

    /// Something happened to a process.
    ///
    /// # Errors
    /// The process does not take the event, or the cluster cannot make the change now.
    pub async fn advance(&self, process: Id, event: process::Event) -> Result<ProcessStep, Fault> {
        let event = process::ProcessEvent { event: Some(event) };
        let done = self.change(Change::Process(ProcessChange { id: process.to_vec(), event })).await?;
        done.steps.into_iter().next().ok_or_else(|| Fault::internal("no step of the process"))
    }

    /// Something happened to an actor or a node, and these processes hear of it: at most
    /// [`rollbook_core::limits::ROLL_STEP_MAX`]. Big processes hear of it in several changes.
    ///
    /// # Errors
    /// The cluster cannot make the change now. Some processes may have heard of the event.
    pub async fn advance_all(&self, processes: &[Id], event: process::Event) -> Result<(), Fault> {
        let event = process::ProcessEvent { event: Some(event) };
        let mut left = processes;
        while !left.is_empty() {
            let ids = left.iter().copied().map(Id::to_vec).collect();
            let done = self.change(Change::Processes(ProcessesChange { ids, event: event.clone() })).await?;
            // Each change looks at one process at least.
            let heard = usize::try_from(done.count).unwrap_or(usize::MAX).max(1);
            left = if done.more { left.get(heard..).unwrap_or_default() } else { &[] };
        }
        Ok(())
    }

    /// Stores a fragment: `payload`, a JSON document, goes into the book, and the rules take its measure. Both are
    /// proposed at the first poll, one behind the other, so that fragments keep their order.
    ///
    /// # Errors
    /// The fragment is not taken; or nobody knows, and it can be sent again.
    pub async fn store(&self, payload: &[u8], received: FragmentReceived) -> Result<XbusDone, Fault> {
        let envelope = Id::from_slice(&received.envelope).unwrap_or_default();
        let subject = format!("{}.envelope.{envelope}", Namespace::XBUS);
        let frame = frame(&subject, &received.event, payload)?;
        let is_whole = recent::is_whole(&received.fragment);
        let proposer = self.client().bus().proposer();
        let (stored, changed) =
            tokio::join!(proposer.publish(frame), proposer.command(Command::xbus(None, Change::Fragment(received))));
        match stored {
            // The same fragment came before.
            Ok(_) | Err(Refusal::EventIdExists(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        let done = done(changed?)?;
        let accepted = done.fragment.as_ref().is_some_and(|fragment| fragment.reception() == Reception::Accepted);
        if is_whole && accepted {
            self.client().recent().keep(envelope, payload);
        }
        self.tell(&done);
        Ok(done)
    }

    /// Puts a change of the status of a process into the book, for whoever watches. Nobody waits for that.
    fn record(&self, step: &ProcessStep) {
        let text = |id: &[u8]| Id::from_slice(id).map_or(serde_json::Value::Null, |id| id.to_string().into());
        let process = Id::from_slice(&step.id).unwrap_or_default();
        let pipeline = Id::from_slice(&step.pipeline).ok().and_then(|id| {
            let name = |pipeline: &Arc<rollbook_core::machine::xbus::state::Pipeline>| {
                json!({"name": pipeline.row.name, "version": pipeline.row.version})
            };
            self.client().look(|xbus| xbus.pipeline(id).map(name))
        });
        let payload = json!({
            "process": process.to_string(),
            "status": status_word(step.status()),
            "state": step.state,
            "pipeline": pipeline,
            "emitter": text(&step.emitter),
            "envelope": text(&step.envelope),
            "errors": step.errors.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
        });
        let subject = format!("{}.process.{process}", Namespace::XBUS);
        let once = format!("p-{process}-{}", status_word(step.status()));
        let Ok(frame) = frame(&subject, &once, payload.to_string().as_bytes()) else { return };
        let proposer = self.client().bus().proposer().clone();
        // A publish whose answer nobody awaits would be given up. Replays run outside of the threads of actors.
        tokio::spawn(async move {
            if let Err(refusal) = proposer.publish(frame).await {
                tracing::debug!(%refusal, %process, "the status of a process is not in the book");
            }
        });
    }
}

/// The word for the status of a process.
#[must_use]
pub const fn status_word(status: ProcessStatus) -> &'static str {
    match status {
        ProcessStatus::NoStatus => "unknown",
        ProcessStatus::Initial => "initial",
        ProcessStatus::Running => "running",
        ProcessStatus::Paused => "paused",
        ProcessStatus::Done => "done",
        ProcessStatus::Error => "error",
    }
}

/// The publish of an event of the namespace of Xbus, under an id of its own.
fn frame(subject: &str, id: &str, payload: &[u8]) -> Result<Bytes, Fault> {
    let mut frame = Vec::with_capacity(payload.len().saturating_add(256));
    begin_publish(&mut frame, Namespace::XBUS)?;
    let created_at = clock::timestamp();
    let event = Event { subject, id, created_at, payload: Some(payload), ..Event::default() };
    event.encode(&mut frame).map_err(|error| Fault::bad(error.to_string()))?;
    finish_publish(&mut frame, 0, FLAG_INTERNAL | FLAG_KEYED, 1)?;
    Ok(frame.into())
}
