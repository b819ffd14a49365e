//! Registrations of one client: onto the roll, again, as somebody else, and off it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use rollbook_core::service::{InstanceRegister, Registered};
use serde_json::json;

use super::bus_socket::{BusSocket, Failure};
use super::payloads::{RegisterPayload, Registering};
use crate::bus::client::clients::{Client, ClientMessage, Enrollment};
use crate::bus::error::Fault;
use crate::bus::roll::registrations::Roll;
use crate::doors::socketio::session::{Out, Waited};

/// Registrations of one client that wait for the one before.
const WAITING_MAX: usize = 16;

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
        if self.registered.is_none() && self.registering.is_none() {
            self.attempts(id, &register);
            let (roll, client) = (self.services.roll.clone(), Arc::clone(self.client()));
            out.wait = Some(register_and_tell(roll, client, register, id).map(Waited::Told).boxed_local());
            return Ok(());
        }
        if self.registrations.len() >= WAITING_MAX {
            return Err(Fault::overloaded(format!("at most {WAITING_MAX} registrations on their way")));
        }
        self.registrations.push_back((id, register));
        self.register_next();
        Ok(())
    }

    fn attempts(&mut self, id: Option<u64>, register: &InstanceRegister) {
        let identity = (register.service.id.clone(), register.instance.id.clone());
        self.registering = Some(Registering { id, identity });
    }

    /// Begins the next of the registrations that wait, when none is on its way.
    fn register_next(&mut self) {
        if self.registering.is_some() {
            return;
        }
        let Some((id, register)) = self.registrations.pop_front() else { return };
        self.attempts(id, &register);
        let (roll, client, tell) = (self.services.roll.clone(), Arc::clone(self.client()), self.mailbox());
        actix_web::rt::spawn(async move { tell(register_and_tell(roll, client, register, id).await) });
    }

    /// Registers a client as what it was before its connection broke.
    pub(in crate::doors::socketio) async fn register_again(&mut self, register: InstanceRegister) -> Option<()> {
        self.attempts(None, &register);
        self.services.roll.register(self.client(), register).await.ok()?;
        self.registered = self.registering.take().map(|registering| registering.identity);
        Some(())
    }

    /// What became of a registration.
    pub(in crate::doors::socketio) fn registered(
        &mut self,
        id: Option<u64>,
        became: Result<Enrollment, Fault>,
        out: &mut Out,
    ) {
        let attempted = self.registering.take().map(|registering| registering.identity);
        let said = became.map_err(Failure::from).map(|Enrollment { service, instance, replaced }| {
            let mut says = json!({ "id": service, "instanceId": instance });
            if let (Some(says), Some(node)) = (says.as_object_mut(), replaced) {
                says.insert("replaced".to_owned(), json!({ "node": node }));
            }
            if self.registered.is_none() {
                self.is_told_from_now();
            }
            let now = (service, instance);
            // It is somebody else now, and not the one before.
            if let Some(before) = self.registered.replace(now.clone()).filter(|before| *before != now) {
                self.leave_roll(&before);
            }
            says
        });
        // It stays what it was. Nobody may know whether it is this one too.
        if let Some(attempted) =
            attempted.filter(|attempted| said.is_err() && self.registered.as_ref() != Some(attempted))
        {
            self.leave_roll(&attempted);
        }
        Self::answer("bus:register", id, said, out);
        self.register_next();
    }

    /// Its connection is about to end: registrations that have no answer get one.
    pub(in crate::doors::socketio) fn refuse_registrations(&mut self, out: &mut Out) {
        let first = self.registering.as_mut().and_then(|registering| registering.id.take());
        let others = self.registrations.drain(..).filter_map(|(id, _)| id);
        for id in first.into_iter().chain(others) {
            let ends = Fault::unavailable("the connection is about to end");
            Self::answer("bus:register", Some(id), Err(ends.into()), out);
        }
    }

    fn leave_roll(&self, (service, instance): &(String, String)) {
        self.services.roll.leave(self.client().serial, service, instance);
    }

    /// It goes: off the roll, whatever it is or may be.
    pub(in crate::doors::socketio) fn leave_all(&mut self) {
        self.registrations.clear();
        let attempted = self.registering.take().map(|registering| registering.identity);
        let registered = self.registered.take();
        for identity in attempted.iter().chain(&registered) {
            self.leave_roll(identity);
        }
    }
}

async fn register_and_tell(
    roll: Roll,
    client: Arc<Client>,
    register: InstanceRegister,
    id: Option<u64>,
) -> ClientMessage {
    let registered = tokio::select! {
        registered = roll.register(&client, register) => registered.map_err(|refusal| Fault::of_service(&refusal)),
        () = client.closing() => Err(Fault::unavailable("the connection is about to end")),
    };
    let enrolled = |Registered { instance, replaced }: Registered| Enrollment {
        service: instance.service,
        instance: instance.id,
        replaced: replaced.map(|replaced| replaced.owner.node),
    };
    ClientMessage::Registered(id, registered.map(enrolled))
}
