//! When requests to EC2, IMDS and the kernel are sent, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::inference::liveness_max_age;
use super::{ClaimInFlight, Machine, ReadInFlight};
use crate::claim::address::{Address, LastClaim, Phase};
use crate::claim::event::{Action, ClaimId, ReadId};
use crate::claim::{BootInstant, backoff};
use crate::model::ids::{EniId, VpcId};
use crate::model::vrrp::VrrpState;

/// The most claims in flight on one ENI ...
const MAX_CLAIMS_PER_ENI: usize = 2;
/// ... and one more if a first attempt would have to wait otherwise.
const EXTRA_FRESH_CLAIMS: usize = 1;
/// How old a read of the local addresses may be for a claim.
const LOCAL_READ_MAX_AGE: Duration = Duration::from_millis(100);
/// A read of the local addresses without a response is repeated after this time.
pub(super) const LOCAL_READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Reads that are due within this time share a request.
pub(super) const READ_BATCH_WINDOW: Duration = Duration::from_millis(100);
/// The most reads in flight.
const MAX_READS: usize = 4;
/// The shortest time between periodic verifications on a standby.
pub(super) const MIN_STANDBY_INTERVAL: Duration = Duration::from_secs(15);

impl Machine {
    pub(super) fn send_claims(&mut self, now: BootInstant) {
        let mut waiting: BTreeMap<EniId, Vec<Ipv4Addr>> = BTreeMap::new();
        for (ip, address) in &self.addresses {
            if let Phase::Pending { due } = address.phase
                && due <= now
                && let Some(eni) = &address.eni
            {
                waiting.entry(eni.clone()).or_default().push(*ip);
            }
        }
        for (eni, ips) in waiting {
            let in_flight: Vec<&ClaimInFlight> = self.claims.values().filter(|c| c.eni == eni).collect();
            let fresh = in_flight.len() >= MAX_CLAIMS_PER_ENI;
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
            let has_liveness = |ip: &Ipv4Addr| self.addresses.get(ip).is_some_and(|a| self.has_liveness(now, a));
            let wants_local_read = unready.iter().any(has_liveness);
            let mut batch = self.batch(&ready);
            let is_free = |ip: &Ipv4Addr| self.addresses.get(ip).is_some_and(Address::is_free);
            if batch.iter().any(is_free) {
                batch.extend(held_back.into_iter().filter(|ip| is_free(ip) && self.is_ready(now, ip)));
            }
            if batch.iter().filter_map(|ip| self.addresses.get(ip)).any(|a| a.attempt.failed > 0 && a.is_free()) {
                batch.extend(self.piggybacked(now, &eni));
            }
            if !batch.is_empty() {
                self.send_claim(now, eni, batch);
            } else if wants_local_read
                && self.local_read_requested.is_none_or(|asked| asked + LOCAL_READ_TIMEOUT <= now)
            {
                self.local_read_requested = Some(now);
                self.actions.push(Action::ReadLocalAddresses);
            }
        }
    }

    fn may_send(&self, now: BootInstant, eni: &EniId, in_flight: &[&ClaimInFlight]) -> bool {
        in_flight.len() < MAX_CLAIMS_PER_ENI + EXTRA_FRESH_CLAIMS
            && in_flight.iter().all(|claim| claim.began + backoff::MIN_CLAIM_GAP <= now)
            && self.enis.get(eni).is_none_or(|s| s.rate_limiter.next(now) <= now)
    }

    /// The earliest time from `now` on at which the ENI's rate limit and the spacing of first attempts allow a claim of the
    /// address.
    pub(super) fn may_go(&self, now: BootInstant, address: &Address) -> Option<BootInstant> {
        let Some(eni_state) = address.eni.as_ref().and_then(|eni| self.enis.get(eni)) else {
            return Some(now);
        };
        let spaced = address.is_first_attempt().then(|| eni_state.first_attempts.next(now, &eni_state.rate_limiter));
        self.allowed_at(now, address).max(spaced)
    }

    /// When the ENI's rate limit allows a claim of the address.
    pub(in crate::claim) fn allowed_at(&self, now: BootInstant, address: &Address) -> Option<BootInstant> {
        let rate_limiter = &self.enis.get(address.eni.as_ref()?)?.rate_limiter;
        Some(if address.is_repeated() { rate_limiter.next_repeated(now) } else { rate_limiter.next(now) })
    }

