//! Verdicts on refusals, pipelined publishes, retention and recovery: each with a history that must be condemned
//! and one that must not.

use super::Property;
use super::story::{REGISTER, Story, TAIL, good, payload};
use super::tests::{judge, spoiled};
use crate::history::{Log, Op, Phase, Publish, Record, Recovery};

const SECOND: u64 = 1_000_000_000;

/// The payload of producer 3 that is published, or not.
fn ours(number: u64) -> u64 {
    payload(3, number)
}

/// An attempt that ends like that.
fn attempt(story: &mut Story, number: u64, attempt: u32, phase: Phase, said: Option<&str>) {
    let ask = Publish::new(Log::Lab, ours(number), 1, attempt);
    let answer = Publish { said: said.map(str::to_owned), ..ask.clone() };
    story.line(3, 1, Phase::Invoke, Op::Publish(ask));
    story.line(3, 1, phase, Op::Publish(answer));
}

/// It stands behind everything else, for everybody.
fn lands(story: &mut Story, number: u64, index: u64) {
    story.deliver(TAIL, Log::Lab, 1, index, ours(number));
    story.stored(Log::Lab, index, ours(number));
}

#[test]
fn a_refused_write_that_is_stored_is_condemned_and_an_unknown_one_is_not() {
    for said in ["503 overloaded: too many publishes wait", "503 unavailable: no leader", "507 insufficient storage"] {
        let found = spoiled(|story| {
            attempt(story, 1, 1, Phase::Fail, Some(said));
            lands(story, 1, 11);
        });
        assert_eq!(found, [Property::RefusedButStored], "{said}");
    }
    let unknown = spoiled(|story| {
        attempt(story, 1, 1, Phase::Unknown, Some("503 unavailable: outcome unknown: no answer in time"));
        attempt(story, 1, 2, Phase::Fail, Some("503 overloaded"));
        lands(story, 1, 11);
    });
    assert_eq!(unknown, [], "one of its attempts promised nothing");
    let gone = spoiled(|story| attempt(story, 1, 1, Phase::Fail, Some("503 overloaded")));
    assert_eq!(gone, [], "refused and not there");
}

#[test]
fn a_key_that_is_known_after_refusals_only_was_stored_by_one_of_them() {
    let after = |phase: Phase| {
        spoiled(move |story| {
            attempt(story, 1, 1, phase, Some("503"));
            attempt(story, 1, 2, Phase::Ok, Some("409 key was processed before"));
            lands(story, 1, 11);
        })
    };
    assert_eq!(after(Phase::Fail), [Property::RefusedButStored]);
    assert_eq!(after(Phase::Unknown), [], "an unknown attempt may have been stored");
    let accepted = spoiled(|story| {
        attempt(story, 1, 1, Phase::Fail, Some("503"));
        attempt(story, 1, 2, Phase::Ok, None);
        lands(story, 1, 11);
    });
    assert_eq!(accepted, [], "refused first and then accepted");
}

/// Two publishes over connections `first` and `second`, both on their way at the same time, which stand in
/// the log as 12 and 11.
fn pipelined(story: &mut Story, first: u32, second: u32) {
    let ask = |number: u64, pipe: u32| Publish { pipe: Some(pipe), ..Publish::new(Log::Lab, ours(number), 1, 1) };
    let answer = |number: u64, pipe: u32, index: u64| {
        let id = Some(super::story::id_at(index));
        Op::Publish(Publish { index: Some(index), id, ..ask(number, pipe) })
    };
    story.line(3, 2, Phase::Invoke, Op::Publish(ask(1, first)));
    story.line(3, 2, Phase::Invoke, Op::Publish(ask(2, second)));
    story.line(3, 2, Phase::Ok, answer(2, second, 11));
    story.line(3, 2, Phase::Ok, answer(1, first, 12));
    lands(story, 2, 11);
    lands(story, 1, 12);
}

#[test]
fn publishes_of_one_connection_in_the_other_order_are_condemned_and_those_of_two_are_not() {
    assert_eq!(spoiled(|story| pipelined(story, 7, 7)), [Property::PipelineOrder]);
    assert_eq!(spoiled(|story| pipelined(story, 7, 8)), [], "two connections have no order");
}

#[test]
fn an_answer_after_the_time_out_is_condemned_and_a_connection_that_ends_is_not() {
    let over = |pipe: Option<u32>, millis: u64, phase: Phase, said: Option<&'static str>| {
        spoiled(move |story| {
            let ask = Publish { pipe, ..Publish::new(Log::Lab, ours(1), 1, 1) };
            story.line(3, 2, Phase::Invoke, Op::Publish(ask.clone()));
            story.wait(millis);
            story.line(3, 2, phase, Op::Publish(Publish { said: said.map(str::to_owned), ..ask }));
        })
    };
    let answered = |millis, phase, said| over(None, millis, phase, said);
    let refusal = Some("unavailable no leader");
    assert_eq!(answered(13_000, Phase::Fail, refusal), [Property::LateAnswer]);
    assert_eq!(answered(13_000, Phase::Unknown, Some("unavailable outcome unknown")), [Property::LateAnswer]);
    assert_eq!(answered(9_000, Phase::Fail, refusal), []);
    assert_eq!(answered(13_000, Phase::Unknown, None), [Property::LateAnswer], "the client waited in vain");
    assert_eq!(answered(1_200, Phase::Unknown, None), [], "the client had gone");
    assert_eq!(over(Some(7), 13_000, Phase::Unknown, None), [], "the connection had ended");
    assert_eq!(over(Some(7), 13_000, Phase::Fail, refusal), [Property::LateAnswer]);
}

