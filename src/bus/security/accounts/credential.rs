//! The certificate of an account of Xbus as a credential: the rules make it when an operator accepts the account.

use rollbook_core::machine::security::state::Security;
use rollbook_core::security::model::{Credential, Proof};

/// How the ids of these credentials begin.
const BEGINNING: &str = "xbus:";

/// The id of the credential of an account.
#[must_use]
pub fn id(account: &str) -> String {
    format!("{BEGINNING}{account}")
}

/// Whether this is the id of such a credential.
pub(in crate::bus::security) fn is_one(id: &str) -> bool {
    id.starts_with(BEGINNING)
}

/// The credential of an account, when the certificate with this fingerprint (`sha256:HEX`) is its present one.
pub(in crate::bus::security) fn of<'s>(security: &'s Security, account: &str, print: &str) -> Option<&'s Credential> {
    security.credential(&id(account)).filter(|row| has(row, print))
}

/// Whether the certificate is still that of the credential.
pub(in crate::bus::security) fn is_present(security: &Security, id: &str, print: &str) -> bool {
    security.credential(id).is_some_and(|row| has(row, print))
}

fn has(row: &Credential, print: &str) -> bool {
    matches!(&row.proof, Some(Proof::Certificate(present)) if present == print)
}
