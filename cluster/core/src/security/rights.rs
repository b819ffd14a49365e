//! The rights of a principal, compiled: one answer to one question, without an allocation.

use alloc::string::String;
use alloc::vec::Vec;

use super::principal::Principal;
use super::right::{Right, Verb};
use super::target::TargetPattern;
use crate::subjects::interest::Interest;

/// A right and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The role that has the right; empty for a right of the principal's own.
    pub role: String,
    /// The right, as it was written.
    pub right: Right,
}

/// A rule with its pattern for one principal.
#[derive(Debug, Clone)]
struct Compiled {
    rule: Rule,
    pattern: TargetPattern,
}

/// The answer, and the rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'r> {
    /// This rule allows, and none denies.
    Allowed(&'r Rule),
    /// This rule denies.
    Denied(&'r Rule),
    /// No rule says anything about the target, so the answer is no.
    NoRule,
}

impl Decision<'_> {
    /// Whether the answer is yes.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// The rules of a subject verb as a trie. A wildcard in the first place reaches no subject with `_` in front, so such
/// patterns are kept apart.
#[derive(Debug, Clone, Default)]
struct SubjectRules {
    named: Interest<u16>,
    open: Interest<u16>,
}

/// All rights of one principal.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// The rules in their order.
    rules: Vec<Compiled>,
    publish: SubjectRules,
    subscribe: SubjectRules,
    /// Whether all targets of all verbs are allowed, and nothing is denied: no rule is looked at then.
    all: bool,
}

/// Most rules of one principal, those of all roles together: enough for an account of Xbus with as many actors as it may
/// have. Rules beyond it are left out, allowing ones first.
pub const RULES_MAX: usize = 8192;

impl Rights {
    /// Compiles the rules of a principal.
    #[must_use]
    pub fn compile(principal: &Principal, rules: impl IntoIterator<Item = Rule>) -> Self {
        let (mut own, mut denies): (Self, Vec<Compiled>) = (Self::default(), Vec::new());
        for rule in rules {
            let (verb, deny) = (rule.right.verb, rule.right.deny);
            let pattern = TargetPattern::of(verb.separators(), rule.right.pattern(), principal, deny);
            let Some(pattern) = pattern else { continue };
            let to = if deny { &mut denies } else { &mut own.rules };
            to.push(Compiled { rule, pattern });
        }
        // Denying rules come first: if there are too many rules, none of them is left out before an allowing one.
        denies.append(&mut own.rules);
        denies.truncate(RULES_MAX);
        own.rules = denies;
        for (place, Compiled { rule, pattern }) in (0_u16..).zip(&own.rules) {
            let rules = match rule.right.verb {
                Verb::Publish => &mut own.publish,
                Verb::Subscribe => &mut own.subscribe,
                _ => continue,
            };
            let trie = if pattern.is_open() { &mut rules.open } else { &mut rules.named };
            trie.insert_segments(pattern.segments(), pattern.has_tail(), place);
        }
        own
    }

