//! Fifty times a node is killed under two hundred durable consumers: each of them gets what is published next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::population::{Consumer, Member, NAMESPACE, Record, Records};
use super::{BOUND, Ends, Known, branch, kill, number, seconds, start_again};
use crate::harness::cluster::Cluster;
use crate::harness::http::Http;
use crate::harness::{Rng, report, wait_for};

const CONSUMERS: usize = 200;
const KILLS: u64 = 50;
/// A consumer that has not got its event after this long is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// Bound of the first connections of all members.
const CONNECTED: Duration = Duration::from_secs(60);
/// There are three hundred threads.
const STACK: usize = 256 << 10;

#[test]
#[ignore = "takes long: make soak"]
fn two_hundred_consumers_outlive_fifty_kills() {
    if seconds().is_none() {
        return;
    }
    let kills = number("ROLLBOOK_SOAK_KILLS").unwrap_or(KILLS);
    let mut rng = Rng::from_env("two hundred consumers");
    let mut cluster = Cluster::start();
    let created = cluster.node(1).web("POST", "/api/namespaces", &json!({ "name": NAMESPACE }).to_string());
    assert_eq!(created.status, 201, "{}", created.text());
    let known = Known::of(&cluster);
    let consumers: Vec<Consumer> = (0..CONSUMERS).map(Consumer::of).collect();
    let records = Records::default();
    records.change(|records| records.resize_with(CONSUMERS, Record::default));
    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    thread::scope(|scope| {
        let _ends = Ends(&stop);
        for consumer in &consumers {
            for number in 0..consumer.members {
                let rng = branch(&mut rng);
                let member = Member { consumer, number, known: &known, records: &records, stop: &stop, rng };
                let thread = thread::Builder::new().stack_size(STACK);
                thread.spawn_scoped(scope, move || member.run()).expect("a thread for a member");
            }
        }
        await_all_connected(&consumers, &records);
        for round in 1..=kills {
            let (victim, why) = victim(&cluster, round);
            let taken = kill_and_publish(&mut cluster, &known, (&consumers, &records), (round, victim));
            eprintln!("round {round}: node {victim} was killed, {why}: {}", figures(&taken));
            times.extend(taken);
        }
    });
    let records = records.lock();
    let sum = |count: fn(&Record) -> u64| records.iter().map(count).sum::<u64>();
    eprintln!(
        "{kills} kills, {CONSUMERS} consumers: {}; {} deliveries, {} streams ended, {} attempts refused",
        figures(&times),
        sum(|record| record.deliveries),
        sum(|record| record.ended),
        sum(|record| record.refused),
    );
    let missed = |(consumer, record): (&Consumer, &Record)| {
        let missed: Vec<u64> = (1..=kills).filter(|round| !record.arrived.contains_key(round)).collect();
        (!missed.is_empty()).then(|| format!("{consumer} never got {missed:?}"))
    };
    let missing: Vec<String> = consumers.iter().zip(records.iter()).filter_map(missed).collect();
    report("what was acknowledged arrives", &missing);
}

/// Waits until every member has a stream: the first kill is to meet all of them.
fn await_all_connected(consumers: &[Consumer], records: &Records) {
    let absent = |records: &[Record]| -> Vec<String> {
        let pairs = consumers.iter().zip(records);
        let absent = pairs.filter(|(consumer, record)| record.connected < consumer.members);
        absent.map(|(consumer, record)| format!("{consumer}: {:?}", record.reasons)).collect()
    };
    records.within(CONNECTED, |records| absent(records.as_slice()).is_empty().then_some(()));
    let absent = absent(records.lock().as_slice());
    report("members that have no stream", &absent);
}

/// The leader in odd rounds, and in even ones the node that serves most consumers, which only the count of its actors
/// tells.
fn victim(cluster: &Cluster, round: u64) -> (usize, &'static str) {
    if round % 2 == 1 {
        return (cluster.leader(), "the leader");
    }
    let busiest = cluster.running().into_iter().max_by_key(|id| cluster.node(*id).actors("consumer"));
    (busiest.expect("a node that runs"), "which served most consumers")
}

