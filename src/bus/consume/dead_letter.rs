//! Dead letters: events that no client acknowledged. They are stored in the namespace `_dead_`, where an operator finds
//! them ([`super::letters`]), or under the subject that their subscription has named.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::entry::{FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::subjects::subject::{Namespace, Subject};

use crate::base::clock;
use crate::bus::delivery::window::GivenUp;
use crate::bus::handle::Bus;
use crate::bus::read::event_json;
use crate::bus::read::stored_event::StoredEvent;

/// Pause before a failed store is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a letter is tried to be stored when its stream has ended.
const BEYOND_MAX: Duration = Duration::from_secs(60);

/// An event that is no longer delivered.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The event.
    pub item: Arc<StoredEvent>,
    /// The stream that got the event last; `None` when that was before this node served the consumer.
    pub consumer_id: Option<String>,
    /// Name of the durable consumer, if there was one.
    pub consumer: Option<String>,
    /// Name of the group, if there was one.
    pub group: Option<String>,
    /// How often a client got the event.
    pub deliveries: u32,
    /// Why it is given up.
    pub why: GivenUp,
    /// Dedupe key of the letter: two nodes, or one node that does not know the outcome of its first try, store the
    /// letter once.
    pub once: Option<String>,
    /// The subject that the subscription has named for its dead letters; `None`: `_dead_.` and the subject of the event.
    pub to: Option<Subject>,
}

impl DeadLetter {
    /// Stores the letter and returns when it is durable. Tries again as long as the cluster refuses.
    pub async fn store(&self, bus: &Bus) {
        self.store_while(bus, async || true).await;
    }

    /// Stores the letter as [`DeadLetter::store`] does. When the caller does not wait any more, because its stream has
    /// ended, the store goes on for at most a minute: the client was told that the event is a dead letter.
    pub async fn store_beyond_the_stream(&self, bus: &Bus) {
        loop {
            let (letter, bus) = (self.clone(), bus.clone());
            let store = async move { tokio::time::timeout(BEYOND_MAX, letter.store(&bus)).await.is_ok() };
            if actix_web::rt::spawn(store).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Stores the letter while `ours` says that this node may write it, which is asked before each try. Returns `false`
    /// when the node may not write it any more and the letter is not known to be stored.
    pub async fn store_while(&self, bus: &Bus, ours: impl AsyncFn() -> bool) -> bool {
        let subject = self.item.event().subject.to_owned();
        if subject.split('.').next() == Some(Namespace::DEAD) {
            bus.metrics().dead_letters.inc();
            tracing::warn!(event = %self.item.id(), consumer_id = self.consumer_id, "a dead letter was not acknowledged; it stays where it is");
            return true;
        }
        let mut to = self.to.as_ref().map(Subject::as_str);
        while ours().await {
            let Ok(frame) = self.frame(&subject, to) else {
                tracing::error!(event = %self.item.id(), "a dead letter cannot be encoded");
                return true;
            };
            match bus.proposer().propose(frame.into()).await {
                Ok(_) => {
                    bus.metrics().dead_letters.inc();
                    return true;
                }
                // Stored before, by a try whose answer was lost or by another start.
                Err(Refusal::KeyProcessed(_)) => return true,
                // The namespace is gone. The letter must not be lost with it.
                Err(refusal @ (Refusal::NamespaceNotFound(_) | Refusal::NamespaceReserved(_))) if to.is_some() => {
                    tracing::warn!(%refusal, event = %self.item.id(), "a dead letter is stored in _dead_ instead of {to:?}");
                    to = None;
                    continue;
                }
                Err(refusal) => {
                    tracing::warn!(%refusal, event = %self.item.id(), "a dead letter is not stored yet");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        false
    }

    /// The publish of the letter, under the subject `to` or that of letters of `subject`.
    fn frame(&self, subject: &str, to: Option<&str>) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::new();
        let own = format!("{}.{subject}", Namespace::DEAD);
        let stored = to.unwrap_or(&own);
        begin_publish(&mut frame, stored.split('.').next().unwrap_or_default())?;
        let payload = self.payload();
        let event = Event {
            subject: stored,
            key: self.once.as_deref().unwrap_or_default(),
            created_at: clock::timestamp(),
            payload: Some(&payload),
            ..Event::default()
        };
        event.encode(&mut frame).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let keyed = if self.once.is_some() { FLAG_KEYED } else { 0 };
        // Only the bus writes to its own namespace; that of the subscription is there since it began.
        let of_bus = if to.is_none() { FLAG_CREATE | FLAG_INTERNAL } else { 0 };
        finish_publish(&mut frame, 0, of_bus | keyed, 1)?;
        Ok(frame)
    }

    /// The letter as JSON: the event, and who got it how often.
    fn payload(&self) -> Vec<u8> {
        let mut out = b"{\"event\":".to_vec();
        event_json::write(self.item.index(), &self.item.event(), &mut out);
        out.extend_from_slice(format!(",\"index\":{}", self.item.index()).as_bytes());
        for (name, text) in [
            ("consumer_id", self.consumer_id.as_ref()),
            ("consumer", self.consumer.as_ref()),
            ("group", self.group.as_ref()),
        ] {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            match text {
                Some(text) => event_json::string(text, &mut out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(format!(",\"deliveries\":{},\"reason\":", self.deliveries).as_bytes());
        match &self.why {
            GivenUp::Count => event_json::string("redelivery_count exceeded", &mut out),
            GivenUp::Rejected(reason) => event_json::string(reason, &mut out),
        }
        out.push(b'}');
        out
    }
}
