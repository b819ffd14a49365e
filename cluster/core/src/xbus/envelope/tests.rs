//! Envelopes: legal fragments in any cut give the same result, and each fault has its reason.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::assembly::{Ack, Needed, Received};
use super::part::{EventView, Fragment, Part, checksum};
use super::position::{Covered, Position};
use super::row::{EnvelopeRow, EnvelopeStatus, EventRow};
use crate::xbus::id::Id;
use crate::xbus::limits::{FRAGMENTS_MAX, STALL_MS};

/// An envelope with its event rows, as a store keeps them.
#[derive(Debug, Clone, PartialEq)]
struct Store {
    envelope: EnvelopeRow,
    events: BTreeMap<Id, EventRow>,
}

impl Store {
    fn new() -> Self {
        let mut envelope = EnvelopeRow { id: vec![1; 16], created: 1, touched: 1, ..EnvelopeRow::default() };
        envelope.set_status(EnvelopeStatus::Receiving);
        Self { envelope, events: BTreeMap::new() }
    }

    fn receive(&mut self, fragment: &Fragment) -> Received {
        let known = match self.envelope.needs(fragment) {
            Needed::All => self.events.clone(),
            Needed::Some(ids) => {
                self.events.iter().filter(|(id, _)| ids.contains(id)).map(|(id, row)| (*id, row.clone())).collect()
            }
        };
        let received = self.envelope.receive(&known, fragment, 5);
        self.events.extend(received.changed.iter().map(|row| (row.id(), row.clone())));
        received
    }

    fn acks(&mut self, fragments: &[Fragment]) -> Vec<Ack> {
        fragments.iter().map(|fragment| self.receive(fragment).ack).collect()
    }
}

fn id(number: u8) -> Id {
    Id::new([number; 16])
}

/// An event of type `t`; its number is that of its id.
fn part(number: u8, index: u64, items: &[&str], item_count: u64, checksum: u32) -> Part {
    let items = items.iter().map(|item| item.as_bytes());
    let (id, index) = (Some(id(number)), Some(index));
    Part::measure(EventView { id, event_type: "t", index, item_count, checksum, items })
}

fn sum(number: u8, items: &[&str]) -> u32 {
    checksum(id(number), "t", items.iter().map(|item| item.as_bytes()))
}

fn fragment(event_ids: &[u8], parts: Vec<Part>) -> Fragment {
    Fragment { event_ids: event_ids.iter().map(|number| id(*number).to_vec()).collect(), parts, last: false }
}

fn error(text: &str) -> Ack {
    Ack::Error(text.into())
}

#[test]
fn the_published_checksum_is_computed() {
    let id: Id = "53131466-4e2e-11e7-916e-af2b1e6d242d".parse().unwrap();
    let items = [&b"A message"[..]];
    assert_eq!(checksum(id, "test", items), 3_098_160_312);
    let view =
        EventView { id: Some(id), event_type: "test", index: Some(1), item_count: 1, checksum: 3_098_160_312, items };
    let mut store = Store::new();
    let whole = Fragment { event_ids: vec![id.to_vec()], parts: vec![Part::measure(view)], last: false };
    assert_eq!(store.receive(&whole).ack, Ack::Accepted);
    assert_eq!(store.envelope.status(), EnvelopeStatus::Complete);
}

#[test]
fn an_envelope_is_complete_when_all_its_events_are() {
    let mut store = Store::new();
    let fragments = [
        fragment(&[], vec![part(1, 1, &["a", "b"], 0, 0), part(2, 1, &[], 0, 0)]),
        fragment(&[], vec![part(1, 2, &["c"], 3, sum(1, &["a", "b", "c"]))]),
        fragment(&[1, 2], vec![part(2, 2, &["d"], 1, sum(2, &["d"]))]),
    ];
    assert_eq!(store.acks(&fragments), [Ack::Receiving, Ack::Receiving, Ack::Accepted]);
    assert_eq!((store.envelope.bytes, store.envelope.fragments, store.envelope.seen), (4, 3, 2));
}

#[test]
fn the_list_of_events_may_come_first_and_the_first_index_may_be_0() {
    let mut store = Store::new();
    let first = fragment(&[2, 1], vec![part(1, 0, &["a"], 1, sum(1, &["a"]))]);
    let second = fragment(&[1, 2], vec![part(2, 0, &["b"], 1, sum(2, &["b"]))]);
    assert_eq!(store.acks(&[first, second]), [Ack::Receiving, Ack::Accepted]);
}

