//! Other ways to what a principal may not have: a mixed batch, a consumer of somebody else, an announcement, a deny.

use serde_json::{Value, json};

use super::secured::{Secured, connect, log, publish, rest, subscribe};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms};

#[test]
fn a_batch_with_one_event_that_is_not_allowed_stores_nothing() {
    let secured = Secured::start();
    let rights = ["publish orders.>", "deny publish orders.secret.>", "subscribe orders.>"];
    let (token, _) = secured.root.principal("service:orders", &rights);
    let batch = json!([{ "subject": "orders.a" }, { "subject": "orders.secret.b" }, { "subject": "orders.c" }]);
    for path in ["/", "/?restore=true"] {
        let answer = log(secured.log, Some(&token), ("POST", path, &batch.to_string()));
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
    let event = publish(&secured, Some(&token), "orders.a").published();
    assert_eq!(event.index, 1, "nothing of the batches is stored");
    // What a notification is stored under is a subject like others.
    assert_eq!(publish(&secured, Some(&token), "notify.x").status, 403);
    for reserved in ["_audit.x", "_dead_.orders.a", "roll.x"] {
        assert!((400..500).contains(&publish(&secured, Some(&secured.root.token), reserved).status), "{reserved}");
    }
}

#[test]
fn a_subscription_that_a_deny_touches_is_refused_and_a_wildcard_reaches_no_reserved_namespace() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("user:ann", &["subscribe >", "deny subscribe orders.secret.>"]);
    publish(&secured, Some(&secured.root.token), "orders.a").published();
    let mut failures = Vec::new();
    for (subject, status) in [
        ("orders.a", 200),
        ("orders.*", 403),
        ("orders.>", 403),
        ("orders.**", 403),
        ("orders.*.b", 403),
        ("orders.secret.b", 403),
        ("orders.public.>", 200),
        ("_audit.>", 403),
        ("_dead_.orders.>", 403),
    ] {
        for start in ["newest", "oldest"] {
            let found = subscribe(&secured, Some(&token), &[("subject", subject), ("start", start)]).head.status;
            if found != status {
                failures.push(format!("{subject} from {start}: {found}, expected {status}"));
            }
        }
    }
    crate::harness::report("subscriptions", &failures);
    let explained = |subject: &str| {
        let path = format!("/api/security/explain?principal=user:ann&verb=subscribe&target={subject}");
        secured.root.ask("GET", &path, "").json()
    };
    let no = explained("orders.secret.b");
    assert_eq!((&no["allowed"], &no["rule"]), (&json!(false), &json!("deny subscribe orders.secret.>")), "{no}");
    assert_eq!((&explained("orders.*")["allowed"], &explained("orders.a")["allowed"]), (&json!(false), &json!(true)));
    let who = secured.root.ask("GET", "/api/security/who?verb=subscribe&target=orders.secret.b", "").json();
    let names: Vec<&str> =
        who["items"].as_array().expect("items").iter().filter_map(|one| one["principal"].as_str()).collect();
    assert_eq!(names, ["user:root"], "{who}");
}

#[test]
fn a_durable_consumer_of_more_than_one_may_read_is_not_taken_over() {
    let secured = Secured::start();
    let root = Some(secured.root.token.as_str());
    publish(&secured, root, "orders.secret").published();
    let all = [("subject", "orders.>"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "100ms")];
    for kind in ["consumer", "group"] {
        let mut own = subscribe(&secured, root, &[&all[..], &[(kind, kind)]].concat());
        own.next_event(SOON);
        drop(own);
    }
    let (token, _) = secured.root.principal("user:eve", &["subscribe orders.public"]);
    for kind in ["consumer", "group"] {
        let mut query = all.to_vec();
        query[0].1 = "orders.public";
        query.push((kind, kind));
        let mut stream = subscribe(&secured, Some(&token), &query);
        if stream.head.status == 200 {
            let event = stream.try_event(ms(600));
            assert!(event.is_none(), "{kind}: an event that the principal may not read: {event:?}");
        }
    }
}

