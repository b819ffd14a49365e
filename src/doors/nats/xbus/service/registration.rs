//! A program registers its account and actors, and hears what became of them.

use rollbook_core::security::actor::Actor as Auditor;
use rollbook_core::xbus::account::register::{self, ActorRequest, Answer as Verdict, Registration};
use rollbook_core::xbus::account::row::{AccountRow, ActorRow, ConfigEntry};
use rollbook_core::xbus::change::Change;
use rollbook_core::xbus::done::AccountDone;
use rollbook_core::xbus::id::Id;

use super::reply::Answer;
use super::request::Request;
use super::rows;
use super::shared::XbusShared;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::security::accounts::credential as account_credential;
use crate::bus::security::credentials::account_ca::VerifiedRequest;
use crate::bus::security::identity::{Identity, Shown};
use crate::bus::xbus::actor_calls::new_id;
use crate::bus::xbus::envelopes::json::answer;
use crate::bus::xbus::envelopes::json::body::{ActorBody, RegistrationBody};
use crate::doors::nats::xbus::proto::account::{self, RegistrationRequest, RegistrationStatus};

/// What a program wants, in whichever dialect.
struct Wanted {
    name: String,
    kind: i32,
    csr: String,
    actors: Vec<ActorRequest>,
}

/// Registers an account.
///
/// # Errors
/// The request cannot be read, its certificate request is not for the account, or the rules refuse it.
pub async fn register(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    answer_to(shared, request, read(request)?).await
}

/// Registers another key of an account, or other actors. A request that says no key keeps the present one.
///
/// # Errors
/// As [`register()`], or there is no such account.
pub async fn update(shared: &XbusShared, request: &Request, account: Id) -> Result<Answer, Fault> {
    let mut wanted = read(request)?;
    let present = shared.account(account)?;
    if !wanted.name.is_empty() && wanted.name != present.name {
        return Err(Fault::bad("an account keeps its name"));
    }
    wanted.name = present.name;
    wanted.kind = present.kind;
    if wanted.csr.is_empty() {
        wanted.csr = present.csr;
    }
    answer_to(shared, request, wanted).await
}

fn read(request: &Request) -> Result<Wanted, Fault> {
    if request.is_json() {
        let body = RegistrationBody::read(&request.payload).map_err(|error| Fault::bad(error.to_string()))?;
        let actor = |actor: ActorBody| ActorRequest {
            id: new_id().to_vec(),
            name: actor.name,
            kind: actor.kind.into(),
            roles: actor.roles,
            config: Vec::new(),
        };
        let actors = body.actors.into_iter().map(actor).collect();
        return Ok(Wanted { name: body.name, kind: body.kind.into(), csr: body.csr, actors });
    }
    let message: RegistrationRequest = request.proto()?;
    let actor = |actor: account::Actor| ActorRequest {
        id: new_id().to_vec(),
        name: actor.name,
        kind: actor.kind,
        roles: actor.roles,
        config: actor.config.into_iter().map(|entry| ConfigEntry { key: entry.key, value: entry.value }).collect(),
    };
    let actors = message.actor_list.into_iter().map(actor).collect();
    Ok(Wanted { name: message.name, kind: message.kind, csr: message.csr, actors })
}

/// Whether a client has shown the present certificate of an account.
fn is_authenticated(identity: &Identity, account: &str) -> bool {
    let credential = account_credential::id(account);
    matches!(identity.shown(), Shown::Certificate(_, Some(shown)) if *shown == credential)
}

async fn answer_to(shared: &XbusShared, request: &Request, wanted: Wanted) -> Result<Answer, Fault> {
    let Wanted { name, kind, csr, actors } = wanted;
    let verified = VerifiedRequest::read(&csr, &name).map_err(|error| Fault::bad(error.to_string()))?;
    let identity = request.caller.access.identity();
    let registration = Registration {
        id: new_id().to_vec(),
        authenticated: is_authenticated(identity, &name),
        name,
        kind,
        csr,
        public_key: verified.public_key().to_vec(),
        actors,
    };
    let done = match known(shared, &registration)? {
        Some(done) => done,
        None => propose(shared, registration, identity.actor("")).await?,
    };
    Ok(told(shared, request, &done))
}

async fn propose(shared: &XbusShared, registration: Registration, actor: Auditor) -> Result<AccountDone, Fault> {
    let done = shared.client.change_of(None, Change::Register(registration), actor).await?;
    done.account.ok_or_else(|| Fault::internal("the rules say nothing of the account"))
}

/// The answer to a registration that changes nothing, such as one by which a program asks what became of an earlier one.
/// Programs ask so for as long as nobody decides, and the log need not have that.
fn known(shared: &XbusShared, registration: &Registration) -> Result<Option<AccountDone>, Fault> {
    register::check(registration).map_err(|error| Fault::bad(error.to_string()))?;
    Ok(shared.client.look(|xbus| {
        let present = xbus.account_named(&registration.name)?.clone();
        let (account, changed, verdict) = register::register(Some(present), registration, clock::millis());
        let rejected = verdict == Verdict::Rejected;
        let is_known = |wanted: &ActorRequest| {
            let row = xbus.actor_named(&wanted.name);
            row.is_some_and(|row| row.account == account.id && row.config == wanted.config)
        };
        if changed || !rejected && !registration.actors.iter().all(is_known) {
            return None;
        }
        let of = Id::from_slice(&account.id).ok()?;
        let actors: Vec<ActorRow> = if rejected { Vec::new() } else { xbus.actors_of(of).cloned().collect() };
        let account = if rejected { AccountRow { name: account.name, ..AccountRow::default() } } else { account };
        let mut done = AccountDone { account, actors, answer: 0 };
        done.set_answer(verdict);
        Some(done)
    }))
}

fn told(shared: &XbusShared, request: &Request, done: &AccountDone) -> Answer {
    let verdict = done.answer();
    let accepted = verdict == Verdict::Accepted;
    let server_ca = if accepted { shared.server_ca() } else { "" };
    if request.is_json() {
        return Answer::json(answer::registration(&done.account, verdict, server_ca, &done.actors));
    }
    let status = match verdict {
        Verdict::Pending => RegistrationStatus::Pending,
        Verdict::Accepted => RegistrationStatus::Accepted,
        Verdict::Rejected => RegistrationStatus::Rejected,
    };
    let online = |row: &ActorRow| rows::actor(row, shared.is_online(row));
    Answer::proto(&account::Registration {
        id: done.account.id.clone(),
        registration_status: status.into(),
        signed_certificate: if accepted { done.account.certificate.clone() } else { String::new() },
        server_ca: server_ca.to_owned(),
        actor_list: done.actors.iter().map(online).collect(),
    })
}
