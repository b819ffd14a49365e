//! What the certificate requests and certificates of accounts say.

use std::time::UNIX_EPOCH;

use rollbook_core::xbus::limits::PEM_BYTES_MAX;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::bus::error::Fault;
use crate::bus::security::credentials::certificate::names;
use crate::bus::security::credentials::token::sha256;

/// A certificate that was signed for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The certificate as PEM.
    pub pem: String,
    /// SHA-256 of its public key, as [`public_key`] has that of a request.
    pub public_key: [u8; 32],
    /// The common name, if there is exactly one.
    pub common_name: Option<String>,
    /// What the certificate is compared with: `sha256:HEX`.
    pub fingerprint: String,
    /// When the certificate ends to count, milliseconds since 1970.
    pub expires: u64,
}

fn bounded(pem: &str, what: &str) -> Result<(), Fault> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(Fault::bad(format!("{what} has at most {PEM_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// SHA-256 of the public key of a certificate request in PEM, whose signature shows that its owner has the key.
///
/// # Errors
/// The text is no certificate request, or its signature is wrong.
pub fn public_key(csr: &str) -> Result<[u8; 32], Fault> {
    bounded(csr, "a certificate request")?;
    let malformed = || Fault::bad("csr: a certificate request (PKCS #10) in PEM, as `openssl req -new` writes it");
    let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).map_err(|_| malformed())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| malformed())?;
    let wrong = |_| Fault::bad("csr: the signature of the certificate request is not that of its key");
    request.verify_signature().map_err(wrong)?;
    Ok(sha256(request.certification_request_info.subject_pki.raw))
}

/// Reads a certificate in PEM, whoever signed it.
///
/// # Errors
/// The text is no certificate.
pub fn certificate(pem: &str) -> Result<SignedCertificate, Fault> {
    bounded(pem, "a certificate")?;
    let malformed = || Fault::bad("certificate: an X.509 certificate in PEM");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    let said = names(&der).map_err(|error| Fault::bad(format!("certificate: {error}")))?;
    let expires = said.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(SignedCertificate {
        pem: pem.to_owned(),
        public_key: sha256(parsed.public_key().raw),
        common_name: said.common_name,
        fingerprint: format!("sha256:{}", said.fingerprint),
        expires: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
    })
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
    fn a_request_and_the_certificate_for_its_key_have_one_public_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let asked = public_key(&params("shop").serialize_request(&key).unwrap().pem().unwrap()).unwrap();
        let signed = certificate(&params("shop").self_signed(&key).unwrap().pem()).unwrap();
        assert_eq!((signed.public_key, signed.common_name.as_deref()), (asked, Some("shop")));
        assert!(signed.fingerprint.starts_with("sha256:") && signed.fingerprint.len() == 71, "{}", signed.fingerprint);
        assert_ne!(certificate(&params("shop").self_signed(&other).unwrap().pem()).unwrap().public_key, asked);
    }

    #[test]
    fn a_request_that_somebody_changed_is_refused() {
        let key = KeyPair::generate().unwrap();
        let request = params("shop").serialize_request(&key).unwrap();
        let mut der = request.der().to_vec();
        let at = der.windows(4).position(|bytes| bytes == b"shop").unwrap();
        der[at] = b'S';
        let changed = pem_of(&der);
        let error = public_key(&changed).unwrap_err();
        assert!(error.text.contains("signature"), "{error:?}");
        for wrong in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
            assert!(public_key(wrong).is_err() && certificate(wrong).is_err(), "{wrong}");
        }
        assert!(public_key(&"x".repeat(PEM_BYTES_MAX + 1)).unwrap_err().text.contains("at most"));
    }

    fn pem_of(der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    }
}
