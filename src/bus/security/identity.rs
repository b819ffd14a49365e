//! Who a client is. Every operation of the bus asks its identity first.

use std::sync::Arc;

use rollbook_core::central::{SECRET, without_secrets};
use rollbook_core::security::actor::Actor;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::right::Verb;
use rollbook_core::security::rights::Decision;
use rollbook_core::service::InstanceRegister;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::xbus::id::Id;

use super::denials::Denials;
use super::grant::Grant;
use super::origin::Origin;
use super::usage::Usage;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;

/// How inboxes of live subjects begin, as the libraries of NATS name them.
const INBOX: &str = "_INBOX.";
/// Shortest random token of an inbox. Whoever knows the name of an inbox may use it.
const INBOX_TOKEN_BYTES_MIN: usize = 16;

/// The random token of an inbox, if a live subject or filter names one inbox: `_INBOX.TOKEN`, or anything below.
fn inbox_of(text: &str) -> Option<&str> {
    let token = text.strip_prefix(INBOX)?.split('.').next()?;
    // A UUID is the id of an account of Xbus, which is no secret: its inboxes are for the account alone.
    (token.len() >= INBOX_TOKEN_BYTES_MIN && token.parse::<Id>().is_err()).then_some(token)
}

/// What a client has shown to be its principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// A token, by its id.
    Token(String),
    /// A password, by the id of its credential.
    Password(String),
    /// A certificate, by its fingerprint, and the id of the credential that names it, if one does.
    Certificate(String, Option<String>),
    /// A JWT, by the name of its issuer, and the id of the JWT.
    Jwt(String, String),
}

impl Shown {
    /// The credential as the audit shows it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Token(id) | Self::Password(id) => id.clone(),
            Self::Certificate(fingerprint, _) => fingerprint.clone(),
            Self::Jwt(issuer, id) => format!("jwt:{issuer}:{id}"),
        }
    }
}

/// Who a client is, and what it may do now.
#[derive(Debug)]
pub struct Identity {
    grant: Arc<Grant>,
    shown: Shown,
    origin: Origin,
    /// When the credential ends to count, milliseconds since 1970; 0: never.
    expires: u64,
    denials: Denials,
}

impl Identity {
    /// An identity that the authority has verified.
    pub(super) const fn new(grant: Arc<Grant>, shown: Shown, origin: Origin, expires: u64, denials: Denials) -> Self {
        Self { grant, shown, origin, expires, denials }
    }

    /// An identity that may do everything, for tests and for what the node does by itself.
    #[must_use]
    pub fn everything(door: &'static str) -> Arc<Self> {
        let origin = Origin { door, address: None, local: true, certificate: None };
        Arc::new(Self::new(Arc::new(Grant::everything()), Shown::Nothing, origin, 0, Denials::default()))
    }

