//! When requests to EC2, IMDS and the kernel are sent, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::inference::liveness_max_age;
use super::{Channel, ClaimInFlight, Machine, ReadInFlight};
use crate::claim::event::{Action, ClaimId, ClaimRequest, ReadId, ReadRequest};
use crate::claim::resource::{LastClaim, Phase, ResourceState};
use crate::claim::{BootInstant, backoff};
use crate::model::ids::{EniId, VpcId};
use crate::model::resource::{Kind, Resource};
use crate::model::vrrp::VrrpState;

/// The most claims of addresses in flight on one ENI ...
const MAX_CLAIMS_PER_ENI: usize = 2;
/// ... and one more if a first attempt would have to wait otherwise.
const EXTRA_FRESH_CLAIMS: usize = 1;
/// The most claims of routes and Elastic IPs in flight, without those that began before the notify event of a first attempt ...
const MAX_SINGLE_CLAIMS: usize = 8;
/// ... of which routes leave so many to Elastic IPs that wait, and the other way round ...
const OTHER_KIND_RESERVE: usize = 2;
/// ... and together with those.
const MAX_SINGLE_CLAIMS_WITH_OUTDATED: usize = 16;
/// How old a read of the local addresses may be for a claim.
const LOCAL_READ_MAX_AGE: Duration = Duration::from_millis(100);
/// A read of the local addresses without a response is repeated after this time.
pub(super) const LOCAL_READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Reads that are due within this time share a request.
pub(super) const READ_BATCH_WINDOW: Duration = Duration::from_millis(100);
/// The shortest time between reads of routes, and of Elastic IPs, that only verify claims: their claims are acknowledged one
/// by one, and all that were acknowledged meanwhile share the next read.
const MIN_VERIFICATION_GAP: Duration = Duration::from_secs(1);
/// The most reads of one kind in flight.
const MAX_READS: usize = 4;
/// The shortest time between periodic verifications on a standby.
pub(super) const MIN_STANDBY_INTERVAL: Duration = Duration::from_secs(15);

impl Machine {
    /// Sends the claims that are due: addresses first, so that no other kind delays them.
    pub(super) fn send_claims(&mut self, now: BootInstant) {
        let mut waiting: BTreeMap<EniId, Vec<Resource>> = BTreeMap::new();
        let mut single = Vec::new();
        for (id, resource) in &self.resources {
            if let Phase::Pending { due } = resource.phase
                && due <= now
                && let Some(eni) = &resource.eni
            {
                match id {
                    Resource::Address(_) => waiting.entry(eni.clone()).or_default().push(id.clone()),
                    Resource::Route(_) | Resource::ElasticIp(_) => {
                        single.push((self.is_repeated(id, resource), due, id.clone()));
                    }
                }
            }
        }
        let mut wants_local_read = false;
        for (eni, ids) in waiting {
            wants_local_read |= self.send_addresses(now, eni, ids);
        }
        // First attempts before retries, what has waited longest first, and routes and Elastic IPs by turns.
        single.sort();
        let (routes, elastic_ips): (Vec<_>, Vec<_>) =
            single.into_iter().partition(|(_, _, id)| id.kind() == Kind::Route);
        let (mut routes, mut elastic_ips) = (routes.into_iter(), elastic_ips.into_iter());
        let both = !routes.as_slice().is_empty() && !elastic_ips.as_slice().is_empty();
        loop {
            let turn = [routes.next(), elastic_ips.next()];
            if turn.iter().all(Option::is_none) {
                break;
            }
            for (_, _, id) in turn.into_iter().flatten() {
                wants_local_read |= self.send_single(now, id, both);
            }
        }
        if wants_local_read && self.local_read_requested.is_none_or(|asked| asked + LOCAL_READ_TIMEOUT <= now) {
            self.local_read_requested = Some(now);
            self.actions.push(Action::ReadLocalAddresses);
        }
    }

