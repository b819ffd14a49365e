//! Who may do what: principals, their credentials, rights and roles, and the audit of changes.
//!
//! The rules store the model and change it by commands; they do not decide about requests. The bus compiles the rights
//! of a principal into [`rights::Rights`], which is as pure as the rules, and checks every operation with them.
//!
//! Invariant: a deny decides before any allow, and what no rule allows is refused.

pub mod actor;
pub mod builtin;
pub mod change;
pub mod model;
pub mod principal;
pub mod right;
pub mod rights;
pub mod target;
