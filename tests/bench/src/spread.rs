//! Many times of one thing, in a few numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How times are spread, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Spread {
    /// Of times in any order.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(times: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = times.iter().map(|time| millis(*time)).collect();
        sorted.sort_by(f64::total_cmp);
        // Nearest rank: the smallest value that so many in a hundred do not exceed.
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        assert!(!sorted.is_empty(), "nothing was measured");
        Self { count: sorted.len(), p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

/// In milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let times: Vec<Duration> = (1..=1000).rev().map(Duration::from_millis).collect();
        assert_eq!(Spread::of(&times), Spread { count: 1000, p50: 500.0, p99: 990.0, max: 1000.0 });
        let three: Vec<Duration> = [3, 1, 2].map(Duration::from_millis).into();
        assert_eq!(Spread::of(&three), Spread { count: 3, p50: 2.0, p99: 3.0, max: 3.0 });
        assert_eq!(Spread::of(&three[..1]), Spread { count: 1, p50: 3.0, p99: 3.0, max: 3.0 });
    }
}
