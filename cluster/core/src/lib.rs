//! The rules of rollbook: what every replica must apply identically.
//!
//! No I/O, no clock, no randomness: time and ids arrive inside commands, rows
//! leave as [`rows::Writes`]. Modules in reading order.

#![no_std]
extern crate alloc;

pub mod central;
pub mod command;
pub mod consumer;
pub mod entry;
pub mod error;
pub mod event;
pub mod level;
pub mod limits;
pub mod machine;
pub mod namespace;
pub mod node;
mod persistent;
pub mod reply;
pub mod rows;
pub mod service;
pub mod subjects;
pub mod time;
