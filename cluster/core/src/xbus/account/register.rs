//! A program asks for an account; an operator accepts it.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::row::{
    AccountRow, AccountStatus, AccountType, ActorKind, ActorRow, ActorStatus, ConfigEntry, RequestOrigin,
};
use crate::xbus::limits::{
    ACTORS_PER_ACCOUNT_MAX, CONFIG_BYTES_MAX, CONFIG_ENTRIES_MAX, NAME_BYTES_MAX, PEM_BYTES_MAX, SELECTORS_MAX,
};

/// An actor as its program describes it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorRequest {
    /// The id that the actor gets if it is new, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it does.
    #[prost(enumeration = "ActorKind", tag = "3")]
    pub kind: i32,
    /// Its roles.
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    /// Its configuration.
    #[prost(message, repeated, tag = "5")]
    pub config: Vec<ConfigEntry>,
}

/// What a program asks for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Registration {
    /// The id that the account gets if it is new, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Name of the account.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What the account is for.
    #[prost(enumeration = "AccountType", tag = "3")]
    pub kind: i32,
    /// The certificate request, PEM, whose signature the caller has verified.
    #[prost(string, tag = "4")]
    pub csr: String,
    /// SHA-256 of the public key of the request.
    #[prost(bytes = "vec", tag = "5")]
    pub public_key: Vec<u8>,
    /// Whether the connection showed the present certificate of the account.
    #[prost(bool, tag = "6")]
    pub authenticated: bool,
    /// Its actors.
    #[prost(message, repeated, tag = "7")]
    pub actors: Vec<ActorRequest>,
}

/// What a program is told. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Answer {
    /// An operator has to accept the account or its new key.
    Pending = 0,
    /// The account is enabled, and has its certificate.
    Accepted = 1,
    /// The name belongs to another key, or the account is disabled.
    Rejected = 2,
}

/// Why a registration cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// A name of an account, actor or role.
    #[error("the name of an account is 1 to 128 letters, digits, _, - or @")]
    AccountName,
    /// A name of an actor or role.
    #[error("the name of an actor or role is 1 to 128 bytes without control characters")]
    ActorName,
    /// An actor does nothing that is known.
    #[error("an actor is a consumer, an emitter or a worker")]
    ActorKind,
    /// Two actors of one name.
    #[error("actor {0} is named twice")]
    DuplicateActor(String),
    /// The account is for nothing.
    #[error("an account is for an actor, a user or a gateway")]
    Kind,
    /// The request is missing or too long.
    #[error("a certificate request has at most {PEM_BYTES_MAX} bytes, and is needed")]
    Csr,
    /// Too many actors, roles or entries.
    #[error("too many {0}")]
    TooMany(&'static str),
}

/// Checks the form of a registration.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(request: &Registration) -> Result<(), RegistrationError> {
    // The account is the principal `actor:NAME`.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@');
    if !(1..=NAME_BYTES_MAX).contains(&request.name.len()) || !request.name.bytes().all(legal) {
        return Err(RegistrationError::AccountName);
    }
    if request.kind() == AccountType::NoType {
        return Err(RegistrationError::Kind);
    }
    if !(1..=PEM_BYTES_MAX).contains(&request.csr.len()) || request.public_key.len() != 32 {
        return Err(RegistrationError::Csr);
    }
    if request.actors.len() > ACTORS_PER_ACCOUNT_MAX {
        return Err(RegistrationError::TooMany("actors"));
    }
    let mut names = BTreeSet::new();
    for actor in &request.actors {
        check_actor(actor)?;
        if !names.insert(&actor.name) {
            return Err(RegistrationError::DuplicateActor(actor.name.clone()));
        }
    }
    Ok(())
}

