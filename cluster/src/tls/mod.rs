//! Mutual TLS between nodes: each end shows a certificate of the cluster's CA that names its node.
//!
//! TLS 1.3 alone, and no session is resumed, so every connection proves its certificate anew. A node is named by
//! the DNS name `node-<id>.rollbook.internal`, wherever it listens. Certificates are read once: load again, and
//! use the new [`Tls`] for new connections, to change them. The CA's own dates are not looked at.

use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Domain of the names of nodes.
pub const NODE_DOMAIN: &str = "rollbook.internal";
/// Longest handshake: a silent peer must not hold a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the files of [`Tls::load`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("there is no {item} in {} (PEM is expected)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        item: &'static str,
    },
    /// A file holds something that cannot be used.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    KeyMismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// Other nodes would refuse the certificate.
    #[error("{} is no certificate of node {node} under {}: {reason}", certificate.display(), ca.display())]
    Refused {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the CA.
        ca: PathBuf,
        /// The node that wants to use it.
        node: u64,
        /// Why it would be refused.
        reason: String,
    },
}

/// The files of one node, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the CAs whose certificates are trusted.
    pub ca: PathBuf,
    /// Certificate of this node, followed by those between it and the CA.
    pub certificate: PathBuf,
    /// Private key of that certificate.
    pub key: PathBuf,
}

/// Both ends of mutual TLS, for connections to and from other nodes.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    own: Arc<CertifiedKey>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

/// Leaves out keys and certificates.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. [`check`](Self::check) and the handshakes show whether the certificate is of the CA and
    /// in its time.
    ///
    /// # Errors
    /// When a file cannot be used; the error names it.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // An explicit provider, because the program around this crate may have set another one for the process.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(&files.ca)?);
        let own = Arc::new(certified_key(&files.certificate, &files.key, &provider)?);
        let unusable = |reason: String| TlsError::Unusable { path: files.ca.clone(), reason };
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let servers = servers.map_err(|error| unusable(error.to_string()))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let clients = clients.map_err(|error| unusable(error.to_string()))?;
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&own)));

        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| unusable(error.to_string()))?;
        let mut client = builder.with_webpki_verifier(Arc::clone(&servers)).with_client_cert_resolver(resolver.clone());
        client.resumption = Resumption::disabled();

        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| unusable(error.to_string()))?;
        let mut server = builder.with_client_cert_verifier(Arc::clone(&clients)).with_cert_resolver(resolver);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let (connector, acceptor) = (Arc::new(client).into(), Arc::new(server).into());
        Ok(Self { files: Arc::new(files.clone()), own, servers, clients, connector, acceptor })
    }

    /// Looks at the own certificate as other nodes will: it must be of the CA, valid now, for both directions, and
    /// of node `node`.
    ///
    /// # Errors
    /// When other nodes would refuse it.
    pub fn check(&self, node: u64) -> Result<(), TlsError> {
        self.check_own(node).map_err(|reason| TlsError::Refused {
            certificate: self.files.certificate.clone(),
            ca: self.files.ca.clone(),
            node,
            reason,
        })
    }

    fn check_own(&self, node: u64) -> Result<(), String> {
        let name = server_name(node).map_err(|error| error.to_string())?;
        let (end, between) = self.own.cert.split_first().ok_or("there is none")?;
        let now = UnixTime::now();
        self.servers.verify_server_cert(end, between, &name, &[], now).map_err(|error| words(&error))?;
        self.clients.verify_client_cert(end, between, now).map_err(|error| words(&error))?;
        let nodes = nodes_of(end).map_err(|error| error.to_string())?;
        if nodes.contains(&node) { Ok(()) } else { Err(format!("it does not name {}", node_name(node))) }
    }

    /// Makes a connection to a node secure. The other end must show a certificate of the CA that names node `node`.
    ///
    /// In TLS 1.3 this end completes before the other end has seen its certificate: a refusal of the certificate shows
    /// at the first read.
    ///
    /// # Errors
    /// When the connection breaks, the handshake takes too long, or the other end is not that node.
    pub async fn connect<S>(&self, tcp: S, node: u64) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = format!("node {node}");
        let stream = in_time(HANDSHAKE_TIMEOUT, &peer, self.connector.connect(server_name(node)?, tcp)).await?;
        // A wildcard is good enough for TLS, but names no node.
        let nodes = nodes_of_peer(stream.get_ref().1.peer_certificates()).map_err(|error| failed(&peer, error))?;
        if nodes.contains(&node) {
            return Ok(stream);
        }
        Err(failed(&peer, io::Error::new(io::ErrorKind::InvalidData, "its certificate is not that of this node")))
    }

    /// Makes a connection from a node secure and returns the nodes that the certificate of the other end names; `peer`
    /// stands in errors. The certificate is of the CA, but may name no node: the caller decides what it permits.
    ///
    /// # Errors
    /// When the connection breaks, the handshake takes too long, or the other end has no certificate of the CA.
    pub async fn accept<S>(&self, tcp: S, peer: &str) -> io::Result<(server::TlsStream<S>, Vec<u64>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = in_time(HANDSHAKE_TIMEOUT, peer, self.acceptor.accept(tcp)).await?;
        let nodes = nodes_of_peer(stream.get_ref().1.peer_certificates()).map_err(|error| failed(peer, error))?;
        Ok((stream, nodes))
    }
}

