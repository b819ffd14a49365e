//! `/api/xbus`: accounts and actors, pipelines, processes, envelopes and logs.
//!
//! ```text
//! accounts    who may speak: registered, accepted, disabled     account_changes  what operators do with an account
//! actors      what programs of an account do                    pipelines        graphs and their versions
//! processes   envelopes on their way                            process_changes  pause, resume, cancel, purge
//! replays     processes that go along again                     schemas          what items of events have to look like
//! envelopes   what is known of an envelope                      logs             what actors had to say
//! output      an envelope in the name of an actor
//! ```
//!
//! Invariant: accounts and actors are found by name or id, and the right is checked for the name whatever the path says.

pub(in crate::admin) mod account_changes;
pub(in crate::admin) mod accounts;
pub(in crate::admin) mod actors;
mod common;
pub(in crate::admin) mod envelopes;
pub(in crate::admin) mod logs;
pub(in crate::admin) mod output;
pub(in crate::admin) mod pipeline_changes;
pub(in crate::admin) mod pipelines;
pub(in crate::admin) mod process_changes;
mod process_view;
pub(in crate::admin) mod processes;
pub(in crate::admin) mod replays;
pub(in crate::admin) mod schemas;

use actix_web::web;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .configure(accounts::mount)
        .configure(account_changes::mount)
        .configure(actors::mount)
        .configure(output::mount)
        .configure(pipelines::mount)
        .configure(pipeline_changes::mount)
        // The purge comes before the processes, because its path has the form of that of one process.
        .configure(process_changes::mount)
        .configure(processes::mount)
        .configure(replays::mount)
        .configure(schemas::mount)
        .configure(envelopes::mount)
        .configure(logs::mount);
}
