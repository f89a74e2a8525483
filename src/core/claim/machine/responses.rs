//! Handles the responses of EC2 and IMDS.

use std::collections::BTreeSet;
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::scheduler::READ_BATCH_WINDOW;
use super::{ClaimInFlight, Machine};
use crate::claim::event::{Action, ClaimId, ClaimRequest, LogEvent, ReadAnswer, ReadId};
use crate::claim::resource::{
    GRACE_PERIOD, Mismatch, OWNER_CHECK_TIMEOUT, OwnerRead, Phase, ResourceState, VERIFY_DELAYS,
};
use crate::claim::{BootInstant, backoff};
use crate::model::ec2::{Acknowledgement, CallError, Eni, ErrorClass, Owner, Taker};
use crate::model::ids::{GroupName, InterfaceName};
use crate::model::resource::{Holder, Kind, Resource};

/// For this long after MASTER_RX_LOWER_PRI, this router outranks the other.
const OUTRANKS_FOR: Duration = Duration::from_secs(60);
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
                let resources = self.resources.values_mut().filter(|r| r.planned.interface == *interface);
                resources.for_each(|resource| resource.resolved(now, &eni));
                interface_eni.eni = Some(eni);
                if is_first {
                    self.verifications.request(now);
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

    pub(super) fn claimed(
        &mut self,
        now: BootInstant,
        id_of_claim: ClaimId,
        result: Result<Acknowledgement, CallError>,
    ) {
        let Some(claim) = self.claims.remove(&id_of_claim) else {
            return;
        };
        if result.is_ok() && claim.request.kind() == Kind::Address {
            self.denials.remove(claim.request.eni());
            self.permission_proved(claim.request.eni());
        }
        let previous = claim.resources.iter().find_map(|id| self.resources.get(id)?.owner_read.as_ref()?.owner.clone());
        for id in &claim.resources {
            if let Some(resource) = self.resources.get_mut(id)
                && let Some(last) = resource.last_claim.as_mut().filter(|l| l.began == claim.began)
            {
                last.answer = Some((now, result.clone().map(|acknowledged| acknowledged.request_id)));
                if result.is_ok() && resource.eni.as_ref() == Some(claim.request.eni()) {
                    // The permission exists, whatever the VRRP state is by now.
                    resource.rejection.permanent = None;
                    if id.kind() != Kind::Address {
                        resource.permission.proven(now, &mut self.rng);
                    }
                }
            }
        }
        // The response does not count for resources that are idle or pending again.
        let concerned: Vec<Resource> = claim
            .resources
            .iter()
            .filter(|id| self.resources.get(id).is_some_and(|r| r.phase == Phase::InFlight(id_of_claim)))
            .cloned()
            .collect();
        match &result {
            Ok(Acknowledgement { unlisted, .. }) => {
                let channel = self.channel(&claim.channel);
                channel.timeouts = 0;
                channel.acknowledged = Some(now);
                channel.second_chance = false;
                // The unknown error is over, for the other addresses that it isolated, too.
                let was_refused =
                    |id| self.resources.get(id).is_some_and(|r| r.rejection.isolated == Some(ErrorClass::Refused));
                if claim.request.kind() == Kind::Address && concerned.iter().any(was_refused) {
                    let of_eni = |r: &&mut ResourceState| r.eni.as_ref() == Some(claim.request.eni());
                    self.resources.values_mut().filter(of_eni).for_each(ResourceState::join_if_refused);
                }
                for id in &concerned {
                    if let Some(resource) = self.resources.get_mut(id) {
                        resource.acknowledged(now);
                        if id.address().is_some_and(|ip| unlisted.contains(&ip)) {
                            resource.read_at(now);
                        }
                    }
                    if let Some(address) = id.address() {
                        self.read_moved_along(now, address);
                    }
                }
            }
            // An outdated claim does not affect later ones.
            Err(_) if concerned.is_empty() => {}
            Err(error) => self.claim_failed(now, &claim, &concerned, error),
        }
        for id in claim.resources.iter().filter(|id| !concerned.contains(id)) {
            match self.resources.get_mut(id) {
                // A read from before the outdated claim ended may be stale.
                Some(resource @ ResourceState { phase: Phase::CheckOwner { .. }, .. }) => resource.adopt(now),
                // EC2 may have performed the claim despite the failure.
                Some(resource @ ResourceState { phase: Phase::Pending { .. }, .. }) => resource.read_at(now),
                _ => {}
            }
        }
        self.log(LogEvent::Claim { request: claim.request, previous, duration: claim.began.until(now), result });
    }

    /// The claim of an address was acknowledged: an Elastic IP that is associated with it has moved along.
    fn read_moved_along(&mut self, now: BootInstant, address: Ipv4Addr) {
        for elastic_ip in self.resources.values_mut().filter(|r| r.private_address == Some(address)) {
            let is_on_it = |read: &OwnerRead| read.private_address == Some(address);
            if matches!(elastic_ip.phase, Phase::Pending { .. }) && elastic_ip.owner_read.as_ref().is_some_and(is_on_it)
            {
                elastic_ip.attempt.moved_along = Some(now + VERIFY_DELAYS[0]);
                elastic_ip.read_at(now + VERIFY_DELAYS[0]);
            }
        }
    }

    pub(super) fn claim_failed(
        &mut self,
        now: BootInstant,
        claim: &ClaimInFlight,
        concerned: &[Resource],
        error: &CallError,
    ) {
        let channel = self.channel(&claim.channel);
        let timed_out = error.class() == ErrorClass::TimedOut;
        if !timed_out {
            channel.timeouts = 0;
        } else if claim.request.kind() == Kind::Address || channel.timed_out.is_none_or(|last| last <= claim.began) {
            channel.timeouts = channel.timeouts.saturating_add(1);
            channel.timed_out = Some(now);
        }
        let second_chance = !mem::replace(
            &mut channel.second_chance,
            matches!(error.class(), ErrorClass::Clock | ErrorClass::NoSuchInterface),
        );
        if error.class() == ErrorClass::NoSuchInterface {
            for resource in concerned.iter().filter_map(|id| self.resources.get(id)) {
                if let Some(interface_eni) = self.interface_enis.get_mut(&resource.planned.interface) {
                    interface_eni.next = Some(now);
                }
            }
        }
        let awaits_address = self.awaits_private_address(now, &claim.request);
        let splits =
            matches!(error.class(), ErrorClass::BadResource | ErrorClass::Refused) && claim.resources.len() > 1;
        let halves = [self.next_id(), self.next_id()];
        let together = backoff::retry_delay(self.failed(concerned), &mut self.rng);
        for (n, id) in concerned.iter().enumerate() {
            let outranks = self.outranks(now, id);
            let from = self.taker_of(id);
            let Some(resource) = self.resources.get_mut(id) else {
                continue;
            };
            resource.attempt.failed = resource.attempt.failed.saturating_add(1);
            resource.last_failure = Some((now, error.clone()));
            resource.rejection.permanent = None;
            let due = match error.class() {
                ErrorClass::BadResource | ErrorClass::Refused if splits => {
                    resource.attempt.failed = 0;
                    resource.attempt.bisect_group = Some(halves[n * 2 / concerned.len()]);
                    now
                }
                ErrorClass::BadResource if awaits_address => now + together,
                ErrorClass::BadResource => {
                    resource.rejection.isolated = Some(error.class());
                    resource.attempt.bisect_group = None;
                    resource.rejection.permanent = Some(error.clone());
                    now + backoff::PERMANENT_ERROR_DELAY
                }
                ErrorClass::Refused => {
                    resource.rejection.isolated = Some(error.class());
                    resource.attempt.bisect_group = None;
                    now + together
                }
                ErrorClass::Clock | ErrorClass::NoSuchInterface if second_chance => now + together,
                ErrorClass::Denied | ErrorClass::Clock | ErrorClass::NoSuchInterface => {
                    resource.rejection.permanent = Some(error.clone());
                    now + backoff::PERMANENT_ERROR_DELAY
                }
                ErrorClass::TimedOut | ErrorClass::Transient => {
                    // EC2 may have performed the claim despite the failure.
                    resource.read_at(now);
                    now + together
                }
                ErrorClass::Throttled => now + together,
            };
            let due = if splits {
                due
            } else {
                resource
                    .flap_damping
                    .damping_delay(from, outranks, &mut self.rng)
                    .map_or(due, |wait| due.max(now + wait))
            };
            resource.phase = Phase::Pending { due };
            if resource.rejection.permanent.is_some() {
                resource.permission.claim_refused(now);
            }
        }
    }

    /// Whether an Elastic IP belongs on an address that this router is claiming, or has claimed a short time ago: EC2 may refuse
    /// the association although reads show the address on the ENI already.
    fn awaits_private_address(&self, now: BootInstant, request: &ClaimRequest) -> bool {
        let ClaimRequest::ElasticIp { private_address: Some(address), .. } = request else {
            return false;
        };
        self.resources.get(&Resource::Address(*address)).is_some_and(|address| match address.phase {
            Phase::Pending { .. } | Phase::InFlight(_) => true,
            Phase::Assigned { .. } => {
                let claimed = address.last_claim.as_ref().and_then(|claim| claim.answer.as_ref());
                claimed.is_some_and(|(ended, result)| result.is_ok() && now < *ended + GRACE_PERIOD)
            }
            Phase::Idle | Phase::AwaitLocalAddress { .. } | Phase::CheckOwner { .. } => false,
        })
    }

    pub(super) fn failed(&self, resources: &[Resource]) -> u32 {
        resources.iter().filter_map(|id| self.resources.get(id)).map(|r| r.attempt.failed).max().unwrap_or(0)
    }

    pub(super) fn outranks(&self, now: BootInstant, id: &Resource) -> bool {
        self.heard(id).is_some_and(|last| last.until(now) <= OUTRANKS_FOR)
    }

    /// When the resource's group last reported MASTER_RX_LOWER_PRI.
    fn heard(&self, id: &Resource) -> Option<BootInstant> {
        self.groups.get(&self.resources.get(id)?.group)?.rx_lower
    }

    /// Whether an owner is the group's peer or a third party.
    fn taker(&self, group: &GroupName, owner: &Owner) -> Taker {
        let mut peers = self.groups.get(group).into_iter().flat_map(|g| &g.peers).filter_map(|ip| self.peers.get(ip));
        let is_same =
            |peer: &Owner| peer.eni == owner.eni || (peer.instance.is_some() && peer.instance == owner.instance);
        if peers.any(is_same) { Taker::Peer } else { Taker::ThirdParty }
    }

    /// The same for the owner in the last read, unless it is this router's ENI.
    fn taker_of(&self, id: &Resource) -> Option<Taker> {
        let resource = self.resources.get(id)?;
        let owner = resource.owner_read.as_ref()?.owner.as_ref().filter(|o| Some(&o.eni) != resource.eni.as_ref())?;
        Some(self.taker(&resource.group, owner))
    }

    pub(super) fn read(&mut self, now: BootInstant, id: ReadId, result: Result<ReadAnswer, CallError>) {
        let Some(read) = self.reads.remove(&id) else {
            return;
        };
        let kind = read.kind;
        match result {
            Ok(mut answer) => {
                self.verifications[kind].success = Some(now);
                if self.verifications[kind].error.take().is_some() {
                    self.log(LogEvent::Read { kind, error: None });
                }
                self.verifications[kind].throttled = 0;
                self.learn_enis(now, &read.resources, &read.enis, read.is_periodic, &mut answer);
                let mut holders = answer.holders;
                let peers: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.peers).copied().collect();
                // The comparisons below need the peers.
                for ip in read.resources.iter().filter_map(Resource::address).filter(|ip| peers.contains(ip)) {
                    // Keep the previous owner if this read shows none.
                    if let Some(owner) = holders.get(&ip.into()).and_then(Holder::owner) {
                        self.peers.insert(ip, owner.clone());
                    }
                }
                let recheck = now + self.jitter();
                let mut from_peer = Vec::new();
                for id in &read.resources {
                    if self.is_undecided(now, id) {
                        continue;
                    }
                    let due = self.owner_read(now, read.began, id, holders.remove(id), recheck);
                    from_peer.extend(due.map(|due| (id, due)));
                }
                self.claim_back_together(&from_peer);
                self.log_attachments();
                self.log_holders();
            }
            Err(error) => {
                if error.class() == ErrorClass::Throttled {
                    self.verifications[kind].throttled = (self.verifications[kind].throttled + 1).min(4);
                }
                let jitter = self.jitter();
                for id in &read.resources {
                    self.owner_read_failed(now, read.began, id, error.class(), jitter);
                }
                let verification = &mut self.verifications[kind];
                // The signing clock was corrected: retry at once.
                if error.class() == ErrorClass::Clock
                    && verification.error.as_ref().is_none_or(|last| last.class() != ErrorClass::Clock)
                {
                    verification.request(now);
                }
                verification.error = Some(error.clone());
                self.log(LogEvent::Read { kind, error: Some(error) });
            }
        }
        if read.is_periodic {
            self.verifications[kind].ended = Some(read.began);
            if kind == Kind::Address {
                // By now the name of EC2's endpoint has been resolved.
                self.actions.push(Action::ReadNetwork);
            }
            // The interval counts from the end of a read. A read that was requested meanwhile is not put off.
            if self.verifications[kind].due.is_none() {
                self.verifications[kind].due = Some(now + self.verification_interval(kind));
            }
        }
    }

    /// Whether a claim in flight makes a read meaningless: the current claim, or in CheckOwner an outdated one that may be
    /// answered soon.
    fn is_undecided(&mut self, now: BootInstant, id: &Resource) -> bool {
        let claims = self.claims.values().filter(|claim| claim.resources.contains(id));
        let last = claims.map(|claim| claim.began).max();
        match (self.resources.get_mut(id), last) {
            (Some(ResourceState { phase: Phase::InFlight(_), .. }), _) => true,
            (Some(resource @ ResourceState { phase: Phase::CheckOwner { .. }, .. }), Some(began))
                if now < began + OWNER_CHECK_TIMEOUT =>
            {
                resource.read_at(began + OWNER_CHECK_TIMEOUT);
                true
            }
            _ => false,
        }
    }

    /// Handles the owner from a read. Returns when the resource is reclaimed from the peer, if it is.
    fn owner_read(
        &mut self,
        now: BootInstant,
        began: BootInstant,
        id: &Resource,
        holder: Option<Holder>,
        recheck: BootInstant,
    ) -> Option<BootInstant> {
        let outranks = self.outranks(now, id);
        let heard = self.heard(id);
        let group = self.resources.get(id)?.group.clone();
        let interval = self.interval(&group);
        let has_room = self.shows_room(self.resources.get(id)?);
        let read = OwnerRead::new(began, now, holder);
        let owner = read.owner.clone();
        let from = owner.as_ref().map(|owner| self.taker(&group, owner));
        let resource = self.resources.get_mut(id)?;
        // Not lost to another router: the Elastic IP is associated with another address of this router's own ENI.
        let from = from.filter(|_| owner.as_ref().map(|o| &o.eni) != resource.eni.as_ref());
        let overtaken = resource.last_claim.as_ref().is_some_and(|c| c.began >= began)
            || resource.owner_read.as_ref().is_some_and(|s| s.began > began)
            || matches!(resource.phase, Phase::CheckOwner { since } if began < since);
        if overtaken {
            return None;
        }
        let of_before = resource.may_be_of_before(began);
        let ours = resource.is_ours(&read);
        let awaited = resource.awaits_read_until().is_some();
        let not_takeable = read.not_takeable.clone().filter(|why| resource.not_takeable() != Some(why));
        resource.owner_read = Some(read);
        if resource.is_absent_route() {
            resource.permission.request_creation(now);
        } else if id.kind() != Kind::Address || has_room {
            // ReplaceRoute needs no room.
            resource.end_rejection_for_room();
        }
        let awaited = awaited && resource.awaits_read_until().is_none();
        let outranked_other = mem::take(&mut resource.attempt.outranked_other) && owner.is_some();
        let apart = resource.earliest_claim(now, heard, interval);
        let earliest_reclaim = resource.earliest_reclaim(now);
        let rng = &mut self.rng;
        match mem::replace(&mut resource.phase, Phase::Idle) {
            phase @ (Phase::Idle | Phase::AwaitLocalAddress { .. } | Phase::InFlight(_)) => resource.phase = phase,
            // Whether it is ours cannot be seen yet. Once the ENI is known, everything is read again.
            phase if resource.eni.is_none() => resource.phase = phase,
            // A correct association is not repeated. This read may be stale: more reads follow, and one that shows another
            // owner leads to a claim.
            Phase::Pending { .. } if ours && awaited => {
                resource.verified(now);
                resource.may_be_stale(now);
            }
            // A read that may be older than the notify event does not cancel its claim.
            phase @ Phase::Pending { .. }
                if !ours
                    || (resource.attempt.precondition.is_none() && (resource.attempt.failed == 0 || of_before)) =>
            {
                resource.phase = phase;
                if from == Some(Taker::Peer) {
                    resource.expedite(now, rng);
                }
            }
            phase if ours => {
                resource.phase = phase;
                resource.verified(now);
            }
            // Liveness was checked before the read: nothing newer is needed.
            Phase::CheckOwner { .. } => {
                let earliest = if from == Some(Taker::Peer) { earliest_reclaim } else { now };
                resource.claim_with_precondition(earliest, BootInstant::default(), from, outranks, rng);
            }
            _ if outranked_other => resource.claim_with_precondition(apart, now, from, outranks, rng),
            Phase::Assigned { mismatch: None, .. } if resource.in_grace(began) => {
                if let Some(grace) = &mut resource.grace {
                    grace.lagging = true;
                }
                resource.checks.verified_since = None;
                let early = apart - interval - READ_LEAD_TIME;
                if early <= now {
                    resource.claim_with_precondition(apart, now, from, outranks, rng);
                } else {
                    resource.phase = Phase::Assigned { verified: false, mismatch: None };
                    if !resource.checks.reads.iter().any(|due| (early..=apart).contains(due)) {
                        resource.read_at(early);
                    }
                }
            }
            Phase::Assigned { mismatch: None, verified } => {
                resource.phase =
                    Phase::Assigned { verified, mismatch: Some(Mismatch { since: now, owner, failed: 0 }) };
                resource.checks.verified_since = None;
                resource.read_at(recheck);
            }
            // The read began too early for a recheck.
            phase @ Phase::Assigned { mismatch: Some(Mismatch { since, .. }), .. } if began < since + RECHECK_DELAY => {
                resource.phase = phase;
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                let ownership_lost = owner.zip(from).filter(|_| mismatch.owner.is_some());
                let begins =
                    ownership_lost.as_ref().is_some_and(|(_, taker)| resource.flap_damping.ownership_lost(now, *taker));
                let is_peer = from == Some(Taker::Peer);
                let earliest = if is_peer { earliest_reclaim } else { now };
                resource.claim_with_precondition(earliest, mismatch.since, from, outranks, rng);
                if let Some((by, taker)) = ownership_lost {
                    let resource = id.clone();
                    self.log(LogEvent::OwnershipLost { group: group.clone(), resource, by: by.clone(), taker });
                    if begins {
                        self.log(LogEvent::Contested { group, resource: id.clone(), by, taker });
                    }
                }
                return is_peer.then_some(earliest);
            }
            // Unreachable: every pending resource is handled above.
            phase @ Phase::Pending { .. } => resource.phase = phase,
        }
        if let Some(why) = not_takeable
            && resource.phase != Phase::Idle
        {
            self.log(LogEvent::NotTakeable { group, resource: id.clone(), why });
        }
        None
    }

    /// Reclaims together all resources that one read has shown with the peer, at the latest of their times.
    fn claim_back_together(&mut self, resources: &[(&Resource, BootInstant)]) {
        let Some(last) = resources.iter().map(|(_, due)| *due).max() else {
            return;
        };
        for (id, _) in resources {
            if let Some(ResourceState { phase: Phase::Pending { due }, .. }) = self.resources.get_mut(id) {
                *due = last;
            }
        }
    }

    /// Handles a failed read that began at `began`.
    fn owner_read_failed(
        &mut self,
        now: BootInstant,
        began: BootInstant,
        id: &Resource,
        class: ErrorClass,
        jitter: Duration,
    ) {
        let interval = self.config.global.verify_interval.duration();
        let Some(resource) = self.resources.get_mut(id) else {
            return;
        };
        let may_be_unread = id.kind() != Kind::Route || resource.owner_read.is_some();
        let awaits_read = resource.awaits_read();
        match &mut resource.phase {
            // The permission to read may be missing while the permission to claim exists.
            Phase::CheckOwner { since }
                if may_be_unread
                    && *since <= began
                    && (class == ErrorClass::Denied || *since + OWNER_CHECK_TIMEOUT <= now) =>
            {
                self.claim_unread(now, id);
            }
            Phase::CheckOwner { .. } if may_be_unread && resource.checks.reads.is_empty() => {
                resource.read_at(now + backoff::retry_delay(1, &mut self.rng));
            }
            Phase::CheckOwner { .. } | Phase::Pending { .. } if awaits_read && resource.checks.reads.is_empty() => {
                let wait = match class {
                    ErrorClass::Denied => backoff::PERMANENT_ERROR_DELAY,
                    _ => backoff::retry_delay(resource.checks.failed_reads, &mut self.rng),
                };
                resource.checks.failed_reads = resource.checks.failed_reads.saturating_add(1);
                resource.read_at(now + wait);
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                // Back off with each failed recheck.
                let wait = jitter * (1 << mismatch.failed.min(8));
                mismatch.failed = mismatch.failed.saturating_add(1);
                let again = now + wait.min(interval);
                if resource.checks.reads.first().is_none_or(|due| *due > again) {
                    resource.read_at(again);
                }
            }
            _ => {}
        }
    }

    /// Claims a resource whose owner could not be read.
    pub(super) fn claim_unread(&mut self, now: BootInstant, id: &Resource) {
        let outranks = self.outranks(now, id);
        let from = self.taker_of(id);
        if let Some(resource) = self.resources.get_mut(id) {
            resource.claim_with_precondition(now, BootInstant::default(), from, outranks, &mut self.rng);
        }
    }

    /// The delay of a recheck, at least [`RECHECK_DELAY`] even if the read is sent early with others. One value for all resources
    /// of a read, so that they are claimed together.
    fn jitter(&mut self) -> Duration {
        backoff::jitter_between(RECHECK_DELAY + READ_BATCH_WINDOW, 2 * RECHECK_DELAY, &mut self.rng)
    }
}
