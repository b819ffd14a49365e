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
        if let Some(tls) = present.downcast_ref::<rustls::Error>() {
            return Some(advice_for(tls));
        }
        let io = present.downcast_ref::<io::Error>();
        // The other side closed in the middle of a handshake.
        if scheme == "https" && error.is_connect() && io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return Some(NO_TLS);
        }
        last = present.to_string();
        // The error inside an error of a stream is not its source.
        cause = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => present.source(),
        };
    }
    // A listener with TLS answers with an alert, which is no HTTP.
    (scheme == "http" && last.contains("invalid HTTP version"))
        .then_some("; the listener may speak TLS: write https://")
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
