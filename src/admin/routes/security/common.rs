//! Functions that the routes of security share.

use rollbook_core::command::{Command, Done};
use rollbook_core::machine::security::state::Security;
use rollbook_core::security::change::Change;
use rollbook_core::security::principal::Principal;
use rollbook_core::time::Timestamp;

use crate::admin::Admin;
use crate::admin::caller::identity;
use crate::admin::common::propose;
use crate::admin::problem::Problem;
use crate::base::{clock, duration};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// How long a token counts that says nothing about that: 90 days.
const TOKEN_LIFE_MS: u64 = 90 * DAY_MS;
/// The word for a credential that does not expire.
const NEVER: &str = "never";

/// Reads the replicated security state.
pub(super) fn look<T>(admin: &Admin, look: impl FnOnce(&Security) -> T) -> T {
    admin.bus.authority().with_security(look)
}

/// Proposes a change in the name of the caller, who gives nobody more than it has. Returns the revision after it.
pub(super) async fn change(admin: &Admin, if_revision: Option<u64>, change: Change) -> Result<u64, Problem> {
    admin.bus.authority().with_rights(|from| identity().check_escalation(from, &change))?;
    match propose(admin, Command::security(if_revision, change)).await? {
        Done::Security(revision) => Ok(revision),
        _ => Err(Problem::storage("no answer")),
    }
}

/// The principal of a path.
pub(super) fn principal(text: &str) -> Result<Principal, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("{text}: {error}")))
}

/// The problem of a name that is not there.
pub(super) fn not_found(what: &str, name: &str) -> Problem {
    Problem::new(404, "security_not_found", format!("not found: {what} {name}"))
}

/// A number of whole days, as in `90d`: durations elsewhere have no unit that is longer than an hour.
fn days(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('d').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// When a credential expires that is made now, milliseconds since 1970; 0: never.
pub(super) fn expiry(expires_in: Option<&str>) -> Result<u64, Problem> {
    let life = match expires_in {
        None => TOKEN_LIFE_MS,
        Some(NEVER) => return Ok(0),
        Some(text) => match days(text) {
            Some(days) => days.saturating_mul(DAY_MS),
            None => {
                let life = duration::parse(text).map_err(|error| Problem::bad(format!("expires_in: {error}")))?;
                u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
            }
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_days_or_for_any_duration_or_for_ever() {
        let in_days = |text| expiry(text).ok().map(|end| end.saturating_sub(clock::millis()).div_ceil(DAY_MS));
        assert_eq!((in_days(None), in_days(Some("90d")), in_days(Some("48h"))), (Some(90), Some(90), Some(2)));
        assert_eq!(expiry(Some("never")).ok(), Some(0));
        for wrong in ["", "d", "0d", "0", "-1d", "+1d", "1.5d", "1d1h", "soon"] {
            assert!(expiry(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
