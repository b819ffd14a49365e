//! The framing of RFC 6455, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::SOON;
use crate::harness::node::{Node, Options};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Upgrades a connection and reads past the first frame.
pub(super) fn upgrade(tcp: &mut TcpStream) {
    tcp.set_read_timeout(Some(SOON)).expect("an option");
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tcp.write_all(request.as_bytes()).expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let mut start = [0; 2];
    tcp.read_exact(&mut start).expect("the first frame");
    assert!(start[0] == FIN | TEXT && start[1] < 126, "connect is short: {start:?}");
    tcp.read_exact(&mut vec![0; start[1].into()]).expect("the first frame");
}

/// A frame as a client masks it.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

pub(super) fn send(tcp: &mut TcpStream, first: u8, payload: &[u8]) {
    // What ends the connection may come while more is written.
    drop(tcp.write_all(&frame(first, payload)));
}

pub(super) fn send_text(tcp: &mut TcpStream, text: &str) {
    send(tcp, FIN | TEXT, text.as_bytes());
}

/// Frames of the server until the connection ends: opcode and payload.
pub(super) fn read_to_end(tcp: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    // A reset behind the last byte is an end too.
    drop(tcp.read_to_end(&mut bytes));
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 2 {
        assert_eq!(rest[0] & 0x70, 0, "no reserved bits");
        assert_eq!(rest[1] & 0x80, 0, "a server does not mask");
        let (length, header) = match rest[1] {
            126 => (u16::from_be_bytes([rest[2], rest[3]]).into(), 4),
            127 => (u64::from_be_bytes(rest[2..10].try_into().expect("eight bytes")) as usize, 10),
            short => (short.into(), 2),
        };
        if rest.len() < header + length {
            break;
        }
        frames.push((rest[0] & 0x0f, rest[header..header + length].to_vec()));
        rest = &rest[header + length..];
    }
    frames
}

/// The code of the close frame among them.
pub(super) fn close_code(frames: &[(u8, Vec<u8>)]) -> Option<u16> {
    let (_, payload) = frames.iter().find(|(opcode, _)| *opcode == CLOSE)?;
    payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))
}

/// What a case expects of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// It is one ping frame of this door, and is answered.
    Pong,
    /// A pong of the protocol with this payload length.
    Reply(usize),
    /// The connection ends with this code.
    Close(u16),
    /// It ends with a farewell without a code.
    CloseEmpty,
}
use Expect::{Close, CloseEmpty, Pong, Reply};

/// A ping of this door, and a document around it that is as long as wanted.
const HELLO: &[u8] = br#"{"type":"ping"}"#;

fn padded(length: usize) -> Vec<u8> {
    let empty = br#"{"type":"ping","x":""}"#.len();
    format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(length - empty)).into_bytes()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [code.to_be_bytes().as_slice(), reason].concat()
}

fn raw(header: &[u8], rest: &[u8]) -> Vec<u8> {
    [header, rest].concat()
}

