//! Pauses: an operator stops the claims of a group for a time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::GroupName;

/// The duration of a pause: from 1 minute to a day; default 30 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Minutes(u16);

impl Minutes {
    /// Whole minutes, from 1 to 1440.
    pub fn get(self) -> u16 {
        self.0
    }

    /// How long the group does not claim.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64 * 60)
    }
}

impl Default for Minutes {
    fn default() -> Self {
        Self(30)
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u16> for Minutes {
    type Error = String;

    fn try_from(minutes: u16) -> Result<Self, String> {
        match minutes {
            1..=1440 => Ok(Self(minutes)),
            _ => Err(format!("a pause lasts from 1 to 1440 minutes, not {minutes}")),
        }
    }
}

impl FromStr for Minutes {
    type Err = String;

    fn from_str(minutes: &str) -> Result<Self, String> {
        let minutes: u16 =
            minutes.parse().map_err(|_| format!("a pause lasts from 1 to 1440 minutes, not {minutes:?}"))?;
        Self::try_from(minutes)
    }
}

impl From<Minutes> for u16 {
    fn from(minutes: Minutes) -> u16 {
        minutes.0
    }
}

/// The groups that an operator has paused, with the end of each pause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pauses {
    groups: BTreeMap<GroupName, Pause>,
}

/// One pause: its end by the time of day, and its start by the boot clock, which cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    until: Timestamp,
    /// The boot that `at` counts from; empty: unknown.
    boot: String,
    /// Seconds since that boot, including the time that the router was suspended.
    at: u64,
    minutes: Minutes,
}

/// The time of day, and the time since boot, which cannot be set.
#[derive(Debug, Clone)]
pub struct Now {
    /// The time of day.
    pub wall: Timestamp,
    /// The id of this boot; empty: unknown.
    pub boot: String,
    /// The time since that boot.
    pub since_boot: Duration,
}

impl Pauses {
    /// Pauses a group; a later call replaces an earlier one. Expired pauses are removed.
    pub fn pause(&mut self, group: GroupName, minutes: Minutes, now: &Now) {
        self.groups.retain(|_, pause| !pause.left(now).is_zero());
        let until = now.wall.saturating_add(minutes.duration()).unwrap_or(Timestamp::MAX);
        let boot = now.boot.clone();
        self.groups.insert(group, Pause { until, boot, at: now.since_boot.as_secs(), minutes });
    }

    /// Ends a pause. Returns whether there was one.
    pub fn resume(&mut self, group: &GroupName) -> bool {
        self.groups.remove(group).is_some()
    }

    /// The pauses that have not expired, each with its remaining time.
    pub fn lasting(&self, now: &Now) -> impl Iterator<Item = (&GroupName, Duration)> {
        self.groups.iter().map(|(group, pause)| (group, pause.left(now))).filter(|(_, left)| !left.is_zero())
    }
}

impl Pause {
    /// Its remaining time. The time of day is used only if the router has been restarted since, and never makes a pause
    /// longer than requested.
    fn left(&self, now: &Now) -> Duration {
        if self.boot == now.boot && !self.boot.is_empty() {
            let gone = now.since_boot.saturating_sub(Duration::from_secs(self.at));
            return self.minutes.duration().saturating_sub(gone);
        }
        let by_day = Duration::try_from(self.until.duration_since(now.wall)).unwrap_or_default();
        by_day.min(self.minutes.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn group(name: &str) -> GroupName {
        GroupName::try_from(name).expect("a name")
    }

    fn day(second: i64, boot: &str, since_boot: u64) -> Now {
        Now { wall: at(second), boot: boot.to_owned(), since_boot: Duration::from_secs(since_boot) }
    }

    fn minutes(n: u16) -> Minutes {
        Minutes::try_from(n).expect("in range")
    }

    #[test]
    fn a_pause_lasts_as_long_as_a_person_asked_whatever_the_clock_does() {
        let mut pauses = Pauses::default();
        let (a, five) = (group("a"), minutes(5));
        pauses.pause(a.clone(), five, &day(1_000, "x", 50));
        let left = |pauses: &Pauses, now: Now| pauses.lasting(&now).next().map(|(_, left)| left.as_secs());
        for (now, expected, why) in [
            (day(1_000, "x", 50), Some(300), "just now"),
            (day(1_060, "x", 110), Some(240), "a minute later"),
            (day(400, "x", 110), Some(240), "the clock has gone back by ten minutes and more"),
            (day(90_000, "x", 110), Some(240), "and a day ahead"),
            (day(1_000, "x", 350), None, "it is over, and the clock stands still"),
            (day(1_060, "y", 5), Some(240), "the router has started anew"),
            (day(0, "y", 5), Some(300), "and its clock has gone back"),
            (day(1_301, "y", 5), None, "and it is over"),
        ] {
            assert_eq!(left(&pauses, now), expected, "{why}");
        }
        // The boot is unknown.
        let mut unknown = Pauses::default();
        unknown.pause(a.clone(), five, &day(1_000, "", 90_000));
        assert_eq!(left(&unknown, day(1_060, "", 5)), Some(240), "the time of day counts");
        // A file with impossible values.
        let text =
            r#"{"groups":{"a":{"until":"2100-01-01T00:00:00Z","boot":"x","at":18446744073709551615,"minutes":5}}}"#;
        assert_eq!(left(&serde_json::from_str(text).expect("read"), day(0, "x", 50)), Some(300));
        pauses.pause(group("b"), five, &day(2_000, "x", 1_050));
        assert!(!pauses.resume(&a), "it was over, and is forgotten");
        assert!(pauses.resume(&group("b")) && pauses == Pauses::default());
    }
}
