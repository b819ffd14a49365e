//! Whether and when a process that ended is started again. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::definition::restart_policy::{RestartMode, RestartPolicy};

/// The run time in which restarts are counted, and after which a process counts as sound.
const WINDOW: Duration = Duration::from_secs(60);

/// The restarts of one service since the last command.
#[derive(Debug, Clone, Default)]
pub(super) struct RestartHistory {
    /// The sum of the run times of all processes. Pauses do not count: otherwise no service whose pauses have grown
    /// could count as crashed.
    run_time: Duration,
    /// The run time at each restart within the window.
    restarts: VecDeque<Duration>,
    /// Restarts since a process last was sound.
    streak: u32,
}

/// What follows the end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RestartDecision {
    /// Nothing: the policy does not restart.
    Rest,
    /// A restart after this time.
    Restart(Duration),
    /// Nothing: there were too many restarts.
    Crash,
}

impl RestartHistory {
    /// A process ended after `ran`. `failed` says whether with a code other than 0.
    pub(super) fn ended(&mut self, ran: Duration, failed: bool, policy: &RestartPolicy) -> RestartDecision {
        self.run_time = self.run_time.saturating_add(ran);
        if ran >= WINDOW {
            self.streak = 0;
        }
        match policy.mode {
            RestartMode::Never => return RestartDecision::Rest,
            RestartMode::OnFailure if !failed => return RestartDecision::Rest,
            RestartMode::OnFailure | RestartMode::Always => {}
        }
        while self.restarts.front().is_some_and(|at| at.saturating_add(WINDOW) < self.run_time) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= policy.max {
            return RestartDecision::Crash;
        }
        self.restarts.push_back(self.run_time);
        let delay = policy.delay.saturating_mul(2_u32.saturating_pow(self.streak)).min(policy.max_delay);
        self.streak = self.streak.saturating_add(1);
        RestartDecision::Restart(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_longest_and_the_eleventh_end_is_a_crash() {
        let (mut history, policy) = (RestartHistory::default(), RestartPolicy::default());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60] {
            assert_eq!(history.ended(SECOND, true, &policy), RestartDecision::Restart(SECOND * seconds));
        }
        assert_eq!(history.ended(SECOND, true, &policy), RestartDecision::Crash);
    }

    #[test]
    fn a_minute_of_running_forgets_earlier_restarts() {
        let (mut history, policy) = (RestartHistory::default(), RestartPolicy::default());
        for _ in 0..100 {
            for seconds in [1, 2, 4] {
                assert_eq!(history.ended(Duration::ZERO, true, &policy), RestartDecision::Restart(SECOND * seconds));
            }
            assert_eq!(history.ended(SECOND * 61, true, &policy), RestartDecision::Restart(SECOND));
            history.streak = 0;
            history.restarts.clear();
        }
    }

    #[test]
    fn slow_restarts_never_crash() {
        let (mut history, policy) = (RestartHistory::default(), RestartPolicy::default());
        for _ in 0..1_000 {
            assert!(matches!(history.ended(SECOND * 7, true, &policy), RestartDecision::Restart(_)));
        }
    }

    #[test]
    fn the_mode_decides_which_ends_are_followed() {
        let mut policy = RestartPolicy { mode: RestartMode::OnFailure, ..RestartPolicy::default() };
        assert_eq!(RestartHistory::default().ended(SECOND, false, &policy), RestartDecision::Rest);
        assert_eq!(RestartHistory::default().ended(SECOND, true, &policy), RestartDecision::Restart(SECOND));
        policy.mode = RestartMode::Never;
        assert_eq!(RestartHistory::default().ended(SECOND, true, &policy), RestartDecision::Rest);
    }
}
