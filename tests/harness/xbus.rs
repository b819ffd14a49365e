//! Keys of programs that register accounts of Xbus.

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

/// The key of a program.
pub(crate) struct Program {
    key: KeyPair,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { key: KeyPair::generate().expect("a key") }
    }

    /// The private key, PEM.
    pub(crate) fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate request under this name, PEM.
    pub(crate) fn request(&self, name: &str) -> String {
        let request = params(name).serialize_request(&self.key).expect("a request");
        request.pem().expect("PEM")
    }

    /// A certificate for the key under this name, as accounts have them, PEM. Nobody's authority has signed it.
    pub(crate) fn certificate(&self, name: &str) -> String {
        let mut params = params(name);
        let uri = format!("xbus-account:{name}");
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).expect("ASCII"))];
        params.self_signed(&self.key).expect("a certificate").pem()
    }
}
