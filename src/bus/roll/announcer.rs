//! Tells the clients of this node what the book says of the roll, and what clients notify each other of.
//!
//! Everything comes out of the book in its one order, so it is told in that order on every node. Each
//! event is encoded once for each door, by whoever is first.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_cluster::error::ReadError;
use rollbook_core::event::Event;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::SubjectError;
use tokio_util::sync::CancellationToken;

use crate::bus::client::announcement::{AnnouncedUpTo, Announcement, Log};
use crate::bus::client::clients::{Client, ClientMessage, Clients};
use crate::bus::consume::source::{Page, Source};
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::write::notification::{From, notification};

/// Pause after the book could not be read.
const PAUSE: Duration = Duration::from_millis(250);

/// Whom an event concerns.
struct Audience {
    /// A notification concerns only registered clients.
    notification: bool,
    from: Option<From>,
}

impl Audience {
    fn of(event: &Event<'_>) -> Self {
        let notification = notification(event);
        Self { notification: notification.is_some(), from: notification.and_then(|notification| notification.from) }
    }

    fn is(&self, client: &Client) -> bool {
        let own = |from: &From| client.is_instance(&from.service, &from.instance);
        !self.notification || (client.is_registered() && !self.from.as_ref().is_some_and(own))
    }
}

/// Gives an event to everybody whom it concerns.
pub fn broadcast(clients: &Clients, announcement: &Arc<Announcement>) {
    let audience = Audience::of(&announcement.item.event());
    for client in clients.all().iter() {
        if !audience.is(client) || announcement.frame(client.encoder()).is_empty() {
            continue;
        }
        if !client.tell(ClientMessage::Event(Arc::clone(announcement))) {
            // What is in no log may be missed; nothing of the book may.
            match announcement.at {
                Some(_) => client.loses(),
                None => clients.skips(),
            }
        }
    }
}

/// Gives the event of a record that is in no log to everybody whom it concerns now.
pub fn broadcast_unstored(clients: &Clients, record: Bytes) -> Arc<Announcement> {
    let announcement = Arc::new(Announcement::unstored(Arc::new(StoredEvent::unstored(record))));
    broadcast(clients, &announcement);
    announcement
}

/// Follows the book.
#[derive(Debug)]
pub struct Announcer {
    bus: Bus,
    clients: Clients,
}

impl Announcer {
    /// From now on everything new is told by [`Announcer::run`].
    #[must_use]
    pub fn new(bus: Bus, clients: Clients) -> Self {
        let last = |log: Log| bus.node().state().namespace(log.name()).map_or(0, |head| head.last());
        clients.set_position(AnnouncedUpTo { roll: last(Log::Roll), notify: last(Log::Notify) });
        Self { bus, clients }
    }

    /// Spreads what is new, until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let follow = |log: Log| {
            let next = log.of(self.clients.position()).saturating_add(1);
            pattern(log).map(|pattern| Source::new(&self.bus, pattern, next))
        };
        let (Ok(roll), Ok(notify)) = (follow(Log::Roll), follow(Log::Notify)) else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.relate(Log::Roll, roll) => {}
            () = self.relate(Log::Notify, notify) => {}
        }
    }

    async fn relate(&self, log: Log, mut source: Source) {
        loop {
            self.tell(log, source.next(None).await).await;
        }
    }

    async fn tell(&self, log: Log, page: Result<Page, ReadError>) {
        match page {
            Ok(Page::Items(items)) => {
                for item in items {
                    // First the position, then the clients: who comes in between finds it in the book.
                    let position = log.set(self.clients.position(), item.sequence());
                    self.clients.set_position(position);
                    broadcast(&self.clients, &Arc::new(Announcement::stored(item, log, position)));
                }
            }
            // Never asked for.
            Ok(Page::Bytes(_)) => {}
            Err(error) => {
                tracing::error!(%error, "the roll cannot be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn pattern(log: Log) -> Result<Pattern, SubjectError> {
    Pattern::parse(&format!("{}.>", log.name()))
}

/// What a client was not told between two positions, as its door tells it; `None` when the book does not go back
/// so far any more, or when it is more than `bytes_max`.
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

struct Missed {
    from: AnnouncedUpTo,
    to: AnnouncedUpTo,
    /// Where whoever gets the frames is.
    at: AnnouncedUpTo,
    frames: Vec<Bytes>,
    bytes_left: usize,
}

impl Missed {
    /// Reads one of the namespaces; `false` when not everything is to be had.
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

    fn add(&mut self, log: Log, sequence: u64, event: &Event<'_>, record: &[u8], client: &Client) -> bool {
        self.at = log.set(self.at, sequence);
        if !Audience::of(event).is(client) {
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
