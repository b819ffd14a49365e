//! The application behind the main namespace: accepts clients, and restores the state of clients that reconnect.

use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use super::announcements::{OFFSETS, PLAIN};
use super::bus_socket::{BusSocket, RecoverableClient};
use super::payloads::{Auth, RecoveryRequest};
use crate::bus::access::Access;
use crate::bus::client::clients::{About, ClientMessage};
use crate::bus::roll::announcer;
use crate::bus::roll::services::Services;
use crate::doors::socketio::cluster::recovery::Recovery;
use crate::doors::socketio::engine::table;
use crate::doors::socketio::session::{Application, ConnectError, Handshake, Restored, Socket};
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::writer::Frame;

/// The application behind the main namespace.
#[derive(Clone)]
pub(in crate::doors::socketio) struct BusApplication {
    services: Services,
    access: Access,
    recovery: Arc<Recovery>,
    /// Most bytes of missed events that a client gets when it reconnects.
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

    /// Connects a client to the bus. `pid` names its state, when the state can be recovered.
    fn socket(&self, connect: ConnectRequest, sid: &str, pid: Option<String>) -> BusSocket {
        let ConnectRequest { mailbox, address, auth } = connect;
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
        // A client that names a service in its CONNECT is reminded to register. A client that only calls is not.
        if auth.id.is_some() {
            handle.client().remind_from_now();
        }
        let recoverable = pid.map(|pid| RecoverableClient::new(&self.recovery, pid, floor));
        BusSocket::new((self.services.clone(), self.access.clone()), handle, sid, auth, recoverable)
    }

    /// Restores the state of a client and finds the events that the client missed.
    async fn restored(self, connect: ConnectRequest, recovery_request: RecoveryRequest) -> Option<Restored> {
        let state = self.recovery.take(&recovery_request.pid).await?;
        let from = state.floor().latest(recovery_request.offset.unwrap_or_default());
        let sid = state.sid;
        let mut socket = self.socket(connect, &sid, Some(state.pid));
        if let Some(register) = state.registration {
            socket.registration.restore(register).await.ok()?;
        }
        // The client is connected first: the bus announces later events, and earlier events are in the book.
        let to = self.services.clients.position();
        let (bus, client) = (&self.services.bus, socket.client());
        let missed = announcer::missed(bus, client, from, to, self.missed_bytes_max).await;
        let missed = missed.inspect_err(|error| tracing::error!(%error, sid, "a client reconnects without its state: the events that it missed cannot be read")).ok()??;
        socket.set_missed_range(from, from.latest(to));
        self.services.bus.metrics().clients_recovered.inc();
        let text = |frame: Bytes| ByteString::try_from(frame).ok().map(Frame::Text);
        Some(Restored { sid, socket: Box::new(socket), missed: missed.into_iter().filter_map(text).collect() })
    }
}

/// The data of a CONNECT.
struct ConnectRequest {
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
    ) -> Result<Box<dyn Socket>, ConnectError> {
        let refused = |message: &str| ConnectError { message: message.to_owned(), data: None };
        if namespace != "/" {
            return Err(refused("Invalid namespace"));
        }
        let mailbox = handshake.mailbox.clone().ok_or_else(|| refused("Node is stopping"))?;
        let auth = Auth::parse(auth, handshake.parameter("app")).map_err(|error| ConnectError {
            message: error.to_string(),
            data: Some(json!({ "code": error.code() })),
        })?;
        let connect = ConnectRequest { mailbox, address: handshake.address.clone(), auth };
        Ok(Box::new(self.socket(connect, sid, self.recovery.is_on().then(Recovery::pid))))
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
        // A client with invalid data is refused in [`Application::connect`], as all clients are.
        let recovery_request = RecoveryRequest::parse(auth?)?;
        let auth = Auth::parse(auth, handshake.parameter("app")).ok()?;
        let connect = ConnectRequest { mailbox: handshake.mailbox.clone()?, address: handshake.address.clone(), auth };
        Some(self.clone().restored(connect, recovery_request).boxed_local())
    }
}
