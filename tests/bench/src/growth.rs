//! How a figure grows with the number of groups: the exponent of a power law, fitted to the logarithms by least squares.

use serde::{Deserialize, Serialize};

/// How a figure may grow with the number of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Not at all.
    Constant,
    /// In proportion, or less.
    Linear,
}

impl Order {
    /// The greatest exponent over all points that is still taken for it. Noise and a step from one to three requests stay
    /// below 0.3, a square root does not; a quadratic figure has 2.
    pub fn limit(self) -> f64 {
        match self {
            Order::Constant => 0.3,
            Order::Linear => 1.25,
        }
    }

    /// The same for the last two points alone. From 50 to 200 groups a second call's time may come, which is 0.5: the
    /// lines of so many groups take longer than the first request waits for them.
    pub fn last_limit(self) -> f64 {
        match self {
            Order::Constant => 0.55,
            Order::Linear => 1.25,
        }
    }
}

/// What was found of one figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Growth {
    /// Which.
    pub figure: String,
    /// How it may grow.
    pub order: Order,
    /// The exponent over all points.
    pub exponent: f64,
    /// The exponent between the last two points: a constant part hides the rest in the first ones.
    pub last_exponent: f64,
    /// Whether both are within their limits.
    pub holds: bool,
}

/// Judges a figure by its values, each with the number of groups.
///
/// # Panics
/// With fewer than two points, or values that are not above 0.
pub fn judge(figure: &str, order: Order, points: &[(usize, f64)]) -> Growth {
    assert!(points.len() >= 2 && points.iter().all(|(n, y)| *n > 0 && *y > 0.0), "{figure}: {points:?}");
    let exponent = exponent(points);
    let last_exponent = self::exponent(&points[points.len() - 2..]);
    let holds = exponent <= order.limit() && last_exponent <= order.last_limit();
    Growth { figure: figure.to_owned(), order, exponent, last_exponent, holds }
}

/// The slope of ln(value) over ln(groups).
fn exponent(points: &[(usize, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(n, y)| ((*n as f64).ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [usize; 4] = [1, 10, 50, 200];

    fn judged(order: Order, of: impl Fn(f64) -> f64) -> Growth {
        judge("planted", order, &GROUPS.map(|n| (n, of(n as f64))))
    }

    #[test]
    fn a_quadratic_series_fails() {
        for order in [Order::Constant, Order::Linear] {
            let growth = judged(order, |n| 0.5 * n * n);
            assert!(!growth.holds && (growth.exponent - 2.0).abs() < 1e-9, "{growth:?}");
        }
        // Beneath a constant part, too.
        let hidden = judged(Order::Linear, |n| 20.0 + 0.05 * n * n);
        assert!(!hidden.holds && hidden.exponent < 1.0 && hidden.last_exponent > 1.25, "{hidden:?}");
    }

    #[test]
    fn a_linear_series_is_linear_and_not_constant() {
        let linear = |n| 3.0 + 0.7 * n;
        assert!(judged(Order::Linear, linear).holds);
        assert!(!judged(Order::Constant, linear).holds);
    }

    #[test]
    fn noise_is_no_growth() {
        let noisy = |n: f64| 300.0 + 25.0 * (n * 7.0).sin();
        let growth = judged(Order::Constant, noisy);
        assert!(growth.holds, "{growth:?}");
        // One request for one group, two for ten, three for two hundred.
        let requests = judge("requests", Order::Constant, &[(1, 1.0), (10, 2.0), (50, 2.0), (200, 3.0)]);
        assert!(requests.holds, "{requests:?}");
        // A square root is growth.
        assert!(!judged(Order::Constant, |n| 10.0 * n.sqrt()).holds);
    }
}
