//! Connected clients as the bus sees them, whatever door they came by: their handle, what they are told, what they ask
//! and answer.

pub mod announcement;
pub mod call;
pub mod clients;
pub mod commands;
pub mod plain;
