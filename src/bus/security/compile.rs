//! From the replicated rows to the rights and limits of one principal. Pure.

use rollbook_core::machine::Machine;
use rollbook_core::machine::security::state::Security;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::builtin;
use rollbook_core::security::model::RoleLimits;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::rights::{Rights, Rule};

use super::accounts::rights::{self as account_rights, REGISTRANT};

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

/// The replicated state that rights come from.
#[derive(Debug, Clone, Copy)]
pub struct RightsSource<'m> {
    /// Principals, roles and credentials.
    pub security: &'m Security,
    /// Accounts of Xbus and their actors.
    pub xbus: &'m Xbus,
}

impl<'m> RightsSource<'m> {
    /// That of a machine.
    #[must_use]
    pub const fn of(machine: &'m Machine) -> Self {
        Self { security: machine.security(), xbus: machine.xbus() }
    }
}

/// Compiles the rights of a principal: its own, those of its roles, those of roles that a JWT claims, and those of the
/// account of Xbus that it is. A principal that is shut out has none.
#[must_use]
pub fn compile(from: RightsSource<'_>, principal: &Principal, claimed: &[String]) -> Compiled {
    let security = from.security;
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
        if name == REGISTRANT {
            rules.extend(account_rights::registrant());
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
    rules.extend(account_rights::of(from.xbus, principal));
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
