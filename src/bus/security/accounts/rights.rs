//! The rights that an account of Xbus has on subjects, by what it is for and by what its actors do. Pure.

use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::principal::{Kind, Principal};
use rollbook_core::security::right::{Right, Verb};
use rollbook_core::security::rights::Rule;
use rollbook_core::xbus::account::row::{AccountRow, AccountStatus, AccountType, ActorKind, ActorRow, ActorStatus};
use rollbook_core::xbus::id::Id;

/// The role that rules of accounts name.
const ROLE: &str = "xbus";
/// How subjects of Xbus begin.
const PREFIX: &str = "xbus.default";

/// A role that stands for the right to register, of clients at a door for Xbus that show no credential. No stored role
/// and no JWT can have that name, which has a blank.
pub const REGISTRANT: &str = "xbus registrant";

/// Collects rules.
#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add(&mut self, verb: Verb, pattern: &str) {
        self.0.extend(Right::new(false, verb, pattern).ok().map(|right| Rule { role: ROLE.to_owned(), right }));
    }

    /// The right to call, with protobuf and with JSON.
    fn call(&mut self, subject: &str) {
        self.add(Verb::Publish, &format!("{PREFIX}.{subject}"));
        self.add(Verb::Publish, &format!("{PREFIX}.{subject}.json"));
    }

    fn hear(&mut self, subject: &str) {
        self.add(Verb::Subscribe, &format!("{PREFIX}.{subject}"));
    }
}

/// The rules of who has no account yet.
pub(in crate::bus::security) fn registrant() -> Vec<Rule> {
    let mut rules = Rules::default();
    rules.call("registration.register");
    rules.0
}

/// The rules of the account that a principal is; none when it is none, or one that is not enabled.
pub(in crate::bus::security) fn of(xbus: &Xbus, principal: &Principal) -> Vec<Rule> {
    let account = Some(principal.name()).filter(|_| principal.kind() == Kind::Actor);
    let account = account.and_then(|name| xbus.account_named(name));
    let enabled = account.filter(|account| account.status() == AccountStatus::Enabled);
    let found = enabled.and_then(|account| Some((account, Id::from_slice(&account.id).ok()?)));
    let Some((account, id)) = found else { return Vec::new() };
    let mut rules = Rules::default();
    own(&mut rules, account, id);
    match account.kind() {
        AccountType::User => {
            rules.add(Verb::Publish, &format!("{PREFIX}.control.>"));
            rules.call("sentinel.listactors");
            rules.hear("core.events.>");
        }
        // An API key is no part of the state: only its hash is.
        AccountType::Gateway => rules.call("client.whoami.*"),
        AccountType::Actor | AccountType::NoType => {}
    }
    for row in xbus.actors_of(id) {
        if let Ok(actor) = Id::from_slice(&row.id) {
            of_actor(&mut rules, row, actor);
        }
    }
    rules.0
}

fn own(rules: &mut Rules, account: &AccountRow, id: Id) {
    let name = &account.name;
    rules.call(&format!("registration.update.{id}"));
    rules.call(&format!("client.whoami.{name}"));
    rules.call(&format!("client.{id}.getactors"));
    rules.hear(&format!("client.whoami.{name}.reply"));
    rules.hear("sentinel.survey");
    let inbox = format!("_INBOX.{id}.>");
    rules.add(Verb::Publish, &inbox);
    rules.add(Verb::Subscribe, &inbox);
}

