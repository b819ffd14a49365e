//! Subjects and patterns: what events are published under, and what subscribers ask for.
//!
//! [`subject`] and [`pattern`] check the texts of clients. [`interest`] finds the subscriptions of a subject, and
//! [`filter`] tells which stored blocks may hold a pattern. Invariant: every value of `Subject`, `Namespace` and
//! `Pattern` is valid, because parsing is the only way to make one.

pub mod filter;
pub mod interest;
pub mod marks;
pub mod pattern;
pub mod subject;