    /// Claims addresses of one ENI that are due. Returns whether none could be claimed because the local addresses have to be
    /// read first.
    fn send_addresses(&mut self, now: BootInstant, eni: EniId, ids: Vec<Resource>) -> bool {
        let channel = Channel::Addresses(eni.clone());
        let in_flight: Vec<&ClaimInFlight> = self.claims.values().filter(|c| c.channel == channel).collect();
        let fresh = in_flight.len() >= MAX_CLAIMS_PER_ENI;
        if !self.may_send(now, &channel, &in_flight) {
            return false;
        }
        let goes = |id: &Resource| {
            self.resources
                .get(id)
                .is_some_and(|r| self.may_go(now, id, r) <= Some(now) && (!fresh || is_held_up(now, id, r, &in_flight)))
        };
        let (ids, held_back): (Vec<Resource>, Vec<Resource>) = ids.into_iter().partition(goes);
        let (ready, unready): (Vec<Resource>, Vec<Resource>) = ids.into_iter().partition(|id| self.is_ready(now, id));
        let mut batch = self.batch(&ready);
        let is_free = |id: &Resource| self.resources.get(id).is_some_and(ResourceState::is_free);
        if batch.iter().any(is_free) {
            batch.extend(held_back.into_iter().filter(|id| is_free(id) && self.is_ready(now, id)));
        }
        if batch.iter().filter_map(|id| self.resources.get(id)).any(|r| r.attempt.failed > 0 && r.is_free()) {
            batch.extend(self.piggybacked(now, &eni));
        }
        if batch.is_empty() {
            return unready.iter().any(|id| self.needs_local_read(now, id));
        }
        let addresses = batch.iter().filter_map(Resource::address).collect();
        self.send_claim(now, ClaimRequest::Addresses { eni, addresses });
        false
    }

    /// Claims a route or an Elastic IP that is due. `both`: so are some of the other kind, for which it leaves room. Returns
    /// whether it could not be claimed because the local addresses have to be read first.
    fn send_single(&mut self, now: BootInstant, id: Resource, both: bool) -> bool {
        let Some(resource) = self.resources.get(&id) else {
            return false;
        };
        let is_outdated = |claim: &ClaimInFlight| {
            resource.is_first_attempt() && resource.asked.is_some_and(|asked| claim.began < asked)
        };
        let in_flight = self.claims.values().filter(|claim| claim.request.kind() != Kind::Address);
        let (outdated, current): (Vec<&ClaimInFlight>, Vec<&ClaimInFlight>) = in_flight.partition(|c| is_outdated(c));
        let of_kind = current.iter().filter(|claim| claim.request.kind() == id.kind()).count();
        let has_room = current.len() < MAX_SINGLE_CLAIMS
            && (!both || of_kind < MAX_SINGLE_CLAIMS - OTHER_KIND_RESERVE)
            && current.len() + outdated.len() < MAX_SINGLE_CLAIMS_WITH_OUTDATED
            && !current.iter().any(|claim| claim.resources.contains(&id));
        if !has_room || self.may_go(now, &id, resource) > Some(now) || !self.may_be_taken(now, resource) {
            return false;
        }
        if !self.is_ready(now, &id) {
            return self.needs_local_read(now, &id);
        }
        let Some(eni) = resource.eni.clone() else {
            return false;
        };
        let private_address = resource.private_address;
        match id {
            Resource::Address(_) => {}
            Resource::Route(route) => self.send_claim(now, ClaimRequest::Route { route, eni }),
            Resource::ElasticIp(allocation) => {
                self.send_claim(now, ClaimRequest::ElasticIp { allocation, eni, private_address });
            }
        }
        false
    }

    /// Whether a route or an Elastic IP may be claimed, by what reads have shown; an Elastic IP also if none has come for a while.
    pub(super) fn may_be_taken(&self, now: BootInstant, resource: &ResourceState) -> bool {
        let has_waited =
            || resource.not_takeable().is_none() && resource.awaits_read_until().is_some_and(|until| until <= now);
        !self.awaits_address_claim(resource) && (!resource.awaits_read() || has_waited())
    }

