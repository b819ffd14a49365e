//! The bytes of a request head: where it ends, what is repaired before it is parsed, and why it is refused. Pure.

use std::borrow::Cow;

use actix_http::error::ParseError;
use memchr::{memchr, memchr_iter, memrchr};

/// Longest head of a request, bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of a request that the parser accepts.
const HEADERS_MAX: usize = 96;

/// Why a request reaches no application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// HTTP status of the answer.
    pub status: u16,
    /// What is wrong, and what would be right.
    pub text: Cow<'static, str>,
}

impl Fault {
    /// A fault with this status and text.
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into() }
    }
}

/// The length of a head that ends with an empty line, searched from `from` on. `None` when more bytes must come.
#[must_use]
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    memchr_iter(b'\n', tail).find_map(|at| match tail.get(at.saturating_add(1)..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Why the first bytes can never become a request of HTTP/1, whatever follows.
#[must_use]
pub fn hopeless(bytes: &[u8]) -> Option<Fault> {
    if bytes.first() == Some(&0x16) {
        return Some(Fault::new(400, "this port speaks HTTP without TLS: write http:// instead of https://"));
    }
    if bytes.starts_with(b"PRI * HTTP/2") {
        return Some(Fault::new(505, "this port speaks HTTP/1.1, not HTTP/2"));
    }
    if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\0\r\nQUIT\n") {
        let text = "this connection begins with a PROXY header and its sender is not believed: list the address of the \
                    load balancer in sse.proxy_protocol_from and web.proxy_protocol_from";
        return Some(Fault::new(400, text));
    }
    let known = |byte: &u8| byte.is_ascii_graphic();
    let first = bytes.first().filter(|byte| !known(byte))?;
    Some(Fault::new(400, format!("this is not HTTP: a request does not begin with byte {first:#04x}")))
}

/// Percent-encodes the bytes of a target that a URL may not have but people type: `>`, `"`, `|`, a blank, letters that
/// are not ASCII. `None` when there are none. The meaning stays the same, because every reader decodes the target, and
/// nothing else changes, so the request ends at the same place.
///
/// # Errors
/// The first line is none of a request.
pub fn mended(head: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let wrong =
        || Fault::new(400, "the first line is not METHOD TARGET HTTP/1.1, as in: GET /?subject=app.orders HTTP/1.1");
    let line = memchr(b'\n', head).and_then(|end| head.get(..end)).ok_or_else(wrong)?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (before, behind) = (memchr(b' ', line).ok_or_else(wrong)?, memrchr(b' ', line).ok_or_else(wrong)?);
    let target = line.get(before.saturating_add(1)..behind).filter(|target| !target.is_empty()).ok_or_else(wrong)?;
    if let Some(control) = target.iter().find(|byte| byte.is_ascii_control()) {
        return Err(Fault::new(
            400,
            format!("the target has the control character {control:#04x}: write it as %{control:02X}"),
        ));
    }
    if !target.iter().any(|byte| is_typed(*byte)) {
        return Ok(None);
    }
    // Two versions in one line are parsed differently by different programs.
    if memchr::memmem::find(target, b" HTTP/").is_some() {
        return Err(wrong());
    }
    let mut out = Vec::with_capacity(head.len().saturating_add(64));
    out.extend_from_slice(head.get(..=before).unwrap_or_default());
    for &byte in target {
        if is_typed(byte) {
            let digit = |value: u8| {
                char::from_digit(u32::from(value), 16)
                    .map_or(b'0', |digit| u8::try_from(digit.to_ascii_uppercase()).unwrap_or(b'0'))
            };
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        } else {
            out.push(byte);
        }
    }
    out.extend_from_slice(head.get(behind..).unwrap_or_default());
    Ok(Some(out))
}

/// Whether a byte has no place in a target but is typed by people.
const fn is_typed(byte: u8) -> bool {
    matches!(byte, b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

/// Removes a request for another protocol from a head, except for a WebSocket when `websockets` are supported: a server
/// may ignore such a request. The head keeps its length.
pub fn stay(head: &mut [u8], websockets: bool) {
    let wished = header(head, b"upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if websockets && wished && head.starts_with(b"GET ") {
        return;
    }
    let mut at = memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    while let Some(length) = head.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let line = head.get_mut(at..at + length).unwrap_or_default();
        at += length + 1;
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_mut(colon);
        if name.eq_ignore_ascii_case(b"upgrade") {
            name.copy_from_slice(b"x-asked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split_mut(|byte| matches!(byte, b':' | b',' | b' ' | b'\t' | b'\r')) {
                if option.eq_ignore_ascii_case(b"upgrade") {
                    option.copy_from_slice(b"x-asked");
                }
            }
        }
    }
}

/// The lines of a head behind the first one, as names and values.
fn headers(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = memchr(b':', line)?;
        Some((line.get(..colon)?, line.get(colon + 1..)?.trim_ascii()))
    })
}

fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    headers(head).find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value))
}

/// Explains an error of the parser.
#[must_use]
pub fn explain(head: &[u8], error: &ParseError) -> Fault {
    match error {
        ParseError::TooLarge => {
            Fault::new(431, format!("more than {HEADERS_MAX} headers, or more than {HEAD_BYTES_MAX} bytes of them"))
        }
        ParseError::Method => {
            Fault::new(400, "the method of the request is none: write GET, POST, PUT, DELETE, HEAD or OPTIONS")
        }
        ParseError::Uri(error) => Fault::new(400, format!("the target of the request is no path of a URL: {error}")),
        ParseError::Version => Fault::new(505, "the request is not of version HTTP/1.0 or HTTP/1.1"),
        _ => Fault::new(400, explain_headers(head)),
    }
}

fn explain_headers(head: &[u8]) -> Cow<'static, str> {
    let count = |name: &[u8]| headers(head).filter(|(own, _)| own.eq_ignore_ascii_case(name)).count();
    let (lengths, codings) = (count(b"content-length"), count(b"transfer-encoding"));
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let old = first.ends_with(b"HTTP/1.0");
    let digits = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if let Some(line) = head.split(|byte| *byte == b'\n').skip(1).find(|line| is_odd(line)) {
        let line = line.get(..line.len().min(60)).unwrap_or_default();
        return format!("a header is not NAME: VALUE: {}", line.trim_ascii_end().escape_ascii()).into();
    }
    if !(first.ends_with(b"HTTP/1.1") || old) {
        "the first line is not METHOD TARGET HTTP/1.1, as in: GET /?subject=app.orders HTTP/1.1".into()
    } else if !old && count(b"host") != 1 {
        "a request of HTTP/1.1 has exactly one header Host, as in: Host: localhost".into()
    } else if lengths > 1 || codings > 1 || (lengths > 0 && codings > 0) {
        "the length of the body is said twice: send one Content-Length, or Transfer-Encoding: chunked".into()
    } else if codings > 0 {
        "the only Transfer-Encoding is chunked, in a request of HTTP/1.1".into()
    } else if header(head, b"content-length").is_some_and(|value| !digits(value)) {
        "Content-Length is not a number of bytes".into()
    } else if old && lengths == 0 && first.starts_with(b"POST") {
        "a POST of HTTP/1.0 needs a Content-Length".into()
    } else {
        "a header cannot be read: a value has control characters, or a number that is too large".into()
    }
}

