//! Flap damping: when a resource counts as contested, and how long claims are held down.
//!
//! If it is contested with the peer (another router of the group), both routers are MASTER. VRRP ends that as soon
//! as the link between them is back, so claims are not delayed. If it is contested with a third party, claims are delayed to
//! save API calls. Both can be the case; the current owner decides whether a claim is delayed.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::{BootInstant, backoff};
use crate::model::ec2::Taker;

/// A resource is contested after more than this many ownership losses ...
const LOSSES_ALLOWED: usize = 3;
/// ... within this time.
const LOSS_WINDOW: Duration = Duration::from_mins(5);
/// It is no longer contested with a third party after ownership was verified for this long.
const THIRD_PARTY_HOLD_DOWN: Duration = Duration::from_mins(15);
/// The same for the peer, but at least two verify-intervals: a peer that is still MASTER claims it within one.
const PEER_HOLD_DOWN: Duration = Duration::from_secs(60);
/// The first and the longest delay of a claim on the router with the higher priority.
const OUTRANKING_DELAY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// The same if this router has not heard a peer of lower priority, with 50 % jitter.
const OUTRANKED_DELAY: (Duration, Duration) = (Duration::from_secs(75), Duration::from_secs(300));

/// The ownership losses of one resource since its group became MASTER, and the last reclaim.
#[derive(Debug, Clone, Default)]
pub struct FlapDamping {
    peer: Losses,
    third_party: Losses,
    /// The number of reclaims from a third party while contested.
    reclaims: u32,
    /// The last claim that a read has caused.
    pub reclaimed: Option<BootInstant>,
}

#[derive(Debug, Clone, Default)]
struct Losses {
    times: VecDeque<BootInstant>,
    contested: bool,
}

impl FlapDamping {
    /// Restores the state after a restart of the agent. If the last loss is older than the hold-down, the address is no longer
    /// contested.
    pub fn resumed(
        now: BootInstant,
        losses: &[(BootInstant, Taker)],
        contested: &[Taker],
        verify_interval: Duration,
    ) -> Self {
        let mut flap_damping = Self::default();
        for taker in [Taker::Peer, Taker::ThirdParty] {
            let times: VecDeque<BootInstant> =
                losses.iter().filter(|(_, by)| *by == taker).map(|(at, _)| *at).collect();
            let hold_down = hold_down(taker, verify_interval);
            let goes_on =
                contested.contains(&taker) && times.iter().any(|ownership_lost| ownership_lost.until(now) <= hold_down);
            *flap_damping.losses_by(taker) = Losses { times, contested: goes_on };
        }
        flap_damping
    }

    fn losses_by(&mut self, taker: Taker) -> &mut Losses {
        match taker {
            Taker::Peer => &mut self.peer,
            Taker::ThirdParty => &mut self.third_party,
        }
    }

    /// The kind of owner with which the address is contested; with both, the one of the last loss.
    pub fn contested_by(&self) -> Option<Taker> {
        let last = |losses: &Losses| losses.times.back().copied();
        match (self.peer.contested, self.third_party.contested) {
            (false, false) => None,
            (true, true) if last(&self.third_party) > last(&self.peer) => Some(Taker::ThirdParty),
            (true, _) => Some(Taker::Peer),
            (false, true) => Some(Taker::ThirdParty),
        }
    }

    /// Whether claims are delayed because of a third party.
    pub fn delays_claims(&self) -> bool {
        self.third_party.contested
    }

    /// Counts an ownership loss. Returns true if the address becomes contested.
    pub fn ownership_lost(&mut self, now: BootInstant, by: Taker) -> bool {
        let losses = self.losses_by(by);
        losses.times.retain(|t| t.until(now) <= LOSS_WINDOW);
        losses.times.push_back(now);
        if losses.contested || losses.times.len() <= LOSSES_ALLOWED {
            return false;
        }
        losses.contested = true;
        true
    }

    /// The delay of the next claim, if `from` is the current owner. No delay unless contested with a third party, or if the peer
    /// is the owner.
    pub fn damping_delay(&mut self, from: Option<Taker>, outranks: bool, rng: &mut Rng) -> Option<Duration> {
        if !self.delays_claims() || from == Some(Taker::Peer) {
            return None;
        }
        let (first, cap) = if outranks { OUTRANKING_DELAY } else { OUTRANKED_DELAY };
        let wait = (first * (1 << self.reclaims.min(5))).min(cap);
        self.reclaims = self.reclaims.saturating_add(1);
        Some(if outranks { wait } else { backoff::jitter_around(wait, 50, rng) })
    }

