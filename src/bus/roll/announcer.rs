//! Announces changes of the roll, and notifications between clients, to the clients of this node.
//!
//! All announcements are read from the book, so every node announces them in the same order. Each event is encoded once
//! for each door.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_cluster::error::ReadError;
use rollbook_core::central::PUBLIC;
use rollbook_core::event::Event;
use rollbook_core::security::right::Verb;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::SubjectError;
use tokio_util::sync::CancellationToken;

use crate::bus::client::announcement::{AnnouncedUpTo, Announcement, Log};
use crate::bus::client::clients::{Client, ClientMessage, Clients};
use crate::bus::consume::source::{Page, Source};
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::write::notification::{From, notification};

/// Pause after a failed read of the book.
const PAUSE: Duration = Duration::from_millis(250);

/// The event with a new central configuration.
const CONFIG_UPDATED: &str = "roll.config.updated";

/// Which clients an event concerns, and what they need the right to.
struct Audience {
    /// What a client needs the right to.
    needs: (Verb, String),
    /// Whether the event is a notification: those go to registered clients only.
    notification: bool,
    /// The sender of a notification, who does not get it back.
    from: Option<From>,
}

impl Audience {
    /// The audience of an event.
    fn of(event: &Event<'_>) -> Self {
        let notification = notification(event);
        let needs = match event.subject {
            // The document is in the event, without its secrets.
            CONFIG_UPDATED => (Verb::ConfigRead, PUBLIC.to_owned()),
            subject => (Verb::Subscribe, subject.to_owned()),
        };
        Self {
            needs,
            notification: notification.is_some(),
            from: notification.and_then(|notification| notification.from),
        }
    }

    /// Whether a client belongs to the audience.
    fn includes(&self, client: &Client) -> bool {
        let own = |from: &From| client.is_instance(&from.service, &from.instance);
        let (verb, target) = &self.needs;
        let concerned = !self.notification || (client.is_registered() && !self.from.as_ref().is_some_and(own));
        concerned && client.identity().may(*verb, target)
    }
}

/// Sends an announcement to every client that it concerns.
pub fn broadcast(clients: &Clients, announcement: &Arc<Announcement>) {
    let audience = Audience::of(&announcement.item.event());
    for client in clients.all().iter() {
        if !audience.includes(client) || announcement.frame(client.encoder()).is_empty() {
            continue;
        }
        if !client.tell(ClientMessage::Event(Arc::clone(announcement))) {
            // What is in no log may be missed; nothing of the book may.
            match announcement.at {
                // A client may miss an unstored event, never an event of the book.
                Some(_) => client.loses(),
                None => clients.skips(),
            }
        }
    }
}

/// Sends the event of a record that is in no log to every client that it concerns.
pub fn broadcast_unstored(clients: &Clients, record: Bytes) -> Arc<Announcement> {
    let announcement = Arc::new(Announcement::unstored(Arc::new(StoredEvent::unstored(record))));
    broadcast(clients, &announcement);
    announcement
}

/// Follows the namespaces `roll` and `notify`.
#[derive(Debug)]
pub struct Announcer {
    /// The book.
    bus: Bus,
    /// The clients to tell, and the position up to which they were told.
    clients: Clients,
}

impl Announcer {
    /// An announcer that begins behind the newest event.
    #[must_use]
    pub fn new(bus: Bus, clients: Clients) -> Self {
        let last = |log: Log| bus.node().state().namespace(log.name()).map_or(0, |head| head.last());
        clients.set_position(AnnouncedUpTo { roll: last(Log::Roll), notify: last(Log::Notify) });
        Self { bus, clients }
    }

