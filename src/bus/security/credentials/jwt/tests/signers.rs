//! Keys that sign tokens as an issuer does, and their public halves.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa::KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

/// A key with its id.
pub(super) struct Signer {
    kid: String,
    key: Key,
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

/// A key of each type, with ids `rsa`, `p256`, `p384`, `ed` and `secret`.
pub(super) fn one_of_each_key() -> Vec<Signer> {
    let signer = |kid: &str, key| Signer { kid: kid.to_owned(), key };
    vec![
        Signer::rsa("rsa"),
        signer("p256", Key::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())),
        signer("p384", Key::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())),
        Signer::ed25519("ed"),
        Signer::secret_of("secret", &[42; 48]),
    ]
}

/// The public keys as an issuer publishes them.
pub(super) fn jwks(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

impl Signer {
    pub(super) fn rsa(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(super) fn ed25519(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: Key::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    pub(super) fn secret_of(kid: &str, secret: &[u8]) -> Self {
        Self { kid: kid.to_owned(), key: Key::Secret(secret.to_vec()) }
    }

    pub(super) fn algorithms(&self) -> &'static [Algorithm] {
        match self.key {
            Key::Rsa(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            Key::P256(_) => &[Algorithm::ES256],
            Key::P384(_) => &[Algorithm::ES384],
            Key::Ed25519(_) => &[Algorithm::EdDSA],
            Key::Secret(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        }
    }

    pub(super) fn is_secret(&self) -> bool {
        matches!(self.key, Key::Secret(_))
    }

    pub(super) fn secret(&self) -> &[u8] {
        match &self.key {
            Key::Secret(secret) => secret,
            _ => panic!("{} is a key pair", self.kid),
        }
    }

    /// A token with the id of this key in its header.
    pub(super) fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.sign_with(&json!({"kid": self.kid}), algorithm, claims)
    }

    /// A token with this header, to which the algorithm is added.
    pub(super) fn sign_with(&self, header: &Value, algorithm: Algorithm, claims: &Value) -> String {
        let mut header = header.clone();
        header["alg"] = json!(format!("{algorithm:?}"));
        self.sign_raw(&header.to_string(), algorithm, &claims.to_string())
    }

    /// A token with these texts as its header and claims.
    pub(super) fn sign_raw(&self, header: &str, algorithm: Algorithm, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(algorithm, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &RSA_PSS_SHA256,
                    Algorithm::PS384 => &RSA_PSS_SHA384,
                    Algorithm::PS512 => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Key::P256(pair) | Key::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Secret(secret) => {
                let algorithm = match algorithm {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
        }
    }

    /// The public half as a JWK.
    pub(super) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |pair: &EcdsaKeyPair, curve: &str| {
            let bytes = pair.public_key().as_ref();
            let (x, y) = bytes[1..].split_at(bytes.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
        };
        let mut jwk = match &self.key {
            Key::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({"kty": "RSA", "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero())})
            }
            Key::P256(pair) => point(pair, "P-256"),
            Key::P384(pair) => point(pair, "P-384"),
            Key::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
            Key::Secret(secret) => json!({"kty": "oct", "k": text(secret)}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public half in DER (SubjectPublicKeyInfo).
    pub(super) fn der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Rsa(pair) => pair.public_key().as_der(),
            Key::P256(pair) | Key::P384(pair) => pair.public_key().as_der(),
            Key::Ed25519(pair) => pair.public_key().as_der(),
            Key::Secret(_) => panic!("{} has no public half", self.kid),
        }
        .unwrap();
        der.as_ref().to_vec()
    }

    /// The public half in PEM.
    pub(super) fn pem(&self) -> String {
        let base64 = STANDARD.encode(self.der());
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}
