//! Why a JWT is refused. No text holds a part of a token: texts of others end in logs.

/// Why a JWT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Longer than 16 KiB.
    #[error("the JWT is longer than 16 KiB; ask its issuer for fewer claims")]
    TooLarge,
    /// Not three parts of base64url with JSON objects in the first two, or claims of a wrong type.
    #[error("the JWT is malformed")]
    Malformed,
    /// The header has critical parameters, all of which are unknown here.
    #[error("the JWT has critical header parameters (`crit`), which are not supported")]
    Critical,
    /// No issuer is configured with this `iss`.
    #[error("the issuer (`iss`) of the JWT is not configured")]
    UnknownIssuer,
    /// `none`, an unknown algorithm, or one that the issuer may not use.
    #[error("the algorithm (`alg`) of the JWT is not allowed for its issuer")]
    Algorithm,
    /// The issuer has no key with this `kid` that fits the algorithm.
    #[error("the key (`kid`) of the JWT is unknown")]
    UnknownKey,
    /// There is no `kid`, and several keys fit.
    #[error("the JWT names no key (`kid`), and its issuer has several that fit")]
    AmbiguousKey,
    /// The keys of the issuer were never fetched, or too long ago.
    #[error("the keys of the issuer cannot be fetched; try again later")]
    KeysUnavailable,
    /// The signature was not made with the key.
    #[error("the signature of the JWT is wrong")]
    Signature,
    /// There is no `exp`.
    #[error("the JWT has no expiry (`exp`)")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the JWT has expired (`exp`)")]
    Expired,
    /// `nbf` has not come.
    #[error("the JWT is not valid yet (`nbf`); compare the clocks")]
    NotYetValid,
    /// None of the audiences is ours.
    #[error("the JWT is for another audience (`aud`)")]
    Audience,
    /// The claim that names the principal is missing, or its text is no name.
    #[error("the JWT names no principal: the claim is missing or holds characters that no name has")]
    Principal,
}

impl JwtError {
    /// Whether the same token may be accepted later, without a new one.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::NotYetValid)
    }
}
