//! Registers for the check of linearizability: the bound `max_events` of empty namespaces.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::harness::Rng;
use crate::history::{Op, Phase};
use crate::hosts;

use super::client::{Ask, Client};
use super::{Pace, REGISTERS, Scene};

const COUNT: u32 = 2;
/// Operations a second of each client.
const RATE: u64 = 8;
/// The first value that is free; the registers begin with those below.
pub(super) const FIRST: u64 = 100;

/// Creates the registers, each with a first value.
pub(super) fn begin(cluster: &Cluster) {
    for register in 0..COUNT {
        let write = Op::Write { register, value: u64::from(register) + 1 };
        cluster.recorder.note(REGISTERS, 0, Phase::Invoke, write.clone());
        let body = json!({ "name": name(register), "retention": { "max_events": register + 1 } });
        cluster.insist("POST", "/api/namespaces", &body);
        cluster.recorder.note(REGISTERS, 0, Phase::Ok, write);
    }
}

/// Reads and writes, at each host in turn.
pub(super) fn run(scene: &Scene, process: u32, values: &AtomicU64, rng: &mut Rng) {
    let mut client = Client::default();
    let mut pace = Pace::new(RATE);
    let mut host = u8::try_from(process % 7).unwrap_or(0);
    while scene.writing() {
        host = scene.hosts.after(host);
        let register = u32::try_from(rng.pick(0, u64::from(COUNT))).unwrap_or(0);
        if rng.pick(0, 3) == 0 {
            let value = values.fetch_add(1, Ordering::Relaxed);
            write(scene, &mut client, process, host, register, value);
        } else {
            read(scene, &mut client, process, host, register);
        }
        pace.wait();
    }
}

fn write(scene: &Scene, client: &mut Client, process: u32, host: u8, register: u32, value: u64) {
    let (node, op) = (scene.hosts.node(host), Op::Write { register, value });
    scene.recorder.note(process, node, Phase::Invoke, op.clone());
    let target = format!("/api/namespaces/{}", name(register));
    let body = json!({ "retention": { "max_events": value } }).to_string();
    let answer = client.ask(hosts::web(host), Ask { method: "PATCH", target: &target, body: &body });
    scene.recorder.note(process, node, answer.phase(200), op);
}

fn read(scene: &Scene, client: &mut Client, process: u32, host: u8, register: u32) {
    let node = scene.hosts.node(host);
    scene.recorder.note(process, node, Phase::Invoke, Op::Read { register, value: None });
    let target = format!("/api/namespaces/{}?consistency=linearizable", name(register));
    let answer = client.ask(hosts::web(host), Ask { method: "GET", target: &target, body: "" });
    let phase = answer.phase(200);
    let said: Option<Value> = answer.response().filter(|_| phase == Phase::Ok).map(|answer| answer.json());
    let value = said.and_then(|said| said["retention"]["max_events"].as_u64());
    scene.recorder.note(process, node, phase, Op::Read { register, value });
}

fn name(register: u32) -> String {
    format!("register{register}")
}
