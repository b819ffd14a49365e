//! Credentials of principals: tokens, passwords, client certificates, keys of NATS.

use actix_web::{HttpResponse, web};
use rollbook_core::security::change::Change;
use rollbook_core::security::model::{Credential, Proof};
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{change, expiry, look, not_found, principal, time};
use crate::admin::Admin;
use crate::admin::body::{Object, Optional};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{self, List};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::security::credentials::nkey::is_user_key;
use crate::bus::security::credentials::password;
use crate::bus::security::credentials::secret::Secret;
use crate::bus::security::credentials::token::mint;

/// The credentials of one principal, as the target of a right.
const OF_ONE: &str = "security/principals/{principal}";
/// Length of the fingerprint of a certificate in hex.
const FINGERPRINT_CHARACTERS: usize = 64;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let path = |rest: &str| format!("/api/security/principals/{{principal}}/{rest}");
    services
        .service(resource(&path("credentials"), [get(OF_ONE)]).route(web::get().to(list)))
        .service(
            resource(&path("tokens"), [write("POST", "security.credential_add", Verb::AdminSecurity, OF_ONE)])
                .route(web::post().to(create_token)),
        )
        .service(
            resource(&path("password"), [write("PUT", "security.credential_add", Verb::AdminSecurity, OF_ONE)])
                .route(web::put().to(set_password)),
        )
        .service(
            resource(&path("certificates"), [write("POST", "security.credential_add", Verb::AdminSecurity, OF_ONE)])
                .route(web::post().to(add_certificate)),
        )
        .service(
            resource(&path("nkeys"), [write("POST", "security.credential_add", Verb::AdminSecurity, OF_ONE)])
                .route(web::post().to(add_nkey)),
        )
        .service(
            resource(
                "/api/security/credentials/{id}",
                [write("DELETE", "security.credential_delete", Verb::AdminSecurity, "security/credentials/{id}")],
            )
            .route(web::delete().to(revoke)),
        );
}

/// A credential, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct CredentialView {
    id: String,
    /// `token`, `password`, `certificate` or `nkey`.
    kind: &'static str,
    principal: String,
    created_at: Option<String>,
    /// When it ends to count; left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// About when it was used last; left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<String>,
    /// A text for people.
    description: String,
    /// What a certificate is known by, or the public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<String>,
}

impl From<&Credential> for CredentialView {
    fn from(row: &Credential) -> Self {
        let (kind, names) = match &row.proof {
            Some(Proof::Password(_)) => ("password", None),
            Some(Proof::Certificate(names)) => ("certificate", Some(names.clone())),
            Some(Proof::Nkey(key)) => ("nkey", Some(key.clone())),
            Some(Proof::Token(_)) | None => ("token", None),
        };
        Self {
            id: row.id.clone(),
            kind,
            principal: row.principal.clone(),
            created_at: time(row.created),
            expires_at: time(row.expires),
            used_at: time(row.used),
            description: row.description.clone(),
            names,
        }
    }
}

/// The credentials of a principal. Nobody sees a secret again.
#[utoipa::path(get, path = "/api/security/principals/{principal}/credentials", operation_id = "security_credentials", tag = "security", params(("principal" = String, Path), ConsistencyQuery), responses((status = 200, description = "the credentials", body = List<CredentialView>), Problems))]
pub(in crate::admin) async fn list(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let found = look(&admin, |security| {
        security.principal(&name)?;
        Some(security.credentials_of(&name).map(CredentialView::from).collect::<Vec<_>>())
    });
    Ok(page::whole(found.ok_or_else(|| not_found("principal", &name))?))
}

/// How long a token counts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct TokenJson {
    /// A time such as `12h`, or `never`; 90 days by default.
    #[schema(example = "90d")]
    pub(super) expires_in: Option<String>,
    /// A text for people.
    pub(super) description: String,
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct TokenView {
    id: String,
    /// The token, which is shown only here.
    token: String,
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Makes a token for a principal.
pub(super) async fn issue(admin: &Admin, principal: &str, json: TokenJson) -> Answer {
    let expires = expiry(json.expires_in.as_deref())?;
    let minted = mint().map_err(|error| Problem::storage(error.to_string()))?;
    let credential = Credential {
        id: minted.id.as_str().to_owned(),
        principal: principal.to_owned(),
        expires,
        description: json.description,
        proof: Some(Proof::Token(minted.hash.as_bytes().to_vec())),
        ..Credential::default()
    };
    let (id, principal) = (credential.id.clone(), principal.to_owned());
    change(admin, None, Change::CredentialAdd(credential)).await?;
    let view = TokenView { id, token: minted.text.expose().clone(), principal, expires_at: time(expires) };
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(view))
}

