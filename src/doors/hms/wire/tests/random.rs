//! Random frames, cut anywhere, and random bytes.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::answer::Answer;
use super::super::decoder::{BodyTooLong, Decoder};
use super::super::frame::{Frame, FrameKind, HEADER_BYTES};
use super::super::handshake::{Handshake, HandshakeReply};
use super::super::message::Message;
use super::super::op::Op;
use super::super::payload::{ExitCode, encode_pid, parse_pid, parse_service};

const SMALL: u32 = 64;

fn frame() -> impl Strategy<Value = Frame> {
    let body = proptest::collection::vec(any::<u8>(), 0..=64).prop_map(Bytes::from);
    (prop_oneof![4 => 0_u8..5, 1 => any::<u8>()], any::<u16>(), body).prop_map(|(kind, id, body)| Frame {
        kind: kind.into(),
        id,
        body,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let payload = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let op = proptest::sample::select(Op::ALL.to_vec());
    (op, "[^@]{0,8}", proptest::option::of(".{0,8}"), payload).prop_map(|(op, id, origin, payload)| Message {
        op,
        id,
        origin,
        payload,
    })
}

fn encoded(frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out).unwrap());
    out
}

/// Feeds bytes in pieces of these sizes, again and again, and checks what the decoder promises after each of them.
fn decode(mut bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, Option<BodyTooLong>) {
    let (mut decoder, mut frames) = (Decoder::new(SMALL), Vec::new());
    for size in sizes.iter().cycle() {
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        bytes = rest;
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    decoder.feed(bytes);
                    assert_eq!((decoder.next_frame(), decoder.buffered()), (Err(error), 0), "an error is final");
                    return (frames, Some(error));
                }
            }
        }
        assert!(decoder.buffered() < HEADER_BYTES + usize::try_from(SMALL).unwrap(), "{} bytes", decoder.buffered());
        if rest.is_empty() {
            break;
        }
    }
    (frames, None)
}