    /// Whether an Elastic IP belongs on an address that this router is claiming: EC2 refuses the association until the address
    /// is on the ENI, and an Elastic IP that is associated with the address moves along with it.
    fn awaits_address_claim(&self, resource: &ResourceState) -> bool {
        let address = resource.private_address.and_then(|address| self.resources.get(&Resource::Address(address)));
        address.is_some_and(|address| {
            address.eni == resource.eni && matches!(address.phase, Phase::Pending { .. } | Phase::InFlight(_))
        })
    }

    fn may_send(&self, now: BootInstant, channel: &Channel, in_flight: &[&ClaimInFlight]) -> bool {
        in_flight.len() < MAX_CLAIMS_PER_ENI + EXTRA_FRESH_CLAIMS
            && in_flight.iter().all(|claim| claim.began + backoff::MIN_CLAIM_GAP <= now)
            && self.channels.get(channel).is_none_or(|s| s.rate_limiter.next(now) <= now)
    }

    /// The earliest time from `now` on at which the channel's rate limit and the spacing of first attempts allow a claim of
    /// the resource.
    pub(super) fn may_go(&self, now: BootInstant, id: &Resource, resource: &ResourceState) -> Option<BootInstant> {
        let Some(channel) = resource.eni.as_ref().and_then(|eni| self.channels.get(&Channel::of(id.kind(), eni)))
        else {
            return Some(now);
        };
        let is_spaced = resource.is_first_attempt() && id.kind() == Kind::Address;
        let spaced = is_spaced.then(|| channel.first_attempts.next(now, &channel.rate_limiter));
        self.allowed_at(now, id, resource).max(spaced)
    }

    /// When the channel's rate limit allows a claim of the resource.
    pub(in crate::claim) fn allowed_at(
        &self,
        now: BootInstant,
        id: &Resource,
        resource: &ResourceState,
    ) -> Option<BootInstant> {
        let rate_limiter = &self.channels.get(&Channel::of(id.kind(), resource.eni.as_ref()?))?.rate_limiter;
        Some(if self.is_repeated(id, resource) { rate_limiter.next_repeated(now) } else { rate_limiter.next(now) })
    }

    /// Whether the resource has failed more than once. For a route or an Elastic IP, an acknowledged claim of the same kind
    /// since then shows that EC2 has recovered.
    fn is_repeated(&self, id: &Resource, resource: &ResourceState) -> bool {
        let acknowledged = || self.channels.get(&Channel::of(id.kind(), resource.eni.as_ref()?))?.acknowledged;
        let failed = resource.last_failure.as_ref().map(|(when, _)| *when);
        resource.is_repeated() && (id.kind() == Kind::Address || acknowledged() <= failed)
    }

    /// Whether only a read of the local addresses is missing for the claim.
    fn needs_local_read(&self, now: BootInstant, id: &Resource) -> bool {
        self.resources.get(id).is_some_and(|r| self.has_liveness(now, r))
    }

    /// Whether the claim's precondition is met.
    pub(super) fn is_ready(&self, now: BootInstant, id: &Resource) -> bool {
        self.resources.get(id).is_some_and(|r| {
            r.attempt.precondition.as_ref().is_none_or(|precondition| {
                self.has_liveness(now, r)
                    && precondition.local_read.is_some_and(|local_read| local_read.until(now) <= LOCAL_READ_MAX_AGE)
            })
        })
    }

    /// The addresses of one request: all that made no batch fail; else one bisect group; else the isolated address that has
    /// waited longest.
    pub(super) fn batch(&self, ready: &[Resource]) -> Vec<Resource> {
        let of = |id: &Resource| self.resources.get(id);
        let free: Vec<Resource> =
            ready.iter().filter(|id| of(id).is_some_and(ResourceState::is_free)).cloned().collect();
        if !free.is_empty() {
            return free;
        }
        if let Some(bisect_group) =
            ready.iter().find_map(|id| of(id).filter(|r| r.rejection.isolated.is_none())?.attempt.bisect_group)
        {
            return ready
                .iter()
                .filter(|id| {
                    of(id)
                        .is_some_and(|r| r.rejection.isolated.is_none() && r.attempt.bisect_group == Some(bisect_group))
                })
                .cloned()
                .collect();
        }
        let longest = ready.iter().min_by_key(|id| of(id).and_then(|r| r.phase.due()));
        longest.cloned().into_iter().collect()
    }