/// Makes a token for a principal. The answer is the only place that shows it.
#[utoipa::path(post, path = "/api/security/principals/{principal}/tokens", operation_id = "security_token_create", tag = "security", params(("principal" = String, Path)), request_body = Option<TokenJson>, responses((status = 201, description = "the token", body = TokenView), Problems))]
pub(in crate::admin) async fn create_token(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Optional(body): Optional<TokenJson>,
) -> Answer {
    let name = principal(&name)?.to_string();
    issue(&admin, &name, body).await
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct PasswordJson {
    /// 8 to 1024 bytes.
    password: String,
}

/// Sets the password of a user. Programs have tokens instead.
#[utoipa::path(put, path = "/api/security/principals/{principal}/password", operation_id = "security_password_set", tag = "security", params(("principal" = String, Path)), request_body = PasswordJson, responses((status = 204, description = "it counts now"), Problems))]
pub(in crate::admin) async fn set_password(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<PasswordJson>,
) -> Answer {
    let name = principal(&name)?.to_string();
    let hash = admin.bus.authority().passwords().hash(Secret::new(body.password)).await?;
    let (id, proof) = (password::credential_id(&name), Some(Proof::Password(hash)));
    let credential = Credential { id, principal: name, proof, ..Credential::default() };
    change(&admin, None, Change::CredentialAdd(credential)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A certificate of clients.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct CertificateJson {
    /// `sha256:` and the fingerprint in hex, `cn:` and the common name, or `uri:` and a URI of the certificate. The CA
    /// that signed it must be in `tls.client_ca`.
    #[schema(example = "cn:billing.example.com")]
    certificate: String,
    /// A text for people.
    #[serde(default)]
    description: String,
}

fn certificate_name(text: &str) -> Result<String, Problem> {
    let wrong = || Problem::bad("certificate: sha256:HEX of 64 digits, cn:NAME or uri:rollbook:KIND:NAME");
    let (form, name) = text.split_once(':').ok_or_else(wrong)?;
    let plain =
        |name: &str| (1..=512).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c.is_whitespace());
    match form {
        "sha256" => {
            let hex: String = name.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
            let fits = hex.len() == FINGERPRINT_CHARACTERS && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| format!("sha256:{hex}")).ok_or_else(wrong)
        }
        "cn" | "uri" if plain(name) => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

/// Makes a certificate a credential of a principal. A client that shows it needs no token.
#[utoipa::path(post, path = "/api/security/principals/{principal}/certificates", operation_id = "security_certificate_add", tag = "security", params(("principal" = String, Path)), request_body = CertificateJson, responses((status = 201, description = "the credential", body = CredentialView), Problems))]
pub(in crate::admin) async fn add_certificate(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<CertificateJson>,
) -> Answer {
    let (principal, id) = (principal(&name)?.to_string(), certificate_name(&body.certificate)?);
    let (proof, description) = (Some(Proof::Certificate(id.clone())), body.description);
    add(&admin, Credential { id, principal, proof, description, ..Credential::default() }).await
}

/// Adds a credential that has no secret, and shows it.
async fn add(admin: &Admin, credential: Credential) -> Answer {
    let id = credential.id.clone();
    change(admin, None, Change::CredentialAdd(credential)).await?;
    let view = look(admin, |security| security.credential(&id).map(CredentialView::from));
    Ok(HttpResponse::Created().json(view.ok_or_else(|| not_found("credential", &id))?))
}

/// A key of a client of NATS.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct NkeyJson {
    /// The public key of a user: `U` and 55 letters and digits. Its seed, `SU...`, stays with the client.
    #[schema(example = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")]
    nkey: String,
    /// A text for people.
    #[serde(default)]
    description: String,
}

/// Makes a key of NATS a credential of a principal. A client that signs with it at the door `nats` needs no token.
#[utoipa::path(post, path = "/api/security/principals/{principal}/nkeys", operation_id = "security_nkey_add", tag = "security", params(("principal" = String, Path)), request_body = NkeyJson, responses((status = 201, description = "the credential", body = CredentialView), Problems))]
pub(in crate::admin) async fn add_nkey(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<NkeyJson>,
) -> Answer {
    let principal = principal(&name)?.to_string();
    if !is_user_key(&body.nkey) {
        // The text is not quoted: it may be a seed.
        return Err(Problem::bad("nkey: the public key of a user, U and 55 letters and digits; a seed stays secret"));
    }
    let (id, proof) = (Credential::nkey_id(&body.nkey), Some(Proof::Nkey(body.nkey)));
    add(&admin, Credential { id, principal, proof, description: body.description, ..Credential::default() }).await
}

/// Revokes a credential: connections that it opened end.
#[utoipa::path(delete, path = "/api/security/credentials/{id}", operation_id = "security_credential_revoke", tag = "security", params(("id" = String, Path)), responses((status = 204, description = "it does not count any more"), Problems))]
pub(in crate::admin) async fn revoke(admin: web::Data<Admin>, id: web::Path<String>, _: Query<NoParameters>) -> Answer {
    change(&admin, None, Change::CredentialDelete(id.into_inner())).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_in_one_of_three_ways() {
        let hex = "AB:".repeat(31) + "ab";
        assert_eq!(certificate_name(&format!("sha256:{hex}")).unwrap(), format!("sha256:{}", "ab".repeat(32)));
        for good in ["cn:billing.example.com", "uri:rollbook:service:billing"] {
            assert_eq!(certificate_name(good).unwrap(), good);
        }
        for wrong in ["", "cn:", "cn:a b", "sha256:ab", "dns:x", &format!("cn:{}", "x".repeat(513))] {
            assert!(certificate_name(wrong).is_err(), "{wrong}");
        }
    }
}
