//! Envelopes along several edges at once.

use std::time::Duration;

use serde_json::json;

use super::actor::{Job, Peer, envelope, event, items, order, output};
use super::setup::{Setup, activate, processes, rest, set_up};
use crate::doors::nats::client::options;
use crate::harness::node::Node;
use crate::harness::{SOON, wait_for};

const NOTHING: Duration = Duration::from_millis(300);
/// One envelope to two workers, and the envelopes of both to one consumer.
const DIAMOND: &str = "nodes:
- {id: in, type: emitter, roles: [shop]}
- {id: left, type: worker, roles: [left]}
- {id: right, type: worker, roles: [right]}
- {id: join, type: consumer, roles: [archive], inputs: [a, b]}
edges:
- in.default->left.default
- in.default->right.default
- left.default->join.a
- right.default->join.b
";
/// To each actor of a role.
const BROADCAST: &str = "nodes:
- {id: in, type: emitter, roles: [shop]}
- {id: all, type: consumer, roles: [archive], rolebroadcast: true}
edges:
- in.default->all.default
";

fn start(pipelines: &[(&str, &str)]) -> (Node, Setup) {
    let node = Node::start(&options());
    let actors = [
        ("shop", "emitter", "shop"),
        ("left", "worker", "left"),
        ("right", "worker", "right"),
        ("archive", "consumer", "archive"),
        ("archive2", "consumer", "archive"),
    ];
    let setup = set_up(&node, &actors, pipelines);
    (node, setup)
}

fn done(node: &Node, count: usize) {
    wait_for("processes that are done", SOON, || (processes(node, "&status=done").len() == count).then_some(()));
}

#[test]
fn an_envelope_goes_to_all_nodes_behind_an_output_and_two_inputs_make_one_job() {
    let (node, setup) = start(&[("diamond", DIAMOND)]);
    let mut shop = Peer::connect(&node, &setup, "shop");
    let (mut left, mut right) = (Peer::ready(&node, &setup, "left"), Peer::ready(&node, &setup, "right"));
    let mut archive = Peer::ready(&node, &setup, "archive");
    shop.emit_whole(&order("one"));
    let job = left.job();
    left.pass(&job, "default", order("by left"));
    assert!(archive.job_within(NOTHING).is_none(), "one input is not there yet");
    let job = right.job();
    right.pass(&job, "default", order("by right"));
    let joined = archive.job();
    let inputs: Vec<(&str, Vec<String>)> = joined
        .request
        .inputs
        .iter()
        .map(|input| (&*input.name, items(input.envelope.as_ref().expect("an envelope"))))
        .collect();
    assert_eq!(inputs, [("a", vec!["by left".to_owned()]), ("b", vec!["by right".to_owned()])]);
    archive.succeed(&joined);
    done(&node, 1);

    // An input to which nothing comes is told as closed.
    shop.emit_whole(&order("two"));
    let job = left.job();
    left.succeed(&job);
    let job = right.job();
    right.pass(&job, "default", order("alone"));
    let joined = archive.job();
    let closed: Vec<bool> = joined.request.inputs.iter().map(|input| input.close).collect();
    assert_eq!((closed, joined.items()), (vec![true, false], vec!["alone".to_owned()]));
    archive.succeed(&joined);
    done(&node, 2);

    // Nothing comes to any input: the node is skipped.
    shop.emit_whole(&order("three"));
    for worker in [&mut left, &mut right] {
        let job = worker.job();
        worker.succeed(&job);
    }
    done(&node, 3);
    assert!(archive.job_within(NOTHING).is_none());
}

#[test]
fn each_actor_of_a_role_gets_its_own_job_where_the_pipeline_says_so() {
    let (node, setup) = start(&[("all", BROADCAST)]);
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut first = Peer::ready(&node, &setup, "archive");
    shop.emit_whole(&order("one"));
    let job = first.job();
    first.succeed(&job);
    // The other one was not there, and its job waits for it alone.
    assert!(first.job_within(NOTHING).is_none());
    assert_eq!(processes(&node, "&status=running").len(), 1);
    let mut second = Peer::ready(&node, &setup, "archive2");
    let own = second.job();
    assert_eq!((&own.context, own.items()), (&job.context, job.items()));
    second.succeed(&own);
    done(&node, 1);
    // An actor that is rejected is waited for no more.
    shop.emit_whole(&order("two"));
    drop(second);
    let job = first.job();
    first.succeed(&job);
    rest(&node, "POST", "actors/archive2/disable", "");
    done(&node, 2);
}

#[test]
fn an_envelope_has_a_process_in_each_active_pipeline_that_matches() {
    let direct = BROADCAST.replace(", rolebroadcast: true", "");
    let (node, setup) = start(&[("first", &direct), ("second", &direct)]);
    let other = direct.replace("roles: [shop]}", "roles: [shop], sourcematch: {eventtypes: [order.odd]}}");
    activate(&node, "third", "1", &other);
    let (mut shop, mut archive) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "archive"));
    shop.emit_whole(&order("one"));
    let jobs = [archive.job(), archive.job()];
    assert_ne!(jobs[0].context, jobs[1].context);
    assert_eq!(jobs[0].envelope().id, jobs[1].envelope().id);
    jobs.iter().for_each(|job| archive.succeed(job));
    done(&node, 2);
    assert!(archive.job_within(NOTHING).is_none());
    shop.emit_whole(&envelope(vec![event("order.odd", &["x"])]));
    let three: Vec<Job> = (0..3).map(|_| archive.job()).collect();
    three.iter().for_each(|job| archive.succeed(job));
    done(&node, 5);
}

#[test]
fn an_input_that_gets_a_second_envelope_fails_its_process() {
    let merge =
        DIAMOND.replace(", inputs: [a, b]", "").replace("join.a", "join.default").replace("join.b", "join.default");
    let (node, setup) = start(&[("merge", &merge)]);
    let mut shop = Peer::connect(&node, &setup, "shop");
    let (mut left, mut right) = (Peer::ready(&node, &setup, "left"), Peer::ready(&node, &setup, "right"));
    shop.emit_whole(&order("one"));
    let job = left.job();
    left.pass(&job, "default", order("first"));
    let job = right.job();
    right.output(&output(Some(&job), "default", order("second"))).expect("an answer");
    let failed = wait_for("an error", SOON, || processes(&node, "&status=error").pop());
    assert_eq!(failed["state"], json!("input join.default got a second envelope"), "{failed}");
}
