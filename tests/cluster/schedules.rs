//! Ticks of schedules while leaders die.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::{SOON, ms, wait_for};

/// How often a leader dies.
const KILLS: usize = 4;

fn second_of(event: &Value) -> i64 {
    let tick = event["headers"]["rollbook-tick"].as_str().expect("a tick");
    tick.parse::<jiff::Timestamp>().expect("a time").as_second()
}

/// A tick that a dying leader has proposed is proposed by the next one again, unless it was stored.
#[test]
fn each_tick_has_one_event_however_often_the_leader_dies() {
    let mut cluster = Cluster::start();
    let body = json!({ "subject": "app.beat", "every": "1s" }).to_string();
    let set = cluster.node(cluster.followers()[0]).web("PUT", "/api/schedules/beat", &body);
    assert_eq!(set.status, 200, "{}", set.text());
    // Many more at the same time, so that a leader dies in the middle of them.
    for number in 0..50 {
        let body = json!({ "subject": format!("app.many.{number}"), "cron": "* * * * * *" }).to_string();
        let set = cluster.node(1).web("PUT", &format!("/api/schedules/many-{number}"), &body);
        assert_eq!(set.status, 200, "{}", set.text());
    }
    for kill in 0..KILLS {
        // A little later within the second each time.
        std::thread::sleep(ms(2000 + 230 * u64::try_from(kill).expect("a few")));
        let leader = cluster.leader();
        cluster.kill(leader);
        std::thread::sleep(ms(1500));
        cluster.up(&[leader]);
    }
    std::thread::sleep(ms(2000));
    let fired = |cluster: &Cluster, name: &str| {
        let node = cluster.node(cluster.running()[0]);
        node.web("GET", &format!("/api/schedules/{name}"), "").json()["fired"].as_u64().unwrap_or_default()
    };
    for (name, subject) in [("beat", "app.beat"), ("many-0", "app.many.0"), ("many-49", "app.many.49")] {
        let count = usize::try_from(fired(&cluster, name)).expect("a number");
        assert!(count >= 4 * KILLS, "{name}: only {count} events");
        for id in 1..=3 {
            let events = cluster.node(id).replay(subject).events(count, SOON);
            let seconds: Vec<i64> = events.iter().map(|event| second_of(&event.json())).collect();
            let is_next = |pair: &[i64]| pair[1] == pair[0] + 1;
            assert!(
                seconds.windows(2).all(is_next),
                "node {id}: a tick of {name} is missing or came twice: {seconds:?}"
            );
        }
    }
    // All nodes count the same.
    let paused = cluster.node(2).web("PATCH", "/api/schedules/beat", r#"{"paused":true}"#);
    assert_eq!(paused.status, 200, "{}", paused.text());
    let of = |id: usize| cluster.node(id).web("GET", "/api/schedules/beat", "").json();
    let (one, two, three) = (of(1), of(2), of(3));
    assert!(one == two && two == three, "{one}\n{two}\n{three}");
    assert_eq!((&one["missed_ticks"], &one["failed"]), (&json!(0), &json!(0)), "{one}");
}

#[test]
fn a_schedule_that_is_set_at_any_node_is_proposed_by_the_leader_alone() {
    let cluster = Cluster::start();
    let (leader, followers) = (cluster.leader(), cluster.followers());
    let body = json!({ "subject": "app.beat", "every": "1s" }).to_string();
    assert_eq!(cluster.node(followers[1]).web("PUT", "/api/schedules/beat", &body).status, 200);
    cluster.node(followers[0]).replay("app.beat").events(2, SOON);
    // A node that has proposed no tick has no such line.
    let fired = |id: usize| {
        let text = cluster.node(id).web("GET", "/metrics", "").text();
        let line = text.lines().find_map(|line| line.strip_prefix("rollbook_schedule_ticks_total{outcome=\"fired\"} "));
        line.map_or(0, |count| count.parse::<u64>().expect("a number"))
    };
    wait_for("a count at the leader", Duration::from_secs(5), || (fired(leader) >= 2).then_some(()));
    assert_eq!((fired(followers[0]), fired(followers[1])), (0, 0));
}