#[test]
fn a_complete_event_may_appear_again_without_items() {
    let mut store = Store::new();
    let one = || sum(1, &["a"]);
    let fragments = [
        fragment(&[1, 2], vec![part(1, 1, &["a"], 1, one()), part(2, 1, &["b"], 0, 0)]),
        fragment(&[1, 2], vec![part(1, 2, &[], 1, one()), part(2, 2, &["c"], 0, 0)]),
        fragment(&[1, 2], vec![part(1, 3, &[], 0, 0), part(2, 3, &[], 2, sum(2, &["b", "c"]))]),
    ];
    assert_eq!(store.acks(&fragments), [Ack::Receiving, Ack::Receiving, Ack::Accepted]);
}

#[test]
fn an_event_without_items_is_complete_by_its_checksum() {
    let mut store = Store::new();
    assert_eq!(store.receive(&fragment(&[1], vec![part(1, 1, &[], 0, sum(1, &[]))])).ack, Ack::Accepted);
    // A checksum of items that are still to come is no fault.
    let mut store = Store::new();
    let early = fragment(&[1], vec![part(1, 1, &[], 0, sum(1, &["a"]))]);
    assert_eq!(store.receive(&early).ack, Ack::Receiving);
    assert_eq!(store.receive(&fragment(&[1], vec![part(1, 2, &["a"], 1, 0)])).ack, Ack::Accepted);
}

#[test]
fn a_fragment_that_comes_again_is_acknowledged_again() {
    let mut store = Store::new();
    let first = fragment(&[], vec![part(1, 1, &["a", "b"], 0, 0)]);
    let second = fragment(&[1], vec![part(1, 2, &["c"], 3, sum(1, &["a", "b", "c"]))]);
    assert_eq!(store.acks(&[first.clone(), first.clone()]), [Ack::Receiving, Ack::Receiving]);
    assert!(!store.receive(&first).new_data);
    let once = store.clone();
    assert_eq!(store.receive(&second).ack, Ack::Accepted);
    assert_eq!(store.acks(&[second.clone(), first.clone()]), [Ack::Accepted, Ack::Accepted]);
    // The same bytes in other items are another content.
    let mut other = once;
    let cut = fragment(&[], vec![part(1, 1, &["ab"], 0, 0)]);
    assert_eq!(other.receive(&cut).ack, error(&format!("event {}: id reused with other content", id(1))));
    assert_eq!(other.envelope.status(), EnvelopeStatus::Error);
    // Nothing that is in error accepts anything.
    assert_eq!(other.receive(&second).ack, error(&other.envelope.reason.clone()));
}

#[test]
fn a_complete_envelope_refuses_other_content_and_stays_complete() {
    let mut store = Store::new();
    let whole = fragment(&[1], vec![part(1, 1, &["a"], 1, sum(1, &["a"]))]);
    assert_eq!(store.receive(&whole).ack, Ack::Accepted);
    let before = store.clone();
    let others = [
        fragment(&[1], vec![part(1, 1, &["b"], 1, sum(1, &["b"]))]),
        fragment(&[1], vec![part(1, 2, &[], 0, 0)]),
        fragment(&[1, 2], vec![]),
        fragment(&[], vec![part(2, 1, &["a"], 0, 0)]),
        fragment(&[1], vec![part(1, 1, &["a"], 2, 0)]),
    ];
    for other in others {
        assert!(matches!(store.receive(&other).ack, Ack::Error(_)), "{other:?}");
        assert_eq!(store, before);
    }
}

