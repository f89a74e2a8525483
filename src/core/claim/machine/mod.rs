//! The claim state machine: from events to actions.

mod dry_runs;
mod inference;
mod inputs;
mod inspection;
mod network;
mod responses;
mod scheduler;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use fastrand::Rng;

use self::inference::{MISPLACED_AFTER, liveness_max_age, liveness_timeout};
use self::inspection::InspectionSchedule;
use self::network::NetworkReads;
use self::scheduler::LOCAL_READ_TIMEOUT;
use super::event::{Action, Cause, ClaimId, ClaimRequest, DryRunId, Event, LogEvent, PutBy, ReadId, RestoredState};
use super::group::{Group, GroupState};
use super::local_address::LocalAddress;
use super::obstacles::DependentPath;
use super::readiness::{Attachments, DescribedEni, UnseenEnis};
use super::reason::{Obstacle, RequestRefusal};
use super::resource::{Phase, ResourceState};
use super::{BootInstant, backoff};
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::ec2::{AddressLimit, CallError, Eni, Owner};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName};
use crate::model::path::LocalNetwork;
use crate::model::resource::{Kind, Resource};
use crate::model::vrrp::VrrpState;

/// Without a writer of the FIFO for this long, keepalived is gone.
const WRITER_GONE_TIMEOUT: Duration = Duration::from_secs(2);
/// New groups take effect after this time even if no reload of keepalived was seen.
const NEW_GROUPS_TIMEOUT: Duration = Duration::from_secs(2);
/// A timer that is this late means that this router was suspended or stalled.
const STALL_THRESHOLD: Duration = Duration::from_secs(2);
/// The longest time between timers while a group is configured, so that every stall is detected.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// The claim state machine of one router. It has no clock, no socket and no task: each event comes with the current time, and
/// the result is a list of actions.
///
/// docs/internals/claim-machine.md has the state diagram of a resource's phases.
#[derive(Debug)]
pub struct Machine {
    pub(super) config: Config,
    pub(super) keepalived: Groups,
    /// Groups that take effect with keepalived's next reload, and when they were announced.
    coming: Option<(Groups, BootInstant)>,
    pub(super) groups: BTreeMap<GroupName, Group>,
    /// When the pauses of groups end, including groups that do not exist now.
    pauses: BTreeMap<GroupName, BootInstant>,
    /// The virtual addresses that show whether a group is MASTER.
    pub(super) evidence: BTreeMap<Ipv4Addr, LocalAddress>,
    pub(super) resources: BTreeMap<Resource, ResourceState>,
    pub(super) interface_enis: BTreeMap<InterfaceName, InterfaceEni>,
    channels: BTreeMap<Channel, ChannelState>,
    claims: BTreeMap<ClaimId, ClaimInFlight>,
    reads: BTreeMap<ReadId, ReadInFlight>,
    /// The dry runs in flight.
    dry_runs: BTreeMap<DryRunId, Resource>,
    last_dry_run: Option<BootInstant>,
    /// The owners of the peers' addresses: they distinguish the other router from a third party.
    pub(super) peers: BTreeMap<Ipv4Addr, Owner>,
    /// The instances that the ENIs are attached to, as far as reads have shown.
    pub(super) attachments: Attachments,
    /// The ENIs that get resources, as the last regular read, or an inspection, has described them.
    pub(super) enis: BTreeMap<EniId, DescribedEni>,
    /// Those that the last read which was to describe them did not show.
    pub(super) unseen: UnseenEnis,
    /// Those to which EC2 does not permit to assign addresses, as proofs have shown.
    pub(super) denials: BTreeMap<EniId, CallError>,
    /// How many addresses each of them can have, once EC2 has answered. It cannot change while the instance runs.
    pub(super) address_limit: Option<AddressLimit>,
    pub(super) inspection: InspectionSchedule,
    /// What the kernel has shown of this router's network last.
    pub(super) network: LocalNetwork,
    /// By that, and by the groups that keepalived runs.
    pub(super) dependent_path: Option<DependentPath>,
    network_reads: NetworkReads,
    /// The id of this instance, once it is known.
    pub(super) instance: Option<InstanceId>,
    /// The state from before the agent started, for resources that are not configured yet.
    restored: Vec<RestoredState>,
    local: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
    /// When each local address was added, if the FIFO had a writer then.
    added: BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, BootInstant>>,
    /// Which kind of process added each local address, as far as that is known.
    put_by: BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>>,
    local_read_requested: Option<BootInstant>,
    /// Since when the FIFO has no writer.
    pub(super) writer_gone: Option<BootInstant>,
    /// keepalived was last seen active at this time, or later.
    pub(super) liveness: Option<BootInstant>,
    /// When a stall was last detected.
    stalled: Option<BootInstant>,
    pub(super) verifications: Verifications,
    armed: Option<BootInstant>,
    last_id: u64,
    rng: Rng,
    actions: Vec<Action>,
}

