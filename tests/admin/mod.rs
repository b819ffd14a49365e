//! REST administration, health and metrics.

/// The central configuration.
mod config;
/// Pause, resume and reset of durable consumers.
mod consumers;
/// Events that were given up.
mod dead_letters;
/// Looking up stored events.
mod events;
/// Processes on docks.
mod processes;
/// What all of REST has in common.
mod rest;
/// Events that are published at their times.
mod schedules;
/// Health, metrics and the administration of namespaces.
mod web;
/// Accounts, actors and pipelines of Xbus.
mod xbus;
