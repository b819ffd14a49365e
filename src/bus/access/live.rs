//! What a client of a door does with live subjects: publish and subscribe, with the same checks as for the book.

use std::sync::Arc;

use bytes::Bytes;

use super::Access;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::docks;
use crate::bus::error::Fault;
use crate::bus::live::filter::{LiveFilter, LiveSubject};
use crate::bus::live::message::{LiveMessage, LiveSink};
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubscription, OwnRoutes};

/// Whether only nodes publish under a subject: whoever follows a process trusts that its dock has said what comes.
fn is_of_nodes(subject: &LiveSubject) -> bool {
    subject.first_token() == docks::output::FIRST_TOKEN
}

/// The live subjects, for one client of a door.
#[derive(Debug)]
pub struct LiveClient {
    access: Access,
    /// The client that does not get its own messages, if it does not want them.
    except: Option<u64>,
    routes: OwnRoutes,
    /// Connections that have got messages and are not awake yet.
    wakes: Wakes,
    /// Messages that were published and not counted yet.
    published: u64,
}

impl LiveClient {
    /// The live subjects for a client. `except`: its serial number, if it does not want its own messages.
    #[must_use]
    pub fn new(access: Access, except: Option<u64>) -> Self {
        Self { access, except, routes: OwnRoutes::default(), wakes: Wakes::default(), published: 0 }
    }

    /// From now on the client with this serial number does not get its own messages; `None`: it does.
    pub const fn set_except(&mut self, except: Option<u64>) {
        self.except = except;
    }

    /// The book, for the same client.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Gives a message to all who want it. Connections are woken by [`LiveClient::flush`]. Returns whether anybody wanted
    /// the message.
    ///
    /// # Errors
    /// The client may not, or publishes too much.
    pub fn publish(&mut self, subject: &LiveSubject, message: &LiveMessage) -> Result<bool, Fault> {
        let identity = self.access.identity();
        if is_of_nodes(subject) {
            return Err(Fault::new(FaultKind::Forbidden, "only nodes publish what processes say"));
        }
        identity.check_live_publish(subject.as_str())?;
        let bytes = u64::try_from(message.bytes()).unwrap_or(u64::MAX);
        identity.usage().publish((1, bytes), || 0, clock::now)?;
        Ok(self.send(subject, message))
    }

    fn send(&mut self, subject: &LiveSubject, message: &LiveMessage) -> bool {
        self.published = self.published.saturating_add(1);
        let (subjects, own) = (self.access.bus().live_subjects(), (&mut self.routes, self.except));
        subjects.publish(subject, message, own, &mut self.wakes)
    }

    /// Counts a request to the node itself against the limits of the client.
    ///
    /// # Errors
    /// The client asks too much.
    pub fn count(&self, bytes: usize) -> Result<(), Fault> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.access.identity().usage().publish((1, bytes), || 0, clock::now)
    }

    /// Gives an answer of the node itself, such as an acknowledgement, to whoever listens on the subject that the client
    /// has named. Where the client may not publish, and on subjects of the book, there is no answer.
    pub fn answer(&mut self, reply: &LiveSubject, payload: Bytes) {
        let state = self.access.bus().node().state();
        let allowed = self.access.identity().may_publish_live(reply.as_str());
        if allowed && !is_of_nodes(reply) && !state.has_namespace(reply.first_token()) {
            let message = LiveMessage { subject: reply.text().clone(), payload, ..LiveMessage::default() };
            self.send(reply, &message);
        }
    }

    /// The number of the subscription of this client, in no queue group, that wants a subject.
    #[must_use]
    pub fn own_subscription(&self, client: u64, subject: &LiveSubject) -> Option<u64> {
        self.access.bus().live_subjects().subscription_of(client, subject)
    }

    /// Wakes the connections that have got messages. To be called at the end of what came at once.
    pub fn flush(&mut self) {
        self.wakes.wake();
        let published = std::mem::take(&mut self.published);
        if published > 0 {
            self.access.metrics().live_messages.inc_by(published);
        }
    }

    /// Subscribes to live subjects. `group` is the name of a queue group, or empty. `subscription` is the number by which
    /// the sink knows the subscription.
    ///
    /// # Errors
    /// The client may not, or the node has too many subscriptions.
    pub fn subscribe(
        &self,
        filter: LiveFilter,
        group: &str,
        (sink, subscription): (Arc<dyn LiveSink>, u64),
    ) -> Result<LiveSubscription, Fault> {
        let identity = self.access.identity();
        identity.check_live_subscription(filter.as_str())?;
        let subjects = self.access.bus().live_subjects();
        let subscribed = subjects.subscribe(filter, group, (sink, subscription), identity.is_open());
        subscribed.map_err(|full| Fault::overloaded(full.to_string()))
    }
}
