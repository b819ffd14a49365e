//! Random streams through the parser: cut anywhere, mutated, and made of words of the protocol.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::operation::{ClientOp, Publish, Subscribe, Unsubscribe};
use super::{SMALL, bytewise, feed, parser, whole};

/// Operations as bytes, with the freedom that the protocol leaves: the case of verbs, blanks, and line ends.
fn encode(operation: &ClientOp, style: u8, out: &mut Vec<u8>) {
    let verb = |verb: &str| if style & 1 == 0 { verb.to_owned() } else { verb.to_lowercase() };
    let blank: &[u8] = if style & 2 == 0 { b" " } else { b"\t  " };
    let line_end: &[u8] = if style & 4 == 0 { b"\r\n" } else { b" \n" };
    let mut line = |verb: String, fields: &[&[u8]]| {
        let parts: Vec<&[u8]> = std::iter::once(verb.as_bytes()).chain(fields.iter().copied()).collect();
        out.extend(parts.join(blank));
        out.extend(line_end);
    };
    match operation {
        ClientOp::Connect(json) => out.extend([b"CONNECT ", &json[..], b"\r\n"].concat()),
        ClientOp::Ping => line(verb("PING"), &[]),
        ClientOp::Pong => line(verb("PONG"), &[]),
        ClientOp::Subscribe(Subscribe { subject, queue, sid }) => match queue {
            Some(queue) => line(verb("SUB"), &[subject, queue, sid]),
            None => line(verb("SUB"), &[subject, sid]),
        },
        ClientOp::Unsubscribe(Unsubscribe { sid, max }) => match max {
            Some(max) => line(verb("UNSUB"), &[sid, max.to_string().as_bytes()]),
            None => line(verb("UNSUB"), &[sid]),
        },
        ClientOp::Publish(message) => {
            let (total, block) = (message.size().to_string(), message.headers.clone().unwrap_or_default());
            let size = block.len().to_string();
            let mut fields: Vec<&[u8]> = vec![&message.subject];
            fields.extend(message.reply.as_deref());
            let name = if block.is_empty() { "PUB" } else { "HPUB" };
            fields.extend((!block.is_empty()).then_some(size.as_bytes()));
            fields.push(total.as_bytes());
            line(verb(name), &fields);
            out.extend([&block[..], &message.payload[..], b"\r\n"].concat());
        }
    }
}

fn field() -> impl Strategy<Value = Bytes> {
    let text = prop_oneof!["[!-~]{1,12}".prop_map(String::into_bytes), "[a-z.*>]{1,6}".prop_map(String::into_bytes)];
    prop_oneof![4 => text, 1 => proptest::collection::vec(0x21_u8..=0xff, 1..9)].prop_map(Bytes::from)
}

fn content(most: usize) -> impl Strategy<Value = Bytes> {
    let any_bytes = proptest::collection::vec(any::<u8>(), 0..most);
    let line_ends = proptest::collection::vec(proptest::sample::select(b"\r\nPUB a1".to_vec()), 0..most);
    prop_oneof![any_bytes, line_ends].prop_map(Bytes::from)
}

fn operation() -> impl Strategy<Value = ClientOp> {
    let option = proptest::option::of::<BoxedStrategy<Bytes>>;
    let message = (field(), option(field().boxed()), option(content(40).boxed()), content(60)).prop_map(
        |(subject, reply, headers, payload)| {
            let headers = headers.filter(|block| !block.is_empty());
            ClientOp::Publish(Publish { subject, reply, headers, payload })
        },
    );
    let subscription = (field(), option(field().boxed()), field())
        .prop_map(|(subject, queue, sid)| ClientOp::Subscribe(Subscribe { subject, queue, sid }));
    let end = (field(), 0_u32..=999_999_999)
        .prop_map(|(sid, max)| ClientOp::Unsubscribe(Unsubscribe { sid, max: NonZeroU32::new(max) }));
    let connect = "\\{[ -~]{0,40}".prop_map(|json| ClientOp::Connect(Bytes::from(json)));
    prop_oneof![
        6 => message,
        2 => subscription,
        1 => end,
        1 => connect,
        1 => Just(ClientOp::Ping),
        1 => Just(ClientOp::Pong),
    ]
}

fn stream() -> impl Strategy<Value = (Vec<ClientOp>, Vec<u8>)> {
    proptest::collection::vec((operation(), 0_u8..8), 0..12).prop_map(|styled| {
        let mut bytes = Vec::new();
        for (operation, style) in &styled {
            encode(operation, *style, &mut bytes);
        }
        (styled.into_iter().map(|(operation, _)| operation).collect(), bytes)
    })
}

/// Cuts bytes into pieces of these sizes, again and again.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    #[test]
    fn operations_are_the_same_however_their_bytes_are_cut(
        (operations, bytes) in stream(),
        sizes in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let expected = (operations, None);
        prop_assert_eq!(&whole(SMALL, &bytes), &expected);
        prop_assert_eq!(&bytewise(SMALL, &bytes), &expected);
        prop_assert_eq!(&feed(parser(SMALL), cut(&bytes, &sizes)), &expected);
    }

    #[test]
    fn mutated_streams_end_the_same_however_they_are_cut(
        (_, mut bytes) in stream(),
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6),
        sizes in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        for (index, value, kind) in mutations {
            let at = index.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, value),
                1 => bytes.truncate(at),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
            }
        }
        let outcome = whole(SMALL, &bytes);
        prop_assert_eq!(&bytewise(SMALL, &bytes), &outcome);
        prop_assert_eq!(&feed(parser(SMALL), cut(&bytes, &sizes)), &outcome);
    }
}

/// The generator of Steele, Lea and Flood (SplitMix64): the same inputs on every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn random_words_of_the_protocol_never_panic_nor_fill_the_buffer() {
    let words: [&[u8]; 30] = [
        b"PUB",
        b"HPUB",
        b"SUB",
        b"UNSUB",
        b"PING",
        b"PONG",
        b"CONNECT",
        b"INFO",
        b"+OK",
        b"-ERR",
        b" ",
        b" ",
        b"\t",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"a",
        b"a.b",
        b"*",
        b"0",
        b"1",
        b"2",
        b"12",
        b"999999999",
        b"{}",
        b"NATS/1.0\r\n\r\n",
        b"\0",
        b"\xff",
    ];
    let (mut state, mut operations, mut errors) = (2026, 0, 0);
    for _ in 0..20_000 {
        let count = random(&mut state) % 24;
        let pick = |state: &mut u64| words[usize::try_from(random(state)).unwrap() % words.len()];
        let mut stream: Vec<u8> = b"PUB a 2\r\nhi\r\n"[..if count.is_multiple_of(2) { 13 } else { 0 }].to_vec();
        for _ in 0..count {
            stream.extend(pick(&mut state));
        }
        let sizes = [
            1 + usize::try_from(random(&mut state) % 30).unwrap(),
            1 + usize::try_from(random(&mut state) % 5).unwrap(),
        ];
        let outcome = whole(SMALL, &stream);
        assert_eq!(feed(parser(SMALL), cut(&stream, &sizes)), outcome, "{}", stream.escape_ascii());
        operations += outcome.0.len();
        errors += usize::from(outcome.1.is_some());
    }
    assert!(
        operations > 10_000 && errors > 5_000,
        "{operations} operations, {errors} errors: the words are badly chosen"
    );
}
