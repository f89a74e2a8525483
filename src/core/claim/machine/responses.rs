//! Handles the responses of EC2 and IMDS.

use std::collections::BTreeSet;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::scheduler::READ_BATCH_WINDOW;
use super::{ClaimInFlight, Machine};
use crate::claim::address::{Address, Mismatch, OwnerRead, Phase};
use crate::claim::event::{ClaimId, LogEvent, ReadId};
use crate::claim::{BootInstant, backoff};
use crate::model::ec2::{Acknowledgement, CallError, Eni, ErrorClass, Owner, Owners, Taker};
use crate::model::ids::{GroupName, InterfaceName};

/// For this long after MASTER_RX_LOWER_PRI, this router outranks the other.
const OUTRANKS_FOR: Duration = Duration::from_secs(60);
/// If the owner cannot be read for this long in CheckOwner, the address is claimed without a read.
const OWNER_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// A mismatch is rechecked after this time, and before twice this time.
const RECHECK_DELAY: Duration = Duration::from_secs(1);
/// A read that may lead to a claim is sent this long, and an advertisement interval, before the claim: time to see
/// keepalived activity.
const READ_LEAD_TIME: Duration = Duration::from_millis(500);

impl Machine {
    pub(super) fn resolved(&mut self, now: BootInstant, interface: &InterfaceName, result: Result<Eni, CallError>) {
        let Some(interface_eni) = self.interface_enis.get_mut(interface) else {
            return;
        };
        interface_eni.in_flight = false;
        match result {
            Ok(eni) => {
                let is_first = interface_eni.eni.is_none();
                interface_eni.failed = 0;
                interface_eni.error = None;
                interface_eni.next = None;
                for address in self.addresses.values_mut().filter(|a| a.interface == *interface) {
                    let should = address.configured_eni.as_ref().unwrap_or(&eni.id).clone();
                    if address.eni.as_ref() != Some(&should) {
                        if address.eni.is_some() {
                            address.other_eni(now);
                        }
                        address.eni = Some(should);
                    }
                }
                interface_eni.eni = Some(eni);
                if is_first {
                    self.verification.request(now);
                }
            }
            Err(error) => {
                interface_eni.next = Some(now + backoff::retry_delay(interface_eni.failed, &mut self.rng));
                interface_eni.failed = interface_eni.failed.saturating_add(1);
                let is_news = interface_eni.error.as_ref().is_none_or(|e| e.code() != error.code());
                interface_eni.error = Some(error.clone());
                if is_news {
                    self.log(LogEvent::Unresolved { interface: interface.clone(), error });
                }
            }
        }
    }

