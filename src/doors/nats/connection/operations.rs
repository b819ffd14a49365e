//! What a client may ask for.

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use actix::prelude::Context;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;

use super::{Client, Connection, Manners, Stage, Subscription};
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::live::filter::{LiveFilter, LiveSubject};
use crate::bus::live::message::{LiveMessage, LiveSink};
use crate::doors::nats::jetstream;
use crate::doors::nats::outbox::Outbox;
use crate::doors::nats::wire::encode;
use crate::doors::nats::wire::error::ProtocolError;
use crate::doors::nats::wire::operation::{ClientOp, Publish, Subscribe, Unsubscribe};
use crate::doors::nats::wire::subject::queue_name;

/// The refusal of a subscription.
pub(super) fn denied(subject: &str, queue: &str) -> ProtocolError {
    let (subject, queue) = (ByteString::from(subject), ByteString::from(queue));
    match queue.is_empty() {
        true => ProtocolError::SubscriptionDenied { subject },
        false => ProtocolError::QueueSubscriptionDenied { subject, queue },
    }
}

impl Connection {
    /// Handles one operation of the client.
    pub(super) fn operation(&mut self, operation: ClientOp, ctx: &mut Context<Self>, task: &mut Task<'_>) {
        match operation {
            ClientOp::Connect(json) => return self.connect(&json, ctx),
            _ if matches!(self.stage, Stage::New) => self.admit_without_connect(ctx),
            _ => {}
        }
        let Stage::Open(_) = &self.stage else { return };
        let done = match operation {
            ClientOp::Ping => return self.say(encode::pong, ctx),
            ClientOp::Pong => {
                self.pings = 0;
                return;
            }
            ClientOp::Publish(publish) => self.publish(publish, task),
            ClientOp::Subscribe(subscribe) => self.subscribe(subscribe),
            ClientOp::Unsubscribe(unsubscribe) => {
                self.unsubscribe(unsubscribe);
                Ok(())
            }
            ClientOp::Connect(_) => return,
        };
        match done {
            Ok(()) if self.manners.verbose => self.say(encode::ok, ctx),
            Ok(()) => {}
            Err(error) => self.refuse(&error, ctx),
        }
    }

    fn connect(&mut self, json: &Bytes, ctx: &mut Context<Self>) {
        // What a later CONNECT leaves out stays as an earlier one said, as with nats-server.
        let mut connect = self.connect.clone();
        if let Err(error) = connect.update(json).and_then(|()| connect.check()) {
            return self.refuse(&error, ctx);
        }
        match &mut self.stage {
            Stage::New => self.begin_admission(connect, ctx),
            // Who the client is was decided; how it wants to talk may change.
            Stage::Open(client) => {
                self.manners = Manners::from(&connect);
                self.headers = connect.headers;
                self.connect = connect;
                client.live.set_except((!self.manners.echo).then_some(self.number));
                self.outbox.set_headers(self.headers);
                if self.manners.verbose {
                    self.say(encode::ok, ctx);
                }
            }
            Stage::Admitting(_) | Stage::Ending => {}
        }
    }