/// Checks the form of one actor.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_actor(actor: &ActorRequest) -> Result<(), RegistrationError> {
    let is_name = |name: &str| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
    };
    if !is_name(&actor.name) || !actor.roles.iter().all(|role| is_name(role)) {
        return Err(RegistrationError::ActorName);
    }
    if ActorKind::try_from(actor.kind).is_err() {
        return Err(RegistrationError::ActorKind);
    }
    if actor.roles.len() > SELECTORS_MAX {
        return Err(RegistrationError::TooMany("roles"));
    }
    let bytes: usize = actor.config.iter().map(|entry| entry.key.len().saturating_add(entry.value.len())).sum();
    if actor.config.len() > CONFIG_ENTRIES_MAX || bytes > CONFIG_BYTES_MAX {
        return Err(RegistrationError::TooMany("configuration entries, or bytes of them"));
    }
    Ok(())
}

/// Registers an account, or says what became of it. The account is written when the second value is true.
#[must_use]
pub fn register(present: Option<AccountRow>, request: &Registration, millis: u64) -> (AccountRow, bool, Answer) {
    let origin = if request.authenticated { RequestOrigin::Account } else { RequestOrigin::Anonymous };
    let Some(mut account) = present else {
        let mut account = AccountRow {
            id: request.id.clone(),
            name: request.name.clone(),
            kind: request.kind,
            created: millis,
            ..AccountRow::default()
        };
        account.set_status(AccountStatus::Pending);
        account.take_request(request, origin);
        return (account, true, Answer::Pending);
    };
    if account.status() == AccountStatus::Disabled {
        return (account, false, Answer::Rejected);
    }
    if account.public_key == request.public_key {
        let accepted = account.status() == AccountStatus::Enabled && !account.certificate.is_empty();
        return (account, false, if accepted { Answer::Accepted } else { Answer::Pending });
    }
    // The operator asked for another key, or the account itself asks.
    if account.public_key.is_empty() || request.authenticated {
        account.take_request(request, origin);
        return (account, true, Answer::Pending);
    }
    (account, false, Answer::Rejected)
}

impl AccountRow {
    fn take_request(&mut self, request: &Registration, origin: RequestOrigin) {
        self.csr.clone_from(&request.csr);
        self.public_key.clone_from(&request.public_key);
        self.set_origin(origin);
        self.certificate.clear();
        self.revision = self.revision.saturating_add(1);
    }

    /// Lets any key register under the name of this account: its next request waits for an operator.
    pub fn reset_certificate(&mut self) {
        self.csr.clear();
        self.public_key.clear();
        self.certificate.clear();
        self.revision = self.revision.saturating_add(1);
    }

    /// Accepts the account and its present key, with the certificate that was signed for it. False when the account has
    /// no request, or another key by now.
    pub fn accept(&mut self, public_key: &[u8], certificate: String) -> bool {
        if self.public_key.is_empty() || self.public_key != public_key {
            return false;
        }
        self.set_status(AccountStatus::Enabled);
        self.certificate = certificate;
        self.revision = self.revision.saturating_add(1);
        true
    }
}