    pub(super) fn claimed(&mut self, now: BootInstant, id: ClaimId, result: Result<Acknowledgement, CallError>) {
        let Some(claim) = self.claims.remove(&id) else {
            return;
        };
        let previous = claim.addresses.iter().find_map(|ip| self.addresses.get(ip)?.owner_read.as_ref()?.owner.clone());
        for ip in &claim.addresses {
            if let Some(address) = self.addresses.get_mut(ip)
                && let Some(last) = address.last_claim.as_mut().filter(|l| l.began == claim.began)
            {
                last.answer = Some((now, result.clone().map(|acknowledged| acknowledged.request_id)));
                if result.is_ok() && address.eni.as_ref() == Some(&claim.eni) {
                    // The permission exists, whatever the VRRP state is by now.
                    address.rejection.permanent = None;
                }
            }
        }
        // The response does not count for addresses that are idle or pending again.
        let concerned: Vec<Ipv4Addr> = claim
            .addresses
            .iter()
            .filter(|ip| self.addresses.get(ip).is_some_and(|a| a.phase == Phase::InFlight(id)))
            .copied()
            .collect();
        match &result {
            Ok(Acknowledgement { unlisted, .. }) => {
                let eni_state = self.enis.entry(claim.eni.clone()).or_default();
                eni_state.timeouts = 0;
                eni_state.second_chance = false;
                // The unknown error is over, for the other addresses that it isolated, too.
                let was_refused =
                    |ip| self.addresses.get(ip).is_some_and(|a| a.rejection.isolated == Some(ErrorClass::Refused));
                if concerned.iter().any(was_refused) {
                    let others = self.addresses.values_mut().filter(|a| a.eni.as_ref() == Some(&claim.eni));
                    others.for_each(Address::join_if_refused);
                }
                for ip in &concerned {
                    if let Some(address) = self.addresses.get_mut(ip) {
                        address.acknowledged(now);
                        if unlisted.contains(ip) {
                            address.read_at(now);
                        }
                    }
                }
            }
            // An outdated claim does not affect later ones.
            Err(_) if concerned.is_empty() => {}
            Err(error) => self.claim_failed(now, &claim, &concerned, error),
        }
        for ip in claim.addresses.iter().filter(|ip| !concerned.contains(ip)) {
            match self.addresses.get_mut(ip) {
                // A read from before the outdated claim ended may be stale.
                Some(address @ Address { phase: Phase::CheckOwner { .. }, .. }) => address.adopt(now),
                // EC2 may have performed the claim despite the failure.
                Some(address @ Address { phase: Phase::Pending { .. }, .. }) => address.read_at(now),
                _ => {}
            }
        }
        self.log(LogEvent::Claim {
            eni: claim.eni,
            addresses: claim.addresses,
            previous,
            duration: claim.began.until(now),
            result,
        });
    }

    pub(super) fn claim_failed(
        &mut self,
        now: BootInstant,
        claim: &ClaimInFlight,
        concerned: &[Ipv4Addr],
        error: &CallError,
    ) {
        let eni_state = self.enis.entry(claim.eni.clone()).or_default();
        let timed_out = error.class() == ErrorClass::TimedOut;
        eni_state.timeouts = if timed_out { eni_state.timeouts.saturating_add(1) } else { 0 };
        let second_chance = !mem::replace(
            &mut eni_state.second_chance,
            matches!(error.class(), ErrorClass::Clock | ErrorClass::NoSuchInterface),
        );
        if error.class() == ErrorClass::NoSuchInterface {
            for address in concerned.iter().filter_map(|ip| self.addresses.get(ip)) {
                if let Some(interface_eni) = self.interface_enis.get_mut(&address.interface) {
                    interface_eni.next = Some(now);
                }
            }
        }
        let splits = matches!(error.class(), ErrorClass::BadAddress | ErrorClass::Refused) && claim.addresses.len() > 1;
        let halves = [self.next_id(), self.next_id()];
        let together = backoff::retry_delay(self.failed(concerned), &mut self.rng);
        for (n, ip) in concerned.iter().enumerate() {
            let outranks = self.outranks(now, ip);
            let from = self.taker_of(ip);
            let Some(address) = self.addresses.get_mut(ip) else {
                continue;
            };
            address.attempt.failed = address.attempt.failed.saturating_add(1);
            address.last_failure = Some((now, error.clone()));
            address.rejection.permanent = None;
            let due = match error.class() {
                ErrorClass::BadAddress | ErrorClass::Refused if splits => {
                    address.attempt.failed = 0;
                    address.attempt.bisect_group = Some(halves[n * 2 / concerned.len()]);
                    now
                }
                ErrorClass::BadAddress => {
                    address.rejection.isolated = Some(error.class());
                    address.attempt.bisect_group = None;
                    address.rejection.permanent = Some(error.clone());
                    now + backoff::PERMANENT_ERROR_DELAY
                }
                ErrorClass::Refused => {
                    address.rejection.isolated = Some(error.class());
                    address.attempt.bisect_group = None;
                    now + together
                }
                ErrorClass::Clock | ErrorClass::NoSuchInterface if second_chance => now + together,
                ErrorClass::Denied | ErrorClass::Clock | ErrorClass::NoSuchInterface => {
                    address.rejection.permanent = Some(error.clone());
                    now + backoff::PERMANENT_ERROR_DELAY
                }
                ErrorClass::TimedOut | ErrorClass::Transient => {
                    // EC2 may have performed the claim despite the failure.
                    address.read_at(now);
                    now + together
                }
                ErrorClass::Throttled => now + together,
            };
            let due = if splits {
                due
            } else {
                address
                    .flap_damping
                    .damping_delay(from, outranks, &mut self.rng)
                    .map_or(due, |wait| due.max(now + wait))
            };
            address.phase = Phase::Pending { due };
        }
    }

