//! The certificate authority of accounts of Xbus: checks certificate requests, and signs certificates for them.
//!
//! Of a request only its key and its common name count: what else it asks for is not in the certificate. Each certificate
//! carries the URI `xbus-account:NAME`, by which it is told from those of other CAs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::rand;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rollbook_cluster::tls::{TlsError, certified_key};
use rollbook_core::xbus::limits::PEM_BYTES_MAX;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::certificate::{ACCOUNT_SCHEME, names};
use super::token::sha256;
use crate::base::clock;

/// How long a certificate counts unless an operator says otherwise.
const LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);
/// A certificate counts from that long ago on: clocks of clients may be slow.
const BEFORE: Duration = Duration::from_secs(60 * 60);
/// Bits of a key of RSA.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of a serial number.
const SERIAL_BYTES: usize = 16;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No request in PEM, or a damaged one.
    #[error("the certificate request cannot be read; send a PKCS #10 request in PEM")]
    Malformed,
    /// The signature is not that of the key.
    #[error("the signature of the certificate request is not that of its key")]
    Signature,
    /// Another common name, several, or none.
    #[error("the certificate request needs one common name, which is the name of the account")]
    CommonName,
    /// A key that no node accepts.
    #[error("the key of the certificate request is RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519")]
    Key,
}

/// A request whose signature is that of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRequest {
    /// The key, in DER.
    key: Vec<u8>,
}

impl VerifiedRequest {
    /// Reads a request for an account of that name.
    ///
    /// # Errors
    /// The request cannot be read or is not for the account.
    pub fn read(pem: &str, account: &str) -> Result<Self, RequestError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(RequestError::Malformed);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Malformed)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &request.certification_request_info;
        let good = match info.subject_pki.parsed() {
            Ok(PublicKey::RSA(key)) => RSA_BITS.contains(&key.key_size()),
            Ok(PublicKey::EC(_) | PublicKey::Unknown(_)) => true,
            _ => false,
        };
        let key = info.subject_pki.raw.to_vec();
        if !good || SubjectPublicKeyInfo::from_der(&key).is_err() {
            return Err(RequestError::Key);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let mut found = info.subject.iter_common_name();
        match (found.next().and_then(|name| name.as_str().ok()), found.next()) {
            (Some(name), None) if name == account => Ok(Self { key }),
            _ => Err(RequestError::CommonName),
        }
    }

    /// SHA-256 of the public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        sha256(&self.key)
    }
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of the certificate, as credentials name it: `sha256:HEX`.
    pub fingerprint: String,
    /// When the certificate ends to count, milliseconds since 1970.
    pub expires: u64,
}

/// Why a certificate that was signed elsewhere is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// No certificate in PEM, or a damaged one.
    #[error("certificate: an X.509 certificate in PEM, of at most {PEM_BYTES_MAX} bytes")]
    Malformed,
    /// Another common name, several, or none.
    #[error("certificate: its common name has to be {0}")]
    CommonName(String),
    /// The URI by which doors tell certificates of accounts from others is missing.
    #[error("certificate: one of its alternative names has to be the URI {ACCOUNT_SCHEME}{0}")]
    Uri(String),
}

impl SignedCertificate {
    /// Reads a certificate for an account of that name, whoever signed it, and SHA-256 of its public key.
    ///
    /// # Errors
    /// The text is no such certificate.
    pub fn read(pem: &str, account: &str) -> Result<(Self, [u8; 32]), SignedError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(SignedError::Malformed);
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| SignedError::Malformed)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| SignedError::Malformed)?;
        let said = names(&der).map_err(|_| SignedError::Malformed)?;
        if said.common_name.as_deref() != Some(account) {
            return Err(SignedError::CommonName(account.to_owned()));
        }
        if said.account.as_deref() != Some(account) {
            return Err(SignedError::Uri(account.to_owned()));
        }
        let expires = said.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
        let fingerprint = format!("sha256:{}", said.fingerprint);
        Ok((Self { pem: pem.to_owned(), fingerprint, expires }, sha256(parsed.public_key().raw)))
    }
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AccountCaError {
    /// The files are no pair of certificate and key.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The files are a pair, but not that of a CA.
    #[error("{} is not the certificate of a CA that can sign: {reason}; see `rollbook cert dev`", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The authority.
pub struct AccountCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// When the certificate of the authority ends to count, milliseconds since 1970.
    ends: u64,
}

