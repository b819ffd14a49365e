//! Writes what a server says. Every function appends to a buffer, and allocates only when the buffer has to grow.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::error::ProtocolError;

/// Most digits of a number.
const DIGITS: usize = 20;
/// The first line of the headers that say that nobody was there to answer.
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503\r\nNats-Subject: ";
/// The end of the last header and of the block.
const HEADERS_END: &[u8] = b"\r\n\r\n";

/// A message on its way to one subscription.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The subject of the message.
    pub subject: &'a [u8],
    /// The name that the client gave the subscription.
    pub sid: &'a [u8],
    /// The subject that answers go to.
    pub reply: Option<&'a [u8]>,
    /// The header block. `None` makes a `MSG`: the caller leaves the block out for a client without headers.
    pub headers: Option<&'a [u8]>,
    /// What follows the headers.
    pub payload: &'a [u8],
}

/// Appends a `MSG` or `HMSG` with its payload.
pub fn message(out: &mut BytesMut, delivery: &Delivery<'_>) {
    message_line(out, delivery);
    out.extend_from_slice(delivery.headers.unwrap_or_default());
    out.extend_from_slice(delivery.payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line of a `MSG` or `HMSG` alone, for a caller that writes headers, payload and line end from where they
/// are.
pub fn message_line(out: &mut BytesMut, delivery: &Delivery<'_>) {
    let Delivery { subject, sid, reply, headers, payload } = *delivery;
    out.extend_from_slice(if headers.is_some() { b"HMSG " } else { b"MSG " });
    out.extend_from_slice(subject);
    out.put_u8(b' ');
    out.extend_from_slice(sid);
    if let Some(reply) = reply {
        out.put_u8(b' ');
        out.extend_from_slice(reply);
    }
    if let Some(headers) = headers {
        out.put_u8(b' ');
        number(out, headers.len());
    }
    out.put_u8(b' ');
    number(out, headers.unwrap_or_default().len().saturating_add(payload.len()));
    out.extend_from_slice(b"\r\n");
}

/// Appends the message that tells the publisher of a request that nobody got `subject`. It goes to one of the
/// publisher's own subscriptions on the reply subject, `sid`. nats-server 2.15 adds the header `Nats-Subject`; older
/// ones do not, and clients ignore it.
pub fn no_responders(out: &mut BytesMut, reply: &[u8], sid: &[u8], subject: &[u8]) {
    let size = NO_RESPONDERS.len().saturating_add(subject.len()).saturating_add(HEADERS_END.len());
    out.extend_from_slice(b"HMSG ");
    out.extend_from_slice(reply);
    out.put_u8(b' ');
    out.extend_from_slice(sid);
    for _ in 0..2 {
        out.put_u8(b' ');
        number(out, size);
    }
    for part in [b"\r\n", NO_RESPONDERS, subject, HEADERS_END, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends `INFO` with this JSON, as [`super::info::Info::json`] makes it.
pub fn info(out: &mut BytesMut, json: &[u8]) {
    for part in [b"INFO ", json, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends `PING`.
pub fn ping(out: &mut BytesMut) {
    out.extend_from_slice(b"PING\r\n");
}

/// Appends `PONG`.
pub fn pong(out: &mut BytesMut) {
    out.extend_from_slice(b"PONG\r\n");
}

/// Appends `+OK`, which clients in verbose mode get for each CONNECT, PUB, HPUB, SUB and UNSUB.
pub fn ok(out: &mut BytesMut) {
    out.extend_from_slice(b"+OK\r\n");
}

/// Appends `-ERR` with the text of an error. Control characters, which only names that a client sent can bring, become
/// `?`, so that the line stays one line.
pub fn error(out: &mut BytesMut, error: &ProtocolError) {
    out.extend_from_slice(b"-ERR '");
    let start = out.len();
    // Writing into a buffer that grows does not fail.
    if write!(out, "{error}").is_ok() {
        for byte in out.iter_mut().skip(start).filter(|byte| byte.is_ascii_control()) {
            *byte = b'?';
        }
    }
    out.extend_from_slice(b"'\r\n");
}

/// Appends a number in decimal digits, without the machinery of formatting: this runs twice for each message.
fn number(out: &mut BytesMut, mut number: usize) {
    let mut digits = [b'0'; DIGITS];
    let mut first = DIGITS;
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0'.wrapping_add(u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        first = at;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use bytestring::ByteString;

    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn numbers_are_written_as_decimal_digits() {
        for value in [0, 1, 9, 10, 99, 100, 1_048_576, usize::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
        }
    }

    #[test]
    fn messages_look_as_the_protocol_says() {
        let plain = Delivery { subject: b"FOO.BAR", sid: b"9", reply: None, headers: None, payload: b"Hello World" };
        assert_eq!(written(|out| message(out, &plain)), "MSG FOO.BAR 9 11\r\nHello World\r\n");
        let request = Delivery { reply: Some(b"GREETING.34"), ..plain };
        assert_eq!(written(|out| message(out, &request)), "MSG FOO.BAR 9 GREETING.34 11\r\nHello World\r\n");
        let block = b"NATS/1.0\r\nFoodGroup: vegetable\r\n\r\n";
        let with_headers = Delivery { headers: Some(block), reply: Some(b"BAZ.69"), ..plain };
        assert_eq!(
            written(|out| message(out, &with_headers)),
            "HMSG FOO.BAR 9 BAZ.69 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n"
        );
        let empty = Delivery { payload: b"", ..plain };
        assert_eq!(written(|out| message(out, &empty)), "MSG FOO.BAR 9 0\r\n\r\n");
        assert_eq!(written(|out| message_line(out, &with_headers)), "HMSG FOO.BAR 9 BAZ.69 34 45\r\n");
    }

    #[test]
    fn a_request_that_nobody_got_is_answered_with_503() {
        assert_eq!(
            written(|out| no_responders(out, b"r.1", b"5", b"no.one")),
            "HMSG r.1 5 38 38\r\nNATS/1.0 503\r\nNats-Subject: no.one\r\n\r\n\r\n"
        );
    }

    #[test]
    fn short_lines_end_with_a_line_end() {
        let all = written(|out| {
            ping(out);
            pong(out);
            ok(out);
            info(out, b"{}");
            error(out, &ProtocolError::StaleConnection);
        });
        assert_eq!(all, "PING\r\nPONG\r\n+OK\r\nINFO {}\r\n-ERR 'Stale Connection'\r\n");
    }

    #[test]
    fn a_name_in_an_error_cannot_end_the_line() {
        let subject = ByteString::from_static("a\r\nPING\r\n");
        assert_eq!(
            written(|out| error(out, &ProtocolError::PublishDenied { subject })),
            "-ERR 'Permissions Violation for Publish to \"a??PING??\"'\r\n"
        );
    }
}
