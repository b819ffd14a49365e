//! Dead letters: events that were given up.
//!
//! ```text
//! letters   found, published again, put away: `/api/dead-letters`
//! jobs      the same with many: `/api/dead-letter-jobs`
//! ```
//!
//! Invariant: whoever reads letters may subscribe to their subjects, and whoever has one published again may publish
//! there.

pub(in crate::admin) mod jobs;
pub(in crate::admin) mod letters;

use actix_web::web;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.configure(letters::mount).configure(jobs::mount);
}