    /// Whether the claim's precondition is met.
    pub(super) fn is_ready(&self, now: BootInstant, ip: &Ipv4Addr) -> bool {
        self.addresses.get(ip).is_some_and(|a| {
            a.attempt.precondition.as_ref().is_none_or(|precondition| {
                self.has_liveness(now, a)
                    && precondition.local_read.is_some_and(|local_read| local_read.until(now) <= LOCAL_READ_MAX_AGE)
            })
        })
    }

    /// The addresses of one request: all that made no batch fail; else one bisect group; else the isolated address that has
    /// waited longest.
    pub(super) fn batch(&self, ready: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let of = |ip: &Ipv4Addr| self.addresses.get(ip);
        let free: Vec<Ipv4Addr> = ready.iter().filter(|ip| of(ip).is_some_and(Address::is_free)).copied().collect();
        if !free.is_empty() {
            return free;
        }
        if let Some(bisect_group) =
            ready.iter().find_map(|ip| of(ip).filter(|a| a.rejection.isolated.is_none())?.attempt.bisect_group)
        {
            return ready
                .iter()
                .filter(|ip| {
                    of(ip)
                        .is_some_and(|a| a.rejection.isolated.is_none() && a.attempt.bisect_group == Some(bisect_group))
                })
                .copied()
                .collect();
        }
        let longest = ready.iter().min_by_key(|ip| of(ip).and_then(|a| a.phase.due()));
        longest.copied().into_iter().collect()
    }

    /// Retries that are not due yet and share a due one's request, so that addresses that failed one by one are not retried one
    /// by one.
    pub(super) fn piggybacked(&self, now: BootInstant, eni: &EniId) -> Vec<Ipv4Addr> {
        let piggybacks = |a: &Address| {
            matches!(a.phase, Phase::Pending { due } if due > now)
                && a.eni.as_ref() == Some(eni)
                && a.may_piggyback()
                && self.liveness.is_some_and(|liveness| liveness.until(now) < liveness_max_age(self.interval(&a.group)))
        };
        self.addresses.iter().filter(|(_, a)| piggybacks(a)).map(|(ip, _)| *ip).collect()
    }

    pub(super) fn send_claim(&mut self, now: BootInstant, eni: EniId, addresses: Vec<Ipv4Addr>) {
        let id = ClaimId(self.next_id());
        let has_first = addresses.iter().filter_map(|ip| self.addresses.get(ip)).any(Address::is_first_attempt);
        for ip in &addresses {
            if let Some(address) = self.addresses.get_mut(ip) {
                address.phase = Phase::InFlight(id);
                if address.attempt.precondition.is_some() {
                    address.flap_damping.reclaimed = Some(now);
                }
                address.last_claim = Some(LastClaim { eni: eni.clone(), began: now, answer: None });
                if let Some(precondition) = &mut address.attempt.precondition {
                    precondition.local_read = None;
                }
            }
        }
        let eni_state = self.enis.entry(eni.clone()).or_default();
        eni_state.rate_limiter.take(now);
        if has_first {
            eni_state.first_attempts.take(now);
        }
        let timeout = backoff::attempt_timeout(self.config.global.request_timeout.duration(), eni_state.timeouts);
        self.claims.insert(id, ClaimInFlight { eni: eni.clone(), began: now, addresses: addresses.clone() });
        self.actions.push(Action::Claim { id, eni, addresses, timeout });
    }

