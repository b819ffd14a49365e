#![doc = include_str!("ARCHITECTURE.md")]
#![cfg_attr(test, allow(clippy::string_slice, reason = "tests cut strings that they made themselves"))]

pub mod admin;
pub mod app;
pub mod base;
pub mod bus;
pub mod doors;
pub mod net;