/// An actor that waits for an operator may listen already, and say that it is ready: it works as soon as it is enabled.
fn of_actor(rules: &mut Rules, row: &ActorRow, actor: Id) {
    if !matches!(row.status(), ActorStatus::Enabled | ActorStatus::Pending) {
        return;
    }
    rules.call(&format!("sentinel.actorready.{actor}"));
    rules.call(&format!("sentinel.actorleaving.{actor}"));
    let (sends, takes) = match row.kind() {
        ActorKind::Emitter => (true, false),
        ActorKind::Worker => (true, true),
        ActorKind::Consumer => (false, true),
    };
    if takes {
        rules.hear(&format!("actoragent.{actor}.>"));
        rules.add(Verb::Subscribe, &format!("xbus.msgbox.{actor}.input.>"));
    }
    rules.hear(&format!("processstate.{actor}.>"));
    rules.hear(&format!("processstate.envelopestates.{actor}.>"));
    if row.status() != ActorStatus::Enabled {
        return;
    }
    if sends {
        rules.call(&format!("broker.{actor}.output"));
    }
    if takes {
        rules.call(&format!("director.processingend.{actor}"));
    }
    rules.call(&format!("director.log.{actor}"));
    rules.call(&format!("envelopestorage.retrieve.actor.{actor}"));
}

#[cfg(test)]
mod tests {
    use rollbook_core::security::rights::Rights;

    use super::*;

    const ACCOUNT: &str = "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a";

    fn actor(number: u8, kind: ActorKind, status: ActorStatus) -> ActorRow {
        let id = vec![number; 16];
        let mut row = ActorRow { id, name: format!("a{number}"), account: vec![10; 16], ..ActorRow::default() };
        row.set_kind(kind);
        row.set_status(status);
        row
    }

    fn rights(kind: AccountType, status: AccountStatus, actors: &[ActorRow]) -> Rights {
        let mut account = AccountRow { id: vec![10; 16], name: "shop".into(), ..AccountRow::default() };
        account.set_kind(kind);
        account.set_status(status);
        let xbus = Xbus::with_rows([account], actors.iter().cloned());
        let principal: Principal = "actor:shop".parse().unwrap();
        Rights::compile(&principal, of(&xbus, &principal))
    }

    fn id(number: u8) -> Id {
        Id::new([number; 16])
    }

    #[test]
    fn an_account_may_use_its_own_subjects_alone() {
        let own = rights(AccountType::Actor, AccountStatus::Enabled, &[]);
        for subject in [
            format!("xbus.default.registration.update.{ACCOUNT}"),
            "xbus.default.client.whoami.shop".to_owned(),
            format!("xbus.default.client.{ACCOUNT}.getactors"),
        ] {
            assert!(own.allows(Verb::Publish, &subject), "{subject}");
            assert!(own.allows(Verb::Publish, &format!("{subject}.json")), "{subject}");
        }
        assert!(own.allows(Verb::Publish, &format!("_INBOX.{ACCOUNT}.in.x")));
        assert!(own.allows_subscription(&format!("_INBOX.{ACCOUNT}.in.x")));
        assert!(own.allows_subscription("xbus.default.client.whoami.shop.reply"));
        assert!(own.allows_subscription("xbus.default.sentinel.survey"));
        for subject in [
            "xbus.default.client.whoami.other",
            "xbus.default.control.account.list",
            "xbus.default.sentinel.listactors",
            "xbus.default.sentinel.survey",
            "xbus.default.core.events.actor",
            "app.orders",
        ] {
            assert!(!own.allows(Verb::Publish, subject), "{subject}");
        }
        for filter in ["xbus.>", "xbus.default.core.events.>", "_INBOX.>", "xbus.default.client.whoami.*.reply"] {
            assert!(!own.allows_subscription(filter), "{filter}");
        }
    }

