//! The registration of one client, the same for every door that serves services: to register, to register again as
//! another instance, and to leave. A door parses what its client sends and encodes the result.
//!
//! Invariant: one registration of a client is on its way at a time. The outcome of a failed registration may be
//! unknown, so its instance is removed like that of a client that leaves.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rollbook_core::service::{InstanceRegister, Registered};
use serde_json::value::RawValue;

use super::roll::Roll;
use crate::bus::client::clients::{Client, Enrollment};
use crate::bus::error::Fault;

/// Most registrations of one client that wait for the one before.
const WAITING_MAX: usize = 16;
/// Longest heartbeat, bytes.
const HEARTBEAT_BYTES_MAX: usize = 4096;

/// The service and instance as which a client is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Id of the service.
    pub service: String,
    /// Id of the instance.
    pub instance: String,
}

/// A registration that is on its way.
#[derive(Debug)]
struct Attempt {
    /// The reply number that the client gave.
    reply_to: Option<u64>,
    /// What the client tries to become. The identity is removed even if nobody knows whether the registration
    /// succeeded.
    identity: Identity,
}

/// The reply number of a registration, and its result.
pub type RegistrationResult = (Option<u64>, Result<Enrollment, Fault>);

/// The registrations of one client.
#[derive(Debug)]
pub struct Registration {
    /// Where the client is registered.
    roll: Roll,
    /// The client.
    client: Arc<Client>,
    /// What the client is registered as.
    current: Option<Identity>,
    /// The registration that is on its way.
    attempt: Option<Attempt>,
    /// Registrations behind the attempt, with their reply numbers.
    waiting: VecDeque<(Option<u64>, InstanceRegister)>,
}

impl Registration {
    /// A client that is not registered.
    #[must_use]
    pub const fn new(roll: Roll, client: Arc<Client>) -> Self {
        Self { roll, client, current: None, attempt: None, waiting: VecDeque::new() }
    }

    /// The service and instance of the client.
    ///
    /// # Errors
    /// The client has not registered.
    pub fn identity(&self) -> Result<&Identity, Fault> {
        self.current.as_ref().ok_or(Fault::not_registered())
    }

    /// Whether the client is not registered and no registration is on its way.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.current.is_none() && self.attempt.is_none()
    }

    /// Begins a registration. The result of the returned future goes to [`Registration::ended`]. `None` when another
    /// registration is on its way: [`Registration::begin_next`] will begin this one.
    ///
    /// # Errors
    /// Too many wait.
    pub fn register(
        &mut self,
        reply_to: Option<u64>,
        register: InstanceRegister,
    ) -> Result<Option<impl Future<Output = RegistrationResult> + use<>>, Fault> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Fault::overloaded(format!("at most {WAITING_MAX} registrations on their way")));
        }
        self.waiting.push_back((reply_to, register));
        Ok(self.begin_next())
    }

    /// Begins the next waiting registration, when none is on its way.
    pub fn begin_next(&mut self) -> Option<impl Future<Output = RegistrationResult> + use<>> {
        if self.attempt.is_some() {
            return None;
        }
        let (reply_to, register) = self.waiting.pop_front()?;
        self.attempt(reply_to, &register);
        let (roll, client) = (self.roll.clone(), Arc::clone(&self.client));
        Some(async move { (reply_to, enroll(&roll, &client, register).await) })
    }

    /// Registers the client again as what it was before its connection broke. Only for the first registration of a
    /// connection.
    ///
    /// # Errors
    /// Why it is not registered.
    pub async fn restore(&mut self, register: InstanceRegister) -> Result<(), Fault> {
        self.attempt(None, &register);
        self.roll.register(&self.client, register).await?;
        self.current = self.attempt.take().map(|attempt| attempt.identity);
        Ok(())
    }

    /// Remembers the registration that begins.
    fn attempt(&mut self, reply_to: Option<u64>, register: &InstanceRegister) {
        let identity = Identity { service: register.service.id.clone(), instance: register.instance.id.clone() };
        self.attempt = Some(Attempt { reply_to, identity });
    }

    /// Takes the result of a registration. Instances that the client no longer is, or may have become by a failed
    /// registration, are removed.
    pub fn ended(&mut self, result: &Result<Enrollment, Fault>) {
        let attempted = self.attempt.take().map(|attempt| attempt.identity);
        let over = match result {
            Ok(Enrollment { service, instance, .. }) => {
                let now = Identity { service: service.clone(), instance: instance.clone() };
                // The client is another instance now, and not the one before.
                self.current.replace(now.clone()).filter(|before| *before != now)
            }
            // The client stays what it was. Nobody may know whether it is the one that it tried to be too.
            Err(_) => attempted.filter(|attempted| self.current.as_ref() != Some(attempted)),
        };
        if let Some(identity) = over {
            self.leave_as(&identity);
        }
    }

    /// The connection is about to end. Returns the reply numbers of the registrations that will have no other answer.
    pub fn give_up(&mut self) -> Vec<u64> {
        let first = self.attempt.as_mut().and_then(|attempt| attempt.reply_to.take());
        first.into_iter().chain(self.waiting.drain(..).filter_map(|(reply_to, _)| reply_to)).collect()
    }

    /// The client leaves: everything that it is or may be is removed from the roll.
    pub fn leave(&mut self) {
        self.waiting.clear();
        let attempted = self.attempt.take().map(|attempt| attempt.identity);
        let current = self.current.take();
        for identity in attempted.iter().chain(&current) {
            self.leave_as(identity);
        }
    }

    /// Removes one identity of the client from the roll.
    fn leave_as(&self, Identity { service, instance }: &Identity) {
        self.roll.leave(self.client.serial, service, instance);
    }

    /// Takes a heartbeat, which is a JSON object.
    ///
    /// # Errors
    /// The client has not registered, or the heartbeat is too long or no object.
    pub fn heartbeat(&self, json: &[u8]) -> Result<(), Fault> {
        self.identity()?;
        let object = serde_json::from_slice::<&RawValue>(json).is_ok_and(|raw| raw.get().starts_with('{'));
        if !object || json.len() > HEARTBEAT_BYTES_MAX {
            return Err(Fault::bad(format!("a heartbeat is an object of at most {HEARTBEAT_BYTES_MAX} bytes")));
        }
        self.client.heartbeat(Bytes::copy_from_slice(json));
        Ok(())
    }
}

/// Registers a client, unless its connection is told to close first.
async fn enroll(roll: &Roll, client: &Arc<Client>, register: InstanceRegister) -> Result<Enrollment, Fault> {
    let Registered { instance, replaced } = tokio::select! {
        registered = roll.register(client, register) => registered?,
        () = client.closing() => return Err(Fault::unavailable("the connection is about to end")),
    };
    let replaced = replaced.map(|replaced| replaced.owner.node);
    Ok(Enrollment { service: instance.service, instance: instance.id, replaced })
}
