//! `rollbook cluster`: shows the nodes, and adds, promotes and removes nodes.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::join;
use crate::app::cli::shared::confirm;
use crate::app::cli::shared::error::AlreadyReported;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{note, print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook cluster status
  rollbook cluster join --address 10.0.0.4:7441 --data /var/lib/rollbook
  rollbook cluster promote 4
  rollbook cluster transfer 2
  rollbook cluster remove 4 --yes

Any node of the cluster can be asked: --web-url. Exit code 1 when a change was refused, or its outcome is not known: \
then look at `status` before you repeat it. A change is answered within 10 seconds.";

const STATUS_EXAMPLES: &str = "\
Examples:
  rollbook cluster status
  rollbook cluster status --output json | jq -r '.warning // \"ok\"'

ROLE    leader; voter; learner, which gets the log and has no vote; none, a number whose joining or removal was cut: \
remove it
STATE   up; down; new, which was never heard; unknown, which is said to be up and does not answer
LAST    the last entry in its log, when it answers
APPLIED the last entry it has applied, when it answers

Without a majority a line on standard error says so first, and the exit code is 1.";

const JOIN_EXAMPLES: &str = "\
Examples:
  rollbook cluster join --address 10.0.0.4:7441 --data /var/lib/rollbook
  rollbook serve --data /var/lib/rollbook --peer 10.0.0.4:7441
  rollbook cluster promote 4

A node joins as a learner, which gets the log but has no vote. Its data directory must be new, as a node that has \
lost what it acknowledged must not come back under its old number. Start the node, then promote it. Joining twice \
gives out two numbers; the one that is not needed can be removed.";

const PROMOTE_EXAMPLES: &str = "\
Examples:
  rollbook cluster promote 4
  rollbook cluster promote 4 --force

The node must answer, and have all that was committed when it was asked for: otherwise nothing is changed, and the \
reason says what to do. --force promotes it all the same. Until it is there, it counts as a voter that is down.

Force cannot help when the voters, the new one included, have no majority that answers: raft needs a majority of the \
voters before and of those after the change. The change could not be completed, and nothing could be published until \
the missing nodes are back.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  rollbook cluster remove 4
  rollbook cluster remove 4 --force --yes

It asks for the number of the node. Without a terminal it removes nothing, unless --yes is given: exit code 2.

The node, when it runs, logs that it was removed, ends its streams and exits with 1; one that is down does so when it \
is started. Throw its data directory away; to come back it joins anew. A removal that was cut may be repeated.

Of three voters, the two that are left must both be up for anything to be published. When the voters that are left \
have no majority that answers, nothing is changed: bring the others back, or remove them first. --force takes the \
votes of those that do not answer in the same step; they go on as learners and can be promoted when they are back.

Force cannot help when the present voters have no majority that answers, and the last voter cannot be removed.";

const TRANSFER_EXAMPLES: &str = "\
Examples:
  rollbook cluster transfer
  rollbook cluster transfer 2

The node must have a vote and answer. A node that is stopped with SIGTERM hands leadership over by itself.";

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
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Add a node, and make the data directory that it starts with
    #[command(after_help = JOIN_EXAMPLES)]
    Join {
        /// Where the other nodes will reach the new one
        #[arg(long, value_name = "HOST:PORT", value_parser = address)]
        address: String,
        /// Data directory of the new node, which must not exist or be empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Give a learner a vote
    #[command(after_help = PROMOTE_EXAMPLES)]
    Promote {
        /// Number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Also when it does not answer or is behind
        #[arg(long)]
        force: bool,
    },
    /// Take a node out of the cluster for good
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove {
        /// Number of the node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Take the votes of nodes that do not answer too, when there would be no majority otherwise
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let another node lead, for example before this one is stopped
    #[command(after_help = TRANSFER_EXAMPLES)]
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

/// The cluster, as REST describes it.
#[derive(Debug, Deserialize)]
struct Cluster {
    leader: Option<u64>,
    /// A node of the release before sends no warning.
    #[serde(default)]
    warning: Option<String>,
    nodes: Vec<Node>,
}

/// A node, as REST describes it.
#[derive(Debug, Deserialize)]
struct Node {
    id: u64,
    address: String,
    role: String,
    state: String,
    last_index: Option<u64>,
    applied_index: Option<u64>,
}

/// The new leader.
#[derive(Debug, Deserialize)]
struct Transferred {
    leader: u64,
}

pub(in crate::app::cli) async fn run(global: &Global, args: ClusterArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::Status => status(global, &client).await,
        Action::Join { address, data } => join::run(global, &client, &address, &data).await,
        Action::Promote { id, force } => {
            let url = client.url(&["api", "cluster", "nodes", &id.to_string(), "promote"], forced(force));
            let node: Value = client.json(Method::POST, url, None).await?;
            show(global, &node, vec![parse(&node)?])
        }
        Action::Remove { id, force, yes } => {
            if confirm::has_to_ask(yes, &format!("taking node {id} out of the cluster"))? {
                let question =
                    format!("This takes node {id} out of the cluster for good: its number does not come back.");
                confirm::ask(&question, &id.to_string())?;
            }
            let url = client.url(&["api", "cluster", "nodes", &id.to_string()], forced(force));
            client.send(Method::DELETE, url, None).await?;
            print(&match global.output {
                Output::Table => format!(
                    "node {id} is no longer part of the cluster; its process ends by itself, throw its data directory away"
                ),
                Output::Json => json!({ "removed": id }).to_string(),
            })
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

const fn forced(force: bool) -> &'static [(&'static str, &'static str)] {
    if force { &[("force", "true")] } else { &[] }
}

async fn status(global: &Global, client: &Client) -> anyhow::Result<()> {
    let body: Value = client.json(Method::GET, client.url(&["api", "cluster"], &[]), None).await?;
    let cluster: Cluster = parse(&body)?;
    let warning = warning(&cluster);
    warning.iter().for_each(|text| note(text));
    let notes = notes(&cluster);
    show(global, &body, cluster.nodes)?;
    notes.iter().for_each(|text| note(text));
    if warning.is_some() { Err(AlreadyReported.into()) } else { Ok(()) }
}

/// The reason why nothing can be published.
fn warning(cluster: &Cluster) -> Option<String> {
    if let (Some(why), Some(_)) = (&cluster.warning, cluster.leader) {
        return Some(format!("warning: {why}: nothing can be published through this node"));
    }
    if cluster.leader.is_none() {
        let why = cluster.warning.as_deref().unwrap_or("no leader");
        let voters = || cluster.nodes.iter().filter(|node| matches!(node.role.as_str(), "leader" | "voter"));
        let silent: Vec<String> = voters().filter(|node| node.state != "up").map(|node| node.id.to_string()).collect();
        let count = voters().count().saturating_sub(silent.len());
        let missing = if silent.is_empty() { String::new() } else { format!(", {} not", silent.join(", ")) };
        let total = voters().count();
        let text = "nothing can be published through this node";
        return Some(format!("warning: {why}: {text}; {count} of {total} voters answer{missing}"));
    }
    None
}

/// Notes below the table, for what the table does not show.
fn notes(cluster: &Cluster) -> Vec<String> {
    let mut notes = Vec::new();
    for Node { id, role, state, .. } in &cluster.nodes {
        match (role.as_str(), state.as_str()) {
            ("none", _) => notes.push(format!(
                "node {id} is no member, its joining or removal was cut: `rollbook cluster remove {id}` ends that"
            )),
            (_, "new") => notes.push(format!(
                "node {id} was never heard: start it, or take it out with `rollbook cluster remove {id}`"
            )),
            _ => {}
        }
    }
    notes
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const NODE: &str = r#"{"id":2,"address":"127.0.0.1:7442","role":"learner","state":"unknown","incarnation":1,"last_index":null,"applied_index":null}"#;

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
            answer("200 OK", "", NODE),
            answer("204 No Content", "", ""),
        ])
        .await;
        assert!(call(&fake, &["status"]).await.unwrap_err().is::<AlreadyReported>(), "there is no leader");
        for words in [
            &["promote", "2"][..],
            &["remove", "2", "--yes"],
            &["transfer", "2"],
            &["transfer"],
            &["promote", "2", "--force"],
            &["remove", "--force", "2", "--yes"],
        ] {
            call(&fake, words).await.unwrap();
        }
        let calls = [
            "GET /api/cluster",
            "POST /api/cluster/nodes/2/promote",
            "DELETE /api/cluster/nodes/2",
            "POST /api/cluster/transfer",
            "POST /api/cluster/transfer",
            "POST /api/cluster/nodes/2/promote?force=true",
            "DELETE /api/cluster/nodes/2?force=true",
        ];
        assert_eq!(fake.calls(), calls);
        assert_eq!(fake.bodies(), ["", "", "", r#"{"to":2}"#, "{}", "", ""]);
        // The tests have no terminal.
        let refused = call(&fake, &["remove", "2"]).await.unwrap_err();
        assert!(refused.is::<Usage>() && refused.to_string().contains("pass --yes"), "{refused}");
        for words in [&["promote", "0"][..], &["promote"], &["remove", "x"], &["transfer", "-1"], &["join"]] {
            assert!(call(&fake, words).await.is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_status_without_a_majority_and_nodes_that_need_a_hand_are_told() {
        let node = |id: u64, role: &str, state: &str| json!({ "id": id, "address": "h:1", "role": role, "state": state, "last_index": null, "applied_index": null });
        let told = |leader: Option<u64>, why: Option<&str>, nodes: Vec<Value>| {
            let body = json!({ "leader": leader, "warning": why, "nodes": nodes });
            let cluster = parse(&body).unwrap();
            warning(&cluster).into_iter().chain(notes(&cluster)).collect::<Vec<_>>()
        };
        let up = || vec![node(1, "leader", "up"), node(2, "voter", "up"), node(3, "learner", "down")];
        assert_eq!(told(Some(1), None, up()), [""; 0]);
        let short = vec![node(1, "voter", "up"), node(2, "voter", "unknown"), node(3, "voter", "down")];
        assert_eq!(
            told(None, Some("no majority of the cluster answers"), short),
            [
                "warning: no majority of the cluster answers: nothing can be published through this node; 1 of 3 voters answer, 2, 3 not"
            ]
        );
        let odd = told(Some(1), None, vec![node(1, "leader", "up"), node(2, "learner", "new"), node(3, "none", "new")]);
        assert_eq!(odd.len(), 2);
        assert!(odd[0].starts_with("node 2 was never heard") && odd[1].starts_with("node 3 is no member"), "{odd:?}");
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

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["10.0.0.4:7441", "node-4.lan:1", "[::1]:7441"] {
            assert_eq!(address(good), Ok(good.to_owned()));
        }
        for bad in ["", "host", ":1", "host:0", "host:65536", "::1:7441", "http://h:1", "[x]:1", "a b:1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
