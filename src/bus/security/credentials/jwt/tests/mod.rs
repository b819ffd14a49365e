//! JWTs that must be accepted and refused, with keys made anew for each run.

mod fetched;
mod refused;
mod signers;

use rollbook_core::security::principal::Kind;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use self::signers::Signer;
use super::super::secret::Secret;
use super::error::JwtError;
use super::issuer::{Issuer, IssuerError, Keys, PrincipalClaim, RoleMapping};
use super::jwks::JwksSettings;
use super::verified::Verified;
use super::verifier::Verifier;

/// The time of the tests, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
/// The issuer of the tests.
const ISS: &str = "https://login.example.com/realm";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn issuer(algorithms: &[Algorithm], keys: Keys) -> Issuer {
    Issuer {
        name: "login".to_owned(),
        iss: ISS.to_owned(),
        audiences: vec!["rollbook".to_owned()],
        algorithms: algorithms.to_vec(),
        keys,
        principal: PrincipalClaim { kind: Kind::User, claim: "sub".to_owned() },
        roles: vec![
            role("realm_access.roles", "bus-admin", "operator"),
            role("groups", "ops", "operator"),
            role("scope", "bus:read", "viewer"),
        ],
    }
}

fn role(claim: &str, contains: &str, role: &str) -> RoleMapping {
    RoleMapping { claim: claim.to_owned(), contains: contains.to_owned(), role: role.to_owned() }
}

fn static_keys(signers: &[&Signer]) -> Keys {
    Keys::Static(signers::jwks(signers))
}

fn verifier(issuers: Vec<Issuer>) -> Verifier {
    let verifier = Verifier::new(JwksSettings::default());
    verifier.set_issuers(issuers).expect("issuers that can be used");
    verifier
}

/// Claims that are accepted.
fn claims() -> Value {
    json!({"iss": ISS, "sub": "ann@example.com", "aud": "rollbook", "exp": NOW + 300})
}

/// Accepted claims with changes: a value of null takes a claim away.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

async fn verify(verifier: &Verifier, token: &str) -> Result<Arc<Verified>, JwtError> {
    verifier.verify(token, now()).await
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_accepted() {
    let signers = signers::one_of_each_key();
    for signer in &signers {
        for algorithm in signer.algorithms() {
            let keys = if signer.is_secret() {
                Keys::Secret(Secret::new(signer.secret().to_vec()))
            } else {
                static_keys(&signers.iter().filter(|signer| !signer.is_secret()).collect::<Vec<_>>())
            };
            let verifier = verifier(vec![issuer(&[*algorithm], keys)]);
            let verified = verify(&verifier, &signer.sign(*algorithm, &claims())).await;
            let verified = verified.unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
            assert_eq!(verified.principal.to_string(), "user:ann@example.com");
            assert_eq!(verified.expires_at, now() + Duration::from_secs(330), "`exp` and the leeway");
            assert_eq!(verified.issuer, "login");
            assert!(verified.token_id.starts_with("sha256:") && verified.token_id.len() == 23, "{}", verified.token_id);
        }
    }
}

#[tokio::test]
async fn public_keys_in_pem_are_used_whatever_kid_a_token_has() {
    for signer in signers::one_of_each_key().iter().filter(|signer| !signer.is_secret()) {
        let algorithm = signer.algorithms()[0];
        let verifier = verifier(vec![issuer(&[algorithm], Keys::Static(signer.pem()))]);
        for header in [json!({}), json!({"kid": "any"})] {
            let verified = verify(&verifier, &signer.sign_with(&header, algorithm, &claims())).await;
            verified.unwrap_or_else(|error| panic!("{algorithm:?} {header}: {error}"));
        }
    }
}

#[tokio::test]
async fn claims_give_the_mapped_roles_once() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(vec![issuer(&[Algorithm::EdDSA], static_keys(&[&signer]))]);
    for (changes, wanted) in [
        (json!({}), &[][..]),
        (json!({"groups": ["dev", "ops"], "realm_access": {"roles": ["bus-admin"]}}), &["operator"][..]),
        (json!({"groups": "ops", "scope": "openid bus:read"}), &["operator", "viewer"][..]),
        (json!({"groups": "devops", "scope": "bus:readwrite", "realm_access": {"roles": "x"}}), &[][..]),
    ] {
        let token = signer.sign(Algorithm::EdDSA, &with(&changes));
        assert_eq!(verify(&verifier, &token).await.unwrap().roles, wanted, "{changes}");
    }
}

