//! The registration of a connection: as a service on the roll, or as a consumer that is not on the roll.

use actix::prelude::{AsyncContext, Context};
use actix::{ActorFutureExt as _, WrapFuture as _};
use bytes::Bytes;
use rollbook_core::error::Refusal;
use rollbook_core::security::right::Verb;

use super::Connection;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::client::clients::Enrollment;
use crate::bus::error::Fault;
use crate::doors::websocket::close_codes;
use crate::doors::websocket::error::{ErrorCode, FrameError};
use crate::doors::websocket::outbound::{self, OutboundFrame, RegisteredNames};
use crate::doors::websocket::payloads::RegisterPayload;
use crate::doors::websocket::service_snapshot::ServiceSnapshot;
use crate::doors::websocket::session::Identity;
use crate::net::websocket::reader::code;

/// The subject that says which services there are.
const SERVICE_ONLINE: &str = "roll.service.online";

impl Connection {
    pub(super) fn register(&mut self, mut payload: RegisterPayload, ctx: &mut Context<Self>) {
        let services = self.context.services.clone();
        if services.bus.node().consensus().ready().is_err() {
            let refusal = Refusal::Unavailable("the cluster has no majority".to_owned());
            return self.registration_refused(Fault::of_service(&refusal));
        }
        let snapshot = self.context.snapshots.take(services.bus.node().state());
        self.listeners = std::mem::take(&mut payload.listeners);
        let name = payload.name.clone();
        self.handle.client().describe(|about| about.name.clone_from(&name));
        if payload.methods.is_empty() {
            // Others see the name beside what the consumer sends.
            if let Err(fault) = self.handle.client().identity().check_name(&name) {
                return self.registration_refused(fault);
            }
            let identity = Identity { name, instance: String::new() };
            return self.registered(identity, &snapshot, None, ctx);
        }
        let register = payload.into_register();
        if let Err(refusal) = register.service.check().and_then(|()| register.instance.check()) {
            return self.registration_refused(Fault::of_service(&refusal));
        }
        let registering = match self.registration.register(None, register) {
            Ok(Some(registering)) => registering,
            // A connection registers once.
            Ok(None) => return,
            Err(fault) => return self.registration_refused(fault),
        };
        ctx.spawn(registering.into_actor(self).map(move |(_, result), act, ctx| {
            act.registration_ended(result, &snapshot, ctx);
        }));
    }

    pub(super) fn registration_ended(
        &mut self,
        result: Result<Enrollment, Fault>,
        snapshot: &ServiceSnapshot,
        ctx: &mut Context<Self>,
    ) {
        if !self.session.is_registering() {
            return;
        }
        self.registration.ended(&result);
        match result {
            Ok(Enrollment { service, instance, replaced }) => {
                self.registered(Identity { name: service, instance }, snapshot, replaced, ctx);
            }
            Err(fault) => self.registration_refused(fault),
        }
    }

    pub(super) fn registration_refused(&mut self, fault: Fault) {
        let (code, close, reason) = match fault.kind {
            FaultKind::Unavailable => (ErrorCode::Unavailable, code::AGAIN, "no majority"),
            FaultKind::Forbidden => (ErrorCode::Forbidden, close_codes::FORBIDDEN, "forbidden"),
            FaultKind::Unauthenticated => (ErrorCode::Unauthenticated, close_codes::UNAUTHENTICATED, "unauthenticated"),
            FaultKind::Overloaded => (ErrorCode::Overloaded, code::AGAIN, "too much is on its way"),
            _ => (ErrorCode::BadRegistration, close_codes::BAD_REGISTRATION, "bad registration"),
        };
        self.send(&OutboundFrame::from(&FrameError::new(code, fault.text)));
        self.end(close, reason);
    }

    /// Tells the client that it is registered. `replaced` is the node of the earlier connection of that instance.
    pub(super) fn registered(
        &mut self,
        identity: Identity,
        snapshot: &ServiceSnapshot,
        replaced: Option<u64>,
        ctx: &mut Context<Self>,
    ) {
        let ServiceSnapshot { index, services } = snapshot;
        // The list is what announcements have told: a client that may not have those does not see the list.
        let may_see = self.handle.client().identity().may(Verb::Subscribe, SERVICE_ONLINE);
        let services = if may_see { services.clone() } else { Bytes::from_static(b"[]") };
        let instance = Some(&*identity.instance).filter(|instance| !instance.is_empty());
        let replaced = replaced.map(outbound::node_name);
        let names = RegisteredNames { name: &identity.name, instance, replaced: replaced.as_deref() };
        self.send(&outbound::registered(names, *index, services));
        self.snapshot_index = *index;
        let backlog = self.session.registered(identity);
        self.backlog.free();
        for event in std::mem::take(&mut self.held_events) {
            self.announce(&event);
        }
        for listener in std::mem::take(&mut self.listeners) {
            self.subscribe(listener);
        }
        for frame in backlog {
            if let Some(step) = self.session.receive(frame, clock::now()) {
                self.step(step, ctx);
            }
        }
    }
}