    /// Announces new events until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let follow = |log: Log| {
            let next = log.of(self.clients.position()).saturating_add(1);
            pattern(log).map(|pattern| Source::new(&self.bus, pattern, next))
        };
        let (Ok(roll), Ok(notify)) = (follow(Log::Roll), follow(Log::Notify)) else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_log(Log::Roll, roll) => {}
            () = self.follow_log(Log::Notify, notify) => {}
        }
    }

    /// Follows one of the two namespaces.
    async fn follow_log(&self, log: Log, mut source: Source) {
        loop {
            self.announce(log, source.next(None).await).await;
        }
    }

    /// Announces one page.
    async fn announce(&self, log: Log, page: Result<Page, ReadError>) {
        match page {
            Ok(Page::Items(items)) => {
                for item in items {
                    // Set the position before the clients are told: a client that connects in between reads the event
                    // from the book.
                    let position = log.set(self.clients.position(), item.sequence());
                    self.clients.set_position(position);
                    broadcast(&self.clients, &Arc::new(Announcement::stored(item, log, position)));
                }
            }
            // The source encodes nothing without an encoder.
            Ok(Page::Bytes(_)) => {}
            Err(error) => {
                tracing::error!(%error, "the roll cannot be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The pattern of all events of a namespace.
fn pattern(log: Log) -> Result<Pattern, SubjectError> {
    Pattern::parse(&format!("{}.>", log.name()))
}

/// The events between two positions that a client was not told, encoded for its door. `None` when the book does not
/// reach back that far, or when the frames are more than `bytes_max`.
///
/// # Errors
/// The book cannot be read.
pub async fn missed(
    bus: &Bus,
    client: &Arc<Client>,
    from: AnnouncedUpTo,
    to: AnnouncedUpTo,
    bytes_max: usize,
) -> Result<Option<Vec<Bytes>>, ReadError> {
    let mut missed = Missed { from, to, at: from, frames: Vec::new(), bytes_left: bytes_max };
    for log in [Log::Roll, Log::Notify] {
        let (bus_again, client) = (bus.clone(), Arc::clone(client));
        let read = move || Ok(missed.read(&bus_again, log, &client)?.then_some(missed));
        match bus.read(read).await? {
            Some(more) => missed = more,
            None => return Ok(None),
        }
    }
    Ok(Some(missed.frames))
}

/// Collects the missed events of one client.
struct Missed {
    /// What the client was told before.
    from: AnnouncedUpTo,
    /// What the client will be told.
    to: AnnouncedUpTo,
    /// The position that the client has after the frames so far. Doors write it beside each event.
    at: AnnouncedUpTo,
    /// The encoded events.
    frames: Vec<Bytes>,
    /// How many more bytes the frames may have.
    bytes_left: usize,
}

impl Missed {
    /// Reads one of the two namespaces. Returns `false` when events are gone, or do not fit.
    fn read(&mut self, bus: &Bus, log: Log, client: &Client) -> Result<bool, ReadError> {
        let (mut next, last) = (log.of(self.from).saturating_add(1), log.of(self.to));
        let Some(head) = bus.node().state().namespace(log.name()) else { return Ok(true) };
        if next > last {
            return Ok(true);
        }
        if next < head.first {
            return Ok(false);
        }
        let book = bus.node().state().book();
        let mut fits = true;
        while next <= last && fits {
            let from = next;
            next = book.read(log.name(), from, None, &mut |sequence, event, record| {
                if sequence > last {
                    return ControlFlow::Break(());
                }
                fits = self.add(log, sequence, event, record, client);
                if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if next == from {
                break;
            }
        }
        Ok(fits)
    }

    /// Adds an event if it concerns the client. Returns `false` when it does not fit.
    fn add(&mut self, log: Log, sequence: u64, event: &Event<'_>, record: &[u8], client: &Client) -> bool {
        self.at = log.set(self.at, sequence);
        if !Audience::of(event).includes(client) {
            return true;
        }
        let item = Arc::new(StoredEvent::stored(sequence, Bytes::copy_from_slice(record)));
        let frame = Announcement::stored(item, log, self.at).frame(client.encoder());
        let left = self.bytes_left.checked_sub(frame.len());
        self.bytes_left = left.unwrap_or(0);
        if !frame.is_empty() {
            self.frames.push(frame);
        }
        left.is_some()
    }
}
