//! Which namespaces clients may use before they exist.

use rollbook_core::subjects::subject::Namespace;

/// The namespaces that clients may use before they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// Any namespace, created by its first publish.
    Any,
    /// These namespaces.
    Listed(Vec<String>),
}

impl Enabled {
    /// Whether a publish may create the namespace.
    pub(super) fn may_create(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(names) => names.iter().any(|listed| listed == name),
        }
    }

    /// Whether the namespace may be read before it exists.
    pub(super) fn may_read(&self, name: &str) -> bool {
        name == Namespace::ROLL || name == Namespace::DEAD || (Namespace::parse(name).is_ok() && self.may_create(name))
    }
}
