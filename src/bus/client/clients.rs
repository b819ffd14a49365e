//! The clients of this node: connections of services and their consumers, whatever door they came through.

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
use crate::bus::subscribe::streams::StreamUpdate;

/// How long a service may take to register before it is reminded, and then again.
const REMIND_FIRST: Duration = Duration::from_secs(1);
const REMIND_AGAIN: Duration = Duration::from_secs(10);

/// What a client is told by the bus.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum ClientMessage {
    /// It is asked for something.
    Request(HandedPayload),
    /// What became of a request of its own; the ticket is what it gave the router.
    Outcome(u64, Outcome),
    /// An event of the roll, or a notification.
    Event(Arc<Announcement>),
    /// The operator wants something of it.
    Command(Command),
    /// What became of its registration. The number is its acknowledgement's.
    Registered(Option<u64>, Result<Enrollment, Fault>),
    /// What became of a notification of its own.
    Notified(Option<u64>, Result<Noted, Fault>),
    /// What one of its streams of the book says, by the number of that, or what became of a publish.
    Stream(u64, StreamUpdate),
    /// It should register.
    Remind,
    /// It must go.
    Close(CloseReason),
}

/// What a client is on the roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Its service.
    pub service: String,
    /// Its instance.
    pub instance: String,
    /// The node of another connection that was this instance until now, and was sent away.
    pub replaced: Option<u64>,
}

/// Where a notification is in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Id of the event.
    pub id: String,
    /// Its index in the namespace of notifications; `None` when it is in no log.
    pub index: Option<u64>,
}

/// Why a client must go, which says whether it may come back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node stops or has no majority: come back, elsewhere.
    Draining,
    /// Another connection has its place now.
    Replaced,
    /// The operator took it off the roll, and it should stay away.
    Removed,
    /// It gave no sign of life, or did not read: come back.
    Unresponsive,
}

/// A command of the operator.
#[derive(Debug)]
pub struct Command {
    /// Its name, without the prefix of a door.
    pub name: &'static str,
    /// A JSON object.
    pub json: Bytes,
    /// Told when the client has acknowledged, and whether it did what it was told; dropped when it will not.
    pub done: oneshot::Sender<bool>,
}

/// What a client is and does, for the operator.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its name on the door.
    pub id: String,
    /// Where it comes from.
    pub address: String,
    /// What it called itself when it connected.
    pub name: String,
    /// How it is connected.
    pub transport: &'static str,
    /// Its registration.
    pub registration: Option<Box<InstanceRegister>>,
    /// What its newest heartbeat said: a JSON object.
    pub heartbeat: Option<Bytes>,
    /// When that came.
    pub heartbeat_at: Option<Timestamp>,
    /// Which connection took its place.
    pub replaced_by: Option<String>,
}

/// One client.
pub struct Client {
    /// Its number among the connections of this process.
    pub serial: u64,
    /// Its door.
    pub door: &'static str,
    /// When it came.
    pub since: Timestamp,
    to: Recipient<ClientMessage>,
    about: Mutex<About>,
    registered: AtomicBool,
    lost: AtomicBool,
    /// Of its newest sign of life that counts as a heartbeat.
    beat: Mutex<Instant>,
    unhealthy: AtomicBool,
    closing: Notify,
    told_to_close: AtomicBool,
    /// When it is to be reminded to register.
    remind: Mutex<Option<Instant>>,
    encoder: &'static dyn AnnouncementEncoder,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("serial", &self.serial).field("door", &self.door).finish_non_exhaustive()
    }
}

