//! The service bus behind the main namespace: lets clients in, and gives those their state that come back for it.

use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use super::announcements::{OFFSETS, PLAIN};
use super::bus_socket::{BusSocket, Memory};
use super::payloads::{Auth, Resumes};
use crate::bus::access::Access;
use crate::bus::client::clients::{About, ClientMessage};
use crate::bus::roll::announcer;
use crate::bus::roll::services::Services;
use crate::doors::socketio::cluster::recovery::Recovery;
use crate::doors::socketio::engine::table;
use crate::doors::socketio::session::{Application, Handshake, Refused, Restored, Socket};
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::writer::Frame;

/// The service bus behind the main namespace.
#[derive(Clone)]
pub(in crate::doors::socketio) struct BusApplication {
    services: Services,
    access: Access,
    recovery: Arc<Recovery>,
    /// Most bytes of missed events that a client gets at once.
    missed_bytes_max: usize,
}

impl BusApplication {
    pub(in crate::doors::socketio) const fn new(
        services: Services,
        access: Access,
        recovery: Arc<Recovery>,
        missed_bytes_max: usize,
    ) -> Self {
        Self { services, access, recovery, missed_bytes_max }
    }

    /// A client that comes; with a pid when its state is kept.
    fn socket(&self, came: Came, sid: &str, pid: Option<String>) -> BusSocket {
        let Came { mailbox, address, auth } = came;
        let about = About {
            id: sid.to_owned(),
            address,
            name: auth.name.clone().unwrap_or_default(),
            transport: "socket.io",
            ..About::default()
        };
        let encoder = if pid.is_some() { &OFFSETS } else { &PLAIN };
        let floor = self.services.clients.position();
        let handle = self.services.clients.connect(NAME, encoder, mailbox, about);
        // A service that has forgotten to register is reminded; who only calls is left alone.
        if auth.id.is_some() {
            handle.client().remind_from_now();
        }
        let memory = pid.map(|pid| Memory::new(&self.recovery, pid, floor));
        BusSocket::new((self.services.clone(), self.access.clone()), handle, sid, auth, memory)
    }

    /// Makes a client what it was, and finds what it has missed.
    async fn restored(self, came: Came, resumes: Resumes) -> Option<Restored> {
        let kept = self.recovery.take(&resumes.pid).await?;
        let from = kept.floor().latest(resumes.offset.unwrap_or_default());
        let sid = kept.sid;
        let mut socket = self.socket(came, &sid, Some(kept.pid));
        if let Some(register) = kept.registration {
            socket.registration.restore(register).await.ok()?;
        }
        // Registered first: what comes from now on is told anyway, what came before is in the book.
        let to = self.services.clients.position();
        let (bus, client) = (&self.services.bus, socket.client());
        let missed = announcer::missed(bus, client, from, to, self.missed_bytes_max).await;
        let missed = missed.inspect_err(|error| tracing::error!(%error, "missed events cannot be read")).ok()??;
        socket.was_told(from, from.latest(to));
        self.services.bus.metrics().clients_recovered.inc();
        let text = |frame: Bytes| ByteString::try_from(frame).ok().map(Frame::Text);
        Some(Restored { sid, socket: Box::new(socket), missed: missed.into_iter().filter_map(text).collect() })
    }
}

/// How a client came and what it said.
struct Came {
    mailbox: Recipient<ClientMessage>,
    address: String,
    auth: Auth,
}

impl Application for BusApplication {
    fn sid(&self) -> String {
        table::sid(self.services.bus.node().id())
    }

    fn connect(
        &self,
        namespace: &str,
        sid: &str,
        handshake: &Handshake,
        auth: Option<&str>,
    ) -> Result<Box<dyn Socket>, Refused> {
        let refused = |message: &str| Refused { message: message.to_owned(), data: None };
        if namespace != "/" {
            return Err(refused("Invalid namespace"));
        }
        let mailbox = handshake.mailbox.clone().ok_or_else(|| refused("Node is stopping"))?;
        let auth = Auth::parse(auth, handshake.parameter("app"))
            .map_err(|error| Refused { message: error.to_string(), data: Some(json!({ "code": error.code() })) })?;
        let came = Came { mailbox, address: handshake.address.clone(), auth };
        Ok(Box::new(self.socket(came, sid, self.recovery.is_on().then(Recovery::pid))))
    }

    fn restore(
        &self,
        namespace: &str,
        handshake: &Handshake,
        auth: Option<&str>,
    ) -> Option<LocalBoxFuture<'static, Option<Restored>>> {
        if !self.recovery.is_on() || namespace != "/" {
            return None;
        }
        // Whoever says something that cannot be is refused as everybody is.
        let resumes = Resumes::parse(auth?)?;
        let auth = Auth::parse(auth, handshake.parameter("app")).ok()?;
        let came = Came { mailbox: handshake.mailbox.clone()?, address: handshake.address.clone(), auth };
        Some(self.clone().restored(came, resumes).boxed_local())
    }
}