type Case = (&'static str, Vec<Vec<u8>>, Expect);

fn good_frames() -> Vec<Case> {
    let text = |payload: &[u8]| frame(FIN | TEXT, payload);
    let mut cases = vec![
        ("a text", vec![text(HELLO)], Pong),
        ("two fragments", vec![frame(TEXT, &HELLO[..5]), frame(FIN | CONTINUATION, &HELLO[5..])], Pong),
        ("an empty first fragment", vec![frame(TEXT, b""), frame(FIN | CONTINUATION, HELLO)], Pong),
        ("an empty last fragment", vec![frame(TEXT, HELLO), frame(FIN | CONTINUATION, b"")], Pong),
        (
            "an empty fragment in the middle",
            vec![frame(TEXT, HELLO), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b"")],
            Pong,
        ),
        ("a ping", vec![frame(FIN | PING, b"")], Reply(0)),
        ("a ping with a payload", vec![frame(FIN | PING, b"hello")], Reply(5)),
        ("a ping with bytes that are no text", vec![frame(FIN | PING, &[0, 0xff, 0xfe])], Reply(3)),
        ("the longest ping", vec![frame(FIN | PING, &[b'p'; 125])], Reply(125)),
        ("a pong that nobody asked for", vec![frame(FIN | PONG, b"x"), text(HELLO)], Pong),
        (
            "a ping between fragments",
            vec![frame(TEXT, &HELLO[..3]), frame(FIN | PING, b"ab"), frame(FIN | CONTINUATION, &HELLO[3..])],
            Reply(2),
        ),
        (
            "a message around a ping",
            vec![frame(TEXT, &HELLO[..3]), frame(FIN | PING, b""), frame(FIN | CONTINUATION, &HELLO[3..])],
            Pong,
        ),
        (
            "a message around a pong",
            vec![frame(TEXT, &HELLO[..3]), frame(FIN | PONG, b""), frame(FIN | CONTINUATION, &HELLO[3..])],
            Pong,
        ),
        ("two messages in one write", vec![[frame(FIN | PONG, b""), text(HELLO)].concat()], Pong),
        ("a character cut by fragments", cut_character(), Pong),
        ("text of all planes", vec![text("{\"type\":\"ping\",\"x\":\"κόσμε 😀 \u{10ffff}\"}".as_bytes())], Pong),
        ("a length of two bytes where one would do", vec![long_header(126, HELLO)], Pong),
        ("a length of eight bytes where one would do", vec![long_header(127, HELLO)], Pong),
        ("one byte in each write", text(HELLO).into_iter().map(|byte| vec![byte]).collect(), Pong),
        ("a mask of zeros", vec![raw(&[FIN | TEXT, 0x80 | HELLO.len() as u8, 0, 0, 0, 0], HELLO)], Pong),
    ];
    for length in [125, 126, 127, 128, 65_535, 65_536, 65_537] {
        cases.push(("a length at a boundary", vec![text(&padded(length))], Pong));
    }
    cases.push(("the longest message", vec![text(&padded(1 << 20))], Pong));
    cases.push(("fragments of one byte", one_byte_fragments(), Pong));
    cases
}

fn one_byte_fragments() -> Vec<Vec<u8>> {
    let last = HELLO.len() - 1;
    let first = |at: usize| if at == 0 { TEXT } else { CONTINUATION } | if at == last { FIN } else { 0 };
    HELLO.iter().enumerate().map(|(at, byte)| frame(first(at), &[*byte])).collect()
}

fn cut_character() -> Vec<Vec<u8>> {
    let text = "{\"type\":\"ping\",\"x\":\"€\"}".as_bytes();
    let at = text.iter().position(|byte| *byte == 0xe2).expect("it is there") + 1;
    vec![frame(TEXT, &text[..at]), frame(FIN | CONTINUATION, &text[at..])]
}