    /// Publishes a message: into the book, or to whoever listens now.
    fn publish(&mut self, publish: Publish, task: &mut Task<'_>) -> Result<(), ProtocolError> {
        let text = ByteString::try_from(publish.subject).map_err(|_| ProtocolError::InvalidPublishSubject)?;
        let subject = LiveSubject::parse(text).map_err(|_| ProtocolError::InvalidPublishSubject)?;
        let reply = match publish.reply {
            Some(reply) => ByteString::try_from(reply).map_err(|_| ProtocolError::InvalidPublishSubject)?,
            None => ByteString::new(),
        };
        let headers = publish.headers.unwrap_or_default();
        let message = LiveMessage { subject: subject.text().clone(), reply, headers, payload: publish.payload };
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        if let Some(asked) = jetstream::asked(subject.as_str()) {
            jetstream::answer(&mut client.live, asked, &message);
            return Ok(());
        }
        let state = self.context.services.bus.node().state();
        let first = subject.first_token();
        if state.has_namespace(first) && (self.context.settings.records(first) || first.starts_with('_')) {
            client.record(&message, task);
            return Ok(());
        }
        match client.live.publish(&subject, &message) {
            Ok(false) if self.manners.no_responders && !message.reply.is_empty() => {
                client.tell_no_responders(&self.outbox, &message);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(refusal(&fault, &subject)),
        }
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), ProtocolError> {
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        if client.subscriptions.contains_key(&subscribe.sid) {
            return Ok(());
        }
        if client.subscriptions.len() >= self.context.settings.subscriptions_max {
            return Err(ProtocolError::TooManySubscriptions);
        }
        // Copies: what stays must not hold the buffer of the read.
        let text = std::str::from_utf8(&subscribe.subject).map_err(|_| ProtocolError::InvalidSubject)?;
        let filter = LiveFilter::parse(text.into()).map_err(|_| ProtocolError::InvalidSubject)?;
        let queue: Box<str> = match subscribe.queue {
            Some(queue) => Box::from(&*queue_name(queue)?),
            None => Box::default(),
        };
        let (sid, number) = (Bytes::copy_from_slice(&subscribe.sid), self.next_subscription);
        self.next_subscription = number.wrapping_add(1);
        self.context.events.prepare(&filter);
        self.outbox.open(number, sid.clone());
        let sink: Arc<dyn LiveSink> = Arc::<Outbox>::clone(&self.outbox);
        match client.live.subscribe(filter.clone(), &queue, (sink, number)) {
            Ok(live) => {
                client.subscriptions.insert(sid, Subscription { number, filter, queue, _live: live });
                Ok(())
            }
            Err(_) => {
                self.outbox.close(number);
                Err(denied(filter.as_str(), &queue))
            }
        }
    }

    fn unsubscribe(&mut self, Unsubscribe { sid, max }: Unsubscribe) {
        let Stage::Open(client) = &mut self.stage else { return };
        let Some(subscription) = client.subscriptions.get(&sid) else { return };
        let ended = max.is_none_or(|max| self.outbox.limit(subscription.number, max.get().into()));
        if ended && let Some(subscription) = client.subscriptions.remove(&sid) {
            self.outbox.close(subscription.number);
        }
    }

    /// Goes on with what waits for others: the admission, and messages on their way into the book. Returns whether
    /// something has ended.
    pub(super) fn progress(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) -> bool {
        if let Stage::Admitting(admission) = &mut self.stage {
            let Poll::Ready(admitted) = admission.poll_unpin(task) else { return false };
            self.admitted(admitted, ctx);
            return true;
        }
        let Stage::Open(client) = &mut self.stage else { return false };
        let mut moved = false;
        while let Poll::Ready(Some(outcome)) = client.recorded.poll_next_unpin(task) {
            client.acknowledge(outcome);
            moved = true;
        }
        for number in self.outbox.take_ended() {
            client.subscriptions.retain(|_, subscription| subscription.number != number);
            self.outbox.close(number);
        }
        moved
    }

    /// Wakes those who have got messages.
    pub(super) fn flush(&mut self) {
        if let Stage::Open(client) = &mut self.stage {
            client.live.flush();
        }
    }
}

/// How a client hears that its message is not passed on.
fn refusal(fault: &Fault, subject: &LiveSubject) -> ProtocolError {
    match fault.kind {
        FaultKind::Overloaded => ProtocolError::PublishRateExceeded,
        _ => ProtocolError::PublishDenied { subject: ByteString::from(subject.as_str()) },
    }
}

impl Client {
    /// Nobody was there to get a message that wants an answer: a subscription of the client on the reply subject, which is
    /// in no queue group, hears so.
    fn tell_no_responders(&self, outbox: &Outbox, message: &LiveMessage) {
        let own = self.subscriptions.values().find(|own| own.queue.is_empty() && own.filter.matches(&message.reply));
        if let Some(subscription) = own {
            outbox.no_responders(subscription.number, message.reply.as_bytes(), message.subject.as_bytes());
        }
    }
}
