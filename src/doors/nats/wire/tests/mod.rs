//! The parser by examples. `random` has the same for streams that nobody wrote.

mod random;

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use super::error::ProtocolError;
use super::operation::{ClientOp, Publish, Subscribe, Unsubscribe};
use super::parser::{Limits, Parser};

/// What a parser made of a stream: the operations, and the error that ended the stream.
type Outcome = (Vec<ClientOp>, Option<ProtocolError>);

const SMALL: Limits = Limits { control_line: 64, payload: 100 };

fn parser(limits: Limits) -> Parser {
    let mut parser = Parser::new(limits);
    parser.allow_headers(true);
    parser
}

/// Feeds pieces as a socket would, and checks what the parser promises after each of them.
fn feed<'a>(mut parser: Parser, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut buf, mut operations) = (BytesMut::new(), Vec::new());
    let mut awaited = 1;
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match parser.next(&mut buf) {
                Ok(Some(operation)) => {
                    assert!(awaited <= piece.len(), "came before it was due");
                    operations.push(operation);
                    awaited = 0;
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(parser.next(&mut BytesMut::new()), Err(error.clone()), "an error is final");
                    assert!(error.closes());
                    return (operations, Some(error));
                }
            }
        }
        awaited = awaited.saturating_sub(piece.len()).max(parser.missing());
        assert!(parser.missing() >= 1);
        assert!(buf.len() <= parser.bytes_max(), "{} bytes are held", buf.len());
        assert!(buf.len() + parser.missing() <= parser.bytes_max() + 1, "more is awaited than allowed");
    }
    (operations, None)
}

fn whole(limits: Limits, stream: &[u8]) -> Outcome {
    feed(parser(limits), [stream])
}

fn bytewise(limits: Limits, stream: &[u8]) -> Outcome {
    feed(parser(limits), stream.chunks(1))
}

/// The outcome with the default limits, which must not depend on how the stream is cut.
fn read(stream: &[u8]) -> Outcome {
    let outcome = whole(Limits::default(), stream);
    assert_eq!(bytewise(Limits::default(), stream), outcome, "cut: {}", stream.escape_ascii());
    outcome
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn publish(subject: &'static str, payload: &'static str) -> Publish {
    Publish { subject: bytes(subject), reply: None, headers: None, payload: bytes(payload) }
}

fn subscribe(subject: &'static str, queue: Option<&'static str>, sid: &'static str) -> ClientOp {
    ClientOp::Subscribe(Subscribe { subject: bytes(subject), queue: queue.map(bytes), sid: bytes(sid) })
}

fn unsubscribe(sid: &'static str, max: u32) -> ClientOp {
    ClientOp::Unsubscribe(Unsubscribe { sid: bytes(sid), max: NonZeroU32::new(max) })
}

#[test]
fn every_operation_is_read() {
    let stream = b"CONNECT {\"verbose\":false}\r\nPING\r\nPONG\r\nSUB a.* 1\r\nSUB a.> workers x-2\r\nUNSUB 1\r\nUNSUB x-2 5\r\n\
        PUB a.b 5\r\nhello\r\nPUB a.b _INBOX.1 0\r\n\r\nHPUB FOO 22 33\r\nNATS/1.0\r\nBar: Baz\r\n\r\nHello NATS!\r\n\
        HPUB FOO r 22 22\r\nNATS/1.0\r\nBar: Baz\r\n\r\n\r\nHPUB a 0 2\r\nhi\r\n";
    let headers = Some(bytes("NATS/1.0\r\nBar: Baz\r\n\r\n"));
    let expected = vec![
        ClientOp::Connect(bytes("{\"verbose\":false}")),
        ClientOp::Ping,
        ClientOp::Pong,
        subscribe("a.*", None, "1"),
        subscribe("a.>", Some("workers"), "x-2"),
        unsubscribe("1", 0),
        unsubscribe("x-2", 5),
        ClientOp::Publish(publish("a.b", "hello")),
        ClientOp::Publish(Publish { reply: Some(bytes("_INBOX.1")), ..publish("a.b", "") }),
        ClientOp::Publish(Publish { headers: headers.clone(), ..publish("FOO", "Hello NATS!") }),
        ClientOp::Publish(Publish { reply: Some(bytes("r")), headers, ..publish("FOO", "") }),
        ClientOp::Publish(publish("a", "hi")),
    ];
    assert_eq!(read(stream), (expected.clone(), None));
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(feed(parser(SMALL), [left, right]), (expected.clone(), None), "cut at {at}");
    }
}

