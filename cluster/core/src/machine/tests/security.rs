//! Principals, roles, credentials, and the audit of their changes.

use super::*;
use crate::command::LevelRaise;
use crate::security::actor::Actor;
use crate::security::change::{AuditLine, Audited, Bootstrap, Change, CredentialsUsed, SecurityChange};
use crate::security::model::{Credential, Issuer, PrincipalRow, Proof, Role};

fn secured() -> Replica {
    let mut replica = Replica::default();
    let raise = LevelRaise { level: FeatureLevel::LATEST.get() };
    replica.apply_one(Command::LevelRaise(raise).frame().unwrap()).unwrap();
    replica
}

fn actor() -> Actor {
    let (principal, credential, address) = ("user:ann".into(), "t1".into(), "10.0.0.1:5".into());
    Actor { principal, credential, address, door: "rest".into(), request: "r-1".into() }
}

fn change_if(if_revision: Option<u64>, change: Change) -> Vec<u8> {
    let change = SecurityChange { if_revision, change: Some(change) };
    Command::Security(alloc::boxed::Box::new(change)).frame_of(Some(actor())).unwrap()
}

fn change(change: Change) -> Vec<u8> {
    change_if(None, change)
}

fn principal(name: &str, roles: &[&str]) -> Vec<u8> {
    let roles = roles.iter().map(ToString::to_string).collect();
    change(Change::PrincipalSet(PrincipalRow { principal: name.into(), roles, ..PrincipalRow::default() }))
}

fn token(id: &str, of: &str) -> Vec<u8> {
    let (id, principal) = (id.into(), of.into());
    change(Change::CredentialAdd(Credential {
        id,
        principal,
        proof: Some(Proof::Token(vec![1; 32])),
        ..Credential::default()
    }))
}

fn role(name: &str, rights: &[&str]) -> Vec<u8> {
    let rights = rights.iter().map(ToString::to_string).collect();
    change(Change::RoleSet(Role { name: name.into(), rights, ..Role::default() }))
}

/// Subjects and payloads of the audit.
fn audit(replica: &Replica) -> Vec<(String, String)> {
    let Some(head) = replica.machine.head("_audit") else { return Vec::new() };
    let of = |sequence| {
        let record = &replica.memory.rows[&(Family::Made, rows::index_key(head.id, sequence))];
        let (event, _) = Event::decode(record).unwrap();
        (event.subject.to_string(), String::from_utf8(event.payload.unwrap().to_vec()).unwrap())
    };
    (1..head.next).map(of).collect()
}

fn is_security(reply: &Reply) -> bool {
    matches!(reply, Err(Refusal::Security(_)))
}

#[test]
fn a_principal_has_roles_rights_and_credentials_and_all_are_there_after_a_restart() {
    let mut replica = secured();
    assert_eq!(
        replica.apply_one(role("orders", &["publish orders.>", "deny publish orders.x"])),
        Ok(Done::Security(1))
    );
    assert_eq!(replica.apply_one(principal("service:shop", &["service", "orders"])), Ok(Done::Security(2)));
    assert_eq!(replica.apply_one(token("t1", "service:shop")), Ok(Done::Security(3)));
    let issuer = Issuer { name: "corp".into(), iss: "https://id.example".into(), ..Issuer::default() };
    assert_eq!(replica.apply_one(change(Change::IssuerSet(issuer))), Ok(Done::Security(4)));
    let security = replica.machine.security();
    assert_eq!(security.principal("service:shop").map(|row| (row.revision, row.roles.len())), Some((2, 2)));
    assert_eq!(security.credentials_of("service:shop").map(|row| &*row.id).collect::<Vec<_>>(), ["t1"]);
    assert_eq!(security.credentials_of("service:sho").count(), 0);
    assert_eq!(replica.reloaded(), replica.machine);
    let delete = change(Change::PrincipalDelete("service:shop".into()));
    assert_eq!(replica.apply_one(delete.clone()), Ok(Done::Security(5)));
    assert!(matches!(replica.apply_one(delete), Err(Refusal::SecurityNotFound(_))));
    assert!(replica.machine.security().credential("t1").is_none(), "its credentials go with it");
    assert_eq!(replica.apply_one(change(Change::RoleDelete("orders".into()))), Ok(Done::Security(6)));
    assert_eq!(replica.apply_one(change(Change::IssuerDelete("corp".into()))), Ok(Done::Security(7)));
    assert_eq!(replica.reloaded(), replica.machine);
}

