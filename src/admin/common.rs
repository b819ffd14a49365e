//! Functions that several handlers share.

use actix_web::HttpResponse;
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::namespace::Head;

use super::problem::Problem;
use super::{Admin, caller};

/// The result of a handler.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// Proposes a command in the name of the caller, and waits for its result.
pub(super) async fn propose(admin: &Admin, command: Command) -> Result<Done, Problem> {
    admin.bus.proposer().command_of(command, caller::actor()).await.map_err(Problem::from)
}

/// Finds a namespace that clients can see.
pub(super) fn find_namespace(admin: &Admin, name: &str) -> Result<Head, Problem> {
    admin.bus.node().state().namespace(name).ok_or_else(|| Refusal::NamespaceNotFound(name.to_owned()).into())
}