    pub(super) fn failed(&self, addresses: &[Ipv4Addr]) -> u32 {
        addresses.iter().filter_map(|ip| self.addresses.get(ip)).map(|a| a.attempt.failed).max().unwrap_or(0)
    }

    pub(super) fn outranks(&self, now: BootInstant, ip: &Ipv4Addr) -> bool {
        self.heard(ip).is_some_and(|last| last.until(now) <= OUTRANKS_FOR)
    }

    /// When the address's group last reported MASTER_RX_LOWER_PRI.
    fn heard(&self, ip: &Ipv4Addr) -> Option<BootInstant> {
        self.groups.get(&self.addresses.get(ip)?.group)?.rx_lower
    }

    /// Whether an owner is the group's peer or a stranger.
    fn taker(&self, group: &GroupName, owner: &Owner) -> Taker {
        let mut peers = self.groups.get(group).into_iter().flat_map(|g| &g.peers).filter_map(|ip| self.peers.get(ip));
        let is_same =
            |peer: &Owner| peer.eni == owner.eni || (peer.instance.is_some() && peer.instance == owner.instance);
        if peers.any(is_same) { Taker::Peer } else { Taker::Stranger }
    }

    /// The same for the owner in the last read, unless it is this router's ENI.
    fn taker_of(&self, ip: &Ipv4Addr) -> Option<Taker> {
        let address = self.addresses.get(ip)?;
        let owner = address.owner_read.as_ref()?.owner.as_ref().filter(|o| Some(&o.eni) != address.eni.as_ref())?;
        Some(self.taker(&address.group, owner))
    }

