//! Brings each request of the hub to the service that it is about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::doors::hms::wire::answer::Answer;
use crate::doors::hms::wire::message::Message;
use crate::doors::hms::wire::op::Op;
use crate::doors::hms::wire::payload::{PayloadError, Service, parse_service};
use crate::doors::hms::wire::texts::{NOT_SUPPORTED, SERVICE_NAME, SERVICE_NOT_FOUND, SERVICE_REQUIRED};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::service::commands::Command;
use super::service::context::Context;
use super::service::handle::ServiceHandle;

/// How long the agent waits at its start for its services, before the hub may ask for them.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the longest name of a service: names become names of folders.
const NAME_BYTES_MAX: usize = 128;

/// All services of the dock.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    services: Mutex<BTreeMap<String, ServiceHandle>>,
}

/// When a request is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// At once.
    Now(Answer),
    /// When the service has done what it was told.
    Later(oneshot::Receiver<Answer>),
    /// Never: the message is an event.
    Never,
}

impl Dispatcher {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, services: Mutex::default() }
    }

    /// Takes over the services of an earlier start of the agent, and starts those that are not stopped.
    pub(crate) async fn recover(&self) {
        let rows = self.context.state.services();
        // All names first, so that services that start after others know them.
        for service in rows.keys() {
            self.context.readiness.set(service, false);
        }
        let mut recovered = Vec::new();
        for (service, row) in rows {
            let handle = ServiceHandle::new(&service, &self.context);
            recovered.extend(handle.send(Command::Recover(row)));
            self.lock().insert(service, handle);
        }
        if timeout(RECOVER_TIMEOUT, all(recovered)).await.is_err() {
            tracing::warn!("some services are still being taken over; the dock connects meanwhile");
        }
    }

    /// Stops all services, and returns when none has a process. From now on the hub can only ask.
    pub(crate) async fn shut_down(&self) {
        self.context.stopping.send_replace(true);
        let stops: Vec<_> = {
            let services = self.lock();
            services.values().map(|handle| tokio::spawn(handle.shut_down())).collect()
        };
        for stop in stops {
            if let Err(error) = stop.await {
                tracing::error!(%error, "the stop of a service failed");
            }
        }
    }

    /// Does what the hub asks. Requests about one service are done in the order of the calls.
    pub(crate) fn request(&self, message: &Message) -> Reply {
        let service = message.id.as_str();
        match message.op {
            Op::Sync | Op::Update | Op::Start | Op::Restart if *self.context.stopping.borrow() => {
                Reply::error("the dock is stopping")
            }
            Op::Sync => match parse_service(message.op, &message.payload) {
                Ok(Some(definition)) => self.sync(service, definition),
                Ok(None) => Reply::error(SERVICE_REQUIRED),
                Err(error) => Reply::error(error),
            },
            Op::Update => match parse_service(message.op, &message.payload) {
                Ok(Some(changes)) => self.tell(service, Command::Update(changes)),
                Ok(None) => Reply::error(PayloadError::ServiceType),
                Err(error) => Reply::error(error),
            },
            Op::Start => self.tell(service, Command::Start),
            Op::Stop => self.tell(service, Command::Stop),
            Op::Restart => self.tell(service, Command::Restart),
            Op::Remove => self.tell(service, Command::Remove),
            Op::Get => match self.tell(service, Command::Get) {
                Reply::Now(Answer::Done) => Reply::Now(Answer::json(&Value::Null)),
                reply => reply,
            },
            Op::Ps => Reply::Now(Answer::json(&self.ps())),
            Op::Subscribe | Op::Unsubscribe if service.is_empty() => Reply::error(SERVICE_NOT_FOUND),
            Op::Subscribe => match self.context.subscriptions.subscribe(service) {
                true => Reply::Now(Answer::Done),
                false => Reply::error("too many subscriptions"),
            },
            Op::Unsubscribe => {
                self.context.subscriptions.unsubscribe(service);
                Reply::Now(Answer::Done)
            }
            Op::Stdout | Op::Stderr | Op::Spawn | Op::Exit => Reply::Never,
            Op::Handshake | Op::Add | Op::List => Reply::error(NOT_SUPPORTED),
        }
    }

    fn sync(&self, service: &str, definition: Service) -> Reply {
        if !is_name(service) {
            return Reply::error(SERVICE_NAME);
        }
        let mut services = self.lock();
        services.retain(|name, handle| name == service || !handle.is_gone());
        let handle = services.entry(service.to_owned()).or_insert_with(|| ServiceHandle::new(service, &self.context));
        handed(handle.send(Command::Sync(definition)))
    }

    /// A service that is not here needs nothing, and that is a success.
    fn tell(&self, service: &str, command: Command) -> Reply {
        match self.lock().get(service) {
            Some(handle) => handed(handle.send(command)),
            None => Reply::Now(Answer::Done),
        }
    }

    fn ps(&self) -> Value {
        let readiness = &self.context.readiness;
        let services = self.lock();
        let list: Vec<Value> = services
            .iter()
            .filter_map(|(service, handle)| handle.to_json(service, readiness.is_ready(service)))
            .collect();
        json!([{"id": self.context.dock, "list": list}])
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ServiceHandle>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    fn error(text: impl ToString) -> Self {
        Self::Now(Answer::Error(text.to_string()))
    }
}

fn handed(answered: Option<oneshot::Receiver<Answer>>) -> Reply {
    match answered {
        Some(answered) => Reply::Later(answered),
        None => Reply::error("too many commands wait for the service"),
    }
}

async fn all(answers: Vec<oneshot::Receiver<Answer>>) {
    for answer in answers {
        // An actor that is gone has nothing left to do.
        answer.await.ok();
    }
}

/// The rule of the protocol; and no name that is a place in the file system.
fn is_name(service: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    !service.is_empty() && service.len() <= NAME_BYTES_MAX && service.chars().all(plain) && !service.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_places() {
        assert!(is_name("app-1.x") && is_name("A"));
        for wrong in ["", ".", "..", ".incoming-x", "a/b", "a b", "a@b", "é", &"x".repeat(129)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
