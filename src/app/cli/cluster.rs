//! `rollbook cluster`: which nodes there are, and adding, promoting and removing them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Usage;
use super::global::{Global, Output};
use super::http::{CallError, Client};
use super::output::{note, print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook cluster status
  rollbook cluster join --address 10.0.0.4:7441 --data /var/lib/rollbook
  rollbook cluster promote 4
  rollbook cluster transfer 2
  rollbook cluster remove 4

Any node of the cluster can be asked: --web-url.

A node joins as a learner, which gets the log but has no vote. Its data directory must be new, as a node that has \
lost what it acknowledged must not come back under its old number. Start the node and promote it once `status` shows \
that LAST has caught up.

remove does not ask. Of three voters, the two that are left must both be up for anything to be published. Stop the \
removed node and throw its data directory away; to come back it joins anew.";

/// First line of the file FORMAT, as the node expects it.
const FORMAT: &str = "rollbook data 1";

/// Arguments of `cluster`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all nodes
    Status,
    /// Add a node, and make the data directory that it starts with
    Join {
        /// Where the other nodes will reach the new one
        #[arg(long, value_name = "HOST:PORT", value_parser = address)]
        address: String,
        /// Data directory of the new node, which must not exist or be empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Give a learner a vote
    Promote {
        /// Number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Take a node out of the cluster for good, without asking
    Remove {
        /// Number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Let another node lead, for example before this one is stopped
    Transfer {
        /// Number of the node; without it, the leader picks one
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
}

fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let host = |host: &str| match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    match parts {
        Some((name, port)) if port > 0 && host(name) => Ok(text.to_owned()),
        _ => Err("write HOST:PORT, for example 10.0.0.4:7441, node4.lan:7441 or [::1]:7441".to_owned()),
    }
}

/// The cluster as REST shows it.
#[derive(Debug, Deserialize)]
struct Cluster {
    leader: Option<u64>,
    /// The release before does not say it.
    #[serde(default)]
    warning: Option<String>,
    nodes: Vec<Node>,
}

/// A node as REST shows it.
#[derive(Debug, Deserialize)]
struct Node {
    id: u64,
    address: String,
    role: String,
    state: String,
    last_index: Option<u64>,
    applied_index: Option<u64>,
}

/// A node that was just added.
#[derive(Debug, Deserialize)]
struct Joined {
    id: u64,
    cluster_id: String,
}

/// Who leads now.
#[derive(Debug, Deserialize)]
struct Transferred {
    leader: u64,
}

pub(super) async fn run(global: &Global, args: ClusterArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::Status => status(global, &client).await,
        Action::Join { address, data } => join(global, &client, &address, &data).await,
        Action::Promote { id } => {
            let url = client.url(&["api", "cluster", "nodes", &id.to_string(), "promote"], &[]);
            let node: Value = client.json(Method::POST, url, None).await?;
            show(global, &node, vec![parse(&node)?])
        }
        Action::Remove { id } => {
            client.send(Method::DELETE, client.url(&["api", "cluster", "nodes", &id.to_string()], &[]), None).await?;
            note(&format!("node {id} is no longer part of the cluster; stop it, and throw its data directory away"));
            Ok(())
        }
        Action::Transfer { id } => {
            let body = id.map_or_else(|| json!({}), |id| json!({ "to": id }));
            let url = client.url(&["api", "cluster", "transfer"], &[]);
            let answer: Value = client.json(Method::POST, url, Some(&body)).await?;
            let Transferred { leader } = parse(&answer)?;
            print(&match global.output {
                Output::Table => format!("node {leader} leads"),
                Output::Json => answer.to_string(),
            })
        }
    }
}

async fn status(global: &Global, client: &Client) -> anyhow::Result<()> {
    let body: Value = client.json(Method::GET, client.url(&["api", "cluster"], &[]), None).await?;
    let cluster: Cluster = parse(&body)?;
    show(global, &body, cluster.nodes)?;
    match cluster.warning {
        Some(warning) => note(&format!("warning: {warning}: nothing can be published through this node")),
        None if cluster.leader.is_none() => note("warning: no leader: nothing can be published through this node"),
        None => {}
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a Value) -> anyhow::Result<T> {
    T::deserialize(answer).context("the node tells of its cluster in a way this version does not know")
}

fn show(global: &Global, body: &Value, nodes: Vec<Node>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&body.to_string());
    }
    let index = |index: Option<u64>| index.map_or_else(|| "-".to_owned(), |index| index.to_string());
    let row = |node: Node| {
        vec![
            node.id.to_string(),
            node.address,
            node.role,
            node.state,
            index(node.last_index),
            index(node.applied_index),
        ]
    };
    print(&table(&["NODE", "ADDRESS", "ROLE", "STATE", "LAST", "APPLIED"], nodes.into_iter().map(row).collect()))
}

async fn join(global: &Global, client: &Client, address: &str, data: &Path) -> anyhow::Result<()> {
    // Before anything is asked of the cluster: a node without a directory would stay in it.
    let made = prepare(data)?;
    let joined = match add(client, address).await {
        Ok(joined) => joined,
        Err(error) => {
            if made {
                // It is empty; that it stays there would not be in the way.
                fs::remove_dir(data).ok();
            }
            return Err(error);
        }
    };
    let Joined { id, cluster_id } = &joined;
    let written = write(data, &joined);
    let directory = data.display();
    written.with_context(|| {
        format!("node {id} was added, but {directory} cannot be written; undo it with `rollbook cluster remove {id}`")
    })?;
    print(&match global.output {
        Output::Json => {
            json!({ "id": id, "cluster_id": cluster_id, "address": address, "data": directory.to_string() }).to_string()
        }
        Output::Table => format!(
            "node {id} is a learner of cluster {cluster_id}; its data directory is {directory}\n\
             start it, with its certificate:\n  \
             rollbook serve --node {id} --data {} --peer {address} ...\n\
             once `rollbook cluster status` shows that it has caught up, give it a vote:\n  \
             rollbook cluster promote {id}",
            quoted(&directory.to_string())
        ),
    })
}

async fn add(client: &Client, address: &str) -> anyhow::Result<Joined> {
    let url = client.url(&["api", "cluster", "nodes"], &[]);
    let added = client.json(Method::POST, url, Some(&json!({ "address": address }))).await;
    let joined: Joined = added.map_err(|error| match error.downcast_ref() {
        Some(CallError::Slow { .. } | CallError::Broken { .. }) => {
            error.context("look into `rollbook cluster status` before trying again: the node may have been added")
        }
        _ => error,
    })?;
    // It becomes part of a file and of the lines that are shown.
    if joined.cluster_id.is_empty() || !joined.cluster_id.chars().all(|c| c.is_ascii_hexdigit()) {
        bail!("the cluster calls itself {:?}, which this version does not know", joined.cluster_id);
    }
    Ok(joined)
}

/// Creates the directory, unless it is there and empty. Returns whether it is new.
fn prepare(data: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(data) {
        Ok(mut entries) => match entries.next() {
            None => Ok(false),
            Some(_) => Err(Usage(format!("{} is not empty; a node joins with a new directory", data.display())).into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
            Ok(true)
        }
        Err(error) => Err(error).with_context(|| format!("cannot use {}", data.display())),
    }
}

/// Makes it the data directory of the new node. FORMAT comes last: what lacks it belongs to nobody.
fn write(data: &Path, joined: &Joined) -> io::Result<()> {
    let Joined { id, cluster_id } = joined;
    for (name, text) in [("CLUSTER", format!("{cluster_id}\n")), ("FORMAT", format!("{FORMAT}\nnode {id}\n"))] {
        let mut file = fs::File::create_new(data.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(data)?.sync_all()?;
    }
    // The entry of the directory itself; a name without a parent lies in the present one.
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, ClientCommand, Command};
    use super::super::testing::{Fake, answer};
    use super::*;
    use clap::Parser;

    const NODE: &str = r#"{"id":2,"address":"127.0.0.1:7442","role":"learner","state":"unknown","incarnation":1,"last_index":null,"applied_index":null}"#;
    const JOINED: &str = r#"{"id":4,"cluster_id":"0af3","address":"10.0.0.4:7441"}"#;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "cluster"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Cluster(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_action_is_its_request() {
        let cluster = format!("{{\"cluster_id\":\"0af3\",\"leader\":null,\"term\":3,\"nodes\":[{NODE}]}}");
        let fake = Fake::start(vec![
            answer("200 OK", "", &cluster),
            answer("200 OK", "", NODE),
            answer("204 No Content", "", ""),
            answer("200 OK", "", r#"{"leader":2}"#),
            answer("200 OK", "", r#"{"leader":1}"#),
        ])
        .await;
        for words in [&["status"][..], &["promote", "2"], &["remove", "2"], &["transfer", "2"], &["transfer"]] {
            call(&fake, words).await.unwrap();
        }
        let calls = [
            "GET /api/cluster",
            "POST /api/cluster/nodes/2/promote",
            "DELETE /api/cluster/nodes/2",
            "POST /api/cluster/transfer",
            "POST /api/cluster/transfer",
        ];
        assert_eq!(fake.calls(), calls);
        assert_eq!(fake.bodies(), ["", "", "", r#"{"to":2}"#, "{}"]);
        for words in [&["promote", "0"][..], &["promote"], &["remove", "x"], &["transfer", "-1"], &["join"]] {
            assert!(call(&fake, words).await.is_err(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn what_the_node_refuses_is_told_and_so_is_an_odd_answer() {
        let problem = r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"node not found: 9","code":"node_not_found"}"#;
        let fake = Fake::start(vec![answer("404 Not Found", "", problem), answer("200 OK", "", "{}")]).await;
        let text = call(&fake, &["promote", "9"]).await.unwrap_err().to_string();
        assert_eq!(text, "node not found: 9 (HTTP 404); `rollbook cluster status` shows what there is");
        let text = call(&fake, &["status"]).await.unwrap_err().to_string();
        assert_eq!(text, "the node tells of its cluster in a way this version does not know");
    }

    async fn join(fake: &Fake, data: &Path) -> anyhow::Result<()> {
        call(fake, &["join", "--address", "10.0.0.4:7441", "--data", data.to_str().unwrap()]).await
    }

    #[tokio::test]
    async fn a_node_joins_with_a_directory_of_its_own() {
        let here = tempfile::tempdir().unwrap();
        let fake = Fake::start(vec![answer("201 Created", "", JOINED), answer("201 Created", "", JOINED)]).await;
        for data in [here.path().join("new/data"), here.path().join("empty")] {
            if data.ends_with("empty") {
                fs::create_dir(&data).unwrap();
            }
            join(&fake, &data).await.unwrap();
            assert_eq!(fs::read_to_string(data.join("FORMAT")).unwrap(), "rollbook data 1\nnode 4\n");
            assert_eq!(fs::read_to_string(data.join("CLUSTER")).unwrap(), "0af3\n");
        }
        assert_eq!(fake.calls(), ["POST /api/cluster/nodes"; 2]);
        assert_eq!(fake.bodies(), [r#"{"address":"10.0.0.4:7441"}"#; 2]);
    }

    #[tokio::test]
    async fn a_directory_that_is_used_is_left_alone_and_the_cluster_is_not_asked() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("x"), "").unwrap();
        let fake = Fake::start(vec![]).await;
        let error = join(&fake, here.path()).await.unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("is not empty"), "{error}");
        let error = join(&fake, &here.path().join("x")).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot use "), "{error}");
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 1);
        assert_eq!(fake.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn a_join_that_fails_leaves_no_directory() {
        let here = tempfile::tempdir().unwrap();
        let odd = r#"{"id":4,"cluster_id":"a\nb","address":"x"}"#;
        let answers = [("503 Service Unavailable", "no leader"), ("201 Created", odd)];
        let fake = Fake::start(answers.map(|(status, body)| answer(status, "", body)).into()).await;
        for part in ["no leader", "which this version does not know"] {
            let text = join(&fake, &here.path().join("data")).await.unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
            assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn a_join_whose_answer_is_lost_says_where_to_look() {
        let here = tempfile::tempdir().unwrap();
        let fake = Fake::start(vec![String::new()]).await;
        let text = format!("{:#}", join(&fake, &here.path().join("data")).await.unwrap_err());
        assert!(text.starts_with("look into `rollbook cluster status`") && text.contains("broke"), "{text}");
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["10.0.0.4:7441", "node-4.lan:1", "[::1]:7441"] {
            assert_eq!(address(good), Ok(good.to_owned()));
        }
        for bad in ["", "host", ":1", "host:0", "host:65536", "::1:7441", "http://h:1", "[x]:1", "a b:1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_word_for_a_shell_stays_one_word() {
        assert_eq!(quoted("./data-1"), "./data-1");
        assert_eq!(quoted("my data's"), r"'my data'\''s'");
    }
}
