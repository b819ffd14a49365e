//! What one principal may do, kept up to date: all its clients at this node share it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use rollbook_core::security::model::RoleLimits;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::rights::Rights;

use super::compile::{RightsSource, compile};
use super::usage::{Counts, Usage};

/// The compiled rights of a principal.
#[derive(Debug)]
pub struct Grant {
    principal: Principal,
    /// The principal as text, which the audit and the metrics need.
    name: String,
    /// Roles that a JWT claims, beside those of the replicated state.
    claimed: Vec<String>,
    rights: ArcSwap<Rights>,
    usage: Usage,
}

impl Grant {
    /// The grant of a principal as the replicated state says now. `counts` has what all its clients use.
    #[must_use]
    pub fn new(from: RightsSource<'_>, principal: Principal, claimed: Vec<String>, counts: Arc<Counts>) -> Self {
        let compiled = compile(from, &principal, &claimed);
        let usage = Usage::new(compiled.limits, counts);
        let (name, rights) = (principal.to_string(), ArcSwap::from_pointee(compiled.rights));
        Self { principal, name, claimed, rights, usage }
    }

    /// The grant of clients that need no credential.
    #[must_use]
    pub fn everything() -> Self {
        let (principal, rights) = (Principal::ANONYMOUS, ArcSwap::from_pointee(Rights::everything()));
        let (name, usage) = (principal.to_string(), Usage::new(RoleLimits::default(), Arc::default()));
        Self { principal, name, claimed: Vec::new(), rights, usage }
    }

    /// The grant of nobody.
    #[must_use]
    pub fn nothing() -> Self {
        Self { rights: ArcSwap::default(), ..Self::everything() }
    }

    /// Compiles the rights anew.
    pub fn refresh(&self, from: RightsSource<'_>) {
        let compiled = compile(from, &self.principal, &self.claimed);
        self.usage.set_limits(compiled.limits);
        self.rights.store(Arc::new(compiled.rights));
    }

    /// The principal.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The principal as text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Roles that a JWT claims.
    #[must_use]
    pub fn claimed(&self) -> &[String] {
        &self.claimed
    }

    /// The rights as they are now.
    #[must_use]
    pub fn rights(&self) -> Guard<Arc<Rights>> {
        self.rights.load()
    }

    /// What the principal uses at this node, and may use.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }
}
