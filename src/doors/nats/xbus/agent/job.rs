//! One job over nrpc: a request whose reply is a stream of states.

use std::time::{Duration, Instant};

use actix::prelude::{Message, Recipient};
use bytes::Bytes;
use prost::Message as _;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::process::event::{Event, JobEnd, JobName};
use rollbook_core::xbus::process::row::JobState;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::link::Link;
use super::{end, inputs};
use crate::base::clock;
use crate::bus::xbus::jobs::engine::{Engine, job_name};
use crate::bus::xbus::jobs::give_back::give_back;
use crate::bus::xbus::jobs::workers::Deliver;
use crate::doors::nats::xbus::proto::envelope::ProcessingContext;
use crate::doors::nats::xbus::proto::job::{ActorProcessRequest, ActorProcessingState, JobStatus};
use crate::doors::nats::xbus::proto::log::LogMessage;
use crate::doors::nats::xbus::proto::nrpc::{ErrorType, HEARTBEAT_SUFFIX, HeartBeat, Reply};
use crate::doors::nats::xbus::subject::PREFIX;

/// How often the client hears that the server is still there.
const BEAT: Duration = Duration::from_secs(1);
/// An actor that says nothing for so long is lost. Longer than nrpc asks of servers: the Python client says nothing while it
/// computes the checksum of a big envelope, and would get its job again for ever. A connection that breaks is noticed at once.
const SILENCE: Duration = Duration::from_secs(30);

/// How the work of this node on a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The job ended, or its actor will say so by itself.
    Done,
    /// The actor is too busy.
    Busy,
    /// The job ended, and the actor takes no more.
    Leaving,
    /// The actor is lost, and the job given back.
    Lost,
}

/// What the stream of a job has said so far.
#[derive(Debug, Default)]
struct Heard {
    status: Option<JobStatus>,
    messages: Vec<LogLine>,
    leaving: bool,
    /// The rules know that the actor works.
    told: bool,
}

/// The actor says that it is too busy, and gets no jobs for a while.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Busy;

/// What a reply means for the job.
enum Step {
    Goes,
    Ends,
    Fails(String),
    Busy,
}

/// Messages as the rules keep them.
pub(super) fn lines(messages: Vec<LogMessage>) -> Vec<LogLine> {
    let line = |message: LogMessage| {
        let millis = message.time.map_or(0, |time| time.millis());
        LogLine { millis, level: message.level, text: message.text }
    };
    messages.into_iter().map(line).collect()
}

impl Heard {
    fn take(&mut self, payload: &[u8]) -> Step {
        match Reply::read(payload) {
            Ok(Reply::KeepAlive) => Step::Goes,
            Ok(Reply::End(_)) => Step::Ends,
            Ok(Reply::Error(error)) if error.error() == ErrorType::ServerTooBusy => Step::Busy,
            Ok(Reply::Error(error)) => Step::Fails(error.message),
            Ok(Reply::Message(message)) => match ActorProcessingState::decode(message) {
                Ok(state) => {
                    self.status = Some(state.status());
                    self.leaving |= state.actor_leaving;
                    self.messages.extend(lines(state.messages));
                    // The newest messages of the job are kept.
                    self.messages = rollbook_core::xbus::log::bounded(std::mem::take(&mut self.messages));
                    Step::Goes
                }
                Err(error) => Step::Fails(format!("the actor answered what is no state: {error}")),
            },
            Err(error) => Step::Fails(format!("the actor answered what is no reply: {error}")),
        }
    }
}

fn error_line(text: String) -> LogLine {
    let mut line = LogLine { millis: clock::millis(), text, ..LogLine::default() };
    line.set_level(LogLevel::Error);
    line
}

