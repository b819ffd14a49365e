//! Promotions and removals: which are refused and why, what force does, what becomes of a node that was removed.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::cluster::{Cluster, free_addresses};
use crate::harness::http::Http;
use crate::harness::node::{Exit, Node, Options, rollbook, run_command};
use crate::harness::{Rng, SOON, ms, wait_for};

/// A node that was removed ends within this time.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Every change is answered within this time, and a moment for the way.
const ANSWER_MAX: Duration = Duration::from_secs(11);

/// `rollbook cluster ...`, asked of that node.
fn cluster_command(node: &Node, args: &[&str]) -> Exit {
    let mut command = rollbook();
    command.arg("cluster").args(args).args(["--web-url", &format!("http://{}", node.web)]);
    run_command(command, b"", SOON * 2)
}

fn join(node: &Node) -> u64 {
    let [address] = free_addresses(1).try_into().expect("one");
    let joined = node.web("POST", "/api/cluster/nodes", &format!(r#"{{"address":"{address}"}}"#));
    assert_eq!(joined.status, 201, "{}", joined.text());
    joined.json()["id"].as_u64().expect("its number")
}

fn delete(node: &Node, id: usize) -> (u16, String) {
    let removed = node.web("DELETE", &format!("/api/cluster/nodes/{id}"), "");
    (removed.status, removed.text())
}

fn member(view: &Value, id: u64) -> Option<Value> {
    view["nodes"].as_array()?.iter().find(|node| node["id"] == id).cloned()
}

fn was_removed(exit: &Exit, id: usize) {
    let why = format!("node {id} was removed from the cluster");
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(exit.stderr.contains(&format!("error: {why}")), "{exit:#?}");
    assert!(exit.stderr.lines().any(|line| line.contains("ERROR") && line.contains(&why)), "{exit:#?}");
}

#[test]
fn a_node_that_was_never_started_gets_no_vote_and_the_cluster_goes_on() {
    let node = Node::start(&Options::new());
    let id = join(&node);
    for _ in 0..2 {
        let refused = node.web("POST", &format!("/api/cluster/nodes/{id}/promote"), "");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("membership")), "{}", refused.text());
        assert!(refused.text().contains("was never heard: start it"), "{}", refused.text());
    }
    // Of two voters both must answer, so force cannot help.
    let number = id.to_string();
    let forced = cluster_command(&node, &["promote", &number, "--force"]);
    assert_eq!(forced.code, Some(1), "{forced:?}");
    assert!(forced.stderr.contains("the cluster would stop") && forced.stderr.contains(&number), "{forced:?}");
    node.publish("app.x", "1");
    let status = cluster_command(&node, &["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stderr.contains(&format!("node {id} was never heard")), "{status:?}");
    assert_eq!(member(&node.web("GET", "/api/cluster", "").json(), id).expect("it")["state"], "new");
    let unasked = cluster_command(&node, &["remove", &number]);
    assert!(unasked.code == Some(2) && unasked.stderr.contains("pass --yes"), "{unasked:?}");
    assert!(member(&node.web("GET", "/api/cluster", "").json(), id).is_some());
    let removed = cluster_command(&node, &["remove", &number, "--yes"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let again = cluster_command(&node, &["remove", &number, "--yes"]);
    assert_eq!(again.code, Some(0), "a removal may be repeated: {again:?}");
    assert_eq!(member(&node.web("GET", "/api/cluster", "").json(), id), None);
    assert_eq!(delete(&node, 1).0, 409, "the last voter");
    assert_eq!(node.web("POST", "/api/cluster/nodes/9/promote?force=maybe", "").status, 400);
}

#[test]
fn a_node_that_was_removed_says_so_ends_its_streams_and_exits() {
    let mut cluster = Cluster::start();
    cluster.publish_anywhere("app.x", "1");
    let (leader, victim) = (cluster.leader(), cluster.followers()[0]);
    let log = cluster.node(victim).log;
    let mut stream = cluster.node(victim).replay("app.x");
    assert_eq!(stream.events(1, SOON).len(), 1);
    assert_eq!(delete(cluster.node(leader), victim).0, 204);
    let began = Instant::now();
    // As long as it still answers, it refuses every publish.
    while let Ok(mut http) = Http::connect_within(log, ms(500)) {
        let Ok(answer) = http.try_request("POST", "/", &[], br#"{"subject":"app.x","payload":"late"}"#) else { break };
        assert_ne!(answer.status, 202, "published through a node that was removed");
        assert!(began.elapsed() < SOON, "it still answers: {}", answer.text());
    }
    stream.end(FAREWELL_MAX);
    let exit = cluster.ended(victim, FAREWELL_MAX.saturating_sub(began.elapsed()));
    was_removed(&exit, victim);
    for told in [
        format!("the data directory is open version=\"{}\" node={victim}", env!("CARGO_PKG_VERSION")),
        format!("a node leads leader={leader} term="),
    ] {
        assert!(exit.stderr.contains(&told), "{told}: {exit:#?}");
    }
    let again = Node::launch(&cluster.options_of(victim), &cluster.data(victim)).err().expect("it must not start");
    was_removed(&again, victim);
    // The leader takes itself out, asked itself.
    let (answer, exit) = (delete(cluster.node(leader), leader), cluster.ended(leader, FAREWELL_MAX));
    assert_eq!(answer.0, 204, "{}", answer.1);
    was_removed(&exit, leader);
    let last = cluster.running()[0];
    wait_for("the last one leads", SOON, || (cluster.view(last)["leader"] == last).then_some(()));
    cluster.node(last).publish("app.x", "\"2\"");
    assert_eq!(cluster.payloads(last, "app.x", 2), ["1", "2"]);
}

#[test]
fn a_removal_that_would_cost_the_majority_needs_force_which_takes_the_votes_of_the_dead_too() {
    let mut cluster = Cluster::start();
    let (leader, dead) = (cluster.leader(), cluster.followers()[0]);
    let victim = cluster.followers()[1];
    cluster.publish_anywhere("app.x", "1");
    cluster.kill(dead);
    wait_for("its silence is noticed", SOON, || {
        let (status, text) = delete(cluster.node(victim), victim);
        assert_ne!(status, 204, "{text}");
        (status == 409 && text.contains(&format!("node {dead} does not"))).then_some(())
    });
    cluster.publish_anywhere("app.x", "2");
    let forced = cluster_command(cluster.node(leader), &["remove", &victim.to_string(), "--force", "--yes"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    was_removed(&cluster.ended(victim, FAREWELL_MAX), victim);
    cluster.publish_anywhere("app.x", "3");
    // It has lost its vote, not its place.
    cluster.up(&[dead]);
    let id = u64::try_from(dead).expect("a small number");
    assert_eq!(member(&cluster.view(leader), id).expect("it")["role"], "learner");
    let promoted = wait_for("it has caught up", SOON, || {
        let promoted = cluster.node(leader).web("POST", &format!("/api/cluster/nodes/{dead}/promote"), "");
        (promoted.status == 200).then(|| promoted.json())
    });
    assert_eq!(promoted["role"], "voter");
    assert_eq!(cluster.payloads(dead, "app.x", 3), ["1", "2", "3"]);
}

#[test]
fn a_removal_whose_leader_is_killed_is_completed_by_repeating_it() {
    let mut rng = Rng::from_env("a_removal_whose_leader_is_killed_is_completed_by_repeating_it");
    let mut cluster = Cluster::start();
    let (leader, victim) = (cluster.leader(), cluster.followers()[0]);
    cluster.publish_anywhere("app.x", "1");
    let web = cluster.node(leader).web;
    std::thread::scope(|scope| {
        let path = format!("/api/cluster/nodes/{victim}");
        // Its answer may never come.
        scope.spawn(move || Http::connect(web).try_request("DELETE", &path, &[], b"").ok());
        std::thread::sleep(ms(rng.pick(0, 25)));
        cluster.kill(leader);
    });
    cluster.up(&[leader]);
    let other = cluster.running().into_iter().find(|id| ![leader, victim].contains(id)).expect("another node");
    wait_for("the removal is completed", SOON * 3, || (delete(cluster.node(other), victim).0 == 204).then_some(()));
    was_removed(&cluster.ended(victim, FAREWELL_MAX), victim);
    let id = u64::try_from(victim).expect("a small number");
    wait_for("it is no member", SOON, || member(&cluster.view(other), id).is_none().then_some(()));
    cluster.publish_anywhere("app.x", "2");
    assert_eq!(cluster.payloads(other, "app.x", 2), ["1", "2"]);
}

#[test]
fn without_a_majority_the_status_says_so_and_every_change_is_answered_in_time() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let others = cluster.followers();
    others.iter().for_each(|id| cluster.kill(*id));
    let node = cluster.node(leader);
    let view = wait_for("it sees that it has no majority", SOON, || {
        let view = node.web("GET", "/api/cluster", "").json();
        view["leader"].is_null().then_some(view)
    });
    assert!(view["warning"].is_string(), "{view}");
    let nodes = view["nodes"].as_array().expect("nodes");
    assert!(nodes.iter().all(|node| node["role"] == "voter"), "nobody leads: {view}");
    let status = cluster_command(node, &["status"]);
    assert_eq!(status.code, Some(1), "scripts must see that: {status:?}");
    assert!(status.stderr.contains("nothing can be published") && status.stderr.contains("1 of 3"), "{status:?}");
    let requests = [
        ("DELETE", format!("/api/cluster/nodes/{}", others[0])),
        ("DELETE", format!("/api/cluster/nodes/{}?force=true", others[0])),
        ("POST", "/api/cluster/nodes".to_owned()),
    ];
    for (method, path) in requests {
        let began = Instant::now();
        let refused = node.web(method, &path, r#"{"address":"127.0.0.1:9"}"#);
        assert_eq!(refused.status, 503, "{method} {path}: {}", refused.text());
        assert!(began.elapsed() < ANSWER_MAX, "{method} {path}: {:?}", began.elapsed());
    }
    cluster.up(&others);
    cluster.publish_anywhere("app.x", "1");
}
