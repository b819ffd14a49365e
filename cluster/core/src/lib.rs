//! The rules of rollbook: what every replica must apply identically.
//!
//! No I/O, no clock, no randomness: time and ids arrive inside commands, rows
//! leave as [`rows::Writes`]. Modules in reading order.

#![no_std]
extern crate alloc;

pub mod limits;
pub mod error;
pub mod time;
pub mod subject;
pub mod pattern;
pub mod interest;
pub mod filter;
pub mod event;
pub mod entry;
pub mod namespace;
pub mod consumer;
pub mod command;
pub mod rows;
pub mod machine;