impl Client {
    fn about_mut(&self) -> MutexGuard<'_, About> {
        lock(&self.about)
    }

    /// What it is now.
    #[must_use]
    pub fn about(&self) -> About {
        self.about_mut().clone()
    }

    /// Changes what is known of it.
    pub fn describe(&self, change: impl FnOnce(&mut About)) {
        let mut about = self.about_mut();
        change(&mut about);
        self.registered.store(about.registration.is_some(), Ordering::Relaxed);
    }

    /// Whether it is an instance of a service.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    /// How its door tells events.
    #[must_use]
    pub fn encoder(&self) -> &'static dyn AnnouncementEncoder {
        self.encoder
    }

    /// Whether its door calls it so.
    #[must_use]
    pub fn is_called(&self, id: &str) -> bool {
        self.about_mut().id == id
    }

    /// Whether it is this instance.
    #[must_use]
    pub fn is_instance(&self, service: &str, instance: &str) -> bool {
        let about = self.about_mut();
        about.registration.as_ref().is_some_and(|own| own.service.id == service && own.instance.id == instance)
    }

    /// Hands it a message. `false` when it is gone or takes nothing more.
    #[must_use]
    pub fn tell(&self, message: ClientMessage) -> bool {
        self.to.try_send(message).is_ok()
    }

    /// Hands it a message that may not be missed: a client that takes nothing more must come again.
    pub fn must_tell(&self, message: ClientMessage) {
        if !self.tell(message) {
            self.loses();
        }
    }

    /// Hands it a message that may be missed.
    pub fn hint(&self, message: ClientMessage) {
        hint(&self.to, message);
    }

    /// Tells it to go, also while something of its own takes time, or its mailbox is full. `false` when it is gone.
    pub fn close(&self, why: CloseReason) -> bool {
        let there = self.to.connected();
        if self.told_to_close.swap(true, Ordering::Relaxed) {
            hint(&self.to, ClientMessage::Close(why));
        } else {
            must_tell(&self.to, ClientMessage::Close(why));
        }
        // Behind the message: whoever hears this has it already.
        self.closing.notify_one();
        there
    }

    /// Waits until it is told to go.
    pub async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Takes note of a heartbeat, with what it says.
    pub fn heartbeat(&self, says: Bytes) {
        self.describe(|about| {
            about.heartbeat = Some(says);
            about.heartbeat_at = Some(clock::timestamp());
        });
        self.beats();
    }

    /// Whether it has ever sent a heartbeat.
    #[must_use]
    pub fn sends_heartbeats(&self) -> bool {
        self.about_mut().heartbeat.is_some()
    }

    /// Takes note of a sign of life.
    pub fn beats(&self) {
        *lock(&self.beat) = clock::now();
    }

    /// When it gave its newest sign of life.
    #[must_use]
    pub fn beat(&self) -> Instant {
        *lock(&self.beat)
    }

    /// It is a service: from now on it is reminded to register until it does.
    pub fn remind_from_now(&self) {
        *lock(&self.remind) = Some(clock::now() + REMIND_FIRST);
    }

    /// Whether it should be reminded now.
    #[must_use]
    pub fn takes_reminder(&self, now: Instant) -> bool {
        let mut remind = lock(&self.remind);
        let due = !self.is_registered() && remind.is_some_and(|remind| remind <= now);
        if due {
            *remind = Some(now + REMIND_AGAIN);
        }
        due
    }

    /// Whether its heartbeats are missing, as this node last said.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// Notes what was said of its heartbeats.
    pub fn set_unhealthy(&self, unhealthy: bool) {
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
    }

    /// Notes that an event could not be handed to it.
    pub fn loses(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether it has missed an event: it must come again.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<u64, Arc<Client>>,
    /// All of them, made anew when somebody asks after a change.
    all: Option<Arc<[Arc<Client>]>>,
}

/// The clients of this node. Clones share it.
#[derive(Debug, Clone)]
pub struct Clients {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    serial: AtomicU64,
    /// How much of the book has been told.
    position: Mutex<AnnouncedUpTo>,
    metrics: Metrics,
}

/// A client's place in the table. Leaves when dropped.
#[derive(Debug)]
pub struct ClientHandle {
    clients: Clients,
    client: Arc<Client>,
    vacated: bool,
}

impl ClientHandle {
    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Leaves now: nobody finds the client any more.
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

    /// A client comes.
    #[must_use]
    pub fn connect(
        &self,
        door: &'static str,
        encoder: &'static dyn AnnouncementEncoder,
        to: Recipient<ClientMessage>,
        about: About,
    ) -> ClientHandle {
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            serial,
            door,
            since: clock::timestamp(),
            to,
            about: Mutex::new(about),
            registered: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            beat: Mutex::new(clock::now()),
            unhealthy: AtomicBool::new(false),
            closing: Notify::new(),
            told_to_close: AtomicBool::new(false),
            remind: Mutex::new(None),
            encoder,
        });
        let mut table = self.lock();
        table.clients.insert(serial, Arc::clone(&client));
        table.all = None;
        self.inner.metrics.clients.inc();
        ClientHandle { clients: self.clone(), client, vacated: false }
    }

    /// The client of that number.
    #[must_use]
    pub fn find(&self, serial: u64) -> Option<Arc<Client>> {
        self.lock().clients.get(&serial).cloned()
    }

    /// Takes note that somebody missed an event that may be missed.
    pub fn skips(&self) {
        self.inner.metrics.notifications_skipped.inc();
    }

    /// How much of the book those who are here have been told, or are just being told.
    #[must_use]
    pub fn position(&self) -> AnnouncedUpTo {
        *lock(&self.inner.position)
    }

    /// Everything up to there is told now.
    pub fn set_position(&self, position: AnnouncedUpTo) {
        *lock(&self.inner.position) = position;
    }

    /// All of them.
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

    /// Tells the client of that number to go; `false` when it is not there.
    pub fn close(&self, serial: u64, why: CloseReason) -> bool {
        self.find(serial).is_some_and(|client| client.close(why))
    }

    /// Tells the client of that number that another connection has its place.
    pub fn replace(&self, serial: u64, by: &str) {
        if let Some(client) = self.find(serial) {
            client.describe(|about| about.replaced_by = Some(by.to_owned()));
            client.close(CloseReason::Replaced);
        }
    }

    /// Tells all of them to go.
    pub fn close_all(&self, why: CloseReason) {
        for client in self.all().iter() {
            client.close(why);
        }
    }
}
