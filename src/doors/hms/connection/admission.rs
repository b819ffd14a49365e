//! Who a peer is: from its handshake to an access, and for a dock to its place among the docks.

use super::super::admit::Shown;
use super::super::context::DoorContext;
use super::super::settings::NAME;
use super::super::wire::handshake::Handshake;
use super::dock::Dock;
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::docks::table::DockInfo;
use crate::bus::error::Fault;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;
use crate::net::peer::Peer;

/// A peer that was admitted.
pub(super) struct Admitted {
    pub(super) access: Access,
    pub(super) place: Place,
    pub(super) name: String,
    /// A dock has one of these.
    pub(super) dock: Option<Box<Dock>>,
    pub(super) route: Option<String>,
}

/// Admits a peer that has shown this.
///
/// # Errors
/// The peer is not who it says, has too many connections, or is a dock whose id another one has.
pub(super) async fn admit(
    context: &DoorContext,
    peer: Peer,
    shown: Shown,
    handshake: Handshake,
) -> Result<Admitted, Fault> {
    let (address, node) = (peer.address.to_string(), context.services.bus.node().id());
    let (access, place) = shown.admit(&context.access, Origin::new(NAME, Some(peer))).await?;
    match handshake {
        Handshake::Client { version, route } => {
            let name = format!("hms {version}");
            Ok(Admitted { access, place, name, dock: None, route })
        }
        Handshake::Dock { id, version, hostname, tags, default } => {
            let info = DockInfo {
                id: id.clone(),
                version,
                hostname: hostname.unwrap_or_default(),
                tags,
                default,
                node,
                address,
                principal: access.identity().name().to_owned(),
                since: clock::millis(),
            };
            let dock = Dock::attach(context.docks.clone(), access.identity(), info).await?;
            Ok(Admitted { access, place, name: id, dock: Some(Box::new(dock)), route: None })
        }
    }
}