/// Brings a job to its actor, and proposes how it ends.
pub(super) async fn run(
    engine: Engine,
    link: Link,
    (deliver, inbox): (Deliver, String),
    mut states: mpsc::Receiver<Bytes>,
    busy: Recipient<Busy>,
) -> Outcome {
    let Deliver { process, job, guard } = deliver;
    let (name, actor) = (job_name(&guard), guard.key().2);
    let finish = |success: bool, messages: Vec<LogLine>| Event::End(JobEnd { job: name.clone(), success, messages });
    let inputs = match inputs::of(engine.flow().client(), &job).await {
        Ok(inputs) => inputs,
        Err(fault) => {
            tracing::error!(%fault, %process, node = job.node, "the envelopes of a job cannot be read");
            end::propose(&engine, process, finish(false, vec![error_line(fault.text.into_owned())])).await;
            return Outcome::Done;
        }
    };
    let context = Some(ProcessingContext { process_id: process.to_vec(), node_id: job.node.clone() });
    let request = ActorProcessRequest { context, inputs }.encode_to_vec();
    let subject = format!("{PREFIX}actoragent.{actor}.process");
    if !link.deliver(&subject, &inbox, request.into()) {
        give_back(&engine, process, actor).await;
        return Outcome::Lost;
    }
    let (beats, mut heard) = (format!("{inbox}{HEARTBEAT_SUFFIX}"), Heard::default());
    let beat = |last: bool| link.deliver(&beats, "", HeartBeat { lastbeat: last }.encode_to_vec().into());
    let mut last_heard = clock::now();
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let step = loop {
        tokio::select! {
            payload = states.recv() => {
                let Some(payload) = payload else { break None };
                last_heard = clock::now();
                match heard.take(&payload) {
                    Step::Goes => {}
                    other => break Some(other),
                }
            }
            _ = tick.tick() => {
                beat(false);
                if is_silent(last_heard) {
                    break None;
                }
                if !heard.told && heard.status.is_some() && clock::now().saturating_duration_since(last_heard) < BEAT {
                    heard.told = end::propose(&engine, process, Event::Run(name.clone())).await;
                }
            }
        }
    };
    let messages = std::mem::take(&mut heard.messages);
    let ended = match (step, heard.status) {
        (Some(Step::Fails(text)), _) => end::propose(&engine, process, finish(false, vec![error_line(text)])).await,
        (Some(Step::Busy), _) => {
            // The actor pauses first: otherwise the job comes back to it at once.
            if busy.send(Busy).await.is_err() {
                tracing::debug!(%process, "an actor that is too busy has gone");
            }
            give_back(&engine, process, actor).await;
            drop(guard);
            return Outcome::Busy;
        }
        // A final state counts also when the end of the stream is lost.
        // A worker whose outputs are all sent has ended by that.
        (_, Some(JobStatus::Success)) if has_ended_well(&engine, process, &name) => true,
        (_, Some(JobStatus::Success)) => end::propose(&engine, process, finish(true, messages)).await,
        (_, Some(JobStatus::Error)) => end::propose(&engine, process, finish(false, messages)).await,
        (Some(_), _) => end::propose(&engine, process, Event::Detach(name.clone())).await,
        (None, _) => {
            tracing::info!(%process, %actor, "an actor of Xbus says nothing any more; its job is given back");
            beat(true);
            give_back(&engine, process, actor).await;
            return Outcome::Lost;
        }
    };
    match (ended, heard.leaving) {
        (_, true) => Outcome::Leaving,
        (true, false) => Outcome::Done,
        (false, false) => Outcome::Lost,
    }
}

/// Whether this node knows that a job has ended well.
fn has_ended_well(engine: &Engine, process: Id, name: &JobName) -> bool {
    engine.flow().client().look(|xbus| {
        let Some(row) = xbus.open_process(process) else { return false };
        let pipeline = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id));
        let number = pipeline.and_then(|pipeline| pipeline.graph.as_ref()?.find(&name.node));
        let jobs = number.and_then(|number| row.nodes.get(number)).map_or(&[][..], |node| &node.jobs);
        jobs.iter().any(|job| job.actor == name.actor && job.state() == JobState::Success)
    })
}

fn is_silent(last_heard: Instant) -> bool {
    clock::now().saturating_duration_since(last_heard) >= SILENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::nats::xbus::proto::nrpc::{self, KEEP_ALIVE};

    #[test]
    fn the_last_state_of_a_stream_counts() {
        let mut heard = Heard::default();
        let state = |status: JobStatus| {
            let mut state = ActorProcessingState::default();
            state.set_status(status);
            state.encode_to_vec()
        };
        assert!(matches!(heard.take(&KEEP_ALIVE), Step::Goes));
        assert!(matches!(heard.take(&state(JobStatus::Running)), Step::Goes));
        assert!(matches!(heard.take(&state(JobStatus::Success)), Step::Goes));
        assert!(matches!(heard.take(&nrpc::end_of_stream(2)), Step::Ends));
        assert_eq!(heard.status, Some(JobStatus::Success));
        assert!(matches!(heard.take(&nrpc::error(ErrorType::ServerTooBusy, "later")), Step::Busy));
        assert!(
            matches!(heard.take(&nrpc::error(ErrorType::Server, "disk full")), Step::Fails(text) if text == "disk full")
        );
        assert!(matches!(heard.take(&[0xff]), Step::Fails(_)));
    }
}
