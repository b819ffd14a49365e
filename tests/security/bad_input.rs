//! Credentials of every wrong shape at every door: nobody comes in, nothing is written down that is secret, and nothing
//! grows.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::jwt::{self, Key};
use super::secured::{Operator, Secured, bearer, connect, forged, log, options, rest, secret_of};
use crate::harness::http::{Http, Response};
use crate::harness::node::Node;
use crate::harness::socket::Socket;
use crate::harness::{SOON, encode, proc, report, wait_for};

const SELF: (&str, &str, &str) = ("GET", "/api/security/self", "");

fn with_header(node: &Node, value: &str) -> Response {
    Http::connect(node.web).request("GET", SELF.1, &[("Authorization", value)], b"")
}

#[test]
fn a_token_of_a_wrong_shape_lets_nobody_in_at_any_door() {
    let secured = Secured::start();
    let (good, id) = secured.root.principal("user:ann", &["publish app.>"]);
    let wrong_secret = format!("rb1_{id}_{}", "7".repeat(43));
    let cut = good.split_at(good.len() - 1).0;
    let (longer, other) = (format!("{good}x"), good.replacen("rb1_", "rb2_", 1));
    let (upper, long) = (good.replacen("rb1_", "RB1_", 1), "x".repeat(15_000));
    let forged = forged();
    let shapes = [
        "x",
        &wrong_secret,
        cut,
        &longer,
        &other,
        &upper,
        &long,
        &forged,
        "a.b.c",
        "..",
        "rbt_x",
        "ä€\u{1F511}",
        "null",
    ];
    let mut failures = Vec::new();
    for shape in shapes {
        let name: String = shape.chars().take(20).collect();
        let rest = with_header(&secured, &bearer(shape));
        let refused = rest.status == 401
            && rest.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer realm=\"rollbook\""));
        let sse = log(secured.log, Some(shape), ("POST", "/", r#"{"subject":"app.x"}"#));
        let socketio = connect(secured.web, Some(shape)).err().unwrap_or_default();
        if !refused || sse.status != 401 || !socketio.contains("unauthenticated") {
            failures.push(format!(
                "{name}: rest {} {:?}, sse {}, socketio {socketio}",
                rest.status, rest.headers, sse.status
            ));
        }
        // A subprotocol cannot say everything that a header can.
        if shape.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.') {
            let code = Socket::try_with(secured.web, Some(shape)).err();
            if code.as_deref() != Some("unauthenticated") {
                failures.push(format!("{name}: ws {code:?}"));
            }
        }
        if rest.text().contains(shape) && shape.len() > 4 {
            failures.push(format!("{name}: the answer repeats the token"));
        }
    }
    for value in ["Bearer", "Bearer ", "", "Basic", "Basic ====", "Digest x", "Bearer  ", "Token x"] {
        let answer = with_header(&secured, value);
        if answer.status != 401 {
            failures.push(format!("Authorization: {value:?}: {}", answer.status));
        }
    }
    report("wrong tokens", &failures);
    assert_eq!(with_header(&secured, &bearer(&good)).status, 200);
    // A head of a megabyte is refused before anybody looks at it.
    let mut http = Http::connect(secured.web);
    let huge = bearer(&"x".repeat(1 << 20));
    if let Ok(answer) = http.try_request("GET", SELF.1, &[("Authorization", &huge)], b"") {
        assert!(matches!(answer.status, 400 | 401 | 413 | 431), "{answer:?}");
    }
    assert_eq!(with_header(&secured, &bearer(&good)).status, 200, "the node lives");
}

