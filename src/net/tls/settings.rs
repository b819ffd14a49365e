//! The section `[tls]` of the configuration, and what each listener may say differently.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate of the listeners for clients, followed by those between it and its CA, PEM. Empty means no TLS.
    pub certificate: PathBuf,
    /// Private key of that certificate, PEM.
    pub key: PathBuf,
    /// Certificates of the CAs whose certificates clients may show, PEM.
    pub client_ca: PathBuf,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Clients are not asked.
    #[default]
    Off,
    /// Clients may show a certificate. A certificate that is not of `tls.client_ca` ends the connection.
    Optional,
    /// Clients have to show a certificate of `tls.client_ca`.
    Required,
}

/// Whether a listener speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// The listener speaks TLS when `tls.certificate` is set.
    #[default]
    Auto,
    /// The listener speaks TLS; without a certificate the node does not start.
    On,
    /// The listener speaks no TLS.
    Off,
}

/// What a listener asks of its clients, when that differs from `[tls]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnClientCertificates {
    /// The same as `tls.client_certificates`.
    #[default]
    Auto,
    /// Clients are not asked.
    Off,
    /// Clients may show a certificate.
    Optional,
    /// Clients have to show a certificate.
    Required,
}

/// What one listener says about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerTls {
    /// Whether the listener speaks TLS.
    pub mode: TlsMode,
    /// What the listener asks of its clients.
    pub client_certificates: OwnClientCertificates,
    /// Whether the listener knows CAs of clients beside those of `tls.client_ca`. Clients may show a certificate then.
    pub own_client_ca: bool,
}

/// Whether a path was given.
fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

