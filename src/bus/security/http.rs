//! Admits the client of an HTTP request, the same for every door over HTTP.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::authority::Authority;
use super::credentials::bearer;
use super::identity::Identity;
use super::origin::Origin;
use crate::bus::error::Fault;
use crate::net::http_credential::{authorization, holds_credential, ticket};
use crate::net::peer::Peer;

/// The challenge of an answer 401, as every door over HTTP sends it.
pub const CHALLENGE: &str = "Bearer realm=\"rollbook\"";

impl Authority {
    /// Who sends an HTTP request to this door: its header `Authorization` counts, then a ticket in its address, then the
    /// certificate of its connection.
    ///
    /// # Errors
    /// As [`Authority::admit`]; and a token in the address is refused, because addresses end in logs.
    pub async fn admit_http(&self, door: &'static str, request: &HttpRequest) -> Result<Arc<Identity>, Fault> {
        let (query, origin) = (request.query_string(), Origin::new(door, Peer::of(request)));
        if holds_credential(query, bearer::looks_like_credential) {
            let text =
                "a credential in the address ends in logs; send it in the header Authorization, and revoke this one";
            return Err(Fault::bad(text));
        }
        let presented = authorization(request.headers()).map(bearer::from_authorization);
        if presented.is_none()
            && let Some(ticket) = ticket(query)
        {
            return self.redeem_ticket(&ticket, origin).await;
        }
        self.admit(presented, origin).await
    }
}
