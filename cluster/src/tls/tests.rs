//! Who may talk to whom over mutual TLS, and what is said about files that cannot be used.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A CA with the files of nodes, in a directory of its own.
struct Ca {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        Self::named("test CA")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn files(&self, name: &str) -> TlsFiles {
        let file = |name: String| self.dir.path().join(name);
        TlsFiles {
            ca: file("ca.pem".into()),
            certificate: file(format!("{name}.pem")),
            key: file(format!("{name}.key")),
        }
    }

    /// Files with a certificate of these names.
    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let files = self.files(&names.join("+").replace('*', "any"));
        fs::write(&files.certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn tls(&self, names: &[&str]) -> Tls {
        Tls::load(&self.issue(names, |_| {})).unwrap()
    }

    fn node(&self, node: u64) -> Tls {
        self.tls(&[&node_name(node)])
    }

    fn expired(&self, node: u64) -> Tls {
        let past = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        Tls::load(&self.issue(&[&node_name(node)], past)).unwrap()
    }
}

/// Two ends of one connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// What both ends say about a connection from `client` to `server`, which should be node `node`.
async fn meet(client: &Tls, server: &Tls, node: u64) -> (io::Result<()>, io::Result<Vec<u64>>) {
    let (near, far) = pair().await;
    let near = async {
        let mut stream = client.connect(near, node).await?;
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"pong");
        Ok(())
    };
    let far = async {
        let (mut stream, nodes) = server.accept(far, "a client").await?;
        let mut question = [0; 4];
        stream.read_exact(&mut question).await?;
        assert_eq!(&question, b"ping");
        stream.write_all(b"pong").await?;
        Ok(nodes)
    };
    tokio::join!(near, far)
}

fn says<T: fmt::Debug>(result: io::Result<T>, part: &str) {
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with("TLS with ") && text.contains(part), "{part:?} is not told: {text}");
}

#[tokio::test]
async fn nodes_of_one_ca_talk_and_know_each_other() {
    let ca = Ca::new();
    let (one, two) =
        (ca.node(1), ca.tls(&[&node_name(2), "NODE-7.rollbook.INTERNAL", "db", "node-07.rollbook.internal"]));
    let (near, far) = meet(&one, &two, 2).await;
    near.unwrap();
    assert_eq!(far.unwrap(), [1]);
    let (near, far) = meet(&two, &one, 1).await;
    near.unwrap();
    assert_eq!(far.unwrap(), [2, 7]);
}

