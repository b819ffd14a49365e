//! How a cluster begins, and who may be part of it.

use std::time::Duration;

use crate::harness::cluster::{Cluster, free_addresses, joined};
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, copy_tree, wait_for};

fn cluster_id(cluster: &Cluster, id: usize) -> String {
    cluster.view(id)["cluster_id"].as_str().expect("a cluster id").to_owned()
}

#[test]
fn founding_nodes_form_one_cluster_and_find_each_other_again_after_a_restart() {
    let mut cluster = Cluster::start();
    let id = cluster_id(&cluster, 1);
    assert!(!id.is_empty());
    assert_eq!([cluster_id(&cluster, 2), cluster_id(&cluster, 3)], [id.clone(), id.clone()]);
    cluster.publish_anywhere("app.x", "before");
    (1..=3).for_each(|node| cluster.terminate(node));
    cluster.up(&[3, 1, 2]);
    assert_eq!(cluster_id(&cluster, 3), id);
    cluster.publish_anywhere("app.x", "after");
    for node in 1..=3 {
        assert_eq!(cluster.payloads(node, "app.x", 2), ["before", "after"], "node {node}");
    }
}

#[test]
fn two_of_three_founders_do_not_found_a_cluster() {
    let cluster = Cluster::prepare(Options::new());
    let ended = std::thread::scope(|scope| {
        let wait = |id: usize| {
            let (options, data) = (cluster.options_of(id), cluster.data(id));
            scope.spawn(move || Node::not_ready(&options, &data, Duration::from_secs(3)))
        };
        let both = [wait(1), wait(2)];
        both.map(|thread| thread.join().expect("a node that waits"))
    });
    assert_eq!(ended, [true, true], "a minority of the founders could be the other half of a split");
}

#[test]
fn a_node_that_lost_its_disk_is_refused_and_joins_under_a_new_number() {
    let mut cluster = Cluster::start();
    for number in 0..20 {
        cluster.publish_anywhere("app.x", &number.to_string());
    }
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("lose the disk");
    let exit = Node::launch(&cluster.options_of(2), &cluster.data(2)).err().expect("it must not start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("cluster join"), "it says what to do: {}", exit.stderr);

    let node = joined(cluster.node(1), &cluster.directory.path().join("d4"));
    let id = node.web("GET", "/api/cluster", "").json()["node"].as_u64().expect("its number");
    assert_eq!(id, 4);
    wait_for("the learner has caught up and votes", SOON, || {
        (cluster.node(1).web("POST", "/api/cluster/nodes/4/promote", "").status == 200).then_some(())
    });
    assert_eq!(cluster.node(3).web("DELETE", "/api/cluster/nodes/2", "").status, 204);
    let events = node.replay("app.x").events(20, SOON);
    assert_eq!(events.len(), 20);
    // The old number is gone for good, even with its old data.
    let exit = Node::launch(&cluster.options_of(2), &cluster.data(2)).err().expect("it must not start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    // Three voters again: one may die.
    cluster.kill(3);
    cluster.publish_anywhere("app.x", "last");
    assert_eq!(node.replay("app.x").events(21, SOON).len(), 21);
}

/// It would wait for the other founders for ever, who are gone.
#[test]
fn the_last_founder_is_refused_too_when_it_lost_its_disk() {
    let mut cluster = Cluster::start();
    cluster.publish_anywhere("app.x", "1");
    let others = [4, 5].map(|id| joined(cluster.node(1), &cluster.directory.path().join(format!("d{id}"))));
    for (id, old) in [(4, 2), (5, 3)] {
        wait_for("the learner has caught up and votes", SOON, || {
            let promoted = cluster.node(1).web("POST", &format!("/api/cluster/nodes/{id}/promote"), "");
            (promoted.status == 200).then_some(())
        });
        let removed = others[0].web("DELETE", &format!("/api/cluster/nodes/{old}"), "");
        assert_eq!(removed.status, 204, "{}", removed.text());
        cluster.ended(old, SOON);
    }
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).expect("lose the disk");
    let exit = Node::launch(&cluster.options_of(1), &cluster.data(1)).err().expect("it must not start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("node 1 has no data of cluster"), "{}", exit.stderr);
    others[1].publish("app.x", "2");
}

#[test]
fn a_node_that_moved_is_found_at_its_new_address() {
    let mut cluster = Cluster::start();
    let moved = cluster.followers()[0];
    cluster.publish_anywhere("app.x", "1");
    cluster.terminate(moved);
    let [address] = free_addresses(1).try_into().expect("one");
    cluster.up_with(&[moved], |_, options| options.peer(&address).arg("--advertise").arg(&address));
    cluster.publish_anywhere("app.x", "2");
    assert_eq!(cluster.payloads(moved, "app.x", 2), ["1", "2"]);
    let other = cluster.running().into_iter().find(|id| *id != moved).expect("another node");
    let view = cluster.view(other);
    let shown = view["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["id"] == moved)).cloned();
    assert_eq!(shown.map(|node| node["address"].clone()), Some(address.into()), "{view}");
}

#[test]
fn a_copy_of_a_node_does_not_run_beside_it() {
    let cluster = Cluster::start();
    cluster.publish_anywhere("app.x", "1");
    let copy = cluster.directory.path().join("copy");
    copy_tree(&cluster.data(2), &copy);
    let [elsewhere] = free_addresses(1).try_into().expect("one");
    let options = cluster.options_of(2).peer(&elsewhere);
    let exit = Node::launch(&options, &copy).err().expect("it must not start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("in use") || exit.stderr.contains("life"), "{}", exit.stderr);
    cluster.publish_anywhere("app.x", "2");
    for id in 1..=3 {
        assert_eq!(cluster.payloads(id, "app.x", 2), ["1", "2"], "node {id}");
    }
}

#[test]
fn the_membership_is_changed_on_any_node_and_impossible_changes_are_refused() {
    let cluster = Cluster::start();
    let follower = cluster.node(cluster.followers()[0]);
    let status = |method: &str, path: &str, body: &str| follower.web(method, path, body).status;
    assert_eq!(status("DELETE", "/api/cluster/nodes/9", ""), 404);
    assert_eq!(status("POST", "/api/cluster/nodes/9/promote", ""), 404);
    assert_eq!(status("POST", "/api/cluster/transfer", r#"{"to":9}"#), 404);
    assert_eq!(status("POST", "/api/cluster/nodes", r#"{"address":"0.0.0.0:7"}"#), 400);
    assert_eq!(status("POST", "/api/cluster/nodes", r#"{"address":7}"#), 400);
    assert_eq!(status("PUT", "/api/cluster/nodes", ""), 405);
    let before = cluster.leader();
    let target = cluster.followers()[0];
    let moved = follower.web("POST", "/api/cluster/transfer", &format!(r#"{{"to":{target}}}"#));
    assert_eq!((moved.status, moved.json()["leader"].as_u64()), (200, u64::try_from(target).ok()));
    assert_ne!(cluster.leader(), before);
}
