//! Who somebody is, and which actors there are.

use rollbook_core::xbus::account::row::{AccountRow, AccountStatus, AccountType, ActorRow};
use rollbook_core::xbus::id::Id;

use super::reply::{Answer, Replies};
use super::request::Request;
use super::rows;
use super::shared::XbusShared;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::api_key;
use crate::bus::xbus::envelopes::json::answer;
use crate::doors::nats::xbus::proto::account::{Account, ClientGetActorsReply};

/// Most actors in one message of a stream, and about the most bytes.
const ACTORS_MAX: usize = 100;
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Answers who the account of a name or an API key is.
///
/// # Errors
/// There is no such account.
pub fn whoami(shared: &XbusShared, request: &Request, identifier: &str) -> Result<Answer, Fault> {
    let own = request.caller.account_name();
    let row = shared.client.look(|xbus| {
        // A gateway asks by key: it may not learn of accounts whose key it has not got.
        let is_gateway =
            own.and_then(|name| xbus.account_named(name)).is_some_and(|row| row.kind() == AccountType::Gateway);
        let named = xbus.account_named(identifier).filter(|_| !is_gateway || own == Some(identifier));
        let of_key = || {
            let hash = api_key::hash(identifier);
            let enabled = |row: &&AccountRow| row.status() == AccountStatus::Enabled;
            xbus.accounts().filter(enabled).find(|row| row.api_key == hash)
        };
        named.or_else(of_key).cloned()
    });
    let row = row.ok_or_else(|| Fault::new(FaultKind::NotFound, "no account has that name or API key"))?;
    if request.is_json() {
        return Ok(Answer::json(answer::account(&row)));
    }
    Ok(Answer::proto(&Account { csr: String::new(), ..rows::account(&row) }))
}

/// Answers which actors an account has.
///
/// # Errors
/// There is no such account.
pub fn actors_of(shared: &XbusShared, request: &Request, account: Id) -> Result<Answer, Fault> {
    drop(shared.account(account)?);
    let found: Vec<ActorRow> = shared.client.look(|xbus| xbus.actors_of(account).cloned().collect());
    Ok(Answer::Message(message(shared, request, &found)))
}

fn message(shared: &XbusShared, request: &Request, found: &[ActorRow]) -> Vec<u8> {
    if request.is_json() {
        return answer::actors(found).into_bytes();
    }
    let actors = found.iter().map(|row| rows::actor(row, shared.is_online(row))).collect();
    prost::Message::encode_to_vec(&ClientGetActorsReply { actors })
}

/// Sends all actors as a stream.
///
/// # Errors
/// None now; the signature is that of a handler.
pub fn list_actors(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let replies: &Replies = &request.replies;
    let (mut from, mut sent) = (String::new(), 0_u32);
    loop {
        let page = shared.client.look(|xbus| {
            let mut bytes = 0_usize;
            let after = xbus.actors_after(&from);
            let page = after.take(ACTORS_MAX).take_while(|row| {
                let fits = bytes < MESSAGE_BYTES_MAX;
                bytes = bytes.saturating_add(prost::Message::encoded_len(*row));
                fits
            });
            page.cloned().collect::<Vec<ActorRow>>()
        });
        let Some(last) = page.last() else { break };
        last.name.clone_into(&mut from);
        if !replies.send(message(shared, request, &page)) {
            // Nobody listens any more.
            return Ok(Answer::Silent);
        }
        sent = sent.saturating_add(1);
    }
    replies.end(sent);
    Ok(Answer::Silent)
}
