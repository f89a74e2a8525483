//! Time as the state machine sees it: it never asks a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, counted from the agent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// That long after the agent's start.
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long before `later` this was; zero if it was not before it.
    pub fn until(self, later: Moment) -> Duration {
        later.0.saturating_sub(self.0)
    }

    /// The time since the agent's start.
    pub fn since_start(self) -> Duration {
        self.0
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

    /// The agent's start at the earliest.
    fn sub(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(earlier))
    }
}
