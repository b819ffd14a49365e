//! Accounts and actors, and the principals and credentials that stand for them.

use super::*;
use crate::security::change::{Change as Secures, SecurityChange};
use crate::security::model::{Credential, PrincipalRow, Proof, Role};
use crate::xbus::account::register::Answer;
use crate::xbus::account::row::{AccountStatus, ConfigEntry};
use crate::xbus::change::{ActorSet, ApiKey};
use crate::xbus::limits::{ACTORS_PER_ACCOUNT_MAX, CONFIG_BYTES_MAX};

impl Story {
    fn secure(&mut self, change: Secures) {
        let change = SecurityChange { if_revision: None, change: Some(change) };
        self.millis += 10;
        let frame = Command::Security(alloc::boxed::Box::new(change)).frame().unwrap();
        self.replica.apply_at(self.millis, &[frame]).pop().unwrap().unwrap();
    }

    fn principal(&self) -> Option<(bool, Vec<String>)> {
        self.replica.machine.security().principal("actor:shop").map(|row| (row.disabled, row.roles.clone()))
    }

    fn certificate(&self) -> Option<String> {
        match self.replica.machine.security().credential("xbus:shop")?.proof.clone()? {
            Proof::Certificate(fingerprint) => Some(fingerprint),
            other => panic!("{other:?}"),
        }
    }

    fn account_status(&self) -> AccountStatus {
        self.replica.machine.xbus().account_named("shop").unwrap().status()
    }
}

fn registered(done: &XbusDone) -> Answer {
    done.account.as_ref().unwrap().answer()
}

#[test]
fn an_account_is_a_principal_with_a_credential_from_its_acceptance_on() {
    let mut story = Story::empty();
    let request = registration(SHOP, "shop", 1, &[actor(EMITTER, "emitter", ActorKind::Emitter, "e")]);
    assert_eq!(registered(&story.done(Change::Register(request.clone()))), Answer::Pending);
    assert_eq!((story.principal(), story.certificate()), (None, None));
    assert_eq!(story.refused(enable(SHOP, true)), "account shop has no certificate; accept the account");
    assert_eq!(story.refused(accept(SHOP, 2)), "account shop has another request by now");
    let before = (story.replica.machine.xbus().revision(), story.replica.machine.security().revision());
    story.done(accept(SHOP, 1));
    let after = (story.replica.machine.xbus().revision(), story.replica.machine.security().revision());
    assert!(after.0 > before.0 && after.1 > before.1, "caches beside the machine hear of it");
    assert_eq!((story.principal(), story.certificate()), (Some((false, vec![])), Some("sha256:01".into())));
    let done = story.done(Change::Register(request));
    assert_eq!(registered(&done), Answer::Accepted);
    assert_eq!(done.account.unwrap().account.certificate, "CERT 1");
}

#[test]
fn a_disabled_account_is_shut_out_and_let_in_again() {
    let mut story = Story::new();
    story.done(enable(SHOP, false));
    assert_eq!((story.principal().unwrap().0, story.account_status()), (true, AccountStatus::Disabled));
    let again = registration(SHOP, "shop", 1, &[actor(99, "another", ActorKind::Emitter, "e")]);
    let done = story.done(Change::Register(again));
    assert_eq!(registered(&done), Answer::Rejected);
    assert_eq!(done.account.unwrap().account.certificate, "", "who is not let in learns nothing");
    assert!(story.replica.machine.xbus().actor_named("another").is_none());
    let emitter = story.replica.machine.xbus().actor(uid(EMITTER)).unwrap();
    assert!(!story.replica.machine.xbus().is_enabled(emitter), "the actor itself is enabled");
    story.done(enable(SHOP, true));
    assert_eq!((story.principal().unwrap().0, story.account_status()), (false, AccountStatus::Enabled));
}

#[test]
fn an_account_whose_principal_has_a_role_that_is_gone_can_be_shut_out_all_the_same() {
    let mut story = Story::empty();
    story.secure(Secures::RoleSet(Role { name: "clerk".into(), ..Role::default() }));
    story.account();
    let row = PrincipalRow { principal: "actor:shop".into(), roles: vec!["clerk".into()], ..PrincipalRow::default() };
    story.secure(Secures::PrincipalSet(row));
    story.secure(Secures::RoleDelete("clerk".into()));
    story.done(enable(SHOP, false));
    assert_eq!(story.principal(), Some((true, vec!["clerk".into()])));
    story.done(accept(SHOP, 1));
    assert_eq!(story.principal(), Some((false, vec!["clerk".into()])), "what operators gave stays");
}

