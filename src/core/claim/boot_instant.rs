//! The time of the state machine, which reads no clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// The time since this router booted, including suspension (`CLOCK_BOOTTIME`, clock_gettime(2)). It stays valid across
/// restarts of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The instant `elapsed` after the boot.
    pub const fn after_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time from this instant to `later`; zero if `later` is earlier.
    pub fn until(self, later: BootInstant) -> Duration {
        later.0.saturating_sub(self.0)
    }

    /// The time since the boot.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// The instant `by` earlier; `None` if that is before the boot.
    pub fn earlier(self, by: Duration) -> Option<Self> {
        self.0.checked_sub(by).map(Self)
    }
}

impl Add<Duration> for BootInstant {
    type Output = BootInstant;

    fn add(self, later: Duration) -> BootInstant {
        BootInstant(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for BootInstant {
    type Output = BootInstant;

    /// Saturates at the boot.
    fn sub(self, earlier: Duration) -> BootInstant {
        BootInstant(self.0.saturating_sub(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn no_time_is_before_the_start_of_the_router() {
        assert_eq!(at(5).earlier(Duration::from_secs(2)), Some(at(3)));
        assert_eq!(at(5).earlier(Duration::from_secs(5)), Some(at(0)));
        assert_eq!(at(5).earlier(Duration::from_secs(6)), None);
        assert_eq!(at(5) - Duration::from_secs(6), at(0));
        assert_eq!(at(5) + Duration::MAX, BootInstant::after_boot(Duration::MAX));
        assert_eq!((at(3).until(at(5)), at(5).until(at(3))), (Duration::from_secs(2), Duration::ZERO));
    }
}
