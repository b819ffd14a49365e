//! Fits the number of connections into the file descriptors that the stores leave.
//!
//! At the limit of the system, no connection can be accepted, and no store can open a file, which would stop the
//! node. So the bounds of the doors are lowered at the start. Invariant: a door refuses a client before the stores
//! lack a descriptor.

use anyhow::bail;
use rollbook_cluster::store::files;

use crate::app::config::settings::Config;

/// Connections of a listener beyond the bounds of its doors, so that a client beyond the bound gets an answer and the
/// operator can connect.
const SPARE: usize = 1000;
/// Least number of open files. A node with fewer would stop after some events or some clients.
const LIMIT_MIN: u64 = 128;

/// The configuration with bounds that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app) struct FittedConfig {
    /// The settings. `connections_max` is lowered where the configured value does not fit.
    pub(in crate::app) config: Config,
    /// Connections of a listener beyond the bounds of its doors.
    pub(in crate::app) spare: usize,
}

/// Raises the limit of this process as far as the system allows, and fits the bounds of the doors into the limit.
///
/// # Errors
/// The limit is too low for the stores.
pub(in crate::app) fn fit(config: &Config) -> anyhow::Result<FittedConfig> {
    let limit = files::raise_limit();
    if limit < LIMIT_MIN {
        bail!("the system allows this process {limit} open files, at least {LIMIT_MIN} are needed; see `ulimit -n`");
    }
    let room = usize::try_from(limit.saturating_sub(files::reserved(limit))).unwrap_or(usize::MAX);
    let fitted = within(config, room);
    tracing::debug!(
        limit,
        room,
        "the system allows so many open files, and the stores leave this room for connections"
    );
    if fitted.config != *config {
        let (wanted, bounds) = (wanted(config, SPARE), list(&bounds(&fitted.config)));
        if self::bounds(config) == self::bounds(&Config::default()) {
            tracing::info!(limit, wanted, %bounds, "the default bounds are lowered to these, to fit into the open files that the system allows; \
                 raise the limit (`ulimit -n`) for more connections");
        } else {
            tracing::warn!(
                open_files = limit,
                for_connections = room,
                wanted,
                %bounds,
                "the system does not allow as many open files as the bounds of the doors ask for: the bounds are lowered \
                 to these; raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd), or lower the settings"
            );
        }
    }
    Ok(fitted)
}

fn list(bounds: &[(&'static str, usize)]) -> String {
    bounds.iter().map(|(key, max)| format!("{key}={max}")).collect::<Vec<_>>().join(" ")
}

/// Connections that the settings allow at a time, with `spare` more for each listener.
fn wanted(config: &Config, spare: usize) -> usize {
    let mut config = config.clone();
    let (mut own, mut web) = (0_usize, spare);
    for (_, door) in config.doors.all_mut() {
        let listener = door.listener();
        let bounds = door.connection_bounds();
        let files = bounds.iter().map(|bound| bound.max.saturating_mul(bound.files)).fold(0, usize::saturating_add);
        match listener {
            None => web = web.saturating_add(files),
            Some(listener) if listener.listen.addr().is_some() => own = own.saturating_add(files).saturating_add(spare),
            Some(_) => {}
        }
    }
    if config.web.listen.addr().is_some() { own.saturating_add(web) } else { own }
}

/// Most connections of the web listener: those of its doors, and some more so that the operator can connect.
pub(super) fn web_connections_max(FittedConfig { config, spare }: &FittedConfig) -> usize {
    let mut doors = config.doors.clone();
    let on_web = doors.all_mut().into_iter().filter(|(_, door)| door.listener().is_none());
    let counted = on_web.flat_map(|(_, door)| door.connection_bounds());
    counted.map(|bound| bound.max.saturating_mul(bound.counted)).fold(*spare, usize::saturating_add)
}

/// The settings with no bound above `cap`.
fn capped(config: &Config, cap: usize) -> FittedConfig {
    let mut config = config.clone();
    for (_, door) in config.doors.all_mut() {
        for bound in door.connection_bounds() {
            *bound.max = (*bound.max).min(cap);
        }
    }
    FittedConfig { config, spare: SPARE.min(cap) }
}

/// The settings with bounds that need at most `room` descriptors together. The largest bounds are lowered to one
/// number; small bounds stay.
fn within(config: &Config, room: usize) -> FittedConfig {
    let (mut fits, mut above) = (1, usize::MAX);
    while above.saturating_sub(fits) > 1 {
        let cap = fits.midpoint(above);
        let FittedConfig { config, spare } = capped(config, cap);
        if wanted(&config, spare) <= room {
            fits = cap;
        } else {
            above = cap;
        }
    }
    capped(config, fits)
}

/// The bounds that may be lowered, by the keys of their settings.
fn bounds(config: &Config) -> Vec<(&'static str, usize)> {
    let mut doors = config.doors.clone();
    let of_doors = doors.all_mut();
    let bounds = of_doors.into_iter().flat_map(|(_, door)| door.connection_bounds());
    bounds.map(|bound| (bound.key, *bound.max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen::Listen;

    #[test]
    fn bounds_that_fit_are_left_alone() {
        let config = Config::default();
        assert_eq!(wanted(&config, SPARE), 102_000);
        assert_eq!(within(&config, 102_000), FittedConfig { config, spare: SPARE });
    }

    #[test]
    fn bounds_that_do_not_fit_are_lowered_until_they_do() {
        for room in [1000, 64, 32] {
            let FittedConfig { config, spare } = within(&Config::default(), room);
            let total = config.doors.sse.connections_max
                + config.doors.sse.streams_max
                + 2 * config.doors.socketio.connections_max
                + config.doors.websocket.connections_max
                + 2 * spare;
            assert!(total <= room && total + 8 > room, "{total} of {room}");
            assert_eq!(config.doors.sse.connections_max, config.doors.websocket.connections_max);
        }
        assert_eq!(within(&Config::default(), 0).config.doors.sse.connections_max, 1);
    }

    #[test]
    fn small_bounds_are_left_alone() {
        let mut config = Config::default();
        (config.doors.sse.connections_max, config.doors.sse.streams_max) = (8, 12);
        let FittedConfig { config, spare } = within(&config, 16_000);
        assert_eq!((config.doors.sse.connections_max, config.doors.sse.streams_max, spare), (8, 12, SPARE));
        assert_eq!(config.doors.socketio.connections_max, config.doors.websocket.connections_max);
        let total = wanted(&config, spare);
        assert!(total <= 16_000 && total > 15_990, "{total}");
    }

    #[test]
    fn a_door_that_is_closed_needs_nothing() {
        let mut config = Config::default();
        config.web.listen = Listen::Off;
        assert_eq!(wanted(&config, SPARE), 41_000);
        config.doors.sse.listen = Listen::Off;
        assert_eq!(wanted(&config, SPARE), 0);
    }
}
