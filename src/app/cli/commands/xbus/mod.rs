//! The commands of Xbus: accounts and actors, pipelines, processes, envelopes, logs and schemas.
//!
//! Imports `shared` and the rows of `security`. Each command is one request to REST, or a list of pages; `emit` and
//! `actor run` are programs of actors, which use the gateway.

pub(in crate::app::cli) mod account;
pub(in crate::app::cli) mod actor;
pub(in crate::app::cli) mod common;
pub(in crate::app::cli) mod emit;
pub(in crate::app::cli) mod envelope;
mod gateway;
pub(in crate::app::cli) mod logs;
pub(in crate::app::cli) mod pipeline;
pub(in crate::app::cli) mod ps;
mod replay;
mod run;
pub(in crate::app::cli) mod schema;
