//! Nodes whose majority is gone, and what they say of it.

use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::node::{Options, rollbook, run_command};
use crate::harness::{SOON, ms, wait_for};

/// `cluster.node_timeout` in this test.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a busy machine may add to it.
const BUSY: Duration = Duration::from_secs(2);

#[test]
fn five_nodes_of_which_three_are_killed_are_not_ready_anywhere_until_one_is_back() {
    let mut cluster = Cluster::prepare_of(5, Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "3s"));
    cluster.up(&[1, 2, 3, 4, 5]);
    cluster.publish_anywhere("app.x", "1");
    let (leader, followers) = (cluster.leader(), cluster.followers());
    let left = [leader, followers[0]];
    let mut streams = left.map(|id| cluster.node(id).subscribe(&[("subject", "app.x"), ("start", "oldest")]));
    streams.iter_mut().for_each(|stream| drop(stream.next_event(SOON)));
    let began = Instant::now();
    followers[1..].iter().for_each(|id| cluster.kill(*id));
    for id in left {
        // While the loss is not known yet the outcome is not either.
        let refused = cluster.node(id).post(r#"{"subject":"app.x","payload":2}"#);
        assert_eq!(refused.status, 503, "node {id}: {}", refused.text());
    }
    let waited = began.elapsed();
    assert!(waited < NODE_TIMEOUT * 2 + BUSY, "refused after {waited:?}");
    for id in left {
        let node = cluster.node(id);
        let said = wait_for("it is not ready", SOON, || {
            Some(node.web("GET", "/readyz", "")).filter(|answer| answer.status == 503)
        });
        assert!(said.text().contains("no majority of the cluster answers"), "node {id}: {}", said.text());
    }
    for stream in &mut streams {
        stream.end(SOON);
    }
    let ended = began.elapsed();
    assert!(ended < NODE_TIMEOUT + BUSY * 2, "streams were ended after {ended:?}");
    for id in left {
        let node = cluster.node(id);
        let began = Instant::now();
        assert_eq!(node.post(r#"{"subject":"app.x","payload":2}"#).status, 503);
        assert!(began.elapsed() < ms(1000), "node {id} knew it and took {:?}", began.elapsed());
        assert_eq!(node.web("GET", "/readyz", "").status, 503, "node {id} still");
        let mut command = rollbook();
        command.args(["--web-url", &format!("http://{}", node.web), "cluster", "status"]);
        let status = run_command(command, b"", SOON);
        let warned = status
            .stderr
            .contains("warning: no majority of the cluster answers: nothing can be published through this node");
        assert!(warned && status.code == Some(1) && !status.stdout.contains("leader"), "{status:?}");
    }
    cluster.up(&[followers[1]]);
    let again = Instant::now();
    wait_for("all are ready", SOON, || {
        let ready = |id: usize| cluster.node(id).web("GET", "/readyz", "").status == 200;
        cluster.running().into_iter().all(ready).then_some(())
    });
    assert!(again.elapsed() < BUSY, "ready {:?} after the third was", again.elapsed());
    cluster.publish_anywhere("app.x", "3");
}