#[test]
fn another_key_registers_after_a_reset_and_its_certificate_takes_the_place_of_the_old_one() {
    let mut story = Story::new();
    let other = Change::Register(registration(2, "shop", 2, &[]));
    assert_eq!(registered(&story.done(other.clone())), Answer::Rejected);
    story.done(Change::AccountResetCertificate(id(SHOP)));
    assert_eq!((story.certificate(), story.account_status()), (None, AccountStatus::Pending));
    assert_eq!(registered(&story.done(other)), Answer::Pending);
    story.done(Change::AccountResetCertificate(id(SHOP)));
    assert!(story.refused(accept(SHOP, 2)).contains("another request"), "a reset forgets the request too");
    story.done(Change::Register(registration(2, "shop", 2, &[])));
    story.done(accept(SHOP, 2));
    assert_eq!((story.certificate(), story.account_status()), (Some("sha256:02".into()), AccountStatus::Enabled));
    assert_eq!(story.replica.machine.xbus().accounts().count(), 1, "the id of the second request was not needed");
}

#[test]
fn an_account_that_asks_for_a_new_key_keeps_its_certificate_until_that_is_accepted() {
    let mut story = Story::new();
    let renewal = Registration { authenticated: true, ..registration(SHOP, "shop", 2, &[]) };
    assert_eq!(registered(&story.done(Change::Register(renewal))), Answer::Pending);
    assert_eq!((story.certificate(), story.account_status()), (Some("sha256:01".into()), AccountStatus::Enabled));
    story.done(accept(SHOP, 2));
    assert_eq!(story.certificate(), Some("sha256:02".into()));
}

#[test]
fn a_credential_of_somebody_else_is_neither_taken_nor_removed() {
    let mut story = Story::empty();
    story.secure(Secures::PrincipalSet(PrincipalRow { principal: "service:s".into(), ..PrincipalRow::default() }));
    let foreign = |fingerprint: &str| Credential {
        id: "xbus:shop".into(),
        principal: "service:s".into(),
        proof: Some(Proof::Certificate(fingerprint.into())),
        ..Credential::default()
    };
    story.secure(Secures::CredentialAdd(foreign("theirs")));
    story.done(Change::Register(registration(SHOP, "shop", 1, &[])));
    assert!(story.refused(accept(SHOP, 1)).contains("belongs to another principal"));
    assert_eq!(story.certificate(), Some("theirs".into()));
    story.secure(Secures::CredentialDelete("xbus:shop".into()));
    story.done(accept(SHOP, 1));
    story.secure(Secures::PrincipalDelete("actor:shop".into()));
    story.secure(Secures::CredentialAdd(foreign("theirs")));
    assert!(story.refused(enable(SHOP, true)).contains("has no certificate"), "the credential is gone");
    story.done(Change::AccountResetCertificate(id(SHOP)));
    story.done(Change::AccountDelete(id(SHOP)));
    assert_eq!(story.certificate(), Some("theirs".into()));
}

#[test]
fn a_certificate_that_cannot_be_a_credential_is_refused_as_a_whole() {
    let mut story = Story::empty();
    story.done(Change::Register(registration(SHOP, "shop", 1, &[])));
    let accept_with = |certificate: &str, fingerprint: String| {
        let Change::AccountAccept(accept) = accept(SHOP, 1) else { panic!("another change") };
        Change::AccountAccept(AccountAccept { certificate: certificate.into(), fingerprint, ..accept })
    };
    for change in
        [accept_with("", "sha256:01".into()), accept_with("CERT", String::new()), accept_with("C", "f".repeat(129))]
    {
        assert_eq!(story.refused(change), "malformed command: certificate of an account");
    }
    story.secure(Secures::PrincipalSet(PrincipalRow { principal: "actor:shop".into(), ..PrincipalRow::default() }));
    for number in 0..32_u8 {
        let (id, proof) = (format!("t{number}"), Some(Proof::Token(vec![number; 32])));
        let credential = Credential { id, principal: "actor:shop".into(), proof, ..Credential::default() };
        story.secure(Secures::CredentialAdd(credential));
    }
    assert!(story.refused(accept(SHOP, 1)).contains("revoke one"));
}

#[test]
fn a_deleted_account_takes_actors_principal_and_credential_along() {
    let mut story = Story::new();
    let done = story.done(Change::AccountDelete(id(SHOP))).account.unwrap();
    assert_eq!((done.account.name.as_str(), done.actors.len()), ("shop", 4), "the reply says who is gone");
    assert_eq!((story.principal(), story.certificate()), (None, None));
    let xbus = story.replica.machine.xbus();
    assert_eq!((xbus.accounts().count(), xbus.actors().count()), (0, 0));
    assert_eq!(story.refused(Change::AccountDelete(id(SHOP))), format!("not found: account {}", uid(SHOP)));
    story.account();
    assert_eq!(story.account_status(), AccountStatus::Enabled, "the same name and ids may come again");
}

