//! What EC2 and IMDS answer.

use std::collections::BTreeSet;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use super::sending::READS_TOGETHER;
use super::{ClaimInFlight, Machine};
use crate::claim::address::{APART, Address, Phase, Seen, Suspect};
use crate::claim::message::{ClaimId, Note, ReadId};
use crate::claim::{Moment, pace};
use crate::names::InterfaceName;
use crate::ownership::{Acknowledgement, CallError, Eni, ErrorClass, Owner, Owners};

/// MASTER_RX_LOWER_PRI heard within that time means that this router outranks the other.
const OUTRANKS: Duration = Duration::from_secs(60);
/// An ownership that has to be read before anything else is read again where that fails, and claimed unread after that
/// time.
const READ_PATIENCE: Duration = Duration::from_secs(3);
/// A read that disagrees with an ownership has to be followed by another one, that long after it and not twice as long.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn resolved(&mut self, now: Moment, interface: &InterfaceName, result: Result<Eni, CallError>) {
        let Some(binding) = self.bindings.get_mut(interface) else {
            return;
        };
        binding.asked = false;
        match result {
            Ok(eni) => {
                let is_first = binding.eni.is_none();
                binding.failed = 0;
                binding.error = None;
                binding.next = None;
                for address in self.addresses.values_mut().filter(|a| a.interface == *interface) {
                    let should = address.configured_eni.as_ref().unwrap_or(&eni.id).clone();
                    if address.eni.as_ref() != Some(&should) {
                        if address.eni.is_some() {
                            address.other_eni(now);
                        }
                        address.eni = Some(should);
                    }
                }
                binding.eni = Some(eni);
                if is_first {
                    self.sweep.due = now;
                }
            }
            Err(error) => {
                binding.next = Some(now + pace::retry(binding.failed, &mut self.rng));
                binding.failed = binding.failed.saturating_add(1);
                let is_news = binding.error.as_ref().is_none_or(|e| e.code != error.code);
                binding.error = Some(error.clone());
                if is_news {
                    self.note(Note::Unresolved { interface: interface.clone(), error });
                }
            }
        }
    }

    pub(super) fn claimed(&mut self, now: Moment, id: ClaimId, result: Result<Acknowledgement, CallError>) {
        let Some(claim) = self.claims.remove(&id) else {
            return;
        };
        let previous = claim.addresses.iter().find_map(|ip| self.addresses.get(ip)?.seen.as_ref()?.owner.clone());
        for ip in &claim.addresses {
            if let Some(address) = self.addresses.get_mut(ip)
                && let Some(last) = address.last_claim.as_mut().filter(|l| l.began == claim.began)
            {
                last.answer = Some((now, result.clone().map(|acknowledged| acknowledged.request_id)));
                if result.is_ok() && address.eni.as_ref() == Some(&claim.eni) {
                    // The right is there, whoever is MASTER by now.
                    address.permanent = None;
                }
            }
        }
        // Those that have let go meanwhile, or want another claim already, are not concerned by the answer.
        let concerned: Vec<Ipv4Addr> = claim
            .addresses
            .iter()
            .filter(|ip| self.addresses.get(ip).is_some_and(|a| a.phase == Phase::InFlight(id)))
            .copied()
            .collect();
        match &result {
            Ok(Acknowledgement { unlisted, .. }) => {
                let sender = self.senders.entry(claim.eni.clone()).or_default();
                sender.timeouts = 0;
                sender.second_chance = false;
                sender.proven = Some(now);
                // The reason that is not known is gone: for the others that it kept apart, too.
                let was_refused = |ip| self.addresses.get(ip).is_some_and(|a| a.alone == Some(ErrorClass::Refused));
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
            Err(error) => self.claim_failed(now, &claim, &concerned, error),
        }
        // Whoever is to be read first had to wait for the claim to end: what was read before is not to be relied on.
        for ip in &claim.addresses {
            if let Some(address) = self.addresses.get_mut(ip)
                && matches!(address.phase, Phase::Adopting { .. })
            {
                address.adopt(now);
            }
        }
        self.note(Note::Claim {
            eni: claim.eni,
            addresses: claim.addresses,
            previous,
            duration: claim.began.until(now),
            result,
        });
    }

    pub(super) fn claim_failed(
        &mut self,
        now: Moment,
        claim: &ClaimInFlight,
        concerned: &[Ipv4Addr],
        error: &CallError,
    ) {
        let sender = self.senders.entry(claim.eni.clone()).or_default();
        let timed_out = error.class == ErrorClass::TimedOut;
        sender.timeouts = if timed_out { sender.timeouts.saturating_add(1) } else { 0 };
        let second_chance = !mem::replace(
            &mut sender.second_chance,
            matches!(error.class, ErrorClass::Clock | ErrorClass::NoSuchInterface),
        );
        if error.class == ErrorClass::NoSuchInterface {
            for address in concerned.iter().filter_map(|ip| self.addresses.get(ip)) {
                if let Some(binding) = self.bindings.get_mut(&address.interface) {
                    binding.next = Some(now);
                }
            }
        }
        let splits = matches!(error.class, ErrorClass::BadAddress | ErrorClass::Refused) && claim.addresses.len() > 1;
        let halves = [self.next_id(), self.next_id()];
        let together = pace::retry(self.failed(concerned), &mut self.rng);
        for (n, ip) in concerned.iter().enumerate() {
            let outranks = self.outranks(now, ip);
            let Some(address) = self.addresses.get_mut(ip) else {
                continue;
            };
            address.failed = address.failed.saturating_add(1);
            address.last_failure = Some((now, error.clone()));
            address.permanent = None;
            let due = match error.class {
                ErrorClass::BadAddress | ErrorClass::Refused if splits => {
                    address.failed = 0;
                    address.cohort = Some(halves[n * 2 / concerned.len()]);
                    now
                }
                ErrorClass::BadAddress => {
                    address.alone = Some(error.class);
                    address.cohort = None;
                    address.permanent = Some(error.clone());
                    now + pace::PERMANENT
                }
                ErrorClass::Refused => {
                    address.alone = Some(error.class);
                    address.cohort = None;
                    now + together
                }
                ErrorClass::Clock | ErrorClass::NoSuchInterface if second_chance => now + together,
                ErrorClass::Denied | ErrorClass::Clock | ErrorClass::NoSuchInterface => {
                    address.permanent = Some(error.clone());
                    now + pace::PERMANENT
                }
                ErrorClass::TimedOut | ErrorClass::Transient => {
                    // The request may have been performed all the same.
                    address.read_at(now);
                    now + together
                }
                ErrorClass::Throttled => now + together,
            };
            let due = if splits {
                due
            } else {
                address.contest.back_off(outranks, &mut self.rng).map_or(due, |wait| due.max(now + wait))
            };
            address.phase = Phase::Wanted { due };
        }
    }

    pub(super) fn failed(&self, addresses: &[Ipv4Addr]) -> u32 {
        addresses.iter().filter_map(|ip| self.addresses.get(ip)).map(|a| a.failed).max().unwrap_or(0)
    }

    pub(super) fn outranks(&self, now: Moment, ip: &Ipv4Addr) -> bool {
        let heard = self.addresses.get(ip).and_then(|a| self.groups.get(&a.group)).and_then(|g| g.rx_lower);
        heard.is_some_and(|last| last.until(now) <= OUTRANKS)
    }

    pub(super) fn read(&mut self, now: Moment, id: ReadId, result: Result<Owners, CallError>) {
        let Some(read) = self.reads.remove(&id) else {
            return;
        };
        let flying = self.flying();
        match result {
            Ok(owners) => {
                self.sweep.success = Some(now);
                if self.sweep.error.take().is_some() {
                    self.note(Note::Read { error: None });
                }
                self.sweep.throttled = 0;
                let peers: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.peers).copied().collect();
                for ip in &read.addresses {
                    let owner = owners.get(ip);
                    if peers.contains(ip) {
                        match owner {
                            Some(owner) => self.peers.insert(*ip, owner.clone()),
                            None => self.peers.remove(ip),
                        };
                    }
                    if !flying.contains(ip) {
                        self.seen(now, read.began, *ip, owner.cloned());
                    }
                }
            }
            Err(error) => {
                if error.class == ErrorClass::Throttled {
                    self.sweep.throttled = (self.sweep.throttled + 1).min(4);
                }
                for ip in read.addresses.iter().filter(|ip| !flying.contains(ip)) {
                    self.unseen(now, read.began, *ip, error.class);
                }
                // EC2's time has been taken over: once more with it.
                if error.class == ErrorClass::Clock
                    && self.sweep.error.as_ref().is_none_or(|last| last.class != ErrorClass::Clock)
                {
                    self.sweep.due = now;
                }
                self.sweep.error = Some(error.clone());
                self.note(Note::Read { error: Some(error) });
            }
        }
        if read.sweep {
            self.sweep.ended = Some(read.began);
            // Somebody may have asked for another one meanwhile.
            if self.sweep.due > now {
                self.sweep.due = now + self.sweep_interval();
            }
        }
    }

    /// A read was answered for an address that no claim is in flight for.
    pub(super) fn seen(&mut self, now: Moment, began: Moment, ip: Ipv4Addr, owner: Option<Owner>) {
        let outranks = self.outranks(now, &ip);
        let Some(address) = self.addresses.get_mut(&ip) else {
            return;
        };
        let overtaken = address.last_claim.as_ref().is_some_and(|c| c.began >= began)
            || address.seen.as_ref().is_some_and(|s| s.began > began)
            || matches!(address.phase, Phase::Adopting { since } if began < since);
        if overtaken {
            return;
        }
        let of_before = address.may_be_of_before(began);
        let ours = address.eni.is_some() && owner.as_ref().map(|o| &o.eni) == address.eni.as_ref();
        address.seen = Some(Seen { began, at: now, owner: owner.clone() });
        let outranked_other = mem::take(&mut address.outranked_other) && owner.is_some();
        let apart = address.last_claim.as_ref().map_or(now, |c| now.max(c.began + APART));
        let rng = &mut self.rng;
        match mem::replace(&mut address.phase, Phase::Rest) {
            phase @ (Phase::Rest | Phase::Appearing { .. } | Phase::InFlight(_)) => address.phase = phase,
            // A claim that a line asked for is not put off by what may be the state before that line.
            phase @ Phase::Wanted { .. }
                if !ours || (address.guard.is_none() && (address.failed == 0 || of_before)) =>
            {
                address.phase = phase;
            }
            phase if ours => {
                address.phase = phase;
                address.confirmed(now);
            }
            // That keepalived lives was asked before the read; where it has not been long, nothing newer is needed.
            Phase::Adopting { .. } => address.claim_guarded(now, Moment::default(), outranks, rng),
            _ if outranked_other => address.claim_guarded(apart, now, outranks, rng),
            Phase::Held { suspect: None, .. } if address.in_grace(began) => {
                if let Some(grace) = &mut address.grace {
                    grace.lagging = true;
                }
                address.confirmed_since = None;
                if apart <= now {
                    address.claim_guarded(now, now, outranks, rng);
                } else {
                    address.phase = Phase::Held { confirmed: false, suspect: None };
                    if address.reads.last().is_none_or(|last| *last < apart) {
                        address.read_at(apart);
                    }
                }
            }
            Phase::Held { suspect: None, confirmed } => {
                address.phase = Phase::Held { confirmed, suspect: Some(Suspect { since: now, owner, failed: 0 }) };
                address.confirmed_since = None;
                address.read_at(now + suspicion(0, rng));
            }
            // Asked too early to be a second look.
            phase @ Phase::Held { suspect: Some(Suspect { since, .. }), .. } if began < since + SECOND_LOOK => {
                address.phase = phase;
            }
            Phase::Held { suspect: Some(suspect), .. } => {
                let group = address.group.clone();
                let theft = owner.filter(|_| suspect.owner.is_some());
                let begins = theft.is_some() && address.contest.theft(now);
                address.claim_guarded(now, suspect.since, outranks, rng);
                if let Some(by) = theft {
                    self.note(Note::Theft { group: group.clone(), address: ip, by: by.clone() });
                    if begins {
                        self.note(Note::Contested { group, address: ip, by });
                    }
                }
            }
            // Every Wanted is kept or confirmed above.
            phase @ Phase::Wanted { .. } => address.phase = phase,
        }
    }

    /// A read that began at that moment failed for an address that no claim is in flight for.
    pub(super) fn unseen(&mut self, now: Moment, began: Moment, ip: Ipv4Addr, class: ErrorClass) {
        let interval = self.config.global.verify_interval.duration();
        let Some(address) = self.addresses.get_mut(&ip) else {
            return;
        };
        match &mut address.phase {
            // The right to read may be missing while the right to claim is there, and nobody else will claim it.
            Phase::Adopting { since }
                if *since <= began && (class == ErrorClass::Denied || *since + READ_PATIENCE <= now) =>
            {
                self.claim_unread(now, ip);
            }
            Phase::Adopting { .. } if address.reads.is_empty() => {
                address.read_at(now + pace::retry(1, &mut self.rng));
            }
            Phase::Held { suspect: Some(suspect), .. } if address.reads.is_empty() => {
                suspect.failed = suspect.failed.saturating_add(1);
                let wait = suspicion(suspect.failed, &mut self.rng).min(interval);
                address.read_at(now + wait);
            }
            _ => {}
        }
    }

    /// Claims what was to be read first, and cannot be.
    pub(super) fn claim_unread(&mut self, now: Moment, ip: Ipv4Addr) {
        let outranks = self.outranks(now, &ip);
        if let Some(address) = self.addresses.get_mut(&ip) {
            address.claim_guarded(now, Moment::default(), outranks, &mut self.rng);
        }
    }
}

/// The wait before the second look, doubled with each one that failed. Reads go out with others that are due a little
/// earlier, and it is one all the same.
fn suspicion(failed: u32, rng: &mut Rng) -> Duration {
    pace::between(SECOND_LOOK + READS_TOGETHER, 2 * SECOND_LOOK, rng) * (1 << failed.min(8))
}