/// The row of an actor that a program describes: a new one waits for an operator. What an operator decides about a known
/// one, its status and roles, stays; only its configuration is that of the program.
#[must_use]
pub fn actor(present: Option<ActorRow>, account: &AccountRow, request: &ActorRequest) -> ActorRow {
    if let Some(mut actor) = present {
        actor.config.clone_from(&request.config);
        actor.revision = actor.revision.saturating_add(1);
        return actor;
    }
    let mut actor = ActorRow {
        id: request.id.clone(),
        name: request.name.clone(),
        kind: request.kind,
        account: account.id.clone(),
        roles: request.roles.clone(),
        config: request.config.clone(),
        revision: 1,
        ..ActorRow::default()
    };
    actor.set_status(ActorStatus::Pending);
    actor
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn request(key: u8) -> Registration {
        let mut request =
            Registration { id: vec![1; 16], name: "shop".into(), csr: "PEM".into(), ..Registration::default() };
        request.public_key = vec![key; 32];
        request.set_kind(AccountType::Actor);
        request
    }

    #[test]
    fn an_account_is_pending_until_an_operator_accepts_its_key() {
        let (account, new, answer) = register(None, &request(1), 5);
        assert_eq!(
            (new, answer, account.status(), account.created),
            (true, Answer::Pending, AccountStatus::Pending, 5)
        );
        let (mut account, changed, answer) = register(Some(account), &request(1), 6);
        assert_eq!((changed, answer), (false, Answer::Pending));
        assert!(!account.accept(&[2; 32], "CERT".into()) && account.accept(&[1; 32], "CERT".into()));
        let (account, changed, answer) = register(Some(account), &request(1), 7);
        assert_eq!((changed, answer, account.certificate.as_str()), (false, Answer::Accepted, "CERT"));
    }

    #[test]
    fn another_key_is_rejected_until_an_operator_or_the_account_asks_for_it() {
        let mut account = register(None, &request(1), 5).0;
        account.accept(&[1; 32], "CERT".into());
        let (account, changed, answer) = register(Some(account), &request(2), 6);
        assert_eq!((changed, answer), (false, Answer::Rejected));
        let mut renewed = account.clone();
        renewed.reset_certificate();
        let (renewed, changed, answer) = register(Some(renewed), &request(2), 7);
        assert_eq!((changed, answer, renewed.origin()), (true, Answer::Pending, RequestOrigin::Anonymous));
        let own = Registration { authenticated: true, ..request(2) };
        let (own, changed, answer) = register(Some(account), &own, 7);
        assert_eq!((changed, answer, own.origin()), (true, Answer::Pending, RequestOrigin::Account));
        assert!(own.certificate.is_empty());
    }

    #[test]
    fn a_disabled_account_is_rejected() {
        let mut account = register(None, &request(1), 5).0;
        account.set_status(AccountStatus::Disabled);
        assert_eq!(register(Some(account), &request(1), 6).2, Answer::Rejected);
    }

    #[test]
    fn a_registration_has_a_form() {
        assert_eq!(check(&request(1)), Ok(()));
        let actor = |name: &str| ActorRequest { name: name.into(), ..ActorRequest::default() };
        let cases = [
            (Registration { name: "a.b".into(), ..request(1) }, RegistrationError::AccountName),
            (Registration { kind: 0, ..request(1) }, RegistrationError::Kind),
            (Registration { csr: String::new(), ..request(1) }, RegistrationError::Csr),
            (Registration { public_key: vec![1], ..request(1) }, RegistrationError::Csr),
            (Registration { actors: vec![actor("")], ..request(1) }, RegistrationError::ActorName),
            (
                Registration { actors: vec![ActorRequest { kind: 3, ..actor("a") }], ..request(1) },
                RegistrationError::ActorKind,
            ),
            (
                Registration { actors: vec![actor("a"), actor("a")], ..request(1) },
                RegistrationError::DuplicateActor("a".into()),
            ),
            (Registration { actors: vec![actor("a"); 257], ..request(1) }, RegistrationError::TooMany("actors")),
        ];
        for (request, error) in cases {
            assert_eq!(check(&request), Err(error));
        }
    }

    #[test]
    fn what_an_operator_decided_about_an_actor_stays() {
        let account = register(None, &request(1), 5).0;
        let roles = vec!["invoices".into()];
        let asked = ActorRequest { id: vec![3; 16], name: "a".into(), kind: 2, roles, config: Vec::new() };
        let mut known = actor(None, &account, &asked);
        assert_eq!((known.status(), known.kind()), (ActorStatus::Pending, ActorKind::Worker));
        known.set_status(ActorStatus::Enabled);
        let entry = ConfigEntry { key: "k".into(), value: "v".into() };
        let again = ActorRequest { roles: vec!["all".into()], config: vec![entry], ..asked };
        let known = actor(Some(known), &account, &again);
        assert_eq!((known.status(), &known.roles[..]), (ActorStatus::Enabled, &["invoices".into()][..]));
        assert_eq!((known.config.len(), known.revision), (1, 2));
    }
}
