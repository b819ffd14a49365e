//! `bus:register`: the registrations of one client, and the answers to them.

use futures_util::FutureExt as _;
use serde_json::json;

use super::bus_socket::{AckError, BusSocket};
use super::payloads::RegisterPayload;
use crate::bus::client::clients::{ClientMessage, Enrollment};
use crate::bus::error::Fault;
use crate::bus::roll::registration::RegistrationResult;
use crate::doors::socketio::session::{Out, WaitResult};

fn registered((id, result): RegistrationResult) -> ClientMessage {
    ClientMessage::Registered(id, result)
}

impl BusSocket {
    /// Handles `bus:register`. The door takes nothing else from the client until the first registration is done.
    /// Later registrations change the instance, one after the other, and do not block the client.
    pub(in crate::doors::socketio) fn register(
        &mut self,
        id: Option<u64>,
        arg: &str,
        out: &mut Out,
    ) -> Result<(), Fault> {
        let payload = RegisterPayload::parse(arg)?;
        let listeners = payload.listeners()?;
        let register = payload.into_register(&self.auth, &self.sid)?;
        let first = self.registration.is_new();
        let registering = self.registration.register(id, register)?;
        // Of several registrations the last one counts.
        self.listeners = listeners;
        let Some(registering) = registering else { return Ok(()) };
        let registering = registering.map(registered);
        if first {
            out.wait = Some(registering.map(WaitResult::Message).boxed_local());
        } else {
            let tell = self.mailbox();
            actix_web::rt::spawn(async move { tell(registering.await) });
        }
        Ok(())
    }

    /// Answers a registration.
    pub(in crate::doors::socketio) fn registered(
        &mut self,
        id: Option<u64>,
        result: Result<Enrollment, Fault>,
        out: &mut Out,
    ) {
        if result.is_ok() && self.registration.identity().is_err() {
            self.notify_from_now();
        }
        let is_registered = result.is_ok();
        self.registration.ended(&result);
        let outcome = result.map_err(AckError::from).map(|Enrollment { service, instance, replaced }| {
            let mut reply = json!({ "id": service, "instanceId": instance });
            if let (Some(reply), Some(node)) = (reply.as_object_mut(), replaced) {
                reply.insert("replaced".to_owned(), json!({ "node": node }));
            }
            reply
        });
        Self::answer("bus:register", id, outcome, out);
        if is_registered {
            self.listen();
        }
        if let Some(next) = self.registration.begin_next() {
            let tell = self.mailbox();
            actix_web::rt::spawn(async move { tell(registered(next.await)) });
        }
    }

    /// Answers all pending registrations because the connection is about to end.
    pub(in crate::doors::socketio) fn refuse_registrations(&mut self, out: &mut Out) {
        for id in self.registration.give_up() {
            let ends = Fault::unavailable("the connection is about to end");
            Self::answer("bus:register", Some(id), Err(ends.into()), out);
        }
    }
}