#[test]
fn two_operators_do_not_overwrite_each_other() {
    let mut replica = secured();
    let set = |if_revision| {
        let row = PrincipalRow { principal: "user:bob".into(), ..PrincipalRow::default() };
        change_if(if_revision, Change::PrincipalSet(row))
    };
    assert_eq!(replica.apply_one(set(Some(0))), Ok(Done::Security(1)), "there is none yet");
    assert!(matches!(replica.apply_one(set(Some(0))), Err(Refusal::RevisionMismatch(_))));
    assert_eq!(replica.apply_one(set(Some(1))), Ok(Done::Security(2)));
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let mut replica = secured();
    replica.apply_one(principal("user:ann", &[])).unwrap();
    let before = replica.machine.security().clone();
    let password = |of: &str| {
        let (id, principal) = (format!("password:{of}"), of.into());
        let proof = Some(Proof::Password("$argon2id$".into()));
        change(Change::CredentialAdd(Credential { id, principal, proof, ..Credential::default() }))
    };
    for wrong in [
        principal("nonsense", &[]),
        principal("anonymous", &["root"]),
        role("root", &[]),
        role("a b", &[]),
        role("x", &["write >"]),
        token("t", "anonymous"),
        password("service:x"),
    ] {
        let reply = replica.apply_one(wrong);
        assert!(is_security(&reply), "{reply:?}");
    }
    for missing in
        [principal("user:bob", &["nothing"]), token("t", "user:bob"), change(Change::CredentialDelete("t".into()))]
    {
        let reply = replica.apply_one(missing);
        assert!(matches!(reply, Err(Refusal::SecurityNotFound(_))), "{reply:?}");
    }
    assert_eq!(*replica.machine.security(), before);
    replica.apply_one(token("t", "user:ann")).unwrap();
    assert!(is_security(&replica.apply_one(token("t", "user:ann"))), "a token is never replaced");
    for n in 1..limits::CREDENTIALS_PER_PRINCIPAL_MAX {
        replica.apply_one(token(&format!("t{n}"), "user:ann")).unwrap();
    }
    assert!(is_security(&replica.apply_one(token("more", "user:ann"))));
}

#[test]
fn the_last_root_stays() {
    let mut replica = secured();
    let first = Bootstrap { hash: vec![7; 32], id: "r1".into(), again: false };
    replica.apply_one(change(Change::Bootstrap(first.clone()))).unwrap();
    let second = Bootstrap { id: "r2".into(), ..first };
    assert!(is_security(&replica.apply_one(change(Change::Bootstrap(second.clone())))), "only the first node gets it");
    let root = "user:root".to_string();
    for takes in [
        change(Change::PrincipalDelete(root.clone())),
        change(Change::CredentialDelete("r1".into())),
        principal(&root, &["viewer"]),
    ] {
        assert!(is_security(&replica.apply_one(takes)));
    }
    let again = Bootstrap { again: true, ..second };
    replica.apply_one(change(Change::Bootstrap(again))).unwrap();
    replica.apply_one(change(Change::CredentialDelete("r1".into()))).unwrap();
    replica.apply_one(principal("user:ann", &["root"])).unwrap();
    assert!(is_security(&replica.apply_one(change(Change::PrincipalDelete(root.clone())))), "ann cannot log in");
    replica.apply_one(token("a", "user:ann")).unwrap();
    replica.apply_one(change(Change::PrincipalDelete(root))).unwrap();
}

#[test]
fn a_use_of_a_credential_is_noted_and_changes_no_revision() {
    let mut replica = secured();
    replica.apply_one(principal("user:ann", &[])).unwrap();
    replica.apply_one(token("t", "user:ann")).unwrap();
    let used = CredentialsUsed { ids: vec!["t".into(), "gone".into()] };
    assert_eq!(replica.apply_one(change(Change::CredentialsUsed(used))), Ok(Done::Security(2)));
    let row = replica.machine.security().credential("t").unwrap();
    assert!(row.used > row.created);
    assert_eq!(replica.reloaded(), replica.machine);
}

