//! Pings to one peer, and when the peer counts as gone. Pure.

use std::time::{Duration, Instant};

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The end of the connection: the peer shows no sign of life.
    End,
}

/// The pings of one connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    next_ping: Instant,
    /// Until when a ping must be answered.
    pong_by: Option<Instant>,
}

impl KeepAlive {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, next_ping: now + interval, pong_by: None }
    }

    /// When something is due.
    pub(super) fn at(&self) -> Instant {
        self.pong_by.unwrap_or(self.next_ping)
    }

    /// The ping is answered.
    pub(super) fn pong(&mut self, now: Instant) {
        self.pong_by = None;
        self.next_ping = now + self.interval;
    }

    /// What is due. `last_sign`: when bytes have moved last in either direction; `is_listening`: whether what the peer
    /// says is read.
    pub(super) fn due(&mut self, now: Instant, last_sign: Instant, is_listening: bool) -> Due {
        match self.pong_by {
            // The pong may be among what is not read yet.
            Some(by) if now >= by && !is_listening => {
                self.pong_by = Some(now + self.timeout);
                Due::Nothing
            }
            Some(by) if now >= by => {
                // Behind much output a pong comes late; but bytes that move show that somebody is there.
                let alive_until = last_sign + self.timeout;
                if alive_until <= now {
                    return Due::End;
                }
                self.pong_by = Some(alive_until);
                Due::Nothing
            }
            None if now >= self.next_ping => {
                self.pong_by = Some(now + self.timeout);
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_that_answers_is_asked_again_and_one_that_does_not_is_gone() {
        let start = Instant::now();
        let mut pings = KeepAlive::new(seconds(15), seconds(5), start);
        assert_eq!(pings.due(start + seconds(14), start, true), Due::Nothing);
        assert_eq!(pings.due(start + seconds(15), start, true), Due::Ping);
        pings.pong(start + seconds(16));
        assert_eq!(pings.at(), start + seconds(31));
        assert_eq!(pings.due(start + seconds(31), start + seconds(16), true), Due::Ping);
        assert_eq!(pings.due(start + seconds(36), start + seconds(16), true), Due::End);
    }

    #[test]
    fn bytes_that_move_and_requests_that_wait_put_the_end_off() {
        let start = Instant::now();
        let mut pings = KeepAlive::new(seconds(15), seconds(5), start);
        assert_eq!(pings.due(start + seconds(15), start, true), Due::Ping);
        assert_eq!(pings.due(start + seconds(20), start + seconds(18), true), Due::Nothing);
        assert_eq!(pings.at(), start + seconds(23));
        assert_eq!(pings.due(start + seconds(23), start + seconds(18), false), Due::Nothing);
        assert_eq!(pings.due(start + seconds(28), start + seconds(18), true), Due::End);
    }
}