#[tokio::test]
async fn the_principal_comes_from_the_configured_claim() {
    let signer = Signer::ed25519("a");
    let mut issuer = issuer(&[Algorithm::EdDSA], static_keys(&[&signer]));
    issuer.principal = PrincipalClaim { kind: Kind::Service, claim: "act.client".to_owned() };
    let verifier = verifier(vec![issuer]);
    let token = signer.sign(Algorithm::EdDSA, &with(&json!({"act": {"client": "billing"}, "jti": "id-1"})));
    let verified = verify(&verifier, &token).await.unwrap();
    assert_eq!((verified.principal.to_string().as_str(), verified.token_id.as_str()), ("service:billing", "id-1"));
}

#[tokio::test]
async fn a_result_is_kept_and_ends_with_its_expiry_and_with_its_issuer() {
    let signer = Signer::ed25519("a");
    let issuer = issuer(&[Algorithm::EdDSA], static_keys(&[&signer]));
    let verifier = verifier(vec![issuer.clone()]);
    let token = signer.sign(Algorithm::EdDSA, &claims());
    let first = verify(&verifier, &token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &verify(&verifier, &token).await.unwrap()), "the kept result");
    let end = now() + Duration::from_secs(330);
    verifier.verify(&token, end - Duration::from_millis(1)).await.expect("within the leeway");
    assert_eq!(verifier.verify(&token, end).await, Err(JwtError::Expired));
    verify(&verifier, &token).await.expect("the clock of the test goes back");
    let mut other = issuer.clone();
    other.audiences = vec!["other".to_owned()];
    verifier.set_issuers(vec![other]).unwrap();
    assert_eq!(verify(&verifier, &token).await, Err(JwtError::Audience));
    verifier.set_issuers(Vec::new()).unwrap();
    assert_eq!(verify(&verifier, &token).await, Err(JwtError::UnknownIssuer));
}

#[tokio::test]
async fn issuers_that_cannot_be_used_are_refused_and_change_nothing() {
    let signer = Signer::ed25519("a");
    let good = issuer(&[Algorithm::EdDSA], static_keys(&[&signer]));
    let verifier = verifier(vec![good.clone()]);
    let secret = |length: usize| Keys::Secret(Secret::new(vec![7; length]));
    let change = |change: &dyn Fn(&mut Issuer)| {
        let mut issuer = good.clone();
        change(&mut issuer);
        vec![issuer]
    };
    for (issuers, wanted) in [
        (change(&|issuer| issuer.iss.clear()), "`iss`"),
        (change(&|issuer| issuer.algorithms.clear()), "`algorithms`"),
        (change(&|issuer| issuer.algorithms = vec![Algorithm::EdDSA, Algorithm::HS256]), "HS256 does not go"),
        (change(&|issuer| issuer.keys = secret(32)), "EdDSA does not go"),
        (change(&|issuer| (issuer.algorithms, issuer.keys) = (vec![Algorithm::HS256], secret(31))), "at least 32"),
        (change(&|issuer| issuer.keys = Keys::Static("nothing".to_owned())), "neither a JWKS"),
        (change(&|issuer| issuer.keys = Keys::Url("http://example.com/keys".to_owned())), "https://"),
        (change(&|issuer| issuer.keys = Keys::Url("https://u:p@example.com/keys".to_owned())), "without a user"),
        (change(&|issuer| issuer.keys = Keys::Url("file:///etc/passwd".to_owned())), "https://"),
        (vec![good.clone(), good.clone()], "another issuer"),
    ] {
        let error: IssuerError = verifier.set_issuers(issuers).unwrap_err();
        assert!(error.to_string().contains(wanted) && error.to_string().contains("login"), "{error}");
    }
    verify(&verifier, &signer.sign(Algorithm::EdDSA, &claims())).await.expect("the good issuer is still there");
}

#[test]
fn nothing_shows_a_secret_of_an_issuer() {
    let issuer = issuer(&[Algorithm::HS256], Keys::Secret(Secret::new(b"hunter2-hunter2-hunter2-hunter2-".to_vec())));
    let shown = format!("{issuer:?} {:?}", verifier(vec![issuer.clone()]));
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117, 110"), "{shown}");
}
