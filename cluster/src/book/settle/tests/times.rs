//! Where a time is in a namespace.

use super::rig::{Rig, temporary};
use crate::book::events::Book;

/// The position of the first event whose payload was published at or after a time, as a list of times says.
fn expected(times: &[u64], millis: u64) -> u64 {
    let before = times.iter().take_while(|time| **time < millis).count();
    u64::try_from(before).unwrap() + 1
}

#[test]
fn a_time_is_found_in_the_log_and_in_blocks_wherever_the_border_is() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 7).unwrap();
    let mut times = Vec::new();
    for step in 1..=200_u64 {
        // Some entries share a time, and events of all sizes fill blocks differently.
        let millis = step / 2 * 10 + 1000;
        let events = u32::try_from(1 + rig.random(9)).unwrap();
        let bytes = 100 + rig.random(20_000);
        let frame = rig.frame_at("a", events, bytes, millis);
        rig.apply(&[frame], millis);
        times.extend(std::iter::repeat_n(millis, events.try_into().unwrap()));
        if rig.random(20) == 0 {
            rig.step().unwrap();
        }
        if step % 25 != 0 {
            continue;
        }
        let book = Book::new(std::sync::Arc::clone(&rig.state), rig.log.clone());
        for millis in (0..millis + 30).step_by(7) {
            assert_eq!(book.at_time("a", millis).unwrap(), expected(&times, millis), "{millis} after step {step}");
        }
    }
    let head = rig.head("a");
    assert!(rig.state.ledger().settled(head.id) > 1, "some events are in blocks");
    rig.trim("a", head.next / 2);
    let book = Book::new(std::sync::Arc::clone(&rig.state), rig.log.clone());
    assert_eq!(book.at_time("a", 0).unwrap(), head.next / 2, "what is out of sight is passed by");
    assert_eq!(book.at_time("unknown", 5).unwrap(), 1);
}
