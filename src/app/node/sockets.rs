//! Binds the sockets of the listeners for clients, before the node opens any file.

use std::net::TcpListener;

use anyhow::Context as _;

use crate::app::config::settings::Config;
use crate::net::listen::Listen;

/// Name of the listener that REST shares with the doors over HTTP.
pub(super) const WEB: &str = "web";

/// Binds the listeners of the doors and the web listener, by name. A listener that is off is left out.
///
/// # Errors
/// An address cannot be used, for example because another program listens there.
pub(super) fn bind(config: &Config) -> anyhow::Result<Vec<(&'static str, TcpListener)>> {
    let own = config.doors.all().into_iter().filter_map(|(name, door)| Some((name, door.listener()?)));
    let own = own.map(|(name, own)| (name, own.listen, own.flag.unwrap_or(own.key)));
    let mut bound = Vec::new();
    for (name, listen, way) in own.chain([(WEB, config.web.listen, "--web")]) {
        let Listen::Addr(address) = listen else { continue };
        let socket = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} for {name}; choose another address with {way}"))?;
        bound.push((name, socket));
    }
    Ok(bound)
}
