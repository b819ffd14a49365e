//! Accounts, for operators.

use rollbook_core::xbus::account::row::{AccountRow, AccountStatus};
use rollbook_core::xbus::change::{ApiKey, Change, Enable};
use rollbook_core::xbus::done::XbusDone;

use super::change;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::accept::accept;
use crate::bus::xbus::api_key;
use crate::doors::nats::xbus::proto::account::Account;
use crate::doors::nats::xbus::proto::control::{
    AccountIDRequest, AccountListReply, AccountListRequest, AccountUpdateRequest,
};
use crate::doors::nats::xbus::proto::ids::required;
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::rows;
use crate::doors::nats::xbus::service::shared::XbusShared;

/// Most bytes of requests and certificates in a list. A longer list leaves them out.
const PEM_BYTES_MAX: usize = 512 * 1024;

pub(super) fn list(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let AccountListRequest {} = request.read()?;
    let account_list = shared.client.look(|xbus| {
        let bytes: usize = xbus.accounts().map(|row| row.csr.len().saturating_add(row.certificate.len())).sum();
        let shown = |row: &AccountRow| {
            let all = rows::account(row);
            if bytes <= PEM_BYTES_MAX { all } else { Account { csr: String::new(), cert: String::new(), ..all } }
        };
        xbus.accounts().map(shown).collect()
    });
    Ok(request.message(&AccountListReply { account_list }))
}

/// The account that a message names, by id or by name.
fn named(shared: &XbusShared, account: &Account) -> Result<AccountRow, Fault> {
    if account.id.is_empty() && !account.name.is_empty() {
        let found = shared.client.look(|xbus| xbus.account_named(&account.name).cloned());
        return found.ok_or_else(|| Fault::new(FaultKind::NotFound, "no account has that name"));
    }
    let row =
        shared.account(required(&account.id, "id of the account").map_err(|fault| Fault::bad(fault.to_string()))?)?;
    if account.name.is_empty() || account.name == row.name {
        return Ok(row);
    }
    Err(Fault::bad("an account keeps its name"))
}

/// Accepts an account, which signs its certificate, or shuts it out, or lets it in again.
pub(super) async fn update(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let AccountUpdateRequest { account, expire } = request.read()?;
    let wanted = account.ok_or_else(|| Fault::bad("account is missing"))?;
    let row = named(shared, &wanted)?;
    let expires = expire.map(|time| time.millis());
    let status = AccountStatus::try_from(wanted.status).map_err(|_| Fault::bad("there is no such status"))?;
    let wish = match (status, row.status()) {
        (AccountStatus::Enabled, AccountStatus::Disabled) if !row.certificate.is_empty() && expires.is_none() => {
            Change::AccountEnable(Enable { id: row.id, enabled: true })
        }
        (AccountStatus::Enabled, AccountStatus::Enabled) if !row.certificate.is_empty() && expires.is_none() => {
            return Ok(request.message(&rows::account(&row)));
        }
        (AccountStatus::Enabled, _) => accept(shared.client.bus().authority(), &row, expires)?,
        (AccountStatus::Disabled, _) => Change::AccountEnable(Enable { id: row.id, enabled: false }),
        (AccountStatus::Pending | AccountStatus::NoStatus, _) => {
            return Err(Fault::bad("the status of an account becomes enabled or disabled; see resetcert"));
        }
    };
    let done = change(shared, request, wish).await?;
    changed(request, done, String::new())
}

/// The account after a change, with a key that is shown once.
fn changed(request: &Request, done: XbusDone, api_key: String) -> Result<Answer, Fault> {
    let done = done.account.ok_or_else(|| Fault::internal("the rules say nothing of the account"))?;
    Ok(request.message(&Account { api_key, ..rows::account(&done.account) }))
}

fn id(request: &Request) -> Result<Vec<u8>, Fault> {
    let AccountIDRequest { account_id } = request.read()?;
    let id = required(&account_id, "accountID").map_err(|fault| Fault::bad(fault.to_string()))?;
    Ok(id.to_vec())
}

pub(super) async fn delete(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    change(shared, request, Change::AccountDelete(id(request)?)).await.map(|_| Answer::Void)
}

pub(super) async fn reset_certificate(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    change(shared, request, Change::AccountResetCertificate(id(request)?)).await.map(|_| Answer::Void)
}

pub(super) async fn renew_api_key(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let (id, key) = (id(request)?, api_key::mint()?);
    let hash = api_key::hash(&key);
    let done = change(shared, request, Change::AccountApiKey(ApiKey { id, hash })).await?;
    changed(request, done, key)
}

/// Sets a key that the operator has chosen, or none.
pub(super) async fn set_api_key(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let AccountUpdateRequest { account, .. } = request.read()?;
    let wanted = account.ok_or_else(|| Fault::bad("account is missing"))?;
    let row = named(shared, &wanted)?;
    let key = wanted.api_key;
    if !key.is_empty() {
        api_key::check(&key)?;
    }
    let hash = if key.is_empty() { Vec::new() } else { api_key::hash(&key) };
    let done = change(shared, request, Change::AccountApiKey(ApiKey { id: row.id, hash })).await?;
    changed(request, done, key)
}
