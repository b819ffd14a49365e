//! Clients whose connection breaks, and who find their state again.

use serde_json::{Value, json};

use super::cluster::balancer;
use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::examples::clients;
use crate::harness::node::{Node, Options};
use crate::harness::{Rng, SOON, ms, wait_for};

fn options() -> Options {
    Options::new().env("ROLLBOOK_SOCKETIO__MAX_DISCONNECTION", "30s").env("ROLLBOOK_ROLL__GRACE", "0s")
}

fn pair(node: &Node) -> [BusClient; 2] {
    ["sender", "receiver"].map(|name| {
        let client = BusClient::connect(node.web);
        client.register(name, &[name]);
        client
    })
}

fn notify(from: &BusClient, data: &Value) {
    let said = from.ask("bus:notify", &json!({ "event": "n", "data": data }));
    assert_eq!(said["success"], true, "{said}");
}

fn heard(client: &BusClient, count: usize) -> Vec<i64> {
    (0..count).map(|_| client.event("n").args[0].as_i64().unwrap_or(-1)).collect()
}

#[test]
fn a_client_finds_its_id_its_registration_and_what_it_missed_on_any_node() {
    let cluster = Cluster::start_with(options());
    let [sender, receiver] = pair(cluster.node(1));
    notify(&sender, &json!(1));
    assert_eq!(heard(&receiver, 1), [1]);
    let resumes = receiver.cut();
    // Missed: two notifications, a configuration, and that it was gone itself.
    notify(&sender, &json!(2));
    assert_eq!(cluster.node(1).web("POST", "/api/config", r#"{"a":1}"#).status, 200);
    notify(&sender, &json!(3));
    sender.event("service:offline");
    let back = BusClient::connect_as(cluster.node(3).web, &resumes);
    assert_eq!((&back.sid, &back.pid), (&receiver.sid, &receiver.pid));
    assert_eq!(heard(&back, 2), [2, 3]);
    assert_eq!(back.event("config:updated").args[0], json!({ "a": 1 }));
    assert_eq!(back.event("service:offline").args[0]["id"], "receiver");
    // It is an instance again without a word, and is told what comes.
    sender.event("service:online");
    let id = sender.begin("bus:request", &json!({ "capability": "receiver", "payload": 7 }));
    back.serve_one(Value::clone);
    assert_eq!(sender.acked(id)["data"], 7);
    notify(&sender, &json!(4));
    assert_eq!(heard(&back, 1), [4]);
    assert!(!back.hears("n", ms(200)), "{:?}", back.heard());
    let online = back.heard().iter().filter(|name| *name == "service:online").count();
    assert_eq!(online, 1, "its own return, out of the book or live, but once: {:?}", back.heard());
}

/// Everything of that name that has come and was not taken.
fn rest(client: &BusClient, name: &str) -> Vec<i64> {
    let count = client.heard().iter().filter(|heard| *heard == name).count();
    (0..count).map(|_| number(&client.event(name).args[0])).collect()
}

/// The number that is told: itself, or in a document.
fn number(told: &Value) -> i64 {
    told.as_i64().or_else(|| told["n"].as_i64()).unwrap_or(-1)
}

/// The first that is not what it should be, with its neighbours.
fn wrong(all: &[i64]) -> Option<&[i64]> {
    let at = (0..).zip(all).position(|(n, one)| n != *one)?;
    Some(&all[at.saturating_sub(3)..(at + 3).min(all.len())])
}

#[test]
fn everything_is_told_once_and_in_order_however_often_the_connection_breaks() {
    const NOTIFICATIONS: usize = 3000;
    const CONFIGS: usize = 150;
    let mut rng = Rng::from_env("recovery");
    let cluster = Cluster::start_with(options());
    let [sender, mut receiver] = pair(cluster.node(1));
    let id = receiver.sid.clone();
    let (mut notified, mut configured) = (Vec::new(), Vec::new());
    let mut breaks = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..NOTIFICATIONS).for_each(|n| notify(&sender, &json!(n))));
        // Told to everybody: also to who is back and not registered yet.
        scope.spawn(|| {
            for n in 0..CONFIGS {
                assert_eq!(cluster.node(2).web("POST", "/api/config", &json!({ "n": n }).to_string()).status, 200);
                std::thread::sleep(ms(10));
            }
        });
        while notified.len() < NOTIFICATIONS {
            let some = usize::try_from(rng.pick(1, 150)).unwrap_or(1).min(NOTIFICATIONS - notified.len());
            notified.extend((0..some).map(|_| number(&receiver.event("n").args[0])));
            let resumes = receiver.cut();
            // What came before the cut counts.
            notified.extend(rest(&receiver, "n"));
            configured.extend(rest(&receiver, "config:updated"));
            let at = cluster.node(usize::try_from(rng.pick(1, 4)).unwrap_or(1)).web;
            std::thread::sleep(ms(rng.pick(0, 30)));
            receiver = wait_for("its state", SOON, || {
                let back = BusClient::connect_as(at, &resumes);
                (back.sid == id).then_some(back)
            });
            breaks += 1;
        }
    });
    while configured.len() < CONFIGS {
        configured.push(number(&receiver.event("config:updated").args[0]));
    }
    assert_eq!((wrong(&notified), wrong(&configured)), (None, None), "after {breaks} breaks");
    assert!(breaks > 10 && !receiver.hears("config:updated", ms(100)), "{breaks}: {:?}", receiver.heard());
}

