//! When an address that is taken away again and again is contested, and what follows.
//!
//! A contest with the peer (another router of the group) means that both are MASTER. VRRP ends that as soon as the link
//! between them is back, so such a contest delays no claim. A contest with a stranger has no such end: claims back off, so
//! that they do not use up what the API allows. Both may be on at once; whether a claim backs off depends on who has the
//! address when the claim is decided on.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::{Moment, pace};
use crate::model::ec2::Taker;

/// More than this many thefts …
const THEFTS: usize = 3;
/// … within this time are a contest.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Ownership that reads have confirmed for that long ends a contest with a stranger.
const STRANGER_PEACE: Duration = Duration::from_secs(15 * 60);
/// The same for the peer, but never less than two verify-intervals: a peer that is still MASTER takes the address back
/// within one.
const PEER_PEACE: Duration = Duration::from_secs(60);
/// The first wait before taking an address back, and the longest for the router that outranks the other.
const SHORT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// The same for a router that has no sign of outranking the other, give or take a half.
const LONG: (Duration, Duration) = (Duration::from_secs(75), Duration::from_secs(300));

/// The thefts of one address since its group became MASTER, and when it was last claimed back.
#[derive(Debug, Clone, Default)]
pub struct Contest {
    peer: Thefts,
    stranger: Thefts,
    /// How often the address was claimed back from a stranger in this contest.
    reclaims: u32,
    /// When the address was last claimed because of a read.
    pub reclaimed: Option<Moment>,
}

#[derive(Debug, Clone, Default)]
struct Thefts {
    times: VecDeque<Moment>,
    contested: bool,
}

impl Contest {
    /// As it stands after a restart of the agent, with the thefts before it and the contests that were on. A contest whose
    /// last theft is older than the time that ends it is over.
    pub fn resumed(now: Moment, thefts: &[(Moment, Taker)], contested: &[Taker], verify_interval: Duration) -> Self {
        let mut contest = Self::default();
        for taker in [Taker::Peer, Taker::Stranger] {
            let times: VecDeque<Moment> = thefts.iter().filter(|(_, by)| *by == taker).map(|(at, _)| *at).collect();
            let peace = peace(taker, verify_interval);
            let goes_on = contested.contains(&taker) && times.iter().any(|theft| theft.until(now) <= peace);
            *contest.thefts_by(taker) = Thefts { times, contested: goes_on };
        }
        contest
    }

    fn thefts_by(&mut self, taker: Taker) -> &mut Thefts {
        match taker {
            Taker::Peer => &mut self.peer,
            Taker::Stranger => &mut self.stranger,
        }
    }

    /// With whom the address is contested; if with both, with the one who took it last.
    pub fn with(&self) -> Option<Taker> {
        let last = |thefts: &Thefts| thefts.times.back().copied();
        match (self.peer.contested, self.stranger.contested) {
            (false, false) => None,
            (true, true) if last(&self.stranger) > last(&self.peer) => Some(Taker::Stranger),
            (true, _) => Some(Taker::Peer),
            (false, true) => Some(Taker::Stranger),
        }
    }

    /// Whether claims wait because of a stranger.
    pub fn delays(&self) -> bool {
        self.stranger.contested
    }

    /// Counts a theft; true if it is the one that begins a contest with its taker.
    pub fn theft(&mut self, now: Moment, by: Taker) -> bool {
        let thefts = self.thefts_by(by);
        thefts.times.retain(|t| t.until(now) <= WINDOW);
        thefts.times.push_back(now);
        if thefts.contested || thefts.times.len() <= THEFTS {
            return false;
        }
        thefts.contested = true;
        true
    }

    /// How long the next claim waits, if the address is now with `from`; not at all without a contest with a stranger, or
    /// where the peer has it.
    pub fn back_off(&mut self, from: Option<Taker>, outranks: bool, rng: &mut Rng) -> Option<Duration> {
        if !self.delays() || from == Some(Taker::Peer) {
            return None;
        }
        let (first, cap) = if outranks { SHORT } else { LONG };
        let wait = (first * (1 << self.reclaims.min(5))).min(cap);
        self.reclaims = self.reclaims.saturating_add(1);
        Some(if outranks { wait } else { pace::around(wait, 50, rng) })
    }

    /// Ends the back-off: the next claim is at once, and the one after it waits the shortest time again.
    pub fn claim_now(&mut self) {
        self.reclaims = 0;
    }

    /// When the next contest ends, if the address has been confirmed as ours since `confirmed` without a break.
    pub fn ends(&self, confirmed: Moment, verify_interval: Duration) -> Option<Moment> {
        let on = [(Taker::Peer, self.peer.contested), (Taker::Stranger, self.stranger.contested)];
        on.iter().filter(|(_, on)| *on).map(|(taker, _)| confirmed + peace(*taker, verify_interval)).min()
    }

    /// Ends the contests that are due by now, and says with whom they were.
    pub fn end_due(&mut self, now: Moment, confirmed: Moment, verify_interval: Duration) -> Vec<Taker> {
        let due = |taker| confirmed + peace(taker, verify_interval) <= now;
        [Taker::Peer, Taker::Stranger].into_iter().filter(|taker| due(*taker) && self.over(*taker)).collect()
    }

    /// Forgets all thefts, and says with whom there was a contest.
    pub fn end(&mut self) -> Vec<Taker> {
        let over = [Taker::Peer, Taker::Stranger].into_iter().filter(|taker| self.over(*taker)).collect();
        // Claims stay apart, however often the group leaves MASTER and comes back.
        *self = Self { reclaimed: self.reclaimed, ..Self::default() };
        over
    }