#[test]
fn names_and_ids_of_actors_are_unique_in_the_cluster() {
    let mut story = Story::new();
    let request = |actors: &[ActorRequest]| Change::Register(registration(2, "bank", 2, actors));
    let named = |number, name: &str| actor(number, name, ActorKind::Consumer, "c");
    assert_eq!(story.refused(request(&[named(90, "consumer")])), "actor consumer belongs to another account");
    assert_eq!(story.refused(request(&[named(CONSUMER, "new")])), "malformed command: an actor has that id");
    assert_eq!(story.refused(request(&[named(90, "a"), named(90, "b")])), "malformed command: an actor has that id");
    assert_eq!(story.refused(request(&[named(0, "a")])), "malformed command: id of an actor");
    assert_eq!(
        story.refused(Change::Register(registration(SHOP, "bank", 2, &[]))),
        "malformed command: an account has that id"
    );
    story.done(request(&[named(90, "a")]));
    let set =
        |account, number, name: &str| Change::ActorSet(ActorSet { account: id(account), actor: named(number, name) });
    assert_eq!(story.refused(set(2, 90, "consumer")), "another actor has the name consumer");
    assert_eq!(story.refused(set(SHOP, 90, "a")), "the actor belongs to another account");
    assert_eq!(story.refused(set(2, 0, "b")), "malformed command: id of an actor");
    story.done(set(2, 90, "b"));
    assert!(story.replica.machine.xbus().actor_named("a").is_none(), "a new name frees the old one");
    story.done(set(2, 91, "a"));
    let refused = story.propose(Some(1), set(2, 90, "c")).unwrap_err();
    assert_eq!(refused, Refusal::RevisionMismatch("revision is 2, not 1".into()));
    story.propose(Some(2), set(2, 90, "c")).unwrap();
    story.propose(Some(0), set(2, 92, "new")).unwrap();
    assert!(story.propose(Some(0), set(2, 92, "new")).is_err());
}

#[test]
fn an_account_has_a_bounded_number_of_actors() {
    let mut story = Story::empty();
    let of = |from: usize, count: usize| {
        let actor = |number: usize| {
            let mut bytes = id(7);
            bytes[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
            ActorRequest { id: bytes, ..actor(7, &format!("a{number}"), ActorKind::Consumer, "c") }
        };
        Change::Register(registration(SHOP, "shop", 1, &(from..from + count).map(actor).collect::<Vec<_>>()))
    };
    story.done(of(0, ACTORS_PER_ACCOUNT_MAX - 1));
    assert_eq!(story.refused(of(1000, 2)), "overloaded: at most 256 actors of an account");
    story.done(of(1000, 1));
    story.done(of(0, 3));
}

#[test]
fn what_an_operator_says_of_an_actor_counts_until_it_is_said_again() {
    let mut story = Story::new();
    let entry = |key: &str, value: String| ConfigEntry { key: key.into(), value };
    let set = |status, config| Change::ActorStatus(ActorStatusSet { id: id(WORKER), status, config });
    let done = story.done(set(2, vec![entry("a", "1".into()), entry("b", "2".into())]));
    assert_eq!((done.actors[0].status(), done.actors[0].config.len()), (ActorStatus::Disabled, 2));
    let done = story.done(set(1, vec![entry("a", String::new())]));
    assert_eq!(done.actors[0].config, [entry("b", "2".into())], "an empty value removes the entry");
    assert!(story.refused(set(9, vec![])).contains("status of an actor"));
    assert!(story.refused(set(1, vec![entry("a", "x".repeat(CONFIG_BYTES_MAX))])).contains("too big"));
    story.done(Change::ActorDelete(id(WORKER)));
    assert!(story.refused(set(1, vec![])).starts_with("not found: actor"));
}

#[test]
fn that_an_actor_was_seen_changes_no_rights_and_no_revision() {
    let mut story = Story::new();
    let before = (story.replica.machine.xbus().revision(), story.replica.machine.security().revision());
    story.done(Change::ActorsSeen(ids(&[WORKER, 200])));
    let after = (story.replica.machine.xbus().revision(), story.replica.machine.security().revision());
    assert_eq!(before, after);
    assert_eq!(story.replica.machine.xbus().actor(uid(WORKER)).unwrap().last_seen, story.millis);
}

#[test]
fn an_api_key_is_the_hash_of_one_or_none() {
    let mut story = Story::new();
    let key = |bytes: usize| Change::AccountApiKey(ApiKey { id: id(SHOP), hash: vec![5; bytes] });
    assert!(story.refused(key(5)).contains("hash of an API key"));
    story.done(key(32));
    assert_eq!(story.replica.machine.xbus().account(uid(SHOP)).unwrap().api_key, [5; 32]);
    story.done(key(0));
    assert!(story.replica.machine.xbus().account(uid(SHOP)).unwrap().api_key.is_empty());
}
