//! A dock at the nodes of a cluster, which are killed one after the other.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::agent::{Agent, is_alive};
use crate::doors::hms::builds::deploy;
use crate::doors::hms::client::{Hms, op};
use crate::harness::cluster::{Cluster, free_addresses};
use crate::harness::node::Options;
use crate::harness::{SOON, wait_for};

/// The processes of the dock, as a node tells.
fn processes(client: &mut Hms) -> Vec<Value> {
    let docks = client.do_(op::PS, "").expect("an answer");
    docks
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|dock| dock["list"].as_array().cloned().unwrap_or_default())
        .collect()
}

/// The numbers that a process has said, until there are so many.
fn ticks(client: &mut Hms, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let heard = client.heard();
        if heard.op == op::STDOUT {
            numbers.extend(heard.text().lines().filter_map(|line| line.strip_prefix("tick ")?.parse::<u64>().ok()));
        }
    }
    numbers
}

#[test]
fn a_process_keeps_running_and_reporting_while_the_nodes_are_killed_one_after_the_other() {
    let mut cluster = Cluster::prepare(Options::new());
    // The same addresses after a restart.
    let addresses = free_addresses(3);
    let more = |id: usize, options: Options| options.arg("--hms").arg(&addresses[id - 1]);
    cluster.up_with(&[1, 2, 3], more);
    let mut agent = Agent::start_at(&addresses, &[]);
    let mut client = Hms::client(cluster.node(1));
    let script = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.05; done";
    let definition = json!({"start": format!("sh -c '{script}'")});
    client.ask(op::ADD, "app1", &definition).expect("added");
    deploy(cluster.node(1), "app1", "r1").expect("deployed");
    wait_for("the dock", SOON, || (!client.do_(op::PS, "").ok()?.as_array()?.is_empty()).then_some(()));
    client.do_(op::SYNC, "app1").expect("synced");
    let pid = wait_for("the process", SOON, || processes(&mut client).first()?["pid"].as_u64());
    let mut seen = BTreeSet::new();
    for victim in 1..=3_usize {
        let other = victim % 3 + 1;
        let mut follower = Hms::client(cluster.node(other));
        cluster.kill(victim);
        wait_for("a follower at a living node", SOON * 2, || follower.do_(op::SUBSCRIBE, "app1").ok());
        let ticks = ticks(&mut follower, 20);
        assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "in order: {ticks:?}");
        seen.extend(ticks);
        let told = wait_for("what runs", SOON * 2, || {
            let mut client = Hms::client(cluster.node(other));
            processes(&mut client).first().cloned()
        });
        assert_eq!(
            (&told["pid"], &told["status"], &told["restarts"]),
            (&json!(pid), &json!("running"), &json!(0)),
            "{told}"
        );
        cluster.up_with(&[victim], more);
    }
    assert!(is_alive(u32::try_from(pid).expect("a pid")), "the process that was there from the beginning");
    assert!(seen.len() >= 60, "{}", seen.len());
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(!is_alive(u32::try_from(pid).expect("a pid")), "the process ends with the dock");
}
