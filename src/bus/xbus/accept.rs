//! An operator accepts an account: its certificate is signed here, and the rules take it.

use rollbook_core::xbus::account::row::AccountRow;
use rollbook_core::xbus::change::{AccountAccept, Change};

use super::certificates::{SignedCertificate, certificate};
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::authority::Authority;
use crate::bus::security::credentials::account_ca::VerifiedRequest;

/// Signs the request of an account. The certificate counts until `expires`, milliseconds since 1970, or for five years.
///
/// # Errors
/// This node has no CA, or the account has no request to sign.
pub fn sign(authority: &Authority, row: &AccountRow, expires: Option<u64>) -> Result<SignedCertificate, Fault> {
    let conflict = |text: String| Fault::new(FaultKind::Conflict, text);
    let ca = authority.account_ca().ok_or_else(|| {
        conflict("this node has no CA for accounts; set nats.xbus_ca_certificate and nats.xbus_ca_key".to_owned())
    })?;
    if row.public_key.is_empty() {
        return Err(conflict(format!("account {} has not sent a request yet", row.name)));
    }
    let request = VerifiedRequest::read(&row.csr, &row.name).map_err(|error| conflict(error.to_string()))?;
    certificate(&ca.sign(&request, &row.name, expires).map_err(Fault::bad)?)
}

/// The change by which an account and its present key are accepted. The rules refuse the change when the account has
/// another key by then.
#[must_use]
pub fn accept(row: &AccountRow, signed: SignedCertificate) -> Change {
    Change::AccountAccept(AccountAccept {
        id: row.id.clone(),
        public_key: signed.public_key.to_vec(),
        certificate: signed.pem,
        fingerprint: signed.fingerprint,
        expires: signed.expires,
    })
}
