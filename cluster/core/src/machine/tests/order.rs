//! Batches of one node are stored in the order of their numbers, if the numbers lie a whole window apart.

use super::*;

#[test]
fn a_batch_that_lies_a_whole_window_below_the_newest_one_is_not_stored_behind_it() {
    let step = limits::BATCHES_PER_PRODUCER;
    let mut replica = Replica::default();
    let batch = |number: u64| [batch_mark(2, 5, number * step, 1), plain("app")];
    let first = replica.apply(&batch(1));
    let third = replica.apply(&batch(3));
    assert!(first[0].is_ok() && third[0].is_ok());
    assert!(matches!(replica.apply(&batch(2))[0], Err(Refusal::OutcomeUnknown(_))), "behind a later one");
    assert_eq!(replica.apply(&batch(1)), first, "one that was stored in time has its answer");
    for number in 4..300 {
        assert!(replica.apply(&batch(number))[0].is_ok(), "{number}");
    }
    assert_eq!(replica.apply(&batch(299)), replica.apply(&batch(299)));
    assert!(replica.apply(&batch(299 - step + 1))[0].is_ok(), "as many are remembered as with dense numbers");
}
