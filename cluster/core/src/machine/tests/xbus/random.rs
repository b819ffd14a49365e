//! Random changes, legal and not, on two replicas that commit at different times.

use super::*;
use crate::command::attributed::Attributed;
use crate::entry::KIND_COMMAND;
use crate::machine::tests::late::Late;
use crate::xbus::account::row::ConfigEntry;
use crate::xbus::change::{ActorSet, Attention, Expire, LogChange, Replay, SchemaSet};
use crate::xbus::log::LogLine;
use crate::xbus::process::event::JobOutput;

/// Ids of a kind of thing, few enough that changes meet.
fn few(first: u8) -> impl Strategy<Value = u8> + Clone {
    first..first + 3
}

fn an_actor() -> impl Strategy<Value = ActorRequest> {
    (10_u8..14, 0_usize..4, any::<bool>()).prop_map(|(number, name, config)| {
        let names = ["emitter", "worker", "other worker", "consumer"];
        let kinds = [ActorKind::Emitter, ActorKind::Worker, ActorKind::Worker, ActorKind::Consumer];
        let roles = ["e", "w", "w", "c"];
        let mut actor = actor(number, names[name], kinds[name], roles[name]);
        if config {
            actor.config.push(ConfigEntry { key: "k".into(), value: "v".into() });
        }
        actor
    })
}

fn a_job() -> impl Strategy<Value = JobName> + Clone {
    (prop_oneof![Just("w"), Just("c"), Just("x")], 10_u8..14).prop_map(|(node, actor)| job(node, actor))
}

fn an_event() -> impl Strategy<Value = Happens> {
    let output =
        (a_job(), few(100)).prop_map(|(job, envelope)| JobOutput { job, output: "o".into(), envelope: id(envelope) });
    let life = (1_u64..3, 1_u64..3).prop_map(|(node, incarnation)| Owner { node, incarnation });
    let connection =
        (10_u8..14, life.clone()).prop_map(|(actor, owner)| ActorConnection { actor: id(actor), owner: Some(owner) });
    let line = "[ab]{0,3}".prop_map(|text| LogLine { millis: 1, level: 2, text });
    prop_oneof![
        6 => (a_job(), life.clone()).prop_map(|(job, owner)| Happens::Send(JobSend { job, owner: Some(owner) })),
        2 => a_job().prop_map(Happens::Run),
        2 => a_job().prop_map(Happens::Detach),
        4 => (a_job(), any::<bool>(), proptest::collection::vec(line, 0..3)).prop_map(|(job, success, messages)|
            Happens::End(JobEnd { job, success, messages })),
        1 => output.clone().prop_map(Happens::OutputBegin),
        1 => output.clone().prop_map(|output| Happens::OutputClose(JobOutput { envelope: Vec::new(), ..output })),
        1 => output.prop_map(Happens::Forward),
        1 => connection.clone().prop_map(Happens::ActorLost),
        1 => connection.prop_map(Happens::ActorBack),
        1 => (10_u8..14).prop_map(|actor| Happens::ActorGone(id(actor))),
        1 => Just(Happens::ActorsChanged(Unit {})),
        1 => Just(Happens::Expire(Unit {})),
        1 => Just(Happens::Pause(Unit {})),
        1 => Just(Happens::Resume(Unit {})),
        1 => Just(Happens::Cancel(Unit {})),
        1 => life.prop_map(Happens::NodeLost),
    ]
}

fn a_replay() -> impl Strategy<Value = Replay> {
    let node = prop_oneof![Just(""), Just("e"), Just("w"), Just("c"), Just("x")];
    (few(200), proptest::collection::vec(200_u8..205, 0..3), node, any::<bool>()).prop_map(
        |(process, new, node, active)| {
            let ids = new.into_iter().map(id).collect();
            Replay { process: id(process), ids, from_node: node.into(), active }
        },
    )
}

fn a_schema() -> impl Strategy<Value = Change> {
    let event_type = prop_oneof![Just("order"), Just("bill")];
    (event_type, 0_i32..4, any::<bool>()).prop_map(|(event_type, mode, delete)| {
        let event_type = String::from(event_type);
        if delete {
            Change::SchemaDelete(event_type)
        } else {
            Change::SchemaSet(SchemaSet { event_type, mode, schema: "{}".into() })
        }
    })
}

