//! What clients ask for, one request at a time.

use std::sync::Arc;

use super::super::wire::answer::Answer;
use super::super::wire::message::Message;
use super::super::wire::op::Op;
use super::super::wire::payload::parse_service;
use super::super::wire::texts::{ALL_SERVICES, NOT_SUPPORTED, SERVICE_EXISTS, SERVICE_NAME, SERVICE_NOT_FOUND};
use crate::base::fault::FaultKind;
use crate::bus::docks::commands::Control;
use crate::bus::docks::definition::Definition;
use crate::bus::docks::hub::DockHub;
use crate::bus::docks::order::CommandError;
use crate::bus::docks::output::is_id;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// A client, as far as its requests need it.
#[derive(Debug, Clone)]
pub(super) struct ClientRequest {
    pub(super) docks: DockHub,
    pub(super) identity: Arc<Identity>,
    /// Restricts what the client asks for to docks with this id or tag.
    pub(super) route: Option<String>,
}

/// The text of a fault, in the words of the protocol where it has some.
fn text_of(op: Op, error: CommandError) -> String {
    let fault = match error {
        // The error of a dock is passed on as it is, as the original does.
        CommandError::Dock { text, .. } => return text,
        CommandError::Fault(fault) => fault,
    };
    match (op, fault.kind) {
        (_, FaultKind::NotFound) => SERVICE_NOT_FOUND.to_owned(),
        (Op::Add, FaultKind::Conflict) => SERVICE_EXISTS.to_owned(),
        _ => fault.text.into_owned(),
    }
}

impl ClientRequest {
    /// Does what a client asks for.
    pub(super) async fn answer(self, message: Message) -> Answer {
        let op = message.op;
        match self.execute(message).await {
            Ok(answer) => answer,
            Err(error) => Answer::Error(text_of(op, error)),
        }
    }

    async fn execute(&self, message: Message) -> Result<Answer, CommandError> {
        let (docks, who, route) = (&self.docks, &self.identity, self.route.as_deref());
        let Message { op, id, payload, .. } = message;
        let service = || parse_service(op, &payload).map_err(|error| Fault::bad(error.to_string()));
        match op {
            Op::Add => {
                let wanted = service()?.unwrap_or_default();
                if !is_id(&id) {
                    return Err(Fault::bad(SERVICE_NAME).into());
                }
                docks.add(who, &id, wanted).await.map(drop)?;
            }
            Op::Update => docks.update(who, &id, service()?.unwrap_or_default()).await.map(drop)?,
            Op::Remove => docks.remove(who, &id, route).await?,
            Op::Get => return Ok(Answer::json(&docks.get(who, &id).await?.value())),
            Op::List => {
                let all: Vec<_> = docks.list(who).await?.iter().map(Definition::value).collect();
                return Ok(Answer::json(&all));
            }
            Op::Ps => return Ok(Answer::json(&docks.ps(who, route).await.0)),
            Op::Start => docks.control(who, &id, Control::Start, route).await?,
            Op::Stop => docks.control(who, &id, Control::Stop, route).await?,
            Op::Restart => docks.control(who, &id, Control::Restart, route).await?,
            Op::Sync => {
                let given = match service()? {
                    Some(members) => Some(given(&id, members)?),
                    None => None,
                };
                docks.sync(who, &id, given, route).await?;
            }
            Op::Subscribe => docks.check_follow(who, Some(&*id).filter(|id| *id != ALL_SERVICES)).await?,
            Op::Unsubscribe | Op::Stdout | Op::Stderr | Op::Spawn | Op::Exit => {}
            Op::Handshake => return Ok(Answer::Error(NOT_SUPPORTED.to_owned())),
        }
        Ok(Answer::Done)
    }
}

/// A definition that comes with a `sync`, and is used as it is.
fn given(id: &str, members: serde_json::Map<String, serde_json::Value>) -> Result<Definition, Fault> {
    let text = |name: &str| members.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let (revision, deployed) = (text("revision").unwrap_or_default(), text("deployed"));
    let stopped = members.get("stopped").and_then(serde_json::Value::as_bool);
    let mut definition = Definition::new(id);
    definition.merge(members)?;
    if let Some(deployed) = deployed {
        definition.set_deployed(&revision, &deployed);
    }
    if let Some(stopped) = stopped {
        definition.set_stopped(stopped);
    }
    Ok(definition)
}
