//! `/api/xbus/accounts`: who may speak, and registrations.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use rollbook_core::command::Command;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::account::register::{ActorRequest, Answer as Registered, Registration};
use rollbook_core::xbus::account::row::{
    AccountRow, AccountStatus, AccountType, ActorKind, ConfigEntry, RequestOrigin,
};
use rollbook_core::xbus::change::Change;
use rollbook_core::xbus::id::Id;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::common::{account, done, look, tagged, text, time};
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::security::credentials::account_ca::VerifiedRequest;
use crate::bus::xbus::actor_calls::new_id;

/// Largest body of a registration, bytes: as many actors as an account has, with their configurations.
const BODY_BYTES_MAX: usize = 8 << 20;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(
        resource(
            "/api/xbus/accounts",
            [get("xbus/accounts"), write("POST", "xbus.account_register", Verb::AdminWrite, "xbus/accounts")],
        )
        .app_data(at_most(BODY_BYTES_MAX))
        .route(web::get().to(list))
        .route(web::post().to(register)),
    );
}

/// An account of Xbus.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct AccountView {
    id: String,
    /// Its name, which is the common name of its certificate.
    name: String,
    /// `actor`, `user` or `gateway`.
    r#type: &'static str,
    /// `pending`, `enabled` or `disabled`.
    status: &'static str,
    /// Whether its certificate request waits for an operator. An enabled account asks anew for another key.
    waits: bool,
    /// By which connection the request came: `anonymous` or `account`.
    origin: &'static str,
    /// SHA-256 of the public key of the request in hex; `null` after a reset.
    public_key: Option<String>,
    /// The certificate request, PEM; `null` after a reset.
    csr: Option<String>,
    /// The certificate, PEM; `null` before the account is accepted.
    certificate: Option<String>,
    /// Whether it has an API key for the HTTP gateway.
    has_api_key: bool,
    /// Names of its actors.
    actors: Vec<String>,
    created_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

impl AccountView {
    fn new(xbus: &Xbus, row: &AccountRow) -> Self {
        let actors = Id::from_slice(&row.id).map(|id| xbus.actors_of(id).map(|actor| actor.name.clone()).collect());
        let said = |text: &String| (!text.is_empty()).then(|| text.clone());
        let hex = || row.public_key.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: text(&row.id),
            name: row.name.clone(),
            r#type: match row.kind() {
                AccountType::NoType => "none",
                AccountType::Actor => "actor",
                AccountType::User => "user",
                AccountType::Gateway => "gateway",
            },
            status: word(row.status()),
            waits: !row.public_key.is_empty() && row.certificate.is_empty(),
            origin: match row.origin() {
                RequestOrigin::Anonymous => "anonymous",
                RequestOrigin::Account => "account",
            },
            public_key: (!row.public_key.is_empty()).then(hex),
            csr: said(&row.csr),
            certificate: said(&row.certificate),
            has_api_key: !row.api_key.is_empty(),
            actors: actors.unwrap_or_default(),
            created_at: time(row.created),
            revision: row.revision,
        }
    }
}

const fn word(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::NoStatus => "none",
        AccountStatus::Pending => "pending",
        AccountStatus::Enabled => "enabled",
        AccountStatus::Disabled => "disabled",
    }
}

