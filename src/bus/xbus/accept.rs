//! An operator accepts an account: its certificate is signed here, or was signed elsewhere, and the rules take it.

use rollbook_core::xbus::account::row::AccountRow;
use rollbook_core::xbus::change::{AccountAccept, Change};

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::authority::Authority;
use crate::bus::security::credentials::account_ca::{SignedCertificate, VerifiedRequest};

fn check_request(row: &AccountRow) -> Result<(), Fault> {
    if row.public_key.is_empty() {
        let text = format!("account {} has no request: its program has to register first", row.name);
        return Err(Fault::new(FaultKind::Conflict, text));
    }
    Ok(())
}

/// The change that accepts an account and its present key, with a certificate that counts until `expires`, milliseconds
/// since 1970, or for five years. The rules refuse the change when the account has another key by then.
///
/// # Errors
/// This node has no CA, or the account has no request to sign.
pub fn accept(authority: &Authority, row: &AccountRow, expires: Option<u64>) -> Result<Change, Fault> {
    check_request(row)?;
    let ca = authority.account_ca().ok_or_else(|| {
        Fault::new(
            FaultKind::Conflict,
            "this node has no CA for accounts; set nats.xbus_ca_certificate and nats.xbus_ca_key, or give a certificate",
        )
    })?;
    let request = VerifiedRequest::read(&row.csr, &row.name);
    let request = request.map_err(|error| Fault::new(FaultKind::Conflict, error.to_string()))?;
    let signed = ca.sign(&request, &row.name, expires).map_err(Fault::bad)?;
    Ok(change(row, request.public_key(), signed))
}

/// The same with a certificate in PEM that somebody else has signed.
///
/// # Errors
/// The account has no request, or the text is no certificate for its name and its key.
pub fn accept_signed(row: &AccountRow, pem: &str) -> Result<Change, Fault> {
    check_request(row)?;
    let (signed, public_key) =
        SignedCertificate::read(pem, &row.name).map_err(|error| Fault::bad(error.to_string()))?;
    if public_key.as_slice() != row.public_key {
        return Err(Fault::bad("certificate: its key is not that of the request of the account"));
    }
    Ok(change(row, public_key, signed))
}

fn change(row: &AccountRow, public_key: [u8; 32], signed: SignedCertificate) -> Change {
    Change::AccountAccept(AccountAccept {
        id: row.id.clone(),
        // The rules compare this with the key of the request that counts then.
        public_key: public_key.to_vec(),
        certificate: signed.pem,
        fingerprint: signed.fingerprint,
        expires: signed.expires,
    })
}
