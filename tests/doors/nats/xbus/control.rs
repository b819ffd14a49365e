//! The control API of processes, envelopes and logs, and what clients hear of operators and actors.

use serde_json::{Value, json};

use super::client::{Account, Bus, Client, text};
use crate::harness::{SOON, wait_for};

const GRAPH: &str = "nodes:\n- {id: in, type: emitter, roles: [all]}\n- {id: out, type: consumer, roles: [all]}\nedges:\n- in.default->out.default\n";

/// An account with a consumer and an emitter, and an envelope that waits for the consumer: the process.
fn waiting(bus: &Bus, operator: &mut Client) -> (Account, String) {
    let mut shop = bus.account("actor", "shop", &[("archive", "consumer"), ("invoices", "emitter")]);
    let info = json!({ "name": "invoices", "version": "1" });
    let saved = operator.call("control.pipeline.save", &json!({ "info": info, "graph": GRAPH }));
    assert_eq!(saved["is_valid"], true, "{saved}");
    operator.call("control.pipeline.setstatus", &json!({ "name": "invoices", "version": "1", "status": "active" }));
    let inbox = format!("_INBOX.{}.in.x", shop.id);
    let body = json!({ "events": [{"type": "invoice", "items": ["one"]}], "last": true });
    let sent = shop.client.call_at(&inbox, &format!("broker.{}.output", shop.actors[1]), &body);
    assert_eq!(sent["reception_status"], "accepted", "{sent}");
    let filter = json!({ "filter": { "trigger_envelope_id": [sent["id"]] } });
    let found = operator.stream("control.process.query", &filter);
    assert_eq!(found[0]["process_list"][0]["status"], "running", "{found:?}");
    let process = text(&found[0]["process_list"][0]["id"]);
    (shop, process)
}

#[test]
fn an_operator_pauses_cancels_exports_and_purges_a_process() {
    let bus = Bus::start();
    let mut operator = bus.operator();
    let (mut shop, process) = waiting(&bus, &mut operator);
    shop.client.hear(&format!("xbus.default.processstate.{}.envelope.*", shop.actors[1]));
    let mut control = |command: &str| {
        let done = operator.call("control.process.control", &json!({ "process_id": process, "command": command }));
        assert_eq!(done, json!({ "status": "success" }), "{command}");
    };
    for command in ["pause", "resume", "cancel"] {
        control(command);
        let (subject, _) = shop.client.heard();
        assert!(subject.contains(".envelope."), "the emitter hears of {command}: {subject}");
    }
    let wrong = operator.call("control.process.control", &json!({ "process_id": process, "command": "none" }));
    assert_eq!(wrong["__error__"]["type"], "CLIENT", "{wrong}");

    let failed = operator.stream("control.pm.query", &json!({}));
    let told = &failed[0]["pm_process_list"][0];
    assert_eq!((&told["process"]["id"], &told["status"]), (&json!(process), &json!("new")), "{told}");
    let note = json!({ "process_id": process, "status": "closed", "comment": "known" });
    assert_eq!(operator.call("control.pm.setstatus", &note)["status"], "success");
    assert_eq!(operator.stream("control.pm.query", &json!({})), [Value::Null; 0], "closed ones are not told");
    let closed = operator.stream("control.pm.query", &json!({ "include_closed": true }));
    assert_eq!(closed[0]["pm_process_list"][0]["comment"], "known");

    let wanted = json!({ "process_ids": [process], "export_full": true });
    let exported = operator.call("control.process.export", &wanted);
    let document: Value = serde_json::from_str(&text(&exported["process_list"][0])).expect("JSON");
    assert_eq!((&document["status"], &document["state"]), (&json!("error"), &json!("canceled")), "{document}");
    assert_eq!(document["envelopes"][0]["events"][0]["items"], json!(["one"]));
    let streamed = operator.stream("control.process.exportstream", &wanted);
    assert_eq!((&streamed[0]["progression"], &streamed[0]["chunks"][0]["index"]), (&json!(1), &json!(0)));

    let purged = operator.stream("control.process.purge", &json!({ "process_ids": [process] }));
    assert_eq!((&purged[0]["progression"], &purged[0]["max_progression"]), (&json!(1), &json!(1)));
    assert_eq!(purged[0]["message"], "removed 1 processes");
    let gone = operator.stream("control.process.query", &json!({ "filter": { "id": [process] } }));
    assert_eq!(gone, [Value::Null; 0]);
    let envelopes = operator.stream("control.envelope.purge", &json!({}));
    assert_eq!(envelopes[0]["progression"], 1, "{envelopes:?}");
    let logs = operator.stream("control.logs.purge", &json!({ "before": "2100-01-01T00:00:00Z" }));
    assert_eq!(logs[0]["count"], 0, "{logs:?}");
}

#[test]
fn clients_hear_of_actors_that_come_go_and_are_changed() {
    let bus = Bus::start();
    let mut operator = bus.operator();
    let mut shop = bus.account("actor", "shop", &[("archive", "consumer")]);
    operator.hear("xbus.default.core.events.actor");
    let actor = shop.actors[0].clone();
    shop.client.hear(&format!("xbus.default.actoragent.{actor}.>"));
    shop.client.refusal(&format!("PUB xbus.default.sentinel.actorready.{actor} 0\r\n"));
    // The name of what happened is the first field.
    let next = |operator: &mut Client| operator.heard().1;
    // That the actor was enabled may be told only now.
    let told: Vec<String> = (0..3).map(|_| next(&mut operator)).take_while(|told| !told.contains("online")).collect();
    assert!(told.len() < 3, "the actor has come: {told:?}");
    let mut other = bus.operator();
    wait_for("the time when the actor was last seen", SOON, || {
        let told = other.call("control.actor.query", &json!({ "actor_list": [{ "id": actor }] }));
        told["actor_list"][0]["last_seen"].is_string().then_some(())
    });
    shop.client.refusal(&format!("PUB xbus.default.sentinel.actorleaving.{actor} 0\r\n"));
    assert!(next(&mut operator).contains("offline"), "the actor has gone");
    for status in ["disabled", "enabled"] {
        other.call("control.actor.update", &json!({ "actor_list": [{ "id": actor, "status": status }] }));
        assert!(next(&mut operator).contains("changed"), "the actor is {status}");
    }
}
