//! The commands of the command line, one file each.
//!
//! Imports `shared`. A command may use functions of another one.

pub(super) mod ack;
pub(super) mod book;
pub(super) mod call;
pub(super) mod cert;
pub(super) mod cluster;
pub(super) mod config;
pub(super) mod consumers;
pub(super) mod dump;
pub(super) mod health;
pub(super) mod join;
pub(super) mod namespaces;
pub(super) mod processes;
pub(super) mod publish;
pub(super) mod restore;
pub(super) mod security;
pub(super) mod serve;
pub(super) mod subscribe;
pub(super) mod xbus;
