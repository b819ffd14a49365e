//! Nobody gives more than it has: what a client may change whose right to change the security state is limited.
//!
//! A client that may change everything in `security/` is as much as `root` and may give anything. Whoever may change
//! one principal or role alone gives only rights that are its own, and takes back only denials that do not bind itself.

use rollbook_core::machine::security::state::Security;
use rollbook_core::security::builtin;
use rollbook_core::security::change::Change;
use rollbook_core::security::model::PrincipalRow;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::right::{Right, Verb};

use super::accounts::rights as account_rights;
use super::compile::RightsSource;
use super::identity::Identity;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;

/// The target of a client that may change the whole security state.
const WHOLE: &str = "security/>";

impl Identity {
    /// Checks that a change gives nobody what the client has not.
    ///
    /// # Errors
    /// [`FaultKind::Forbidden`], with the first right that the client would give and does not have.
    pub fn check_escalation(&self, from: RightsSource<'_>, change: &Change) -> Result<(), Fault> {
        let rights = self.grant().rights();
        if rights.is_everything() || rights.decide_pattern(Verb::AdminSecurity, WHOLE).is_allowed() {
            return Ok(());
        }
        let given = match change {
            // A client may have more credentials of its own: `POST /api/security/login` makes them.
            Change::CredentialAdd(credential) if credential.principal == self.name() => return Ok(()),
            Change::IssuerSet(_) => {
                return Err(self.escalates("an issuer, which says who anybody is", &format!("admin:security {WHOLE}")));
            }
            change => given(from, change),
        };
        let missing = given.iter().find(|right| !rights.decide_pattern(right.verb, right.pattern()).is_allowed());
        missing.map_or(Ok(()), |right| Err(self.escalates("rights that it has not", &right.to_string())))
    }

    fn escalates(&self, what: &str, needed: &str) -> Fault {
        let name = self.name();
        self.note_denial("escalate", needed);
        Fault::new(FaultKind::Forbidden, format!("{name} may not give {what}: it needs `{needed}` itself"))
    }
}

/// The rights that a change gives somebody, as allowing ones. A denial that goes gives what was denied.
fn given(from: RightsSource<'_>, change: &Change) -> Vec<Right> {
    let security = from.security;
    let (before, after) = match change {
        // Whoever is shut out has nothing, but comes back without the denials that go now.
        Change::PrincipalSet(row) if row.disabled => {
            let after = of_row(security, row).into_iter().filter(|right| right.deny).collect();
            (of_principal(security, security.principal(&row.principal)), after)
        }
        Change::PrincipalSet(row) => {
            (of_principal(security, security.principal(&row.principal)), of_row(security, row))
        }
        Change::PrincipalDelete(name) => (of_principal(security, security.principal(name)), Vec::new()),
        Change::RoleSet(role) => (of_role(security, &role.name, ""), read(&role.rights, "")),
        Change::RoleDelete(name) => (of_role(security, name, ""), Vec::new()),
        Change::CredentialAdd(credential) => {
            let own = of_principal(security, security.principal(&credential.principal));
            // Whoever has a credential of an account of Xbus is that account.
            let principal = credential.principal.parse::<Principal>().ok();
            let account = principal.map(|principal| account_rights::of(from.xbus, &principal)).unwrap_or_default();
            (Vec::new(), own.into_iter().chain(account.into_iter().map(|rule| rule.right)).collect())
        }
        _ => return Vec::new(),
    };
    let gone = before.into_iter().filter(|right| right.deny && !after.contains(right));
    let lifted = gone.filter_map(|right| Right::new(false, right.verb, right.pattern()).ok());
    let allows = after.iter().filter(|right| !right.deny).cloned();
    allows.chain(lifted).collect()
}

fn of_principal(security: &Security, row: Option<&PrincipalRow>) -> Vec<Right> {
    row.map(|row| of_row(security, row)).unwrap_or_default()
}

/// The rights of a principal with this row, those of its roles included.
fn of_row(security: &Security, row: &PrincipalRow) -> Vec<Right> {
    let roles = row.roles.iter().flat_map(|role| of_role(security, role, &row.principal));
    read(&row.rights, &row.principal).into_iter().chain(roles).collect()
}

fn of_role(security: &Security, name: &str, principal: &str) -> Vec<Right> {
    match builtin::rights(name) {
        Some(rights) => rights.into_iter().map(|right| filled(right, principal)).collect(),
        None => security.role(name).map(|role| read(&role.rights, principal)).unwrap_or_default(),
    }
}

fn read(texts: &[String], principal: &str) -> Vec<Right> {
    texts.iter().filter_map(|text| text.parse().ok()).map(|right| filled(right, principal)).collect()
}

