//! From the replicated rows to the rights and limits of one principal. Pure.

use rollbook_core::machine::security::state::Security;
use rollbook_core::security::builtin;
use rollbook_core::security::model::RoleLimits;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::rights::{Rights, Rule};

/// What a principal may do, and how much of it.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The rights.
    pub rights: Rights,
    /// The limits.
    pub limits: RoleLimits,
    /// The roles, those that do not exist left out.
    pub roles: Vec<String>,
}

/// Compiles the rights of a principal: its own, those of its roles, and those of roles that a JWT claims. A principal
/// that is shut out has none.
#[must_use]
pub fn compile(security: &Security, principal: &Principal, claimed: &[String]) -> Compiled {
    let row = security.principal(&principal.to_string());
    if row.is_some_and(|row| row.disabled) {
        return Compiled::default();
    }
    let mut rules = Vec::new();
    let mut compiled = Compiled::default();
    let own = row.map(|row| (row.rights.as_slice(), row.roles.as_slice())).unwrap_or_default();
    let rule = |role: &str, text: &String| Some(Rule { role: role.to_owned(), right: text.parse().ok()? });
    rules.extend(own.0.iter().filter_map(|text| rule("", text)));
    for name in own.1.iter().chain(claimed) {
        if compiled.roles.contains(name) {
            continue;
        }
        if let Some(rights) = builtin::rights(name) {
            rules.extend(rights.into_iter().map(|right| Rule { role: name.clone(), right }));
        } else if let Some(role) = security.role(name) {
            rules.extend(role.rights.iter().filter_map(|text| rule(name, text)));
            widen(&mut compiled.limits, role.limits.unwrap_or_default());
        } else {
            continue;
        }
        compiled.roles.push(name.clone());
    }
    compiled.rights = Rights::compile(principal, rules);
    compiled
}

/// Takes the limits of one more role: of two limits the larger one counts, and a role without a limit lifts none.
fn widen(limits: &mut RoleLimits, more: RoleLimits) {
    // `None` is less than any limit.
    limits.connections = limits.connections.max(more.connections);
    limits.connects_per_second = limits.connects_per_second.max(more.connects_per_second);
    limits.publishes_per_second = limits.publishes_per_second.max(more.publishes_per_second);
    limits.publish_bytes_per_second = limits.publish_bytes_per_second.max(more.publish_bytes_per_second);
    limits.calls_per_second = limits.calls_per_second.max(more.calls_per_second);
    limits.streams = limits.streams.max(more.streams);
    limits.namespace_bytes = limits.namespace_bytes.max(more.namespace_bytes);
}