#[test]
fn each_fault_has_its_reason() {
    let good = || part(1, 1, &["a"], 0, 0);
    let at = |number: u8, text: &str| format!("event {}: {text}", id(number));
    let long = "x".repeat(256);
    let typed = |event_type: &str| Part { event_type: event_type.into(), ..good() };
    let cases: Vec<(Fragment, String)> = vec![
        (fragment(&[], vec![part(1, 3, &["b"], 0, 0)]), at(1, "index 2 expected, 3 received")),
        (fragment(&[], vec![part(1, 0, &["b"], 0, 0)]), at(1, "index 2 expected, 0 received")),
        (fragment(&[], vec![part(2, 2, &["b"], 0, 0)]), at(2, "index 1 expected, 2 received")),
        (fragment(&[], vec![part(1, 2, &["b", "c"], 2, 0)]), at(1, "more items than itemCount")),
        (fragment(&[], vec![Part { event_type: "u".into(), ..good() }]), at(1, "id reused with other content")),
        (
            fragment(&[], vec![Part { event: vec![2; 16], ..typed("") }]),
            format!("event {} has no type, or one of more than 255 bytes", id(2)),
        ),
        (
            fragment(&[], vec![Part { event: vec![2; 16], ..typed(&long) }]),
            format!("event {} has no type, or one of more than 255 bytes", id(2)),
        ),
        (fragment(&[], vec![Part { event: vec![1; 15], ..good() }]), "an id of an event has not 16 bytes".into()),
        (
            fragment(&[], vec![Part { event: Vec::new(), ..good() }]),
            "an event without an id, in a fragment that is not the last".into(),
        ),
        (fragment(&[2], vec![]), "an event of an earlier fragment is not in eventIDs".into()),
        (fragment(&[2], vec![part(1, 2, &[], 0, 0)]), format!("event {} is not in eventIDs", id(1))),
        (fragment(&[1], vec![part(2, 1, &[], 0, 0)]), format!("event {} is not in eventIDs", id(2))),
        (fragment(&[1, 1], vec![]), "eventIDs changed, or name an event twice".into()),
        (
            fragment(&[], vec![part(1, 2, &[], 1, 7)]),
            at(1, &format!("checksum 0x00000007 expected, {:#010x} received", sum(1, &["a"]))),
        ),
    ];
    for (fragment, text) in cases {
        let mut store = Store::new();
        assert_eq!(store.receive(&super::tests::fragment(&[], vec![good()])).ack, Ack::Receiving);
        let received = store.receive(&fragment);
        assert_eq!(received.ack, error(&text));
        assert_eq!((received.was, received.changed.len()), (Some(EnvelopeStatus::Receiving), 0));
        assert_eq!(store.envelope.reason, text);
    }
}

#[test]
fn totals_are_told_once() {
    let mut store = Store::new();
    store.receive(&fragment(&[], vec![part(1, 1, &["a"], 3, 7)]));
    let other = fragment(&[], vec![part(1, 2, &["b"], 4, 0)]);
    assert_eq!(store.receive(&other).ack, error(&format!("event {}: itemCount or checksum changed", id(1))));
}

#[test]
fn the_server_counts_what_the_last_fragment_left_out() {
    let bare = |text: &str| {
        let items = [text.as_bytes()];
        Part::measure(EventView { id: None, event_type: "t", index: None, item_count: 0, checksum: 0, items })
    };
    let whole = Fragment { event_ids: Vec::new(), parts: vec![bare("a"), bare("b")], last: true };
    let mut store = Store::new();
    assert_eq!(store.receive(&whole).ack, Ack::Accepted);
    let first = Id::of_event(store.envelope.id(), 0);
    let row = &store.events[&first];
    assert_eq!((row.item_count, row.checksum), (1, checksum(first, "t", [&b"a"[..]])));
    assert_eq!(store.envelope.announced, Some(2));
    // The same again, and something else.
    assert_eq!(store.receive(&whole).ack, Ack::Accepted);
    let other = Fragment { parts: vec![bare("a"), bare("c")], ..whole };
    assert!(matches!(store.receive(&other).ack, Ack::Error(_)));
}

#[test]
fn the_last_fragment_ends_an_envelope_or_shows_what_is_missing() {
    let last = |event_ids: &[u8], parts| Fragment { last: true, ..fragment(event_ids, parts) };
    let mut store = Store::new();
    assert_eq!(store.receive(&last(&[], vec![])).ack, error("an envelope without events"));
    let mut store = Store::new();
    store.receive(&fragment(&[], vec![part(1, 1, &["a"], 0, 0)]));
    assert_eq!(store.receive(&last(&[], vec![part(1, 2, &["b"], 0, 0)])).ack, Ack::Accepted);
    let mut store = Store::new();
    let text = format!("event {} is not complete in the last fragment", id(2));
    assert_eq!(store.receive(&last(&[1, 2], vec![part(1, 1, &["a"], 0, 0)])).ack, error(&text));
    let mut store = Store::new();
    let text = format!("event {} is not complete in the last fragment", id(1));
    assert_eq!(store.receive(&last(&[], vec![part(1, 1, &["a"], 2, 0)])).ack, error(&text));
}

