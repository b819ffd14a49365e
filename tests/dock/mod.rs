//! `rollbook dock` with real processes, against a hub that the tests play.

mod agent;
mod connection;
mod hub;
mod lifecycle;
mod nodes;
mod output;
mod recovery;
mod start_order;
mod sync;
mod trees;