/// The ENI behind an interface.
#[derive(Debug, Default)]
pub(super) struct InterfaceEni {
    pub eni: Option<Eni>,
    pub error: Option<CallError>,
    in_flight: bool,
    failed: u32,
    next: Option<BootInstant>,
}

/// Claims that share a rate limit and the count of time-outs: those of addresses for one ENI, because each ENI has its own
/// requests; all of routes; all of Elastic IPs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    Addresses(EniId),
    Routes,
    ElasticIps,
}

impl Channel {
    /// The channel of claims of this kind for an ENI.
    fn of(kind: Kind, eni: &EniId) -> Self {
        match kind {
            Kind::Address => Self::Addresses(eni.clone()),
            Kind::Route => Self::Routes,
            Kind::ElasticIp => Self::ElasticIps,
        }
    }

    fn rate_limiter(&self) -> backoff::RateLimiter {
        match self {
            Self::Addresses(_) => backoff::RateLimiter::of_addresses(),
            Self::Routes | Self::ElasticIps => backoff::RateLimiter::of_single_calls(),
        }
    }
}

/// The state of claims in one channel.
#[derive(Debug)]
struct ChannelState {
    rate_limiter: backoff::RateLimiter,
    first_attempts: backoff::Spacing,
    timeouts: u32,
    /// When a timeout last counted: parallel claims that time out together count once.
    timed_out: Option<BootInstant>,
    /// When a claim was last acknowledged.
    acknowledged: Option<BootInstant>,
    /// The last error allowed one more attempt: the next one of this kind counts as permanent.
    second_chance: bool,
}

impl ChannelState {
    fn new(channel: &Channel) -> Self {
        Self {
            rate_limiter: channel.rate_limiter(),
            first_attempts: backoff::Spacing::default(),
            timeouts: 0,
            timed_out: None,
            acknowledged: None,
            second_chance: false,
        }
    }
}

#[derive(Debug)]
struct ClaimInFlight {
    channel: Channel,
    request: ClaimRequest,
    began: BootInstant,
    resources: Vec<Resource>,
}

#[derive(Debug)]
struct ReadInFlight {
    began: BootInstant,
    kind: Kind,
    resources: Vec<Resource>,
    /// The ENIs that it describes.
    enis: Vec<EniId>,
    is_periodic: bool,
}

/// The periodic verification of all resources of one kind.
#[derive(Debug, Default)]
pub(super) struct PeriodicVerification {
    /// Absent while a read is in flight and no other one was requested since.
    due: Option<BootInstant>,
    throttled: u32,
    /// When the last read began, a periodic one or another.
    began: Option<BootInstant>,
    /// When the last completed read began.
    ended: Option<BootInstant>,
    /// When a read last succeeded.
    pub success: Option<BootInstant>,
    /// The failure of the last read, if any.
    pub error: Option<CallError>,
}

