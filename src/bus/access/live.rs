//! What a client of a door does with live subjects: publish and subscribe, with the same checks as for the book.

use std::sync::Arc;

use rollbook_core::error::Refusal;

use super::Access;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::live::filter::{LiveFilter, LiveSubject};
use crate::bus::live::message::{LiveMessage, LiveSink};
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubscription, OwnRoutes};

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
    /// The client may not, publishes too much, or the node stops.
    pub fn publish(&mut self, subject: &LiveSubject, message: &LiveMessage) -> Result<bool, Fault> {
        let identity = self.access.identity();
        identity.check_live_publish(subject.as_str())?;
        let bytes = u64::try_from(message.bytes()).unwrap_or(u64::MAX);
        identity.usage().publish((1, bytes), || 0, clock::now())?;
        Ok(self.send(subject, message))
    }

    /// Gives a message of the node itself to all who want it, such as an acknowledgement.
    pub fn send(&mut self, subject: &LiveSubject, message: &LiveMessage) -> bool {
        self.published = self.published.saturating_add(1);
        let (subjects, own) = (self.access.bus().live_subjects(), (&mut self.routes, self.except));
        subjects.publish(subject, message, own, &mut self.wakes)
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
    /// The client may not, or the node stops.
    pub fn subscribe(
        &self,
        filter: LiveFilter,
        group: &str,
        (sink, subscription): (Arc<dyn LiveSink>, u64),
    ) -> Result<LiveSubscription, Fault> {
        let identity = self.access.identity();
        self.access.staying().map_err(|refusal: Refusal| Fault::from(refusal))?;
        identity.check_live_subscription(filter.as_str())?;
        let subjects = self.access.bus().live_subjects();
        Ok(subjects.subscribe(filter, group, (sink, subscription), identity.is_open()))
    }
}
