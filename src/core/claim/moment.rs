//! Time as the state machine sees it: it never asks a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on a clock that never goes back, counted from the start of this router: the agent may have been started many
/// times since. The time that the router was suspended counts (`CLOCK_BOOTTIME`, clock_gettime(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// That long after the router's start.
    pub const fn after_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long before `later` this was; zero if it was not before it.
    pub fn until(self, later: Moment) -> Duration {
        later.0.saturating_sub(self.0)
    }

    /// The time since the router's start.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// That long before; none if the router was not running yet.
    pub fn earlier(self, by: Duration) -> Option<Self> {
        self.0.checked_sub(by).map(Self)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    /// The router's start at the earliest.
    fn sub(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(earlier))
    }
}