    pub(super) fn read(&mut self, now: BootInstant, id: ReadId, result: Result<Owners, CallError>) {
        let Some(read) = self.reads.remove(&id) else {
            return;
        };
        match result {
            Ok(owners) => {
                self.verification.success = Some(now);
                if self.verification.error.take().is_some() {
                    self.log(LogEvent::Read { error: None });
                }
                self.verification.throttled = 0;
                self.learn_attachments(&read.addresses, read.is_periodic, &owners);
                let peers: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.peers).copied().collect();
                // The comparisons below need the peers.
                for ip in read.addresses.iter().filter(|ip| peers.contains(ip)) {
                    // Keep the previous owner if this read shows none.
                    if let Some(owner) = owners.get(ip) {
                        self.peers.insert(*ip, owner.clone());
                    }
                }
                let recheck = now + self.jitter();
                let mut from_peer = Vec::new();
                for ip in &read.addresses {
                    if self.is_undecided(now, ip) {
                        continue;
                    }
                    let due = self.owner_read(now, read.began, *ip, owners.get(ip).cloned(), recheck);
                    from_peer.extend(due.map(|due| (*ip, due)));
                }
                self.claim_back_together(&from_peer);
                self.log_attachments();
                self.log_holders();
            }
            Err(error) => {
                if error.class() == ErrorClass::Throttled {
                    self.verification.throttled = (self.verification.throttled + 1).min(4);
                }
                let jitter = self.jitter();
                for ip in &read.addresses {
                    self.owner_read_failed(now, read.began, *ip, error.class(), jitter);
                }
                // The signing clock was corrected: retry at once.
                if error.class() == ErrorClass::Clock
                    && self.verification.error.as_ref().is_none_or(|last| last.class() != ErrorClass::Clock)
                {
                    self.verification.request(now);
                }
                self.verification.error = Some(error.clone());
                self.log(LogEvent::Read { error: Some(error) });
            }
        }
        if read.is_periodic {
            self.verification.ended = Some(read.began);
            // The interval counts from the end of a read. A read that was requested meanwhile is not put off.
            if self.verification.due.is_none() {
                self.verification.due = Some(now + self.verification_interval());
            }
        }
    }

    /// Whether a claim in flight makes a read meaningless: the current claim, or in CheckOwner an outdated one that may be
    /// answered soon.
    fn is_undecided(&mut self, now: BootInstant, ip: &Ipv4Addr) -> bool {
        let claims = self.claims.values().filter(|claim| claim.addresses.contains(ip));
        let last = claims.map(|claim| claim.began).max();
        match (self.addresses.get_mut(ip), last) {
            (Some(Address { phase: Phase::InFlight(_), .. }), _) => true,
            (Some(address @ Address { phase: Phase::CheckOwner { .. }, .. }), Some(began))
                if now < began + OWNER_CHECK_TIMEOUT =>
            {
                address.read_at(began + OWNER_CHECK_TIMEOUT);
                true
            }
            _ => false,
        }
    }

    /// Handles the owner from a read. Returns when the address is reclaimed from the peer, if it is.
    fn owner_read(
        &mut self,
        now: BootInstant,
        began: BootInstant,
        ip: Ipv4Addr,
        owner: Option<Owner>,
        recheck: BootInstant,
    ) -> Option<BootInstant> {
        let outranks = self.outranks(now, &ip);
        let heard = self.heard(&ip);
        let group = self.addresses.get(&ip)?.group.clone();
        let interval = self.interval(&group);
        let from = owner.as_ref().map(|owner| self.taker(&group, owner));
        let address = self.addresses.get_mut(&ip)?;
        let overtaken = address.last_claim.as_ref().is_some_and(|c| c.began >= began)
            || address.owner_read.as_ref().is_some_and(|s| s.began > began)
            || matches!(address.phase, Phase::CheckOwner { since } if began < since);
        if overtaken {
            return None;
        }
        let of_before = address.may_be_of_before(began);
        let ours = address.eni.is_some() && owner.as_ref().map(|o| &o.eni) == address.eni.as_ref();
        address.owner_read = Some(OwnerRead { began, at: now, owner: owner.clone() });
        let outranked_other = mem::take(&mut address.attempt.outranked_other) && owner.is_some();
        let apart = address.earliest_claim(now, heard, interval);
        let earliest_reclaim = address.earliest_reclaim(now);
        let rng = &mut self.rng;
        match mem::replace(&mut address.phase, Phase::Idle) {
            phase @ (Phase::Idle | Phase::AwaitLocalAddress { .. } | Phase::InFlight(_)) => address.phase = phase,
            // A read that may be older than the notify event does not cancel its claim.
            phase @ Phase::Pending { .. }
                if !ours || (address.attempt.precondition.is_none() && (address.attempt.failed == 0 || of_before)) =>
            {
                address.phase = phase;
                if from == Some(Taker::Peer) {
                    address.expedite(now, rng);
                }
            }
            phase if ours => {
                address.phase = phase;
                address.verified(now);
            }
            // Liveness was checked before the read: nothing newer is needed.
            Phase::CheckOwner { .. } => {
                let earliest = if from == Some(Taker::Peer) { earliest_reclaim } else { now };
                address.claim_with_precondition(earliest, BootInstant::default(), from, outranks, rng);
            }
            _ if outranked_other => address.claim_with_precondition(apart, now, from, outranks, rng),
            Phase::Assigned { mismatch: None, .. } if address.in_grace(began) => {
                if let Some(grace) = &mut address.grace {
                    grace.lagging = true;
                }
                address.checks.verified_since = None;
                let early = apart - interval - READ_LEAD_TIME;
                if early <= now {
                    address.claim_with_precondition(apart, now, from, outranks, rng);
                } else {
                    address.phase = Phase::Assigned { verified: false, mismatch: None };
                    if !address.checks.reads.iter().any(|due| (early..=apart).contains(due)) {
                        address.read_at(early);
                    }
                }
            }
            Phase::Assigned { mismatch: None, verified } => {
                address.phase = Phase::Assigned { verified, mismatch: Some(Mismatch { since: now, owner, failed: 0 }) };
                address.checks.verified_since = None;
                address.read_at(recheck);
            }
            // The read began too early for a recheck.
            phase @ Phase::Assigned { mismatch: Some(Mismatch { since, .. }), .. } if began < since + RECHECK_DELAY => {
                address.phase = phase;
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                let ownership_lost = owner.zip(from).filter(|_| mismatch.owner.is_some());
                let begins =
                    ownership_lost.as_ref().is_some_and(|(_, taker)| address.flap_damping.ownership_lost(now, *taker));
                let is_peer = from == Some(Taker::Peer);
                let earliest = if is_peer { earliest_reclaim } else { now };
                address.claim_with_precondition(earliest, mismatch.since, from, outranks, rng);
                if let Some((by, taker)) = ownership_lost {
                    self.log(LogEvent::OwnershipLost { group: group.clone(), address: ip, by: by.clone(), taker });
                    if begins {
                        self.log(LogEvent::Contested { group, address: ip, by, taker });
                    }
                }
                return is_peer.then_some(earliest);
            }
            // Unreachable: every pending address is handled above.
            phase @ Phase::Pending { .. } => address.phase = phase,
        }
        None
    }

    /// Reclaims in one request all addresses that one read has shown with the peer, at the latest of their times.
    fn claim_back_together(&mut self, addresses: &[(Ipv4Addr, BootInstant)]) {
        let Some(last) = addresses.iter().map(|(_, due)| *due).max() else {
            return;
        };
        for (ip, _) in addresses {
            if let Some(Address { phase: Phase::Pending { due }, .. }) = self.addresses.get_mut(ip) {
                *due = last;
            }
        }
    }

    /// Handles a failed read that began at `began`.
    fn owner_read_failed(
        &mut self,
        now: BootInstant,
        began: BootInstant,
        ip: Ipv4Addr,
        class: ErrorClass,
        jitter: Duration,
    ) {
        let interval = self.config.global.verify_interval.duration();
        let Some(address) = self.addresses.get_mut(&ip) else {
            return;
        };
        match &mut address.phase {
            // The permission to read may be missing while the permission to claim exists.
            Phase::CheckOwner { since }
                if *since <= began && (class == ErrorClass::Denied || *since + OWNER_CHECK_TIMEOUT <= now) =>
            {
                self.claim_unread(now, ip);
            }
            Phase::CheckOwner { .. } if address.checks.reads.is_empty() => {
                address.read_at(now + backoff::retry_delay(1, &mut self.rng));
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                // Back off with each failed recheck.
                let wait = jitter * (1 << mismatch.failed.min(8));
                mismatch.failed = mismatch.failed.saturating_add(1);
                let again = now + wait.min(interval);
                if address.checks.reads.first().is_none_or(|due| *due > again) {
                    address.read_at(again);
                }
            }
            _ => {}
        }
    }

    /// Claims an address whose owner could not be read.
    pub(super) fn claim_unread(&mut self, now: BootInstant, ip: Ipv4Addr) {
        let outranks = self.outranks(now, &ip);
        let from = self.taker_of(&ip);
        if let Some(address) = self.addresses.get_mut(&ip) {
            address.claim_with_precondition(now, BootInstant::default(), from, outranks, &mut self.rng);
        }
    }

    /// The delay of a recheck, at least [`RECHECK_DELAY`] even if the read is sent early with others. One value for all addresses
    /// of a read, so that they are claimed together.
    fn jitter(&mut self) -> Duration {
        backoff::jitter_between(RECHECK_DELAY + READ_BATCH_WINDOW, 2 * RECHECK_DELAY, &mut self.rng)
    }
}
