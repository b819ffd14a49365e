//! What a user can do about a connection that TLS, or the lack of TLS, keeps from being made.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// The advice when a listener answers no handshake.
const NO_TLS: &str = "; the listener may not speak TLS: write http://";

/// The advice for a failed request to a URL of that scheme. `None` means that TLS is not the reason.
pub(in crate::app::cli) fn advice(error: &reqwest::Error, scheme: &str) -> Option<&'static str> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(present) = cause {
        if let Some(tls) = tls_error(present) {
            return Some(advice_for(tls));
        }
        if scheme == "https" && error.is_connect() && ended(present) {
            return Some(NO_TLS);
        }
        last = present.to_string();
        cause = present.source();
    }
    // A listener with TLS answers with an alert, which is no HTTP.
    (scheme == "http" && last.contains("invalid HTTP version"))
        .then_some("; the listener may speak TLS: write https://")
}

/// Whether the other side closed in the middle of a handshake.
fn ended(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

/// The error of the TLS library, which the error of a stream keeps inside.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| inner?.downcast_ref())
}

fn advice_for(error: &rustls::Error) -> &'static str {
    use AlertDescription as Alert;
    use rustls::Error as Tls;
    match error {
        // A CA of the same name with another key signs nothing that fits.
        Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; pass the CA of the node with --ca, or store it with `rollbook login --ca FILE`"
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "; use the name or address that the certificate of the node was made for",
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "; the node needs a new certificate, or the clock of this machine is wrong"
        }
        Tls::InvalidMessage(_) => NO_TLS,
        Tls::AlertReceived(Alert::CertificateRequired) => "; the node wants a client certificate: pass --certificate",
        Tls::AlertReceived(
            Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::DecryptError,
        ) => "; the node does not accept the client certificate of --certificate",
        _ => "",
    }
}
