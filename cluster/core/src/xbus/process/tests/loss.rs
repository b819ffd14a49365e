//! Actors and nodes of the cluster are lost and come back.

use super::{
    FORK, OWNER, Story, UNIT, back, begin, close, complete, connection, end, fork, id, job, lost, ready, send,
};
use crate::node::Owner;
use crate::xbus::limits::DETACHED_MS;
use crate::xbus::process::event::{ActorConnection, Denied, Event};
use crate::xbus::process::row::{JobState, NodeState};

#[test]
fn a_job_of_a_lost_actor_goes_to_another_one() {
    let mut story = Story::new(fork(), &[(1, "w"), (7, "w"), (2, "c"), (3, "d")]);
    story.ok(send("w", 1));
    assert_eq!(story.apply(send("w", 7)), Err(Denied::NotReady));
    assert!(story.process.concerns(id(1)) && !story.process.concerns(id(7)));
    assert_eq!(story.ok(lost(1)).ready, [ready("w")]);
    story.ok(send("w", 7));
    assert_eq!(story.apply(end("w", 1, true)), Err(Denied::NoLiveJob));
    assert_eq!(story.apply(close("w", 1, "a")), Err(Denied::NoLiveJob));
    story.ok(end("w", 7, true));
}

#[test]
fn what_a_job_repeats_after_a_loss_is_thrown_away() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(complete("w", 1, "a", 101));
    story.ok(begin("w", 1, "b", 102));
    story.ok(lost(1));
    story.ok(send("w", 1));
    // The envelope of the first attempt counts. The second one is acknowledged, in all its fragments.
    for event in [begin("w", 1, "a", 103), begin("w", 1, "a", 103), complete("w", 1, "a", 103)] {
        assert!(story.ok(event).discard);
    }
    assert_eq!(story.apply(begin("w", 1, "a", 104)), Err(Denied::OutputClosed("w".into(), "a".into())));
    // What had begun comes anew, under any id.
    assert!(!story.ok(begin("w", 1, "b", 105)).discard);
    story.ok(complete("w", 1, "b", 105));
    assert_eq!(story.state("w"), NodeState::Success);
    assert_eq!(story.ok(send("c", 2)).deliver.unwrap().inputs[0].1, Some(id(101)));
    assert_eq!(story.ok(send("d", 3)).deliver.unwrap().inputs[0].1, Some(id(105)));
}

#[test]
fn a_worker_that_ended_without_a_word_may_still_repeat_what_it_did_before_the_loss() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(complete("w", 1, "a", 101));
    story.ok(lost(1));
    story.ok(send("w", 1));
    story.ok(close("w", 1, "b"));
    assert_eq!(story.job("w"), JobState::Success);
    assert!(story.ok(begin("w", 1, "a", 103)).discard);
}

#[test]
fn a_detached_job_waits_a_minute_for_its_actor() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(Event::Detach(job("w", 1)));
    let expire = Event::Expire(UNIT);
    story.millis += 10 * DETACHED_MS;
    story.ok(expire.clone());
    assert_eq!(story.job("w"), JobState::Detached);
    story.ok(lost(1));
    story.millis += DETACHED_MS - 1;
    story.ok(expire.clone());
    assert_eq!(story.job("w"), JobState::Detached);
    story.ok(back(1));
    story.millis += DETACHED_MS;
    story.ok(expire.clone());
    assert_eq!(story.job("w"), JobState::Detached);
    story.ok(lost(1));
    story.millis += DETACHED_MS;
    assert_eq!(story.ok(expire).ready, [ready("w")]);
    // A detached job that is there ends by ProcessingEnd.
    story.ok(send("w", 1));
    story.ok(Event::Detach(job("w", 1)));
    story.ok(end("w", 1, true));
    assert_eq!(story.job("w"), JobState::Success);
}

#[test]
fn the_jobs_of_a_lost_node_are_given_back() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    assert!(story.process.is_served_by(1) && !story.process.is_served_by(2));
    let node = |node, incarnation| Event::NodeLost(Owner { node, incarnation });
    assert_eq!(story.ok(node(2, 9)).ready, []);
    assert_eq!(story.ok(node(1, OWNER.incarnation - 1)).ready, []);
    assert_eq!(story.ok(node(1, OWNER.incarnation)).ready, [ready("w")]);
    assert!(!story.process.is_served_by(1));
    // A detached job waits for its actor, which may come back by another node.
    story.ok(send("w", 1));
    story.ok(Event::Detach(job("w", 1)));
    story.ok(node(1, OWNER.incarnation));
    let elsewhere = ActorConnection { owner: Some(Owner { node: 2, incarnation: 1 }), ..connection(1) };
    story.ok(Event::ActorBack(elsewhere));
    story.ok(node(1, OWNER.incarnation));
    story.millis += DETACHED_MS;
    story.ok(Event::Expire(UNIT));
    assert_eq!(story.job("w"), JobState::Detached);
}

#[test]
fn the_end_of_an_older_connection_touches_no_job_of_a_newer_one() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    let older = ActorConnection { owner: Some(Owner { node: 7, incarnation: 1 }), ..connection(1) };
    assert_eq!(story.ok(Event::ActorLost(older)).ready, []);
    assert_eq!(story.job("w"), JobState::Pending);
}