/// One round: how long each consumer waited for its event. The killed node is back at the end of it.
fn kill_and_publish(
    cluster: &mut Cluster,
    known: &Known,
    (consumers, records): (&[Consumer], &Records),
    (round, victim): (u64, usize),
) -> Vec<Duration> {
    kill(cluster, known, victim);
    let sent = publish(known, consumers, round);
    let late = await_arrival(records, round);
    for number in &late {
        eprintln!("stuck: {}", shown(cluster, &consumers[*number], &records.lock()[*number]));
    }
    start_again(cluster, known, victim);
    if !late.is_empty() {
        let (late, lost) = (late.len(), await_arrival(records, round).len());
        panic!(
            "round {round}: {late} consumers got nothing within {STUCK:?} after node {victim} was killed, and {lost} \
             of them nothing for as long after the node was back"
        );
    }
    let records = records.lock();
    let arrived = records.iter().map(|record| record.arrived.get(&round).copied());
    arrived.zip(sent).filter_map(|(arrived, sent)| Some(arrived?.saturating_duration_since(sent))).collect()
}

/// Publishes the number of the round to each consumer, through whatever node takes it: when each was sent first.
fn publish(known: &Known, consumers: &[Consumer], round: u64) -> Vec<Instant> {
    let mut links = BTreeMap::new();
    let mut turn = 0_usize;
    let publish_to = |consumer: &Consumer| {
        let sent = Instant::now();
        let key = format!("round-{round}");
        let body = json!({ "subject": consumer.subject(), "key": key, "payload": round }).to_string();
        wait_for("a node that takes the event", STUCK, || {
            let nodes = known.all();
            let at = nodes[turn % nodes.len()];
            turn += 1;
            // A key that was processed means that an earlier try was stored.
            post(&mut links, at.log, &body).filter(|status| matches!(status, 202 | 409))
        });
        sent
    };
    consumers.iter().map(publish_to).collect()
}

/// Posts over a connection that is kept for the next one; the status, if there is an answer.
fn post(links: &mut BTreeMap<SocketAddr, Http>, to: SocketAddr, body: &str) -> Option<u16> {
    let kept = links.remove(&to);
    let mut http = kept.map_or_else(|| Http::connect_within(to, BOUND), Ok).ok()?;
    let answer = http.try_request("POST", "/", &[], body.as_bytes()).ok()?;
    links.insert(to, http);
    Some(answer.status)
}

/// Waits until the event of the round is everywhere: where it is not in time.
fn await_arrival(records: &Records, round: u64) -> Vec<usize> {
    let missing = |records: &[Record]| -> Vec<usize> {
        let missing = (0..).zip(records).filter(|(_, record)| !record.arrived.contains_key(&round));
        missing.map(|(number, _)| number).collect()
    };
    records.within(STUCK, |records| missing(records.as_slice()).is_empty().then_some(()));
    let records = records.lock();
    missing(records.as_slice())
}

/// A consumer as its clients and as the cluster see it.
fn shown(cluster: &Cluster, consumer: &Consumer, record: &Record) -> String {
    let node = cluster.running().into_iter().next().expect("a node that runs");
    let listed = cluster.node(node).web("GET", &format!("/api/consumers/{NAMESPACE}/{}", consumer.name()), "");
    format!(
        "{consumer}: {} of {} members have a stream; {} streams ended, {} attempts refused, the last {:?}; node {node} \
         says {}",
        record.connected,
        consumer.members,
        record.ended,
        record.refused,
        record.reasons,
        listed.text(),
    )
}

/// Median, 99th percentile and worst.
fn figures(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    format!("from publish to arrival median {:.0?}, p99 {:.0?}, worst {:.0?}", at(50), at(99), at(100))
}
