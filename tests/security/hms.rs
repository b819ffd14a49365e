//! Rights at the door for processes.

use serde_json::{Value, json};

use super::secured::{Secured, options};
use crate::doors::hms::client::{Hms, address, op};

fn known(hms: &mut Hms, kind: &str, id: &str, token: Option<&str>) -> Result<Value, String> {
    let options = json!({"type": kind, "id": id, "version": "1", "protocol": 1, "token": token, "default": true});
    hms.ask(op::HANDSHAKE, "", &options)
}

#[test]
fn rights_decide_what_a_client_sees_and_does_and_who_is_a_dock() {
    let secured = Secured::start_with(&options().arg("--hms").arg("127.0.0.1:0"));
    let node = &secured.node;
    let (operator, _) = secured.root.principal("user:operator", &["process >"]);
    let (limited, _) = secured.root.principal("user:limited", &["process d1/app1"]);
    let (dock_token, _) = secured.root.principal("dock:d1", &[]);
    let nobody = known(&mut Hms::raw(address(node)), "client", "", None);
    let mut anonymous = Hms::raw(address(node));
    if nobody.is_ok() {
        known(&mut anonymous, "client", "", None).expect("known");
        let refused = anonymous.ask(op::ADD, "app1", &json!({})).expect_err("needs a credential");
        assert!(refused.contains("needs a credential"), "{refused}");
    }
    let mut wrong = Hms::raw(address(node));
    assert!(known(&mut wrong, "dock", "d2", Some(&dock_token)).is_err(), "a dock has its own id alone");
    let mut dock = Hms::raw(address(node));
    known(&mut dock, "dock", "d1", Some(&dock_token)).expect("a dock");
    let (id, _) = dock.asked();
    dock.answer(id, b"");
    let mut all = Hms::raw(address(node));
    known(&mut all, "client", "", Some(&operator)).expect("a client");
    all.ask(op::ADD, "app1", &json!({})).expect("may");
    all.ask(op::ADD, "app2", &json!({})).expect("may");
    let mut one = Hms::raw(address(node));
    known(&mut one, "client", "", Some(&limited)).expect("a client");
    let refused = one.do_(op::START, "app2").expect_err("may not");
    assert!(refused.contains("may not process all/app2"), "{refused}");
    one.do_(op::SUBSCRIBE, "*").expect("follows what it may see");
    all.do_(op::SUBSCRIBE, "*").expect("follows all");
    dock.tell(op::STDOUT, "app2@d1", b"hidden");
    dock.tell(op::STDOUT, "app1@d1", b"seen");
    assert_eq!(one.heard().text(), "seen");
    assert_eq!(all.heard().text(), "hidden");
    let number = one.request(op::PS, "", b"");
    let (id, _) = dock.asked();
    dock.answer(id, br#"{"list":[{"id":"app1","command":[]},{"id":"app2","command":[]}]}"#);
    let ps: Value = serde_json::from_slice(&one.answered(number).expect("an answer")).expect("JSON");
    assert_eq!(ps, json!([{"id": "d1", "list": [{"id": "app1", "command": []}]}]));
}