#[test]
fn an_envelope_without_new_fragments_is_stalled_and_then_given_up() {
    let mut store = Store::new();
    let first = fragment(&[], vec![part(1, 1, &["a"], 0, 0)]);
    store.receive(&first);
    assert_eq!(store.envelope.expire(1_000_000, 4 + STALL_MS), None);
    assert_eq!(store.envelope.expire(1_000_000, 5 + STALL_MS), Some(EnvelopeStatus::Receiving));
    assert_eq!(store.envelope.expire(1_000_000, 6 + STALL_MS), None);
    let received = store.receive(&fragment(&[], vec![part(1, 2, &["b"], 0, 0)]));
    assert_eq!((received.ack, received.was), (Ack::Receiving, Some(EnvelopeStatus::Stalled)));
    assert_eq!(store.envelope.expire(1_000_000, 5 + STALL_MS), Some(EnvelopeStatus::Receiving));
    assert_eq!(store.envelope.expire(1_000_000, 1_000_005), Some(EnvelopeStatus::Stalled));
    assert_eq!(store.envelope.status(), EnvelopeStatus::Error);
    assert_eq!(store.envelope.expire(1_000_000, u64::MAX), None);
}

#[test]
fn what_is_kept_does_not_grow_with_the_bytes() {
    use prost::Message as _;
    let (mut store, item) = (Store::new(), vec![b'x'; 500_000]);
    let mut crc = super::part::checksum_start(id(1), "t");
    for index in 1..=210_u64 {
        crc = crc32c::crc32c_append(crc, &item);
        let (item_count, checksum) = if index == 210 { (210, crc) } else { (0, 0) };
        let (id, items) = (Some(id(1)), [&item[..]]);
        let view = EventView { id, event_type: "t", index: Some(index), item_count, checksum, items };
        let event_ids = if index == 210 { vec![super::tests::id(1).to_vec()] } else { Vec::new() };
        let received = store.receive(&Fragment { event_ids, parts: vec![Part::measure(view)], last: false });
        assert!(!matches!(received.ack, Ack::Error(_)), "{received:?}");
    }
    assert_eq!((store.envelope.status(), store.envelope.bytes), (EnvelopeStatus::Complete, 105_000_000));
    let kept: usize = store.events.values().map(EventRow::encoded_len).sum();
    assert!(kept + store.envelope.encoded_len() < 2500, "{kept}");
}

#[test]
fn an_event_has_a_bounded_number_of_fragments() {
    let mut store = Store::new();
    let mut one = |index| store.receive(&fragment(&[], vec![part(1, index, &[], 0, 0)])).ack;
    let most = u64::try_from(FRAGMENTS_MAX).unwrap();
    assert!((1..=most).all(|index| one(index) == Ack::Receiving));
    assert_eq!(one(most + 1), error("too many fragments: at most 4096"));
}

#[test]
fn a_position_moves_with_each_part() {
    let mut position = Position::default();
    position.cover(id(1), &part(1, 1, &["a", "b"], 0, 0));
    position.cover(id(1), &part(1, 2, &["c"], 0, 0));
    assert_eq!(position.events[&id(1)], Covered { index: 2, items: 3 });
    assert!(position.covers(id(1), 2) && !position.covers(id(1), 3) && !position.covers(id(2), 1));
}

/// The events of an envelope: the items of each.
fn events() -> impl Strategy<Value = Vec<Vec<String>>> {
    proptest::collection::vec(proptest::collection::vec("[a-z]{0,6}", 0..12), 1..6)
}

/// Legal fragments of these events: `cuts` says how many items of each event go into each fragment.
fn cut(events: &[Vec<String>], cuts: &[Vec<usize>], first: u64, announce_at: usize) -> Vec<Fragment> {
    let all: Vec<Vec<u8>> = (1..).zip(events).map(|(number, _)| id(number).to_vec()).collect();
    let mut taken = vec![0; events.len()];
    let mut index = vec![first; events.len()];
    let mut fragments = Vec::new();
    for (round, sizes) in cuts.iter().chain([&vec![usize::MAX; events.len()]]).enumerate() {
        let is_last = round == cuts.len();
        let mut parts = Vec::new();
        for (at, items) in events.iter().enumerate() {
            let size = sizes.get(at).copied().unwrap_or(0).min(items.len() - taken[at]);
            // Nothing of this event in this fragment, unless it is the last one.
            if size == 0 && !is_last && round % 2 == 0 {
                continue;
            }
            let texts: Vec<&str> = items.iter().map(String::as_str).collect();
            let chunk = &texts[taken[at]..taken[at] + size];
            taken[at] += size;
            let closed = taken[at] == items.len();
            let number = u8::try_from(at + 1).unwrap();
            let totals = if closed { (u64::try_from(items.len()).unwrap(), sum(number, &texts)) } else { (0, 0) };
            parts.push(part(number, index[at], chunk, totals.0, totals.1));
            index[at] += 1;
        }
        let event_ids = if round >= announce_at || is_last { all.clone() } else { Vec::new() };
        fragments.push(Fragment { event_ids, parts, last: false });
    }
    fragments
}