#[test]
fn each_change_is_in_the_audit_with_who_had_it_done_also_when_it_was_refused() {
    let mut replica = secured();
    let create = NamespaceCreate { name: "app".into(), retention: Retention::default() };
    let create = Command::NamespaceCreate(create);
    replica.apply_one(create.clone().frame_of(Some(actor())).unwrap()).unwrap();
    replica.apply_one(create.frame_of(Some(actor())).unwrap()).unwrap_err();
    replica.apply_one(principal("user:bob", &[])).unwrap();
    replica.apply_one(central::config("{}", None)).unwrap();
    let lines = audit(&replica);
    let subjects: Vec<&str> = lines.iter().map(|(subject, _)| subject.as_str()).collect();
    let twice = "_audit.namespace.create";
    assert_eq!(subjects, [twice, twice, "_audit.security.principal_set"], "nobody had the configuration set");
    let who = r#"{"principal":"user:ann","credential":"t1","address":"10.0.0.1:5","door":"rest","request":"r-1","#;
    assert!(lines.iter().all(|(_, payload)| payload.starts_with(who)), "{lines:?}");
    assert!(lines[0].1.contains(r#""target":"app","outcome":"done","at":""#), "{lines:?}");
    assert!(lines[1].1.contains(r#""outcome":"refused","reason":"namespace exists: app","at":""#), "{lines:?}");
    assert!(
        lines[2].1.contains(r#""target":"user:bob","revision_before":0,"revision_after":1,"outcome""#),
        "{lines:?}"
    );
}

#[test]
fn refusals_of_a_second_are_one_line_and_long_texts_are_cut() {
    let mut replica = secured();
    let line = |target: &str| AuditLine {
        actor: Some(actor()),
        what: "denied.config:read".into(),
        target: target.into(),
        outcome: "denied".into(),
        count: 12,
    };
    let audited = Audited { lines: vec![line("orders.x"), line(&"ä".repeat(9999))] };
    replica.apply_one(change(Change::Audited(audited))).unwrap();
    let lines = audit(&replica);
    assert_eq!(lines[0].0, "_audit.denied.config_read");
    assert!(lines[0].1.contains(r#""target":"orders.x","outcome":"denied","count":12,"#), "{lines:?}");
    assert!(lines[1].1.len() < 700, "{}", lines[1].1.len());
}

#[test]
fn the_audit_is_kept_for_thirty_days_at_least_and_nobody_writes_or_deletes_it() {
    let mut replica = secured();
    replica.apply_one(principal("user:bob", &[])).unwrap();
    let day = 86_400_000;
    assert_eq!(replica.machine.head("_audit").unwrap().retention.age_ms_max, 90 * day);
    let mut retain = |age_ms_max, events_max| {
        let mut retention = Retention::default();
        (retention.age_ms_max, retention.events_max) = (age_ms_max, events_max);
        let retain = NamespaceRetain { name: "_audit".into(), retention };
        replica.apply_one(Command::NamespaceRetain(retain).frame().unwrap())
    };
    assert!(is_security(&retain(29 * day, 0)) && is_security(&retain(60 * day, 10)));
    assert!(retain(30 * day, 0).is_ok() && retain(0, 0).is_ok());
    let delete = NamespaceDelete { name: "_audit".into() };
    let reserved = Err(Refusal::NamespaceReserved("_audit".into()));
    assert_eq!(replica.apply_one(Command::NamespaceDelete(delete).frame().unwrap()), reserved);
    let internal = publish("_audit", &[event("_audit.x", "", "")], FLAG_CREATE | FLAG_INTERNAL);
    assert_eq!(replica.apply_one(internal), reserved, "not even the bus: only the rules");
}

#[test]
fn before_the_level_the_audit_is_a_namespace_like_others_and_an_actor_leaves_no_line() {
    let mut replica = Replica::default();
    replica.apply_one(plain("_audit")).unwrap();
    let create = NamespaceCreate { name: "app".into(), retention: Retention::default() };
    replica.apply_one(Command::NamespaceCreate(create).frame_of(Some(actor())).unwrap()).unwrap();
    assert_eq!(replica.machine.head("_audit").unwrap().events(), 1);
    let attributed = change(Change::PrincipalDelete("x".into()));
    let needs = crate::command::admission::check_level(&attributed, 1, FeatureLevel::HEADERS);
    assert!(matches!(needs, Err(Refusal::Unavailable(_))));
}

#[test]
fn a_key_of_nats_is_a_credential_from_the_level_of_xbus_on() {
    let key = format!("U{}", "A2".repeat(27) + "B");
    let add = |key: &str, id: String| {
        let (principal, proof) = ("service:shop".into(), Some(Proof::Nkey(key.into())));
        Change::CredentialAdd(Credential { id, principal, proof, ..Credential::default() })
    };
    let good = add(&key, Credential::nkey_id(&key));
    assert_eq!(Command::security(None, good.clone()).required_level(), FeatureLevel::XBUS);
    let mut replica = secured();
    replica.apply_one(principal("service:shop", &[])).unwrap();
    assert!(!replica.machine.security().has_nkeys());
    let lower = key.to_lowercase();
    for (key, id) in [
        (&*key, "nkey:other".into()),
        (key.trim_start_matches('U'), Credential::nkey_id(key.trim_start_matches('U'))),
        (&lower, Credential::nkey_id(&lower)),
        (&key.replace('U', "A"), Credential::nkey_id(&key.replace('U', "A"))),
    ] {
        assert!(matches!(replica.apply_one(change(add(key, id))), Err(Refusal::Malformed(_))), "{key}");
    }
    assert_eq!(replica.apply_one(change(good.clone())), Ok(Done::Security(2)));
    assert_eq!(replica.apply_one(change(good)), Ok(Done::Security(3)), "the same again");
    assert!(replica.machine.security().has_nkeys());
    assert_eq!(replica.reloaded(), replica.machine);
    replica.apply_one(change(Change::CredentialDelete(Credential::nkey_id(&key)))).unwrap();
    assert!(!replica.machine.security().has_nkeys());
}