#[test]
fn the_javascript_client_says_that_it_has_recovered() {
    let Some(clients) = clients() else { return };
    let cluster = Cluster::start_with(options());
    let balancer = balancer(&cluster);
    let output = clients.node("recovered.js", &[&format!("http://{}", balancer.address)], SOON * 4);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

#[test]
fn a_node_that_stops_hands_over_what_clients_come_back_for() {
    let mut cluster = Cluster::start_with(options());
    let leader = cluster.leader();
    let [away, sender_at] = [leader, cluster.followers()[0]];
    let [_, before] = pair(cluster.node(away));
    let sender = BusClient::connect(cluster.node(sender_at).web);
    sender.register("other", &[]);
    let earlier = BusClient::connect(cluster.node(away).web);
    let broken = earlier.cut();
    cluster.terminate(away);
    let resumes = before.cut();
    notify(&sender, &json!(1));
    let back = BusClient::connect_as(cluster.node(cluster.running()[0]).web, &resumes);
    assert_eq!(back.sid, before.sid);
    assert_eq!(heard(&back, 1), [1]);
    let back = BusClient::connect_as(cluster.node(cluster.running()[1]).web, &broken);
    assert_eq!(back.sid, earlier.sid);
}

#[test]
fn nothing_is_kept_of_who_left_was_sent_away_or_stays_too_long() {
    let node = Node::start(&options().env("ROLLBOOK_SOCKETIO__MAX_DISCONNECTION", "1s"));
    let fresh = |why: &str, resumes: &Value, before: &str| {
        let client = BusClient::connect_as(node.web, resumes);
        assert!(client.sid != before && client.pid.as_ref().map(String::len) == Some(22), "{why}: {}", client.sid);
    };
    let left = BusClient::connect(node.web);
    left.send_raw("41");
    wait_for("it to be gone", SOON, || {
        (node.web("GET", "/api/connections", "").json()["items"] == json!([])).then_some(())
    });
    fresh("left", &left.cut(), &left.sid);
    let kicked = BusClient::connect(node.web);
    assert_eq!(node.web("DELETE", &format!("/api/connections/{}", kicked.sid), "").status, 204);
    kicked.end();
    fresh("kicked", &kicked.cut(), &kicked.sid);
    let late = BusClient::connect(node.web);
    let resumes = late.cut();
    std::thread::sleep(ms(1200));
    fresh("late", &resumes, &late.sid);
    let twice = BusClient::connect(node.web);
    let resumes = twice.cut();
    let gone = || node.web("GET", &format!("/api/connections/{}", twice.sid), "").status == 404;
    wait_for("it to be gone", SOON, || gone().then_some(()));
    let _back = BusClient::connect_as(node.web, &resumes);
    fresh("twice", &resumes, &twice.sid);
}

#[test]
fn what_cannot_be_an_offset_or_a_pid_begins_anew() {
    let node = Node::start(&options());
    let earlier = BusClient::connect(node.web);
    assert_eq!(node.web("POST", "/api/config", r#"{"a":1}"#).status, 200);
    earlier.event("config:updated");
    let [sender, victim] = pair(&node);
    for n in 0..3 {
        notify(&sender, &json!(n));
    }
    let pid = victim.pid.clone();
    let odd = [
        json!({ "pid": 7 }),
        json!({ "pid": "x".repeat(100_000), "offset": "1.1" }),
        json!({ "pid": pid, "offset": "1.1" }),
        json!({ "pid": "A".repeat(22), "offset": "1.1" }),
        json!({ "pid": "A".repeat(22), "offset": "nonsense" }),
        json!({ "pid": "A".repeat(22), "offset": 7 }),
        json!({ "offset": "1.1" }),
    ];
    for auth in odd {
        let client = BusClient::connect_as(node.web, &auth);
        assert!(client.sid != victim.sid && client.pid != pid, "a session that lives is nobody else's: {auth}");
    }
    heard(&victim, 3);
    // An offset that is too old gives what came while the client was there, and not the whole book.
    victim.cut();
    let back = wait_for("its state", SOON, || {
        let back = BusClient::connect_as(node.web, &json!({ "pid": pid, "offset": "0.0" }));
        (back.sid == victim.sid).then_some(back)
    });
    assert_eq!(heard(&back, 3), [0, 1, 2]);
    assert!(!back.heard().contains(&"config:updated".to_owned()), "{:?}", back.heard());
}

#[test]
fn who_has_missed_more_than_fits_begins_anew() {
    let node = Node::start(
        &options()
            .env("ROLLBOOK_SOCKETIO__MESSAGE_BYTES_MAX", "4000")
            .env("ROLLBOOK_SOCKETIO__QUEUE_BYTES_MAX", "4000"),
    );
    let [sender, receiver] = pair(&node);
    let resumes = receiver.cut();
    (0..5).for_each(|_| notify(&sender, &json!("x".repeat(1000))));
    let back = BusClient::connect_as(node.web, &resumes);
    assert_ne!(back.sid, receiver.sid);
    assert!(!back.hears("n", ms(200)));
}

#[test]
fn without_the_setting_nothing_is_kept_and_events_are_as_they_always_were() {
    let node = Node::start(&Options::new());
    let [sender, receiver] = pair(&node);
    assert_eq!(receiver.pid, None);
    notify(&sender, &json!(1));
    assert_eq!(receiver.event("n").args.len(), 2);
    let back = BusClient::connect_as(node.web, &json!({ "pid": "A".repeat(22), "offset": "0.0" }));
    assert_eq!(back.pid, None);
}
