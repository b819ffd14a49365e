//! Which account calls, and for which of its actors.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::id::Id;

use super::settings::NAME;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;
use crate::bus::security::origin::Origin;
use crate::bus::xbus::client::XbusClient;
use crate::net::peer::Peer;

/// The header with the API key.
static API_KEY: HeaderName = HeaderName::from_static("xbus-api-key");

/// A program of an account.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Arc<Identity>,
    /// The actor that the path names, of the account with the key.
    pub(super) actor: ActorRow,
    /// Its id.
    pub(super) id: Id,
    /// The address of the client.
    pub(super) address: String,
}

impl Caller {
    /// Who sends a request to the paths of this actor, by name or id.
    ///
    /// # Errors
    /// The key is missing or wrong, or the account has no such actor.
    pub(super) fn of(client: &XbusClient, request: &HttpRequest, actor: &str) -> Result<Self, Fault> {
        let key = request.headers().get(&API_KEY).and_then(|value| value.to_str().ok());
        let key = key.ok_or_else(|| {
            Fault::new(FaultKind::Unauthenticated, "the header Xbus-API-Key is missing; see `rollbook account api-key`")
        })?;
        let peer = Peer::of(request);
        let address = peer.as_ref().map(|peer| peer.address.to_string()).unwrap_or_default();
        let (identity, account) = client.bus().authority().admit_account_key(key, Origin::new(NAME, peer))?;
        let found = client.look(|xbus| {
            let by_id = || actor.parse().ok().and_then(|id| xbus.actor(id));
            xbus.actor_named(actor).or_else(by_id).filter(|row| row.account == account.id).cloned()
        });
        let unknown = || Fault::new(FaultKind::NotFound, format!("account {} has no actor {actor}", account.name));
        let actor = found.ok_or_else(unknown)?;
        let id = Id::from_slice(&actor.id).unwrap_or_default();
        Ok(Self { identity, actor, id, address })
    }
}
