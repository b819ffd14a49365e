//! Three nodes behind a balancer that remembers nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::Options;
use crate::harness::{SOON, ms, wait_for};

/// Hands each TCP connection to the next node that takes it.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    used: Arc<[AtomicUsize; 3]>,
}

impl Balancer {
    pub(crate) fn start(nodes: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let (nodes, used) = (Arc::new(Mutex::new(nodes)), Arc::new([const { AtomicUsize::new(0) }; 3]));
        let balancer = Self { address, nodes: Arc::clone(&nodes), used: Arc::clone(&used) };
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().flatten().enumerate() {
                let nodes = nodes.lock().expect("the nodes").clone();
                let next = (0..nodes.len()).map(|step| (turn + step) % nodes.len());
                let open = |at: usize| TcpStream::connect_timeout(&nodes[at], ms(500)).ok().map(|tcp| (at, tcp));
                let Some((at, node)) = next.into_iter().find_map(open) else { continue };
                used[at].fetch_add(1, Ordering::Relaxed);
                join(client, node);
            }
        });
        balancer
    }

    /// A node has another address now.
    pub(crate) fn moved(&self, id: usize, to: SocketAddr) {
        self.nodes.lock().expect("the nodes")[id - 1] = to;
    }

    fn used(&self) -> Vec<usize> {
        self.used.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

fn join(one: TcpStream, two: TcpStream) {
    let pipe = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            drop(to.shutdown(std::net::Shutdown::Both));
            drop(from.shutdown(std::net::Shutdown::Both));
        });
    };
    drop(one.set_nodelay(true));
    drop(two.set_nodelay(true));
    let (a, b) = (one.try_clone().expect("a handle"), two.try_clone().expect("a handle"));
    pipe(one, two);
    pipe(b, a);
}

pub(crate) fn balancer(cluster: &Cluster) -> Balancer {
    Balancer::start((1..=3).map(|id| cluster.node(id).web).collect())
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}

#[test]
fn a_request_goes_to_a_provider_of_another_node_and_its_own_node_comes_first() {
    let cluster = Cluster::start();
    let far = BusClient::connect(cluster.node(2).web);
    far.register("svc", &["work"]);
    let caller = BusClient::connect(cluster.node(1).web);
    wait_for("node 1 to know", SOON, || {
        let id = caller.begin("bus:request", &json!({ "capability": "work", "payload": "far" }));
        let reached = far.hears("bus:request", ms(200));
        if reached {
            far.serve_one(Value::clone);
        }
        let answer = caller.acked(id);
        (answer["data"] == "far").then_some(())
    });
    let near = BusClient::connect(cluster.node(1).web);
    near.register("svc", &["work"]);
    for _ in 0..5 {
        let id = caller.begin("bus:request", &json!({ "capability": "work" }));
        near.serve_one(|_| json!("near"));
        assert_eq!(caller.acked(id)["data"], "near", "with equal loads the own node comes first");
    }
}

