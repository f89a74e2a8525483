//! How far EC2's clock and this router's are apart, in words.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::report::status::time;

/// From this difference on, EC2's time says more than a number of seconds does.
const MIN_SHOWN_AS_A_DATE: Duration = Duration::from_hours(24);

/// How this router's clock differs from EC2's, to follow `it is`: `312 s behind EC2's`. `ec2_ahead` is EC2's time minus ours,
/// and `now` is ours. From a day on it is EC2's time itself: `behind EC2's, which says 2026-11-20 10:00:00 UTC`.
pub fn skew(ec2_ahead: SignedDuration, now: Timestamp) -> String {
    let side = if ec2_ahead.is_negative() { "ahead of" } else { "behind" };
    if ec2_ahead.unsigned_abs() < MIN_SHOWN_AS_A_DATE {
        return format!("{} s {side} EC2's", ec2_ahead.unsigned_abs().as_secs());
    }
    let end = if ec2_ahead.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    format!("{side} EC2's, which says {}", time(now.checked_add(ec2_ahead).unwrap_or(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_days_is_shown_as_a_date() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        for (seconds, text) in [
            (0, "0 s behind EC2's"),
            (312, "312 s behind EC2's"),
            (-312, "312 s ahead of EC2's"),
            (86_399, "86399 s behind EC2's"),
            (86_400, "behind EC2's, which says 2026-11-29 12:00:00 UTC"),
            (-86_400, "ahead of EC2's, which says 2026-11-27 12:00:00 UTC"),
            (251_606_421_471, "behind EC2's, which says 9999-12-30 22:00:00 UTC"),
            (i64::MIN, "ahead of EC2's, which says -9999-01-02 01:59:59 UTC"),
        ] {
            assert_eq!(skew(SignedDuration::from_secs(seconds), now), text);
        }
    }
}
