//! The table of the clients that are connected to this node through doors for services.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use bytes::Bytes;
use rollbook_cluster::lock::lock;
use rollbook_core::service::InstanceRegister;
use rollbook_core::time::Timestamp;
use tokio::sync::{Notify, oneshot};

use super::announcement::{AnnouncedUpTo, Announcement, AnnouncementEncoder};
use super::call::{HandedPayload, Outcome};
use crate::base::actors::{hint, must_tell};
use crate::base::clock;
use crate::base::metrics::Metrics;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;
use crate::bus::security::usage::Place;
use crate::bus::subscribe::streams::StreamUpdate;

/// How long a service may take to register before it is reminded.
const REMIND_FIRST: Duration = Duration::from_secs(1);
/// Pause between further reminders.
const REMIND_AGAIN: Duration = Duration::from_secs(10);

/// A message of the bus to the actor of a client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum ClientMessage {
    /// A request for the client.
    Request(HandedPayload),
    /// The outcome of a request of the client, with the ticket that the client gave the router.
    Outcome(u64, Outcome),
    /// An event of the roll, or a notification.
    Event(Arc<Announcement>),
    /// A command of the operator.
    Command(Command),
    /// The result of a registration, with the reply number.
    Registered(Option<u64>, Result<Enrollment, Fault>),
    /// The result of a notification, with the reply number.
    Notified(Option<u64>, Result<Noted, Fault>),
    /// An update of one of its streams, by the number of the stream, or the result of a publish.
    Stream(u64, StreamUpdate),
    /// The client should register.
    Remind,
    /// The rights of somebody have changed: whoever has live subscriptions checks them again.
    RightsChanged,
    /// The connection must end.
    Close(CloseReason),
}

/// A successful registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Id of the service.
    pub service: String,
    /// Id of the instance.
    pub instance: String,
    /// The node of the connection that was this instance before, and was closed.
    pub replaced: Option<u64>,
}

/// A sent notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Id of its event.
    pub id: String,
    /// Index in the namespace of notifications; `None` when it is in no log.
    pub index: Option<u64>,
}

/// Why a connection ends, which decides whether the client may come back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node stops or has no majority: the client should connect to another node.
    Draining,
    /// Another connection is the same instance now.
    Replaced,
    /// The operator removed the instance from the roll: the client should stay away.
    Removed,
    /// The client sent no heartbeat, or did not read: it may come back.
    Unresponsive,
    /// The client is not who it was: its credential was revoked or has expired, or its principal is gone.
    Unauthenticated,
    /// The client lost the right to be the service as which it is registered.
    Forbidden,
}

/// A command of the operator.
#[derive(Debug)]
pub struct Command {
    /// Name of the command, without the prefix of a door.
    pub name: &'static str,
    /// Arguments: a JSON object.
    pub json: Bytes,
    /// Receives whether the client has handled the command, when it acknowledges. Dropped when it will not.
    pub done: oneshot::Sender<bool>,
}

/// What is known of a client, for the operator.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The id that its door gave it.
    pub id: String,
    /// Its network address.
    pub address: String,
    /// The name that it sent when it connected.
    pub name: String,
    /// Its transport.
    pub transport: &'static str,
    /// Whether an operator has accepted what the client registers as, so that it needs no right to offer that.
    pub accepted: bool,
    /// Its registration.
    pub registration: Option<Box<InstanceRegister>>,
    /// Content of its newest heartbeat: a JSON object.
    pub heartbeat: Option<Bytes>,
    /// When that heartbeat came.
    pub heartbeat_at: Option<Timestamp>,
    /// The connection that took its place.
    pub replaced_by: Option<String>,
}

/// One connected client.
pub struct Client {
    /// Serial number of the connection in this process.
    pub serial: u64,
    /// Name of its door.
    pub door: &'static str,
    /// When it connected.
    pub since: Timestamp,
    /// Who it is, and what it may do.
    identity: Arc<Identity>,
    /// Its place among the connections of its principal.
    _place: Option<Place>,
    /// Its actor.
    to: Recipient<ClientMessage>,
    /// What is known of it.
    about: Mutex<About>,
    /// Whether `about` has a registration. Read for each announcement, so without the lock.
    registered: AtomicBool,
    /// Whether it has missed an event of the book. It must connect again then.
    lost: AtomicBool,
    /// When its newest sign of life came that counts as a heartbeat.
    beat: Mutex<Instant>,
    /// Whether the roll says that its heartbeats are missing.
    unhealthy: AtomicBool,
    /// Wakes work of the client that must end with the connection.
    closing: Notify,
    /// Whether it was told to close. Only the first message bypasses the bound of the mailbox.
    close_sent: AtomicBool,
    /// Whether it was told that rights have changed, and has not looked yet.
    rights_told: AtomicBool,
    /// When to remind it to register; `None` when it is not a service.
    remind: Mutex<Option<Instant>>,
    /// Encodes announcements for its door.
    encoder: &'static dyn AnnouncementEncoder,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("serial", &self.serial).field("door", &self.door).finish_non_exhaustive()
    }
}

