//! `/api/schedules`: events that the bus publishes at their times.
//!
//! `operations` has the handlers, `view` a schedule as JSON. The right is `admin:write` on `schedules/NAME`, and whoever
//! sets or runs a schedule needs the right to publish to its subject, which the bus checks.

pub(in crate::admin) mod operations;
mod view;