proptest! {
    #[test]
    fn any_legal_cut_with_repetitions_gives_the_same_events(
        events in events(),
        cuts in proptest::collection::vec(proptest::collection::vec(0_usize..4, 6), 0..5),
        first in 0_u64..2,
        announce_at in 0_usize..6,
        repeats in proptest::collection::vec(0_usize..100, 0..8),
        says_last in any::<bool>(),
    ) {
        let whole = cut(&events, &[], 1, 0);
        let mut reference = Store::new();
        prop_assert_eq!(reference.acks(&whole), [Ack::Accepted]);
        let mut fragments = cut(&events, &cuts, first, announce_at);
        if let Some(last) = fragments.last_mut() {
            last.last = says_last;
        }
        let mut store = Store::new();
        for (at, fragment) in fragments.iter().enumerate() {
            let complete = at + 1 == fragments.len();
            let ack = store.receive(fragment).ack;
            // An envelope can be complete before fragments that bring nothing.
            let early = ack == Ack::Accepted && store.envelope.status() == EnvelopeStatus::Complete;
            prop_assert!(if complete { ack == Ack::Accepted } else { ack == Ack::Receiving || early }, "{at}: {ack:?}");
            if early && !complete {
                break;
            }
            for again in repeats.iter().map(|again| again % (at + 1)) {
                let before = store.clone();
                let received = store.receive(&fragments[again]);
                prop_assert!(!received.new_data && !matches!(received.ack, Ack::Error(_)), "{received:?}");
                prop_assert_eq!(&store, &before);
            }
        }
        prop_assert_eq!(store.envelope.status(), EnvelopeStatus::Complete);
        prop_assert_eq!(store.envelope.bytes, reference.envelope.bytes);
        for (id, row) in &reference.events {
            let other = &store.events[id];
            prop_assert_eq!((other.items, other.bytes, other.crc, other.complete), (row.items, row.bytes, row.crc, true));
            prop_assert_eq!(&other.event_type, &row.event_type);
        }
    }

    /// No sequence of fragments makes an envelope complete whose items are not those of its checksums.
    #[test]
    fn whatever_comes_a_complete_envelope_has_what_its_checksums_say(
        steps in proptest::collection::vec((1_u8..4, 0_u64..4, 0_usize..3, 0_u64..4, any::<bool>(), any::<bool>()), 0..30),
    ) {
        let mut store = Store::new();
        let mut kept: BTreeMap<Id, Vec<&str>> = BTreeMap::new();
        let texts = ["a", "b", "c"];
        for (number, index, items, item_count, announce, last) in steps {
            let chunk = &texts[..items];
            let mut guess = kept.get(&id(number)).cloned().unwrap_or_default();
            guess.extend(chunk);
            let checksum = if item_count > 1 { sum(number, &guess) } else { 0 };
            let ids: &[u8] = if announce { &[1, 2] } else { &[] };
            let one = Fragment { last: last && announce, ..fragment(ids, vec![part(number, index, chunk, item_count, checksum)]) };
            let before = store.events.get(&id(number)).map_or(0, |row| row.parts.len());
            let received = store.receive(&one);
            if store.events.get(&id(number)).map_or(0, |row| row.parts.len()) > before && received.new_data {
                kept.entry(id(number)).or_default().extend(chunk);
            }
            let complete = store.envelope.status() == EnvelopeStatus::Complete;
            prop_assert_eq!(complete, matches!(received.ack, Ack::Accepted) || complete);
            for (id, row) in store.events.iter().filter(|(_, row)| row.is_seen()) {
                let items = kept.get(id).cloned().unwrap_or_default();
                prop_assert_eq!(row.items, u64::try_from(items.len()).unwrap());
                prop_assert_eq!(row.crc, checksum_of(*id, &items));
                prop_assert!(!row.complete || row.item_count == row.items && row.checksum == row.crc);
            }
            if complete {
                let all = store.events.values().all(|row| row.complete);
                prop_assert!(all && store.envelope.announced == u32::try_from(store.events.len()).ok());
            }
        }
    }
}

fn checksum_of(id: Id, items: &[&str]) -> u32 {
    checksum(id, "t", items.iter().map(|item| item.as_bytes()))
}

#[test]
fn texts_of_faults_are_bounded() {
    let fault = super::assembly::Fault::TooLarge.to_string();
    assert!(fault.len() < 100);
}
