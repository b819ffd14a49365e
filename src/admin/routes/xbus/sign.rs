//! Certificates for accounts.

use rollbook_core::xbus::account::row::AccountRow;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::bus::xbus::certificates::{SignedCertificate, certificate};

/// Signs the request of an account. The certificate counts for so many days, or as long as the authority says.
///
/// # Errors
/// The node has no certificate authority.
pub(super) fn sign(_: &Admin, account: &AccountRow, _: Option<u32>) -> Result<SignedCertificate, Problem> {
    let detail = format!("this node has no certificate authority; pass a certificate for account {}", account.name);
    Err(Problem::new(409, "xbus", detail))
}

/// Takes a certificate that was signed elsewhere for the request of an account.
///
/// # Errors
/// The text is no certificate, or one for another name or key.
pub(super) fn taken(account: &AccountRow, pem: &str) -> Result<SignedCertificate, Problem> {
    let signed = certificate(pem)?;
    if signed.common_name.as_deref() != Some(account.name.as_str()) {
        return Err(Problem::bad(format!("certificate: its common name has to be {}", account.name)));
    }
    if signed.public_key.as_slice() != account.public_key {
        return Err(Problem::bad("certificate: its key is not that of the request of the account"));
    }
    Ok(signed)
}
