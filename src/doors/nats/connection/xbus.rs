//! Xbus at a connection: its calls are handed to the service, and its actors have agents.

use std::sync::Arc;
use std::task::Context as Task;

use bytes::Bytes;
use rollbook_core::level::FeatureLevel;
use rollbook_core::xbus::id::Id;

use super::agents::Entry;
use super::{Connection, Stage};
use crate::base::actors::{Owned, must_tell};
use crate::bus::error::Fault;
use crate::bus::live::filter::LiveFilter;
use crate::bus::live::message::{LiveMessage, LiveSink};
use crate::doors::nats::outbox::Outbox;
use crate::doors::nats::xbus::agent::link::{self, Link};
use crate::doors::nats::xbus::agent::{Agent, JobMessage, Parts, Profile};
use crate::doors::nats::xbus::service::request::{Backlog, Caller};
use crate::doors::nats::xbus::subject::{Call, Called, deliveries};

/// Most jobs of one actor at one connection.
const JOBS_MAX: usize = 64;

impl Backlog for Outbox {
    fn waiting(&self) -> usize {
        self.waiting()
    }
}

impl Connection {
    /// Answers a call.
    ///
    /// # Errors
    /// The client may not make the call, or calls too much.
    pub(super) fn call_xbus(
        &mut self,
        called: Called,
        message: &LiveMessage,
        task: &mut Task<'_>,
    ) -> Result<(), Fault> {
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        client.live.access().identity().check_live_publish(&message.subject)?;
        client.live.count(message.bytes())?;
        match called.call {
            Call::ActorReady { actor } => self.set_ready(actor, true),
            Call::ActorLeaving { actor } => self.set_ready(actor, false),
            _ => {}
        }
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        let backlog: Arc<dyn Backlog> = Arc::<Outbox>::clone(&self.outbox);
        let caller = Caller { access: client.live.access().clone(), connection: self.number, backlog };
        client.calls.begin(self.context.xbus.answer(caller, called, message), message.bytes(), task);
        Ok(())
    }

    /// Gives what the client publishes to the job that it belongs to. Returns `false` for other subjects.
    pub(super) fn job_message(&mut self, subject: &str, payload: &Bytes) -> bool {
        let Some((_, token)) = link::job_of(subject) else { return false };
        let Stage::Open(client) = &self.stage else { return false };
        if client.agents.entries.is_empty() {
            return false;
        }
        // Copies: what waits must not hold the buffer of the read.
        let payload = Bytes::copy_from_slice(payload);
        for entry in client.agents.entries.values() {
            must_tell(entry.agent.addr(), JobMessage { token: token.to_owned(), payload: payload.clone() });
        }
        true
    }

    fn set_ready(&mut self, actor: Id, ready: bool) {
        if let Some(entry) = self.agent(actor) {
            entry.ready = ready;
            entry.tell();
        }
    }

    /// The client has subscribed to something.
    pub(super) fn xbus_subscribed(&mut self, filter: &LiveFilter) {
        let Some((actor, letters)) = deliveries(filter.as_str()) else { return };
        if let Some(entry) = self.agent(actor) {
            let count = if letters { &mut entry.letters } else { &mut entry.nrpc };
            *count = count.saturating_add(1);
            entry.tell();
        }
    }

    /// A subscription of the client has ended.
    pub(super) fn xbus_unsubscribed(&mut self, filter: &LiveFilter) {
        let Some((actor, letters)) = deliveries(filter.as_str()) else { return };
        let Stage::Open(client) = &mut self.stage else { return };
        let Some(entry) = client.agents.entries.get_mut(&actor) else { return };
        let count = if letters { &mut entry.letters } else { &mut entry.nrpc };
        *count = count.saturating_sub(1);
        if entry.nrpc == 0 && entry.letters == 0 {
            client.agents.entries.remove(&actor);
        } else {
            entry.tell();
        }
    }

    /// The agent of an actor, which is started for the first time; none for an actor that does not exist.
    fn agent(&mut self, actor: Id) -> Option<&mut Entry> {
        let Stage::Open(client) = &mut self.stage else { return None };
        let context = &self.context;
        if !client.agents.entries.contains_key(&actor) {
            let bus = &context.services.bus;
            if bus.level() < FeatureLevel::XBUS {
                return None;
            }
            let engine = context.engine.clone();
            let row = engine.flow().client().look(|xbus| xbus.actor(actor).cloned())?;
            let sink: Arc<dyn LiveSink> = Arc::<Outbox>::clone(&self.outbox);
            let parts = Parts {
                services: context.services.clone(),
                engine,
                actor: row,
                identity: Arc::clone(client.live.access().identity()),
                link: Link::new(bus.live_subjects().clone(), sink),
                address: self.peer.address.to_string(),
                jobs_max: JOBS_MAX,
            };
            let agent = Owned::start(&bus.metrics().actors, Agent::new(parts, Profile::Nrpc));
            client.agents.entries.insert(actor, Entry { agent, nrpc: 0, letters: 0, ready: false });
        }
        client.agents.entries.get_mut(&actor)
    }
}
