//! JWTs of foreign issuers, verified here against keys of the issuer: nobody is asked during a login.
//!
//! ```text
//! issuer     what the operator configures       error    why a token is refused
//! token      header and claims, decoded         keys     which key an issuer's token was signed with
//! jwks       keys fetched from a URL, kept      cache    results, until they expire
//! verifier   puts these together            verified what a token says
//! ```
//!
//! Invariant: the algorithm is one of the issuer's list *and* fits the type of the key; the type of a key comes from the
//! key alone, never from the token. `none` does not exist here.

pub mod cache;
pub mod error;
pub mod issuer;
pub mod jwks;
pub mod keys;
pub mod token;
pub mod verified;
pub mod verifier;

#[cfg(test)]
mod tests;
