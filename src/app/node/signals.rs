//! The signals that stop a node, and how many of them came.
//!
//! SIGINT and SIGTERM stop the node. SIGHUP reports that the terminal was closed, and stops a node that was started
//! from a terminal. A node without a terminal is a service, to which `systemctl reload` sends SIGHUP: the certificate of
//! the listeners is read again, and all other settings are read at the start only. Under `nohup` the signal stays
//! ignored.

use std::io;
use std::time::{Duration, Instant};

use rollbook_cluster::wait::wait_until;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Number of SIGHUP.
const HANGUP: u32 = 1;
/// Signals within this time count as one: Ctrl-C reaches the node and also a program that started the node and passes
/// the signal on.
const SAME_SIGNAL_MAX: Duration = Duration::from_secs(1);

/// Counts the requests to stop the node.
#[derive(Debug, Clone)]
pub(in crate::app) struct Signals {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

impl Signals {
    /// Catches the signals from now on, on the present runtime.
    ///
    /// # Errors
    /// The system does not allow a handler.
    pub(in crate::app) fn catch() -> io::Result<Self> {
        let (sender, stops) = watch::channel(0_u32);
        let (hang_up, hangups) = watch::channel(0_u32);
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let hangup = if is_ignored(HANGUP) { None } else { Some(signal(SignalKind::hangup())?) };
        actix_web::rt::spawn(count_signals(interrupt, terminate, hangup, has_terminal(), (sender, hang_up)));
        Ok(Self { stops, hangups })
    }

    /// Resolves after the first request to stop.
    pub(in crate::app) async fn stop(&self) {
        self.times(1).await;
    }

    /// Resolves after a second request to stop, at least a second later: the operator does not want to wait for
    /// clients.
    pub(in crate::app) async fn stop_now(&self) {
        self.times(2).await;
    }

    /// Counts each SIGHUP that does not stop the node.
    pub(in crate::app) fn hangups(&self) -> watch::Receiver<u32> {
        self.hangups.clone()
    }

    async fn times(&self, least: u32) {
        let mut stops = self.stops.clone();
        if wait_until(&mut stops, |times| *times >= least).await.is_err() {
            // The runtime ends and no signal is caught any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn count_signals(
    mut interrupt: Signal,
    mut terminate: Signal,
    mut hangup: Option<Signal>,
    has_terminal: bool,
    (stops, hangups): (watch::Sender<u32>, watch::Sender<u32>),
) {
    let mut counted: Option<Instant> = None;
    loop {
        let name = tokio::select! {
            Some(()) = interrupt.recv() => "SIGINT",
            Some(()) = terminate.recv() => "SIGTERM",
            Some(()) = hung_up(&mut hangup) => {
                if !has_terminal {
                    tracing::info!("SIGHUP: certificates are read again; settings are read at the start only");
                    hangups.send_modify(|times| *times = times.wrapping_add(1));
                    continue;
                }
                "SIGHUP"
            }
            else => return,
        };
        tracing::info!(signal = name, "told to stop");
        if counted.is_none_or(|before| before.elapsed() >= SAME_SIGNAL_MAX) {
            counted = Some(Instant::now());
            stops.send_modify(|times| *times = times.saturating_add(1));
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => None,
    }
}

/// Whether this process has a terminal. The system sends SIGHUP when that terminal is closed.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether this process was started with that signal ignored. Without /proc the answer is no.
fn is_ignored(number: u32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, number))
}

fn ignores(status: &str, number: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    number.checked_sub(1).and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_known() {
        let status = |mask: &str| format!("Name:\trollbook\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert!(ignores(&status("0000000000000001"), HANGUP));
        assert!(ignores(&status("0000000000001001"), HANGUP));
        assert!(!ignores(&status("0000000000001000"), HANGUP));
        assert!(!ignores("", HANGUP));
    }
}
