//! Who a client or dock is: by a token, or by its certificate.

use serde::Deserialize;

use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::error::Fault;
use crate::bus::security::credentials::bearer;
use crate::bus::security::credentials::secret::Secret;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;

/// The member of a handshake that the protocol does not have: stock peers ignore it.
#[derive(Deserialize)]
struct WithToken {
    #[serde(default)]
    token: Option<String>,
}

/// What a client may show: the value of the header `Authorization`, and the token of its handshake. The header counts.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) authorization: Option<Secret>,
    pub(super) token: Option<Secret>,
}

impl Shown {
    /// Takes the token out of a handshake.
    pub(super) fn take_token(&mut self, handshake: &[u8]) {
        let token = serde_json::from_slice::<WithToken>(handshake).ok().and_then(|with| with.token);
        self.token = token.map(Secret::new);
    }

    /// Who has shown this.
    ///
    /// # Errors
    /// See [`Access::admit`]; or there are too many connections of the principal.
    pub(super) async fn admit(&self, nobody: &Access, origin: Origin) -> Result<(Access, Place), Fault> {
        let presented = match (&self.authorization, &self.token) {
            (Some(value), _) => Some(bearer::from_authorization(value.expose().as_bytes())),
            (None, Some(token)) => Some(bearer::from_bearer(token.expose())),
            (None, None) => None,
        };
        let access = nobody.admit(presented, origin).await?;
        let place = access.identity().usage().connect(clock::now())?;
        Ok((access, place))
    }
}