proptest! {
    #[test]
    fn frames_are_the_same_however_their_bytes_are_cut(
        frames in proptest::collection::vec(frame(), 0..8),
        sizes in proptest::collection::vec(1_usize..90, 1..6),
    ) {
        let bytes = encoded(&frames);
        let expected = (frames, None);
        prop_assert_eq!(&decode(&bytes, &[usize::MAX]), &expected);
        prop_assert_eq!(&decode(&bytes, &[1]), &expected);
        prop_assert_eq!(&decode(&bytes, &sizes), &expected);
    }

    #[test]
    fn two_frames_are_the_same_at_every_cut(first in frame(), second in frame()) {
        let frames = vec![first, second];
        let bytes = encoded(&frames);
        for cut in 1..bytes.len() {
            prop_assert_eq!(decode(&bytes, &[cut, usize::MAX]), (frames.clone(), None));
        }
    }

    #[test]
    fn a_mutated_stream_ends_the_same_however_it_is_cut(
        frames in proptest::collection::vec(frame(), 1..6),
        mutations in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        sizes in proptest::collection::vec(1_usize..90, 1..6),
    ) {
        let mut bytes = encoded(&frames);
        for (index, value) in mutations {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let outcome = decode(&bytes, &[usize::MAX]);
        prop_assert_eq!(&decode(&bytes, &[1]), &outcome);
        prop_assert_eq!(&decode(&bytes, &sizes), &outcome);
    }

    #[test]
    fn a_message_is_read_as_it_was_written(message in message(), id in any::<u16>()) {
        let mut out = BytesMut::new();
        message.encode_request(id, &mut out).unwrap();
        message.encode_message(&mut out).unwrap();
        let mut decoder = Decoder::new(4096);
        decoder.feed(&out);
        for (kind, id) in [(FrameKind::Request, id), (FrameKind::Message, 0)] {
            let frame = decoder.next_frame().unwrap().unwrap();
            prop_assert_eq!((frame.kind, frame.id), (kind, id));
            prop_assert_eq!(&Message::parse(&frame.body), &Ok(message.clone()));
        }
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_message_is_cut_short_without_a_panic(message in message(), end in any::<Index>()) {
        let mut out = BytesMut::new();
        message.encode_message(&mut out).unwrap();
        let body = out.split_off(HEADER_BYTES).freeze();
        let end = end.index(body.len() + 1);
        prop_assert_eq!(Message::parse(&body.slice(..end)).is_ok(), end >= 3);
    }

    #[test]
    fn handshakes_pids_and_exit_codes_are_read_as_they_were_written(
        (id, tags, default) in ("[^\\pC]{1,20}", proptest::collection::vec(".{0,8}", 0..4), any::<bool>()),
        (version, name) in (".{0,8}", proptest::option::of(".{1,8}")),
        (pid, code) in (any::<Option<u32>>(), any::<i64>()),
    ) {
        let dock = Handshake::Dock { id, version: version.clone(), hostname: name.clone(), tags, default };
        let client = Handshake::Client { version: version.clone(), route: name };
        for handshake in [dock, client] {
            prop_assert_eq!(&Handshake::parse(&handshake.encode()), &Ok(handshake));
        }
        prop_assert_eq!(parse_pid(&encode_pid(pid)), Ok(pid));
        for code in [ExitCode::Number(code), ExitCode::Null, ExitCode::Text(version)] {
            prop_assert_eq!(&ExitCode::parse(&code.encode()), &Ok(code));
        }
    }
}

/// Random numbers that a seed reproduces: the generator of Steele, Lea and Flood (SplitMix64).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// Gives a body to everything that reads bodies.
fn read_all(frame: &Frame, read: &mut [usize; 4]) {
    if let Ok(message) = Message::parse(&frame.body) {
        read[0] += 1;
        read[1] += usize::from(Handshake::parse(&message.payload).is_ok());
        read[2] += usize::from(parse_service(message.op, &message.payload).is_ok_and(|service| service.is_some()));
        read[3] += usize::from(parse_pid(&message.payload).is_ok() || ExitCode::parse(&message.payload).is_ok());
    }
    drop(HandshakeReply::parse(&frame.body));
    for op in Op::ALL.map(Some).into_iter().chain([None]) {
        drop(Answer::parse(op, frame.kind, &frame.body));
    }
}

/// Frames of pieces of the protocol in a random order, one byte of which may be any other.
fn rubbish(random: &mut SplitMix64) -> Vec<u8> {
    let pieces: [&[u8]; 16] = [
        b"\0\0\0",
        b"\x01\x02\0a@",
        b"\x0e\x01\0a",
        b"\x0f\xff\xffa",
        b"{",
        b"}",
        b"\"type\":\"client\"",
        b",",
        b"\"protocol\":1",
        b"[",
        b"]",
        b"\xff",
        b"null",
        b"42",
        b"{\"type\":\"dock\",\"id\":7,\"protocol\":1.0}",
        b"{\"start\":\"x\"}",
    ];
    let mut bytes = BytesMut::new();
    for _ in 0..random.below(6) {
        let start = pieces[random.below(6)].iter().copied();
        let body: Vec<u8> =
            start.chain((0..random.below(5)).flat_map(|_| pieces[random.below(pieces.len())].to_vec())).collect();
        let kind = FrameKind::from(u8::try_from(random.below(6)).unwrap());
        Frame { kind, id: 1, body: body.into() }.encode(&mut bytes).unwrap();
    }
    let at = random.below(bytes.len() + 8);
    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = 0xff);
    bytes.to_vec()
}

#[test]
fn rubbish_never_panics_and_is_read_the_same_however_it_is_cut() {
    let given = std::env::var("ROLLBOOK_SEED").ok().map(|seed| seed.parse().unwrap());
    let (first, count) = given.map_or((0, 400_u64), |seed: u64| (seed, 1));
    let (mut read, mut errors, begun) = ([0; 4], 0, Instant::now());
    for seed in first..first + count {
        println!("ROLLBOOK_SEED={seed}");
        let mut random = SplitMix64(seed);
        for _ in 0..50 {
            let bytes = rubbish(&mut random);
            let outcome = decode(&bytes, &[1 + random.below(40), 1 + random.below(5)]);
            assert_eq!(decode(&bytes, &[usize::MAX]), outcome);
            outcome.0.iter().for_each(|frame| read_all(frame, &mut read));
            errors += usize::from(outcome.1.is_some());
        }
    }
    println!("{count} seeds in {:?}: {read:?} read, {errors} errors", begun.elapsed());
    if given.is_none() {
        assert!(
            read.iter().all(|count| *count > 100) && errors > 100,
            "{read:?} {errors}: the pieces are badly chosen"
        );
    }
}