    /// Retries that are not due yet and share a due one's request, so that addresses that failed one by one are not retried one
    /// by one.
    pub(super) fn piggybacked(&self, now: BootInstant, eni: &EniId) -> Vec<Resource> {
        let piggybacks = |r: &ResourceState| {
            matches!(r.phase, Phase::Pending { due } if due > now)
                && r.eni.as_ref() == Some(eni)
                && r.may_piggyback()
                && self.liveness.is_some_and(|liveness| liveness.until(now) < liveness_max_age(self.interval(&r.group)))
        };
        let addresses = self.resources.iter().filter(|(id, _)| id.kind() == Kind::Address);
        addresses.filter(|(_, r)| piggybacks(r)).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn send_claim(&mut self, now: BootInstant, request: ClaimRequest) {
        let id = ClaimId(self.next_id());
        let resources = request.resources();
        let has_first = resources.iter().filter_map(|id| self.resources.get(id)).any(ResourceState::is_first_attempt);
        let is_repeated = resources
            .iter()
            .filter_map(|id| Some((id, self.resources.get(id)?)))
            .all(|(id, r)| self.is_repeated(id, r));
        let notified = |id: &Resource| Some((id.clone(), self.resources.get(id)?.attempt.notified?));
        let notified = resources.iter().filter_map(notified).collect();
        for resource in &resources {
            if let Some(resource) = self.resources.get_mut(resource) {
                resource.phase = Phase::InFlight(id);
                if resource.attempt.precondition.is_some() {
                    resource.flap_damping.reclaimed = Some(now);
                }
                resource.last_claim = Some(LastClaim { eni: request.eni().clone(), began: now, answer: None });
                if let Some(precondition) = &mut resource.attempt.precondition {
                    precondition.local_read = None;
                }
            }
        }
        let request_timeout = self.config.global.request_timeout.duration();
        let channel = Channel::of(request.kind(), request.eni());
        let state = self.channel(&channel);
        state.rate_limiter.take(now, is_repeated);
        if has_first {
            state.first_attempts.take(now);
        }
        let timeout = backoff::attempt_timeout(request_timeout, state.timeouts);
        self.claims.insert(id, ClaimInFlight { channel, request: request.clone(), began: now, resources });
        self.actions.push(Action::Claim { id, request, timeout, notified });
    }

    /// Claims addresses whose owner cannot be read because the VPC is unknown, although the ENI is known.
    pub(super) fn adopt_unread(&mut self, now: BootInstant) {
        let is_blind = |r: &ResourceState| {
            self.interface_enis.get(&r.planned.interface).is_some_and(|b| b.eni.is_none() && b.error.is_some())
        };
        let unread: Vec<Resource> = self
            .resources
            .iter()
            .filter(|(id, r)| {
                id.kind() == Kind::Address
                    && matches!(r.phase, Phase::CheckOwner { .. })
                    && r.eni.is_some()
                    && is_blind(r)
            })
            .map(|(id, _)| id.clone())
            .collect();
        unread.iter().for_each(|id| self.claim_unread(now, id));
    }

    pub(super) fn send_reads(&mut self, now: BootInstant) {
        self.verify_together(now);
        for kind in Kind::ALL {
            if self.reads_kind(kind) {
                self.send_reads_of(now, kind);
            }
        }
    }

    /// Has the owners of all kinds read at the same time: each read then keeps a connection warm for the claims of its kind.
    fn verify_together(&mut self, now: BootInstant) {
        let together = now + self.config.global.verify_interval.duration() / 2;
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| self.reads_kind(*kind)).collect();
        if kinds.iter().any(|kind| self.verifications[*kind].due.is_some_and(|due| due <= now)) {
            for kind in kinds {
                let verification = &mut self.verifications[kind];
                if verification.throttled == 0 && verification.due.is_some_and(|due| due <= together) {
                    verification.request(now);
                }
            }
        }
    }

