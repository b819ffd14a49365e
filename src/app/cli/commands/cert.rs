//! `rollbook cert`: makes certificates for the connections between nodes, for development and for tests.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rollbook_cluster::tls::{NODE_DOMAIN, Tls, TlsFiles, node_name};
use serde_json::{Value, json};

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::output::print;
use crate::base::clock;

const EXAMPLES: &str = "\
Examples:
  rollbook cert dev --nodes 1,2,3
  rollbook cert dev --dir certs --nodes 4 --host 10.0.0.4 --host node4.lan
  rollbook cert dev --dir certs --nodes 1 --days 30

Makes ca.pem, ca.key, node-1.pem, node-1.key and so on. A CA that is there already is used again, so that nodes can \
be added; no file is ever overwritten. Whoever has ca.key can be any node: it is needed to add nodes, not to run them.";

/// Name of the CA.
const CA_NAME: &str = "rollbook development CA";
/// Days that the CA is valid: longer than every certificate of the CA.
const CA_DAYS: u32 = 7300;
/// Most days that a certificate is valid.
const DAYS_MAX: i64 = 3650;
/// Seconds of a day. A certificate is valid from a day ago, so the clock of another machine may be a day behind.
const DAY: u64 = 24 * 60 * 60;
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
    /// Make a certificate for each node, and a CA when there is none
    #[command(after_help = EXAMPLES)]
    Dev(DevArgs),
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Directory of the files
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: String,
    /// Numbers of the nodes, separated by commas
    #[arg(long, value_name = "LIST", required = true, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    nodes: Vec<u64>,
    /// A further name or IP address of each of these nodes; may be repeated
    #[arg(long = "host", value_name = "NAME_OR_IP", value_parser = host)]
    hosts: Vec<SanType>,
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

pub(in crate::app::cli) fn run(global: &Global, args: CertArgs) -> anyhow::Result<()> {
    let Action::Dev(mut args) = args.action;
    args.nodes.sort_unstable();
    args.nodes.dedup();
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
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let ca = ca(dir, written)?;
    for node in &args.nodes {
        let files = files(dir, *node);
        let key = KeyPair::generate()?;
        let certificate = leaf(*node, args)?.signed_by(&key, &ca)?;
        write(&files.key, &key.serialize_pem(), written)?;
        write(&files.certificate, &certificate.pem(), written)?;
        // An existing CA may have another key, so each certificate is checked.
        let usable = Tls::load(&files).and_then(|tls| tls.check(*node));
        usable.with_context(|| format!("the CA in {} was not made by `rollbook cert dev`", dir.display()))?;
    }
    Ok(())
}

fn files(dir: &Path, node: u64) -> TlsFiles {
    let certificate = dir.join(format!("node-{node}.pem"));
    TlsFiles { ca: dir.join("ca.pem"), key: certificate.with_extension("key"), certificate }
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
        return print(&json!({ "written": written, "nodes": nodes }).to_string());
    }
    let mut lines: Vec<String> = written.iter().map(|path| format!("wrote {path}")).collect();
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
        assert_eq!(names(&dir), ["ca.key", "ca.pem", "node-1.key", "node-1.pem", "node-2.key", "node-2.pem"]);
        let ca = fs::read(dir.join("ca.pem")).unwrap();
        call(&dir, "--nodes 3 --host db.example --host 10.0.0.3 --host ::1").unwrap();
        assert_eq!((names(&dir).len(), fs::read(dir.join("ca.pem")).unwrap()), (8, ca));
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
        assert_eq!((names(here.path()).len(), fs::read(here.path().join("node-1.pem")).unwrap()), (4, before));
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
        assert!(text.contains("was not made by `rollbook cert dev`") && text.contains("another CA"), "{text}");
        assert_eq!(names(here.path()), ["ca.key", "ca.pem", "node-1.key", "node-1.pem"]);
        fs::write(here.path().join("ca.key"), "nothing").unwrap();
        let text = call(here.path(), "--nodes 2").unwrap_err().to_string();
        assert!(text.contains("ca.key is not the key of a CA"), "{text}");
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
        for bad in ["--nodes 0", "--nodes x", "--nodes 1 --days 0", "--nodes 1 --host *"] {
            assert!(call(here.path(), bad).is_err(), "{bad}");
        }
        assert_eq!(names(here.path()).len(), 0);
    }
}
