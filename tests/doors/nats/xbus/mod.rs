//! Clients of Xbus at the door for clients of NATS.

mod accounts;
mod actor;
mod client;
mod control;
mod envelopes;
mod jobs;
mod kill;
mod letters;
mod pipelines;
mod python;
mod replays;
mod rights;
mod schemas;
mod setup;
mod wire;
