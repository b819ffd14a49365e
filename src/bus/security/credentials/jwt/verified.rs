//! What a verified JWT says.

use std::time::SystemTime;

use rollbook_core::security::principal::Principal;

/// What a verified JWT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who presented the token.
    pub principal: Principal,
    /// The roles that the mappings of the issuer give, without repeats.
    pub roles: Vec<String>,
    /// From this time on the token is refused: `exp` and the leeway.
    pub expires_at: SystemTime,
    /// The name of the issuer.
    pub issuer: String,
    /// The `jti` of the token, or the begin of its SHA-256: for logs and the audit, never a secret.
    pub token_id: String,
}
