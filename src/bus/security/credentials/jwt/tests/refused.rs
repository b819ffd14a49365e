//! Tokens that must be refused, each for its own reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::signers::{self, Signer};
use super::{JwtError, Keys, NOW, claims, issuer, static_keys, verifier, verify, with};

/// Why a token with changed claims is refused, if it is.
async fn refusal(changes: Value) -> Option<JwtError> {
    let signer = Signer::ed25519("a");
    let verifier = verifier(vec![issuer(&[Algorithm::EdDSA], static_keys(&[&signer]))]);
    verify(&verifier, &signer.sign(Algorithm::EdDSA, &with(&changes))).await.err()
}

#[tokio::test]
async fn a_token_outside_of_its_time_is_refused_with_30_seconds_for_the_clocks() {
    for (changes, wanted) in [
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(JwtError::Expired)),
        (json!({"exp": 0}), Some(JwtError::Expired)),
        (json!({"exp": null}), Some(JwtError::NoExpiry)),
        (json!({"exp": "never"}), Some(JwtError::Malformed)),
        (json!({"exp": 1e300}), Some(JwtError::Malformed)),
        (json!({"nbf": NOW + 30}), None),
        (json!({"nbf": NOW + 31}), Some(JwtError::NotYetValid)),
        (json!({"nbf": "now"}), Some(JwtError::Malformed)),
    ] {
        assert_eq!(refusal(changes.clone()).await, wanted, "{changes}");
    }
}

#[tokio::test]
async fn a_token_for_others_or_of_others_is_refused() {
    for (changes, wanted) in [
        (json!({"aud": ["other", "rollbook"]}), None),
        (json!({"aud": "other"}), Some(JwtError::Audience)),
        (json!({"aud": []}), Some(JwtError::Audience)),
        (json!({"aud": null}), Some(JwtError::Audience)),
        (json!({"aud": "rollbook "}), Some(JwtError::Audience)),
        (json!({"iss": "https://login.example.com/realm/"}), Some(JwtError::UnknownIssuer)),
        (json!({"iss": [super::ISS]}), Some(JwtError::UnknownIssuer)),
        (json!({"iss": null}), Some(JwtError::UnknownIssuer)),
    ] {
        assert_eq!(refusal(changes.clone()).await, wanted, "{changes}");
    }
}

#[tokio::test]
async fn a_token_without_a_usable_name_is_refused() {
    let names = [json!(null), json!(""), json!(7), json!(["ann"]), json!("a b"), json!("a:b"), json!(">"), json!("*")];
    for sub in names.into_iter().chain([json!("a/b"), json!(".a"), json!("\u{e4}"), json!("x".repeat(129))]) {
        assert_eq!(refusal(json!({"sub": sub})).await, Some(JwtError::Principal), "{sub}");
    }
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let signer = Signer::rsa("a");
    let verifier = verifier(vec![issuer(&[Algorithm::RS256], static_keys(&[&signer]))]);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{}.{signature}", part(&json!({"alg": alg, "kid": "a"})), part(&claims()));
            assert_eq!(verify(&verifier, &token).await, Err(JwtError::Algorithm), "{alg} {signature}");
        }
    }
    for header in [json!({"kid": "a"}), json!({"alg": null}), json!({"alg": ["RS256"]}), json!("RS256"), json!([])] {
        let token = format!("{}.{}.AAAA", part(&header), part(&claims()));
        assert_eq!(verify(&verifier, &token).await, Err(JwtError::Malformed), "{header}");
    }
    let token = format!("{}.{}.", part(&json!({"alg": "RS256", "kid": "a"})), part(&claims()));
    assert_eq!(verify(&verifier, &token).await, Err(JwtError::Signature));
}

