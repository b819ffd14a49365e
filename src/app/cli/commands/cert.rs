//! `rollbook cert`: makes certificates for nodes, for the listeners and for clients, for development and for tests.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rollbook_cluster::tls::{NODE_DOMAIN, Tls, TlsFiles, certified_key, node_name};
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::output::print;
use crate::base::clock;

const EXAMPLES: &str = "\
Examples:
  rollbook cert dev --host bus.example.com
  rollbook cert dev --client service:orders --client user:alice
  rollbook cert dev --nodes 1,2,3
  rollbook cert dev --dir certs --nodes 4 --host 10.0.0.4 --host node4.lan
  rollbook cert dev --dir certs --nodes 1 --days 30

Makes ca.pem and ca.key, server.pem and server.key for all listeners for clients, node-1.pem and node-1.key and so on \
for --nodes, service-orders.pem and service-orders.key and so on for --client. A CA that is there already is used \
again, so that nodes and clients can be added, and so is a server.pem that is there; no file is ever overwritten. \
Whoever has ca.key can be any node and any client: it is needed to add them, not to run them.";

/// Name of the CA.
const CA_NAME: &str = "rollbook development CA";
/// Days that the CA is valid: longer than every certificate of the CA.
const CA_DAYS: u32 = 7300;
/// Most days that a certificate is valid.
const DAYS_MAX: i64 = 3650;
/// Seconds of a day. A certificate is valid from a day ago, so the clock of another machine may be a day behind.
const DAY: u64 = 24 * 60 * 60;
/// Name of the files for the listeners.
const SERVER: &str = "server";
/// What a client can be.
const KINDS: [&str; 4] = ["user", "service", "actor", "dock"];
/// Longest name of a client: that of a common name in a certificate.
const CLIENT_LEN_MAX: usize = 64;
/// Longest label and longest name in DNS.
const DNS_LEN_MAX: (usize, usize) = (63, 253);

/// Arguments of `cert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CertArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make certificates for the listeners, for nodes and for clients, and a CA when there is none
    #[command(after_help = EXAMPLES)]
    Dev(DevArgs),
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Directory of the files
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: String,
    /// Numbers of nodes that talk to each other, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    nodes: Vec<u64>,
    /// A further name or IP address of the listeners and of each of these nodes, beside localhost; may be repeated
    #[arg(long = "host", value_name = "NAME_OR_IP", value_parser = host)]
    hosts: Vec<SanType>,
    /// A client, as user:NAME, service:NAME, actor:NAME or dock:NAME; may be repeated
    #[arg(long = "client", value_name = "KIND:NAME", value_parser = client)]
    clients: Vec<Client>,
    /// Days that the certificates are good for
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

fn host(text: &str) -> Result<SanType, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let (label_max, name_max) = DNS_LEN_MAX;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=label_max).contains(&label.len()) && label.chars().all(fine);
    if text.len() > name_max || !text.split('.').all(label) {
        return Err("write the name of a host, or an IP address, without a port".to_owned());
    }
    // A further name of this form would make the certificate that of another node.
    let name = text.to_ascii_lowercase();
    if name.strip_suffix(NODE_DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
        return Err(format!("names under {NODE_DOMAIN} are given by --nodes"));
    }
    name.try_into().map(SanType::DnsName).map_err(|error: rcgen::Error| error.to_string())
}

/// A client that gets a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Client {
    kind: String,
    name: String,
}

fn client(text: &str) -> Result<Client, String> {
    let wrong = || {
        format!(
            "write KIND:NAME, where KIND is one of {}, and NAME has letters, digits, `-`, `_` and `.`, at most \
             {CLIENT_LEN_MAX} of them; certificates of nodes are made by --nodes",
            KINDS.join(", ")
        )
    };
    let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = KINDS.contains(&kind) && (1..=CLIENT_LEN_MAX).contains(&name.len()) && name.chars().all(fine);
    if good { Ok(Client { kind: kind.to_owned(), name: name.to_owned() }) } else { Err(wrong()) }
}

pub(in crate::app::cli) fn run(global: &Global, args: CertArgs) -> anyhow::Result<()> {
    let Action::Dev(mut args) = args.action;
    args.nodes.sort_unstable();
    args.nodes.dedup();
    args.clients.sort_by(|one, two| (&one.kind, &one.name).cmp(&(&two.kind, &two.name)));
    args.clients.dedup();
    let mut written = Vec::new();
    let made = make(&args, &mut written);
    if made.is_err() {
        // A remaining file would block the next attempt. A file that cannot be removed changes nothing.
        written.iter().for_each(|path| drop(fs::remove_file(path)));
    }
    made?;
    show(global, &args, &written)
}