#[test]
fn what_was_given_up_and_is_stored_behind_a_write_that_began_later_is_condemned() {
    let stored = |millis: u64, phase: Phase| {
        spoiled(move |story| {
            attempt(story, 1, 1, phase, None);
            story.wait(millis);
            story.publish(Log::Lab, 2, 1, 40, 11);
            story.deliver(TAIL, Log::Lab, 1, 11, payload(2, 40));
            story.stored(Log::Lab, 11, payload(2, 40));
            lands(story, 1, 12);
        })
    };
    assert_eq!(stored(16_000, Phase::Unknown), [Property::StoredLate]);
    assert_eq!(stored(8_000, Phase::Unknown), [], "it may still have been on its way");
    let before = spoiled(|story| {
        attempt(story, 1, 1, Phase::Unknown, None);
        story.wait(16_000);
        story.publish(Log::Lab, 2, 1, 40, 12);
        lands(story, 1, 11);
        story.deliver(TAIL, Log::Lab, 1, 12, payload(2, 40));
        story.stored(Log::Lab, 12, payload(2, 40));
    });
    assert_eq!(before, [], "it stands where it was asked for");
}

/// Three events of `aged`, of which the nodes have those from `first` on.
fn aged(story: &mut Story, first: u64) {
    for index in 1..=3 {
        story.publish(Log::Aged, 3, 1, index, index);
    }
    for index in first..=3 {
        story.stored(Log::Aged, index, ours(index));
    }
}

#[test]
fn an_event_that_goes_before_its_age_is_condemned_and_one_that_is_lost_is_lost() {
    assert_eq!(spoiled(|story| aged(story, 1)), []);
    assert_eq!(spoiled(|story| aged(story, 3)), [Property::TrimmedEarly]);
    let one_node = spoiled(|story| {
        aged(story, 1);
        let gone =
            |record: &Record| record.node == 2 && matches!(record.op, Op::Stored { log: Log::Aged, index: 1, .. });
        story.records.retain(|record| !gone(record));
    });
    assert_eq!(one_node, [Property::Skip, Property::ReplicaEquality], "others have it");
    let lost = spoiled(|story| {
        aged(story, 1);
        story.publish(Log::Aged, 3, 1, 4, 4);
    });
    assert_eq!(lost, [Property::LostWrite], "at the other end nothing is trimmed");
}

#[test]
fn a_node_that_is_level_too_late_or_never_is_condemned() {
    let after = |took: Option<u64>, what: Recovery| {
        let op = Op::Recovered { fault: "SilentAll".to_owned(), what, took, bound: 3 * SECOND };
        spoiled(move |story| story.line(0, 2, Phase::Seen, op.clone()))
    };
    assert_eq!(after(Some(2 * SECOND), Recovery::Level), []);
    assert_eq!(after(Some(47 * SECOND), Recovery::Level), [Property::Recovery]);
    assert_eq!(after(Some(35 * SECOND), Recovery::Accepts), [Property::Recovery]);
    assert_eq!(after(None, Recovery::Level), [Property::Recovery]);
}

#[test]
fn what_the_lab_saw_itself_is_condemned() {
    let ended = spoiled(|story| story.line(0, 2, Phase::Seen, Op::Ended { words: "no space left".to_owned() }));
    assert_eq!(ended, [Property::NodeEnded]);
    let broken = spoiled(|story| story.line(0, 2, Phase::Seen, Op::Broken { text: "a ghost votes".to_owned() }));
    assert_eq!(broken, [Property::Broken]);
}

#[test]
fn the_table_counts_events_and_faults() {
    let mut story = good();
    story.line(
        0,
        2,
        Phase::Seen,
        Op::Recovered { fault: "kill".to_owned(), what: Recovery::Level, took: Some(2 * SECOND), bound: 3 * SECOND },
    );
    story.call(REGISTER, 1, Phase::Ok, &Op::Read { register: 0, value: Some(2) });
    let missed = Op::Missed { fault: "kill".to_owned(), why: "nobody was there".to_owned() };
    story.line(0, 0, Phase::Seen, missed);
    let records = story.records.clone();
    assert_eq!(judge(story), []);
    let table = super::figures(&crate::history::History { records }, 0);
    for line in [
        "| acknowledged | 12 |",
        "| unknown | 1 |",
        "| refused | 1 |",
        "| stored at the end | 13 |",
        "| violations | 0 |",
    ] {
        assert!(table.contains(line), "{line} in\n{table}");
    }
    let kill = table.lines().find(|line| line.starts_with("| kill |")).expect("a line of the fault");
    assert!(kill.starts_with("| kill | 1 | 1 | 0.0"), "{kill}");
    assert!(kill.ends_with("| 2.000 s | 0 |"), "{kill}");
}