/// The name of a node in certificates.
#[must_use]
pub fn node_name(node: u64) -> String {
    format!("node-{node}.{NODE_DOMAIN}")
}

/// The node of a name. One node has one name: no sign, no zeros in front.
fn node_of(name: &str) -> Option<u64> {
    let (label, _) = name.split_once('.')?;
    let node = label.get("node-".len()..)?.parse().ok()?;
    node_name(node).eq_ignore_ascii_case(name).then_some(node)
}

fn server_name(node: u64) -> io::Result<ServerName<'static>> {
    ServerName::try_from(node_name(node)).map_err(io::Error::other)
}

fn nodes_of(certificate: &CertificateDer<'_>) -> Result<Vec<u64>, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(certificate)?;
    let mut nodes: Vec<u64> = certificate.valid_dns_names().filter_map(node_of).collect();
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}

fn nodes_of_peer(certificates: Option<&[CertificateDer<'_>]>) -> io::Result<Vec<u64>> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let end = certificates.and_then(<[_]>::first).ok_or_else(|| invalid("it showed no certificate".to_owned()))?;
    nodes_of(end).map_err(|error| invalid(error.to_string()))
}

async fn in_time<S>(limit: Duration, peer: &str, handshake: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    let done = tokio::time::timeout(limit, handshake).await;
    done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
        .map_err(|error| failed(peer, error))
}

fn failed(peer: &str, error: io::Error) -> io::Error {
    let known = error.get_ref().and_then(|inner| inner.downcast_ref());
    let reason = known.map_or_else(|| error.to_string(), words);
    io::Error::new(error.kind(), format!("TLS with {peer} failed: {reason}"))
}

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is not of our CA".to_owned()
        }
        // The issuer was found by its name.
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the certificate is of another CA, which has the name of ours".to_owned()
        }
        other => other.to_string(),
    }
}

/// The certificates of a file of CAs, as roots of trust.
///
/// # Errors
/// The file cannot be read, is no PEM, or has no certificate or one that cannot be a root.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::Unusable { path: path.to_path_buf(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// A certificate with those between it and the CA, and its private key.
///
/// # Errors
/// A file cannot be read or is no PEM, or the key belongs to another certificate; the error names the file.
pub fn certified_key(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let bytes = read(key)?;
    let unusable = |path: &Path, reason: String| TlsError::Unusable { path: path.to_path_buf(), reason };
    let parsed = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty { path: key.to_path_buf(), item: "private key" },
        other => unusable(key, other.to_string()),
    })?;
    let signer = provider.key_provider.load_private_key(parsed);
    let own = CertifiedKey::new(chain, signer.map_err(|error| unusable(key, error.to_string()))?);
    match own.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(own),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { key: key.to_path_buf(), certificate: certificate.to_path_buf() })
        }
        Err(error) => Err(unusable(certificate, error.to_string())),
    }
}

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| TlsError::Unusable { path: path.to_path_buf(), reason: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_path_buf(), item: "certificate" });
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests;