#[test]
fn a_schedule_publishes_nothing_that_whoever_sets_or_runs_it_may_not_publish() {
    let secured = Secured::start();
    let put = |token: &str, name: &str, subject: &str| {
        let body = json!({ "subject": subject, "cron": "@yearly" }).to_string();
        rest(secured.web, Some(token), ("PUT", &format!("/api/schedules/{name}"), &body)).status
    };
    let (operator, _) = secured.root.principal("user:ops", &["admin:write schedules/>", "publish app.open.>"]);
    assert_eq!((put(&operator, "s", "app.open.x"), put(&operator, "s", "app.closed.x")), (200, 403));
    let patch = json!({ "subject": "app.closed.x" }).to_string();
    assert_eq!(rest(secured.web, Some(&operator), ("PATCH", "/api/schedules/s", &patch)).status, 403);
    assert_eq!(
        secured.root.ask("PUT", "/api/schedules/r", r#"{"subject":"app.closed.x","cron":"@yearly"}"#).status,
        200
    );
    let run =
        |name: &str| rest(secured.web, Some(&operator), ("POST", &format!("/api/schedules/{name}/run"), "")).status;
    assert_eq!((run("s"), run("r")), (200, 403));
    let (publisher, _) = secured.root.principal("user:pub", &["publish >", "admin:write schedules/own"]);
    assert_eq!((put(&publisher, "own", "app.x"), put(&publisher, "other", "app.x")), (200, 403));
}

#[test]
fn an_answer_is_taken_from_the_one_who_was_asked_alone() {
    let secured = Secured::start();
    let provider = connect(secured.web, Some(&secured.root.token)).expect("a connection");
    provider.register("prov", &["prov"]);
    let (token, _) = secured.root.principal("user:ann", &["call prov:*"]);
    let (other, _) = secured.root.principal("user:eve", &["call other:*"]);
    let (caller, eve) = (
        connect(secured.web, Some(&token)).expect("a connection"),
        connect(secured.web, Some(&other)).expect("a connection"),
    );
    let id = caller.begin("bus:request", &json!({ "requestId": "r1", "capability": "prov", "action": "do" }));
    let asked = provider.event("bus:request").args.remove(0);
    let forged = json!({ "requestId": asked["requestId"], "success": true, "data": "forged" });
    assert_eq!(eve.ask("bus:response", &forged)["error"]["code"], "forbidden");
    provider.emit("bus:response", &json!({ "requestId": asked["requestId"], "success": true, "data": "true" }));
    assert_eq!(caller.acked(id)["data"], "true");
}

#[test]
fn an_announcement_of_the_configuration_goes_to_those_who_may_read_it() {
    let secured = Secured::start();
    let client = |name: &str, more: &[&str]| {
        let offer = format!("offer {name}");
        let (token, _) = secured.root.principal(&format!("service:{name}"), &[&[offer.as_str()], more].concat());
        let client = connect(secured.web, Some(&token)).expect("a connection");
        client.register(name, &[]);
        client
    };
    let (nothing, public) = (client("nothing", &[]), client("public", &["config:read public"]));
    let all = client("all", &["config:read public", "config:read secret"]);
    secured.root.done("POST", "/api/config", &json!({ "plain": 1, "$secret": { "key": "hidden" } }));
    // The event has no secrets, whoever gets it: who may have them asks for them.
    for client in [&all, &public] {
        let told = client.event("config:updated").args.remove(0).to_string();
        assert!(!told.contains("hidden") && told.contains("plain"), "{told}");
    }
    assert!(!nothing.hears("config:updated", ms(200)), "{:?}", nothing.heard());
    assert_eq!(nothing.ask("config:request", &Value::Null)["error"]["code"], "forbidden");
    assert!(!public.ask("config:request", &Value::Null).to_string().contains("hidden"));
    assert!(all.ask("config:request", &Value::Null).to_string().contains("hidden"));
    // Who writes without that right sees as little.
    let (writer, _) = secured.root.principal("user:writer", &["config:read public", "config:write >"]);
    for (method, path, body) in [
        ("PATCH", "/api/config", r#"{"more":2}"#),
        ("GET", "/api/config?revision=1", ""),
        ("GET", "/api/config/diff?from=0&to=1", ""),
        ("POST", "/api/config/rollback", r#"{"revision":1}"#),
    ] {
        let answer = rest(secured.web, Some(&writer), (method, path, body));
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        assert!(!answer.text().contains("hidden"), "{method} {path}: {}", answer.text());
    }
}

#[test]
fn names_of_services_are_told_to_those_who_may_have_them() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("service:watcher", &["publish x.>"]);
    let provider = connect(secured.web, Some(&secured.root.token)).expect("a connection");
    provider.register("hidden", &["hidden"]);
    let registered = |name: &str, token: &str| {
        let client = Socket::try_with(secured.web, Some(token)).unwrap_or_else(|code| panic!("no upgrade: {code}"));
        client.send(&json!({ "name": name, "version": "1" }));
        let registered = client.next("registered");
        let names = registered["services"].as_array().map(|list| list.iter().map(|one| one["name"].clone()).collect());
        (client, names.unwrap_or_else(|| panic!("no list: {registered}")))
    };
    let (watcher, names): (Socket, Vec<Value>) = registered("watcher", &token);
    assert!(names.is_empty(), "{names:?}");
    let (able, _) = secured.root.principal("service:able", &["subscribe roll.>"]);
    let (able, names) = registered("able", &able);
    assert_eq!(names, ["hidden"]);
    let another = connect(secured.web, Some(&secured.root.token)).expect("a connection");
    another.register("shown", &["shown"]);
    assert_eq!(able.event("service-online")["service"]["name"], "shown");
    assert!(!watcher.hears("event", ms(100)), "{:?}", watcher.events());
}

#[test]
fn an_event_is_acknowledged_by_the_principal_of_its_stream_alone() {
    let secured = Secured::start();
    let rights = ["publish orders.>", "subscribe orders.>"];
    let [(own, _), (other, _)] = ["user:ann", "user:bob"].map(|name| secured.root.principal(name, &rights));
    publish(&secured, Some(&own), "orders.a").published();
    let query = [("subject", "orders.>"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "1h")];
    let mut stream = subscribe(&secured, Some(&own), &query);
    let path = format!("/?consumer_id={}&event_id={}", stream.consumer_id(), stream.next_event(SOON).event_id());
    let counts = |token: &str| {
        let answer = log(secured.log, Some(token), ("PUT", &path, ""));
        (answer.status, answer.header("x-bus-acknowledged").map(str::to_owned))
    };
    assert_eq!(counts(&other), (202, Some("false".to_owned())), "as for a stream that is not there");
    assert_eq!(counts(&own), (202, Some("true".to_owned())));
}

#[test]
fn who_may_change_some_principals_alone_gives_nobody_more_than_it_has() {
    let secured = Secured::start();
    let own = ["publish orders.>", "admin:security security/principals/>", "admin:security security/roles/team"];
    let (token, _) = secured.root.principal("user:lead", &own);
    let ask =
        |method: &str, path: &str, body: &Value| rest(secured.web, Some(&token), (method, path, &body.to_string()));
    let put = |principal: &str, body: Value| ask("PUT", &format!("/api/security/principals/{principal}"), &body);
    assert_eq!(put("service:new", json!({ "rights": ["publish orders.new.>"] })).status, 200);
    let refused = put("user:lead", json!({ "roles": ["root"] }));
    assert_eq!((refused.status, refused.json()["code"].clone()), (403, json!("forbidden")), "{}", refused.text());
    let detail = refused.json()["detail"].clone();
    assert!(detail.as_str().is_some_and(|text| text.contains("may not give")), "{detail}");
    assert_eq!(put("service:new", json!({ "rights": ["publish >"] })).status, 403);
    assert_eq!(ask("POST", "/api/security/principals/user:root/tokens", &json!({})).status, 403);
    assert_eq!(ask("POST", "/api/security/principals/service:new/tokens", &json!({})).status, 201);
    assert_eq!(ask("PUT", "/api/security/roles/team", &json!({ "rights": ["publish orders.>"] })).status, 200);
    assert_eq!(ask("PUT", "/api/security/roles/team", &json!({ "rights": ["subscribe >"] })).status, 403);
    let denied = || secured.root.audit("&what=denied").into_iter().any(|line| line.to_string().contains("escalate"));
    crate::harness::wait_for("the refusal in the audit", SOON, || denied().then_some(()));
}

#[test]
fn who_may_change_the_configuration_and_not_read_it_is_not_shown_it() {
    let secured = Secured::start();
    secured.root.done("POST", "/api/config", &json!({ "level": "info" }));
    let (token, _) = secured.root.principal("service:writer", &["config:write config"]);
    for (method, body) in [("PATCH", "{}"), ("PATCH", r#"{"more":1}"#), ("POST", r#"{"level":"debug"}"#)] {
        let answer = rest(secured.web, Some(&token), (method, "/api/config", body));
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{method} {body}");
        assert!(answer.header("etag").is_some(), "{answer:?}");
    }
    assert_eq!(secured.root.ask("GET", "/api/config", "").json(), json!({ "level": "debug" }));
}

#[test]
fn who_may_not_see_principals_asks_about_itself_alone() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("user:ann", &["publish app.>"]);
    let ask = |principal: &str| {
        let path = format!("/api/security/explain?verb=publish&target=app.x{principal}");
        rest(secured.web, Some(&token), ("GET", &path, ""))
    };
    assert_eq!(ask("").json()["allowed"], true);
    assert_eq!(ask("&principal=user:ann").json()["allowed"], true);
    for other in ["&principal=user:root", "&principal=user:nobody", "&principal=anonymous"] {
        assert_eq!(ask(other).status, 403, "{other}");
    }
}

#[test]
fn a_secret_key_is_not_taken_as_a_public_one() {
    let secured = Secured::start();
    let mut issuer = super::jwt::issuer(
        &["HS256"],
        &[json!({ "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "k" })],
        "viewer",
    );
    let put = |issuer: &Value| secured.root.ask("PUT", "/api/security/issuers/corp", &issuer.to_string());
    let refused = put(&issuer);
    assert_eq!(refused.status, 400, "it would be shown to everybody who may see issuers: {}", refused.text());
    for mixed in [json!(["HS256", "RS256"]), json!(["none"]), json!([])] {
        issuer["algorithms"] = mixed;
        assert_eq!(put(&issuer).status, 400, "{issuer}");
    }
}