    /// Whether owners of that kind are read: addresses always, because the peers' owners are read with them.
    pub(super) fn reads_kind(&self, kind: Kind) -> bool {
        match kind {
            Kind::Address => !self.resources.is_empty(),
            Kind::Route | Kind::ElasticIp => self.resources.keys().any(|id| id.kind() == kind),
        }
    }

    /// When the next read that the resource has scheduled is sent.
    pub(super) fn next_read(&self, id: &Resource, resource: &ResourceState) -> Option<BootInstant> {
        let due = resource.checks.reads.first().copied()?;
        let only_verifies = matches!(resource.phase, Phase::Assigned { mismatch: None, .. });
        let last = self.verifications[id.kind()].began.filter(|_| only_verifies && id.kind() != Kind::Address);
        Some(last.map_or(due, |last| due.max(last + MIN_VERIFICATION_GAP)))
    }

    fn send_reads_of(&mut self, now: BootInstant, kind: Kind) {
        if self.reads.values().filter(|read| read.kind == kind).count() >= MAX_READS {
            return;
        }
        if self.is_master() {
            // The interval of a standby may be longer.
            let interval = self.config.global.verify_interval.duration();
            let verification = &mut self.verifications[kind];
            verification.due = verification.due.map(|due| due.min(now + interval));
        }
        let is_verifying = self.reads.values().any(|r| r.kind == kind && r.is_periodic);
        let is_periodic = self.verifications[kind].due.is_some_and(|due| due <= now) && !is_verifying;
        let together = now + READ_BATCH_WINDOW;
        let mut of_kind = self.resources.iter().filter(|(id, _)| id.kind() == kind);
        if !is_periodic && !of_kind.any(|(id, r)| self.next_read(id, r).is_some_and(|due| due <= now)) {
            return;
        }
        self.verifications[kind].began = Some(now);
        let primaries: BTreeMap<EniId, Ipv4Addr> = match kind {
            Kind::Address if is_periodic => self.primaries(),
            Kind::Address | Kind::Route | Kind::ElasticIp => BTreeMap::new(),
        };
        let mut requests: BTreeMap<Option<VpcId>, (BTreeSet<Resource>, BTreeSet<EniId>)> = BTreeMap::new();
        for (id, resource) in &mut self.resources {
            let group = self.groups.get(&resource.group);
            let is_due = resource.checks.reads.first().is_some_and(|due| *due <= together);
            let is_enabled = group.is_some_and(|g| !g.disabled);
            if !(is_due || is_periodic && is_enabled) {
                continue;
            }
            // A private address is unique only within its VPC.
            let vpc = match kind {
                Kind::Address => {
                    let eni = self.interface_enis.get(&resource.planned.interface).and_then(|b| b.eni.as_ref());
                    let Some(eni) = eni else {
                        continue;
                    };
                    Some(eni.vpc.clone())
                }
                Kind::Route | Kind::ElasticIp => None,
            };
            if id.kind() == kind {
                resource.checks.reads.forget_until(together);
                requests.entry(vpc.clone()).or_default().0.insert(id.clone());
            }
            // Include the peers in every read of addresses until one of their owners is known. For other kinds of resource, they
            // are read with the periodic verification.
            if kind == Kind::Address
                && let Some(group) = group
                && (is_periodic || id.kind() == kind && !group.peers.iter().any(|peer| self.peers.contains_key(peer)))
            {
                requests.entry(vpc.clone()).or_default().0.extend(group.peers.iter().copied().map(Resource::Address));
            }
            // A standby's own ENI shows in the answer by its primary address alone.
            if let Some(eni) = &resource.eni
                && let Some(primary) = primaries.get(eni)
            {
                let (resources, enis) = requests.entry(vpc).or_default();
                resources.insert((*primary).into());
                enis.insert(eni.clone());
            }
        }
        requests.retain(|_, (resources, _)| !resources.is_empty());
        if is_periodic {
            self.forget_channels(now);
            // Its end sets it again.
            self.verifications[kind].due = requests.is_empty().then(|| now + self.verification_interval(kind));
            if kind == Kind::Address {
                for interface_eni in self.interface_enis.values_mut().filter(|b| b.eni.is_some()) {
                    interface_eni.next = Some(now);
                }
            }
        }
        for (vpc, (resources, enis)) in requests {
            let id = ReadId(self.next_id());
            let resources: Vec<Resource> = resources.into_iter().collect();
            let enis: Vec<EniId> = enis.into_iter().collect();
            let timeout = self.config.global.request_timeout.duration();
            let read = ReadInFlight { began: now, kind, resources: resources.clone(), enis: enis.clone(), is_periodic };
            self.reads.insert(id, read);
            self.actions.push(Action::Read { id, request: read_request(vpc, resources, enis), timeout });
        }
    }