/// Leaves out the key.
impl fmt::Debug for AccountCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountCa").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl AccountCa {
    /// Reads certificate and key, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read, they do not belong together, or they are not those of a CA.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AccountCaError> {
        let unusable = |reason: String| AccountCaError::Unusable { path: certificate.to_owned(), reason };
        let pair = certified_key(certificate, key, &provider::default_provider())?;
        let der = pair.cert.first().ok_or_else(|| unusable("there is no certificate".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unusable(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(unusable("it is not that of a CA".to_owned()));
        }
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default().saturating_mul(1000);
        if ends <= clock::millis() {
            return Err(unusable("it has expired".to_owned()));
        }
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()));
        let (pem, secret) = (read(certificate)?, read(key)?);
        let signer = KeyPair::from_pem(&secret).map_err(|error| unusable(format!("its key: {error}")))?;
        let issuer = Issuer::from_ca_cert_der(der, signer).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { issuer, pem, ends })
    }

    /// The certificate of the authority, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for an account, which counts until `expires`, milliseconds since 1970, or for five years. It
    /// never counts longer than that of the authority.
    ///
    /// # Errors
    /// A text for people: there is no randomness, or the name cannot stand in a certificate.
    pub fn sign(
        &self,
        request: &VerifiedRequest,
        account: &str,
        expires: Option<u64>,
    ) -> Result<SignedCertificate, String> {
        let text = |error: rcgen::Error| format!("the certificate cannot be signed: {error}");
        let now = clock::millis();
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let ends = expires.unwrap_or_else(|| now.saturating_add(lifetime)).min(self.ends);
        if ends <= now {
            return Err("the certificate would end before it begins; give a later time".to_owned());
        }
        let at = |millis: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(millis / 1000);
        let mut serial = [0; SERIAL_BYTES];
        rand::fill(&mut serial).map_err(|_| "there is no randomness".to_owned())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, account);
        let uri = Ia5String::try_from(format!("{ACCOUNT_SCHEME}{account}")).map_err(text)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        params.not_before = at(now.saturating_sub(u64::try_from(BEFORE.as_millis()).unwrap_or_default()));
        params.not_after = at(ends);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(&request.key).map_err(text)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(text)?;
        let names = names(signed.der()).map_err(|error| error.to_string())?;
        let expires = (ends / 1000).saturating_mul(1000);
        Ok(SignedCertificate { pem: signed.pem(), fingerprint: format!("sha256:{}", names.fingerprint), expires })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertifiedIssuer, IsCa};

    use super::*;

    fn request(common_names: &[&str]) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from("rollbook:user:root").unwrap())];
        (params.serialize_request(&key).unwrap().pem().unwrap(), key)
    }

    fn ca(is_ca: bool) -> Result<AccountCa, AccountCaError> {
        let (dir, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
        params.distinguished_name.push(DnType::CommonName, "a CA");
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let (certificate, secret) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        std::fs::write(&certificate, CertifiedIssuer::self_signed(params, key).unwrap().pem()).unwrap();
        AccountCa::load(&certificate, &secret)
    }

    #[test]
    fn a_certificate_is_for_the_key_and_the_name_and_nothing_else() {
        let (ca, (pem, key)) = (ca(true).unwrap(), request(&["shop"]));
        let request = VerifiedRequest::read(&pem, "shop").unwrap();
        assert_eq!(request.public_key(), sha256(&rcgen::PublicKeyData::subject_public_key_info(&key)));
        let signed = ca.sign(&request, "shop", None).unwrap();
        let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let names = names(&der).unwrap();
        assert_eq!((names.common_name.as_deref(), names.principal), (Some("shop"), None));
        assert_eq!(names.account.as_deref(), Some("shop"));
        assert_eq!(signed.fingerprint, format!("sha256:{}", names.fingerprint));
        let years = signed.expires.saturating_sub(clock::millis()) / (365 * 24 * 60 * 60 * 1000);
        assert!((4..=5).contains(&years), "{years}");
        let again = ca.sign(&request, "shop", Some(clock::millis() + 90_000)).unwrap();
        assert_ne!(again.fingerprint, signed.fingerprint);
        assert!(again.expires <= clock::millis() + 90_000);
        assert!(ca.sign(&request, "shop", Some(1)).unwrap_err().contains("later time"));
        assert!(!format!("{ca:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_request_has_one_common_name_which_is_that_of_the_account() {
        for names in [&["other"][..], &[], &["shop\0"], &["Shop"]] {
            assert_eq!(VerifiedRequest::read(&request(names).0, "shop"), Err(RequestError::CommonName), "{names:?}");
        }
    }

    #[test]
    fn a_request_is_signed_with_its_own_key() {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, "shop");
        let mut der = params.serialize_request(&key).unwrap().der().to_vec();
        // The last byte is one of the signature.
        *der.last_mut().unwrap() ^= 1;
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(VerifiedRequest::read(&pem, "shop"), Err(RequestError::Signature));
    }

    #[test]
    fn a_certificate_that_was_signed_elsewhere_is_for_the_account_and_a_key() {
        let (ca, (pem, _)) = (ca(true).unwrap(), request(&["shop"]));
        let request = VerifiedRequest::read(&pem, "shop").unwrap();
        let signed = ca.sign(&request, "shop", None).unwrap();
        assert_eq!(SignedCertificate::read(&signed.pem, "shop"), Ok((signed.clone(), request.public_key())));
        let read = |pem: &str, account: &str| SignedCertificate::read(pem, account).unwrap_err();
        assert_eq!(read(&signed.pem, "other"), SignedError::CommonName("other".to_owned()));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "shop");
        let without = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(read(&without, "shop").to_string().contains("the URI xbus-account:shop"));
        for wrong in [pem, "x".to_owned(), "x".repeat(PEM_BYTES_MAX + 1)] {
            assert_eq!(read(&wrong, "shop"), SignedError::Malformed);
        }
    }

    #[test]
    fn a_certificate_that_is_not_of_a_ca_cannot_sign() {
        assert!(ca(false).unwrap_err().to_string().contains("not that of a CA"));
    }

    proptest! {
        #[test]
        fn what_is_no_request_is_an_error(text in any::<String>(), at in 0_usize..600, with in 1_u8..) {
            prop_assert_eq!(VerifiedRequest::read(&text, "shop"), Err(RequestError::Malformed));
            let mut pem = request(&["shop"]).0.into_bytes();
            if let Some(byte) = pem.get_mut(at) {
                *byte ^= with;
            }
            // A change may be one of a line break alone.
            drop(VerifiedRequest::read(&String::from_utf8_lossy(&pem), "shop"));
        }
    }
}
