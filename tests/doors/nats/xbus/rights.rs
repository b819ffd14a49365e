//! What accounts and those who have none may do.

use serde_json::json;

use super::client::{Bus, INBOX, text};

fn publish(subject: &str) -> String {
    format!("PUB {subject} {INBOX} 2\r\n{{}}")
}

fn denied_publish(subject: &str) -> String {
    format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'")
}

fn denied_subscription(filter: &str) -> String {
    format!("-ERR 'Permissions Violation for Subscription to \"{filter}\"'")
}

#[test]
fn who_has_no_account_may_register_and_hear_the_answer_and_nothing_else() {
    let bus = Bus::start();
    let shop = bus.account("actor", "shop", &[("invoices", "emitter")]);
    let mut anonymous = bus.anonymous();
    for subject in [
        "xbus.default.client.whoami.shop".to_owned(),
        format!("xbus.default.client.{}.getactors", shop.id),
        format!("xbus.default.broker.{}.output", shop.actors[0]),
        "xbus.default.control.account.list".to_owned(),
        "app.orders".to_owned(),
        format!("_INBOX.{}.in.x", shop.id),
    ] {
        assert_eq!(anonymous.refusal(&publish(&subject)), denied_publish(&subject));
    }
    for filter in [">", "_INBOX.>", "_INBOX.*", "xbus.>", &format!("_INBOX.{}.>", shop.id)] {
        assert_eq!(anonymous.refusal(&format!("SUB {filter} 1")), denied_subscription(filter));
    }
    assert_eq!(anonymous.refusal(&format!("SUB {INBOX}.> 1")), "");
    // At no other door is anybody let in because accounts register at this one.
    let mut sse = bus.authority.try_connect(bus.node.log, None).expect("TLS");
    let request = "GET /?subject=app.%3E HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::tls::exchange(&mut sse, request).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[test]
fn an_account_may_not_use_what_belongs_to_another_one() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[("invoices", "emitter")]);
    let mut bank = bus.account("actor", "bank", &[("ledger", "worker")]);
    let foreign = |own: &str, actor: &str, name: &str| {
        [
            format!("xbus.default.registration.update.{own}"),
            format!("xbus.default.client.whoami.{name}"),
            format!("xbus.default.client.{own}.getactors"),
            format!("xbus.default.broker.{actor}.output"),
            format!("xbus.default.director.processingend.{actor}"),
            format!("xbus.default.director.log.{actor}"),
            format!("xbus.default.envelopestorage.retrieve.actor.{actor}"),
            format!("xbus.default.sentinel.actorready.{actor}"),
            format!("xbus.default.sentinel.actorleaving.{actor}"),
            format!("_INBOX.{own}.in.x"),
        ]
    };
    for subject in foreign(&shop.id, &shop.actors[0], "shop") {
        assert_eq!(bank.client.refusal(&publish(&subject)), denied_publish(&subject));
        let json = format!("{subject}.json");
        if !subject.starts_with("_INBOX") {
            assert_eq!(bank.client.refusal(&publish(&json)), denied_publish(&json));
        }
    }
    for filter in [
        format!("xbus.default.actoragent.{}.>", bank.actors[0]),
        format!("xbus.default.processstate.{}.>", bank.actors[0]),
        format!("_INBOX.{}.>", bank.id),
        "xbus.default.core.events.>".to_owned(),
        "xbus.>".to_owned(),
    ] {
        assert_eq!(shop.client.refusal(&format!("SUB {filter} 1")), denied_subscription(&filter));
    }
    // The own ones, by what the actor does.
    assert_eq!(bank.client.refusal(&format!("SUB xbus.default.actoragent.{}.> 1", bank.actors[0])), "");
    let own = format!("xbus.default.actoragent.{}.>", shop.actors[0]);
    assert_eq!(shop.client.refusal(&format!("SUB {own} 1")), denied_subscription(&own), "an emitter takes nothing");
    let end = format!("xbus.default.director.processingend.{}", shop.actors[0]);
    assert_eq!(shop.client.refusal(&publish(&end)), denied_publish(&end));
    // An answer never goes where the caller itself may not publish.
    let subject = format!("xbus.default.client.{}.getactors", shop.id);
    assert_eq!(shop.client.refusal(&format!("PUB {subject} victim 0\r\n")), "");
}