/// Makes all files. On an error, `written` holds the new files.
fn make(args: &DevArgs, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let dir = Path::new(&args.dir);
    for node in &args.nodes {
        let files = files(dir, *node);
        for path in [&files.certificate, &files.key] {
            if exists(path)? {
                bail!("{} exists and stays as it is; remove it, or leave {node} out of --nodes", path.display());
            }
        }
    }
    for client in &args.clients {
        let [certificate, key] = pair(dir, &client.file());
        for path in [&certificate, &key] {
            if exists(path)? {
                bail!("{} exists and stays as it is; remove it, or leave out --client {client}", path.display());
            }
        }
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let ca = ca(dir, written)?;
    let [certificate, key] = pair(dir, SERVER);
    match (exists(&certificate)?, exists(&key)?) {
        (false, false) => sign(dir, SERVER, server(args)?, &ca, written)?,
        (true, true) => {}
        (true, false) => bail!("{} is missing; remove {} to make both anew", key.display(), certificate.display()),
        (false, true) => bail!("{} is missing; remove {} to make both anew", certificate.display(), key.display()),
    }
    for client in &args.clients {
        sign(dir, &client.file(), client.certificate(args.days)?, &ca, written)?;
    }
    for node in &args.nodes {
        let files = files(dir, *node);
        sign(dir, &format!("node-{node}"), leaf(*node, args)?, &ca, written)?;
        // An existing CA may have another key, so each certificate is checked.
        let usable = Tls::load(&files).and_then(|tls| tls.check(*node));
        usable.with_context(|| format!("the CA in {} was not made by `rollbook cert dev`", dir.display()))?;
    }
    Ok(())
}

/// Writes a new key and its certificate.
fn sign(
    dir: &Path,
    name: &str,
    params: CertificateParams,
    ca: &Issuer<'_, KeyPair>,
    written: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let [certificate, key] = pair(dir, name);
    let pair = KeyPair::generate()?;
    let signed = params.signed_by(&pair, ca)?;
    write(&key, &pair.serialize_pem(), written)?;
    write(&certificate, &signed.pem(), written)
}

/// The paths of a certificate and its key.
fn pair(dir: &Path, name: &str) -> [PathBuf; 2] {
    ["pem", "key"].map(|extension| dir.join(format!("{name}.{extension}")))
}

fn files(dir: &Path, node: u64) -> TlsFiles {
    let [certificate, key] = pair(dir, &format!("node-{node}"));
    TlsFiles { ca: dir.join("ca.pem"), certificate, key }
}

impl Client {
    /// The name of its files.
    fn file(&self) -> String {
        format!("{}-{}", self.kind, self.name)
    }

    fn certificate(&self, days: u32) -> anyhow::Result<CertificateParams> {
        let mut params = params(&self.name, days);
        params.subject_alt_names = vec![SanType::URI(format!("rollbook:{self}").try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// The certificate of the listeners for clients.
fn server(args: &DevArgs) -> anyhow::Result<CertificateParams> {
    let mut params = params("rollbook development server", args.days);
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    params.subject_alt_names.extend(args.hosts.iter().cloned());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Loads the CA of the directory, or makes a new one.
fn ca(dir: &Path, written: &mut Vec<PathBuf>) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let mut params = params(CA_NAME, CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    match (exists(&certificate)?, exists(&key)?) {
        (true, true) => {
            let text = fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?;
            let pair = KeyPair::from_pem(&text).with_context(|| format!("{} is not the key of a CA", key.display()))?;
            certified_key(&certificate, &key, &aws_lc_rs::default_provider())?;
            Ok(Issuer::new(params, pair))
        }
        (false, false) => {
            let pair = KeyPair::generate()?;
            write(&key, &pair.serialize_pem(), written)?;
            let issuer = CertifiedIssuer::self_signed(params.clone(), &pair)?;
            write(&certificate, &issuer.pem(), written)?;
            Ok(Issuer::new(params, pair))
        }
        (true, false) => bail!("{} is missing; without it, the CA in ca.pem can make no certificate", key.display()),
        (false, true) => bail!("{} is missing; the key in ca.key belongs to it", certificate.display()),
    }
}

fn leaf(node: u64, args: &DevArgs) -> anyhow::Result<CertificateParams> {
    let mut params = params(&node_name(node), args.days);
    let name = |name: &str| -> Result<SanType, rcgen::Error> { Ok(SanType::DnsName(name.try_into()?)) };
    params.subject_alt_names =
        vec![name(&node_name(node))?, name("localhost")?, SanType::IpAddress([127, 0, 0, 1].into())];
    params.subject_alt_names.extend(args.hosts.iter().cloned());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Each node is client and server of connections.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A certificate with that name, valid from a day ago.
fn params(name: &str, days: u32) -> CertificateParams {
    let now = u64::try_from(clock::timestamp().seconds).unwrap_or_default();
    let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let mut params = CertificateParams::default();
    params.not_before = at(now.saturating_sub(DAY));
    params.not_after = at(now.saturating_add(u64::from(days).saturating_mul(DAY)));
    // CA and node have different names. With one name, some programs take the node's certificate for a self-signed
    // one.
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn exists(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("cannot look at {}", path.display()))
}

/// Writes a new file. Only the owner may read a file that ends in `.key`.
fn write(path: &Path, text: &str, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let secret = path.extension().is_some_and(|extension| extension == "key");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(if secret { 0o600 } else { 0o644 });
    let cannot = || format!("cannot write {}", path.display());
    let mut file = options.open(path).with_context(cannot)?;
    written.push(path.to_path_buf());
    file.write_all(text.as_bytes()).with_context(cannot)
}

/// The section `[tls]`.
fn listeners(dir: &str) -> [(&'static str, PathBuf); 3] {
    let dir = Path::new(dir);
    let [certificate, key] = pair(dir, SERVER);
    [("certificate", certificate), ("key", key), ("client_ca", dir.join("ca.pem"))]
}

fn show(global: &Global, args: &DevArgs, written: &[PathBuf]) -> anyhow::Result<()> {
    let shown = |path: &Path| path.display().to_string();
    let written: Vec<String> = written.iter().map(|path| shown(path)).collect();
    let peer = |node: &u64| {
        let TlsFiles { ca, certificate, key } = files(Path::new(&args.dir), *node);
        [("ca", ca), ("certificate", certificate), ("key", key)].map(|(name, path)| (name, shown(&path)))
    };
    if global.output == Output::Json {
        let node = |node| json!({ "id": node, "peer": BTreeMap::from(peer(node)) });
        let nodes: Vec<Value> = args.nodes.iter().map(node).collect();
        let client = |client: &Client| {
            let [certificate, key] = pair(Path::new(&args.dir), &client.file()).map(|path| shown(&path));
            json!({ "principal": client.to_string(), "certificate": certificate, "key": key })
        };
        let clients: Vec<Value> = args.clients.iter().map(client).collect();
        let tls = BTreeMap::from(listeners(&args.dir).map(|(name, path)| (name, shown(&path))));
        return print(&json!({ "written": written, "tls": tls, "nodes": nodes, "clients": clients }).to_string());
    }
    let mut lines: Vec<String> = written.iter().map(|path| format!("wrote {path}")).collect();
    lines.push("\n# configuration of every node, for the listeners for clients\n[tls]".to_owned());
    lines.extend(listeners(&args.dir).map(|(name, path)| format!("{name} = {}", toml::Value::String(shown(&path)))));
    for node in &args.nodes {
        lines.push(format!("\n# configuration of node {node}\n[peer]"));
        let line = |(name, path)| format!("{name} = {}", toml::Value::String(path));
        lines.extend(peer(node).map(line));
    }
    print(&lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::global;
    use crate::net::tls::certificates::{Certificates, Policy};
    use crate::net::tls::settings::{ClientCertificates, TlsSettings};

    fn call(dir: &Path, line: &str) -> anyhow::Result<()> {
        let words = ["rollbook", "cert", "dev", "--dir", dir.to_str().unwrap()].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Cert(args)) => run(&global("", ""), args),
            other => panic!("{other:?}"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn tls(dir: &Path, node: u64) -> Tls {
        let tls = Tls::load(&files(dir, node)).unwrap();
        tls.check(node).unwrap();
        tls
    }

    #[tokio::test]
    async fn nodes_that_are_added_later_talk_to_the_first_ones() {
        let here = tempfile::tempdir().unwrap();
        let dir = here.path().join("a/certs");
        call(&dir, "--nodes 2,1,2").unwrap();
        let server = ["server.key", "server.pem"];
        let first = ["ca.key", "ca.pem", "node-1.key", "node-1.pem", "node-2.key", "node-2.pem"];
        assert_eq!(names(&dir), [&first[..], &server].concat());
        let ca = fs::read(dir.join("ca.pem")).unwrap();
        call(&dir, "--nodes 3 --host db.example --host 10.0.0.3 --host ::1").unwrap();
        assert_eq!((names(&dir).len(), fs::read(dir.join("ca.pem")).unwrap()), (10, ca));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (one, three) = (tls(&dir, 1), tls(&dir, 3));
        let (near, far) = tokio::join!(one.connect(near, 3), three.accept(far, "a client"));
        near.unwrap();
        assert_eq!(far.unwrap().1, [1]);
    }

    #[test]
    fn only_the_owner_reads_keys() {
        let here = tempfile::tempdir().unwrap();
        call(here.path(), "--nodes 1").unwrap();
        for name in names(here.path()) {
            let mode = fs::metadata(here.path().join(&name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077 == 0, name.ends_with(".key"), "{name}: {mode:o}");
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let here = tempfile::tempdir().unwrap();
        call(here.path(), "--nodes 1").unwrap();
        let before = fs::read(here.path().join("node-1.pem")).unwrap();
        let text = call(here.path(), "--nodes 2,1").unwrap_err().to_string();
        assert!(text.contains("node-1.pem exists") && text.contains("leave 1 out of --nodes"), "{text}");
        assert_eq!((names(here.path()).len(), fs::read(here.path().join("node-1.pem")).unwrap()), (6, before));
        fs::remove_file(here.path().join("ca.key")).unwrap();
        let text = call(here.path(), "--nodes 2").unwrap_err().to_string();
        assert!(text.contains("ca.key is missing"), "{text}");
    }

    #[test]
    fn another_ca_is_not_used_and_leaves_nothing() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        call(here.path(), "--nodes 1").unwrap();
        call(there.path(), "--nodes 1").unwrap();
        fs::copy(there.path().join("ca.key"), here.path().join("ca.key")).unwrap();
        let text = format!("{:#}", call(here.path(), "--nodes 2").unwrap_err());
        assert!(text.contains("ca.key is not the key of "), "{text}");
        assert_eq!(names(here.path()), ["ca.key", "ca.pem", "node-1.key", "node-1.pem", "server.key", "server.pem"]);
        fs::write(here.path().join("ca.key"), "nothing").unwrap();
        let text = call(here.path(), "--nodes 2").unwrap_err().to_string();
        assert!(text.contains("ca.key is not the key of a CA"), "{text}");
    }

    #[test]
    fn listeners_and_clients_get_certificates_that_fit_together() {
        let here = tempfile::tempdir().unwrap();
        call(here.path(), "--host bus.example --client service:orders --client user:alice").unwrap();
        let of_clients = ["service-orders.key", "service-orders.pem", "user-alice.key", "user-alice.pem"];
        assert_eq!(names(here.path()), [&["ca.key", "ca.pem", "server.key", "server.pem"], &of_clients[..]].concat());
        let [certificate, key] = pair(here.path(), SERVER);
        let settings = TlsSettings {
            certificate,
            key,
            client_ca: here.path().join("ca.pem"),
            client_certificates: ClientCertificates::Required,
        };
        let policy = Policy { client_certificates: ClientCertificates::Required, client_ca: None, http: true };
        Certificates::load(&settings).unwrap().listener("web", policy).unwrap();
        let before = fs::read(&settings.certificate).unwrap();
        call(here.path(), "--client user:bob").unwrap();
        assert_eq!(fs::read(&settings.certificate).unwrap(), before, "the listeners keep their certificate");
        let text = call(here.path(), "--client user:carol --client user:bob").unwrap_err().to_string();
        assert!(text.contains("user-bob.pem exists") && text.contains("leave out --client user:bob"), "{text}");
        fs::remove_file(&settings.key).unwrap();
        let text = call(here.path(), "--nodes 1").unwrap_err().to_string();
        assert!(text.contains("server.key is missing"), "{text}");
        for bad in ["", "alice", "node:1", "user:", "user:a b", "user:a/../b", "USER:a", "user:\u{f6}"] {
            assert!(client(bad).unwrap_err().contains("KIND:NAME"), "{bad}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_and_never_nodes() {
        assert_eq!(host("::1"), Ok(SanType::IpAddress("::1".parse().unwrap())));
        assert_eq!(host("Db-1.lan"), Ok(SanType::DnsName("db-1.lan".try_into().unwrap())));
        assert!(host("otherrollbook.internal").is_ok());
        let long = "a.".repeat(150);
        for bad in ["", "a b", "a:1", "*.lan", "a..b", "b.", "[::1]", "n\u{f6}", "http://a", &long, &"a".repeat(64)] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for node in ["node-2.rollbook.internal", "NODE-2.Rollbook.Internal", "rollbook.internal"] {
            assert!(host(node).unwrap_err().contains("--nodes"), "{node}");
        }
        let here = tempfile::tempdir().unwrap();
        for bad in
            ["--nodes 0", "--nodes x", "--nodes 1 --days 0", "--nodes 1 --host *", "--client alice", "--client node:1"]
        {
            assert!(call(here.path(), bad).is_err(), "{bad}");
        }
        assert_eq!(names(here.path()).len(), 0);
    }
}