fn long_header(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![FIN | TEXT, 0x80 | kind];
    match kind {
        126 => out.extend((payload.len() as u16).to_be_bytes()),
        _ => out.extend((payload.len() as u64).to_be_bytes()),
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

fn bad_frames() -> Vec<Case> {
    let mut cases = vec![
        ("no mask", vec![raw(&[FIN | TEXT, HELLO.len() as u8], HELLO)], Close(1002)),
        ("a ping without a mask", vec![vec![FIN | PING, 0]], Close(1002)),
        ("a continuation of nothing", vec![frame(FIN | CONTINUATION, HELLO)], Close(1002)),
        ("a first continuation of nothing", vec![frame(CONTINUATION, HELLO)], Close(1002)),
        (
            "a continuation behind the last",
            vec![frame(TEXT, HELLO), frame(FIN | CONTINUATION, b""), frame(FIN | CONTINUATION, b"")],
            Close(1002),
        ),
        ("a text in a text", vec![frame(TEXT, b"{"), frame(FIN | TEXT, HELLO)], Close(1002)),
        ("a fragment of text in a text", vec![frame(TEXT, b"{"), frame(TEXT, HELLO)], Close(1002)),
        ("a binary frame in a text", vec![frame(TEXT, b"{"), frame(FIN | BINARY, b"x")], Close(1002)),
        ("a fragment of a ping", vec![frame(PING, b"")], Close(1002)),
        ("a fragment of a pong", vec![frame(PONG, b"")], Close(1002)),
        ("a fragment of a close", vec![frame(CLOSE, &close(1000, b""))], Close(1002)),
        ("a ping that is too long", vec![frame(FIN | PING, &[b'p'; 126])], Close(1009)),
        ("a close that is too long", vec![frame(FIN | CLOSE, &close(1000, &[b'r'; 124]))], Close(1009)),
        ("a binary message", vec![frame(FIN | BINARY, b"x")], Close(1003)),
        ("binary fragments", vec![frame(BINARY, b"x"), frame(FIN | CONTINUATION, b"y")], Close(1003)),
        ("one byte too many", vec![frame(FIN | TEXT, &padded((1 << 20) + 1))], Close(1009)),
        ("a negative length", vec![raw(&[FIN | TEXT, 0xff], &[0xff; 12])], Close(1009)),
        ("a good message before a bad one", vec![[frame(FIN | TEXT, HELLO), vec![0xf1, 0x80]].concat()], Pong),
    ];
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        cases.push(("a reserved bit", vec![frame(FIN | TEXT | reserved, HELLO)], Close(1002)));
        cases.push(("a reserved bit of a ping", vec![frame(FIN | PING | reserved, b"")], Close(1002)));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        cases.push(("a reserved opcode", vec![frame(FIN | opcode, b"")], Close(1002)));
    }
    let invalid: [&[u8]; 8] = [
        b"\xff",
        b"\xc0\xaf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
        b"{\"x\":\"\xce\"}",
    ];
    for bytes in invalid {
        cases.push(("no UTF-8", vec![frame(FIN | TEXT, bytes)], Close(1007)));
    }
    cases.push(("no UTF-8 in fragments", vec![frame(TEXT, b"{"), frame(FIN | CONTINUATION, b"\xff}")], Close(1007)));
    cases
}

fn farewells() -> Vec<Case> {
    let mut cases = vec![
        ("a farewell without a code", vec![frame(FIN | CLOSE, b"")], CloseEmpty),
        ("a farewell of one byte", vec![frame(FIN | CLOSE, b"\x03")], Close(1002)),
        ("a farewell with a reason", vec![frame(FIN | CLOSE, &close(1000, b"bye"))], Close(1000)),
        ("the longest reason", vec![frame(FIN | CLOSE, &close(1000, &[b'r'; 123]))], Close(1000)),
        ("a reason that is no UTF-8", vec![frame(FIN | CLOSE, &close(1000, b"\xff\xfe"))], Close(1002)),
        (
            "what comes behind a farewell",
            vec![[frame(FIN | CLOSE, &close(1000, b"")), frame(FIN | PING, b"")].concat()],
            Close(1000),
        ),
        ("a farewell between fragments", vec![frame(TEXT, b"{"), frame(FIN | CLOSE, &close(1000, b""))], Close(1000)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(("a code that may be sent", vec![frame(FIN | CLOSE, &close(code, b""))], Close(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(("a code that may not be sent", vec![frame(FIN | CLOSE, &close(code, b""))], Close(1002)));
    }
    cases
}

/// Whether the server does what is expected, or what it does.
fn holds(frames: &[(u8, Vec<u8>)], expected: Expect) -> bool {
    let door = |(opcode, payload): &(u8, Vec<u8>)| *opcode == TEXT && payload == br#"{"type":"pong"}"#;
    match expected {
        Pong => frames.iter().any(door),
        Reply(length) => frames.iter().any(|(opcode, payload)| *opcode == PONG && payload.len() == length),
        Close(code) => close_code(frames) == Some(code),
        CloseEmpty => frames.iter().any(|(opcode, payload)| *opcode == CLOSE && payload.is_empty()),
    }
}

/// What is wrong with a case.
fn failure(node: &Node, (name, writes, expected): &Case) -> Option<String> {
    let mut tcp = TcpStream::connect(node.web).expect("a connection");
    tcp.set_nodelay(true).expect("an option");
    upgrade(&mut tcp);
    for bytes in writes {
        drop(tcp.write_all(bytes));
    }
    if matches!(expected, Pong | Reply(_)) {
        // The end of it, so that all frames can be read.
        drop(tcp.write_all(&frame(FIN | CLOSE, &close(1000, b""))));
    }
    let frames = read_to_end(&mut tcp);
    (!holds(&frames, *expected)).then(|| format!("{name}: expected {expected:?}, got {frames:?}"))
}

#[test]
fn every_case_of_the_framing_is_as_the_standard_says() {
    let node = Node::start(&Options::new());
    let cases: Vec<Case> = [good_frames(), bad_frames(), farewells()].concat();
    assert!(cases.len() >= 60, "{}", cases.len());
    // Side by side: a connection that was told farewell and does not answer stays for a while.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| scope.spawn(|| failure(&node, case))).collect();
        running.into_iter().filter_map(|case| case.join().expect("no panic")).collect()
    });
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
