//! What was noted while nodes were killed, and whether it is what may be. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Something that was seen, in the order in which it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// The acknowledgement ACCEPTED of the envelope with this number came.
    Accepted { number: u64, envelope: String },
    /// An envelope that has no fault was refused.
    Refused { number: u64, text: String },
    /// A consumer has the envelope with this number, as a job of this process, and is about to say SUCCESS.
    Consumed { number: u64, process: String },
    /// Somebody was told that the process of this envelope is done.
    ToldDone { envelope: String },
}

/// A process as the bus knows it in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: String,
    /// The envelope of the emitter.
    pub(super) envelope: String,
    pub(super) status: String,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) accepted: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
    /// Consumed more than once: that is allowed.
    pub(super) repeated: usize,
    /// What must not be.
    pub(super) violations: Vec<String>,
}

/// Judges what was seen. `Seen` of one run name each envelope by one number.
pub(super) fn check(seen: &[Seen], processes: &[Process]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut of_envelope: HashMap<&str, Vec<&Process>> = HashMap::new();
    for process in processes {
        of_envelope.entry(&process.envelope).or_default().push(process);
        match &*process.status {
            "done" => verdict.done += 1,
            "error" => verdict.failed += 1,
            other => verdict.violations.push(format!("process {} never ends: it is {other}", process.id)),
        }
    }
    let envelopes: HashMap<&str, &str> = processes.iter().map(|process| (&*process.id, &*process.envelope)).collect();
    let mut accepted: BTreeMap<u64, &str> = BTreeMap::new();
    // What consumers had, by envelope of the emitter; and how often each.
    let mut consumed: BTreeSet<&str> = BTreeSet::new();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    for seen in seen {
        match seen {
            Seen::Accepted { number, envelope } => {
                accepted.insert(*number, envelope);
            }
            Seen::Refused { number, text } => verdict.violations.push(format!("envelope {number} was refused: {text}")),
            Seen::Consumed { number, process } => match envelopes.get(&**process) {
                None => verdict.violations.push(format!("number {number} came by a process {process} that is gone")),
                Some(envelope) => {
                    verdict.repeated += usize::from(!consumed.insert(envelope));
                    if *numbers.entry(envelope).or_insert(*number) != *number {
                        verdict.violations.push(format!("process {process} brought two numbers, {number} is one"));
                    }
                }
            },
            Seen::ToldDone { envelope } => {
                if !consumed.contains(&**envelope) {
                    let text = format!("envelope {envelope} was told to be done before its consumer said so");
                    verdict.violations.push(text);
                }
            }
        }
    }
    verdict.accepted = accepted.len();
    for (number, envelope) in &accepted {
        match of_envelope.get(envelope).map(Vec::as_slice) {
            None => verdict.violations.push(format!("envelope {number} ({envelope}) was accepted and has vanished")),
            Some([process]) => {
                if process.status == "done" && numbers.get(envelope) != Some(number) {
                    let text = format!("envelope {number} ({envelope}) is done and no consumer had it");
                    verdict.violations.push(text);
                }
            }
            Some(more) => verdict.violations.push(format!("envelope {number} has {} processes", more.len())),
        }
    }
    for process in processes {
        if process.status == "done" && !consumed.contains(&*process.envelope) {
            verdict.violations.push(format!("process {} is done and no consumer had its envelope", process.id));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(number: u64) -> Seen {
        Seen::Accepted { number, envelope: format!("e{number}") }
    }

    fn consumed(number: u64) -> Seen {
        Seen::Consumed { number, process: format!("p{number}") }
    }

    fn told(number: u64) -> Seen {
        Seen::ToldDone { envelope: format!("e{number}") }
    }

    fn process(number: u64, status: &str) -> Process {
        Process { id: format!("p{number}"), envelope: format!("e{number}"), status: status.to_owned() }
    }

    fn violations(seen: &[Seen], processes: &[Process]) -> Vec<String> {
        check(seen, processes).violations
    }

    #[test]
    fn what_may_be_is_no_violation() {
        // The second one fails, the third one is redelivered, the fourth one was accepted and nobody heard so.
        let seen = [
            accepted(1),
            consumed(1),
            told(1),
            accepted(2),
            consumed(3),
            accepted(3),
            consumed(3),
            told(3),
            consumed(4),
        ];
        let processes = [process(1, "done"), process(2, "error"), process(3, "done"), process(4, "done")];
        let verdict = check(&seen, &processes);
        let wanted = Verdict { accepted: 3, done: 3, failed: 1, repeated: 1, violations: Vec::new() };
        assert_eq!(verdict, wanted);
    }

    #[test]
    fn an_accepted_envelope_without_a_process_has_vanished() {
        let found = violations(&[accepted(1), accepted(2), consumed(2)], &[process(2, "done")]);
        assert_eq!(found, ["envelope 1 (e1) was accepted and has vanished"]);
    }

    #[test]
    fn a_process_that_does_not_end_is_a_violation() {
        assert_eq!(violations(&[accepted(1)], &[process(1, "running")]), ["process p1 never ends: it is running"]);
    }

    #[test]
    fn a_process_that_is_done_without_a_consumer_is_a_violation() {
        let found = violations(&[accepted(1)], &[process(1, "done")]);
        assert!(found.iter().any(|text| text == "envelope 1 (e1) is done and no consumer had it"), "{found:?}");
        assert_eq!(violations(&[], &[process(1, "done")]), ["process p1 is done and no consumer had its envelope"]);
    }

    #[test]
    fn done_must_not_be_told_before_the_consumer_said_so() {
        let found = violations(&[accepted(1), told(1), consumed(1)], &[process(1, "done")]);
        assert_eq!(found, ["envelope e1 was told to be done before its consumer said so"]);
    }

    #[test]
    fn an_envelope_has_one_process() {
        let twice = Process { id: "p9".to_owned(), ..process(1, "error") };
        let found = violations(&[accepted(1), consumed(1)], &[process(1, "done"), twice]);
        assert_eq!(found, ["envelope 1 has 2 processes"]);
    }

    #[test]
    fn envelopes_must_not_be_mixed_up() {
        let other = Seen::Consumed { number: 7, process: "p1".to_owned() };
        let found = violations(&[accepted(1), other.clone()], &[process(1, "done")]);
        assert_eq!(found, ["envelope 1 (e1) is done and no consumer had it"]);
        let found = violations(&[accepted(1), consumed(1), other], &[process(1, "done")]);
        assert_eq!(found, ["process p1 brought two numbers, 7 is one"]);
        assert_eq!(violations(&[consumed(1)], &[]), ["number 1 came by a process p1 that is gone"]);
    }

    #[test]
    fn a_refusal_of_what_has_no_fault_is_a_violation() {
        let refused = Seen::Refused { number: 1, text: "no".to_owned() };
        assert_eq!(violations(&[refused], &[]), ["envelope 1 was refused: no"]);
    }
}
