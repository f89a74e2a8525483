//! Many times of one thing, in a few numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Of fewer times than that, the 99th in a hundred is just the longest.
const FOR_P99: usize = 100;

/// How times are spread, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// None was shorter.
    pub min: f64,
    /// Half of them took no longer.
    pub p50: f64,
    /// 90 of 100 took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer; nothing where there are fewer than a hundred.
    pub p99: Option<f64>,
    /// None took longer.
    pub max: f64,
}

impl Spread {
    /// Of times in any order.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(times: &[Duration]) -> Self {
        Self::of_millis(times.iter().copied().map(millis))
    }

    /// The same of milliseconds.
    ///
    /// # Panics
    /// If there are none.
    pub fn of_millis(times: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = times.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "nothing was measured");
        // Nearest rank: the smallest value that so many in a hundred do not exceed.
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let p99 = (sorted.len() >= FOR_P99).then(|| rank(99));
        Self { count: sorted.len(), min: sorted[0], p50: rank(50), p90: rank(90), p99, max: rank(100) }
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
        assert_eq!(
            Spread::of(&times),
            Spread { count: 1000, min: 1.0, p50: 500.0, p90: 900.0, p99: Some(990.0), max: 1000.0 }
        );
        let three: Vec<Duration> = [3, 1, 2].map(Duration::from_millis).into();
        assert_eq!(Spread::of(&three), Spread { count: 3, min: 1.0, p50: 2.0, p90: 3.0, p99: None, max: 3.0 });
        assert_eq!(Spread::of(&three[..1]), Spread { count: 1, min: 3.0, p50: 3.0, p90: 3.0, p99: None, max: 3.0 });
        assert_eq!(Spread::of(&times[..99]).p99, None);
        assert_eq!(Spread::of(&times[..100]).p99, Some(999.0));
    }
}
