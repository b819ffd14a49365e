//! Which change of the voters a majority survives. Pure: takes what the leader knows, and gives the next voters.
//!
//! A change of the voters is a joint one: raft commits it only with a majority of the present voters and a
//! majority of the next ones. A change that lacks either majority would not fail but stay half-done, and nothing could
//! be written until the missing nodes are back. So such a change is refused before it begins, also with force.

use std::collections::BTreeSet;

use crate::lab_faults::Bug;

/// The leader's view of the voters when a change is requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Nodes with a vote.
    pub(crate) voters: BTreeSet<u64>,
    /// Nodes that answered lately, the leader included.
    pub(crate) answering: BTreeSet<u64>,
}

/// How much of the log the node has that is to vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The node has never reported its last log index.
    Unheard,
    /// The node lacks this many of the entries that were committed when the change was requested.
    Lacks(u64),
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum No {
    /// Nothing can be changed now: the present voters have no majority that answers.
    Majority(String),
    /// This change cannot be made at present.
    Change(String),
    /// This change can never be made, whichever nodes answer.
    Never(String),
}

/// How many of so many voters must answer.
const fn majority(voters: usize) -> usize {
    (voters / 2).saturating_add(1)
}

/// `node 3 does` or `nodes 3, 4 do`.
fn named(nodes: &BTreeSet<u64>) -> String {
    let list = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    if nodes.len() == 1 { format!("node {list} does") } else { format!("nodes {list} do") }
}

/// How many voters are missing for a majority of these voters, if any.
pub(crate) fn shortage(voters: &BTreeSet<u64>, answering: &BTreeSet<u64>) -> Option<String> {
    let silent: BTreeSet<u64> = voters.difference(answering).copied().collect();
    let (count, needed) = (voters.len().saturating_sub(silent.len()), majority(voters.len()));
    let short = || format!("{count} of {} voters answer, {needed} must: {} not", voters.len(), named(&silent));
    (count < needed).then(short)
}

impl View {
    /// Whether anything can be changed.
    pub(crate) fn check(&self) -> Result<(), No> {
        shortage(&self.voters, &self.answering).map_or(Ok(()), |short| Err(No::Majority(short)))
    }

    /// The voters when `id` gets a vote.
    pub(crate) fn with_voter(&self, id: u64, progress: Progress, force: bool) -> Result<BTreeSet<u64>, No> {
        self.check()?;
        let refused = match progress {
            _ if force || Bug::UnheardVotes.is_on() => None,
            Progress::Unheard => Some(format!(
                "node {id} was never heard: start it, and promote it when `rollbook cluster status` shows it up"
            )),
            _ if !self.answering.contains(&id) => {
                Some(format!("node {id} does not answer: promote it when `rollbook cluster status` shows it up"))
            }
            Progress::Lacks(0) => None,
            Progress::Lacks(entries) => Some(format!(
                "node {id} is {entries} entries behind: promote it when `rollbook cluster status` shows that it has caught up"
            )),
        };
        if let Some(why) = refused {
            return Err(No::Change(why));
        }
        let mut voters = self.voters.clone();
        voters.insert(id);
        match shortage(&voters, &self.answering) {
            None => Ok(voters),
            Some(short) => Err(No::Change(format!(
                "with node {id} as a voter the cluster would stop, and the change could not be completed: {short}; bring them back or remove them first"
            ))),
        }
    }