/// A fragment, and the publish of its items unless they are missing.
fn a_fragment() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let parts = proptest::collection::vec((1_u8..3, 1_u64..3, 0_u64..3), 0..3);
    let ids = proptest::collection::vec(few(200), 0..3);
    (few(100), prop_oneof![Just(None), few(200).prop_map(Some)], 10_u8..14, parts, any::<bool>(), ids, 0_u32..40)
        .prop_map(|(envelope, process, actor, parts, last, process_ids, stored)| {
            let parts = parts.into_iter().map(|(event, index, count)| part(event, "order", index, &[b"a"], count));
            let fragment = fragment(parts.collect(), last);
            let from = match process {
                Some(process) => worker(actor, process),
                None => Sender { actor, ..emitter(&process_ids) },
            };
            let event = format!("r-{stored}");
            let stored = (stored < 39).then(|| publish("xbus", &[event_of("xbus.e", "", &event)], FLAG_INTERNAL));
            let change = Command::xbus(None, fragment_of(envelope, &from, fragment, event)).frame().unwrap();
            stored.into_iter().chain([change]).collect()
        })
}

fn a_change() -> impl Strategy<Value = Change> {
    let registered = (few(1), 0_u8..3, 1_u8..3, proptest::collection::vec(an_actor(), 0..3), any::<bool>());
    let name = |number: u8| ["shop", "bank", "mill"][usize::from(number)];
    let processes = proptest::collection::vec(few(200), 0..4);
    let status = 0_i32..4;
    prop_oneof![
        4 => registered.prop_map(move |(id, of, key, actors, authenticated)|
            Change::Register(Registration { authenticated, ..registration(id, name(of), key, &actors) })),
        3 => (few(1), 1_u8..3).prop_map(|(account, key)| accept(account, key)),
        1 => (few(1), any::<bool>()).prop_map(|(account, on)| enable(account, on)),
        1 => few(1).prop_map(|account| Change::AccountDelete(id(account))),
        1 => few(1).prop_map(|account| Change::AccountResetCertificate(id(account))),
        1 => (few(1), an_actor()).prop_map(|(account, actor)| Change::ActorSet(ActorSet { account: id(account), actor })),
        4 => (10_u8..14, status.clone()).prop_map(|(actor, status)|
            Change::ActorStatus(ActorStatusSet { id: id(actor), status, config: Vec::new() })),
        1 => (10_u8..14).prop_map(|actor| Change::ActorDelete(id(actor))),
        1 => (10_u8..14).prop_map(|actor| Change::ActorsSeen(ids(&[actor]))),
        2 => (few(50), 0_usize..2, any::<bool>()).prop_map(|(number, version, broadcast)| {
            let mut document = document();
            document.nodes[2].role_broadcast = broadcast;
            Change::PipelineSave(save(number, "orders", ["1", "2"][version], document))
        }),
        3 => (few(50), 0_i32..3).prop_map(|(number, status)|
            Change::PipelineStatus(PipelineStatusSet { id: id(number), status })),
        1 => few(50).prop_map(|number| Change::PipelineDelete(id(number))),
        1 => (0_u64..60_000).prop_map(|millis| Change::EnvelopesExpire(Expire { millis })),
        1 => (0_u64..9_000_000).prop_map(|millis| Change::EnvelopesPurge(Expire { millis })),
        12 => (few(200), an_event()).prop_map(|(process, event)| happened(process, event)),
        4 => (processes.clone(), an_event()).prop_map(|(processes, event)| all_hear(&processes, event)),
        1 => Just(Change::ProcessesExpire(Unit {})),
        1 => processes.prop_map(|processes| Change::ProcessesPurge(ids(&processes))),
        1 => few(200).prop_map(|process|
            Change::Log(LogChange { actor: id(10), process: id(process), ..LogChange::default() })),
        1 => (0_u64..9_000_000).prop_map(|millis| Change::LogsPurge(Expire { millis })),
        4 => a_replay().prop_map(Change::Replay),
        1 => a_schema(),
        1 => (few(200), status).prop_map(|(process, status)|
            Change::Attention(Attention { process: id(process), status, ..Attention::default() })),
    ]
}

