//! TLS as clients speak it: certificates of `rollbook cert dev`, connections, and a tunnel for clients that speak none.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::SOON;
use super::node::{Options, rollbook, run_command};

/// A CA of its own, with a certificate for listeners and those of some clients.
pub(crate) struct Authority {
    directory: TempDir,
}

/// A TLS connection of a test.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    /// Makes the CA, a certificate for the listeners, and one for each of these clients (`user:alice`).
    pub(crate) fn new(clients: &[&str]) -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        authority.make(&clients.iter().flat_map(|client| ["--client", client]).collect::<Vec<_>>());
        authority
    }

    fn make(&self, args: &[&str]) {
        let mut make = rollbook();
        make.args(["cert", "dev", "--dir"]).arg(self.directory.path()).args(args);
        let made = run_command(make, b"", SOON);
        assert_eq!(made.code, Some(0), "{made:?}");
    }

    /// Makes another certificate for the listeners, of the same CA.
    pub(crate) fn renew(&self) {
        for name in ["server.pem", "server.key"] {
            std::fs::remove_file(self.path(name)).expect("remove the certificate before");
        }
        self.make(&[]);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// A node whose listeners have the certificate.
    pub(crate) fn options(&self) -> Options {
        let options = Options::new().arg("--tls-certificate").arg(&self.text("server.pem"));
        options.arg("--tls-key").arg(&self.text("server.key")).arg("--tls-client-ca").arg(&self.text("ca.pem"))
    }

    /// A client that trusts the CA and has the certificate of `client` (`user-alice`), if one is named.
    pub(crate) fn client(&self, client: Option<&str>) -> Arc<ClientConfig> {
        if let Some(client) = client {
            return self.client_of(self, client);
        }
        Arc::new(self.trusting().with_no_client_auth())
    }

    fn trusting(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        builder.with_root_certificates(roots(&self.path("ca.pem")))
    }

    /// A client that trusts this CA and has a certificate of another one.
    pub(crate) fn client_of(&self, other: &Self, client: &str) -> Arc<ClientConfig> {
        let certificate = certificate(&other.path(&format!("{client}.pem")));
        let key = PrivateKeyDer::from_pem_file(other.path(&format!("{client}.key"))).expect("a key");
        Arc::new(self.trusting().with_client_auth_cert(vec![certificate], key).expect("a pair"))
    }

    /// Handshakes, and gives the connection.
    pub(crate) fn try_connect(&self, to: SocketAddr, client: Option<&str>) -> std::io::Result<Secure> {
        let tcp = TcpStream::connect(to)?;
        tcp.set_read_timeout(Some(SOON))?;
        secure(tcp, self.client(client))
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> Secure {
        self.try_connect(to, None).unwrap_or_else(|error| panic!("no TLS with {to}: {error}"))
    }

    /// The certificate that new connections see.
    pub(crate) fn served(&self, to: SocketAddr) -> Vec<u8> {
        let stream = self.connect(to);
        stream.conn.peer_certificates().and_then(<[_]>::first).expect("a certificate").to_vec()
    }

    /// The certificate in a file, as a connection shows it.
    pub(crate) fn certificate(&self, name: &str) -> Vec<u8> {
        certificate(&self.path(name)).to_vec()
    }

    /// A client that trusts this CA and has this certificate, both in PEM.
    pub(crate) fn client_with(&self, certificate: &str, key: &str) -> Arc<ClientConfig> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        Arc::new(self.trusting().with_client_auth_cert(vec![certificate], key).expect("a pair"))
    }

    /// An address at which the node is without TLS, for as long as the process lives.
    pub(crate) fn tunnel(&self, to: SocketAddr) -> SocketAddr {
        tunnel(to, self.client(None))
    }
}

/// An address at which a node is without TLS for one kind of client, for as long as the process lives. A handshake that
/// fails ends the connection.
pub(crate) fn tunnel(to: SocketAddr, client: Arc<ClientConfig>) -> SocketAddr {
    let connector = TlsConnector::from(client);
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("its address")).expect("a test that waits");
            while let Ok((mut near, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let far = tokio::net::TcpStream::connect(to).await.expect("connect");
                    near.set_nodelay(true).expect("an option");
                    far.set_nodelay(true).expect("an option");
                    let Ok(mut far) = connector.connect(localhost(), far).await else { return };
                    // How it ends is the business of the test.
                    tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
                });
            }
        });
    });
    address.recv_timeout(SOON).expect("a tunnel")
}

fn roots(path: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(path)).expect("a CA");
    roots
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Handshakes on a connection, over which something may have been sent.
pub(crate) fn secure(tcp: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<Secure> {
    let session = ClientConnection::new(config, localhost()).expect("a session");
    let mut stream = StreamOwned::new(session, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request and reads until the connection ends. An end that is none of TLS is an error.
pub(crate) fn exchange(stream: &mut Secure, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
