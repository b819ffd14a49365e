#![doc = include_str!("ARCHITECTURE.md")]

pub mod admin;
pub mod app;
pub mod bus;
pub mod doors;
