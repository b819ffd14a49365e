//! Chance in pauses, so that what failed at one moment does not come again at one moment.

use std::time::Duration;

/// A random byte.
pub(super) fn random_byte() -> u8 {
    uuid::Uuid::new_v4().into_bytes().first().copied().unwrap_or_default()
}

/// `pause` times a factor from `least` to `most`, by a random byte.
pub(super) fn spread(pause: Duration, least: f64, most: f64, random: u8) -> Duration {
    pause.mul_f64(least + (most - least) * f64::from(random) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_stays_between_its_bounds() {
        let pause = Duration::from_secs(10);
        assert_eq!(spread(pause, 0.8, 1.2, 0), Duration::from_secs(8));
        assert_eq!(spread(pause, 0.8, 1.2, u8::MAX), Duration::from_secs(12));
    }
}
