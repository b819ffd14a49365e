//! Tokens as an issuer signs them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key of an issuer.
pub(super) enum Key {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Secret(Vec<u8>),
}

impl Key {
    pub(super) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    pub(super) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
            Self::Secret(_) => "HS256",
        }
    }

    /// The public half as an issuer publishes it.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()), "kid": kid, "use": "sig" })
            }
            Self::Rsa(pair) => {
                // The sequence of two numbers, as PKCS#1 writes it for 2048 bits and the exponent 65537.
                let der = pair.public_key().as_ref();
                let (n, e) = (&der[9..265], &der[der.len() - 3..]);
                json!({ "kty": "RSA", "n": text(n), "e": text(e), "kid": kid, "use": "sig" })
            }
            Self::Secret(_) => panic!("a secret is not published"),
        }
    }

    /// The public half as PEM, as somebody has it who tries it as the secret of HS256.
    pub(super) fn pem(&self) -> String {
        let Self::Rsa(pair) = self else { panic!("only for RSA") };
        let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
                signature
            }
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub(super) fn sign(&self, kid: &str, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": self.algorithm(), "kid": kid, "typ": "JWT" }), claims)
    }

    /// A token with this header.
    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.signature(message.as_bytes())))
    }
}

/// Seconds since 1970, so many from now.
pub(super) fn seconds(from_now: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("a time") + from_now
}

/// Claims of a good token of the issuer in [`issuer`].
pub(super) fn claims() -> Value {
    json!({ "iss": "https://id.test", "sub": "ann", "aud": "rollbook", "exp": seconds(600), "iat": seconds(0), "groups": ["ops"] })
}

/// An issuer whose users with the group `ops` have a role.
pub(super) fn issuer(algorithms: &[&str], keys: &[Value], role: &str) -> Value {
    json!({
        "iss": "https://id.test", "audiences": ["rollbook"], "algorithms": algorithms,
        "keys": json!({ "keys": keys }).to_string(),
        "roles": [{ "claim": "groups", "contains": "ops", "role": role }],
    })
}
