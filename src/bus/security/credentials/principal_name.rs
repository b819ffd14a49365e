//! The name of a principal as a credential says it: `kind:name`. Whether the principal exists is not known here.

use std::fmt;

/// Longest name of a principal, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A person.
    User,
    /// A program.
    Service,
    /// An account of Xbus.
    Actor,
    /// A dock, which runs processes.
    Dock,
    /// A node of the cluster.
    Node,
}

impl NameKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::User, Self::Service, Self::Actor, Self::Dock, Self::Node];

    /// The kind as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Actor => "actor",
            Self::Dock => "dock",
            Self::Node => "node",
        }
    }

    /// The kind of a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A valid name of a principal, written `kind:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalName {
    kind: NameKind,
    name: String,
}

impl PrincipalName {
    /// The principal of this kind and name; `None` when the name has other characters than letters, digits, `_`, `-` and
    /// `@`, or none, or more than [`NAME_BYTES_MAX`]. Only people may have `.` and `+`, as in their addresses: elsewhere a
    /// dot would make several segments of a name that stands in a subject.
    #[must_use]
    pub fn new(kind: NameKind, name: &str) -> Option<Self> {
        let person = kind == NameKind::User;
        let legal = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@') || person && matches!(byte, b'.' | b'+')
        };
        let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        (fits && !dots && name.bytes().all(legal)).then(|| Self { kind, name: name.to_owned() })
    }

    /// Reads `kind:name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        Self::new(NameKind::parse(kind)?, name)
    }

    /// What the principal is.
    #[must_use]
    pub const fn kind(&self) -> NameKind {
        self.kind
    }

    /// The name without its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_read_back_and_odd_ones_are_refused() {
        for text in ["user:ann.b+c@example.com", "service:billing", "actor:a_1", "dock:d-2", "node:3"] {
            assert_eq!(PrincipalName::parse(text).map(|name| name.to_string()).as_deref(), Some(text));
        }
        let long = format!("user:{}", "x".repeat(129));
        for text in [
            "",
            "user",
            "user:",
            ":x",
            "root:x",
            "anonymous",
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
            "service:\u{e4}",
            "user:a\0",
            &long,
        ] {
            assert_eq!(PrincipalName::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_names_are_refused_or_read_back(text in any::<String>(), near in "(user|node|Dock):[a-z.:+ ]{0,9}") {
            for text in [text, near] {
                if let Some(name) = PrincipalName::parse(&text) {
                    prop_assert_eq!(name.to_string(), text);
                }
            }
        }
    }
}
