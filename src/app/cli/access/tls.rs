//! TLS of the commands and of the benchmark: the CAs that are trusted, and the certificate that a client presents.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::app::cli::shared::error::Usage;

/// Where the PEM files of a client are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The CAs that may sign the certificate of a node. `None` means those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The certificate that the client presents, with its chain.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate. `None` means that the key is in the file of the certificate.
    pub(crate) key: Option<PathBuf>,
}

impl TlsFiles {
    /// Loads the files into the settings of TLS connections: 1.2 or 1.3, with session resumption.
    ///
    /// # Errors
    /// A file is missing or holds something else, the key is not that of the certificate, or the system has no CAs.
    pub(crate) fn config(&self) -> anyhow::Result<ClientConfig> {
        let roots = match &self.ca {
            Some(path) => roots_in(path)?,
            None => roots_of_the_system()?,
        };
        let builder = builder()?.with_root_certificates(roots);
        let Some(path) = &self.certificate else {
            if let Some(key) = &self.key {
                bail!(Usage(format!("the key {} needs --certificate as well", key.display())));
            }
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(path)?;
        let key_path = self.key.as_ref().unwrap_or(path);
        let key = PrivateKeyDer::from_pem_slice(&read(key_path)?).map_err(|_| {
            Usage(format!("{} holds no private key in PEM; pass --certificate-key", key_path.display()))
        })?;
        builder
            .with_client_auth_cert(chain, key)
            .with_context(|| format!("{} and {} do not fit together", path.display(), key_path.display()))
    }
}

/// The settings of a client that never speaks TLS: nothing is loaded, nothing is trusted.
///
/// # Errors
/// The TLS library does not know its own versions.
pub(crate) fn none() -> anyhow::Result<ClientConfig> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.context("cannot set up TLS")
}

fn roots_in(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.with_context(|| format!("{} holds a certificate that cannot be a CA", path.display()))?;
    }
    Ok(roots)
}

fn roots_of_the_system() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // One file among hundreds that is broken does not matter.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        bail!("this system trusts no CA: install its package ca-certificates, or pass --ca FILE");
    }
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => bail!(Usage(format!("{} holds no certificate in PEM", path.display()))),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::access::test_ca::TestCa;

    fn refused(files: &TlsFiles) -> String {
        format!("{:#}", files.config().unwrap_err())
    }

    #[test]
    fn a_file_that_is_missing_or_holds_something_else_is_named() {
        let here = tempfile::tempdir().unwrap();
        let ca = TestCa::new(here.path());
        let (ann, bob) = (ca.leaf("ann"), ca.leaf("bob"));
        let gone = here.path().join("gone.pem");
        let files = |ca: &PathBuf, certificate: Option<&PathBuf>, key: Option<&PathBuf>| TlsFiles {
            ca: Some(ca.clone()),
            certificate: certificate.cloned(),
            key: key.cloned(),
        };
        files(&ca.file, Some(&ann.certificate), Some(&ann.key)).config().unwrap();
        for (files, part) in [
            (files(&gone, None, None), "gone.pem"),
            (files(&ann.key, None, None), "ann.key holds no certificate in PEM"),
            (files(&ca.file, Some(&ann.certificate), None), "ann.pem holds no private key in PEM"),
            (files(&ca.file, Some(&ann.certificate), Some(&bob.key)), "do not fit together"),
            (files(&ca.file, None, Some(&ann.key)), "needs --certificate"),
        ] {
            let text = refused(&files);
            assert!(text.contains(part) && !text.contains("PRIVATE"), "{part}: {text}");
        }
    }

    #[test]
    fn one_file_may_hold_certificate_and_key() {
        let here = tempfile::tempdir().unwrap();
        let ca = TestCa::new(here.path());
        let ann = ca.leaf("ann");
        let both = here.path().join("both.pem");
        fs::write(&both, [fs::read(&ann.certificate).unwrap(), fs::read(&ann.key).unwrap()].concat()).unwrap();
        TlsFiles { ca: Some(ca.file), certificate: Some(both), key: None }.config().unwrap();
    }
}