#[test]
fn verbs_have_any_case_and_fields_any_blanks() {
    let expected = vec![subscribe("a", None, "1"), ClientOp::Publish(publish("a", "hi")), ClientOp::Ping];
    for stream in [
        b"sub a 1\r\npub a 2\r\nhi\r\nping\r\n".as_slice(),
        b"SuB \t a\t\t1 \r\npUb\ta \t 2\t \r\nhi\r\nPiNg \r\n",
        // A line, but not a payload, may end with LF alone.
        b"SUB a 1\nPUB a 2\nhi\r\nPING\n",
        // What stands behind PING does not matter.
        b"SUB a 1\r\nPUB a 000000002\r\nhi\r\nPINGxyz 123\r\r\r\n",
    ] {
        assert_eq!(read(stream), (expected.clone(), None), "{}", stream.escape_ascii());
    }
    let connect = vec![ClientOp::Connect(bytes("{}"))];
    assert_eq!(read(b"connect{}\r\n"), (connect.clone(), None));
    assert_eq!(read(b"Connect \t {}\n"), (connect, None));
    assert_eq!(read(b"CONNECT\r\n"), (vec![ClientOp::Connect(Bytes::new())], None));
}

#[test]
fn payloads_may_have_any_bytes() {
    let (operations, error) = read(b"PUB a 8\r\n\r\n\0\xff\r\n\r\n\r\nPING\r\n");
    let payload = Bytes::from_static(b"\r\n\0\xff\r\n\r\n");
    assert_eq!(operations, [ClientOp::Publish(Publish { payload, ..publish("a", "") }), ClientOp::Ping]);
    assert_eq!(error, None);
}

#[test]
fn what_only_servers_say_is_skipped_or_ends_the_connection() {
    assert_eq!(read(b"+OK\r\n+ok anything\r\nINFO {}\r\ninfo{\"a\":1}\r\nPING\r\n"), (vec![ClientOp::Ping], None));
    for stream in [
        "-ERR 'x'\r\n",
        "-ERR\r\n",
        "INFO\r\n",
        "INFO x\r\n",
        "MSG a 1 2\r\nhi\r\n",
        "HMSG a 1 2 3\r\n",
        "RS+ a b\r\n",
        "A+ a\r\n",
    ] {
        assert_eq!(read(stream.as_bytes()), (vec![], Some(ProtocolError::UnknownOperation)), "{stream}");
    }
}

#[test]
fn a_number_of_deliveries_that_is_none_counts_as_absent() {
    for stream in ["UNSUB 1 0\r\n", "UNSUB 1 x\r\n", "UNSUB 1 -5\r\n", "UNSUB 1 9999999999\r\n"] {
        assert_eq!(read(stream.as_bytes()), (vec![unsubscribe("1", 0)], None), "{stream}");
    }
    assert_eq!(read(b"UNSUB 1 999999999\r\n").0, [unsubscribe("1", 999_999_999)]);
}

#[test]
fn what_is_no_operation_is_refused_without_waiting_for_the_line_end() {
    for stream in [
        b"F".as_slice(),
        b"\r",
        b"\n",
        b" PING\r\n",
        b"PUX",
        b"PUB\r",
        b"PUBa",
        b"SUB\n",
        b"UNSUBx",
        b"HPUX",
        b"-ERR'",
        b"GET / HTTP/1.1",
        b"\x16\x03\x01",
        b"\0",
        b"PIN\r\n",
    ] {
        assert_eq!(read(stream), (vec![], Some(ProtocolError::UnknownOperation)), "{}", stream.escape_ascii());
    }
    for stream in ["", "P", "p", "PUB", "PUB ", "pub\t", "HP", "CONN", "+", "-", "-ERR ", "PING anything"] {
        assert_eq!(read(stream.as_bytes()), (vec![], None), "{stream}");
    }
}

#[test]
fn bad_arguments_are_refused() {
    for stream in [
        "PUB \r\n",
        "PUB a\r\n",
        "PUB 2\r\n",
        "PUB a b c 2\r\n",
        "PUB a -1\r\n",
        "PUB a +2\r\n",
        "PUB a 2x\r\n",
        "PUB a 0x2\r\n",
        "PUB a 2 \r \r\n",
        "PUB a 2\r\r\n",
        "PUB a\rb 2\r\n",
        "PUB a 0000000002\r\n",
        "PUB a 9999999999\r\n",
        "PUB a 99999999999999999999\r\n",
        "HPUB a 2\r\n",
        "HPUB a b c 1 2\r\n",
        "HPUB a 3 2\r\n",
        "HPUB a -1 2\r\n",
        "HPUB a x 2\r\n",
        "HPUB a 1 x\r\n",
        "SUB \r\n",
        "SUB a\r\n",
        "SUB a b 1 x\r\n",
        "SUB a\rb 1\r\n",
        "UNSUB \r\n",
        "UNSUB 1 2 3\r\n",
    ] {
        assert_eq!(read(stream.as_bytes()), (vec![], Some(ProtocolError::UnknownOperation)), "{stream:?}");
    }
}

#[test]
fn a_payload_ends_with_a_line_end_and_nothing_else() {
    for stream in ["PUB a 2\r\nhix", "PUB a 2\r\nhi\n", "PUB a 2\r\nhi\rx", "PUB a 3\r\nhi\r\nP", "PUB a 0\r\nP"] {
        assert_eq!(read(stream.as_bytes()), (vec![], Some(ProtocolError::UnknownOperation)), "{stream:?}");
    }
}