/// Answers with an account as it is now.
pub(super) fn view(admin: &Admin, row: &AccountRow) -> Answer {
    tagged(row.revision, &look(admin, |xbus| AccountView::new(xbus, row)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct AccountsQuery {
    /// `pending`, `enabled` or `disabled`.
    #[param(inline)]
    status: Option<StatusWord>,
    /// Only those whose request waits for an operator, or only the others.
    waits: Option<bool>,
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatusWord {
    Pending,
    Enabled,
    Disabled,
}

impl StatusWord {
    const fn rules(self) -> AccountStatus {
        match self {
            Self::Pending => AccountStatus::Pending,
            Self::Enabled => AccountStatus::Enabled,
            Self::Disabled => AccountStatus::Disabled,
        }
    }
}

/// The accounts of Xbus by name, page by page; those that wait for an operator too.
#[utoipa::path(get, path = "/api/xbus/accounts", operation_id = "xbus_accounts", tag = "xbus", params(AccountsQuery), responses((status = 200, description = "a page of accounts", body = List<AccountView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<AccountsQuery>) -> Answer {
    let page = Page::new("xbus_accounts", query.limit, query.cursor.as_deref())?;
    let wanted = query.status.map(StatusWord::rules);
    let list = look(&admin, |xbus| {
        let rows = xbus.accounts().filter(|row| page.begins_before(&row.name));
        let rows = rows.filter(|row| wanted.is_none_or(|wanted| row.status() == wanted));
        let views = rows.map(|row| AccountView::new(xbus, row));
        page.of(views.filter(|view| query.waits.is_none_or(|waits| view.waits == waits)), |view| view.name.clone())
    });
    Ok(HttpResponse::Ok().json(list))
}

/// One account, by name or id. The ETag begins with its revision, which is what `If-Match` of a change compares.
#[utoipa::path(get, path = "/api/xbus/accounts/{account}", operation_id = "xbus_account", tag = "xbus", params(("account" = String, Path), ConsistencyQuery), responses((status = 200, description = "the account", body = AccountView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, &account(&admin, &named, Verb::AdminRead)?)
}

/// What an account is for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TypeWord {
    /// For actors.
    Actor,
    /// For a person with the control tool.
    User,
    /// For the HTTP gateway.
    Gateway,
}

/// What an actor does.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum KindWord {
    /// Sends envelopes.
    Emitter,
    /// Takes envelopes and sends envelopes.
    Worker,
    /// Takes envelopes.
    Consumer,
}

impl KindWord {
    pub(super) const fn rules(self) -> ActorKind {
        match self {
            Self::Emitter => ActorKind::Emitter,
            Self::Worker => ActorKind::Worker,
            Self::Consumer => ActorKind::Consumer,
        }
    }
}

/// An actor of a program.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ActorJson {
    /// Its name, unique in the cluster.
    name: String,
    /// What it does.
    kind: KindWord,
    /// The roles by which pipelines name it.
    #[serde(default)]
    roles: Vec<String>,
    /// Its configuration.
    #[serde(default)]
    config: BTreeMap<String, String>,
}

/// The request of a program for an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RegisterJson {
    /// 1 to 128 letters, digits, `_`, `-` or `@`. The account is the principal `actor:NAME`.
    name: String,
    /// What the account is for.
    r#type: TypeWord,
    /// A certificate request (PKCS #10) in PEM for the key of the program, with the name of the account as common name.
    csr: String,
    /// Its actors.
    #[serde(default)]
    actors: Vec<ActorJson>,
}

/// The entries of a configuration, as rows have them.
pub(super) fn entries(config: BTreeMap<String, String>) -> Vec<ConfigEntry> {
    config.into_iter().map(|(key, value)| ConfigEntry { key, value }).collect()
}

/// Registers an account as a program does that connects for the first time. The account waits for an operator. Once more
/// with the same key it tells what became of that, and registers more actors; another key is refused until the
/// certificate is reset.
#[utoipa::path(post, path = "/api/xbus/accounts", operation_id = "xbus_account_register", tag = "xbus", request_body = RegisterJson, responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn register(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<RegisterJson>,
) -> Answer {
    let RegisterJson { name, r#type, csr, actors } = body;
    let verified = VerifiedRequest::read(&csr, &name).map_err(|error| Problem::bad(format!("csr: {error}")))?;
    let public_key = verified.public_key().to_vec();
    let actors = actors.into_iter().map(|actor| {
        let (id, config) = (new_id().to_vec(), entries(actor.config));
        let mut request = ActorRequest { id, name: actor.name, roles: actor.roles, config, ..ActorRequest::default() };
        request.set_kind(actor.kind.rules());
        request
    });
    let (id, actors) = (new_id().to_vec(), actors.collect());
    let mut request = Registration { id, name, csr, public_key, actors, ..Registration::default() };
    request.set_kind(match r#type {
        TypeWord::Actor => AccountType::Actor,
        TypeWord::User => AccountType::User,
        TypeWord::Gateway => AccountType::Gateway,
    });
    // Registrations have no line in the audit, because programs make them; this one is a change over REST.
    let command = Command::xbus(None, Change::Register(request));
    let registered = done(admin.bus.proposer().command(command).await?)?.account.unwrap_or_default();
    if registered.answer() == Registered::Rejected {
        let name = registered.account.name;
        let detail = format!("account {name} is disabled, or has another key: reset its certificate first");
        return Err(Problem::new(409, "xbus", detail));
    }
    view(&admin, &registered.account)
}
