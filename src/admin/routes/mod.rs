//! The routes of REST, a file for each resource.
//!
//! Imports the shared files of [`super`]. Invariant: every refusal is problem+json and says what to send instead.

pub(super) mod book;
pub(super) mod cluster;
pub(super) mod commands;
pub(super) mod config;
pub(super) mod connections;
pub(super) mod consumers;
pub(super) mod dead_letters;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod namespaces;
pub(super) mod openapi;
pub(super) mod processes;
mod reference;
mod restart;
pub(super) mod root;
pub(super) mod schedules;
pub(super) mod security;
pub(super) mod services;
pub(super) mod views;
pub(super) mod xbus;
