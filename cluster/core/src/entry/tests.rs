//! Frames and entries read back, and damaged ones are seen.

use super::*;
use crate::event::Event;

fn publish(namespace: &str, subjects: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    begin_publish(&mut out, namespace).unwrap();
    for subject in subjects {
        Event { subject, payload: Some(b"1"), ..Event::default() }.encode(&mut out).unwrap();
    }
    finish_publish(&mut out, 0, FLAG_CREATE, u32::try_from(subjects.len()).unwrap()).unwrap();
    out
}

#[test]
fn frames_come_back_in_order() {
    let mut builder = EntryBuilder::new(0);
    builder.push(&publish("app", &["app.a", "app.b"]));
    builder.push(&command_frame(b"xyz").unwrap());
    let bytes = builder.finish(77);
    let entry = Entry::parse(&bytes).unwrap();
    assert_eq!((entry.millis, entry.len()), (77, 2));
    let mut frames = entry.frames();
    let Some(Frame::Publish(first)) = frames.next() else { panic!("a publish") };
    assert_eq!((first.namespace, first.events, first.flags), ("app", 2, FLAG_CREATE));
    let (event, used) = Event::decode(first.records).unwrap();
    assert_eq!(event.subject, "app.a");
    assert_eq!(Event::decode(&first.records[used..]).unwrap().0.subject, "app.b");
    assert!(matches!(frames.next(), Some(Frame::Command(b"xyz"))));
    assert!(frames.next().is_none() && frames.intact());
}

#[test]
fn a_tick_has_its_condition_before_its_record_and_a_condition_that_is_cut_is_seen() {
    let mut out = Vec::new();
    begin_publish(&mut out, "app").unwrap();
    put_tick(&mut out, b"condition").unwrap();
    Event { subject: "app.a", payload: Some(b"1"), ..Event::default() }.encode(&mut out).unwrap();
    finish_publish(&mut out, 0, FLAG_CREATE | FLAG_TICK, 1).unwrap();
    let Some(Frame::Publish(publish)) = frames(&out, 1).next() else { panic!("a publish") };
    assert_eq!((publish.tick, publish.events), (Some(&b"condition"[..]), 1));
    assert_eq!(Event::decode(publish.records).unwrap().0.subject, "app.a");
    let mut short = Vec::new();
    begin_publish(&mut short, "app").unwrap();
    short.extend_from_slice(&[9, 0, 0, 0, b'x']);
    finish_publish(&mut short, 0, FLAG_TICK, 1).unwrap();
    assert!(frames(&short, 1).next().is_none());
    finish_publish(&mut out, 0, FLAG_CREATE, 1).unwrap();
    let Some(Frame::Publish(plain)) = frames(&out, 1).next() else { panic!("a publish") };
    assert_eq!(plain.tick, None, "the flag alone says that there is a condition");
}

#[test]
fn a_frame_says_how_long_its_events_wait_and_keeps_their_records() {
    let now = publish("app", &["app.a", "app.b"]);
    for wait in [Wait::Until(77), Wait::For(u64::MAX)] {
        let mut frame = now.clone();
        delay_publish(&mut frame, wait).unwrap();
        let Some(Frame::Publish(read)) = frames(&frame, 1).next() else { panic!("a publish") };
        assert_eq!((read.wait, read.flags), (Some(wait), FLAG_CREATE | FLAG_WAITS));
        assert_eq!((read.namespace, read.events), ("app", 2));
        let Some(Frame::Publish(before)) = frames(&now, 1).next() else { panic!("a publish") };
        assert_eq!((read.records, before.wait), (before.records, None));
        assert!(delay_publish(&mut frame, wait).is_err(), "it waits already");
        let cut = [&frame[..2], &[13, 0, 0, 0], &frame[6..19]].concat();
        assert!(frames(&cut, 1).next().is_none(), "the time is cut");
        let mut unknown = frame.clone();
        unknown[14] = 2;
        assert!(frames(&unknown, 1).next().is_none(), "no kind of a wait");
    }
    assert!(delay_publish(&mut command_frame(b"x").unwrap(), Wait::For(1)).is_err());
    assert!(delay_publish(&mut now[..9].to_vec(), Wait::For(1)).is_err());
}

#[test]
fn a_batch_frame_reads_back_and_frames_that_are_cut_or_too_many_are_seen() {
    let batch = Batch { owner: Owner { node: 3, incarnation: 9 }, number: 77, frames: 2 };
    let mut builder = EntryBuilder::new(0);
    builder.push(&batch_frame(batch));
    let mut two = publish("app", &["app.a"]);
    two.extend_from_slice(&command_frame(b"x").unwrap());
    builder.push_many(&two, 2);
    let bytes = builder.finish(1);
    let entry = Entry::parse(&bytes).unwrap();
    assert_eq!(entry.len(), 3);
    assert!(matches!(entry.frames().next(), Some(Frame::Batch(found)) if found == batch));
    let whole = |bytes, count| {
        let mut frames = frames(bytes, count);
        (frames.by_ref().count(), frames.intact())
    };
    assert_eq!(whole(&two, 2), (2, true));
    assert_eq!([whole(&two, 1), whole(&two, 3), whole(&two[..two.len() - 1], 2)], [(1, false), (2, false), (1, false)]);
}

#[test]
fn any_flipped_bit_is_seen() {
    let mut builder = EntryBuilder::new(0);
    builder.push(&publish("app", &["app.a"]));
    let bytes = builder.finish(1);
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(Entry::parse(&damaged).is_err(), "bit {at}");
    }
}