#[test]
fn a_node_that_dies_in_the_middle_of_a_request_is_a_lost_provider() {
    let mut cluster = Cluster::start();
    let [leader, caller_at] = [cluster.leader(), cluster.followers()[0]];
    let provider = BusClient::connect(cluster.node(leader).web);
    provider.register("svc", &["work"]);
    let caller = BusClient::connect(cluster.node(caller_at).web);
    wait_for("the caller's node to know", SOON, || {
        let known = cluster.node(caller_at).web("GET", "/api/services/svc", "").status == 200;
        known.then_some(())
    });
    let id = caller.begin("bus:request", &json!({ "capability": "work" }));
    provider.event("bus:request");
    let began = Instant::now();
    cluster.kill(leader);
    let answer = caller.acked(id);
    assert_eq!(code(&answer), "provider_lost", "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Its instances leave the roll with it.
    assert_eq!(caller.event("service:offline").args[0]["id"], "svc");
}

#[test]
fn requests_at_another_node_end_with_their_caller_and_with_its_node() {
    let mut cluster = Cluster::start();
    let provider = BusClient::connect(cluster.node(1).web);
    provider.register("svc", &["work"]);
    let in_flight = |cluster: &Cluster| {
        let stats = cluster.node(1).web("GET", "/api/stats", "").json();
        let nodes = stats["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().find(|node| node["id"] == 1).map(|node| node["requests_in_flight"].clone())
    };
    let ask = |cluster: &Cluster| {
        let node = cluster.node(2);
        wait_for("the caller's node to know", SOON, || {
            (node.web("GET", "/api/services/svc", "").status == 200).then_some(())
        });
        let caller = BusClient::connect(node.web);
        caller.begin("bus:request", &json!({ "requestId": "r", "capability": "work", "timeout": 600_000 }));
        let asked = provider.event("bus:request").args[0]["requestId"].clone();
        assert_eq!(in_flight(cluster), Some(json!(1)));
        (caller, json!({ "requestId": asked, "success": true }))
    };
    let (caller, response) = ask(&cluster);
    drop(caller);
    wait_for("the request to end", SOON, || (in_flight(&cluster) == Some(json!(0))).then_some(()));
    assert_eq!(code(&provider.ask("bus:response", &response)), "cancelled");
    let (caller, response) = ask(&cluster);
    cluster.kill(2);
    wait_for("the request to end", SOON, || (in_flight(&cluster) == Some(json!(0))).then_some(()));
    assert_eq!(code(&provider.ask("bus:response", &response)), "cancelled");
    drop(caller);
}

#[test]
fn a_registration_gets_through_while_the_leader_changes() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let at = cluster.followers()[0];
    let clients: Vec<BusClient> = (0..20).map(|_| BusClient::connect(cluster.node(at).web)).collect();
    let ids: Vec<u64> = clients
        .iter()
        .enumerate()
        .map(|(n, client)| {
            if n == 10 {
                cluster.kill(leader);
            }
            client.begin("bus:register", &json!({ "id": format!("s{n}") }))
        })
        .collect();
    for (client, id) in clients.iter().zip(ids) {
        let answer = client.acked(id);
        assert_eq!(answer["success"], true, "{answer}");
    }
    let shown = wait_for("a leader again", SOON, || {
        let answer = cluster.node(at).web("GET", "/api/services", "");
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(shown["items"].as_array().map(Vec::len), Some(20));
}

#[test]
fn a_client_that_registers_again_is_served_while_there_is_no_leader() {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "60s"));
    let client = BusClient::connect(cluster.node(1).web);
    client.register("svc", &["work"]);
    let caller = BusClient::connect(cluster.node(1).web);
    cluster.kill(2);
    cluster.kill(3);
    let again = client.begin("bus:register", &json!({ "id": "svc", "version": "2", "capabilities": ["work"] }));
    let began = Instant::now();
    for n in 0..3 {
        let id = caller.begin("bus:request", &json!({ "capability": "work", "payload": n }));
        client.serve_one(Value::clone);
        assert_eq!(caller.acked(id)["data"], n);
    }
    assert_eq!(client.ask("config:request", &Value::Null), json!({}));
    assert!(!client.is_acked(again), "the registration waits for a leader, {:?}", began.elapsed());
    assert_eq!(code(&client.acked(again)), "unavailable");
    assert_eq!(client.ask("bus:heartbeat", &json!({}))["success"], true, "it stays what it was");
}

#[test]
fn without_a_majority_clients_are_sent_away_and_registrations_are_refused() {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    let client = BusClient::connect(cluster.node(1).web);
    client.register("svc", &[]);
    cluster.kill(2);
    cluster.kill(3);
    let answer = client.ask("bus:register", &json!({ "id": "svc", "version": "2" }));
    assert_eq!(code(&answer), "unavailable", "{answer}");
    assert_eq!(client.end(), "close Some(1012)");
}

#[test]
fn who_is_online_is_told_once_and_in_one_order_on_every_node() {
    coming_and_going(20, 300, 40);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_services_come_and_go_and_each_is_told_once_on_every_node() {
    coming_and_going(1000, 6000, 600);
}

/// Subjects and payloads of the whole roll, as a node has it.
fn story(log: SocketAddr, count: usize) -> Vec<(String, Value)> {
    let url = format!("http://{log}/?subject=roll.%3E&start=oldest");
    let mut curl = Command::new("curl").args(["-sN", &url]).stdout(Stdio::piped()).spawn().expect("start curl");
    let lines = BufReader::new(curl.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let subject = |event: &Value| event["subject"].as_str().unwrap_or_default().to_owned();
    let story = events.take(count).map(|event| (subject(&event), event["payload"].clone())).collect();
    drop((curl.kill(), curl.wait()));
    story
}

/// Services join and leave at random, a node is killed in the middle; then the book of the two others is judged.
fn coming_and_going(services: usize, steps: usize, here_max: usize) {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(below).expect("small")).expect("small")
    };
    let mut here: Vec<(usize, BusClient)> = Vec::new();
    let victim = cluster.followers()[0];
    for step in 0..steps {
        if step == steps * 2 / 3 {
            cluster.kill(victim);
            here.retain(|(at, _)| *at != victim);
        }
        let running = cluster.running();
        if here.len() > here_max || (!here.is_empty() && next(3) == 0) {
            here.swap_remove(next(here.len()));
        } else {
            let at = running[next(running.len())];
            let client = BusClient::connect(cluster.node(at).web);
            client.register(&format!("s{}", next(services)), &[]);
            here.push((at, client));
        }
    }
    here.clear();
    let [one, other] = <[usize; 2]>::try_from(cluster.running()).expect("two nodes");
    wait_for("everybody to be offline", SOON, || {
        let stats = cluster.node(one).web("GET", "/api/stats", "").json();
        (stats["services"]["online"] == 0 && stats["instances"]["total"] == 0).then_some(())
    });
    let count = cluster.node(one).web("GET", "/api/namespaces/roll", "").json()["events"].as_u64().expect("a number");
    let count = usize::try_from(count).expect("small");
    let story = |at: usize| story(cluster.node(at).log, count);
    let story_of_one = story(one);
    assert_eq!(story_of_one, story(other), "one order on all nodes");
    // Connect and disconnect alternate for each instance, online and offline for each service, exactly at the
    // first and the last instance.
    let mut instances: BTreeMap<(String, String), bool> = BTreeMap::new();
    let mut online: BTreeMap<String, bool> = BTreeMap::new();
    for (subject, payload) in &story_of_one {
        let service = payload["service"]["id"].as_str().unwrap_or_default().to_owned();
        let instance = (service.clone(), payload["instance"]["id"].as_str().unwrap_or_default().to_owned());
        let present = instances.iter().filter(|((of, _), here)| *of == service && **here).count();
        match subject.strip_prefix("roll.service.") {
            Some("connect") => assert_eq!(instances.insert(instance, true), None, "{payload}"),
            Some("disconnect") => assert_eq!(instances.insert(instance, false), Some(true), "{payload}"),
            Some("online") => {
                assert_ne!(online.insert(service, true), Some(true), "{payload}");
                assert_eq!(present, 1, "{payload}");
            }
            Some("offline") => {
                assert_eq!(online.insert(service, false), Some(true), "{payload}");
                assert_eq!(present, 0, "{payload}");
            }
            _ => {}
        }
    }
    assert!(!online.is_empty() && online.values().all(|online| !online), "{online:?}");
    assert!(instances.values().all(|here| !here));
}

#[test]
fn polling_and_upgrades_work_through_a_balancer_without_a_memory() {
    let Some(clients) = crate::harness::examples::clients() else { return };
    let cluster = Cluster::start();
    let balancer = balancer(&cluster);
    let output = clients.node("balanced.js", &[&format!("http://{}", balancer.address)], SOON * 6);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    assert!(balancer.used().iter().all(|used| *used > 5), "all nodes had work: {:?}", balancer.used());
}

#[test]
fn two_services_go_on_calling_each_other_while_their_nodes_are_killed_one_after_the_other() {
    let Some(clients) = crate::harness::examples::clients() else { return };
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    let balancer = balancer(&cluster);
    let url = format!("http://{}", balancer.address);
    let running = std::thread::spawn(move || clients.node("survivors.js", &[&url, "25000"], SOON * 6));
    std::thread::sleep(Duration::from_secs(3));
    for id in 1..=3 {
        cluster.kill(id);
        std::thread::sleep(Duration::from_secs(3));
        cluster.up(&[id]);
        balancer.moved(id, cluster.node(id).web);
        std::thread::sleep(Duration::from_secs(2));
    }
    let output = running.join().expect("no panic");
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

/// A WebSocket, for the session that `query` names if any, with this header of its own; the connection when it was
/// upgraded.
fn upgrade(web: SocketAddr, query: &str, own: &str) -> Result<TcpStream, String> {
    let mut tcp = TcpStream::connect(web).expect("connect");
    let head = format!(
        "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{own}\r\n"
    );
    tcp.write_all(head.as_bytes()).expect("write");
    let mut line = String::new();
    BufReader::new(tcp.try_clone().expect("a handle")).read_line(&mut line).expect("an answer");
    if line.starts_with("HTTP/1.1 101") { Ok(tcp) } else { Err(line) }
}

#[test]
fn what_is_no_proper_upgrade_starts_nothing_and_what_is_one_leaves_nothing_behind() {
    const KINDS: [&str; 3] = ["socketio_websocket", "socketio_tunnel_near", "socketio_tunnel_far"];
    let cluster = Cluster::start();
    let (here, there) = (cluster.node(1), cluster.node(2));
    let counts = || [here, there].map(|node| KINDS.map(|kind| node.actors(kind)));
    let open = here.web("GET", "/socket.io/?EIO=4&transport=polling", "").text();
    let open: Value = serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("JSON");
    let sid = format!("&sid={}", open["sid"].as_str().expect("a sid"));
    for _ in 0..20 {
        for node in [here, there] {
            let refused = upgrade(node.web, &sid, "").expect_err("there is no key");
            assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
            // Nor does one of these begin a session.
            let refused = upgrade(node.web, "", "").expect_err("there is no key");
            assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        }
    }
    assert_eq!(counts(), [[0; 3]; 2], "{KINDS:?}");
    for node in [here, there] {
        let tcp = upgrade(node.web, &sid, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n").expect("a WebSocket");
        wait_for("a WebSocket", SOON, || (node.actors("socketio_websocket") == 1).then_some(()));
        drop(tcp);
        wait_for("nobody is left", SOON, || (counts() == [[0; 3]; 2]).then_some(()));
    }
    // The session was there all the time.
    let target = format!("/socket.io/?EIO=4&transport=polling{sid}");
    assert_eq!(there.web("POST", &target, "40").text(), "ok");
    assert!(here.web("GET", &target, "").text().starts_with("40{"));
    assert_eq!((here.actors("socketio_session"), there.actors("socketio_session")), (1, 0));
}