#[test]
fn a_payload_that_is_too_large_is_refused_before_it_comes() {
    let limits = Limits { payload: 10, ..SMALL };
    for stream in ["PUB a 11\r\n", "PUB a 999999999\r\n", "HPUB a 4 11\r\n", "HPUB a 11 11\r\n"] {
        let expected = (vec![], Some(ProtocolError::PayloadTooLarge));
        assert_eq!(whole(limits, stream.as_bytes()), expected, "{stream:?}");
        assert_eq!(bytewise(limits, stream.as_bytes()), expected, "{stream:?}");
    }
    let fits = b"PUB a 10\r\n0123456789\r\n";
    assert_eq!(whole(limits, fits), (vec![ClientOp::Publish(publish("a", "0123456789"))], None));
}

#[test]
fn headers_are_refused_until_they_are_asked_for() {
    let mut parser = Parser::new(SMALL);
    let mut buf = BytesMut::from("CONNECT {}\r\nHPUB a 0 0\r\n\r\nHPUB a 0 0\r\n\r\n");
    assert!(matches!(parser.next(&mut buf), Ok(Some(ClientOp::Connect(_)))));
    parser.allow_headers(true);
    assert!(matches!(parser.next(&mut buf), Ok(Some(ClientOp::Publish(_)))));
    parser.allow_headers(false);
    assert_eq!(parser.next(&mut buf), Err(ProtocolError::HeadersNotSupported));
}

#[test]
fn a_line_is_refused_as_soon_as_it_is_too_long() {
    let limit = SMALL.control_line;
    let too_long = (vec![], Some(ProtocolError::ControlLineTooLong));
    for (start, end) in [("SUB ", " 1"), ("PUB ", " 2"), ("CONNECT ", "}"), ("PING", ""), ("UNSUB ", " 1"), ("+OK", "")]
    {
        // The limit is for the arguments, and the verb may take a few bytes more.
        let line = |bytes: usize| format!("{start}{}{end}", "a".repeat(bytes - end.len())).into_bytes();
        let fits = whole(SMALL, &[&line(limit), b"\r\n".as_slice()].concat());
        assert_ne!(fits.1, Some(ProtocolError::ControlLineTooLong), "{start}");
        let long = line(limit + 10);
        for stream in [long.clone(), [long, b"\r\n".to_vec()].concat()] {
            assert_eq!(
                (whole(SMALL, &stream), bytewise(SMALL, &stream)),
                (too_long.clone(), too_long.clone()),
                "{start}"
            );
        }
    }
    let blanks = [b"SUB".as_slice(), &[b' '; 1000]].concat();
    assert_eq!((whole(SMALL, &blanks), bytewise(SMALL, &blanks)), (too_long.clone(), too_long));
}

#[test]
fn the_parser_says_how_much_is_missing() {
    let mut parser = parser(Limits::default());
    let mut buf = BytesMut::from("PUB a 1000\r\nabc");
    assert_eq!(parser.next(&mut buf), Ok(None));
    assert_eq!((parser.missing(), buf.len()), (999, 15));
    buf.extend_from_slice(&[b'x'; 997]);
    assert_eq!(parser.next(&mut buf), Ok(None));
    assert_eq!(parser.missing(), 2);
    buf.extend_from_slice(b"\r\nPI");
    assert!(matches!(parser.next(&mut buf), Ok(Some(ClientOp::Publish(message))) if message.payload.len() == 1000));
    assert_eq!((parser.next(&mut buf), parser.missing(), &buf[..]), (Ok(None), 1, b"PI".as_slice()));
}

#[test]
fn messages_are_not_copied() {
    let mut buf = BytesMut::from("PUB a 5\r\nhello\r\nPUB b 5\r\nworld\r\n");
    let range = buf.as_ptr_range();
    let mut parser = parser(SMALL);
    while let Some(ClientOp::Publish(message)) = parser.next(&mut buf).unwrap() {
        assert!(range.contains(&message.payload.as_ptr()) && range.contains(&message.subject.as_ptr()));
    }
    assert!(buf.is_empty());
}

#[test]
fn a_subscription_does_not_hold_the_buffer() {
    let mut buf = BytesMut::from("SUB a q 1\r\nPING\r\n");
    let range = buf.as_ptr_range();
    let Ok(Some(ClientOp::Subscribe(subscription))) = parser(SMALL).next(&mut buf) else { panic!("no SUB was read") };
    let fields = [&subscription.subject, &subscription.sid, subscription.queue.as_ref().unwrap()];
    assert!(fields.iter().all(|field| !range.contains(&field.as_ptr())));
    assert_eq!(&buf[..], b"PING\r\n");
}

#[test]
fn a_parser_that_is_given_another_buffer_does_not_panic() {
    let mut parser = parser(SMALL);
    assert_eq!(parser.next(&mut BytesMut::from("PUB a 50\r\nabc")), Ok(None));
    assert_eq!(parser.next(&mut BytesMut::from("x")), Ok(None));
    assert!(parser.next(&mut BytesMut::from(&[b'x'; 200][..])).is_err());
}