    /// An identity that may do nothing: that of a door before a client has come.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        let origin = Origin { door: "", address: None, local: false, certificate: None };
        Arc::new(Self::new(Arc::new(Grant::nothing()), Shown::Nothing, origin, 0, Denials::default()))
    }

    /// The principal.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.grant.principal()
    }

    /// The principal as text.
    #[must_use]
    pub fn name(&self) -> &str {
        self.grant.name()
    }

    /// The rights of the principal, shared by its clients.
    #[must_use]
    pub const fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// What the client has shown.
    #[must_use]
    pub const fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Where the client comes from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When the credential ends to count, milliseconds since 1970; 0: never.
    #[must_use]
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// What the principal uses at this node, and may use.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        self.grant.usage()
    }

    /// Whether the two are clients of one principal.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.grant.name() == other.grant.name()
    }

    /// Whether the client has shown no credential.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.shown == Shown::Nothing
    }

    /// Whether there is no authentication for this client, so that everything is allowed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.grant.rights().is_everything()
    }

    /// Whether the client may do this. A refusal is not noted: for lists that leave out what one may not see.
    #[must_use]
    pub fn may(&self, verb: Verb, target: &str) -> bool {
        self.grant.rights().allows(verb, target)
    }

    /// Whether the client may subscribe to this pattern. A refusal is not noted.
    #[must_use]
    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        // Nobody can guess the name of somebody's inbox, and the inbox of the principal is its own.
        pattern.is_inbox() && !self.may_nothing() || self.grant.rights().allows_subscription(pattern.as_str())
    }

    /// A document of the central configuration as the client may see it: what is under `$secret` only with the right to
    /// that.
    #[must_use]
    pub fn visible_config(&self, document: Vec<u8>) -> Vec<u8> {
        if self.may(Verb::ConfigRead, SECRET) { document } else { without_secrets(&document) }
    }

    /// Whether the client has no right at all.
    #[must_use]
    pub fn may_nothing(&self) -> bool {
        self.grant.rights().is_empty()
    }

    /// Checks that the client may do this.
    ///
    /// # Errors
    /// [`FaultKind::Forbidden`], or [`FaultKind::Unauthenticated`] when the client has shown no credential.
    pub fn check(&self, verb: Verb, target: &str) -> Result<(), Fault> {
        let rights = self.grant.rights();
        if rights.allows(verb, target) {
            return Ok(());
        }
        Err(self.refuse(verb, target, rights.decide(verb, target)))
    }

    /// Checks that the client may subscribe to this pattern.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_subscription(&self, pattern: &Pattern) -> Result<(), Fault> {
        if self.may_subscribe(pattern) {
            return Ok(());
        }
        let rights = self.grant.rights();
        Err(self.refuse(Verb::Subscribe, pattern.as_str(), rights.decide_pattern(Verb::Subscribe, pattern.as_str())))
    }

    /// Checks that the client may publish under this subject. Messages to an inbox answer somebody who told its name.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_publish(&self, subject: &str) -> Result<(), Fault> {
        if subject.starts_with("_bus_.") && !self.may_nothing() {
            return Ok(());
        }
        self.check(Verb::Publish, subject)
    }

    /// Checks that the client may subscribe to live subjects. An inbox, `_INBOX.TOKEN`, needs no right.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_live_subscription(&self, filter: &str) -> Result<(), Fault> {
        if self.may_follow_live(filter) {
            return Ok(());
        }
        let rights = self.grant.rights();
        Err(self.refuse(Verb::Subscribe, filter, rights.decide_pattern(Verb::Subscribe, filter)))
    }

    /// Whether [`Identity::check_live_subscription`] would let the client subscribe. A refusal is not noted.
    #[must_use]
    pub fn may_follow_live(&self, filter: &str) -> bool {
        self.is_own_inbox(filter) || self.grant.rights().allows_subscription(filter)
    }

    /// Checks that the client may publish to a live subject. An inbox needs no right.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_live_publish(&self, subject: &str) -> Result<(), Fault> {
        if self.is_open() || self.is_own_inbox(subject) { Ok(()) } else { self.check(Verb::Publish, subject) }
    }

    /// Whether [`Identity::check_live_publish`] would let the client publish. A refusal is not noted.
    #[must_use]
    pub fn may_publish_live(&self, subject: &str) -> bool {
        self.is_open() || self.is_own_inbox(subject) || self.may(Verb::Publish, subject)
    }

    /// Whether a live subject or filter is an inbox that nobody can guess, for a client that may anything at all.
    fn is_own_inbox(&self, text: &str) -> bool {
        inbox_of(text).is_some() && !self.may_nothing()
    }

    /// Checks that the client may be this service, and offer all that it wants to offer.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_offer(&self, register: &InstanceRegister) -> Result<(), Fault> {
        self.check(Verb::Offer, &register.service.id)?;
        register.instance.capabilities.iter().try_for_each(|offer| self.check(Verb::Offer, &offer.name))
    }

    /// Checks that the client may go by this name, although it offers nothing: its own name needs no right.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_name(&self, name: &str) -> Result<(), Fault> {
        if name == self.principal().name() { Ok(()) } else { self.check(Verb::Offer, name) }
    }

    /// Whether [`Identity::check_offer`] would let the registration pass. A refusal is not noted.
    #[must_use]
    pub fn may_offer(&self, register: &InstanceRegister) -> bool {
        let capabilities = register.instance.capabilities.iter().map(|offer| &offer.name);
        [&register.service.id].into_iter().chain(capabilities).all(|name| self.may(Verb::Offer, name))
    }

    /// Notes for the audit that the client was refused something.
    pub(super) fn note_denial(&self, what: &'static str, target: &str) {
        self.denials.note(self.actor(""), what, target);
    }

    fn refuse(&self, verb: Verb, target: &str, decision: Decision<'_>) -> Fault {
        self.note_denial(verb.as_str(), target);
        let name = self.name();
        if self.principal().is_anonymous() {
            let text = format!("{verb} {target} needs a credential; present a token, see docs/security.md");
            return Fault::new(FaultKind::Unauthenticated, text);
        }
        let why = match decision {
            Decision::Denied(rule) if rule.role.is_empty() => format!("its right `{}` denies that", rule.right),
            Decision::Denied(rule) => format!("`{}` of the role {} denies that", rule.right, rule.role),
            _ => "no right of it says so".to_owned(),
        };
        Fault::new(FaultKind::Forbidden, format!("{name} may not {verb} {target}: {why}"))
    }

    /// Who has something done, for the audit.
    #[must_use]
    pub fn actor(&self, request: &str) -> Actor {
        Actor {
            principal: self.name().to_owned(),
            credential: self.shown.text(),
            address: self.origin.address.map_or_else(String::new, |address| address.to_string()),
            door: self.origin.door.to_owned(),
            request: request.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_has_a_token_that_nobody_can_guess() {
        assert_eq!(inbox_of("_INBOX.abcdefghijklmnopqrstuv"), Some("abcdefghijklmnopqrstuv"));
        assert_eq!(inbox_of("_INBOX.abcdefghijklmnopqrstuv.*"), Some("abcdefghijklmnopqrstuv"));
        for other in ["_INBOX.short", "_INBOX.>", "_INBOX", "inbox.abcdefghijklmnopqrstuv"] {
            assert_eq!(inbox_of(other), None, "{other}");
        }
        // The ids of accounts are known.
        assert_eq!(inbox_of("_INBOX.53131466-4e2e-11e7-916e-af2b1e6d242d.in.x"), None);
    }
}
