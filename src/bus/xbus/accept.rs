//! An operator accepts an account: its certificate is signed here, or was signed elsewhere, and the rules take it.

use std::time::UNIX_EPOCH;

use rollbook_core::xbus::account::row::AccountRow;
use rollbook_core::xbus::change::{AccountAccept, Change};
use rollbook_core::xbus::limits::PEM_BYTES_MAX;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::authority::Authority;
use crate::bus::security::credentials::account_ca::VerifiedRequest;
use crate::bus::security::credentials::certificate::names;
use crate::bus::security::credentials::token::sha256;

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

/// The change that accepts an account and its present key, with a certificate in PEM that another authority signed.
/// Whether its authority is trusted shows when the account connects.
///
/// # Errors
/// The text is no certificate, or one for another name or key than those of the request of the account.
pub fn accept_signed(row: &AccountRow, pem: &str) -> Result<Change, Fault> {
    let malformed = || Fault::bad("certificate: an X.509 certificate in PEM");
    if pem.len() > PEM_BYTES_MAX {
        return Err(Fault::bad(format!("certificate: at most {PEM_BYTES_MAX} bytes")));
    }
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    let said = names(&der).map_err(|error| Fault::bad(format!("certificate: {error}")))?;
    if said.common_name.as_deref() != Some(row.name.as_str()) {
        return Err(Fault::bad(format!("certificate: its common name has to be {}", row.name)));
    }
    let public_key = sha256(parsed.public_key().raw);
    if public_key.as_slice() != row.public_key {
        return Err(Fault::bad("certificate: its key is not that of the request of the account"));
    }
    let expires = said.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Change::AccountAccept(AccountAccept {
        id: row.id.clone(),
        public_key: public_key.to_vec(),
        certificate: pem.to_owned(),
        fingerprint: format!("sha256:{}", said.fingerprint),
        expires: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
    }))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    #[test]
    fn a_certificate_of_another_authority_is_for_the_key_and_the_name_of_the_account() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let csr = params("shop").serialize_request(&key).unwrap().pem().unwrap();
        let public_key = VerifiedRequest::read(&csr, "shop").unwrap().public_key().to_vec();
        let row = AccountRow { id: vec![1; 16], name: "shop".into(), public_key, ..AccountRow::default() };
        let signed = |name: &str, key: &KeyPair| params(name).self_signed(key).unwrap().pem();
        let Ok(Change::AccountAccept(accept)) = accept_signed(&row, &signed("shop", &key)) else { panic!() };
        assert_eq!((accept.id, accept.public_key), (row.id.clone(), row.public_key.clone()));
        assert!(accept.fingerprint.starts_with("sha256:") && accept.fingerprint.len() == 71 && accept.expires > 0);
        let wrong = |pem: &str| accept_signed(&row, pem).unwrap_err().text;
        assert!(wrong(&signed("shop", &other)).contains("key is not that"));
        assert!(wrong(&signed("other", &key)).contains("common name has to be shop"));
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(wrong(text).contains("X.509"), "{text}");
        }
        assert!(wrong(&"x".repeat(PEM_BYTES_MAX + 1)).contains("at most"));
    }
}