/// A right as it is for a principal, or, without one, for any principal. A pattern that cannot be told becomes
/// everything, so that nobody gives what was not compared.
fn filled(right: Right, principal: &str) -> Right {
    if !right.pattern().contains('{') {
        return right;
    }
    let (kind, name) = principal.split_once(':').filter(|(_, name)| !name.contains('.')).unwrap_or(("*", "*"));
    let pattern = right.pattern().replace("{name}", name).replace("{kind}", kind);
    let everything = || Right::new(right.deny, right.verb, ">").ok();
    Right::new(right.deny, right.verb, &pattern).ok().or_else(everything).unwrap_or(right)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rollbook_core::machine::security::state::Security;
    use rollbook_core::machine::xbus::state::Xbus;
    use rollbook_core::security::model::{Credential, Issuer, Role};

    use super::*;
    use crate::bus::security::denials::Denials;
    use crate::bus::security::grant::Grant;
    use crate::bus::security::identity::Shown;
    use crate::bus::security::origin::Origin;

    fn row(principal: &str, roles: &[&str], rights: &[&str]) -> PrincipalRow {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        PrincipalRow {
            principal: principal.to_owned(),
            roles: texts(roles),
            rights: texts(rights),
            ..PrincipalRow::default()
        }
    }

    fn role(name: &str, rights: &[&str]) -> Role {
        Role { name: name.to_owned(), rights: rights.iter().map(ToString::to_string).collect(), ..Role::default() }
    }

    /// The state in which `user:ann` has these rights beside `admin:security` for a few rows.
    fn state(rights: &[&str]) -> Security {
        let limited = ["admin:security security/principals/*", "admin:security security/roles/*"];
        let own: Vec<&str> = limited.iter().chain(rights).copied().collect();
        let principals = [
            row("user:ann", &[], &own),
            row("user:boss", &["root"], &[]),
            row("user:held", &["bound"], &["publish a.>", "deny publish a.secret.>"]),
        ];
        Security::with_rows(principals, [role("bound", &["subscribe a.>", "deny subscribe a.secret.>"])])
    }

    fn may(rights: &[&str], change: Change) -> bool {
        let security = state(rights);
        let ann: Principal = "user:ann".parse().unwrap();
        let xbus = Xbus::default();
        let from = RightsSource { security: &security, xbus: &xbus };
        let grant = Arc::new(Grant::new(from, ann, Vec::new(), Arc::default()));
        let origin = Origin { door: "", address: None, local: true, certificate: None };
        let identity = Identity::new(grant, Shown::Nothing, origin, 0, Denials::default());
        identity.check_escalation(from, &change).is_ok()
    }

    fn token_of(principal: &str) -> Change {
        Change::CredentialAdd(Credential { principal: principal.to_owned(), ..Credential::default() })
    }

    #[test]
    fn who_may_change_one_principal_gives_what_it_has_and_no_more() {
        let set = |roles: &[&str], rights: &[&str]| Change::PrincipalSet(row("user:new", roles, rights));
        let own = ["publish a.>", "offer new"];
        assert!(may(&own, set(&[], &["publish a.b", "publish a.>", "deny publish >"])));
        assert!(may(&own, set(&[], &["offer {name}"])), "the variable is the name of the principal");
        assert!(!may(&own, set(&[], &["publish >"])) && !may(&own, set(&[], &["subscribe a.b"])));
        assert!(!may(&own, set(&["root"], &[])) && !may(&own, set(&["bound"], &[])));
        assert!(!may(&["publish a.>", "deny publish a.secret.>"], set(&[], &["publish a.>"])), "a denial binds both");
        assert!(may(&["admin:security >"], set(&["root"], &[])), "who may change everything is as much as root");
    }

    #[test]
    fn a_credential_of_somebody_who_may_more_is_not_made() {
        assert!(!may(&[], token_of("user:boss")) && !may(&["publish a.>"], token_of("user:held")));
        assert!(may(&["publish a.>", "subscribe a.>"], token_of("user:held")));
        assert!(may(&[], token_of("user:ann")) && may(&[], token_of("user:nobody")));
    }

    #[test]
    fn a_role_gives_its_rights_to_all_who_have_it() {
        let own = ["publish a.>", "offer b"];
        assert!(may(&own, Change::RoleSet(role("writers", &["publish a.b"]))));
        assert!(!may(&own, Change::RoleSet(role("writers", &["offer {name}"]))), "any principal may have the role");
        assert!(may(&["offer *"], Change::RoleSet(role("writers", &["offer {name}"]))));
        assert!(!may(&["offer *"], Change::RoleSet(role("writers", &["offer x{name}.b"]))));
    }

    #[test]
    fn a_denial_is_taken_back_by_those_alone_whom_it_does_not_bind() {
        let lifts: [Change; 4] = [
            Change::PrincipalSet(row("user:held", &[], &[])),
            Change::PrincipalDelete("user:held".to_owned()),
            Change::RoleDelete("bound".to_owned()),
            Change::RoleSet(role("bound", &[])),
        ];
        for change in lifts {
            assert!(!may(&["publish b.>"], change.clone()), "{change:?}");
            assert!(may(&["publish a.secret.>", "subscribe a.secret.>"], change.clone()), "{change:?}");
        }
        let shut = |roles: &[&str], rights: &[&str]| {
            Change::PrincipalSet(PrincipalRow { disabled: true, ..row("user:held", roles, rights) })
        };
        assert!(may(&[], shut(&["root", "bound"], &["deny publish a.secret.>"])), "whoever is shut out has nothing");
        assert!(!may(&[], shut(&["bound"], &[])), "and comes back without the denials that are gone");
    }

    #[test]
    fn an_issuer_is_for_those_who_may_change_everything() {
        assert!(!may(&["admin:security security/issuers/*"], Change::IssuerSet(Issuer::default())));
        assert!(may(&["admin:security security/>"], Change::IssuerSet(Issuer::default())));
        assert!(may(&[], Change::CredentialDelete("x".to_owned())) && may(&[], Change::IssuerDelete("x".to_owned())));
    }
}