    /// All rights there are, for clients of a listener without authentication.
    #[must_use]
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether everything is allowed, because there is no authentication.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.all
    }

    /// Whether there is no right at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.rules.iter().all(|compiled| compiled.rule.right.deny)
    }

    /// The rules in the order in which they are looked at.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|compiled| &compiled.rule)
    }

    /// Whether the principal may do this to one target: a subject, `capability:action`, a name.
    #[must_use]
    pub fn allows(&self, verb: Verb, target: &str) -> bool {
        self.all || self.decide(verb, target).is_allowed()
    }

    /// Whether the principal may subscribe to this pattern: every subject that the pattern matches has to be allowed,
    /// and none denied.
    #[must_use]
    pub fn allows_subscription(&self, pattern: &str) -> bool {
        self.all || self.decide_pattern(Verb::Subscribe, pattern).is_allowed()
    }

    /// Whether the principal may subscribe to a part of what this pattern matches: a rule allows a part, and none denies
    /// the whole.
    #[must_use]
    pub fn allows_some_subscription(&self, pattern: &str) -> bool {
        let rules = || self.rules.iter().filter(|one| one.rule.right.verb == Verb::Subscribe);
        let is_denied = || rules().any(|one| one.rule.right.deny && one.pattern.covers(pattern));
        self.all || self.first_overlap(Verb::Subscribe, pattern).is_some() && !is_denied()
    }

    /// The same as [`Rights::allows`], with the rule that decides. `NoRule` also where [`Rights::everything`] allows.
    #[must_use]
    pub fn decide(&self, verb: Verb, target: &str) -> Decision<'_> {
        match verb {
            Verb::Publish => self.decide_subject(&self.publish, target),
            Verb::Subscribe => self.decide_subject(&self.subscribe, target),
            _ => self.first(verb, |pattern, _| pattern.matches(target)),
        }
    }

    /// The decision about all targets that a pattern matches, such as the subjects of a subscription: one rule has to
    /// allow all of them, and none may deny any.
    #[must_use]
    pub fn decide_pattern(&self, verb: Verb, pattern: &str) -> Decision<'_> {
        self.first(verb, |own, deny| if deny { own.overlaps(pattern) } else { own.covers(pattern) })
    }

    /// The first rule that allows some of what a pattern matches.
    #[must_use]
    pub fn first_overlap(&self, verb: Verb, pattern: &str) -> Option<&Rule> {
        let mut allowing = self.rules.iter().filter(|one| one.rule.right.verb == verb && !one.rule.right.deny);
        allowing.find(|one| one.pattern.overlaps(pattern)).map(|one| &one.rule)
    }

    /// The first rule of a verb that fits; denying rules come first.
    fn first(&self, verb: Verb, fits: impl Fn(&TargetPattern, bool) -> bool) -> Decision<'_> {
        let of_verb = self.rules.iter().filter(|compiled| compiled.rule.right.verb == verb);
        let found = of_verb.map(|one| (one, one.rule.right.deny)).find(|(one, deny)| fits(&one.pattern, *deny));
        match found {
            Some((one, true)) => Decision::Denied(&one.rule),
            Some((one, false)) => Decision::Allowed(&one.rule),
            None => Decision::NoRule,
        }
    }

    fn decide_subject(&self, rules: &SubjectRules, subject: &str) -> Decision<'_> {
        // Denying rules have the smallest numbers.
        let mut first = u16::MAX;
        let mut note = |keys: &[u16]| first = keys.iter().copied().fold(first, u16::min);
        rules.named.for_each(subject, &mut note);
        if !subject.starts_with('_') {
            rules.open.for_each(subject, &mut note);
        }
        match self.rules.get(usize::from(first)).map(|compiled| &compiled.rule) {
            Some(rule) if rule.right.deny => Decision::Denied(rule),
            Some(rule) => Decision::Allowed(rule),
            None => Decision::NoRule,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::security::principal::Kind;
    use crate::subjects::pattern::tests::{any_pattern, any_subject};

    fn rule(text: &str) -> Rule {
        Rule { role: String::new(), right: text.parse().unwrap() }
    }

    fn rights(texts: &[&str]) -> Rights {
        let billing = Principal::new(Kind::Service, "billing").unwrap();
        Rights::compile(&billing, texts.iter().map(|text| rule(text)))
    }

    #[test]
    fn what_no_rule_allows_is_refused_and_a_deny_wins_over_every_allow() {
        let own = rights(&["publish orders.>", "publish orders.secret.x", "deny publish orders.secret.>"]);
        assert!(own.allows(Verb::Publish, "orders.created"));
        assert_eq!(
            own.decide(Verb::Publish, "orders.secret.x"),
            Decision::Denied(&rule("deny publish orders.secret.>"))
        );
        assert_eq!(own.decide(Verb::Publish, "users.created"), Decision::NoRule);
        assert_eq!(own.decide(Verb::Subscribe, "orders.created"), Decision::NoRule);
        assert!(!rights(&[]).allows(Verb::AdminRead, "x") && rights(&["deny publish >"]).is_empty());
    }

    #[test]
    fn a_subscription_needs_a_right_for_all_that_it_matches() {
        let own = rights(&["subscribe orders.>", "deny subscribe orders.*.secret", "subscribe users.a"]);
        assert!(own.allows_subscription("orders.eu.created") && own.allows_subscription("users.a"));
        assert!(!own.allows_subscription("orders.>"), "it would show orders.eu.secret");
        assert!(!own.allows_subscription("orders.eu.*") && own.allows_subscription("orders.*.created"));
        assert!(!own.allows_subscription("users.*") && !own.allows_subscription("users.>"));
        assert!(rights(&["subscribe >"]).allows_subscription("app.>"));
        assert!(!rights(&["subscribe >"]).allows_subscription("_audit.>"));
    }

    #[test]
    fn a_part_of_a_pattern_may_be_seen_when_it_is_allowed_and_not_all_of_it_is_denied() {
        let own = rights(&["subscribe orders.>", "deny subscribe orders.*.secret", "subscribe users.a"]);
        for pattern in ["orders.>", "orders.eu.*", "orders.eu.paid", "users.*", "users.a"] {
            assert!(own.allows_some_subscription(pattern), "{pattern}");
        }
        for pattern in ["orders.eu.secret", "orders.*.secret", "users.b", "others.>"] {
            assert!(!own.allows_some_subscription(pattern), "{pattern}");
        }
        assert!(!rights(&["subscribe >"]).allows_some_subscription("_audit.>"));
        assert!(!rights(&[]).allows_some_subscription("a.>") && Rights::everything().allows_some_subscription("a.>"));
    }

    #[test]
    fn variables_stand_for_the_principal() {
        let own = rights(&["offer {name}", "call {name}:*", "publish in.{kind}.{name}.>"]);
        assert!(own.allows(Verb::Offer, "billing") && !own.allows(Verb::Offer, "orders"));
        assert!(own.allows(Verb::Call, "billing:charge") && own.allows(Verb::Publish, "in.service.billing.x"));
    }

    #[test]
    fn rights_without_authentication_allow_everything() {
        let all = Rights::everything();
        assert!(all.allows(Verb::AdminSecurity, "x") && all.allows_subscription("_audit.>") && !all.is_empty());
    }

    proptest! {
        #[test]
        fn the_trie_decides_as_a_look_at_every_rule_does(
            rules in prop::collection::vec((any::<bool>(), any_pattern(), 0..3_u8), 0..20),
            subjects in prop::collection::vec(any_subject(), 1..10),
        ) {
            let text = |(deny, pattern, open): &(bool, crate::subjects::pattern::Pattern, u8)| {
                let rest = pattern.as_str().split_once('.').map_or("a", |(_, rest)| rest);
                let pattern = match open {
                    0 => String::from(pattern.as_str()),
                    1 => alloc::format!("*.{rest}"),
                    _ => String::from(">"),
                };
                alloc::format!("{}publish {pattern}", if *deny { "deny " } else { "" })
            };
            let texts: Vec<String> = rules.iter().map(text).collect();
            let own = rights(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            for subject in subjects {
                let slow = own.first(Verb::Publish, |pattern, _| pattern.matches(&subject));
                prop_assert_eq!(own.decide(Verb::Publish, &subject), slow, "{} {:?}", subject, texts);
            }
        }
    }
}
