//! What clients are told of processes, envelopes and jobs, whoever of them listens.

use std::sync::Arc;

use bytestring::ByteString;
use rollbook_core::machine::Machine;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::done::{EnvelopeStep, ProcessStep, XbusDone};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::row::ProcessStatus;

use super::proto::job::SurveyRequest;
use super::proto::log::{LogMessage, Timestamp};
use super::proto::process::{
    CoreEvent, EmitterEnvelopeState, EmitterProcess, EnvelopeEvent, LaterEnvelopeState, Process, ProcessNodeReadyEvent,
};
use super::service::rows;
use super::subject::PREFIX;
use crate::bus::handle::Bus;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::OwnRoutes;
use crate::bus::xbus::flow::{ActorNews, XbusListener};
use crate::bus::xbus::presence;

/// Publishes notices on live subjects.
#[derive(Debug)]
pub struct Notices {
    bus: Bus,
}

impl Notices {
    /// Notices of this bus.
    #[must_use]
    pub fn new(bus: Bus) -> Arc<Self> {
        Arc::new(Self { bus })
    }

    fn publish(&self, subject: String, message: &impl prost::Message, wakes: &mut Wakes) {
        let Ok(subject) = LiveSubject::parse(ByteString::from(subject)) else { return };
        let payload = message.encode_to_vec().into();
        let message = LiveMessage { subject: subject.text().clone(), payload, ..LiveMessage::default() };
        self.bus.live_subjects().publish(&subject, &message, (&mut OwnRoutes::default(), None), wakes);
    }

    fn step(&self, step: &ProcessStep, wakes: &mut Wakes) {
        for job in &step.ready {
            let (process_id, actor_id, node_id) = (step.id.clone(), job.actor.clone(), job.node.clone());
            let event = ProcessNodeReadyEvent { process_id, actor_id, node_id };
            self.publish(format!("{PREFIX}core.events.processnodeready"), &event, wakes);
        }
        let Some(was) = step.was else { return };
        let (Ok(emitter), Ok(envelope)) = (Id::from_slice(&step.emitter), Id::from_slice(&step.envelope)) else {
            return;
        };
        let errors: Vec<LogMessage> = step.errors.iter().map(rows::message).collect();
        let process = EmitterProcess { id: step.id.clone(), status: step.status, errors: errors.clone() };
        let state = EmitterEnvelopeState { status: step.status, process_list: vec![process] };
        self.publish(format!("{PREFIX}processstate.{emitter}.envelope.{envelope}"), &state, wakes);
        let millis = self.bus.node().state().with_machine(Machine::millis);
        let later = LaterEnvelopeState {
            process_id: step.id.clone(),
            status: step.status,
            errors,
            process_created_at: Some(Timestamp::from_millis(millis)),
        };
        self.publish(format!("{PREFIX}processstate.envelopestates.{emitter}.{envelope}"), &later, wakes);
        let process = Process {
            id: step.id.clone(),
            trigger_emitter_id: step.emitter.clone(),
            trigger_envelope_id: step.envelope.clone(),
            pipeline_id: step.pipeline.clone(),
            status: step.status,
            state: step.state.clone(),
        };
        let name = match ProcessStatus::try_from(was) {
            Ok(ProcessStatus::Initial) => "created",
            _ => "status",
        };
        let event = CoreEvent {
            name: name.to_owned(),
            process: Some(process),
            process_old_status: was,
            ..CoreEvent::default()
        };
        self.publish(format!("{PREFIX}core.events.process"), &event, wakes);
    }

    fn envelope(&self, step: &EnvelopeStep, wakes: &mut Wakes) {
        let (envelope_id, status, new_data) = (step.id.clone(), step.status, step.new_data);
        self.publish(format!("{PREFIX}core.events.envelope"), &EnvelopeEvent { envelope_id, status, new_data }, wakes);
    }
}

impl Notices {
    /// Asks all actors to say that they are ready. Programs that do not know the question stay silent, which means nothing.
    pub fn survey(&self) {
        let mut wakes = Wakes::default();
        let request = SurveyRequest { online_status: true };
        self.publish(format!("{PREFIX}sentinel.survey"), &request, &mut wakes);
        wakes.wake();
    }
}

impl XbusListener for Notices {
    fn actor(&self, actor: &ActorRow, news: ActorNews) {
        let is_online = || self.bus.node().state().with_machine(|machine| presence::is_online(machine, actor));
        let (name, online) = match news {
            ActorNews::Online => ("online", true),
            ActorNews::Offline => ("offline", false),
            ActorNews::Changed => ("changed", is_online()),
        };
        let actor = Some(rows::actor(actor, online));
        let event = CoreEvent { name: name.to_owned(), actor, ..CoreEvent::default() };
        let mut wakes = Wakes::default();
        self.publish(format!("{PREFIX}core.events.actor"), &event, &mut wakes);
        wakes.wake();
    }

    fn happened(&self, done: &XbusDone) {
        if done.steps.is_empty() && done.envelopes.is_empty() {
            return;
        }
        let mut wakes = Wakes::default();
        done.steps.iter().for_each(|step| self.step(step, &mut wakes));
        done.envelopes.iter().for_each(|step| self.envelope(step, &mut wakes));
        wakes.wake();
    }
}
