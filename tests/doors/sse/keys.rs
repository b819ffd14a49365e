//! Order by key: one event of each key is with a member at a time, whoever comes and goes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::http::Http;
use crate::harness::node::{Node, Options};
use crate::harness::sse::Sse;
use crate::harness::{Rng, SOON, ms, wait_for};

fn member(node: &Node, order_by: &str) -> Sse {
    let query = [("subject", "app.x"), ("start", "oldest"), ("ack", "manual"), ("group", "w")];
    node.subscribe(
        &[
            &query[..],
            &[("redelivery", "5s"), ("redelivery_count", "0"), ("max_in_flight", "20"), ("order_by", order_by)],
        ]
        .concat(),
    )
}

fn publish(node: &Node, keys: &[u64]) {
    let event = |(n, key): (usize, &u64)| json!({"subject": "app.x", "headers": {"customer": key.to_string()}, "payload": {"n": n, "customer": key}});
    let events: Vec<Value> = keys.iter().enumerate().map(event).collect();
    assert_eq!(node.post(Value::from(events).to_string()).status, 202);
}

fn say(node: &Node, stream: &Sse, id: &str, more: &str) {
    let to = format!("/?consumer_id={}&event_id={id}{more}", stream.consumer_id());
    let answer = Http::connect(node.log).request("PUT", &to, &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn the_next_event_of_a_key_comes_when_the_one_before_is_acknowledged() {
    let node = Node::start(&Options::namespaces("app"));
    publish(&node, &[1, 1, 2, 1, 2, 3]);
    for order_by in ["header:customer", "/customer"] {
        let mut stream = member(&node, order_by);
        let events = stream.events(3, SOON);
        let numbers: Vec<Value> = events.iter().map(|event| event.payload()["n"].clone()).collect();
        assert_eq!(numbers, [0, 2, 5], "{order_by}: one of each key");
        stream.quiet(ms(200));
        say(&node, &stream, &events[1].event_id(), "&action=nack");
        let again = stream.next_event(SOON);
        assert_eq!(again.payload()["n"], 2);
        assert_eq!(again.json()["delivery"]["reason"], "nack");
        stream.quiet(ms(200));
        drop(stream);
        wait_for("the member is gone", SOON, || (node.actors("subscription") == 0).then_some(()));
    }
    let mut stream = member(&node, "header:customer");
    let refused = node.get("/?subject=app.x&ack=manual&group=w&max_in_flight=20");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("in use with ack=manual, order_by=header:customer"), "{}", refused.text());
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let event = stream.next_event(SOON);
        seen.push(event.payload()["n"].as_u64().unwrap());
        say(&node, &stream, &event.event_id(), "");
    }
    let of = |numbers: &[u64]| seen.iter().copied().filter(|n| numbers.contains(n)).collect::<Vec<_>>();
    assert_eq!((of(&[0, 1, 3]), of(&[2, 4])), (vec![0, 1, 3], vec![2, 4]), "{seen:?}");
}

/// An event that a client works on.
#[derive(Debug)]
struct Work {
    key: u64,
    number: usize,
    node: usize,
    consumer_id: String,
    event_id: String,
    until: Instant,
}

/// Clients at all nodes.
struct Clients {
    cluster: Cluster,
    random: Rng,
    members: Vec<(usize, Sse)>,
    work: Vec<Work>,
    done: BTreeSet<usize>,
}

impl Clients {
    fn come_and_go(&mut self) {
        if self.members.len() < 3 || (self.members.len() < 6 && self.random.pick(0, 40) == 0) {
            let node = usize::try_from(self.random.pick(1, 3)).unwrap();
            self.members.push((node, member(self.cluster.node(node), "/customer")));
        } else if self.random.pick(0, 30) == 0 {
            let last = u64::try_from(self.members.len() - 1).unwrap();
            let (_, gone) = self.members.swap_remove(usize::try_from(self.random.pick(0, last)).unwrap());
            self.work.retain(|work| work.consumer_id != gone.consumer_id());
        }
    }

    fn take(&mut self) {
        for (node, stream) in &mut self.members {
            while let Some(event) = stream.try_event(ms(1)) {
                let payload = event.payload();
                let key = payload["customer"].as_u64().unwrap();
                let number = usize::try_from(payload["n"].as_u64().unwrap()).unwrap();
                let busy: Vec<&Work> = self.work.iter().filter(|work| work.key == key).collect();
                assert!(busy.is_empty(), "{number} of key {key} came while {busy:?}");
                let until = Instant::now() + ms(self.random.pick(0, 30));
                let (consumer_id, event_id) = (stream.consumer_id(), event.event_id());
                self.work.push(Work { key, number, node: *node, consumer_id, event_id, until });
            }
        }
    }

    /// Acknowledges what is done. Returns the numbers in their order.
    fn finish(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let (over, work) = std::mem::take(&mut self.work).into_iter().partition(|work| work.until <= now);
        self.work = work;
        let mut numbers = Vec::new();
        for Work { number, node, consumer_id, event_id, .. } in over {
            let to = format!("/?consumer_id={consumer_id}&event_id={event_id}");
            let answer = Http::connect(self.cluster.node(node).log).request("PUT", &to, &[], b"");
            assert_eq!(answer.status, 202, "{}", answer.text());
            numbers.push(number);
        }
        numbers
    }
}

#[test]
fn no_two_members_have_one_key_at_a_time_while_members_come_and_go() {
    const EVENTS: usize = 600;
    let mut random = Rng::from_env("keys");
    let cluster = Cluster::start();
    let keys: Vec<u64> = (0..EVENTS).map(|_| random.pick(1, 12)).collect();
    publish(cluster.node(1), &keys);
    let mut clients = Clients { cluster, random, members: Vec::new(), work: Vec::new(), done: BTreeSet::new() };
    let until = Instant::now() + Duration::from_secs(90);
    while clients.done.len() < EVENTS {
        assert!(Instant::now() < until, "{} of {EVENTS} are done", clients.done.len());
        clients.come_and_go();
        clients.take();
        for number in clients.finish() {
            let mut before = (0..number).filter(|other| keys[*other] == keys[number]);
            assert!(before.all(|other| clients.done.contains(&other)), "{number} came before its turn");
            clients.done.insert(number);
        }
    }
}
