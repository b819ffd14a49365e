//! Requests between services: which provider is asked, until when, and whether another provider is tried.
//!
//! Invariant: a request ends once, with its answer or with the reason why there is none, and not later than its
//! deadline.

pub mod breaker;
pub mod choice;
pub mod flight;
pub mod rejections;
pub mod router;
pub mod state;
pub mod survey;
pub mod types;

#[cfg(test)]
mod tests;
