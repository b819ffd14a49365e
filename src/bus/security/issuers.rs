//! From the replicated rows of issuers to what the verifier of JWTs takes.

use rollbook_core::security::model::Issuer as Row;
use rollbook_core::security::principal::Kind;

use super::credentials::jwt::issuer::{Issuer, Keys, PrincipalClaim, RoleMapping};
use super::credentials::jwt::verifier::Verifier;
use super::credentials::seal::SealKey;

/// What a sealed secret of an issuer is bound to.
#[must_use]
pub fn seal_context(name: &str) -> String {
    format!("issuer/{name}")
}

/// The issuer of a row.
///
/// # Errors
/// What is wrong with the row.
pub fn issuer(row: &Row, seal_key: Option<&SealKey>) -> Result<Issuer, String> {
    let keys = if !row.sealed_secret.is_empty() {
        let key = seal_key.ok_or("its secret is sealed, and this node has no security.key_file")?;
        Keys::Secret(key.open(&row.sealed_secret, &seal_context(&row.name)).map_err(|error| error.to_string())?)
    } else if row.jwks_url.is_empty() {
        Keys::Static(row.keys.clone())
    } else {
        Keys::Url(row.jwks_url.clone())
    };
    let algorithm = |text: &String| text.parse().map_err(|_| format!("unknown algorithm {text}"));
    let algorithms = row.algorithms.iter().map(algorithm).collect::<Result<_, String>>()?;
    let kind = Kind::NAMED.into_iter().find(|kind| kind.as_str() == row.kind);
    let kind = kind.ok_or("kind is user, service, actor, dock or node")?;
    let claim = if row.principal_claim.is_empty() { "sub".to_owned() } else { row.principal_claim.clone() };
    let mapping = |row: &rollbook_core::security::model::RoleClaim| RoleMapping {
        claim: row.claim.clone(),
        contains: row.contains.clone(),
        role: row.role.clone(),
    };
    Ok(Issuer {
        name: row.name.clone(),
        iss: row.iss.clone(),
        audiences: row.audiences.clone(),
        algorithms,
        keys,
        principal: PrincipalClaim { kind, claim },
        roles: row.roles.iter().map(mapping).collect(),
    })
}

/// Checks a row before it is stored, as the verifier will.
///
/// # Errors
/// What is wrong with the row.
pub fn check(row: &Row, seal_key: Option<&SealKey>) -> Result<(), String> {
    issuer(row, seal_key)?.check().map(drop).map_err(|error| error.to_string())
}

/// Gives the verifier the issuers of the replicated state. One that cannot be used here is left out, and said.
pub fn set(verifier: &Verifier, rows: &[Row], seal_key: Option<&SealKey>) {
    let mut good: Vec<Issuer> = Vec::new();
    for row in rows {
        match issuer(row, seal_key) {
            Ok(issuer) => good.push(issuer),
            Err(error) => tracing::error!(issuer = %row.name, error, "tokens of an issuer cannot be verified here"),
        }
    }
    while let Err(error) = verifier.set_issuers(good.clone()) {
        tracing::error!(%error, "an issuer is left out");
        // The text names the issuer; without a match nothing would change for ever.
        let text = error.to_string();
        let before = good.len();
        good.retain(|issuer| !text.starts_with(&format!("issuer {}:", issuer.name)));
        if good.len() == before {
            return;
        }
    }
}
