//! What a client may ask for.

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use actix::prelude::Context;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rollbook_core::level::FeatureLevel;
use rollbook_core::subjects::subject::Namespace;

use super::calls;
use super::{Client, Connection, SUBSCRIPTION_BYTES_MAX, Stage, Subscription};
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
use crate::doors::nats::xbus;
use crate::doors::nats::xbus::version::is_compatible;

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
        // nats-server says that it has an operation before it does it.
        let position = if self.connect.verbose { self.outbox.position() } else { 0 };
        let done = match operation {
            ClientOp::Ping => {
                self.say(encode::pong, ctx);
                return self.follow_nodes(ctx);
            }
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
            Ok(()) if self.connect.verbose => {
                if !self.outbox.say_at(position, encode::ok) {
                    self.end_slow(ctx);
                }
            }
            Ok(()) => {}
            Err(error) => self.refuse(&error, ctx),
        }
    }

    /// Rights have changed: subscriptions that the client may not have any more end.
    pub(super) fn check_rights(&mut self, ctx: &mut Context<Self>) {
        let Stage::Open(client) = &mut self.stage else { return };
        // First: a change from now on is told anew.
        client.handle.client().takes_rights_change();
        let identity = Arc::clone(client.live.access().identity());
        let lost: Vec<Bytes> = client
            .subscriptions
            .iter()
            .filter(|(_, subscription)| !identity.may_follow_live(subscription.filter.as_str()))
            .map(|(sid, _)| sid.clone())
            .collect();
        for sid in lost {
            let Some(subscription) = self.remove(&sid) else { continue };
            let error = denied(subscription.filter.as_str(), &subscription.queue);
            self.refuse(&error, ctx);
        }
    }

    fn connect(&mut self, json: &Bytes, ctx: &mut Context<Self>) {
        // What a later CONNECT leaves out stays as an earlier one said, as with nats-server.
        let mut connect = self.connect.clone();
        if let Err(error) = connect.update(json).and_then(|()| connect.check()) {
            return self.refuse(&error, ctx);
        }
        match &mut self.stage {
            Stage::New if !is_compatible(connect.name.as_deref(), self.context.settings.xbus_strict) => {
                self.refuse(&ProtocolError::IncompatibleXbusVersion, ctx);
            }
            Stage::New => self.begin_admission(connect, ctx),
            // Who the client is was decided; how it wants to talk may change.
            Stage::Open(client) if connect.shows_credentials() && client.live.access().identity().is_nobody() => {
                self.refuse(&ProtocolError::AuthorizationViolation, ctx);
            }
            Stage::Open(client) => {
                connect.forget_credentials();
                self.connect = connect;
                client.live.set_except((!self.connect.echo).then_some(self.number));
                self.outbox.set_headers(self.connect.headers);
                if self.connect.verbose {
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
        if self.job_message(&message.subject, &message.payload) {
            return Ok(());
        }
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        if let Some(asked) = jetstream::asked(subject.as_str()) {
            return match client.live.count(message.bytes()) {
                Ok(()) => {
                    jetstream::answer(&mut client.live, asked, &message);
                    Ok(())
                }
                Err(fault) => Err(refusal(&fault, &subject)),
            };
        }
        if let Some(asked) = calls::asked(subject.as_str()) {
            self.call(asked, &message);
            return Ok(());
        }
        if let Some(called) = xbus::subject::parse(subject.as_str()) {
            return self.call_xbus(called, &message, task).map_err(|fault| refusal(&fault, &subject));
        }
        let bus = &self.context.services.bus;
        let (state, first) = (bus.node().state(), subject.first_token());
        let is_recorded = || self.context.settings.records(first) || first.starts_with('_');
        // What clients of Xbus say to each other is live; its namespace is written by the server.
        let is_xbus = first == Namespace::XBUS && bus.level() >= FeatureLevel::XBUS;
        if first == Namespace::INBOX || state.has_namespace(first) && is_recorded() && !is_xbus {
            return client.record(&message, task);
        }
        match client.live.publish(&subject, &message) {
            Ok(false) if self.connect.no_responders && !message.reply.is_empty() => {
                client.tell_no_responders((self.number, &self.outbox), &message);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(refusal(&fault, &subject)),
        }
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), ProtocolError> {
        self.remove_ended();
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        if client.subscriptions.contains_key(&subscribe.sid) {
            return Ok(());
        }
        // Copies: what stays must not hold the buffer of the read.
        let text = std::str::from_utf8(&subscribe.subject).map_err(|_| ProtocolError::InvalidSubject)?;
        let filter = LiveFilter::parse(text.into()).map_err(|_| ProtocolError::InvalidSubject)?;
        let queue: Box<str> = match subscribe.queue {
            Some(queue) => Box::from(&*queue_name(queue)?),
            None => Box::default(),
        };
        let bytes = self.subscription_bytes.saturating_add(Subscription::bytes(&subscribe.sid, &filter, &queue));
        if client.subscriptions.len() >= self.context.settings.subscriptions_max || bytes > SUBSCRIPTION_BYTES_MAX {
            return Err(ProtocolError::TooManySubscriptions);
        }
        let (sid, number) = (Bytes::copy_from_slice(&subscribe.sid), self.next_subscription);
        self.next_subscription = number.wrapping_add(1);
        self.outbox.open(number, sid.clone());
        let sink: Arc<dyn LiveSink> = Arc::<Outbox>::clone(&self.outbox);
        match client.live.subscribe(filter.clone(), &queue, (sink, number)) {
            Ok(live) => {
                self.context.events.prepare(&filter);
                self.subscription_bytes = bytes;
                client.subscriptions.insert(sid, Subscription { number, filter: filter.clone(), queue, _live: live });
                self.xbus_subscribed(&filter);
                self.subscription_begins(number, filter.as_str());
                Ok(())
            }
            Err(fault) => {
                self.outbox.close(number);
                Err(match fault.kind {
                    FaultKind::Overloaded => ProtocolError::TooManySubscriptions,
                    _ => denied(filter.as_str(), &queue),
                })
            }
        }
    }

    fn unsubscribe(&mut self, Unsubscribe { sid, max }: Unsubscribe) {
        let Stage::Open(client) = &self.stage else { return };
        let Some(subscription) = client.subscriptions.get(&sid) else { return };
        if max.is_none_or(|max| self.outbox.limit(subscription.number, max.get().into())) {
            drop(self.remove(&sid));
        }
    }

    /// Ends a subscription.
    pub(super) fn remove(&mut self, sid: &Bytes) -> Option<Subscription> {
        let Stage::Open(client) = &mut self.stage else { return None };
        let (sid, subscription) = client.subscriptions.remove_entry(sid)?;
        let bytes = Subscription::bytes(&sid, &subscription.filter, &subscription.queue);
        self.subscription_bytes = self.subscription_bytes.saturating_sub(bytes);
        self.outbox.close(subscription.number);
        self.xbus_unsubscribed(&subscription.filter);
        self.subscription_ends(subscription.number, subscription.filter.as_str());
        Some(subscription)
    }

    /// Ends the subscriptions that have had as many messages as they wanted.
    fn remove_ended(&mut self) {
        for sid in self.outbox.take_ended() {
            drop(self.remove(&sid));
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
        let (mut moved, mut denied) = (client.calls.progress(task), Vec::new());
        while let Poll::Ready(Some(outcome)) = client.recorded.poll_next_unpin(task) {
            denied.extend(client.acknowledge(outcome).err());
            moved = true;
        }
        denied.iter().for_each(|error| self.refuse(error, ctx));
        self.remove_ended();
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
pub(super) fn refusal(fault: &Fault, subject: &LiveSubject) -> ProtocolError {
    match fault.kind {
        FaultKind::Overloaded => ProtocolError::PublishRateExceeded,
        _ => ProtocolError::PublishDenied { subject: ByteString::from(subject.as_str()) },
    }
}

impl Client {
    /// Nobody was there to get a message that wants an answer: a subscription of the client on the reply subject, which is
    /// in no queue group, hears so.
    fn tell_no_responders(&self, (client, outbox): (u64, &Outbox), message: &LiveMessage) {
        let own = LiveSubject::parse(message.reply.clone()).ok();
        if let Some(number) = own.and_then(|reply| self.live.own_subscription(client, &reply)) {
            outbox.no_responders(number, message.reply.as_bytes(), message.subject.as_bytes());
        }
    }
}