    /// Resets the delay to the first one.
    pub fn claim_now(&mut self) {
        self.reclaims = 0;
    }

    /// When the next hold-down ends, if the address has been confirmed as ours since `verified` without a break.
    pub fn ends(&self, verified: BootInstant, verify_interval: Duration) -> Option<BootInstant> {
        let on = [(Taker::Peer, self.peer.contested), (Taker::ThirdParty, self.third_party.contested)];
        on.iter().filter(|(_, on)| *on).map(|(taker, _)| verified + hold_down(*taker, verify_interval)).min()
    }

    /// Ends the hold-downs that are due, and returns their kinds of owner.
    pub fn end_due(&mut self, now: BootInstant, verified: BootInstant, verify_interval: Duration) -> Vec<Taker> {
        let due = |taker| verified + hold_down(taker, verify_interval) <= now;
        [Taker::Peer, Taker::ThirdParty].into_iter().filter(|taker| due(*taker) && self.over(*taker)).collect()
    }

    /// Forgets all losses, and returns the kinds of owner with which the address was contested.
    pub fn end(&mut self) -> Vec<Taker> {
        let over = [Taker::Peer, Taker::ThirdParty].into_iter().filter(|taker| self.over(*taker)).collect();
        // The minimum interval between reclaims holds even if the group leaves MASTER and returns.
        *self = Self { reclaimed: self.reclaimed, ..Self::default() };
        over
    }

    /// Ends the contested state with this kind of owner. Returns true if there was one.
    fn over(&mut self, with: Taker) -> bool {
        let losses = self.losses_by(with);
        let was_on = losses.contested;
        if was_on {
            *losses = Losses::default();
        }
        was_on
    }
}

