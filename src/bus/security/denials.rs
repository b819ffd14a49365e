//! What was refused to whom, gathered for the audit: one line for each principal and second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rollbook_cluster::lock::lock;
use rollbook_core::limits::AUDIT_LINES_MAX;
use rollbook_core::security::actor::Actor;
use rollbook_core::security::change::AuditLine;

/// The refusals since they were last taken. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    /// By principal and address.
    lines: Arc<Mutex<HashMap<(String, String), AuditLine>>>,
    /// By verb.
    counted: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Denials {
    /// Counts refusals in this metric.
    #[must_use]
    pub fn new(counted: Family<[(&'static str, &'static str); 1], Counter>) -> Self {
        Self { lines: Arc::default(), counted }
    }

    /// Notes a refusal. Beyond the bound of a second, refusals of further principals are only counted in the metric.
    pub fn note(&self, actor: Actor, verb: &'static str, target: &str) {
        self.counted.get_or_create(&[("verb", verb)]).inc();
        let mut lines = lock(&self.lines);
        // The port of an address says nothing, and would make a line of each connection.
        let host = actor.address.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
        let key = (actor.principal.clone(), host);
        if let Some(line) = lines.get_mut(&key) {
            line.count = line.count.saturating_add(1);
        } else if lines.len() < AUDIT_LINES_MAX {
            let (what, target, outcome) = (format!("denied.{verb}"), target.to_owned(), "denied".to_owned());
            lines.insert(key, AuditLine { actor: Some(actor), what, target, outcome, count: 1 });
        }
    }

    /// Takes what was noted.
    #[must_use]
    pub fn take(&self) -> Vec<AuditLine> {
        let mut lines: Vec<_> = std::mem::take(&mut *lock(&self.lines)).into_values().collect();
        lines.sort_by(|one, other| one.target.cmp(&other.target));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(principal: &str, address: &str) -> Actor {
        Actor { principal: principal.to_owned(), address: address.to_owned(), ..Actor::default() }
    }

    #[test]
    fn refusals_of_one_principal_are_one_line_with_a_count() {
        let denials = Denials::default();
        for port in 1..=5 {
            denials.note(actor("user:a", &format!("10.0.0.1:{port}")), "publish", "orders.x");
        }
        denials.note(actor("user:b", "10.0.0.1:9"), "call", "z:x");
        let lines = denials.take();
        let told: Vec<_> = lines.iter().map(|line| (&*line.what, &*line.target, line.count)).collect();
        assert_eq!(told, [("denied.publish", "orders.x", 5), ("denied.call", "z:x", 1)]);
        assert!(denials.take().is_empty());
    }

    #[test]
    fn many_principals_take_no_more_memory_than_the_bound() {
        let denials = Denials::default();
        for number in 0..10_000 {
            denials.note(actor(&format!("user:{number}"), ""), "publish", "orders.x");
        }
        assert_eq!(denials.take().len(), AUDIT_LINES_MAX);
    }
}
