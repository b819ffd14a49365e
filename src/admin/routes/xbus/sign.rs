//! Certificates for accounts.

use rollbook_core::xbus::account::row::AccountRow;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::base::clock;
use crate::bus::xbus::accept;
use crate::bus::xbus::certificates::{SignedCertificate, certificate};

/// Milliseconds of a day.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Signs the request of an account. The certificate counts for so many days, or as long as the authority says.
///
/// # Errors
/// The node has no certificate authority, or the account no request.
pub(super) fn sign(admin: &Admin, account: &AccountRow, days: Option<u32>) -> Result<SignedCertificate, Problem> {
    let expires = days.map(|days| clock::millis().saturating_add(u64::from(days).saturating_mul(DAY)));
    let authority = admin.bus.authority();
    if authority.account_ca().is_none() {
        let name = &account.name;
        let detail = format!(
            "this node has no certificate authority; pass a certificate for account {name}, or set nats.xbus_ca_certificate"
        );
        return Err(Problem::new(409, "xbus", detail));
    }
    Ok(accept::sign(authority, account, expires)?)
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