/// The frames of one step.
fn a_step() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![
        8 => a_change().prop_map(|change| vec![Command::xbus(None, change).frame().unwrap()]),
        4 => a_fragment(),
        1 => (0_u64..30).prop_map(|first|
            vec![Command::Trim(Trim { name: "xbus".into(), first, bytes_first: first }).frame().unwrap()]),
        1 => (1_u64..3, 1_u64..3).prop_map(|(node, incarnation)| vec![node_up(node, incarnation)]),
        1 => (1_u64..3, 1_u64..3).prop_map(|(node, incarnation)| vec![node_down(node, incarnation)]),
        1 => Just(vec![dedupe::tidy_up()]),
    ]
}

/// Whether a frame is a change of Xbus.
fn is_xbus(frame: &[u8]) -> bool {
    let body = frame.get(6..).filter(|_| frame[0] == KIND_COMMAND);
    body.is_some_and(|body| matches!(Attributed::decode(body).unwrap().command, Command::Xbus(_)))
}

/// Account, actors and pipeline, with which the random steps begin.
fn beginning() -> Vec<Vec<u8>> {
    let actors = [
        actor(EMITTER, "emitter", ActorKind::Emitter, "e"),
        actor(WORKER, "worker", ActorKind::Worker, "w"),
        actor(CONSUMER, "consumer", ActorKind::Consumer, "c"),
    ];
    let mut changes = vec![Change::Register(registration(SHOP, "shop", 1, &actors)), accept(SHOP, 1)];
    changes.extend(actors.iter().map(|actor| status(actor.id[0], ActorStatus::Enabled)));
    changes.push(Change::PipelineSave(save(PIPELINE, "orders", "1", document())));
    changes.push(activate(PIPELINE, PipelineStatus::Active));
    let changes = changes.into_iter().map(|change| Command::xbus(None, change).frame().unwrap());
    [level::raise(FeatureLevel::LATEST.get()), node_up(1, 1)].into_iter().chain(changes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn two_replicas_agree_whenever_they_commit_and_a_refused_change_does_nothing(
        entries in proptest::collection::vec((a_step(), prop_oneof![9 => Just(10_u64), 1 => Just(40_000)]), 1..80),
        reload in 0_usize..80,
    ) {
        let (mut one, mut two, mut late) = (Replica::default(), Replica::default(), Late::default());
        let mut millis = 1_000_000;
        let begun = one.apply_at(millis, &beginning());
        prop_assert!(begun.iter().all(Result::is_ok), "{:?}", begun);
        drop((two.apply_at(millis, &beginning()), late.apply_at(millis, &beginning())));
        for (at, (frames, passes)) in entries.iter().enumerate() {
            if at == reload {
                two.machine = two.reloaded();
            }
            millis += passes;
            // One frame alone shows that a refusal does nothing; the others get all frames in one entry.
            let mut replies = Vec::new();
            for frame in frames {
                one.apply_at(millis, &[]);
                let (machine, rows) = (one.machine.clone(), one.memory.rows.clone());
                let reply = one.apply_at(millis, core::slice::from_ref(frame)).pop().unwrap();
                if reply.is_err() && is_xbus(frame) {
                    prop_assert_eq!(&one.machine, &machine, "{:?}", &reply);
                    prop_assert_eq!(&one.memory.rows, &rows, "{:?}", &reply);
                }
                replies.push(reply);
            }
            prop_assert_eq!(&two.apply_at(millis, frames), &replies);
            prop_assert_eq!(&late.apply_at(millis, frames), &replies);
        }
        late.replica.memory.commit(&mut late.writes);
        prop_assert_eq!(&two.machine, &two.reloaded());
        prop_assert_eq!(one.machine.xbus(), two.machine.xbus());
        prop_assert_eq!(&late.replica.machine, &two.machine);
        prop_assert_eq!(&late.replica.memory, &two.memory);
    }
}
