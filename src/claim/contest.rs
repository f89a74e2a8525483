//! Two routers that take an address from each other: when that counts as a contest, and how it is kept from burning
//! through the API's limits.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::{Moment, pace};

/// More than this many thefts …
const THEFTS: usize = 3;
/// … within this time are a contest.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Confirmed ownership for that long ends it.
const PEACE: Duration = Duration::from_secs(15 * 60);
/// The first wait before taking an address back, and the longest for the router that outranks the other.
const SHORT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// The same for a router that has no sign of outranking the other, give or take a half.
const LONG: (Duration, Duration) = (Duration::from_secs(75), Duration::from_secs(300));

/// The thefts of one address.
#[derive(Debug, Clone, Default)]
pub struct Contest {
    thefts: VecDeque<Moment>,
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Quiet,
    Contested {
        reclaims: u32,
    },
}

impl Contest {
    /// As it stands after a restart of the agent, with the thefts before it. A contest whose last theft is older than the
    /// peace that ends it is over.
    pub fn resumed(now: Moment, thefts: &[Moment], contested: bool) -> Self {
        let goes_on = contested && thefts.iter().any(|theft| theft.until(now) <= PEACE);
        Self {
            thefts: thefts.iter().copied().collect(),
            state: if goes_on { State::Contested { reclaims: 0 } } else { State::Quiet },
        }
    }

    /// Whether the address is contested.
    pub fn is_on(&self) -> bool {
        matches!(self.state, State::Contested { .. })
    }

    /// Counts a theft; true if it is the one that begins the contest.
    pub fn theft(&mut self, now: Moment) -> bool {
        self.thefts.retain(|t| t.until(now) <= WINDOW);
        self.thefts.push_back(now);
        if self.is_on() || self.thefts.len() <= THEFTS {
            return false;
        }
        self.state = State::Contested { reclaims: 0 };
        true
    }

    /// How long the next claim waits; none while there is no contest.
    pub fn back_off(&mut self, outranks: bool, rng: &mut Rng) -> Option<Duration> {
        let State::Contested { reclaims } = &mut self.state else {
            return None;
        };
        let (first, cap) = if outranks { SHORT } else { LONG };
        let wait = (first * (1 << (*reclaims).min(5))).min(cap);
        *reclaims += 1;
        Some(if outranks { wait } else { pace::around(wait, 50, rng) })
    }

    /// Ends the back-off: the next claim is at once, and the one after it waits the shortest time again.
    pub fn claim_now(&mut self) {
        if let State::Contested { reclaims } = &mut self.state {
            *reclaims = 0;
        }
    }

    /// When the contest ends, if the address has been confirmed as ours since `confirmed` without a break.
    pub fn ends(&self, confirmed: Moment) -> Option<Moment> {
        self.is_on().then(|| confirmed + PEACE)
    }

    /// Ends it; true if there was one.
    pub fn end(&mut self) -> bool {
        let was_on = self.is_on();
        *self = Self::default();
        was_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn the_fourth_theft_within_five_minutes_begins_a_contest() {
        let mut contest = Contest::default();
        assert_eq!([0, 100, 200, 299].map(|t| contest.theft(at(t))), [false, false, false, true]);
        assert!(contest.is_on());
        let mut slow = Contest::default();
        assert_eq!([0, 101, 202, 303, 404].map(|t| slow.theft(at(t))), [false; 5], "never four in five minutes");
    }

    #[test]
    fn a_restart_ends_no_contest_and_forgets_no_theft() {
        let now = at(3_600);
        let resumed = |ages: &[u64], contested| {
            let thefts: Vec<Moment> = ages.iter().map(|age| now - Duration::from_secs(*age)).collect();
            Contest::resumed(now, &thefts, contested)
        };
        let mut contest = resumed(&[1_200, 899], true);
        assert!(contest.is_on());
        assert_eq!(contest.ends(at(4_000)), Some(at(4_000 + 15 * 60)));
        assert!(contest.back_off(true, &mut Rng::with_seed(7)).is_some());
        assert!(!resumed(&[1_200, 901], true).is_on(), "nobody has taken it for so long");
        let mut contest = resumed(&[290, 200, 100], false);
        assert!(!contest.is_on());
        assert!(contest.theft(at(3_609)), "the fourth within five minutes");
        assert!(!resumed(&[290, 200, 100], false).theft(at(3_611)), "the third within five minutes");
    }

    #[test]
    fn the_router_that_outranks_waits_at_most_thirty_seconds_and_the_other_minutes() {
        let mut rng = Rng::with_seed(7);
        let mut contest = Contest::default();
        assert_eq!(contest.back_off(true, &mut rng), None);
        for t in 0..4 {
            contest.theft(at(t));
        }
        let waits: Vec<u64> = (0..5).filter_map(|_| contest.back_off(true, &mut rng)).map(|d| d.as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 30, 30]);
        for _ in 0..100 {
            let wait = contest.back_off(false, &mut rng).expect("contested");
            assert!(wait >= Duration::from_secs(150) && wait <= Duration::from_secs(450), "{wait:?}");
        }
        contest.claim_now();
        assert_eq!(contest.back_off(true, &mut rng), Some(Duration::from_secs(5)));
    }
}