#[test]
fn rights_follow_what_the_operator_decides_of_actors_and_who_can_shows_them() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[("invoices", "emitter")]);
    let mut operator = bus.operator();
    let output = format!("xbus.default.broker.{}.output", shop.actors[0]);
    let states = format!("SUB xbus.default.processstate.{}.> states", shop.actors[0]);
    assert_eq!(shop.client.refusal(&states), "");
    let disable = json!({ "actor_list": [{ "id": shop.actors[0], "status": "disabled" }] });
    let told = operator.call("control.actor.update", &disable);
    assert_eq!(told["actor_list"][0]["status"], "disabled", "{told}");
    let lost = denied_subscription(&format!("xbus.default.processstate.{}.>", shop.actors[0]));
    assert_eq!(shop.client.line(), Some(lost), "the subscription ends");
    assert_eq!(shop.client.refusal(&publish(&output)), denied_publish(&output));
    let who = |target: &str| {
        let mut stream = bus.authority.try_connect(bus.node.web, None).expect("TLS");
        let request = format!(
            "GET /api/security/who?verb=publish&target={target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            bus.root
        );
        crate::harness::tls::exchange(&mut stream, &request).expect("an answer")
    };
    assert!(!who("xbus.default.broker.*.output").contains("actor:shop"));
    operator.call("control.actor.update", &json!({ "actor_list": [{ "id": shop.actors[0], "status": "enabled" }] }));
    let answer = who("xbus.default.broker.*.output");
    assert!(answer.contains("\"principal\":\"actor:shop\"") && answer.contains("\"role\":\"xbus\""), "{answer}");
}

#[test]
fn a_user_controls_and_an_actor_does_not() {
    let bus = Bus::start();
    let mut user = bus.account("user", "ann", &[]);
    let mut shop = bus.account("actor", "shop", &[]);
    let listed = user.client.call("control.account.list", &json!({}));
    assert_eq!(listed["account_list"].as_array().map(Vec::len), Some(2), "{listed}");
    let subject = "xbus.default.control.account.list";
    assert_eq!(shop.client.refusal(&publish(subject)), denied_publish(subject));
    // Actors are made, changed and deleted, and all are listed as a stream.
    let create =
        json!({ "actor_list": [{ "name": "a", "kind": "worker", "account_id": shop.id, "status": "enabled" }] });
    let made = user.client.call("control.actor.create", &create);
    let actor = text(&made["actor_list"][0]["id"]);
    assert_eq!(made["actor_list"][0]["status"], "enabled", "{made}");
    let change = json!({ "actor_list": [{ "id": actor, "name": "b", "kind": "consumer", "status": "pending" }] });
    let changed = user.client.call("control.actor.update", &change);
    assert_eq!(
        (&changed["actor_list"][0]["name"], &changed["actor_list"][0]["kind"]),
        (&json!("b"), &json!("consumer"))
    );
    let found = user.client.call("control.actor.query", &json!({ "actor_list": [{ "account_id": shop.id }] }));
    assert_eq!(found["actor_list"][0]["id"], json!(actor), "{found}");
    let listed = user.client.stream("sentinel.listactors", &json!({}));
    assert_eq!((listed.len(), &listed[0]["actors"][0]["name"]), (1, &json!("b")));
    // Pipelines are saved, activated and read.
    let graph = "nodes:\n- {id: e, type: emitter, roles: [all], sourcematch: {eventtypes: [t]}, outputs: [default]}\n- {id: c, type: consumer, roles: [all], inputs: [default]}\nedges: [e.default->c.default]\n";
    let save = json!({ "info": { "name": "p", "version": "1" }, "graph": graph });
    let saved = user.client.call("control.pipeline.save", &save);
    assert_eq!(saved["is_valid"], true, "{saved}");
    let set = json!({ "name": "p", "version": "1", "status": "active" });
    let active = user.client.call("control.pipeline.setstatus", &set);
    assert_eq!(active["info"]["status"], "active", "{active}");
    assert_eq!(user.client.call("control.pipeline.getgraph", &set)["value"], graph);
    let bad = user
        .client
        .call("control.pipeline.save", &json!({ "info": { "name": "p", "version": "2" }, "graph": "nodes: 7" }));
    assert_eq!(bad["is_valid"], false, "{bad}");
    let listed = user.client.call("control.pipeline.query", &json!({ "name": "p" }));
    assert_eq!(listed["pipeline_list"].as_array().map(Vec::len), Some(1), "{listed}");
    let unknown = user.client.call("control.account.explode", &json!({}));
    assert_eq!(unknown["__error__"]["type"], "CLIENT", "{unknown}");
}