impl Client {
    /// Who it is, and what it may do.
    #[must_use]
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Locks what is known of it.
    fn about_mut(&self) -> MutexGuard<'_, About> {
        lock(&self.about)
    }

    /// What is known of the client now.
    #[must_use]
    pub fn about(&self) -> About {
        self.about_mut().clone()
    }

    /// Changes what is known of the client.
    pub fn describe(&self, change: impl FnOnce(&mut About)) {
        let mut about = self.about_mut();
        change(&mut about);
        self.registered.store(about.registration.is_some(), Ordering::Relaxed);
    }

    /// Whether the client is registered as an instance.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// Encodes announcements for its door.
    #[must_use]
    pub fn encoder(&self) -> &'static dyn AnnouncementEncoder {
        self.encoder
    }

    /// Whether its door gave it this id.
    #[must_use]
    pub fn is_called(&self, id: &str) -> bool {
        self.about_mut().id == id
    }

    /// Whether the client is this instance.
    #[must_use]
    pub fn is_instance(&self, service: &str, instance: &str) -> bool {
        let about = self.about_mut();
        about.registration.as_ref().is_some_and(|own| own.service.id == service && own.instance.id == instance)
    }

    /// Sends a message. Returns `false` when the client has gone or its queue is full.
    #[must_use]
    pub fn tell(&self, message: ClientMessage) -> bool {
        self.to.try_send(message).is_ok()
    }

    /// Sends a message that may not be missed: a client whose queue is full must connect again.
    pub fn must_tell(&self, message: ClientMessage) {
        if !self.tell(message) {
            self.loses();
        }
    }

    /// Sends a message that may be missed.
    pub fn hint(&self, message: ClientMessage) {
        hint(&self.to, message);
    }

    /// Tells the client to check its live subscriptions again, also while its queue is full. One message waits at a time,
    /// however often rights change, and a door without live subscriptions gets one in the life of its client.
    pub fn rights_changed(&self) {
        if !self.rights_told.swap(true, Ordering::AcqRel) {
            must_tell(&self.to, ClientMessage::RightsChanged);
        }
    }

    /// The client looks at its rights now: a change from now on is told anew.
    pub fn takes_rights_change(&self) {
        self.rights_told.store(false, Ordering::Release);
    }

    /// Closes the connection, also while the client is busy or its queue is full. Returns `false` when the client has
    /// gone.
    pub fn close(&self, why: CloseReason) -> bool {
        let there = self.to.connected();
        if self.close_sent.swap(true, Ordering::Relaxed) {
            hint(&self.to, ClientMessage::Close(why));
        } else {
            must_tell(&self.to, ClientMessage::Close(why));
        }
        // After the message, so that work that is woken by this finds it in the mailbox.
        self.closing.notify_one();
        there
    }

    /// Waits until the connection is told to close.
    pub async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Records a heartbeat with its content.
    pub fn heartbeat(&self, says: Bytes) {
        self.describe(|about| {
            about.heartbeat = Some(says);
            about.heartbeat_at = Some(clock::timestamp());
        });
        self.beats();
    }

    /// Whether the client has ever sent a heartbeat.
    #[must_use]
    pub fn sends_heartbeats(&self) -> bool {
        self.about_mut().heartbeat.is_some()
    }

    /// Records a sign of life.
    pub fn beats(&self) {
        *lock(&self.beat) = clock::now();
    }

    /// When the newest sign of life came.
    #[must_use]
    pub fn beat(&self) -> Instant {
        *lock(&self.beat)
    }

    /// The client is a service: it is reminded until it registers.
    pub fn remind_from_now(&self) {
        *lock(&self.remind) = Some(clock::now() + REMIND_FIRST);
    }

    /// Whether the client should be reminded now.
    #[must_use]
    pub fn takes_reminder(&self, now: Instant) -> bool {
        let mut remind = lock(&self.remind);
        let due = !self.is_registered() && remind.is_some_and(|remind| remind <= now);
        if due {
            *remind = Some(now + REMIND_AGAIN);
        }
        due
    }

    /// Whether the roll says that its heartbeats are missing.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// Records what the roll says of its heartbeats.
    pub fn set_unhealthy(&self, unhealthy: bool) {
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
    }

    /// Records that an event of the book could not be sent to the client.
    pub fn loses(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether the client has missed an event of the book: it must connect again.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The clients.
#[derive(Debug, Default)]
struct Table {
    /// By serial number.
    clients: HashMap<u64, Arc<Client>>,
    /// A snapshot for announcements, rebuilt after a change when it is asked for.
    all: Option<Arc<[Arc<Client>]>>,
}

/// The clients of this node. Clones share one table.
#[derive(Debug, Clone)]
pub struct Clients {
    inner: Arc<Inner>,
}

/// The shared state of all clones of [`Clients`].
#[derive(Debug)]
struct Inner {
    /// The clients.
    table: Mutex<Table>,
    /// Serial number of the next connection.
    serial: AtomicU64,
    /// Up to where the clients were told the events of the book.
    position: Mutex<AnnouncedUpTo>,
    /// The counters.
    metrics: Metrics,
}

/// A client's place in the table. The client leaves when this is dropped.
#[derive(Debug)]
pub struct ClientHandle {
    /// The table.
    clients: Clients,
    /// The client.
    client: Arc<Client>,
    /// Whether the client has left already.
    vacated: bool,
}

impl ClientHandle {
    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Leaves the table now.
    pub fn vacate(&mut self) {
        if std::mem::replace(&mut self.vacated, true) {
            return;
        }
        let mut table = self.clients.lock();
        table.clients.remove(&self.client.serial);
        table.all = None;
        self.clients.inner.metrics.clients.dec();
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        self.vacate();
    }
}

impl Clients {
    /// An empty table.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let (table, position) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { table, serial: AtomicU64::new(1), position, metrics }) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.inner.table)
    }

    /// Adds a client, which has a place among the connections of its principal.
    #[must_use]
    pub fn connect(
        &self,
        (identity, place): (Arc<Identity>, Option<Place>),
        encoder: &'static dyn AnnouncementEncoder,
        to: Recipient<ClientMessage>,
        about: About,
    ) -> ClientHandle {
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            serial,
            door: identity.origin().door,
            identity,
            _place: place,
            since: clock::timestamp(),
            to,
            about: Mutex::new(about),
            registered: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            beat: Mutex::new(clock::now()),
            unhealthy: AtomicBool::new(false),
            closing: Notify::new(),
            close_sent: AtomicBool::new(false),
            rights_told: AtomicBool::new(false),
            remind: Mutex::new(None),
            encoder,
        });
        let mut table = self.lock();
        table.clients.insert(serial, Arc::clone(&client));
        table.all = None;
        self.inner.metrics.clients.inc();
        ClientHandle { clients: self.clone(), client, vacated: false }
    }

    /// The client with this serial number.
    #[must_use]
    pub fn find(&self, serial: u64) -> Option<Arc<Client>> {
        self.lock().clients.get(&serial).cloned()
    }

    /// Counts an unstored notification that a client missed.
    pub fn skips(&self) {
        self.inner.metrics.notifications_skipped.inc();
    }

    /// Up to where the clients were told, or are being told, the events of the book.
    #[must_use]
    pub fn position(&self) -> AnnouncedUpTo {
        *lock(&self.inner.position)
    }

    /// Moves that position.
    pub fn set_position(&self, position: AnnouncedUpTo) {
        *lock(&self.inner.position) = position;
    }

    /// A snapshot of all clients.
    #[must_use]
    pub fn all(&self) -> Arc<[Arc<Client>]> {
        let mut table = self.lock();
        if let Some(all) = &table.all {
            return Arc::clone(all);
        }
        let all: Arc<[Arc<Client>]> = table.clients.values().cloned().collect();
        table.all = Some(Arc::clone(&all));
        all
    }

    /// Closes the connection of a client. Returns `false` when it is not connected.
    pub fn close(&self, serial: u64, why: CloseReason) -> bool {
        self.find(serial).is_some_and(|client| client.close(why))
    }

    /// Closes the connection of a client, because another connection took its place.
    pub fn replace(&self, serial: u64, by: &str) {
        if let Some(client) = self.find(serial) {
            client.describe(|about| about.replaced_by = Some(by.to_owned()));
            client.close(CloseReason::Replaced);
        }
    }

    /// Closes all connections.
    pub fn close_all(&self, why: CloseReason) {
        for client in self.all().iter() {
            client.close(why);
        }
    }
}
