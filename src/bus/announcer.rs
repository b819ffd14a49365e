//! Tells the clients of this node what the book says of the roll, and what clients notify each other of.
//!
//! Everything comes out of the book in its one order, so it is told in that order on every node. Each
//! event is encoded once for each door, by whoever is first.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::event::Event;
use rollbook_core::pattern::Pattern;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::client::{Clients, Told};
use super::handle::Bus;
use super::item::Item;
use super::source::{Page, Source};

/// The namespace of notifications.
pub const NOTIFY: &str = "notify";
/// Pause after the book could not be read.
const PAUSE: Duration = Duration::from_millis(250);

/// Payload of a notification.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notification<'a> {
    /// The name that it has for clients.
    pub event: String,
    /// What it says.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// Who says it; absent when it was published by no client of the roll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// Who notifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Its service.
    pub service: String,
    /// Its instance.
    pub instance: String,
}

/// The subject of a notification: its name in the characters that subjects have.
#[must_use]
pub fn subject(event: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = event.chars().take(128).map(legal).collect();
    format!("{NOTIFY}.{name}")
}

/// Whether an event of the book is a notification, which only registered clients get.
fn notification<'e>(event: &Event<'e>) -> Option<Notification<'e>> {
    event.subject.strip_prefix(NOTIFY).filter(|rest| rest.starts_with('.'))?;
    serde_json::from_slice(event.payload?).ok()
}

/// Gives an event to everybody whom it concerns.
pub fn spread(clients: &Clients, item: &Arc<Item>) {
    let event = item.event();
    let notification = notification(&event);
    let from = notification.as_ref().and_then(|notification| notification.from.clone());
    for client in clients.all().iter() {
        if notification.is_some() {
            let own = || from.as_ref().is_some_and(|from| client.is_instance(&from.service, &from.instance));
            if !client.is_registered() || own() {
                continue;
            }
        }
        if item.frame(client.wire()).is_empty() {
            continue;
        }
        if !client.tell(Told::Event(Arc::clone(item))) {
            client.loses();
        }
    }
}

/// Follows the book and spreads what is new, until cancelled.
pub async fn run(bus: Bus, clients: Clients, stop: CancellationToken) {
    let follow = |namespace: &str| {
        let next = bus.node().namespace(namespace).map_or(1, |head| head.next);
        Pattern::parse(&format!("{namespace}.>")).map(|pattern| Source::new(&bus, pattern, next))
    };
    let (Ok(roll), Ok(notify)) = (follow("roll"), follow(NOTIFY)) else { return };
    tokio::select! {
        () = stop.cancelled() => {}
        () = relate(roll, &clients) => {}
        () = relate(notify, &clients) => {}
    }
}

async fn relate(mut source: Source, clients: &Clients) {
    loop {
        match source.next(None).await {
            Ok(Page::Items(items)) => items.iter().for_each(|item| spread(clients, item)),
            // Never asked for.
            Ok(Page::Bytes(_)) => {}
            Err(error) => {
                tracing::error!(%error, "the roll cannot be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_event_name_has_a_subject() {
        assert_eq!(subject("order:created"), "notify.order_created");
        assert_eq!(subject("a.b >*"), "notify.a_b___");
        for name in ["x", "ñ€😀", &"x".repeat(1000)] {
            assert!(rollbook_core::subject::Subject::validate(&subject(name)).is_ok(), "{name}");
        }
    }
}