    /// Claims addresses whose owner cannot be read because the VPC is unknown, although the ENI is known.
    pub(super) fn adopt_unread(&mut self, now: BootInstant) {
        let is_blind =
            |a: &Address| self.interface_enis.get(&a.interface).is_some_and(|b| b.eni.is_none() && b.error.is_some());
        let unread: Vec<Ipv4Addr> = self
            .addresses
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::CheckOwner { .. }) && a.eni.is_some() && is_blind(a))
            .map(|(ip, _)| *ip)
            .collect();
        unread.into_iter().for_each(|ip| self.claim_unread(now, ip));
    }

    pub(super) fn send_reads(&mut self, now: BootInstant) {
        if self.addresses.is_empty() || self.reads.len() >= MAX_READS {
            return;
        }
        if self.is_master() {
            // The interval of a standby may be longer.
            let interval = self.config.global.verify_interval.duration();
            self.verification.due = self.verification.due.map(|due| due.min(now + interval));
        }
        let is_verifying = self.reads.values().any(|r| r.is_periodic);
        let is_periodic = self.verification.due.is_some_and(|due| due <= now) && !is_verifying;
        let together = now + READ_BATCH_WINDOW;
        if !is_periodic && !self.addresses.values().any(|a| a.checks.reads.first().is_some_and(|due| *due <= now)) {
            return;
        }
        let mut by_vpc: BTreeMap<VpcId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (ip, address) in &mut self.addresses {
            let due = address.checks.reads.first().is_some_and(|due| *due <= together);
            let enabled = self.groups.get(&address.group).is_some_and(|g| !g.disabled);
            if !(due || is_periodic && enabled) {
                continue;
            }
            // A private address is unique only within its VPC.
            let Some(eni) = self.interface_enis.get(&address.interface).and_then(|b| b.eni.as_ref()) else {
                continue;
            };
            address.checks.reads.forget_until(together);
            let ips = by_vpc.entry(eni.vpc.clone()).or_default();
            ips.insert(*ip);
            // Include the peers in every read until one of their owners is known.
            if let Some(group) = self.groups.get(&address.group)
                && (is_periodic || !group.peers.iter().any(|peer| self.peers.contains_key(peer)))
            {
                ips.extend(&group.peers);
            }
        }
        if is_periodic {
            self.forget_enis(now);
            // Its end sets it again.
            self.verification.due = by_vpc.is_empty().then(|| now + self.verification_interval());
            for interface_eni in self.interface_enis.values_mut().filter(|b| b.eni.is_some() && !b.in_flight) {
                interface_eni.next = Some(now);
            }
        }
        for (vpc, addresses) in by_vpc {
            let id = ReadId(self.next_id());
            let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
            self.reads.insert(id, ReadInFlight { began: now, addresses: addresses.clone(), is_periodic });
            let timeout = self.config.global.request_timeout.duration();
            self.actions.push(Action::Read { id, vpc, addresses, timeout });
        }
    }

    /// Removes the state of ENIs without addresses, unless a claim is in flight or their rate limit is in use.
    fn forget_enis(&mut self, now: BootInstant) {
        let used: BTreeSet<&EniId> = self.addresses.values().filter_map(|a| a.eni.as_ref()).collect();
        let in_flight: BTreeSet<&EniId> = self.claims.values().map(|c| &c.eni).collect();
        self.enis.retain(|eni, eni_state| {
            used.contains(eni) || in_flight.contains(eni) || !eni_state.rate_limiter.is_full(now)
        });
    }

    fn is_master(&self) -> bool {
        self.groups.values().any(|g| g.acts() && g.state.vrrp() == VrrpState::Master)
    }

    pub(super) fn verification_interval(&mut self) -> Duration {
        let interval = self.config.global.verify_interval.duration();
        if self.is_master() {
            return interval;
        }
        let interval = interval.max(MIN_STANDBY_INTERVAL) * (1 << self.verification.throttled);
        // The jitter never goes below the minimum.
        backoff::jitter_around(interval, 20, &mut self.rng).max(MIN_STANDBY_INTERVAL)
    }

    pub(super) fn send_resolves(&mut self, now: BootInstant) {
        for (interface, interface_eni) in &mut self.interface_enis {
            if !interface_eni.in_flight && interface_eni.next.is_some_and(|next| next <= now) {
                interface_eni.in_flight = true;
                interface_eni.next = None;
                self.actions.push(Action::Resolve(interface.clone()));
            }
        }
    }
}

/// Whether claims in flight delay the first attempt of the address: all of them began before the notify event, and one of
/// them is for the address itself, or none was answered for a while.
fn is_held_up(now: BootInstant, ip: &Ipv4Addr, address: &Address, in_flight: &[&ClaimInFlight]) -> bool {
    let is_of_before = |claim: &&ClaimInFlight| address.asked.is_some_and(|asked| claim.began <= asked);
    address.is_first_attempt()
        && in_flight.iter().all(is_of_before)
        && (in_flight.iter().any(|claim| claim.addresses.contains(ip))
            || in_flight.iter().all(|claim| claim.began + backoff::MAX_CLAIM_GAP <= now))
}