#[tokio::test]
async fn a_public_key_is_never_a_shared_secret() {
    let signer = Signer::rsa("a");
    let verifier = verifier(vec![issuer(&[Algorithm::RS256], Keys::Static(signer.pem()))]);
    let modulus = URL_SAFE_NO_PAD.decode(signer.jwk()["n"].as_str().unwrap()).unwrap();
    let pem = signer.pem();
    for secret in
        [pem.as_bytes(), pem.trim_end().as_bytes(), &signer.der(), &modulus, signer.jwk().to_string().as_bytes()]
    {
        let forger = Signer::secret_of("a", secret);
        for algorithm in forger.algorithms() {
            let token = forger.sign(*algorithm, &claims());
            assert_eq!(verify(&verifier, &token).await, Err(JwtError::Algorithm), "{algorithm:?}");
        }
        // The header says RS256, the signature is an HMAC.
        let token = forger.sign_raw(r#"{"alg":"RS256","kid":"a"}"#, Algorithm::HS256, &claims().to_string());
        assert_eq!(verify(&verifier, &token).await, Err(JwtError::Signature));
    }
}

#[tokio::test]
async fn the_type_of_a_key_decides_what_may_be_verified_with_the_key() {
    let signers = signers::one_of_each_key();
    let public: Vec<&Signer> = signers.iter().filter(|signer| !signer.is_secret()).collect();
    let all: Vec<Algorithm> = public.iter().flat_map(|signer| signer.algorithms()).copied().collect();
    // All algorithms are allowed, and still a key is used for its own alone.
    let verifier = verifier(vec![issuer(&all, static_keys(&public))]);
    for signer in &public {
        let own = signer.algorithms();
        let kid = signer.jwk()["kid"].clone();
        for other in all.iter().filter(|algorithm| !own.contains(algorithm)) {
            let header = json!({"alg": format!("{other:?}"), "kid": kid}).to_string();
            let token = signer.sign_raw(&header, own[0], &claims().to_string());
            assert_eq!(verify(&verifier, &token).await, Err(JwtError::UnknownKey), "{kid} {other:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_for_one_algorithm_is_used_for_that_alone() {
    let signer = Signer::rsa("a");
    let mut jwk = signer.jwk();
    jwk["alg"] = json!("RS256");
    let keys = Keys::Static(json!({"keys": [jwk]}).to_string());
    let verifier = verifier(vec![issuer(&[Algorithm::RS256, Algorithm::PS256], keys)]);
    verify(&verifier, &signer.sign(Algorithm::RS256, &claims())).await.expect("its algorithm");
    assert_eq!(verify(&verifier, &signer.sign(Algorithm::PS256, &claims())).await, Err(JwtError::UnknownKey));
}

#[tokio::test]
async fn the_kid_chooses_the_key_and_without_one_a_single_key_must_fit() {
    let (one, two, rsa) = (Signer::ed25519("one"), Signer::ed25519("two"), Signer::rsa("rsa"));
    let algorithms = [Algorithm::EdDSA, Algorithm::RS256];
    let verifier = verifier(vec![issuer(&algorithms, static_keys(&[&one, &two, &rsa]))]);
    let header = |kid: &Value| json!({"kid": kid});
    for (token, wanted) in [
        (one.sign(Algorithm::EdDSA, &claims()), None),
        (one.sign_with(&header(&json!("two")), Algorithm::EdDSA, &claims()), Some(JwtError::Signature)),
        (one.sign_with(&header(&json!("three")), Algorithm::EdDSA, &claims()), Some(JwtError::UnknownKey)),
        (one.sign_with(&header(&json!("x".repeat(10_000))), Algorithm::EdDSA, &claims()), Some(JwtError::UnknownKey)),
        (one.sign_with(&header(&json!(1)), Algorithm::EdDSA, &claims()), Some(JwtError::Malformed)),
        (one.sign_with(&json!({}), Algorithm::EdDSA, &claims()), Some(JwtError::AmbiguousKey)),
        (rsa.sign_with(&json!({}), Algorithm::RS256, &claims()), None),
    ] {
        assert_eq!(verify(&verifier, &token).await.err(), wanted, "{token:.60}");
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(vec![issuer(&[Algorithm::EdDSA], static_keys(&[&signer]))]);
    let token = signer.sign(Algorithm::EdDSA, &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(with(&json!({"sub": "root"})).to_string());
    assert_eq!(verify(&verifier, &format!("{}.{other}.{}", parts[0], parts[2])).await, Err(JwtError::Signature));
    let stranger = Signer::ed25519("a").sign(Algorithm::EdDSA, &claims());
    assert_eq!(verify(&verifier, &stranger).await, Err(JwtError::Signature));
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &token[1..],
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}="),
        &format!("{token}.{token}"),
        &format!(" {token}"),
    ] {
        verify(&verifier, text).await.expect_err(text);
    }
    verify(&verifier, &token).await.expect("the token itself is good");
}

#[tokio::test]
async fn a_huge_token_is_refused_unseen() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(vec![issuer(&[Algorithm::EdDSA], static_keys(&[&signer]))]);
    let token = |length: usize| signer.sign(Algorithm::EdDSA, &with(&json!({"fill": "x".repeat(length)})));
    verify(&verifier, &token(11_000)).await.expect("a large token");
    assert_eq!(verify(&verifier, &token(13_000)).await, Err(JwtError::TooLarge));
    assert_eq!(verify(&verifier, &"a.".repeat(10_000_000)).await, Err(JwtError::TooLarge));
}

#[tokio::test]
async fn critical_parameters_and_keys_inside_of_a_token_are_not_followed() {
    let (signer, forger) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let verifier = verifier(vec![issuer(&[Algorithm::EdDSA], static_keys(&[&signer]))]);
    let critical = signer.sign_with(&json!({"kid": "a", "crit": ["b64"], "b64": false}), Algorithm::EdDSA, &claims());
    assert_eq!(verify(&verifier, &critical).await, Err(JwtError::Critical));
    let header = json!({"kid": "a", "jwk": forger.jwk(), "jku": "https://forger.example.com/keys"});
    let forged = forger.sign_with(&header, Algorithm::EdDSA, &claims());
    assert_eq!(verify(&verifier, &forged).await, Err(JwtError::Signature));
}
