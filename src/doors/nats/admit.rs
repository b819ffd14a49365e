//! Who a client is: from its CONNECT to an access.

use rollbook_core::security::principal::{Kind, Principal};

use super::wire::connect::Connect;
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::error::Fault;
use crate::bus::security::credentials::basic::Basic;
use crate::bus::security::credentials::bearer::{self, Presented};
use crate::bus::security::credentials::secret::Secret;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;

/// How every token of a cluster begins.
const TOKEN: &str = "rb1_";

/// Admits a client. The first thing that it shows counts: its token, its JWT, its password, its certificate.
///
/// # Errors
/// See [`Access::admit`]; or there are too many connections of the principal.
pub(super) async fn admit(nobody: Access, connect: Connect, origin: Origin) -> Result<(Access, Place), Fault> {
    let access = match presented(&connect) {
        // A program that has no account yet registers one.
        None if origin.certificate.is_none() => nobody.of(nobody.bus().authority().admit_registrant(origin)?),
        presented => nobody.admit(presented, origin).await?,
    };
    let place = access.identity().usage().connect(clock::now())?;
    Ok((access, place))
}

/// What a client shows. Clients that have fields for user and password alone put a token into either.
fn presented(connect: &Connect) -> Option<Presented<'_>> {
    if let Some(token) = text(connect.auth_token.as_ref()).or_else(|| text(connect.jwt.as_ref())) {
        return Some(bearer::from_bearer(token));
    }
    let user = connect.user.as_deref().filter(|user| !user.is_empty());
    match (user, text(connect.pass.as_ref())) {
        (Some(token), None) if token.starts_with(TOKEN) => Some(bearer::from_bearer(token)),
        (_, Some(token)) if token.starts_with(TOKEN) => Some(bearer::from_bearer(token)),
        (Some(user), Some(_)) => {
            let name = user.strip_prefix("user:").unwrap_or(user);
            let password = connect.pass.clone();
            let basic = Principal::new(Kind::User, name).ok().zip(password);
            Some(basic.map_or(Presented::Unknown, |(user, password)| Presented::Basic(Basic { user, password })))
        }
        (Some(_), None) => Some(Presented::Unknown),
        (None, _) => None,
    }
}

fn text(secret: Option<&Secret>) -> Option<&str> {
    secret.map(|secret| secret.expose().as_str()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let connect = Connect::parse(json.as_bytes()).unwrap();
        presented(&connect).map_or_else(|| "nothing".to_owned(), |presented| format!("{presented:?}"))
    }

    #[test]
    fn a_token_stands_in_any_of_the_fields_for_secrets() {
        let token = format!("rb1_{}_{}", "0aZ".repeat(4), "9".repeat(43));
        for json in [
            format!(r#"{{"auth_token":"{token}"}}"#),
            format!(r#"{{"user":"x","pass":"{token}"}}"#),
            format!(r#"{{"user":"{token}"}}"#),
            format!(r#"{{"user":"{token}","pass":""}}"#),
        ] {
            assert_eq!(shown(&json), "Token(0aZ0aZ0aZ0aZ, hidden)", "{json}");
        }
    }

    #[test]
    fn user_and_password_are_those_of_a_person() {
        for user in ["ann@example.com", "user:ann@example.com"] {
            let shown = shown(&format!(r#"{{"user":"{user}","pass":"hunter22"}}"#));
            assert!(shown.starts_with("Basic") && shown.contains("ann@example.com"), "{shown}");
            assert!(!shown.contains("hunter22"), "{shown}");
        }
        assert_eq!(shown("{}"), "nothing");
        assert_eq!(shown(r#"{"auth_token":""}"#), "nothing");
        assert_eq!(shown(r#"{"user":"a b","pass":"x"}"#), "Unknown");
        assert_eq!(shown(r#"{"auth_token":"x"}"#), "Unknown");
    }
}
