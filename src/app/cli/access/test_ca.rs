//! A CA for the tests of the command line and of the benchmark.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// A CA for tests, and the certificates that it has signed.
pub(crate) struct TestCa {
    pub(crate) file: PathBuf,
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate.
pub(crate) struct TestLeaf {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl TestCa {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { file, folder: folder.to_owned(), issuer }
    }

    /// A certificate for clients, and for a server at 127.0.0.1.
    pub(crate) fn leaf(&self, name: &str) -> TestLeaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let [certificate, key_file] = ["pem", "key"].map(|end| self.folder.join(format!("{name}.{end}")));
        std::fs::write(&certificate, pem).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        TestLeaf { certificate, key: key_file }
    }

    /// The settings of a server, which wants a certificate of this CA from its clients if so told.
    pub(crate) fn server(&self, wants_certificate: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let leaf = self.leaf("server");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.file).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = match wants_certificate {
            true => builder.with_client_cert_verifier(verifier.build().unwrap()),
            false => builder.with_no_client_auth(),
        };
        let chain = vec![CertificateDer::from_pem_file(&leaf.certificate).unwrap()];
        builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(&leaf.key).unwrap()).unwrap()
    }
}