/// Whether a line is neither a header nor the end of the head.
fn is_odd(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let name = memchr(b':', line).and_then(|colon| line.get(..colon));
    !line.is_empty() && !name.is_some_and(|name| !name.is_empty() && name.iter().all(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(line: &[u8]) -> String {
        let head = [line, b" HTTP/1.1\r\nHost: x\r\nX-Raw: a>b\r\n\r\n"].concat();
        let out = mended(&head).map(|out| out.unwrap_or(head));
        match out {
            Ok(out) => {
                let text = String::from_utf8(out).unwrap();
                text.strip_suffix(" HTTP/1.1\r\nHost: x\r\nX-Raw: a>b\r\n\r\n").unwrap().to_owned()
            }
            Err(fault) => format!("{} {}", fault.status, fault.text),
        }
    }

    #[test]
    fn a_head_ends_with_an_empty_line_wherever_it_was_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..head.len() {
            let ended = end(&head[..cut], 0);
            assert_eq!(ended, (cut >= 27).then_some(27), "{cut}");
            // As it is looked for while it comes.
            let seen = cut.saturating_sub(3);
            assert_eq!(end(head, seen.min(24)), Some(27));
        }
        assert_eq!(end(b"GET / HTTP/1.1\nHost: x\n\nrest", 0), Some(24));
        assert_eq!(end(b"\n\r", 0), None);
    }

    #[test]
    fn what_people_type_into_a_target_is_encoded_and_nothing_else_changes() {
        for (line, want) in [
            (&b"GET /?subject=app.>"[..], "GET /?subject=app.%3E"),
            (b"GET /?subject=app.>&start=oldest", "GET /?subject=app.%3E&start=oldest"),
            (b"GET /?a=\"b\"|c^d`e{f}g\\h<i", "GET /?a=%22b%22%7Cc%5Ed%60e%7Bf%7Dg%5Ch%3Ci"),
            ("GET /?subject=app.é".as_bytes(), "GET /?subject=app.%C3%A9"),
            (b"GET /?subject=a.b c", "GET /?subject=a.b%20c"),
            (b"GET /a%3Eb?x=%zz*'()", "GET /a%3Eb?x=%zz*'()"),
            (b"GET /\xff", "GET /%FF"),
        ] {
            assert_eq!(mend(line), want, "{}", line.escape_ascii());
        }
        for line in ["GET", "GET ", "", "GET /a HTTP/1.1 x", "GET /a HTTP/1.1\r GET /b", "GET /a\tb"] {
            assert!(mend(line.as_bytes()).starts_with("400 "), "{line:?}: {}", mend(line.as_bytes()));
        }
        assert!(mend(b"GET /a HTTP/1.1 /b").starts_with("400 the first line"), "two versions in a line");
        assert!(mend(b"GET /a\x00b").contains("%00"), "{}", mend(b"GET /a\x00b"));
    }

    proptest::proptest! {
        #[test]
        fn a_mended_head_has_the_same_lines_and_decodes_to_the_same_target(target in "[ -~é-ÿ]{1,40}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            drop(mended(&bytes));
            drop(hopeless(&bytes));
            let mut any = bytes.clone();
            stay(&mut any, true);
            stay(&mut any, false);
            proptest::prop_assert_eq!(any.len(), bytes.len());
            let head = format!("GET /{target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let Ok(out) = mended(head.as_bytes()) else { return Ok(()) };
            let out = String::from_utf8(out.unwrap_or_else(|| head.clone().into_bytes())).unwrap();
            proptest::prop_assert_eq!(out.matches('\n').count(), 3);
            let line = out.lines().next().unwrap();
            let parts: Vec<&str> = line.split(' ').collect();
            proptest::prop_assert_eq!(parts.len(), 3, "{}", line);
            let decode = |text: &str| form_urlencoded::parse(text.replace('&', "%26").replace('=', "%3D").as_bytes()).next().map(|pair| pair.0.into_owned());
            proptest::prop_assert_eq!(decode(parts[1]), decode(&format!("/{target}")));
        }
    }

    #[test]
    fn only_a_websocket_is_upgraded_to() {
        let ask = |to: &str, method: &str, websockets: bool| {
            let mut head =
                format!("{method} / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {to}\r\n\r\n").into_bytes();
            let before = head.len();
            stay(&mut head, websockets);
            assert_eq!(head.len(), before);
            let head = String::from_utf8(head).unwrap().to_lowercase();
            assert_eq!(head.contains("upgrade:"), head.contains(", upgrade"), "{head}");
            head.contains("upgrade")
        };
        assert!(ask("websocket", "GET", true) && ask("WebSocket", "GET", true));
        assert!(!ask("websocket", "GET", false) && !ask("websocket", "POST", true));
        assert!(!ask("h2c", "GET", true) && !ask("websocket, h2c", "GET", true));
    }

    #[test]
    fn what_the_parser_refuses_is_said_in_words() {
        let say = |head: &str| explain_headers(head.as_bytes()).into_owned();
        for (head, want) in [
            ("GET / HTTP/1.1\r\n\r\n", "exactly one header Host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "exactly one header Host"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "said twice"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "said twice"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "chunked"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "not a number"),
            ("POST / HTTP/1.0\r\nHost: a\r\n\r\n", "needs a Content-Length"),
            ("GET / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", "NAME: VALUE: no header"),
            ("GET / HTTP/1.1\r\nHost: a\r\nx y: 1\r\n\r\n", "NAME: VALUE: x y: 1"),
            ("GET /\r\nHost: a\r\n\r\n", "METHOD TARGET"),
        ] {
            assert!(say(head).contains(want), "{head:?}: {}", say(head));
        }
        assert!(hopeless(b"\x16\x03\x01").unwrap().text.contains("http://"));
        assert_eq!(hopeless(b"PRI * HTTP/2.0\r\n\r\n").unwrap().status, 505);
        for proxied in [&b"PROXY TCP4 192.0.2.7 "[..], b"\0\r\nQUIT\n\x21\x11"] {
            assert!(hopeless(proxied).unwrap().text.contains("web.proxy_protocol_from"));
        }
        assert_eq!(hopeless(b"GET /"), None);
    }
}