    #[test]
    fn an_actor_may_do_what_its_kind_does() {
        let kinds = [(1, ActorKind::Emitter), (2, ActorKind::Worker), (3, ActorKind::Consumer)];
        let actors: Vec<ActorRow> =
            kinds.iter().map(|(number, kind)| actor(*number, *kind, ActorStatus::Enabled)).collect();
        let own = rights(AccountType::Actor, AccountStatus::Enabled, &actors);
        for (number, kind) in kinds {
            let actor = id(number);
            let publishes = |subject: String| own.allows(Verb::Publish, &format!("xbus.default.{subject}"));
            assert_eq!(publishes(format!("broker.{actor}.output")), kind != ActorKind::Consumer, "{kind:?}");
            assert_eq!(publishes(format!("broker.{actor}.output.json")), kind != ActorKind::Consumer, "{kind:?}");
            assert_eq!(publishes(format!("director.processingend.{actor}")), kind != ActorKind::Emitter, "{kind:?}");
            assert!(publishes(format!("director.log.{actor}")) && publishes(format!("sentinel.actorready.{actor}")));
            let hears = |filter: String| own.allows_subscription(&filter);
            assert_eq!(hears(format!("xbus.default.actoragent.{actor}.>")), kind != ActorKind::Emitter, "{kind:?}");
            assert_eq!(hears(format!("xbus.msgbox.{actor}.input.default")), kind != ActorKind::Emitter, "{kind:?}");
            assert!(hears(format!("xbus.default.processstate.{actor}.>")));
            assert!(!publishes(format!("actoragent.{actor}.process")));
        }
        assert!(!own.allows(Verb::Publish, &format!("xbus.default.broker.{}.output", id(4))));
        assert!(!own.allows_subscription("xbus.default.actoragent.>"));
    }

    #[test]
    fn an_actor_that_waits_may_listen_and_one_that_is_disabled_may_nothing() {
        let waiting = [actor(1, ActorKind::Worker, ActorStatus::Pending)];
        let own = rights(AccountType::Actor, AccountStatus::Enabled, &waiting);
        assert!(own.allows_subscription(&format!("xbus.default.actoragent.{}.>", id(1))));
        assert!(own.allows(Verb::Publish, &format!("xbus.default.sentinel.actorready.{}", id(1))));
        assert!(!own.allows(Verb::Publish, &format!("xbus.default.broker.{}.output", id(1))));
        for status in [ActorStatus::Disabled, ActorStatus::Rejected] {
            let own = rights(AccountType::Actor, AccountStatus::Enabled, &[actor(1, ActorKind::Worker, status)]);
            assert!(!own.allows_subscription(&format!("xbus.default.actoragent.{}.>", id(1))));
            assert!(!own.allows(Verb::Publish, &format!("xbus.default.sentinel.actorready.{}", id(1))));
        }
    }

    #[test]
    fn an_account_that_is_not_enabled_may_nothing() {
        for status in [AccountStatus::Pending, AccountStatus::Disabled, AccountStatus::NoStatus] {
            let actors = [actor(1, ActorKind::Emitter, ActorStatus::Enabled)];
            assert!(rights(AccountType::User, status, &actors).is_empty(), "{status:?}");
        }
    }

    #[test]
    fn users_control_and_gateways_ask_for_accounts_by_key() {
        let user = rights(AccountType::User, AccountStatus::Enabled, &[]);
        assert!(user.allows(Verb::Publish, "xbus.default.control.account.list"));
        assert!(user.allows(Verb::Publish, "xbus.default.control.account.list.json"));
        assert!(user.allows(Verb::Publish, "xbus.default.sentinel.listactors"));
        assert!(user.allows_subscription("xbus.default.core.events.actor"));
        let gateway = rights(AccountType::Gateway, AccountStatus::Enabled, &[]);
        assert!(gateway.allows(Verb::Publish, "xbus.default.client.whoami.anykey.json"));
        assert!(!gateway.allows(Verb::Publish, "xbus.default.control.account.list"));
    }

    #[test]
    fn the_largest_account_loses_no_right() {
        let actors: Vec<ActorRow> =
            (0..=255).map(|number| actor(number, ActorKind::Worker, ActorStatus::Enabled)).collect();
        let own = rights(AccountType::User, AccountStatus::Enabled, &actors);
        assert!(own.allows(Verb::Publish, &format!("xbus.default.envelopestorage.retrieve.actor.{}.json", id(255))));
        assert!(own.allows_subscription(&format!("xbus.default.processstate.envelopestates.{}.>", id(255))));
    }

    #[test]
    fn who_has_no_account_may_register_and_nothing_else() {
        let rules: Vec<String> = registrant().iter().map(|rule| rule.right.to_string()).collect();
        let right = "publish xbus.default.registration.register";
        assert_eq!(rules, [right.to_owned(), format!("{right}.json")]);
    }
}
