//! An operator accepts an account: its certificate is signed here, and the rules take it.

use rollbook_core::xbus::account::row::AccountRow;
use rollbook_core::xbus::change::{AccountAccept, Change};

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::authority::Authority;
use crate::bus::security::credentials::account_ca::VerifiedRequest;

/// The change that accepts an account and its present key, with a certificate that counts until `expires`, milliseconds
/// since 1970, or for five years. The rules refuse the change when the account has another key by then.
///
/// # Errors
/// This node has no CA, or the account has no request to sign.
pub fn accept(authority: &Authority, row: &AccountRow, expires: Option<u64>) -> Result<Change, Fault> {
    let ca = authority.account_ca().ok_or_else(|| {
        Fault::new(
            FaultKind::Conflict,
            "this node has no CA for accounts; set nats.xbus_ca_certificate and nats.xbus_ca_key",
        )
    })?;
    if row.public_key.is_empty() {
        return Err(Fault::new(FaultKind::Conflict, format!("account {} has not sent a request yet", row.name)));
    }
    let request = VerifiedRequest::read(&row.csr, &row.name);
    let request = request.map_err(|error| Fault::new(FaultKind::Conflict, error.to_string()))?;
    let signed = ca.sign(&request, &row.name, expires).map_err(Fault::bad)?;
    Ok(Change::AccountAccept(AccountAccept {
        id: row.id.clone(),
        public_key: request.public_key().to_vec(),
        certificate: signed.pem,
        fingerprint: signed.fingerprint,
        expires: signed.expires,
    }))
}