    /// Ends the contest with this one; true if there was one.
    fn over(&mut self, with: Taker) -> bool {
        let thefts = self.thefts_by(with);
        let was_on = thefts.contested;
        if was_on {
            *thefts = Thefts::default();
        }
        was_on
    }
}

/// How long ownership has to be confirmed before a contest ends.
fn peace(with: Taker, verify_interval: Duration) -> Duration {
    match with {
        Taker::Peer => PEER_PEACE.max(2 * verify_interval),
        Taker::Stranger => STRANGER_PEACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn the_fourth_theft_within_five_minutes_begins_a_contest() {
        for by in [Taker::Peer, Taker::Stranger] {
            let mut contest = Contest::default();
            assert_eq!([0, 100, 200, 299].map(|t| contest.theft(at(t), by)), [false, false, false, true]);
            assert_eq!(contest.with(), Some(by));
            let mut slow = Contest::default();
            assert_eq!(
                [0, 101, 202, 303, 404].map(|t| slow.theft(at(t), by)),
                [false; 5],
                "never four in five minutes"
            );
        }
    }

    #[test]
    fn thefts_by_the_peer_and_by_a_stranger_are_counted_apart_and_the_last_one_names_the_contest() {
        let mut contest = Contest::default();
        let by = [Taker::Peer, Taker::Stranger];
        assert!((0..6).all(|t| !contest.theft(at(t), by[t as usize % 2])), "three each");
        assert!(contest.theft(at(6), Taker::Peer));
        assert_eq!(contest.with(), Some(Taker::Peer));
        assert!(contest.theft(at(7), Taker::Stranger));
        assert_eq!(contest.with(), Some(Taker::Stranger));
        assert_eq!(contest.end_due(at(7) + PEER_PEACE, at(7), INTERVAL), [Taker::Peer], "the stranger's lasts longer");
        assert_eq!(contest.end(), [Taker::Stranger]);
        assert_eq!(contest.with(), None);
    }

    #[test]
    fn a_restart_ends_no_contest_and_forgets_no_theft() {
        let now = at(3_600);
        let resumed = |by, ages: &[u64], contested: &[Taker]| {
            let thefts: Vec<(Moment, Taker)> = ages.iter().map(|age| (now - Duration::from_secs(*age), by)).collect();
            Contest::resumed(now, &thefts, contested, INTERVAL)
        };
        let (peer, stranger) = (Taker::Peer, Taker::Stranger);
        let mut contest = resumed(stranger, &[1_200, 899], &[stranger]);
        assert_eq!(contest.with(), Some(stranger));
        assert_eq!(contest.ends(at(4_000), INTERVAL), Some(at(4_000 + 15 * 60)));
        assert!(contest.back_off(Some(stranger), true, &mut Rng::with_seed(7)).is_some());
        assert_eq!(resumed(stranger, &[1_200, 901], &[stranger]).with(), None, "nobody has taken it for so long");
        let mut contest = resumed(peer, &[90, 59], &[peer]);
        assert_eq!(contest.with(), Some(peer));
        assert_eq!(contest.back_off(Some(peer), false, &mut Rng::with_seed(7)), None);
        assert_eq!(resumed(peer, &[90, 61], &[peer]).with(), None);
        let mut contest = resumed(stranger, &[290, 200, 100], &[]);
        assert_eq!(contest.with(), None);
        assert!(contest.theft(at(3_609), stranger), "the fourth within five minutes");
        assert!(!resumed(stranger, &[290, 200, 100], &[]).theft(at(3_611), stranger), "the third within five minutes");
        assert!(!resumed(stranger, &[290, 200, 100], &[]).theft(at(3_609), peer), "the peer's first");
    }

    #[test]
    fn a_contest_with_the_peer_ends_after_a_minute_or_two_intervals() {
        for (interval, peace) in [(5, 60), (30, 60), (300, 600)] {
            let interval = Duration::from_secs(interval);
            let mut contest = Contest::default();
            (0..4).for_each(|t| _ = contest.theft(at(t), Taker::Peer));
            assert_eq!(contest.ends(at(10), interval), Some(at(10 + peace)));
            assert_eq!(contest.end_due(at(9 + peace), at(10), interval), []);
            assert_eq!(contest.end_due(at(10 + peace), at(10), interval), [Taker::Peer]);
        }
    }

    #[test]
    fn the_router_that_outranks_waits_at_most_thirty_seconds_and_the_other_minutes() {
        let mut rng = Rng::with_seed(7);
        let mut contest = Contest::default();
        let stranger = Some(Taker::Stranger);
        assert_eq!(contest.back_off(stranger, true, &mut rng), None);
        for t in 0..4 {
            contest.theft(at(t), Taker::Stranger);
        }
        assert_eq!(contest.back_off(Some(Taker::Peer), false, &mut rng), None, "the peer has it now");
        let waits: Vec<u64> =
            (0..5).filter_map(|_| contest.back_off(stranger, true, &mut rng)).map(|d| d.as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 30, 30]);
        for _ in 0..100 {
            let wait = contest.back_off(None, false, &mut rng).expect("contested");
            assert!(wait >= Duration::from_secs(150) && wait <= Duration::from_secs(450), "{wait:?}");
        }
        contest.claim_now();
        assert_eq!(contest.back_off(stranger, true, &mut rng), Some(Duration::from_secs(5)));
    }
}
