//! Dead letters: events that nobody acknowledged, kept where an operator finds them.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::entry::{FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::subjects::subject::Namespace;

use crate::base::clock;
use crate::bus::handle::Bus;
use crate::bus::read::event_json;
use crate::bus::read::stored_event::StoredEvent;

/// How long to wait before storing is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// An event that is given up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The event.
    pub item: Arc<StoredEvent>,
    /// The stream that it was delivered to last; `None` when that was before this node served the consumer.
    pub consumer_id: Option<String>,
    /// Durable consumer, if it was one.
    pub consumer: Option<String>,
    /// Group, if it was one.
    pub group: Option<String>,
    /// How often a client got it.
    pub deliveries: u32,
    /// Dedupe key of the letter: two nodes, or one that does not know whether it was stored, store it once.
    pub once: Option<String>,
}

impl DeadLetter {
    /// Stores the letter; returns when it is durable. Tries again as long as the cluster refuses.
    pub async fn store(&self, bus: &Bus) {
        self.store_while(bus, async || true).await;
    }

    /// Stores the letter, as long as it is for this node to write: that is asked before each try. `false` when it is
    /// not any more, and the letter is not known to be stored.
    pub async fn store_while(&self, bus: &Bus, ours: impl AsyncFn() -> bool) -> bool {
        let subject = self.item.event().subject.to_owned();
        if subject.split('.').next() == Some(Namespace::DEAD) {
            bus.metrics().dead_letters.inc();
            tracing::warn!(event = %self.item.id(), consumer_id = self.consumer_id, "a dead letter was not acknowledged; it stays where it is");
            return true;
        }
        let Ok(frame) = self.frame(&subject) else {
            tracing::error!(event = %self.item.id(), "a dead letter cannot be encoded");
            return true;
        };
        while ours().await {
            match bus.proposer().propose(frame.clone().into()).await {
                Ok(_) => {
                    bus.metrics().dead_letters.inc();
                    return true;
                }
                // Stored before, by a try whose answer was lost or by another start.
                Err(Refusal::KeyProcessed(_)) => return true,
                Err(refusal) => {
                    tracing::warn!(%refusal, event = %self.item.id(), "a dead letter is not stored yet");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        false
    }

    fn frame(&self, subject: &str) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::new();
        begin_publish(&mut frame, Namespace::DEAD)?;
        let payload = self.payload();
        let event = Event {
            subject: &format!("{}.{subject}", Namespace::DEAD),
            key: self.once.as_deref().unwrap_or_default(),
            created_at: clock::timestamp(),
            payload: Some(&payload),
            ..Event::default()
        };
        event.encode(&mut frame).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let keyed = if self.once.is_some() { FLAG_KEYED } else { 0 };
        finish_publish(&mut frame, 0, FLAG_CREATE | FLAG_INTERNAL | keyed, 1)?;
        Ok(frame)
    }

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
        let tail = format!(",\"deliveries\":{},\"reason\":\"redelivery_count exceeded\"}}", self.deliveries);
        out.extend_from_slice(tail.as_bytes());
        out
    }
}