    /// The primary addresses of the ENIs that get resources, as far as they are known.
    fn primaries(&self) -> BTreeMap<EniId, Ipv4Addr> {
        let targets = self.resources.values().filter_map(|resource| Some((resource.eni.as_ref()?, resource)));
        targets.filter_map(|(eni, resource)| Some((eni.clone(), self.primary_of(eni, resource)?))).collect()
    }

    /// Removes the state of channels without resources, unless a claim is in flight or their rate limit is in use.
    fn forget_channels(&mut self, now: BootInstant) {
        let resources = self.resources.iter();
        let used: BTreeSet<Channel> =
            resources.filter_map(|(id, r)| Some(Channel::of(id.kind(), r.eni.as_ref()?))).collect();
        let in_flight: BTreeSet<&Channel> = self.claims.values().map(|c| &c.channel).collect();
        self.channels.retain(|channel, state| {
            used.contains(channel) || in_flight.contains(channel) || !state.rate_limiter.is_full(now)
        });
    }

    fn is_master(&self) -> bool {
        self.groups.values().any(|g| g.acts() && g.state.vrrp() == VrrpState::Master)
    }

    pub(super) fn verification_interval(&mut self, kind: Kind) -> Duration {
        let interval = self.config.global.verify_interval.duration();
        if self.is_master() {
            return interval;
        }
        let interval = interval.max(MIN_STANDBY_INTERVAL) * (1 << self.verifications[kind].throttled);
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

/// The call that reads resources of one kind.
fn read_request(vpc: Option<VpcId>, resources: Vec<Resource>, enis: Vec<EniId>) -> ReadRequest {
    let (mut addresses, mut routes, mut allocations) = (Vec::new(), Vec::new(), Vec::new());
    for resource in resources {
        match resource {
            Resource::Address(address) => addresses.push(address),
            Resource::Route(route) => routes.push(route),
            Resource::ElasticIp(allocation) => allocations.push(allocation),
        }
    }
    match vpc {
        Some(vpc) => ReadRequest::Addresses { vpc, addresses, enis },
        None if routes.is_empty() => ReadRequest::ElasticIps(allocations),
        None => ReadRequest::Routes(routes),
    }
}

/// Whether claims in flight delay the first attempt of the address: all of them began before the notify event, and one of
/// them is for the address itself, or none was answered for a while.
fn is_held_up(now: BootInstant, id: &Resource, address: &ResourceState, in_flight: &[&ClaimInFlight]) -> bool {
    let is_of_before = |claim: &&ClaimInFlight| address.asked.is_some_and(|asked| claim.began <= asked);
    address.is_first_attempt()
        && in_flight.iter().all(is_of_before)
        && (in_flight.iter().any(|claim| claim.resources.contains(id))
            || in_flight.iter().all(|claim| claim.began + backoff::MAX_CLAIM_GAP <= now))
}
