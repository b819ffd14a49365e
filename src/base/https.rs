//! The client of HTTP and HTTPS, for everything of rollbook that calls a server.

use std::path::Path;
use std::sync::Once;

use rustls::crypto::aws_lc_rs;

/// Largest file of CA certificates that is read.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// Starts a client that trusts the CAs of the system and no proxy of the environment: a proxy would catch calls to
/// loopback and hold back streams.
#[expect(clippy::disallowed_methods, reason = "the one place that makes sure of the cryptography")]
pub fn client() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    // reqwest is built without cryptography of its own, and takes what the process has. There may be a provider already,
    // from a program that uses rollbook as a library; then that one is used.
    PROVIDER.call_once(|| drop(aws_lc_rs::default_provider().install_default()));
    reqwest::Client::builder().no_proxy()
}

/// Reads a PEM file of CA certificates that are trusted beside those of the system.
///
/// # Errors
/// Says what is wrong with the file.
pub fn read_ca_file(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    use std::io::Read as _;

    let shown = path.display();
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    file.take(CA_BYTES_MAX).read_to_end(&mut pem).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let found =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("{shown} cannot be used: {error}"))?;
    if found.is_empty() {
        return Err(format!("there is no certificate in {shown} (PEM is expected)"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_for_https_can_be_built() {
        client().https_only(true).build().expect("there is a provider of cryptography");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(read_ca_file(&path).unwrap_err().contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(read_ca_file(&path).unwrap_err().contains("ca.pem"));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(&path, certificate.pem().repeat(2)).unwrap();
        assert_eq!(read_ca_file(&path).map(|found| found.len()), Ok(2));
    }
}
