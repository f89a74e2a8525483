//! How a figure grows with the number of groups. An exponent fitted to the whole figure cannot see what a constant part
//! hides, so that what is judged is the part that grows: a constant figure by how much it grows at all, a linear one by
//! what its last step adds beside what the steps before it let expect.

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

/// How much steeper the last step of a linear figure may be than the steps before it: 1 is a straight line, a machine that
/// is shared has made 1.9 of it for a while, and a quadratic figure has 4.9 for 1, 50 and 200 groups.
const STEEPER: f64 = 2.0;

/// The greatest fitted exponent of a linear figure.
const EXPONENT: f64 = 1.25;

/// What was found of one figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Growth {
    /// Which.
    pub figure: String,
    /// In what.
    pub unit: String,
    /// How it may grow.
    pub order: Order,
    /// The exponent of a power law, fitted to all points; nothing where a value is not above 0.
    pub exponent: Option<f64>,
    /// A constant figure: by how much the greatest value is above the first. A linear one: by how much the last value is above
    /// the one before it.
    pub added: f64,
    /// The most that may be.
    pub allowed: f64,
    /// Whether it is no more, and the exponent of a linear figure within its limit.
    pub holds: bool,
}

/// Judges a figure by its values, each with the number of groups, in rising order. `noise` is what it may be off by, in its
/// own unit.
///
/// # Panics
/// With fewer than three points.
pub fn judge(figure: &str, unit: &str, order: Order, noise: f64, points: &[(usize, f64)]) -> Growth {
    let [(n, first), .., (m, middle), (l, last)] = *points else {
        panic!("{figure}: three points at least are needed, not {points:?}");
    };
    let exponent = points.iter().all(|(_, value)| *value > 0.0).then(|| exponent(points));
    let (added, allowed) = match order {
        Order::Constant => (points.iter().map(|(_, value)| value - first).fold(0.0, f64::max), noise),
        Order::Linear => {
            let slope = ((middle - first) / (m - n) as f64).max(0.0);
            (last - middle, STEEPER * slope * (l - m) as f64 + noise)
        }
    };
    let bent = order == Order::Linear && exponent.is_some_and(|exponent| exponent > EXPONENT);
    let holds = added <= allowed && !bent;
    Growth { figure: figure.to_owned(), unit: unit.to_owned(), order, exponent, added, allowed, holds }
}

/// The slope of ln(value) over ln(groups), by least squares.
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

    fn judged(order: Order, noise: f64, of: impl Fn(f64) -> f64) -> Growth {
        judge("planted", "ms", order, noise, &GROUPS.map(|n| (n, of(n as f64))))
    }

    #[test]
    fn a_quadratic_series_fails() {
        for order in [Order::Constant, Order::Linear] {
            let growth = judged(order, 1.0, |n| 0.5 * n * n);
            assert!(!growth.holds && growth.exponent.is_some_and(|e| (e - 2.0).abs() < 1e-9), "{growth:?}");
        }
    }

    #[test]
    fn a_constant_part_hides_nothing() {
        // As figures.rs judges them: times of a call, of a command in milliseconds, memory in MB.
        for growth in [
            judged(Order::Constant, 90.0, |n| 300.0 + 2.8 * n),
            judged(Order::Constant, 90.0, |n| 300.0 + 0.0085 * n * n),
            judged(Order::Linear, 1.0, |n| 1.57 + 0.0001 * n * n),
            judged(Order::Linear, 1.0, |n| 10.0 + 0.0005 * n * n),
            judged(Order::Linear, 0.5, |n| 20.0 + 0.05 * n * n),
        ] {
            assert!(!growth.holds, "{growth:?}");
        }
    }

    #[test]
    fn a_linear_series_is_linear_and_not_constant() {
        let linear = |n| 3.0 + 0.7 * n;
        assert!(judged(Order::Linear, 0.1, linear).holds);
        assert!(!judged(Order::Constant, 90.0, linear).holds);
        // A square root is growth.
        assert!(!judged(Order::Constant, 90.0, |n| 10.0 * n.sqrt()).holds);
        assert!(judged(Order::Linear, 0.1, |n| 10.0 * n.sqrt()).holds);
    }

    #[test]
    fn noise_is_no_growth() {
        let growth = judged(Order::Constant, 90.0, |n| 300.0 + 25.0 * (n * 7.0).sin());
        assert!(growth.holds, "{growth:?}");
        // One request for one group, two for ten, three for two hundred.
        let requests = judge("requests", "", Order::Constant, 2.0, &[(1, 1.0), (10, 2.0), (50, 2.0), (200, 3.0)]);
        assert!(requests.holds && requests.added == 2.0, "{requests:?}");
        // A slope that noise makes negative lets expect nothing.
        assert!(judge("flat", "ms", Order::Linear, 0.5, &[(1, 2.0), (50, 1.9), (200, 2.3)]).holds);
        assert!(!judge("flat", "ms", Order::Linear, 0.5, &[(1, 2.0), (50, 1.9), (200, 2.5)]).holds);
    }

    #[test]
    fn nothing_at_all_does_not_grow() {
        let none = judged(Order::Constant, 0.0, |_| 0.0);
        assert!(none.holds && none.exponent.is_none(), "{none:?}");
        assert!(!judged(Order::Constant, 0.0, |n| if n > 100.0 { 1.0 } else { 0.0 }).holds);
    }
}