/// How long ownership has to be confirmed before CONTESTED ends.
fn hold_down(with: Taker, verify_interval: Duration) -> Duration {
    match with {
        Taker::Peer => PEER_HOLD_DOWN.max(2 * verify_interval),
        Taker::ThirdParty => THIRD_PARTY_HOLD_DOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn the_fourth_ownership_loss_within_five_minutes_makes_it_contested() {
        for by in [Taker::Peer, Taker::ThirdParty] {
            let mut flap_damping = FlapDamping::default();
            assert_eq!([0, 100, 200, 299].map(|t| flap_damping.ownership_lost(at(t), by)), [false, false, false, true]);
            assert_eq!(flap_damping.contested_by(), Some(by));
            let mut slow = FlapDamping::default();
            assert_eq!(
                [0, 101, 202, 303, 404].map(|t| slow.ownership_lost(at(t), by)),
                [false; 5],
                "never four in five minutes"
            );
        }
    }

    #[test]
    fn ownership_losses_by_the_peer_and_by_a_third_party_are_counted_apart_and_the_last_one_names_the_taker() {
        let mut flap_damping = FlapDamping::default();
        let by = [Taker::Peer, Taker::ThirdParty];
        assert!((0..6).all(|t| !flap_damping.ownership_lost(at(t), by[t as usize % 2])), "three each");
        assert!(flap_damping.ownership_lost(at(6), Taker::Peer));
        assert_eq!(flap_damping.contested_by(), Some(Taker::Peer));
        assert!(flap_damping.ownership_lost(at(7), Taker::ThirdParty));
        assert_eq!(flap_damping.contested_by(), Some(Taker::ThirdParty));
        assert_eq!(
            flap_damping.end_due(at(7) + PEER_HOLD_DOWN, at(7), INTERVAL),
            [Taker::Peer],
            "the third party's lasts longer"
        );
        (0..6).for_each(|t| _ = flap_damping.ownership_lost(at(10 + t), Taker::Peer));
        assert_eq!(flap_damping.contested_by(), Some(Taker::Peer), "the last one was the peer's");
        flap_damping.ownership_lost(at(15), Taker::ThirdParty);
        assert_eq!(flap_damping.contested_by(), Some(Taker::Peer), "both at once");
        assert_eq!(flap_damping.end_due(at(15) + PEER_HOLD_DOWN, at(15), INTERVAL), [Taker::Peer]);
        flap_damping.reclaimed = Some(at(15));
        assert_eq!(flap_damping.end(), [Taker::ThirdParty]);
        assert_eq!((flap_damping.contested_by(), flap_damping.reclaimed), (None, Some(at(15))), "claims stay apart");
    }

    #[test]
    fn a_restart_does_not_end_contested_and_forgets_no_ownership_loss() {
        let now = at(3_600);
        let resumed = |by, ages: &[u64], contested: &[Taker]| {
            let losses: Vec<(BootInstant, Taker)> =
                ages.iter().map(|age| (now - Duration::from_secs(*age), by)).collect();
            FlapDamping::resumed(now, &losses, contested, INTERVAL)
        };
        let (peer, third_party) = (Taker::Peer, Taker::ThirdParty);
        let mut flap_damping = resumed(third_party, &[1_200, 899], &[third_party]);
        assert_eq!(flap_damping.contested_by(), Some(third_party));
        assert_eq!(flap_damping.ends(at(4_000), INTERVAL), Some(at(4_000 + 15 * 60)));
        assert!(flap_damping.damping_delay(Some(third_party), true, &mut Rng::with_seed(7)).is_some());
        assert_eq!(
            resumed(third_party, &[1_200, 901], &[third_party]).contested_by(),
            None,
            "nobody has taken it for so long"
        );
        let mut flap_damping = resumed(peer, &[90, 59], &[peer]);
        assert_eq!(flap_damping.contested_by(), Some(peer));
        assert_eq!(flap_damping.damping_delay(Some(peer), false, &mut Rng::with_seed(7)), None);
        assert_eq!(resumed(peer, &[90, 61], &[peer]).contested_by(), None);
        let mut flap_damping = resumed(third_party, &[290, 200, 100], &[]);
        assert_eq!(flap_damping.contested_by(), None);
        assert!(flap_damping.ownership_lost(at(3_609), third_party), "the fourth within five minutes");
        assert!(
            !resumed(third_party, &[290, 200, 100], &[]).ownership_lost(at(3_611), third_party),
            "the third within five minutes"
        );
        assert!(!resumed(third_party, &[290, 200, 100], &[]).ownership_lost(at(3_609), peer), "the peer's first");
    }

    #[test]
    fn contested_with_the_peer_ends_after_a_minute_or_two_intervals() {
        for (interval, hold_down) in [(5, 60), (30, 60), (300, 600)] {
            let interval = Duration::from_secs(interval);
            let mut flap_damping = FlapDamping::default();
            (0..4).for_each(|t| _ = flap_damping.ownership_lost(at(t), Taker::Peer));
            assert_eq!(flap_damping.ends(at(10), interval), Some(at(10 + hold_down)));
            assert_eq!(flap_damping.end_due(at(9 + hold_down), at(10), interval), []);
            assert_eq!(flap_damping.end_due(at(10 + hold_down), at(10), interval), [Taker::Peer]);
        }
    }

    #[test]
    fn the_router_that_outranks_waits_at_most_thirty_seconds_and_the_other_minutes() {
        let mut rng = Rng::with_seed(7);
        let mut flap_damping = FlapDamping::default();
        let third_party = Some(Taker::ThirdParty);
        assert_eq!(flap_damping.damping_delay(third_party, true, &mut rng), None);
        for t in 0..4 {
            flap_damping.ownership_lost(at(t), Taker::ThirdParty);
        }
        assert_eq!(flap_damping.damping_delay(Some(Taker::Peer), false, &mut rng), None, "the peer has it now");
        let waits: Vec<u64> = (0..5)
            .filter_map(|_| flap_damping.damping_delay(third_party, true, &mut rng))
            .map(|d| d.as_secs())
            .collect();
        assert_eq!(waits, [5, 10, 20, 30, 30]);
        for _ in 0..100 {
            let wait = flap_damping.damping_delay(None, false, &mut rng).expect("contested");
            assert!(wait >= Duration::from_secs(150) && wait <= Duration::from_secs(450), "{wait:?}");
        }
        flap_damping.claim_now();
        assert_eq!(flap_damping.damping_delay(third_party, true, &mut rng), Some(Duration::from_secs(5)));
    }
}
