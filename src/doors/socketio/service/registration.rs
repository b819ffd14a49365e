//! Registrations of one client: `bus:register`, and what it is told of them.

use futures_util::FutureExt as _;
use serde_json::json;

use super::bus_socket::{BusSocket, Failure};
use super::payloads::RegisterPayload;
use crate::bus::client::clients::{ClientMessage, Enrollment};
use crate::bus::error::Fault;
use crate::bus::roll::registration::RegistrationResult;
use crate::doors::socketio::session::{Out, Waited};

fn registered((id, result): RegistrationResult) -> ClientMessage {
    ClientMessage::Registered(id, result)
}

impl BusSocket {
    /// `bus:register`. Until the first registration is done nothing else is taken from the client; later ones change
    /// what it is, one after the other, while everything else goes on.
    pub(in crate::doors::socketio) fn register(
        &mut self,
        id: Option<u64>,
        arg: &str,
        out: &mut Out,
    ) -> Result<(), Fault> {
        let register = RegisterPayload::parse(arg)?.into_register(&self.auth, &self.sid)?;
        let first = self.registration.is_new();
        let Some(registering) = self.registration.register(id, register)? else { return Ok(()) };
        let registering = registering.map(registered);
        if first {
            out.wait = Some(registering.map(Waited::Told).boxed_local());
        } else {
            let tell = self.mailbox();
            actix_web::rt::spawn(async move { tell(registering.await) });
        }
        Ok(())
    }

    /// What became of a registration.
    pub(in crate::doors::socketio) fn registered(
        &mut self,
        id: Option<u64>,
        result: Result<Enrollment, Fault>,
        out: &mut Out,
    ) {
        if result.is_ok() && self.registration.identity().is_err() {
            self.is_told_from_now();
        }
        self.registration.ended(&result);
        let said = result.map_err(Failure::from).map(|Enrollment { service, instance, replaced }| {
            let mut says = json!({ "id": service, "instanceId": instance });
            if let (Some(says), Some(node)) = (says.as_object_mut(), replaced) {
                says.insert("replaced".to_owned(), json!({ "node": node }));
            }
            says
        });
        Self::answer("bus:register", id, said, out);
        if let Some(next) = self.registration.begin_next() {
            let tell = self.mailbox();
            actix_web::rt::spawn(async move { tell(registered(next.await)) });
        }
    }

    /// Its connection is about to end: registrations that have no answer get one.
    pub(in crate::doors::socketio) fn refuse_registrations(&mut self, out: &mut Out) {
        for id in self.registration.give_up() {
            let ends = Fault::unavailable("the connection is about to end");
            Self::answer("bus:register", Some(id), Err(ends.into()), out);
        }
    }
}