impl TlsSettings {
    /// Whether there is a certificate for the listeners.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        is_set(&self.certificate)
    }

    /// The file of the CAs of clients, if there is one.
    #[must_use]
    pub fn client_ca(&self) -> Option<&Path> {
        Some(self.client_ca.as_path()).filter(|path| is_set(path))
    }

    /// Whether a listener speaks TLS under these settings.
    #[must_use]
    pub fn serves(&self, listener: ListenerTls) -> bool {
        listener.mode != TlsMode::Off && self.has_certificate()
    }

    /// What a listener asks of its clients under these settings.
    #[must_use]
    pub const fn asks(&self, listener: ListenerTls) -> ClientCertificates {
        match listener.client_certificates {
            OwnClientCertificates::Auto if listener.own_client_ca => ClientCertificates::Optional,
            OwnClientCertificates::Auto => self.client_certificates,
            OwnClientCertificates::Off => ClientCertificates::Off,
            OwnClientCertificates::Optional => ClientCertificates::Optional,
            OwnClientCertificates::Required => ClientCertificates::Required,
        }
    }

    /// Finds what is wrong in the section although each value is valid.
    pub fn check(&self, checks: &mut Checks) {
        let (certificate, key) = (self.has_certificate(), is_set(&self.key));
        checks.require(
            !certificate || key,
            "tls.key",
            "tls.certificate is set without its private key; write tls.key = \"FILE\" (--tls-key FILE)",
        );
        checks.require(
            certificate || !key,
            "tls.certificate",
            "tls.key is set without its certificate; write tls.certificate = \"FILE\" (--tls-certificate FILE)",
        );
        checks.require(
            certificate || !is_set(&self.client_ca),
            "tls.client_ca",
            "clients show certificates over TLS only; set tls.certificate and tls.key too",
        );
        checks.require(
            self.client_certificates == ClientCertificates::Off || is_set(&self.client_ca),
            "tls.client_certificates",
            "nobody could tell whose certificates count; write tls.client_ca = \"FILE\" (--tls-client-ca FILE)",
        );
    }

    /// Finds what is wrong between the section and a listener, whose setting `tls` has this key.
    pub fn check_listener(&self, checks: &mut Checks, key: &'static str, listener: ListenerTls) {
        checks.require(
            listener.mode != TlsMode::On || self.has_certificate(),
            key,
            "TLS needs a certificate; set tls.certificate and tls.key (see `rollbook cert dev`), or write auto",
        );
        let own = !matches!(listener.client_certificates, OwnClientCertificates::Auto | OwnClientCertificates::Off);
        checks.require(
            !own || (self.serves(listener) && (listener.own_client_ca || is_set(&self.client_ca))),
            key,
            "client_certificates of this listener needs TLS, and tls.client_ca to tell whose certificates count",
        );
        let asked = self.serves(listener) && listener.client_certificates != OwnClientCertificates::Off;
        checks.require(
            !listener.own_client_ca || asked,
            key,
            "accounts of this listener show certificates: it needs TLS, and client_certificates other than off",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(settings: &TlsSettings, listener: ListenerTls) -> Vec<&'static str> {
        let mut checks = Checks::default();
        settings.check(&mut checks);
        settings.check_listener(&mut checks, "web.tls", listener);
        checks.into_findings().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn half_of_a_pair_is_refused() {
        let (mode, client_certificates) = (TlsMode::On, OwnClientCertificates::Required);
        let own_client_ca = false;
        let (plain, strict) = (ListenerTls::default(), ListenerTls { mode, client_certificates, own_client_ca });
        let mut settings = TlsSettings::default();
        assert_eq!(findings(&settings, plain), [""; 0]);
        assert_eq!(findings(&settings, strict), ["web.tls", "web.tls"]);
        settings.certificate = "server.pem".into();
        assert_eq!(findings(&settings, plain), ["tls.key"]);
        settings.key = "server.key".into();
        assert_eq!(findings(&settings, plain), [""; 0]);
        assert_eq!(findings(&settings, strict), ["web.tls"], "no CA of clients");
        settings.client_certificates = ClientCertificates::Optional;
        assert_eq!(findings(&settings, plain), ["tls.client_certificates"]);
        settings.client_ca = "ca.pem".into();
        assert_eq!(findings(&settings, strict), [""; 0]);
        let off = ListenerTls { mode: TlsMode::Off, client_certificates, own_client_ca };
        assert_eq!(findings(&settings, off), ["web.tls"], "without TLS nobody shows a certificate");
        settings.certificate = PathBuf::new();
        assert_eq!(findings(&settings, plain), ["tls.certificate", "tls.client_ca"]);
    }

    #[test]
    fn a_listener_follows_the_section_unless_it_says_otherwise() {
        let mut settings = TlsSettings::default();
        assert!(!settings.serves(ListenerTls::default()));
        settings.certificate = "server.pem".into();
        settings.client_certificates = ClientCertificates::Required;
        assert!(settings.serves(ListenerTls::default()));
        assert_eq!(settings.asks(ListenerTls::default()), ClientCertificates::Required);
        let off = OwnClientCertificates::Off;
        let own = ListenerTls { mode: TlsMode::Off, client_certificates: off, ..ListenerTls::default() };
        assert!(!settings.serves(own));
        assert_eq!(settings.asks(own), ClientCertificates::Off);
    }

    #[test]
    fn clients_of_a_listener_with_a_ca_of_its_own_may_show_a_certificate() {
        let own = ListenerTls { own_client_ca: true, ..ListenerTls::default() };
        let mut settings = TlsSettings::default();
        assert_eq!(findings(&settings, own), ["web.tls"], "without TLS nobody shows a certificate");
        (settings.certificate, settings.key) = ("server.pem".into(), "server.key".into());
        assert_eq!((findings(&settings, own), settings.asks(own)), (vec![], ClientCertificates::Optional));
        let required = ListenerTls { client_certificates: OwnClientCertificates::Required, ..own };
        assert_eq!((findings(&settings, required), settings.asks(required)), (vec![], ClientCertificates::Required));
        let off = ListenerTls { client_certificates: OwnClientCertificates::Off, ..own };
        assert_eq!(findings(&settings, off), ["web.tls"]);
    }
}
