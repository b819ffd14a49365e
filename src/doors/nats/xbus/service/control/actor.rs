//! Actors, for operators.

use rollbook_core::xbus::account::register::ActorRequest as RowRequest;
use rollbook_core::xbus::account::row::{ActorRow, ActorStatus, ConfigEntry};
use rollbook_core::xbus::change::{ActorSet, ActorStatusSet, Change};
use rollbook_core::xbus::done::XbusDone;
use rollbook_core::xbus::id::Id;

use super::{change, check_count};
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls::new_id;
use crate::doors::nats::xbus::proto::account::Actor;
use crate::doors::nats::xbus::proto::control::{ActorReply, ActorRequest};
use crate::doors::nats::xbus::proto::ids::{optional, required};
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::rows;
use crate::doors::nats::xbus::service::shared::XbusShared;

/// Most bytes of the rows of one answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

fn id_of(bytes: &[u8], field: &'static str) -> Result<Id, Fault> {
    required(bytes, field).map_err(|fault| Fault::bad(fault.to_string()))
}

fn present(shared: &XbusShared, actor: &Actor) -> Result<ActorRow, Fault> {
    let id = id_of(&actor.id, "id of the actor")?;
    let row = shared.client.look(|xbus| xbus.actor(id).cloned());
    row.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no actor {id}")))
}

fn status_of(actor: &Actor) -> Result<ActorStatus, Fault> {
    ActorStatus::try_from(actor.status).map_err(|_| Fault::bad("there is no such status of an actor"))
}

fn set(id: Vec<u8>, account: Vec<u8>, actor: &Actor) -> Change {
    let entry = |entry: &crate::doors::nats::xbus::proto::log::ConfigEntry| ConfigEntry {
        key: entry.key.clone(),
        value: entry.value.clone(),
    };
    let wanted = RowRequest {
        id,
        name: actor.name.clone(),
        kind: actor.kind,
        roles: actor.roles.clone(),
        config: actor.config.iter().map(entry).collect(),
    };
    Change::ActorSet(ActorSet { account, actor: wanted })
}

fn only(done: XbusDone) -> Result<ActorRow, Fault> {
    done.actors.into_iter().next().ok_or_else(|| Fault::internal("the rules say nothing of the actor"))
}

async fn with_status(
    shared: &XbusShared,
    request: &Request,
    row: ActorRow,
    status: ActorStatus,
) -> Result<ActorRow, Fault> {
    if row.status() == status {
        return Ok(row);
    }
    let wish = ActorStatusSet { id: row.id, status: status.into(), config: Vec::new() };
    only(change(shared, request, Change::ActorStatus(wish)).await?)
}

fn told(shared: &XbusShared, request: &Request, found: &[ActorRow]) -> Answer {
    let actor_list = found.iter().map(|row| rows::actor(row, shared.is_online(row))).collect();
    request.message(&ActorReply { actor_list })
}

/// Creates actors, one after the other: those before one that is refused stay.
pub(super) async fn create(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ActorRequest { actor_list } = request.read()?;
    check_count(actor_list.len())?;
    let mut made = Vec::new();
    for actor in &actor_list {
        let (account, status) = (id_of(&actor.account_id, "accountID")?, status_of(actor)?);
        let done = change(shared, request, set(new_id().to_vec(), account.to_vec(), actor)).await?;
        made.push(with_status(shared, request, only(done)?, status).await?);
    }
    Ok(told(shared, request, &made))
}

/// Changes actors. One without a name gets another status alone.
pub(super) async fn update(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ActorRequest { actor_list } = request.read()?;
    check_count(actor_list.len())?;
    let mut changed = Vec::new();
    for actor in &actor_list {
        let (mut row, status) = (present(shared, actor)?, status_of(actor)?);
        if !actor.name.is_empty() {
            row = only(change(shared, request, set(row.id, row.account, actor)).await?)?;
        }
        changed.push(with_status(shared, request, row, status).await?);
    }
    Ok(told(shared, request, &changed))
}

pub(super) async fn delete(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ActorRequest { actor_list } = request.read()?;
    check_count(actor_list.len())?;
    let mut gone = Vec::new();
    for actor in &actor_list {
        let id = id_of(&actor.id, "id of the actor")?;
        gone.push(only(change(shared, request, Change::ActorDelete(id.to_vec())).await?)?);
    }
    Ok(told(shared, request, &gone))
}

/// Actors by id, by name or by account; all when nothing is said.
pub(super) fn query(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let ActorRequest { actor_list } = request.read()?;
    check_count(actor_list.len())?;
    for actor in &actor_list {
        let ids = [(&actor.id, "id of the actor"), (&actor.account_id, "accountID")];
        for (bytes, field) in ids {
            optional(bytes, field).map_err(|fault| Fault::bad(fault.to_string()))?;
        }
    }
    let fits = |row: &ActorRow, wanted: &Actor| {
        (wanted.id.is_empty() || wanted.id == row.id)
            && (wanted.name.is_empty() || wanted.name == row.name)
            && (wanted.account_id.is_empty() || wanted.account_id == row.account)
    };
    let mut bytes = 0_usize;
    let found: Vec<ActorRow> = shared.client.look(|xbus| {
        let all = xbus.actors().filter(|row| actor_list.is_empty() || actor_list.iter().any(|one| fits(row, one)));
        let page = all.take_while(|row| {
            bytes = bytes.saturating_add(prost::Message::encoded_len(*row));
            bytes <= ANSWER_BYTES_MAX
        });
        page.cloned().collect()
    });
    if bytes > ANSWER_BYTES_MAX {
        return Err(Fault::bad("these are too many actors for one answer; ask for those of an account"));
    }
    Ok(told(shared, request, &found))
}
