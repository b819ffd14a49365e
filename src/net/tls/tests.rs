//! A listener over TLS with real clients: what a door learns of its client, and which pairs of files are taken.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use super::certificates::{Certificates, Policy};
use super::settings::{ClientCertificates, ListenerTls, TlsSettings};
use crate::base::metrics::Metrics;
use crate::net::http::hosts::Hosts;
use crate::net::http::settings::HttpSettings;
use crate::net::listener::connects::Connects;
use crate::net::listener::listeners::{Listeners, Shared};
use crate::net::listener::settings::ListenerSettings;
use crate::net::peer::Peer;

/// A folder with `ca.pem`, `server.pem`, `server.key`, `alice.pem` and `alice.key`.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        files.write("ca.pem", &ca.pem());
        for (name, host) in [("server", "localhost"), ("alice", "alice.test")] {
            files.sign(name, CertificateParams::new([host.to_owned()]).unwrap(), &ca);
        }
        let mut expired = CertificateParams::new(["localhost".to_owned()]).unwrap();
        expired.not_after = date_time_ymd(2020, 1, 1);
        files.sign("expired", expired, &ca);
        files
    }

    fn sign(&self, name: &str, mut params: CertificateParams, ca: &CertifiedIssuer<'_, KeyPair>) {
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.pem"), &params.signed_by(&key, ca).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn settings(&self, client_certificates: ClientCertificates) -> TlsSettings {
        let [certificate, key, client_ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.0.path().join(name));
        TlsSettings { certificate, key, client_ca, client_certificates }
    }

    fn client(&self, name: Option<&str>) -> ClientConfig {
        let file = |name: &str| self.0.path().join(name);
        let certificate = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&file("ca.pem"))).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let Some(name) = name else { return builder.with_no_client_auth() };
        let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
        builder.with_client_auth_cert(vec![certificate(&file(&format!("{name}.pem")))], key).unwrap()
    }

    async fn connect(&self, to: SocketAddr, name: Option<&str>) -> client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(to).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.client(name)));
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
    }

    fn der(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.0.path().join(name)).unwrap()
    }
}

/// What a door tells about its client.
fn told(peer: &Peer) -> String {
    let certificate = peer.certificate.as_ref().map_or(0, |der| crc32(der));
    format!("tls={} certificate={certificate}\n", peer.tls)
}

/// Tells certificates apart.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Two listeners, `web` over HTTP and `line` over TCP, that tell each client about itself.
fn listeners(files: &Files, asked: ClientCertificates) -> (Listeners, SocketAddr, SocketAddr) {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (web, line) = (bind(), bind());
    let addresses = (web.local_addr().unwrap(), line.local_addr().unwrap());
    let shared = Shared {
        hosts: Hosts::default(),
        metrics: Metrics::default(),
        certificates: Some(Certificates::load(&files.settings(asked)).unwrap()),
        connects: Connects::new(&Default::default()),
    };
    let mut listeners = Listeners::new(vec![("web", web), ("line", line)], shared, 1, Duration::from_secs(1));
    let settings = |name| {
        let (proxy_protocol_from, tls) = (Default::default(), ListenerTls::default());
        ListenerSettings { name, connections_max: 10, proxy_protocol_from, tls, client_ca: None, greeting: None }
    };
    let http = HttpSettings {
        hosts: Hosts::default(),
        idle_timeout: Duration::from_secs(75),
        websockets: false,
        refuse: Arc::new(|fault| HttpResponse::BadRequest().body(fault.text.clone())),
    };
    let tell = |request: HttpRequest| async move {
        let peer = Peer::of(&request).unwrap();
        assert_eq!(request.peer_addr(), Some(peer.address));
        HttpResponse::Ok().body(told(&peer))
    };
    let application = move || App::new().default_service(web::to(tell));
    listeners.http(1, (settings("web"), http), application).unwrap();
    let tell = |mut connection: crate::net::listener::tcp::Connection| async move {
        assert_eq!(connection.socket.peer_certificate(), connection.peer.certificate);
        connection.socket.write_all(told(&connection.peer).as_bytes()).await.unwrap();
        connection.socket.shutdown().await.unwrap();
    };
    listeners.tcp(settings("line"), b"full\n", tell).unwrap();
    (listeners, addresses.0, addresses.1)
}

#[actix_web::test]
async fn doors_of_every_protocol_learn_the_verified_certificate() {
    let files = Files::new();
    let (listeners, web, line) = listeners(&files, ClientCertificates::Optional);
    let urls: Vec<_> = listeners.urls().map(|(_, url)| url.split(':').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(urls, ["https", "tls"]);
    let alice = format!("tls=true certificate={}\n", crc32(&files.der("alice.pem")));
    for (name, want) in [(Some("alice"), alice.as_str()), (None, "tls=true certificate=0\n")] {
        let mut text = String::new();
        files.connect(line, name).await.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, want);
        let mut stream = files.connect(web, name).await;
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            while !answer.ends_with('\n') || !answer.contains("certificate=") {
                let mut chunk = [0; 1024];
                let count = stream.read(&mut chunk).await.unwrap();
                assert!(count > 0, "{answer}");
                answer.push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
            assert!(answer.ends_with(want), "{answer}");
        }
    }
    listeners.stop(false).await;
}

#[actix_web::test]
async fn a_resumed_session_still_has_its_certificate() {
    let files = Files::new();
    let (listeners, _, line) = listeners(&files, ClientCertificates::Required);
    let connector = TlsConnector::from(Arc::new(files.client(Some("alice"))));
    let want = format!("tls=true certificate={}\n", crc32(&files.der("alice.pem")));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let tcp = TcpStream::connect(line).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, want);
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
    listeners.stop(false).await;
}

#[test]
fn a_bad_pair_is_an_error_that_names_the_file_and_changes_nothing() {
    let files = Files::new();
    let settings = files.settings(ClientCertificates::Off);
    let certificates = Certificates::load(&settings).unwrap();
    let policy = Policy { client_certificates: ClientCertificates::Optional, client_ca: None, http: true };
    let listener = certificates.listener("web", policy).unwrap();
    let before = listener.config();
    let read = |name: &str| std::fs::read_to_string(files.0.path().join(name)).unwrap();
    let (certificate, key, ca) = (read("server.pem"), read("server.key"), read("ca.pem"));
    let refused = |says: &str| {
        let text = certificates.reload().unwrap_err().to_string();
        assert!(text.contains(says), "{says}: {text}");
        assert!(Certificates::load(&settings).is_err(), "{says}");
        assert!(Arc::ptr_eq(&listener.config(), &before), "{says}");
    };
    files.write("server.key", &read("alice.key"));
    refused("server.key is not the key of");
    files.write("server.pem", &read("expired.pem"));
    files.write("server.key", &read("expired.key"));
    refused("server.pem cannot be used: the certificate has been expired for");
    files.write("server.pem", &certificate);
    for (text, says) in [("", "there is no private key in"), ("-----BEGIN PRIVATE KEY-----\nx", "cannot be used")] {
        files.write("server.key", text);
        refused(says);
    }
    files.write("server.key", &key);
    files.write("ca.pem", "");
    refused("there is no certificate in");
    files.write("ca.pem", &ca);
    certificates.reload().unwrap();
    assert!(!Arc::ptr_eq(&listener.config(), &before));
    let (days, listeners) = certificates.days_left();
    assert!(days > 300.0 && listeners == ["web"], "{days} {listeners:?}");
    let shown = format!("{certificates:?} {listener:?}");
    assert!(!shown.contains("PRIVATE") && shown.contains("server.pem"), "{shown}");
}