impl PeriodicVerification {
    /// Has the next read sent at this time, unless it is due earlier.
    fn request(&mut self, at: BootInstant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// The periodic verification of each kind. One that is refused or throttled does not hold back another.
#[derive(Debug, Default)]
pub(super) struct Verifications([PeriodicVerification; Kind::ALL.len()]);

impl Verifications {
    /// Schedules the next read of every kind at this time, unless it is due earlier.
    fn request(&mut self, at: BootInstant) {
        self.0.iter_mut().for_each(|verification| verification.request(at));
    }
}

impl Index<Kind> for Verifications {
    type Output = PeriodicVerification;

    fn index(&self, kind: Kind) -> &PeriodicVerification {
        &self.0[kind as usize]
    }
}

impl IndexMut<Kind> for Verifications {
    fn index_mut(&mut self, kind: Kind) -> &mut PeriodicVerification {
        &mut self.0[kind as usize]
    }
}

/// Whether an obstacle is the one that was logged. EC2 names the resource in the message of a refused dry run: what is over for
/// one of many is no news. Nor is another number of addresses on an ENI that is still full, or another address of an endpoint.
fn is_same_obstacle(logged: Option<&Obstacle>, now: Option<&Obstacle>) -> bool {
    match (logged, now) {
        (
            Some(Obstacle::DryRunRefused { resource, error }),
            Some(Obstacle::DryRunRefused { resource: other, error: new }),
        ) => resource.kind() == other.kind() && error.code() == new.code(),
        (Some(Obstacle::NoRoom(full)), Some(Obstacle::NoRoom(now))) => full.eni == now.eni,
        (Some(Obstacle::DependentPath(path)), Some(Obstacle::DependentPath(now))) => {
            (path.service, path.on) == (now.service, now.on)
        }
        (logged, now) => logged == now,
    }
}

impl Machine {
    /// A machine without groups. `seed` determines the jitter.
    pub fn new(now: BootInstant, seed: u64) -> Self {
        Self {
            config: Config::default(),
            keepalived: Groups::default(),
            coming: None,
            groups: BTreeMap::new(),
            pauses: BTreeMap::new(),
            evidence: BTreeMap::new(),
            resources: BTreeMap::new(),
            interface_enis: BTreeMap::new(),
            channels: BTreeMap::new(),
            claims: BTreeMap::new(),
            reads: BTreeMap::new(),
            dry_runs: BTreeMap::new(),
            last_dry_run: None,
            peers: BTreeMap::new(),
            attachments: Attachments::new(),
            enis: BTreeMap::new(),
            unseen: UnseenEnis::new(),
            denials: BTreeMap::new(),
            address_limit: None,
            inspection: InspectionSchedule::default(),
            network: LocalNetwork::default(),
            dependent_path: None,
            network_reads: NetworkReads::default(),
            instance: None,
            restored: Vec::new(),
            local: BTreeMap::new(),
            added: BTreeMap::new(),
            put_by: BTreeMap::new(),
            local_read_requested: None,
            writer_gone: Some(now),
            liveness: None,
            stalled: None,
            verifications: Verifications::default(),
            armed: None,
            last_id: 0,
            rng: Rng::with_seed(seed),
            actions: Vec::new(),
        }
    }

    /// Handles an event at `now`, which never goes back, and returns what to do.
    pub fn handle(&mut self, now: BootInstant, event: Event) -> Vec<Action> {
        let stall_detected = self.armed.is_some_and(|armed| armed + STALL_THRESHOLD < now);
        if stall_detected {
            self.stall_detected(now);
        }
        match event {
            Event::Restored(restored) => self.restored = restored,
            Event::Instance(instance) => {
                self.instance = Some(instance);
                self.log_attachments();
            }
            Event::Config(config) => self.configure(now, config),
            Event::Groups(groups) => self.announce(now, groups),
            // Notify events that were written before or during a stall are outdated.
            Event::Notify(events) if stall_detected => self.backlog(now, &events, false),
            Event::Notify(events) => self.notify_events(now, &events),
            Event::Backlog { lines, was_full } => self.backlog(now, &lines, was_full),
            Event::FifoFull => self.invalidate_all(now, Cause::FifoFull),
            Event::Hup => self.count_coming(now),
            Event::Writer(there) => self.writer(now, there),
            Event::LocalAddresses { addresses, requested } => self.local(now, addresses, requested),
            Event::PutBy(put_by) => self.put_by = put_by,
            Event::Network(network) => self.network_read(network),
            Event::Liveness { after } => self.active(now, after),
            Event::Inactive { since } => self.inactive(now, since),
            Event::Resolved { interface, eni } => self.resolved(now, &interface, eni),
            Event::Claimed { id, result } => self.claimed(now, id, result),
            Event::Read { id, result } => self.read(now, id, result),
            Event::DryRun { id, result } => self.dry_run_ended(now, id, &result),
            Event::Proved(eni) => self.permission_proved(&eni),
            Event::DryRunByOperator { request, result } => self.dry_run_by_operator(now, &request, &result),
            Event::Denials(denials) => self.denials = denials,
            Event::Inspected(inspection) => self.inspected(now, inspection),
            Event::Credentials(change) => self.credentials_changed(now, change),
            Event::Pause { group, until } => self.pause(now, &group, until),
            Event::Resume(group) => self.resume(now, &group),
            Event::Force(group) => self.force(now, &group),
            Event::ReadNow => self.verifications.request(now),
            Event::Tick => {}
        }
        self.settle(now);
        let heartbeat = (!self.groups.is_empty()).then_some(now + HEARTBEAT_INTERVAL);
        self.armed = self.next_deadline(now).into_iter().chain(heartbeat).min();
        mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, unless another event comes first.
    pub fn deadline(&self) -> Option<BootInstant> {
        self.armed
    }

    /// The id of this instance, once it is known.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// Why [`Event::Force`] would have no effect for a group.
    pub fn refuses_force(&self, group: &GroupName) -> Option<RequestRefusal> {
        let Some(state) = self.groups.get(group) else {
            return Some(RequestRefusal::NoNode);
        };
        if state.paused_until.is_some() {
            return Some(RequestRefusal::Paused);
        }
        if state.disabled {
            return Some(RequestRefusal::Disabled);
        }
        if let Some(problem) = state.problems.first().filter(|_| self.resources_of(group).next().is_none()) {
            return Some(RequestRefusal::NoAddress(problem.clone()));
        }
        match &state.state {
            GroupState::Known { vrrp: VrrpState::Master, .. } => None,
            GroupState::Known { vrrp, .. } => Some(RequestRefusal::NotMaster(*vrrp)),
            GroupState::Unknown { why, .. } => Some(RequestRefusal::VrrpUnknown(*why)),
        }
    }

    /// Whether an operator has paused the group.
    pub fn is_paused(&self, group: &GroupName) -> bool {
        self.groups.get(group).is_some_and(|g| g.paused_until.is_some())
    }

    /// Whether the group exists.
    pub fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// Whether a periodic verification of everything that began at `since` or later has ended.
    pub fn has_read_since(&self, since: BootInstant) -> bool {
        self.kinds_to_read().all(|kind| self.verifications[kind].ended.is_some_and(|began| began >= since))
    }

    /// The kinds that have owners to read.
    pub(super) fn kinds_to_read(&self) -> impl Iterator<Item = Kind> {
        let enabled = self.resources.iter().filter(|(_, state)| self.is_enabled(state));
        let kinds: BTreeSet<Kind> = enabled.map(|(resource, _)| resource.kind()).collect();
        kinds.into_iter()
    }

    /// Whether a claim that began at `since` or later has ended for every resource of the group. An Elastic IP needs
    /// none if a read since then has shown the right association.
    pub fn has_responses(&self, group: &GroupName, since: BootInstant) -> bool {
        self.resources_of(group).all(|state| {
            state.last_claim.as_ref().is_some_and(|claim| claim.began >= since && claim.answer.is_some())
                || state.checks.verified_since.is_some_and(|verified| verified >= since)
        })
    }

    /// Whether a claim of the resource began at `since` or later.
    pub fn claimed_since(&self, resource: &Resource, since: BootInstant) -> bool {
        self.resources.get(resource).and_then(|state| state.last_claim.as_ref()).is_some_and(|c| c.began >= since)
    }

    fn resources_of<'a>(&'a self, group: &'a GroupName) -> impl Iterator<Item = &'a ResourceState> {
        self.resources.values().filter(move |state| state.group == *group)
    }

    /// The state of claims in a channel.
    fn channel(&mut self, channel: &Channel) -> &mut ChannelState {
        self.channels.entry(channel.clone()).or_insert_with(|| ChannelState::new(channel))
    }

    fn settle(&mut self, now: BootInstant) {
        if self.writer_gone.is_some_and(|since| since + WRITER_GONE_TIMEOUT <= now) {
            self.invalidate_all(now, Cause::NoWriter);
        }
        if self.coming.as_ref().is_some_and(|(_, since)| *since + NEW_GROUPS_TIMEOUT <= now) {
            self.count_coming(now);
        }
        let over: Vec<GroupName> =
            self.pauses.iter().filter(|(_, until)| **until <= now).map(|(name, _)| name.clone()).collect();
        over.iter().for_each(|name| self.resume(now, name));
        self.require_liveness(now);
        self.invalidate_standbys(now);
        self.infer_states(now);
        self.end_contested(now);
        self.adopt_unread(now);
        self.send_claims(now);
        self.send_reads(now);
        self.send_dry_runs(now);
        self.send_inspection(now);
        self.send_network_read(now);
        self.send_resolves(now);
        self.check_placement(now);
        self.check_readiness();
    }

    fn check_readiness(&mut self) {
        let mut changes = Vec::new();
        for (name, group) in &self.groups {
            if group.state.vrrp() != VrrpState::Backup || !group.acts() {
                continue;
            }
            let Some(obstacle) = self.obstacle(group) else {
                continue;
            };
            if !group.obstacle.as_ref().is_some_and(|logged| is_same_obstacle(logged.as_ref(), obstacle.as_ref())) {
                changes.push((name.clone(), obstacle));
            }
        }
        for (name, obstacle) in changes {
            if let Some(group) = self.groups.get_mut(&name) {
                // Log "ready" only after "not ready".
                let was_bad = matches!(group.obstacle, Some(Some(_)));
                group.obstacle = Some(obstacle.clone());
                if was_bad || obstacle.is_some() {
                    self.log(LogEvent::Readiness { group: name, obstacle });
                }
            }
        }
    }

    pub(super) fn log(&mut self, log: LogEvent) {
        self.actions.push(Action::Log(log));
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The next time at which something may be due.
    fn next_deadline(&self, now: BootInstant) -> Option<BootInstant> {
        let verify_interval = self.config.global.verify_interval.duration();
        let resources = self.resources.iter().flat_map(|(resource, r)| {
            let interval = self.interval(&r.group);
            let liveness_ends = self.liveness.map(|liveness| liveness + liveness_max_age(interval));
            let wanted = match r.phase {
                Phase::Pending { due } if due > now => [Some(due), None, None, None],
                Phase::Pending { due } => [
                    Some(due + liveness_timeout(interval)),
                    liveness_ends,
                    self.may_go(now, resource, r),
                    r.awaits_read_until(),
                ],
                _ => [None; 4],
            };
            let flap_damping = r.checks.verified_since.and_then(|since| r.flap_damping.ends(since, verify_interval));
            wanted.into_iter().chain([self.next_read(resource, r), flap_damping]).flatten()
        });
        let has_due_claim = self.resources.values().any(|r| matches!(r.phase, Phase::Pending { due } if due <= now));
        let in_flight = self.claims.values().filter(|_| has_due_claim).map(|c| c.began);
        let next_claim = in_flight.flat_map(|began| [began + backoff::MIN_CLAIM_GAP, began + backoff::MAX_CLAIM_GAP]);
        let pauses = self.pauses.values().copied();
        let resolves = self.interface_enis.values().filter(|b| !b.in_flight).filter_map(|b| b.next);
        let notify_timeouts = self.addresses_without_notify().map(|(_, until)| until);
        let misplaced = self.evidence.iter().filter_map(|(ip, a)| Some(self.misplaced(*ip, a)?.1 + MISPLACED_AFTER));
        let verifications = Kind::ALL.map(|kind| self.verifications[kind].due.filter(|_| self.reads_kind(kind)));
        let others = [
            self.writer_gone.map(|since| since + WRITER_GONE_TIMEOUT),
            self.coming.as_ref().map(|(_, since)| *since + NEW_GROUPS_TIMEOUT),
            self.local_read_requested.map(|requested| requested + LOCAL_READ_TIMEOUT),
            self.next_dry_run(now),
            self.next_inspection(),
            self.network_reads.due,
        ];
        resources
            .chain(next_claim)
            .chain(pauses)
            .chain(notify_timeouts)
            .chain(self.unknown_states_wait_until())
            .chain(misplaced)
            .chain(resolves)
            .chain(verifications.into_iter().flatten())
            .chain(others.into_iter().flatten())
            .filter(|t| *t > now)
            .min()
    }
}