#[tokio::test]
async fn a_connection_is_not_resumed() {
    let ca = Ca::new();
    let (one, two) = (ca.node(1), ca.node(2));
    for _ in 0..2 {
        let (near, far) = pair().await;
        let (near, far) = tokio::join!(one.connect(near, 2), two.accept(far, "a client"));
        let (near, (far, _)) = (near.unwrap(), far.unwrap());
        let full = |kind| kind == Some(rustls::HandshakeKind::Full);
        assert!(full(near.get_ref().1.handshake_kind()) && full(far.get_ref().1.handshake_kind()));
        assert_eq!(near.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
}

#[tokio::test]
async fn another_ca_is_refused_by_both_ends() {
    let (ours, theirs) = (Ca::new(), Ca::named("another CA"));
    let (near, far) = meet(&ours.node(1), &theirs.node(2), 2).await;
    says(near, "not of our CA");
    assert!(far.is_err());
    // The client trusts both, so that the server decides.
    let mut files = theirs.issue(&[&node_name(1)], |_| {});
    let both = files.ca.with_file_name("both.pem");
    fs::write(&both, format!("{}{}", theirs.issuer.pem(), ours.issuer.pem())).unwrap();
    files.ca = both;
    let (near, far) = meet(&Tls::load(&files).unwrap(), &ours.node(2), 2).await;
    assert!(near.is_err());
    says(far, "not of our CA");
}

#[tokio::test]
async fn another_node_is_refused() {
    let ca = Ca::new();
    let (near, far) = meet(&ca.node(1), &ca.node(3), 2).await;
    says(near, "not valid for name \"node-2.rollbook.internal\"");
    assert!(far.is_err());
    let (near, _) = meet(&ca.node(1), &ca.tls(&["*.rollbook.internal"]), 2).await;
    says(near, "not that of this node");
    let (near, far) = meet(&ca.tls(&["somebody"]), &ca.node(2), 2).await;
    near.unwrap();
    assert_eq!(far.unwrap(), [0_u64; 0], "of the CA, but no node");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_ends() {
    let ca = Ca::new();
    let (near, far) = meet(&ca.node(1), &ca.expired(2), 2).await;
    says(near, "expired");
    assert!(far.is_err());
    let (near, far) = meet(&ca.expired(1), &ca.node(2), 2).await;
    assert!(near.is_err());
    says(far, "expired");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anonymous = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots(&ca.files("x").ca).unwrap())
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(anonymous));
    let (near, far) = pair().await;
    let server = ca.node(2);
    let near = async {
        let mut stream = connector.connect(server_name(2).unwrap(), near).await?;
        stream.read_u8().await
    };
    let (near, far) = tokio::join!(near, server.accept(far, "a client"));
    assert!(near.is_err());
    says(far, "no certificates");
}

#[tokio::test]
async fn plain_text_is_no_handshake() {
    let ca = Ca::new();
    let node = ca.node(1);
    let (mut near, far) = pair().await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    says(node.accept(far, "a client").await, "corrupt message");
    let (near, mut far) = pair().await;
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    says(node.connect(near, 2).await, "corrupt message");
    let (near, far) = pair().await;
    drop(near);
    // Handshakes are for tasks of their own.
    says(tokio::spawn(async move { node.accept(far, "a client").await }).await.unwrap(), "eof");
}

#[tokio::test]
async fn silence_ends_the_handshake() {
    let ca = Ca::new();
    let (near, _far) = pair().await;
    let handshake = ca.node(1).connector.connect(server_name(2).unwrap(), near);
    let error = in_time(Duration::from_millis(50), "node 2", handshake).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "TLS with node 2 failed: no answer in time");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let ca = Ca::new();
    let good = ca.issue(&[&node_name(1)], |_| {});
    let other = ca.issue(&[&node_name(2)], |_| {});
    let (missing, broken) = (good.ca.with_file_name("missing"), good.ca.with_file_name("broken"));
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
    let says = |files: TlsFiles, file: &Path, part: &str| {
        let text = Tls::load(&files).unwrap_err().to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains(part), "{part:?}: {text}");
    };
    says(TlsFiles { ca: missing.clone(), ..good.clone() }, &missing, "cannot read");
    says(TlsFiles { certificate: missing.clone(), ..good.clone() }, &missing, "cannot read");
    says(TlsFiles { key: missing.clone(), ..good.clone() }, &missing, "cannot read");
    says(TlsFiles { ca: good.key.clone(), ..good.clone() }, &good.key, "no certificate in");
    says(TlsFiles { certificate: good.key.clone(), ..good.clone() }, &good.key, "no certificate in");
    says(TlsFiles { key: good.ca.clone(), ..good.clone() }, &good.ca, "no private key in");
    says(TlsFiles { ca: broken.clone(), ..good.clone() }, &broken, "cannot be used");
    says(TlsFiles { certificate: broken.clone(), ..good.clone() }, &broken, "cannot be used");
    says(TlsFiles { key: other.key.clone(), ..good.clone() }, &other.key, "is not the key of");
}

#[test]
fn a_node_checks_its_own_certificate() {
    let ca = Ca::new();
    ca.node(1).check(1).unwrap();
    let says = |tls: &Tls, part: &str| {
        let text = tls.check(2).unwrap_err().to_string();
        assert!(text.contains("is no certificate of node 2 under") && text.contains(part), "{part:?}: {text}");
    };
    says(&ca.node(1), "not valid for name");
    says(&ca.tls(&["*.rollbook.internal"]), "does not name node-2.rollbook.internal");
    says(&ca.expired(2), "expired");
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    };
    says(&Tls::load(&ca.issue(&[&node_name(2)], server_only)).unwrap(), "extended key usage");
    let files = ca.issue(&[&node_name(2)], |_| {});
    for (name, part) in [("another CA", "is not of our CA"), ("test CA", "has the name of ours")] {
        let other = Ca::named(name);
        says(&Tls::load(&TlsFiles { ca: other.files("x").ca, ..files.clone() }).unwrap(), part);
    }
}

#[test]
fn secrets_are_not_shown() {
    let ca = Ca::new();
    let text = format!("{:?}", ca.node(1));
    assert!(text.starts_with("Tls { files: TlsFiles {") && text.ends_with(" .. }") && text.len() < 500, "{text}");
}

#[test]
fn a_node_has_one_name() {
    assert_eq!(node_of(&node_name(18)), Some(18));
    for name in
        ["node-.rollbook.internal", "node-+1.rollbook.internal", "node-1.rollbook.internal.", "node-1", "n\u{f6}de-1.x"]
    {
        assert_eq!(node_of(name), None, "{name}");
    }
}
