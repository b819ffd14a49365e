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
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::client::clients::{About, ClientMessage};
use crate::bus::error::Fault;
use crate::bus::roll::announcer;
use crate::bus::roll::services::Services;
use crate::bus::security::credentials::bearer;
use crate::bus::security::identity::Identity;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;
use crate::doors::socketio::cluster::recovery::Recovery;
use crate::doors::socketio::engine::table;
use crate::doors::socketio::session::{Application, Authorization, ConnectError, Handshake, Restored, Socket};
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

    /// Who a client is: the token of its CONNECT counts, then the header of its first request, then its certificate.
    fn admit(&self, handshake: &Handshake, auth: Option<&str>) -> Result<Arc<Identity>, Fault> {
        let token = Auth::token(auth);
        let presented = match (&token, &handshake.authorization) {
            (Some(token), _) => Some(bearer::from_bearer(token.expose())),
            (None, Some(Authorization(value))) => Some(bearer::from_authorization(value)),
            (None, None) => None,
        };
        let origin = Origin::new(NAME, handshake.peer.clone());
        // A token, a JWT of an issuer with known keys and a certificate are verified at once. Passwords are for REST.
        let admitted = self.services.bus.authority().admit(presented, origin).now_or_never();
        admitted.unwrap_or_else(|| Err(Fault::unavailable("the credential cannot be verified now; connect again")))
    }

    /// Connects a client to the bus. `pid` names its state, when the state can be recovered.
    fn socket(&self, connect: ConnectRequest, sid: &str, pid: Option<String>) -> BusSocket {
        let ConnectRequest { mailbox, address, auth, client: (identity, place) } = connect;
        let about = About {
            id: sid.to_owned(),
            address,
            name: auth.name.clone().unwrap_or_default(),
            transport: "socket.io",
            ..About::default()
        };
        let encoder = if pid.is_some() { &OFFSETS } else { &PLAIN };
        let floor = self.services.clients.position();
        let access = self.access.of(Arc::clone(&identity));
        let handle = self.services.clients.connect((identity, Some(place)), encoder, mailbox, about);
        // A client that names a service in its CONNECT is reminded to register. A client that only calls is not.
        if auth.id.is_some() {
            handle.client().remind_from_now();
        }
        let recoverable = pid.map(|pid| RecoverableClient::new(&self.recovery, pid, floor));
        BusSocket::new((self.services.clone(), access), handle, sid, auth, recoverable)
    }

    /// Restores the state of a client and finds the events that the client missed.
    async fn restored(self, connect: ConnectRequest, recovery_request: RecoveryRequest) -> Option<Restored> {
        let state = self.recovery.take(&recovery_request.pid).await?;
        if state.principal != connect.client.0.name() {
            // The state of somebody else, whoever told its name.
            return None;
        }
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
    /// Who it is, and its place among the connections of its principal.
    client: (Arc<Identity>, Place),
}

/// Why a client is not connected, as its library tells it.
fn connect_error(fault: Fault) -> ConnectError {
    ConnectError { message: fault.to_string(), data: Some(json!({ "code": fault.code() })) }
}

/// Who a client is, and its place among the connections of its principal.
fn client(
    application: &BusApplication,
    handshake: &Handshake,
    auth: Option<&str>,
) -> Result<(Arc<Identity>, Place), ConnectError> {
    let admitted = application.admit(handshake, auth).and_then(|identity| {
        let place = identity.usage().connect(clock::now())?;
        Ok((identity, place))
    });
    admitted.map_err(connect_error)
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
        let text = auth;
        let auth = Auth::parse(auth, handshake.parameter("app")).map_err(connect_error)?;
        let address = handshake.address.clone();
        let connect = ConnectRequest { mailbox, address, auth, client: client(self, handshake, text)? };
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
        let client = client(self, handshake, auth).ok()?;
        let auth = Auth::parse(auth, handshake.parameter("app")).ok()?;
        let (mailbox, address) = (handshake.mailbox.clone()?, handshake.address.clone());
        let connect = ConnectRequest { mailbox, address, auth, client };
        Some(self.clone().restored(connect, recovery_request).boxed_local())
    }
}