#[test]
fn a_jwt_that_is_not_good_lets_nobody_in() {
    let secured = Secured::start();
    let (rsa, ed, other) = (Key::rsa(), Key::ed25519(), Key::ed25519());
    let issuer = jwt::issuer(&["RS256", "EdDSA"], &[rsa.jwk("r"), ed.jwk("e")], "viewer");
    secured.root.done("PUT", "/api/security/issuers/corp", &issuer);
    let good = rsa.sign("r", &jwt::claims());
    let status = |token: &str| rest(secured.web, Some(token), SELF).status;
    wait_for("the issuer", SOON, || (status(&good) == 200).then_some(()));
    let own = rest(secured.web, Some(&good), SELF).json();
    assert_eq!((&own["principal"], &own["roles"]), (&json!("user:ann"), &json!(["viewer"])), "{own}");
    assert_eq!(status(&ed.sign("e", &jwt::claims())), 200);
    let with = |name: &str, value: Value| {
        let mut claims = jwt::claims();
        claims[name] = value;
        rsa.sign("r", &claims)
    };
    let hmac = Key::Secret(rsa.pem().into_bytes());
    let none = rsa.sign_as(&json!({ "alg": "none", "kid": "r" }), &jwt::claims());
    let unsigned = format!("{}.", none.rsplit_once('.').expect("three parts").0);
    let (mut parts, forged) = (good.split('.').collect::<Vec<_>>(), with("sub", json!("root")));
    parts[1] = forged.split('.').nth(1).expect("claims");
    let cases = [
        ("expired", with("exp", json!(jwt::seconds(-120)))),
        ("without an end", with("exp", Value::Null)),
        ("not yet valid", with("nbf", json!(jwt::seconds(600)))),
        ("of another audience", with("aud", json!("other"))),
        ("without an audience", with("aud", Value::Null)),
        ("of another issuer", with("iss", json!("https://evil.test"))),
        ("without a subject", with("sub", Value::Null)),
        ("with a subject that is no name", with("sub", json!("a b\n"))),
        ("alg none", none),
        ("alg none without a signature", unsigned),
        ("HS256 with the public key", hmac.sign("r", &jwt::claims())),
        ("HS256 that says RS256", hmac.sign_as(&json!({ "alg": "RS256", "kid": "r" }), &jwt::claims())),
        ("an unknown kid", rsa.sign("unknown", &jwt::claims())),
        ("the key of somebody else", other.sign("e", &jwt::claims())),
        ("other claims under the signature", parts.join(".")),
        ("a kid of the other type", rsa.sign("e", &jwt::claims())),
    ];
    let mut failures = Vec::new();
    for (name, token) in &cases {
        let refused =
            |code: Option<String>| if code.is_some_and(|code| code.contains("unauthenticated")) { 401 } else { 101 };
        let found = [
            status(token),
            log(secured.log, Some(token), ("GET", "/?subject=app.x", "")).status,
            refused(Socket::try_with(secured.web, Some(token)).err()),
            refused(connect(secured.web, Some(token)).err()),
        ];
        if found != [401; 4] {
            failures.push(format!("{name}: {found:?}"));
        }
    }
    report("JWTs at rest, sse, ws, socketio", &failures);
}

#[test]
fn a_token_in_an_address_is_refused_and_not_written_down() {
    let secured = Secured::start_with(&options().env("ROLLBOOK_LOG__FILTER", "trace"));
    let token = secured.root.token.clone();
    for (address, path) in [
        (secured.web, format!("/api/security/self?access_token={token}")),
        (secured.web, format!("/ws?token={token}")),
        (secured.log, format!("/?subject=app.%3E&token={token}")),
        (secured.log, format!("/?subject=app.%3E&ticket={}", encode(&token))),
        (secured.log, format!("/?subject=app.%3E&x={}", encode(&bearer(&token)))),
    ] {
        let upgrade = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        let headers: &[(&str, &str)] = if path.starts_with("/ws") { &upgrade } else { &[] };
        let answer = Http::connect(address).request("GET", &path, headers, b"");
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(
            answer.text().contains("Authorization") && !answer.text().contains(secret_of(&token)),
            "{}",
            answer.text()
        );
    }
    let said = secured.node.stderr() + &secured.node.stdout();
    assert!(!said.contains(secret_of(&token)), "the log has the token");
}

