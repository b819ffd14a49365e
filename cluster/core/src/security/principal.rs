//! A principal: whoever can have rights.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Longest name of a principal, in bytes.
pub const PRINCIPAL_NAME_BYTES_MAX: usize = 128;

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nobody in particular: a client without a credential. It has no name.
    Anonymous,
    /// A person.
    User,
    /// A program that offers or calls services, or uses the event log.
    Service,
    /// An account of Xbus.
    Actor,
    /// A dock, which runs processes.
    Dock,
    /// A node of the cluster.
    Node,
}

impl Kind {
    /// The kinds of principals that have names.
    pub const NAMED: [Self; 5] = [Self::User, Self::Service, Self::Actor, Self::Dock, Self::Node];

    /// The kind as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Service => "service",
            Self::Actor => "actor",
            Self::Dock => "dock",
            Self::Node => "node",
        }
    }
}

/// The text is no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no principal: write KIND:NAME, as in service:billing or user:ann@example.com; the kinds are user, service, actor, dock and node, and a name is 1 to 128 letters, digits, _, - or @ (a user also . and +)"
)]
pub struct PrincipalError;

/// A principal, written `kind:name`; `anonymous` has no name. A value of this type is always valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    kind: Kind,
    name: String,
}

impl Principal {
    /// The principal of clients without a credential.
    pub const ANONYMOUS: Self = Self { kind: Kind::Anonymous, name: String::new() };

    /// The principal of this kind and name.
    ///
    /// # Errors
    /// The kind has no names, or the name is not one.
    pub fn new(kind: Kind, name: &str) -> Result<Self, PrincipalError> {
        let fits = (1..=PRINCIPAL_NAME_BYTES_MAX).contains(&name.len()) && kind != Kind::Anonymous;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@');
        // A dot would make several segments of the name where a right names `{name}`; addresses of people have dots.
        let legal = |byte: u8| plain(byte) || kind == Kind::User && matches!(byte, b'.' | b'+');
        let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
        if fits && name.bytes().all(legal) && !dots {
            return Ok(Self { kind, name: name.into() });
        }
        Err(PrincipalError)
    }

    /// What the principal is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The name; empty for `anonymous`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the principal of clients without a credential.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.kind == Kind::Anonymous
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Anonymous => f.write_str(Kind::Anonymous.as_str()),
            kind => write!(f, "{}:{}", kind.as_str(), self.name),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text == Kind::Anonymous.as_str() {
            return Ok(Self::ANONYMOUS);
        }
        let (kind, name) = text.split_once(':').ok_or(PrincipalError)?;
        let kind = Kind::NAMED.into_iter().find(|known| known.as_str() == kind).ok_or(PrincipalError)?;
        Self::new(kind, name)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_principal_reads_back_from_its_text() {
        for text in ["anonymous", "user:ann.b+c@example.com", "service:billing", "actor:a_1", "dock:d-2", "node:3"] {
            assert_eq!(text.parse::<Principal>().map(|principal| principal.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_no_principal_is_refused() {
        let long = alloc::format!("user:{}", "x".repeat(129));
        for text in [
            "",
            "user",
            "user:",
            ":x",
            "root",
            "anonymous:",
            "anonymous:x",
            "User:x",
            "user:a b",
            "user:a:b",
            "user:*",
            "user:>",
            "user:{name}",
            "user:.a",
            "user:a.",
            "user:a..b",
            "service:a.b",
            "service:ä",
            &long,
        ] {
            assert_eq!(text.parse::<Principal>(), Err(PrincipalError), "{text}");
        }
    }
}
