//! Requests and frames that no client should send, and handshakes that lead to nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::clients::{Line, SOCKET_IO};
use super::{At, BOUND, told};
use crate::harness::http::Http;
use crate::harness::{Rng, ms};

/// The headers of an upgrade, and the end of the head.
const UPGRADE: &str = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// Request lines of upgrades to the web listener that are refused, with an answer.
const UPGRADES: [&str; 5] = [
    "GET /socket.io/?EIO=4&transport=websocket&sid=unknown HTTP/1.1\r\n",
    "GET /socket.io/?EIO=4&transport=websocket&sid=n1.unknown HTTP/1.1\r\n",
    "GET /socket.io/?EIO=4&transport=websocket&sid=n3.unknown HTTP/1.1\r\n",
    "GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\n",
    "GET /socket.io/?EIO=4&transport=pigeon HTTP/1.1\r\n",
];
/// Requests to the web listener that are refused, with an answer.
const WEB: [&str; 5] = [
    "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /socket.io/?EIO=4&transport=polling&sid=n2.unknown HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /api/namespaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{bad}",
    "GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NONSENSE\r\n\r\n",
];
/// Requests to the event log that are refused, with an answer.
const LOG: [&str; 5] = [
    "GET /?subject=soak..x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /?subject=soak.x&ack=perhaps HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{",
    "NONSENSE\r\n\r\n",
];
/// What begins like a request and does not go on.
const CUT_OFF: [&str; 3] = [
    "GET /?subject=soak.x HTTP/1.1\r\nHost: loc",
    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"subject\":\"so",
    "P",
];
/// First texts that no door for sockets takes.
const TEXTS: [&str; 6] = ["{", "[]", "4abc", "42{}", "451-[\"x\"]", "{\"name\":7}"];
/// Without a mask, an opcode that there is not, reserved bits, a length that is too much, half a frame.
const FRAMES: [&[u8]; 5] = [
    &[0x81, 0x01, 0x61],
    &[0x8b, 0x80, 0, 0, 0, 0],
    &[0xf1, 0x80, 0, 0, 0, 0],
    &[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x81, 0xfe, 0x01],
];
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn any<'a, T: ?Sized>(rng: &mut Rng, of: &[&'a T]) -> &'a T {
    of[usize::try_from(rng.pick(0, of.len() as u64)).unwrap_or(0)]
}

/// A request that is refused, or that does not go on.
pub(super) fn request(rng: &mut Rng, at: At) -> Result<(), String> {
    match rng.pick(0, 4) {
        0 => refused(at.web, &format!("{}{UPGRADE}", any(rng, &UPGRADES))),
        1 => refused(at.web, any(rng, &WEB)),
        2 => refused(at.log, any(rng, &LOG)),
        _ => {
            let to = if rng.pick(0, 2) == 0 { at.web } else { at.log };
            let tcp = said(to, any(rng, &CUT_OFF))?;
            std::thread::sleep(ms(rng.pick(0, 300)));
            drop(tcp);
            Ok(())
        }
    }
}

fn said(to: SocketAddr, text: &str) -> Result<TcpStream, String> {
    let mut tcp = TcpStream::connect_timeout(&to, BOUND).map_err(told)?;
    tcp.set_read_timeout(Some(BOUND)).map_err(told)?;
    tcp.write_all(text.as_bytes()).map_err(told)?;
    Ok(tcp)
}

/// Whatever the answer says: there must be one.
fn refused(to: SocketAddr, text: &str) -> Result<(), String> {
    let mut first = [0; 1];
    said(to, text)?.read_exact(&mut first).map_err(told)
}

/// A connection whose first frame ends it, or is not whole.
pub(super) fn frame(rng: &mut Rng, at: At) -> Result<(), String> {
    let mut line = Line::open(at.web, any(rng, &["/ws", SOCKET_IO]))?;
    if rng.pick(0, 2) == 0 {
        line.send(any(rng, &TEXTS).to_owned())?;
    } else {
        line.send_raw(any(rng, &FRAMES))?;
    }
    // The greeting, a farewell, and then the end; or nothing more.
    while let Ok(Some(_)) = line.next(ms(300)) {}
    Ok(())
}

/// A Socket.IO client that begins with polling and leaves without a word, at any step of its way to a WebSocket at
/// perhaps another node.
pub(super) fn polling(rng: &mut Rng, here: At, there: At) -> Result<(), String> {
    let mut http = Http::connect_within(here.web, BOUND).map_err(told)?;
    let open = http.try_request("GET", POLLING, &[], b"").map_err(told)?;
    let handshake: Value = serde_json::from_str(open.text().get(1..).unwrap_or_default()).map_err(told)?;
    let sid = handshake["sid"].as_str().ok_or("a handshake without a sid")?;
    let steps = rng.pick(0, 4);
    if steps == 0 {
        return Ok(());
    }
    let headers = [("Content-Type", "text/plain;charset=UTF-8")];
    let joined = http.try_request("POST", &format!("{POLLING}&sid={sid}"), &headers, b"40").map_err(told)?;
    if joined.status != 200 {
        return Err(format!("status {}: {}", joined.status, joined.text()));
    }
    if steps == 1 {
        return Ok(());
    }
    let mut line = Line::open(there.web, &format!("{SOCKET_IO}&sid={sid}"))?;
    line.send("2probe".to_owned())?;
    let probed = line.next(BOUND)?.ok_or("no answer to a probe")?;
    if probed != "3probe" {
        return Err(probed);
    }
    if steps == 3 {
        line.send("5".to_owned())?;
        // The answer to the first join waits for this.
        line.next(BOUND)?.ok_or("nothing after an upgrade")?;
    }
    Ok(())
}
