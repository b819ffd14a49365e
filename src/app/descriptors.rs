//! File descriptors: how many connections fit beside the files of the stores.
//!
//! At the limit of the system a connection cannot be accepted and a store cannot open a file, which would stop the node.
//! So the bounds of the doors are made to fit at the start: then a door refuses a client, and nothing else happens.

use anyhow::bail;
use rollbook_cluster::files;

use super::config::settings::Config;

/// Connections that a listener takes beyond those of its doors, so that who is one too many gets an answer, and the
/// operator gets in.
const SPARE: usize = 1000;
/// With fewer files a node does not start: it would stop as soon as it has some events, or some clients.
const LIMIT_MIN: u64 = 128;

/// The bounds of the doors, made to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fitted {
    /// The settings, with lower `connections_max` where those asked for do not fit.
    pub(super) config: Config,
    /// Connections that a listener takes beyond those of its doors.
    pub(super) spare: usize,
}

/// Raises the limit of this process as far as the system allows it, and makes the doors fit into it.
///
/// # Errors
/// So few files are allowed that the stores would have none.
pub(super) fn fit(config: &Config) -> anyhow::Result<Fitted> {
    let limit = files::raise_limit();
    if limit < LIMIT_MIN {
        bail!("the system allows this process {limit} open files, at least {LIMIT_MIN} are needed; see `ulimit -n`");
    }
    let room = usize::try_from(limit.saturating_sub(files::reserved(limit))).unwrap_or(usize::MAX);
    let fitted = within(config, room);
    let Config { sse, socketio, websocket, .. } = &fitted.config;
    tracing::debug!(limit, room, "open files");
    if fitted.config != *config {
        tracing::warn!(
            open_files = limit,
            for_connections = room,
            wanted = wanted(config),
            sse = sse.connections_max,
            streams = sse.streams_max,
            socketio = socketio.connections_max,
            websocket = websocket.connections_max,
            "the system does not allow as many open files as connections_max of the doors asks for: the bounds are \
             lowered to these; raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd), or lower the settings"
        );
    }
    Ok(fitted)
}

/// Connections that the settings allow at a time.
fn wanted(config: &Config) -> usize {
    let Config { sse, socketio, websocket, .. } = config;
    let log = sse.connections_max.saturating_add(sse.streams_max).saturating_add(SPARE);
    let log = if config.sse.listen.addr().is_some() { log } else { 0 };
    // A Socket.IO client that polls has two.
    let sockets = socketio.connections_max.saturating_mul(2).saturating_add(websocket.connections_max);
    let web = if config.web.listen.addr().is_some() { sockets.saturating_add(SPARE) } else { 0 };
    log.saturating_add(web)
}

/// The settings with bounds that are lowered by the same part where all together need more than `room`.
fn within(config: &Config, room: usize) -> Fitted {
    let (wanted, mut config) = (wanted(config), config.clone());
    if wanted <= room {
        return Fitted { config, spare: SPARE };
    }
    let share = |bound: usize| bound.saturating_mul(room).checked_div(wanted).unwrap_or(bound).max(1);
    config.sse.connections_max = share(config.sse.connections_max);
    config.sse.streams_max = share(config.sse.streams_max);
    config.socketio.connections_max = share(config.socketio.connections_max);
    config.websocket.connections_max = share(config.websocket.connections_max);
    Fitted { config, spare: share(SPARE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::values::Listen;

    #[test]
    fn bounds_that_fit_are_left_alone() {
        let config = Config::default();
        assert_eq!(wanted(&config), 102_000);
        assert_eq!(within(&config, 102_000), Fitted { config, spare: SPARE });
    }

    #[test]
    fn bounds_that_do_not_fit_are_lowered_until_they_do() {
        for room in [1000, 64, 32] {
            let Fitted { config, spare } = within(&Config::default(), room);
            let total = config.sse.connections_max
                + config.sse.streams_max
                + 2 * config.socketio.connections_max
                + config.websocket.connections_max
                + 2 * spare;
            assert!(total <= room && total + 8 > room, "{total} of {room}");
            assert_eq!(config.sse.connections_max, config.websocket.connections_max);
        }
        assert_eq!(within(&Config::default(), 0).config.sse.connections_max, 1);
    }

    #[test]
    fn a_door_that_is_closed_needs_nothing() {
        let mut config = Config::default();
        config.web.listen = Listen::Off;
        assert_eq!(wanted(&config), 41_000);
        config.sse.listen = Listen::Off;
        assert_eq!(wanted(&config), 0);
    }
}
