//! What is sent to EC2, IMDS and the kernel, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::evidence::life_lasts;
use super::{ClaimInFlight, Machine, ReadInFlight};
use crate::claim::address::{Address, LastClaim, Phase};
use crate::claim::message::{Action, ClaimId, ReadId};
use crate::claim::{Moment, pace};
use crate::model::ids::{EniId, VpcId};
use crate::model::vrrp::VrrpState;

/// At most that many claims in flight on one ENI …
const CLAIMS_PER_ENI: usize = 2;
/// … and one more where nothing else would let a line's claim go out at once.
const FRESH_CLAIMS: usize = 1;
/// A look at the local addresses is good for a claim for that long.
const LOOK_GOOD: Duration = Duration::from_millis(100);
/// A look that is not answered is asked for again after that time.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Reads that are due within that time go together.
pub(super) const READS_TOGETHER: Duration = Duration::from_millis(100);
/// At most that many reads in flight.
const READS: usize = 4;
/// The shortest time between readiness reads on a standby.
pub(super) const STANDBY_INTERVAL: Duration = Duration::from_secs(15);

impl Machine {
    pub(super) fn send_claims(&mut self, now: Moment) {
        let mut waiting: BTreeMap<EniId, Vec<Ipv4Addr>> = BTreeMap::new();
        for (ip, address) in &self.addresses {
            if let Phase::Wanted { due } = address.phase
                && due <= now
                && let Some(eni) = &address.eni
            {
                waiting.entry(eni.clone()).or_default().push(*ip);
            }
        }
        for (eni, ips) in waiting {
            let in_flight: Vec<&ClaimInFlight> = self.claims.values().filter(|c| c.eni == eni).collect();
            let fresh = in_flight.len() >= CLAIMS_PER_ENI;
            if !self.may_send(now, &eni, &in_flight) {
                continue;
            }
            let goes = |ip: &Ipv4Addr| {
                self.addresses
                    .get(ip)
                    .is_some_and(|a| self.may_go(now, a) <= Some(now) && (!fresh || is_held_up(now, ip, a, &in_flight)))
            };
            let (ips, held_back): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) = ips.into_iter().partition(goes);
            let (ready, unready): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) =
                ips.into_iter().partition(|ip| self.is_ready(now, ip));
            let has_life = |ip: &Ipv4Addr| self.addresses.get(ip).is_some_and(|a| self.has_life(now, a));
            let wants_look = unready.iter().any(has_life);
            let mut batch = self.batch(&ready);
            let is_free = |ip: &Ipv4Addr| self.addresses.get(ip).is_some_and(Address::is_free);
            if batch.iter().any(is_free) {
                batch.extend(held_back.into_iter().filter(|ip| is_free(ip) && self.is_ready(now, ip)));
            }
            if batch.iter().filter_map(|ip| self.addresses.get(ip)).any(|a| a.failed > 0 && a.is_free()) {
                batch.extend(self.companions(now, &eni));
            }
            if !batch.is_empty() {
                self.send_claim(now, eni, batch);
            } else if wants_look && self.look_asked.is_none_or(|asked| asked + LOOK_AGAIN <= now) {
                self.look_asked = Some(now);
                self.actions.push(Action::Look);
            }
        }
    }

    fn may_send(&self, now: Moment, eni: &EniId, in_flight: &[&ClaimInFlight]) -> bool {
        in_flight.len() < CLAIMS_PER_ENI + FRESH_CLAIMS
            && in_flight.iter().all(|claim| claim.began + pace::SHORTEST_GAP <= now)
            && self.senders.get(eni).is_none_or(|s| s.allowance.next(now) <= now)
    }

    /// The earliest moment from `now` on at which the allowance of its ENI, and what other lines have had sent, let the
    /// address be claimed by itself.
    pub(super) fn may_go(&self, now: Moment, address: &Address) -> Option<Moment> {
        let Some(sender) = address.eni.as_ref().and_then(|eni| self.senders.get(eni)) else {
            return Some(now);
        };
        let spaced = address.is_first_attempt().then(|| sender.first_attempts.next(now, &sender.allowance));
        self.allowed(now, address).max(spaced)
    }

    /// When the allowance of its ENI lets the address be claimed by itself.
    pub(in crate::claim) fn allowed(&self, now: Moment, address: &Address) -> Option<Moment> {
        let allowance = &self.senders.get(address.eni.as_ref()?)?.allowance;
        Some(if address.is_repeated() { allowance.next_repeated(now) } else { allowance.next(now) })
    }

    /// Whether nothing but the wire stands before the claim.
    pub(super) fn is_ready(&self, now: Moment, ip: &Ipv4Addr) -> bool {
        self.addresses.get(ip).is_some_and(|a| {
            a.guard.as_ref().is_none_or(|guard| {
                self.has_life(now, a) && guard.looked.is_some_and(|looked| looked.until(now) <= LOOK_GOOD)
            })
        })
    }

    /// What goes in one request: all that never made one fail, else a cohort of a bisected batch, else the one that
    /// waits longest of those that must go alone.
    pub(super) fn batch(&self, ready: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let of = |ip: &Ipv4Addr| self.addresses.get(ip);
        let free: Vec<Ipv4Addr> = ready.iter().filter(|ip| of(ip).is_some_and(Address::is_free)).copied().collect();
        if !free.is_empty() {
            return free;
        }
        if let Some(cohort) = ready.iter().find_map(|ip| of(ip).filter(|a| a.alone.is_none())?.cohort) {
            return ready
                .iter()
                .filter(|ip| of(ip).is_some_and(|a| a.alone.is_none() && a.cohort == Some(cohort)))
                .copied()
                .collect();
        }
        let longest = ready.iter().min_by_key(|ip| of(ip).and_then(|a| a.phase.due()));
        longest.copied().into_iter().collect()
    }

    /// Retries that are not due yet and go along with one that is: addresses that failed one by one would else be retried
    /// one by one.
    pub(super) fn companions(&self, now: Moment, eni: &EniId) -> Vec<Ipv4Addr> {
        let goes_along = |a: &Address| {
            matches!(a.phase, Phase::Wanted { due } if due > now)
                && a.eni.as_ref() == Some(eni)
                && a.may_go_along()
                && self.life.is_some_and(|life| life.until(now) < life_lasts(self.interval(&a.group)))
        };
        self.addresses.iter().filter(|(_, a)| goes_along(a)).map(|(ip, _)| *ip).collect()
    }

    pub(super) fn send_claim(&mut self, now: Moment, eni: EniId, addresses: Vec<Ipv4Addr>) {
        let id = ClaimId(self.next_id());
        let has_first = addresses.iter().filter_map(|ip| self.addresses.get(ip)).any(Address::is_first_attempt);
        for ip in &addresses {
            if let Some(address) = self.addresses.get_mut(ip) {
                address.phase = Phase::InFlight(id);
                if address.guard.is_some() {
                    address.contest.reclaimed = Some(now);
                }
                address.last_claim = Some(LastClaim { eni: eni.clone(), began: now, answer: None });
                if let Some(guard) = &mut address.guard {
                    guard.looked = None;
                }
            }
        }
        let sender = self.senders.entry(eni.clone()).or_default();
        sender.allowance.take(now);
        if has_first {
            sender.first_attempts.take(now);
        }
        let timeout = pace::attempt(self.config.global.request_timeout.duration(), sender.timeouts);
        self.claims.insert(id, ClaimInFlight { eni: eni.clone(), began: now, addresses: addresses.clone() });
        self.actions.push(Action::Claim { id, eni, addresses, timeout });
    }

    /// Whose owner cannot be read because the VPC is not known, although the ENI is: they are claimed without.
    pub(super) fn adopt_unread(&mut self, now: Moment) {
        let is_blind =
            |a: &Address| self.bindings.get(&a.interface).is_some_and(|b| b.eni.is_none() && b.error.is_some());
        let unread: Vec<Ipv4Addr> = self
            .addresses
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::Adopting { .. }) && a.eni.is_some() && is_blind(a))
            .map(|(ip, _)| *ip)
            .collect();
        unread.into_iter().for_each(|ip| self.claim_unread(now, ip));
    }

    pub(super) fn send_reads(&mut self, now: Moment) {
        if self.addresses.is_empty() || self.reads.len() >= READS {
            return;
        }
        if self.is_master() {
            // The last one may have been a standby's, which are further apart.
            self.sweep.due = self.sweep.due.min(now + self.config.global.verify_interval.duration());
        }
        let sweeping = self.reads.values().any(|r| r.sweep);
        let sweep = self.sweep.due <= now && !sweeping;
        let together = now + READS_TOGETHER;
        if !sweep && !self.addresses.values().any(|a| a.reads.first().is_some_and(|due| *due <= now)) {
            return;
        }
        let mut by_vpc: BTreeMap<VpcId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (ip, address) in &mut self.addresses {
            let due = address.reads.first().is_some_and(|due| *due <= together);
            let enabled = self.groups.get(&address.group).is_some_and(|g| !g.disabled);
            if !(due || sweep && enabled) {
                continue;
            }
            // An address is unique in its VPC alone: without that no answer would mean anything.
            let Some(eni) = self.bindings.get(&address.interface).and_then(|b| b.eni.as_ref()) else {
                continue;
            };
            address.reads.forget_until(together);
            let ips = by_vpc.entry(eni.vpc.clone()).or_default();
            ips.insert(*ip);
            // With any read, as long as the peer could not be told from a stranger.
            if let Some(group) = self.groups.get(&address.group)
                && (sweep || !group.peers.iter().any(|peer| self.peers.contains_key(peer)))
            {
                ips.extend(&group.peers);
            }
        }
        if sweep {
            self.forget_senders(now);
            self.sweep.due = now + self.sweep_interval();
            for binding in self.bindings.values_mut().filter(|b| b.eni.is_some() && !b.asked) {
                binding.next = Some(now);
            }
        }
        for (vpc, addresses) in by_vpc {
            let id = ReadId(self.next_id());
            let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
            self.reads.insert(id, ReadInFlight { began: now, addresses: addresses.clone(), sweep });
            let timeout = self.config.global.request_timeout.duration();
            self.actions.push(Action::Read { id, vpc, addresses, timeout });
        }
    }

    /// Forgets the way to ENIs that take no address any more, once nothing depends on what was sent there.
    fn forget_senders(&mut self, now: Moment) {
        let used: BTreeSet<&EniId> = self.addresses.values().filter_map(|a| a.eni.as_ref()).collect();
        let flying: BTreeSet<&EniId> = self.claims.values().map(|c| &c.eni).collect();
        self.senders
            .retain(|eni, sender| used.contains(eni) || flying.contains(eni) || !sender.allowance.is_whole(now));
    }

    fn is_master(&self) -> bool {
        self.groups.values().any(|g| g.acts() && g.belief.vrrp() == VrrpState::Master)
    }

    pub(super) fn sweep_interval(&mut self) -> Duration {
        let interval = self.config.global.verify_interval.duration();
        if self.is_master() {
            return interval;
        }
        let interval = interval.max(STANDBY_INTERVAL) * (1 << self.sweep.throttled);
        // Not below the shortest one: the jitter there goes upwards only.
        pace::around(interval, 20, &mut self.rng).max(STANDBY_INTERVAL)
    }

    pub(super) fn send_resolves(&mut self, now: Moment) {
        for (interface, binding) in &mut self.bindings {
            if !binding.asked && binding.next.is_some_and(|next| next <= now) {
                binding.asked = true;
                binding.next = None;
                self.actions.push(Action::Resolve(interface.clone()));
            }
        }
    }
}

/// Whether what is in flight on the ENI would keep a line's claim of the address waiting: all of it is of before the line,
/// and a claim of the address itself is among it, or the last of it has not been answered for a while.
fn is_held_up(now: Moment, ip: &Ipv4Addr, address: &Address, in_flight: &[&ClaimInFlight]) -> bool {
    let is_of_before = |claim: &&ClaimInFlight| address.asked.is_some_and(|asked| claim.began <= asked);
    address.is_first_attempt()
        && in_flight.iter().all(is_of_before)
        && (in_flight.iter().any(|claim| claim.addresses.contains(ip))
            || in_flight.iter().all(|claim| claim.began + pace::LONGEST_GAP <= now))
}
