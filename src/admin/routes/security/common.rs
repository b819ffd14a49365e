//! Functions that the routes of security share.

use actix_web::HttpRequest;
use rollbook_core::command::{Command, Done};
use rollbook_core::machine::security::Security;
use rollbook_core::security::change::{Change, SecurityChange};
use rollbook_core::security::principal::Principal;
use rollbook_core::time::Timestamp;

use crate::admin::Admin;
use crate::admin::common::propose;
use crate::admin::preconditions::Conditions;
use crate::admin::problem::Problem;
use crate::base::{clock, duration};

/// How long a token counts that says nothing about that: 90 days.
const TOKEN_LIFE_MS: u64 = 90 * 86_400_000;
/// The word for a credential that does not expire.
const NEVER: &str = "never";

/// Reads the replicated security state.
pub(super) fn look<T>(admin: &Admin, look: impl FnOnce(&Security) -> T) -> T {
    admin.bus.authority().with_security(look)
}

/// Proposes a change in the name of the caller. Returns the revision after it.
pub(super) async fn change(admin: &Admin, if_revision: Option<u64>, change: Change) -> Result<u64, Problem> {
    let change = SecurityChange { if_revision, change: Some(change) };
    match propose(admin, Command::Security(Box::new(change))).await? {
        Done::Security(revision) => Ok(revision),
        _ => Err(Problem::storage("no answer")),
    }
}

/// The revision that a request expects of a row; 0 stands for no row.
pub(super) async fn expected(
    admin: &Admin,
    request: &HttpRequest,
    present: impl Fn() -> u64,
) -> Result<Option<u64>, Problem> {
    Conditions::of(request)?.revision(admin, || Ok(present())).await
}

/// The principal of a path.
pub(super) fn principal(text: &str) -> Result<Principal, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("{text}: {error}")))
}

/// The problem of a name that is not there.
pub(super) fn not_found(what: &str, name: &str) -> Problem {
    Problem::new(404, "security_not_found", format!("not found: {what} {name}"))
}

/// When a credential expires that is made now, milliseconds since 1970; 0: never.
pub(super) fn expiry(expires_in: Option<&str>) -> Result<u64, Problem> {
    let life = match expires_in {
        None => TOKEN_LIFE_MS,
        Some(NEVER) => return Ok(0),
        Some(text) => {
            let life = duration::parse(text).map_err(|error| Problem::bad(format!("expires_in: {error}")))?;
            u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
        }
    };
    if life == 0 {
        return Err(Problem::bad("expires_in: a time such as 12h or 90d, or never"));
    }
    Ok(clock::millis().saturating_add(life))
}

/// A time of the replicated state as text; `None` for 0.
pub(super) fn time(millis: u64) -> Option<String> {
    (millis != 0).then(|| Timestamp::from_millis(millis).to_string())
}