#[test]
fn wrong_passwords_slow_their_user_down_and_not_others() {
    let secured = Secured::start();
    for user in ["ann", "bob"] {
        secured.root.allow(&format!("user:{user}"), &["publish app.>"]);
        let path = format!("/api/security/principals/user:{user}/password");
        secured.root.done("PUT", &path, &json!({ "password": "correct horse" }));
    }
    let login = |user: &str, password: &str| {
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Http::connect(secured.web).request("POST", "/api/security/login", &[("Authorization", &basic)], b"")
    };
    let first = login("bob", "correct horse");
    assert_eq!(first.status, 201, "{}", first.text());
    let token = first.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(rest(secured.web, Some(&token), SELF).json()["principal"], "user:bob");
    let statuses: Vec<u16> = (0..7).map(|n| login("ann", &format!("wrong {n}")).status).collect();
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let slow = login("ann", "correct horse");
    assert_eq!((slow.status, slow.json()["code"].clone()), (429, json!("overloaded")), "the right one waits too");
    let wait = slow.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    let said = slow.json()["detail"].as_str().and_then(|text| text.split(' ').rev().nth(1)?.parse().ok());
    assert!(wait.is_some() && wait == said, "Retry-After is what the text says: {slow:?} {}", slow.text());
    assert_eq!(rest(secured.web, Some(&token), SELF).status, 200, "a token is not slowed down");
    // Behind one address there may be many people: theirs is a growing delay too, but not at once.
    assert_ne!(login("nobody", "wrong").status, 201);
}

#[test]
fn a_ticket_opens_one_stream() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("user:ann", &["subscribe app.>"]);
    let made = rest(secured.web, Some(&token), ("POST", "/api/security/tickets", ""));
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")), "{}", made.text());
    let ticket = made.json()["ticket"].as_str().expect("a ticket").to_owned();
    let open = |ticket: &str, subject: &str| {
        let path = format!("/?subject={subject}&ticket={ticket}");
        crate::harness::sse::Sse::try_open(secured.log, &path, &[], SOON).expect("an answer")
    };
    let stream = open(&ticket, "app.x");
    assert_eq!(stream.head.status, 200);
    assert_eq!(open(&ticket, "app.x").head.status, 401, "a ticket is for one use");
    assert_eq!(open("rbt_", "app.x").head.status, 401);
    let again = rest(secured.web, Some(&token), ("POST", "/api/security/tickets", "")).json();
    let again = again["ticket"].as_str().expect("a ticket").to_owned();
    assert_eq!(open(&again, "other.x").head.status, 403, "a ticket has the rights of its principal");
}

#[test]
fn ten_thousand_wrong_tokens_leave_a_line_a_second_and_no_memory() {
    let secured = Secured::start();
    let resident = || proc::status(secured.pid(), "VmRSS");
    let lines = |root: &Operator| root.audit("&what=denied").len();
    let try_many = |count: usize| {
        std::thread::scope(|scope| {
            for part in 0..4 {
                let secured = &secured;
                scope.spawn(move || {
                    let mut http = Http::connect(secured.web);
                    for number in 0..count / 4 {
                        let token = format!("rb1_{:012}_{}", part * 1_000_000 + number, "9".repeat(43));
                        let answer = http.request("GET", SELF.1, &[("Authorization", &bearer(&token))], b"");
                        assert_eq!(answer.status, 401);
                    }
                });
            }
        });
    };
    try_many(2_000);
    let (before, lines_before) = (resident(), lines(&secured.root));
    let start = std::time::Instant::now();
    try_many(10_000);
    let took = start.elapsed();
    wait_for("the last line", SOON, || {
        let counted: u64 =
            secured.root.audit("&what=denied").iter().map(|line| line["payload"]["count"].as_u64().unwrap_or(1)).sum();
        (counted >= 12_000).then_some(())
    });
    let (grown, more) = (resident().saturating_sub(before), lines(&secured.root) - lines_before);
    eprintln!("10,000 wrong tokens in {took:?}: {more} lines of the audit, {} KiB more memory", grown);
    let seconds = usize::try_from(took.as_secs()).expect("a time");
    assert!(more <= seconds + 3, "{more} lines in {took:?}");
    assert!(grown < 16 << 10, "{grown} KiB");
    assert!(took < Duration::from_secs(30), "{took:?}");
}
