//! Histories for the tests of the judge: told line by line, and a good one with everything in it.

use crate::history::{LAB, Log, Op, Phase, Publish, Record};

const MS: u64 = 1_000_000;
/// Processes of the good history; its producers are 1 and 2.
pub(super) const TAIL: u32 = 10;
pub(super) const DURABLE: u32 = 11;
pub(super) const REGISTER: u32 = 20;
const READER: u32 = 30;

/// The number of the n-th payload of a producer.
pub(super) const fn payload(producer: u32, number: u64) -> u64 {
    ((producer as u64) << 32) | number
}

/// A history that is told in order; every line takes a millisecond.
#[derive(Default)]
pub(super) struct Story {
    pub(super) records: Vec<Record>,
    now: u64,
}

impl Story {
    pub(super) fn line(&mut self, process: u32, node: u64, phase: Phase, op: Op) {
        self.now += MS;
        self.records.push(Record { at: self.now, wall: 0, process, node, phase, op });
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += millis * MS;
    }

    pub(super) fn call(&mut self, process: u32, node: u64, phase: Phase, op: &Op) {
        self.line(process, node, Phase::Invoke, op.clone());
        self.line(process, node, phase, op.clone());
    }

    /// A publish of one event that is accepted.
    pub(super) fn publish(&mut self, log: Log, producer: u32, node: u64, number: u64, index: u64) {
        let payload = payload(producer, number);
        let ask = Publish::new(log, payload, 1, 1);
        let answer = Publish { index: Some(index), id: Some(id_at(index)), ..ask.clone() };
        self.line(producer, node, Phase::Invoke, Op::Publish(ask));
        self.line(producer, node, Phase::Ok, Op::Publish(answer));
    }

    pub(super) fn deliver(&mut self, process: u32, log: Log, connection: u32, index: u64, payload: u64) {
        self.line(process, 1, Phase::Seen, Op::Deliver { log, connection, index, id: id_at(index), payload });
    }

    pub(super) fn stored(&mut self, log: Log, index: u64, payload: u64) {
        for node in 1..=3 {
            let op = Op::Stored { log, index, id: id_at(index), payload, sum: index };
            self.line(READER, node, Phase::Seen, op);
        }
    }

    pub(super) fn lifecycle(&mut self, node: u64, index: u64, incarnation: u64, up: bool) {
        self.line(READER, node, Phase::Seen, Op::Lifecycle { index, incarnation, up });
    }
}

pub(super) fn id_at(index: u64) -> String {
    format!("e_{index}")
}

pub(super) fn fault(name: &str, majority: &[u64], graceful: bool) -> Op {
    Op::Fault { name: name.to_owned(), majority: majority.to_vec(), graceful }
}

/// Two producers, a batch, an unknown write, a tailing and a durable consumer that comes back, a register,
/// a node that is killed and returns, a hand-over; at the end three equal nodes.
pub(super) fn good() -> Story {
    let mut story = Story::default();
    for node in 1..=3 {
        story.line(LAB, node, Phase::Seen, Op::Process { running: true });
    }
    story.call(REGISTER, 1, Phase::Ok, &Op::Write { register: 0, value: 1 });
    story.call(TAIL, 1, Phase::Ok, &Op::Subscribe { log: Log::Lab, connection: 1, durable: false });
    story.call(DURABLE, 1, Phase::Ok, &Op::Subscribe { log: Log::Work, connection: 1, durable: true });
    for number in 1..=3 {
        story.publish(Log::Lab, 1, 1, number, number);
        story.deliver(TAIL, Log::Lab, 1, number, payload(1, number));
    }
    for number in 1..=3 {
        story.publish(Log::Work, 2, 2, number, number);
    }
    story.line(LAB, 2, Phase::Invoke, fault("kill", &[1, 3], false));
    story.line(LAB, 2, Phase::Seen, Op::Process { running: false });
    // Its connection broke: this one is stored all the same.
    let cut = Publish::new(Log::Lab, payload(1, 4), 1, 1);
    story.call(1, 2, Phase::Unknown, &Op::Publish(cut));
    story.publish(Log::Lab, 1, 3, 5, 5);
    story.call(REGISTER, 3, Phase::Ok, &Op::Write { register: 0, value: 2 });
    story.call(REGISTER, 1, Phase::Ok, &Op::Read { register: 0, value: Some(2) });
    story.line(LAB, 2, Phase::Seen, Op::Process { running: true });
    story.line(LAB, 2, Phase::Ok, fault("kill", &[1, 3], false));
    story.line(LAB, 3, Phase::Invoke, fault("hand-over", &[1, 2, 3], true));
    let refused = Publish::new(Log::Lab, payload(2, 6), 1, 1);
    story.call(2, 3, Phase::Fail, &Op::Publish(refused));
    story.line(LAB, 3, Phase::Ok, fault("hand-over", &[1, 2, 3], true));
    for (node, index) in [(1, 6), (2, 7), (3, 8)] {
        story.publish(Log::Lab, 2, node, index + 10, index);
    }
    let batch = Publish::new(Log::Lab, payload(1, 20), 2, 1);
    story.call(1, 1, Phase::Ok, &Op::Publish(batch));
    for (index, payload) in lab().into_iter().skip(3) {
        story.deliver(TAIL, Log::Lab, 1, index, payload);
    }
    for index in 1..=2 {
        story.deliver(DURABLE, Log::Work, 1, index, payload(2, index));
        story.call(DURABLE, 1, Phase::Ok, &Op::Ack { log: Log::Work, connection: 1, index });
    }
    story.deliver(DURABLE, Log::Work, 1, 3, payload(2, 3));
    story.call(DURABLE, 2, Phase::Ok, &Op::Subscribe { log: Log::Work, connection: 2, durable: true });
    // It was not acknowledged: it comes again.
    story.deliver(DURABLE, Log::Work, 2, 3, payload(2, 3));
    story.call(DURABLE, 2, Phase::Ok, &Op::Ack { log: Log::Work, connection: 2, index: 3 });
    for (index, payload) in lab() {
        story.stored(Log::Lab, index, payload);
    }
    for index in 1..=3 {
        story.stored(Log::Work, index, payload(2, index));
    }
    let told = [(1, 1, true), (2, 1, true), (3, 1, true), (2, 1, false), (2, 2, true)];
    for (index, (node, incarnation, up)) in (1..).zip(told) {
        story.stored(Log::Roll, index, 0);
        story.lifecycle(node, index, incarnation, up);
    }
    story
}

/// The log `lab` of the good history.
pub(super) fn lab() -> Vec<(u64, u64)> {
    let numbers = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 16), (2, 17), (2, 18), (1, 20), (1, 21)];
    (1..).zip(numbers.map(|(producer, number)| payload(producer, number))).collect()
}
