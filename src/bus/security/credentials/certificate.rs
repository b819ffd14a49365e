//! The names in a client certificate that TLS has verified against the client CA: who its owner is.
//!
//! A URI `rollbook:kind:name` among the alternative names says the principal. The common name is for CAs that know no
//! such URI; what kind of principal the common name belongs to is for the caller to say.

use rollbook_core::security::principal::Principal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::token::sha256;

/// Largest certificate that is looked at. TLS has read the certificate already; this bounds the work on its names.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
/// Longest common name: the upper bound that RFC 5280 gives.
const COMMON_NAME_BYTES_MAX: usize = 64;
/// The scheme of our URIs.
const SCHEME: &str = "rollbook:";

/// How the URI begins by which a certificate says that it is that of an account of Xbus.
pub(super) const ACCOUNT_SCHEME: &str = "xbus-account:";

/// What a client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    /// The principal of the URI `rollbook:kind:name`, if there is one.
    pub principal: Option<Principal>,
    /// The common name, if there is exactly one, of letters, digits, `_`, `-`, `.`, `@` and `+`.
    pub common_name: Option<String>,
    /// The account of Xbus for which this cluster has signed the certificate, if it is such a certificate.
    pub account: Option<String>,
    /// SHA-256 of the certificate in hex.
    pub fingerprint: String,
    /// The serial number in hex.
    pub serial: String,
    /// After this time the certificate is invalid, and what it was shown for ends.
    pub not_after: SystemTime,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate in DER, or a part of it cannot be read.
    #[error("the client certificate cannot be read; issue a new X.509 v3 certificate")]
    Malformed,
    /// More than one URI of ours.
    #[error("the client certificate has more than one URI `rollbook:kind:name`; issue one with a single URI")]
    SeveralUris,
    /// A URI of ours that names no principal.
    #[error("a URI of the client certificate begins with `rollbook:` but is not `rollbook:kind:name`; issue a new one")]
    BadUri,
}

/// Reads the names of a certificate in DER.
///
/// # Errors
/// The certificate cannot be read, or its URIs are not clear.
pub fn names(der: &[u8]) -> Result<CertificateNames, CertificateError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::Malformed);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    Ok(CertificateNames {
        principal: principal(&certificate)?,
        account: account(&certificate),
        common_name: common_name(&certificate),
        fingerprint: hex(&sha256(der)),
        serial: hex(certificate.raw_serial()),
        not_after: time(certificate.validity().not_after.timestamp()),
    })
}

fn principal(certificate: &X509Certificate<'_>) -> Result<Option<Principal>, CertificateError> {
    let alternative = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    let mut found = None;
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        let uri = match name {
            GeneralName::URI(uri) => *uri,
            GeneralName::Invalid(..) => return Err(CertificateError::Malformed),
            _ => continue,
        };
        // The scheme of a URI has no case. What looks like ours must be exactly ours.
        if !uri.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
            continue;
        }
        let name = uri.strip_prefix(SCHEME).and_then(named).ok_or(CertificateError::BadUri)?;
        if found.replace(name).is_some() {
            return Err(CertificateError::SeveralUris);
        }
    }
    Ok(found)
}

/// The account that our own CA has named.
fn account(certificate: &X509Certificate<'_>) -> Option<String> {
    let alternative = certificate.subject_alternative_name().ok()??;
    alternative.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(ACCOUNT_SCHEME).map(str::to_owned),
        _ => None,
    })
}

/// A principal that has a name.
fn named(text: &str) -> Option<Principal> {
    text.parse().ok().filter(|principal: &Principal| !principal.is_anonymous())
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else { return None };
    let name = name.as_str().ok()?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@' | b'+');
    let fits = (1..=COMMON_NAME_BYTES_MAX).contains(&name.len());
    (fits && name.bytes().all(legal)).then(|| name.to_owned())
}

fn time(seconds: i64) -> SystemTime {
    // A time before 1970 is over anyhow.
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// Bytes as lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    fn certificate(common_names: &[&str], uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
        params.serial_number = Some(SerialNumber::from(vec![0x01, 0xab, 0xcd]));
        params.not_after = rcgen::date_time_ymd(2031, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri_of(uris: &[&str]) -> Result<Option<String>, CertificateError> {
        Ok(names(&certificate(&["x"], uris))?.principal.map(|name| name.to_string()))
    }

    #[test]
    fn a_certificate_says_its_names_its_serial_and_its_end() {
        let der = certificate(&["billing.example"], &["https://example.com/", "rollbook:service:billing"]);
        let names = names(&der).unwrap();
        assert_eq!(names.principal.map(|name| name.to_string()).as_deref(), Some("service:billing"));
        assert_eq!(names.common_name.as_deref(), Some("billing.example"));
        assert_eq!(names.serial, "01abcd");
        assert_eq!(names.not_after, UNIX_EPOCH + Duration::from_secs(1_925_078_400));
        assert_eq!(names.fingerprint, hex(&sha256(&der)));
        assert_eq!(names.fingerprint.len(), 64);
    }

    #[test]
    fn a_certificate_with_two_uris_of_ours_names_nobody() {
        let two = ["rollbook:service:a", "rollbook:service:b"];
        assert_eq!(uri_of(&two), Err(CertificateError::SeveralUris));
        assert_eq!(uri_of(&[two[0], two[0]]), Err(CertificateError::SeveralUris));
    }

    #[test]
    fn a_uri_that_is_nearly_ours_is_an_error_and_another_one_is_not() {
        for uri in [
            "rollbook:",
            "rollbook:service",
            "rollbook:service:",
            "rollbook:root:x",
            "ROLLBOOK:service:a",
            "rollbook:service:a/b",
            "rollbook:service:a%20b",
            "rollbook://service:a",
            "rollbook:anonymous",
        ] {
            assert_eq!(uri_of(&[uri]), Err(CertificateError::BadUri), "{uri}");
        }
        assert_eq!(uri_of(&["spiffe://example.com/billing", "rollbooks:service:a"]), Ok(None));
        assert_eq!(uri_of(&[]), Ok(None));
    }

    #[test]
    fn an_odd_common_name_is_no_name() {
        let name = |common: &[&str]| names(&certificate(common, &[])).unwrap().common_name;
        assert_eq!(name(&["actor_1@x"]).as_deref(), Some("actor_1@x"));
        for odd in ["", "a b", "a:b", "a\0b", "\u{e4}", "*", &"x".repeat(65)] {
            assert_eq!(name(&[odd]), None, "{odd:?}");
        }
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn bytes_behind_the_certificate_are_refused() {
        let mut der = certificate(&["x"], &[]);
        der.push(0);
        assert_eq!(names(&der), Err(CertificateError::Malformed));
        assert_eq!(names(&vec![0x30; CERTIFICATE_BYTES_MAX + 1]), Err(CertificateError::Malformed));
        assert_eq!(names(&[]), Err(CertificateError::Malformed));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        ) {
            prop_assert!(names(&bytes).is_err());
            let mut der = certificate(&["x"], &["rollbook:service:a"]);
            for (at, byte) in changes {
                *at.get_mut(&mut der) = byte;
            }
            if let Ok(names) = names(&der) {
                prop_assert_eq!(names.fingerprint.len(), 64);
            }
        }
    }
}
