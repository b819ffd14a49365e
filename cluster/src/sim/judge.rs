//! What is wrong with the books of all nodes, given what the clients know.

use std::collections::BTreeMap;

use super::client::{Outcome, Story};
use super::ticks;
use super::world::Books;

pub(super) fn judge(books: &[Books], story: &Story) -> Vec<String> {
    let mut broken = Vec::new();
    if books.windows(2).any(|pair| pair[0] != pair[1]) {
        broken.push("two nodes have different books".to_owned());
    }
    let mut places: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for (namespace, events) in books.first().into_iter().flatten() {
        if namespace == ticks::NAMESPACE {
            broken.extend(ticks::judge(events));
            continue;
        }
        for (sequence, id) in (1_u64..).zip(events) {
            places.entry(id).or_default().push((namespace, sequence));
        }
    }
    for (id, outcome) in &story.outcomes {
        let found = places.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        match outcome {
            Outcome::Acknowledged { namespace, sequence } if found != [(namespace.as_str(), *sequence)] => {
                broken.push(format!("event {id} was acknowledged at {namespace} {sequence} and is at {found:?}"));
            }
            Outcome::Refused(why) if !found.is_empty() => {
                broken.push(format!("event {id} was refused ({why}) and is at {found:?}"));
            }
            Outcome::Unknown if found.len() > 1 => broken.push(format!("event {id} is stored twice: {found:?}")),
            Outcome::Acknowledged { .. } | Outcome::Refused(_) | Outcome::Unknown => {}
        }
    }
    for burst in &story.bursts {
        let order: Vec<(&String, u64)> =
            burst.iter().filter_map(|id| Some((id, places.get(id.as_str())?.first()?.1))).collect();
        if order.windows(2).any(|pair| pair[0].1 >= pair[1].1) {
            broken.push(format!("events sent one behind the other are in another order: {order:?}"));
        }
    }
    let unknown = places.keys().filter(|id| !story.outcomes.contains_key(**id));
    broken.extend(unknown.map(|id| format!("nobody wrote event {id}")));
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(events: &[&str]) -> Books {
        Books::from([("a".to_owned(), events.iter().map(ToString::to_string).collect())])
    }

    #[test]
    fn broken_books_are_found() {
        let acknowledged = |sequence| Outcome::Acknowledged { namespace: "a".to_owned(), sequence };
        let story = Story {
            outcomes: BTreeMap::from([
                ("v".to_owned(), Outcome::Refused("no leader".to_owned())),
                ("x".to_owned(), acknowledged(1)),
                ("y".to_owned(), acknowledged(2)),
                ("z".to_owned(), Outcome::Unknown),
            ]),
            bursts: vec![vec!["z".to_owned()], vec!["x".to_owned(), "y".to_owned()]],
        };
        let verdict = |one: &[&str], two: &[&str]| judge(&[books(one), books(two)], &story).len();
        assert_eq!((verdict(&["x", "y"], &["x", "y"]), verdict(&["x", "y", "z"], &["x", "y", "z"])), (0, 0));
        let all_broken = [
            vec!["x"],
            vec!["y", "x"],
            vec!["x", "y", "y"],
            vec!["x", "y", "z", "z"],
            vec!["x", "y", "w"],
            vec!["x", "y", "v"],
        ];
        for broken in all_broken {
            assert!(verdict(&broken, &broken) > 0, "{broken:?}");
        }
        assert_eq!(verdict(&["x", "y"], &["x", "y", "z"]), 1, "two histories");
    }

    #[test]
    fn a_burst_in_another_order_is_found_although_nothing_was_acknowledged() {
        let outcomes = ["x", "y"].map(|id| (id.to_owned(), Outcome::Unknown)).into();
        let story = Story { outcomes, bursts: vec![vec!["x".to_owned(), "y".to_owned()]] };
        assert_eq!(judge(&[books(&["x", "y"])], &story).len(), 0);
        assert_eq!(judge(&[books(&["y", "x"])], &story).len(), 1);
    }
}
