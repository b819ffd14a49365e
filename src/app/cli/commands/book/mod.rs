//! The commands for events of the book: looked up, waiting for their time, published by schedules, and given up.
//!
//! Imports `shared`, and the rows of `security` and `xbus`. Each command is one request to REST, or a list of pages.

pub(in crate::app::cli) mod dead_letters;
pub(in crate::app::cli) mod delayed;
pub(in crate::app::cli) mod events;
pub(in crate::app::cli) mod schedules;
