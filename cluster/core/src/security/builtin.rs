//! The built-in roles. They are part of the rules: nobody can change them, and all nodes have the same.

use alloc::vec::Vec;

use super::right::Right;

/// The role that may do everything.
pub const ROOT: &str = "root";

/// Names and rights of the built-in roles, and what each is for.
pub const BUILT_IN: [(&str, &str, &[&str]); 6] = [
    (
        ROOT,
        "may do everything",
        &[
            "publish >",
            "publish _bus_.>",
            "publish _dead_.>",
            "subscribe >",
            "subscribe _bus_.>",
            "subscribe _dead_.>",
            "subscribe _audit.>",
            "offer >",
            "call >",
            "command >",
            "config:read >",
            "config:write >",
            "process >",
            "pipeline >",
            "admin:read >",
            "admin:write >",
            "admin:security >",
            "admin:cluster >",
        ],
    ),
    (
        "operator",
        "runs the cluster and everything in it; changes no principals, roles or credentials",
        &[
            "publish >",
            "subscribe >",
            "subscribe _dead_.>",
            "subscribe _audit.>",
            "offer >",
            "call >",
            "command >",
            "config:read >",
            "config:write >",
            "process >",
            "pipeline >",
            "admin:read >",
            "admin:write >",
            "admin:cluster >",
        ],
    ),
    (
        "viewer",
        "sees everything but secrets, and changes nothing",
        &["subscribe >", "subscribe _dead_.>", "subscribe _audit.>", "config:read public", "admin:read >"],
    ),
    (
        "service",
        "registers under its own name, offers and calls what has that name, uses the namespace of that name, follows the roll and gets notifications",
        &[
            "offer {name}",
            "call {name}:>",
            "publish {name}.>",
            "subscribe {name}.>",
            "subscribe roll.>",
            "subscribe notify.>",
            "config:read public",
        ],
    ),
    ("publisher", "publishes to all subjects", &["publish >"]),
    ("subscriber", "subscribes to all subjects", &["subscribe >"]),
];

/// Whether a role of this name is built in.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(built_in, ..)| *built_in == name)
}

/// The rights of a built-in role.
#[must_use]
pub fn rights(name: &str) -> Option<Vec<Right>> {
    let (.., texts) = BUILT_IN.iter().find(|(built_in, ..)| *built_in == name)?;
    Some(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::principal::{Kind, Principal};
    use crate::security::right::Verb;
    use crate::security::rights::{Rights, Rule};

    fn role(name: &str) -> Rights {
        let ann = Principal::new(Kind::User, "ann").unwrap();
        let rules = rights(name).unwrap().into_iter().map(|right| Rule { role: name.into(), right });
        Rights::compile(&ann, rules)
    }

    #[test]
    fn every_right_of_a_built_in_role_can_be_read() {
        for (name, _, texts) in BUILT_IN {
            assert_eq!(rights(name).map(|rights| rights.len()), Some(texts.len()), "{name}");
            assert!(is_built_in(name) && !is_built_in("other"));
        }
    }

    #[test]
    fn root_may_do_everything_an_operator_all_but_security_and_a_viewer_only_look() {
        for verb in Verb::ALL {
            assert!(role(ROOT).allows(verb, "a.b"), "{verb}");
            assert_eq!(role("operator").allows(verb, "a.b"), verb != Verb::AdminSecurity, "{verb}");
            let looks = matches!(verb, Verb::Subscribe | Verb::AdminRead);
            assert_eq!(role("viewer").allows(verb, "a.b"), looks, "{verb}");
        }
        assert!(
            role("viewer").allows(Verb::ConfigRead, "public") && !role("viewer").allows(Verb::ConfigRead, "secret")
        );
        assert!(role(ROOT).allows_subscription("_audit.>") && !role("subscriber").allows_subscription("_audit.>"));
    }
}
