//! `rollbook cluster join`: gets a number for a new node and creates its data directory.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::print;

/// First line of the file FORMAT, as the node expects it.
const FORMAT: &str = "rollbook data 1";

/// The number and the cluster of a node that was just added.
#[derive(Debug, Deserialize)]
struct AddedNode {
    id: u64,
    cluster_id: String,
}

pub(in crate::app::cli) async fn run(
    global: &Global,
    client: &Client,
    address: &str,
    data: &Path,
) -> anyhow::Result<()> {
    // The directory comes first: without a directory, a new member would stay in the cluster without a process.
    let made = prepare(data)?;
    let added_node = match add(client, address).await {
        Ok(added_node) => added_node,
        Err(error) => {
            if made {
                // The directory is empty. A directory that cannot be removed does no harm.
                fs::remove_dir(data).ok();
            }
            return Err(error);
        }
    };
    let AddedNode { id, cluster_id } = &added_node;
    let written = write(data, &added_node);
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

async fn add(client: &Client, address: &str) -> anyhow::Result<AddedNode> {
    let url = client.url(&["api", "cluster", "nodes"], &[]);
    let added = client.json(Method::POST, url, Some(&json!({ "address": address }))).await;
    let added_node: AddedNode = added.map_err(|error| match error.downcast_ref() {
        Some(CallError::Slow { .. } | CallError::Broken { .. }) => {
            error.context("look into `rollbook cluster status` before trying again: the node may have been added")
        }
        _ => error,
    })?;
    // The id is written into a file and into the shown lines, so it must be harmless.
    if added_node.cluster_id.is_empty() || !added_node.cluster_id.chars().all(|c| c.is_ascii_hexdigit()) {
        bail!("the cluster calls itself {:?}, which this version does not know", added_node.cluster_id);
    }
    Ok(added_node)
}

/// Creates the directory, or accepts an empty one. Returns whether the directory is new.
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

/// Writes the files of the new node. FORMAT comes last, because a directory without FORMAT belongs to no node.
fn write(data: &Path, added_node: &AddedNode) -> io::Result<()> {
    let AddedNode { id, cluster_id } = added_node;
    for (name, text) in [("CLUSTER", format!("{cluster_id}\n")), ("FORMAT", format!("{FORMAT}\nnode {id}\n"))] {
        let mut file = fs::File::create_new(data.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(data)?.sync_all()?;
    }
    // Syncs the entry of the directory itself. A name without a parent lies in the present directory.
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    const JOINED: &str = r#"{"id":4,"cluster_id":"0af3","address":"10.0.0.4:7441"}"#;

    async fn join(fake: &Fake, data: &Path) -> anyhow::Result<()> {
        let global = fake.global();
        run(&global, &Client::web(&global)?, "10.0.0.4:7441", data).await
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
    fn a_word_for_a_shell_stays_one_word() {
        assert_eq!(quoted("./data-1"), "./data-1");
        assert_eq!(quoted("my data's"), r"'my data'\''s'");
    }
}