    /// The voters when `id` has no vote any more. With force those that do not answer lose theirs too, when
    /// there would be no majority otherwise.
    pub(crate) fn without_voter(&self, id: u64, force: bool) -> Result<BTreeSet<u64>, No> {
        self.check()?;
        let mut voters = self.voters.clone();
        voters.remove(&id);
        if voters.is_empty() {
            return Err(No::Never("the last voter cannot be removed".to_owned()));
        }
        let Some(short) = shortage(&voters, &self.answering) else { return Ok(voters) };
        let living: BTreeSet<u64> = voters.intersection(&self.answering).copied().collect();
        if force && !living.is_empty() {
            return Ok(living);
        }
        Err(No::Change(format!(
            "without node {id} the cluster would stop: {short}; bring them back or remove them first, or take their votes too with force"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a change.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Outcome {
        /// It is made.
        Made,
        /// It is refused, and made with force.
        Forced,
        /// It is refused, also with force.
        Refused,
        /// Nothing can be changed at all.
        Stuck,
    }
    use Outcome::{Forced, Made, Refused, Stuck};

    /// Node 1 leads; of `voters` the last `down` do not answer.
    fn view(voters: u64, down: u64) -> View {
        View { voters: (1..=voters).collect(), answering: (1..=voters - down).collect() }
    }

    /// What becomes of a change, and the voters after it. Whatever is made has both majorities.
    fn outcome(view: &View, change: impl Fn(bool) -> Result<BTreeSet<u64>, No>) -> (Outcome, Vec<u64>) {
        let (plain, forced) = (change(false), change(true));
        for voters in [&plain, &forced].into_iter().flatten() {
            for set in [&view.voters, voters] {
                let answer = set.intersection(&view.answering).count();
                assert!(2 * answer > set.len(), "raft cannot commit {view:?} -> {voters:?}");
            }
        }
        if let Ok(plain) = &plain {
            assert_eq!(forced.as_ref(), Ok(plain), "force changes nothing that is possible without");
        }
        let voters = |set: BTreeSet<u64>| set.into_iter().collect();
        match (plain, forced) {
            (Ok(set), _) => (Made, voters(set)),
            (Err(No::Change(_)), Ok(set)) => (Forced, voters(set)),
            (Err(No::Majority(_)), Err(No::Majority(_))) => (Stuck, Vec::new()),
            (Err(No::Change(_)), Err(No::Change(_))) => (Refused, Vec::new()),
            other => panic!("{view:?}: {other:?}"),
        }
    }

    #[test]
    fn changes_of_one_to_five_voters_with_some_down() {
        // voters, down; remove a voter that answers, remove one that does not, promote a node that answers and
        // has caught up, promote one that was never heard.
        let table = [
            (1, 0, None, None, Made, Refused),
            (2, 0, Some(Made), None, Made, Forced),
            (2, 1, None, Some(Stuck), Stuck, Stuck),
            (3, 0, Some(Made), None, Made, Forced),
            (3, 1, Some(Forced), Some(Made), Made, Refused),
            (3, 2, None, Some(Stuck), Stuck, Stuck),
            (4, 0, Some(Made), None, Made, Forced),
            (4, 1, Some(Made), Some(Made), Made, Forced),
            (4, 2, Some(Stuck), Some(Stuck), Stuck, Stuck),
            (4, 3, None, Some(Stuck), Stuck, Stuck),
            (5, 0, Some(Made), None, Made, Forced),
            (5, 1, Some(Made), Some(Made), Made, Forced),
            (5, 2, Some(Forced), Some(Made), Made, Refused),
            (5, 3, Some(Stuck), Some(Stuck), Stuck, Stuck),
            (5, 4, None, Some(Stuck), Stuck, Stuck),
        ];
        for (voters, down, living, dead, ready, unheard) in table {
            let seen = view(voters, down);
            if let Some(expected) = living {
                let made = outcome(&seen, |force| seen.without_voter(2, force));
                assert_eq!(made.0, expected, "remove a living one of {voters} with {down} down: {made:?}");
            }
            if let Some(expected) = dead {
                let made = outcome(&seen, |force| seen.without_voter(voters, force));
                assert_eq!(made.0, expected, "remove a dead one of {voters} with {down} down: {made:?}");
            }
            let new = voters + 1;
            let made = outcome(&seen, |force| seen.with_voter(new, Progress::Unheard, force));
            assert_eq!(made.0, unheard, "promote an unheard one beside {voters} with {down} down: {made:?}");
            let mut seen = seen;
            seen.answering.insert(new);
            let made = outcome(&seen, |force| seen.with_voter(new, Progress::Lacks(0), force));
            assert_eq!(made.0, ready, "promote a ready one beside {voters} with {down} down: {made:?}");
        }
    }

    #[test]
    fn force_takes_the_votes_of_those_that_do_not_answer_only_when_it_must() {
        assert_eq!(view(3, 1).without_voter(2, true), Ok(BTreeSet::from([1])));
        assert_eq!(view(5, 2).without_voter(2, true), Ok(BTreeSet::from([1, 3])));
        assert_eq!(view(5, 1).without_voter(2, true), Ok(BTreeSet::from([1, 3, 4, 5])));
    }

    #[test]
    fn the_last_voter_stays() {
        for force in [false, true] {
            let refused = view(1, 0).without_voter(1, force);
            assert_eq!(refused, Err(No::Never("the last voter cannot be removed".to_owned())));
        }
    }

    #[test]
    fn a_node_votes_when_it_answers_and_lacks_nothing() {
        let mut seen = view(3, 0);
        let refused = |seen: &View, progress| match seen.with_voter(4, progress, false) {
            Err(No::Change(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(&seen, Progress::Unheard).contains("node 4 was never heard"));
        assert!(refused(&seen, Progress::Lacks(0)).contains("node 4 does not answer"), "heard once, now gone");
        seen.answering.insert(4);
        assert!(refused(&seen, Progress::Lacks(7)).contains("node 4 is 7 entries behind"));
        assert_eq!(seen.with_voter(4, Progress::Lacks(0), false), Ok(BTreeSet::from([1, 2, 3, 4])));
    }

    #[test]
    fn a_refusal_names_who_does_not_answer_and_what_to_do() {
        let Err(No::Change(why)) = view(3, 1).without_voter(2, false) else { panic!() };
        assert_eq!(
            why,
            "without node 2 the cluster would stop: 1 of 2 voters answer, 2 must: node 3 does not; bring them back or remove them first, or take their votes too with force"
        );
        let Err(No::Majority(why)) = view(5, 3).check() else { panic!() };
        assert_eq!(why, "2 of 5 voters answer, 3 must: nodes 3, 4, 5 do not");
    }
}
