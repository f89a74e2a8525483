//! Infers unknown VRRP states from local addresses and keepalived's liveness.
//!
//! A notify event for MASTER can be lost: another process read the FIFO, or the FIFO was full. The local address then shows
//! that the group is MASTER. But an operator can add the address to a standby's interface by hand, which does not make it
//! MASTER. In both cases the address is on keepalived's interface and the last notify event is BACKUP. The difference is the
//! process that added the address. The kernel's notification of a new address has the netlink port of that process's socket
//! (`nlmsg_pid`, net/ipv4/devinet.c `rtmsg_ifa`). keepalived keeps its socket open while its VRRP process runs; ip(8) closes
//! it when the command ends. Four rules follow.
//!
//! 1. A group that is not MASTER becomes UNKNOWN when one of its addresses was added to the interface since the group's last
//!    notify event, by a process that still runs a second later ([`PutBy::Process`]). This alone causes no claim: keepalived
//!    must be active after it, EC2 is read, and the local addresses are read again, as in every UNKNOWN state. A notify event
//!    within that second takes precedence.
//! 2. An address that a command added ([`PutBy::Command`]) proves nothing until a later notify event for MASTER: keepalived
//!    uses an address that exists already.
//! 3. For an address that existed when the agent started, or when notifications were lost, the process is unknown. The
//!    address counts if the state is UNKNOWN, but does not contradict a notify event.
//! 4. In an UNKNOWN state, an address that was just added counts once its process is known: until then its notify event may
//!    come. If the process stays unknown, the address counts after [`MAX_NOTIFY_TIMEOUT`]. An address counts at once that
//!    existed when the agent started, or was added while the FIFO had no writer, or whose notify event for MASTER was read.
//!
//! Other contradictions between an address and VRRP are only reported ([`Misplaced`]). A notify event for BACKUP comes some
//! milliseconds before or after keepalived removes the address; it is newer than the addition in both cases, so no rule
//! applies.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{HEARTBEAT_INTERVAL, Machine, STALL_THRESHOLD};
use crate::claim::BootInstant;
use crate::claim::event::{Cause, LogEvent, Misplaced, PutBy};
use crate::claim::group::{Group, GroupState};
use crate::claim::local_address::LocalAddress;
use crate::claim::resource::{Phase, ResourceState};
use crate::model::ids::{GroupName, InterfaceName};
use crate::model::resource::Resource;
use crate::model::vrrp::VrrpState;

/// The notify event follows the address within a millisecond; after this time it counts as lost.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// The same while the process that added the address is unknown. It is known after a second, and later if the agent was
/// interrupted: by so much before that counts as a stall.
const MAX_NOTIFY_TIMEOUT: Duration = NOTIFY_TIMEOUT.saturating_add(HEARTBEAT_INTERVAL).saturating_add(STALL_THRESHOLD);
/// keepalived is active once per advertisement interval; liveness is missing after this much more time.
const LIVENESS_MARGIN: Duration = Duration::from_secs(2);
/// In BACKUP, keepalived sleeps for the Master_Down_Interval at most: three advertisement intervals and a skew time of less
/// than one (RFC 9568, section 6.1). This is the number of intervals.
const BACKUP_SLEEP_INTERVALS: u32 = 4;
/// How much longer than an advertisement interval a claim waits for liveness.
const LIVENESS_TIMEOUT_MARGIN: Duration = Duration::from_secs(1);
/// Shorter advertisement intervals count as this one.
const MIN_ADVERTISE_INTERVAL: Duration = Duration::from_secs(1);
/// A contradiction between a local address and VRRP is reported after this time.
pub(super) const MISPLACED_AFTER: Duration = Duration::from_secs(3);
/// How often keepalived's liveness is polled while a claim waits for it.
const MIN_LIVENESS_POLL: Duration = Duration::from_millis(100);
/// The same while a claim may need it later. Liveness is then never older than an advertisement interval and twice this time,
/// which is less than a claim needs.
const IDLE_LIVENESS_POLL: Duration = Duration::from_millis(500);
/// The longest polling interval if no liveness is seen.
const MAX_LIVENESS_POLL: Duration = Duration::from_secs(2);

/// How much longer than an advertisement interval keepalived may take to receive an advertisement and to notify.
const ADVERTISEMENT_MARGIN: Duration = Duration::from_millis(500);

/// Until when MASTER may be wrong after a stall: keepalived's timer expired during the stall, before it could receive an
/// advertisement. The next advertisement corrects it.
pub(super) fn settled(stalled: Option<BootInstant>, advertise_interval: Duration) -> BootInstant {
    stalled.map_or_else(BootInstant::default, |stalled| stalled + advertise_interval + ADVERTISEMENT_MARGIN)
}

/// How often a timer of a group in MASTER or BACKUP wakes keepalived; shorter intervals count as [`MIN_ADVERTISE_INTERVAL`].
fn timer_interval(advertise_interval: Duration) -> Duration {
    advertise_interval.max(MIN_ADVERTISE_INTERVAL)
}

/// A keepalived that has slept for so long has no timer for a group with this advertisement interval.
fn longest_sleep(advertise_interval: Duration) -> Duration {
    timer_interval(advertise_interval) * BACKUP_SLEEP_INTERVALS + LIVENESS_MARGIN
}

/// How old keepalived's liveness may be for a retry, and for a claim without a notify event.
pub(super) fn liveness_max_age(advertise_interval: Duration) -> Duration {
    timer_interval(advertise_interval) + LIVENESS_MARGIN
}

/// A first attempt that is due for that long needs liveness, too. A claim that has waited that long for it makes the state
/// unknown.
pub(super) fn liveness_timeout(advertise_interval: Duration) -> Duration {
    timer_interval(advertise_interval) + LIVENESS_TIMEOUT_MARGIN
}

/// Whether the last notify event of the group is MASTER, for an address that was added at that time. The event may be read
/// before the address.
fn is_notified(group: &Group, added: BootInstant) -> bool {
    group.last_notify.is_some_and(|(at, vrrp)| vrrp == VrrpState::Master && added <= at + NOTIFY_TIMEOUT)
}

impl Machine {
    /// How soon to poll keepalived's liveness again, if anything depends on it. The longer none is seen, the less often.
    pub fn liveness_poll_interval(&self, now: BootInstant) -> Option<Duration> {
        if self.writer_gone.is_some() {
            return None;
        }
        let since = |since: BootInstant| (since.until(now) / 20).clamp(MIN_LIVENESS_POLL, MAX_LIVENESS_POLL);
        let groups = self.groups.values().filter(|g| g.is_active()).filter_map(|g| match g.state {
            GroupState::Unknown { liveness_after, .. } => Some(since(liveness_after)),
            // Something other than a timer may have woken keepalived.
            GroupState::Known { vrrp: VrrpState::Backup, cause: Cause::Inferred } => Some(MAX_LIVENESS_POLL),
            _ if g.is_in_fault_without_notify() => Some(MAX_LIVENESS_POLL),
            GroupState::Known { .. } => None,
        });
        let resources = self.resources.values().filter_map(|r| match &r.phase {
            Phase::Idle | Phase::Assigned { mismatch: None, .. } => None,
            Phase::Assigned { mismatch: Some(mismatch), .. } => Some(since(mismatch.since)),
            Phase::AwaitLocalAddress { since: begun } | Phase::CheckOwner { since: begun } => Some(since(*begun)),
            // Its retry needs recent liveness, whenever it comes.
            Phase::InFlight(_) => Some(IDLE_LIVENESS_POLL),
            Phase::Pending { due } => {
                let is_near = now.until(*due) <= liveness_max_age(self.interval(&r.group));
                Some(if is_near && !self.has_liveness(now, r) { MIN_LIVENESS_POLL } else { IDLE_LIVENESS_POLL })
            }
        });
        groups.chain(resources).min()
    }

    /// The advertisement interval of a group.
    pub(super) fn interval(&self, group: &GroupName) -> Duration {
        self.groups.get(group).map(|g| g.advertise_interval).unwrap_or_default()
    }

    /// keepalived's VRRP process exists and has slept since that time. A group that is BACKUP or MASTER has a timer; without
    /// one, and without its local addresses, it is in FAULT. That BACKUP was inferred does not contradict it: keepalived may
    /// have run because of a change in the network.
    pub(super) fn inactive(&mut self, now: BootInstant, since: BootInstant) {
        // Any of the groups could have been the one with the timer, so the one that bears the least counts for all.
        let awaited = self.groups.values().filter(|group| group.timer_seen.is_some());
        let shortest = awaited.map(|group| longest_sleep(group.advertise_interval)).min();
        for group in self.groups.values_mut() {
            group.timer_seen.take_if(|seen| shortest.is_some_and(|sleep| since.max(*seen) + sleep <= now));
        }
        let over = |g: &Group| match g.state {
            GroupState::Unknown { liveness_after, .. } => {
                since.max(liveness_after) + longest_sleep(g.advertise_interval) <= now
            }
            GroupState::Known { vrrp: VrrpState::Backup, cause: Cause::Inferred } => {
                since.max(g.since) + longest_sleep(g.advertise_interval) <= now
            }
            GroupState::Known { .. } => false,
        };
        let is_absent = |g: &Group| !g.addresses.iter().any(|ip| self.shows_master(ip));
        let faulty = |g: &Group| g.is_active() && over(g) && is_absent(g);
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| faulty(g)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            let from = group.state.vrrp();
            let to = match group.state {
                GroupState::Unknown { last_known: Some(VrrpState::Stop), .. } => VrrpState::Stop,
                _ => VrrpState::Fault,
            };
            group.set_state(now, GroupState::Known { vrrp: to, cause: Cause::NoTimer });
            self.transition(now, name.clone(), from, to, Cause::NoTimer);
            self.reset_flap_damping(&name);
        }
    }

    pub(super) fn stall_detected(&mut self, now: BootInstant) {
        self.stalled = Some(now);
        self.require_liveness_after(now);
        let masters: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| g.state.vrrp() == VrrpState::Master).map(|(n, _)| n.clone()).collect();
        masters.iter().for_each(|name| self.invalidate(now, name, Cause::Stalled));
    }

    /// In unknown states, liveness before `now` does not count.
    pub(super) fn require_liveness_after(&mut self, now: BootInstant) {
        let stalled = self.stalled;
        for group in self.groups.values_mut() {
            group.require_liveness_after(now.max(settled(stalled, group.advertise_interval)));
        }
    }

    pub(super) fn invalidate_all(&mut self, now: BootInstant, why: Cause) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.invalidate(now, name, why));
    }

    /// The state of a group becomes unknown. Inferring it needs liveness after `now`.
    pub(super) fn invalidate(&mut self, now: BootInstant, name: &GroupName, why: Cause) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let from = group.state.vrrp();
        let last_known = match &group.state {
            // A lost notify event may have been for another state.
            _ if why == Cause::FifoFull => None,
            GroupState::Known { vrrp, .. } => Some(*vrrp),
            GroupState::Unknown { last_known, .. } => *last_known,
        };
        let liveness_after = now.max(settled(self.stalled, group.advertise_interval));
        group.set_state(now, GroupState::Unknown { why, liveness_after, last_known });
        self.make_idle(name);
        if from != VrrpState::Unknown {
            self.transition(now, name.clone(), from, VrrpState::Unknown, why);
        }
    }

    /// As [`Self::invalidate`], with the state of the last notify event, if there is one.
    pub(super) fn invalidate_with_last_known(
        &mut self,
        now: BootInstant,
        name: &GroupName,
        why: Cause,
        last_known: Option<VrrpState>,
    ) {
        self.invalidate(now, name, why);
        if let Some(group) = self.groups.get_mut(name) {
            group.last_notify = last_known.map(|vrrp| (now, vrrp)).or(group.last_notify);
            if let GroupState::Unknown { last_known: kept, .. } = &mut group.state {
                *kept = last_known;
            }
        }
    }

    pub(super) fn make_idle(&mut self, name: &GroupName) {
        for id in self.groups.get(name).iter().flat_map(|g| &g.resources) {
            if let Some(resource) = self.resources.get_mut(id) {
                resource.become_idle();
            }
        }
    }

    /// Invalidates groups whose due claims have waited too long for liveness.
    pub(super) fn require_liveness(&mut self, now: BootInstant) {
        let mut silent = BTreeSet::new();
        for resource in self.resources.values() {
            if let Phase::Pending { due } = resource.phase
                && due <= now
                && self.may_be_taken(now, resource)
                && !self.has_liveness(now, resource)
                && (resource.is_retry() || due + liveness_timeout(self.interval(&resource.group)) <= now)
            {
                silent.insert(resource.group.clone());
            }
        }
        silent.iter().for_each(|name| self.invalidate(now, name, Cause::NoLiveness));
    }

    /// Whether keepalived's liveness is as recent as a claim of the resource needs.
    pub(super) fn has_liveness(&self, now: BootInstant, resource: &ResourceState) -> bool {
        self.liveness.is_some_and(|liveness| {
            liveness.until(now) < liveness_max_age(self.interval(&resource.group))
                && resource
                    .attempt
                    .precondition
                    .as_ref()
                    .is_none_or(|precondition| precondition.liveness_after <= liveness)
        })
    }

    /// keepalived was active after that time. This contradicts a FAULT which no notify event gave, if it lasts and no timer of
    /// another group may explain it: a change in the network or a tracked script that ends wakes keepalived for a moment.
    pub(super) fn active(&mut self, now: BootInstant, after: BootInstant) {
        self.liveness = self.liveness.max(Some(after));
        // Also one without an `aws-vipa` node, whose state is not known.
        let may_have_timer = |name: &GroupName| {
            let group = self.groups.get(name);
            group.is_none_or(|group| !matches!(group.state.vrrp(), VrrpState::Fault | VrrpState::Stop))
        };
        if self.writer_gone.is_some() || self.keepalived.groups.iter().any(|running| may_have_timer(&running.name)) {
            self.groups.values_mut().for_each(|group| group.timer_seen = None);
            return;
        }
        let (mut names, mut has_timer) = (Vec::new(), false);
        for (name, group) in self.groups.iter_mut().filter(|(_, g)| g.is_active() && g.is_in_fault_without_notify()) {
            let first = *group.timer_seen.get_or_insert(after.max(group.since));
            has_timer |= after >= first + longest_sleep(group.advertise_interval);
            names.push(name.clone());
        }
        // keepalived has a timer after all: it hung, or a notify event was lost. What made one group seem in FAULT made all.
        for name in names.into_iter().filter(|_| has_timer) {
            if self.groups.get(&name).is_some_and(|group| self.awaits_notify_event(now, group)) {
                self.invalidate_with_last_known(now, &name, Cause::ActiveAgain, None);
            } else {
                self.infer(now, &name, None, after);
            }
        }
    }

    /// Infers unknown states, and adopts resources whose addresses have appeared on their interface.
    pub(super) fn infer_states(&mut self, now: BootInstant) {
        if self.writer_gone.is_some() {
            return;
        }
        let liveness = self.liveness;
        let unknown = |(name, group): (&GroupName, &Group)| match group.state {
            GroupState::Unknown { last_known, liveness_after, .. }
                if group.is_active() && liveness >= Some(liveness_after) && !self.awaits_notify_event(now, group) =>
            {
                Some((name.clone(), last_known, liveness_after))
            }
            _ => None,
        };
        let unknown: Vec<_> = self.groups.iter().filter_map(unknown).collect();
        for (name, last_known, liveness_after) in unknown {
            self.infer(now, &name, last_known, liveness_after);
        }
        let appeared: Vec<Resource> = self
            .resources
            .iter()
            .filter(|(id, r)| {
                matches!(r.phase, Phase::AwaitLocalAddress { since } if liveness >= Some(since))
                    && self.evidence_of(id, r).iter().any(|ip| self.shows_master(ip))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in appeared {
            if let Some(resource) = self.resources.get_mut(&id) {
                resource.adopt(now);
            }
        }
    }

    /// The group has the state that its addresses show: keepalived was active after that time.
    fn infer(
        &mut self,
        now: BootInstant,
        name: &GroupName,
        last_known: Option<VrrpState>,
        liveness_after: BootInstant,
    ) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        let is_master = group.addresses.iter().any(|ip| self.shows_master(ip));
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let from = group.state.vrrp();
        let to = match last_known {
            _ if is_master => VrrpState::Master,
            Some(last_known @ (VrrpState::Fault | VrrpState::Stop)) => last_known,
            _ => VrrpState::Backup,
        };
        group.set_state(now, GroupState::Known { vrrp: to, cause: Cause::Inferred });
        let appearing = group.resources.iter().filter(|_| is_master && group.acts());
        for id in appearing {
            if let Some(resource) = self.resources.get_mut(id) {
                resource.phase = Phase::AwaitLocalAddress { since: liveness_after };
            }
        }
        self.transition(now, name.clone(), from, to, Cause::Inferred);
        if !is_master {
            self.reset_flap_damping(name);
        }
    }

    /// Invalidates standbys whose address was added to the interface without a notify event.
    pub(super) fn invalidate_standbys(&mut self, now: BootInstant) {
        let over = self.addresses_without_notify().filter(|(_, until)| *until <= now).map(|(group, _)| group.clone());
        let over: Vec<GroupName> = over.collect();
        over.iter().for_each(|name| self.invalidate(now, name, Cause::NoNotifyEvent));
    }

    /// Standbys with an address that a process has added to the interface since their last notify event, and until when the
    /// missing event may still come.
    pub(super) fn addresses_without_notify(&self) -> impl Iterator<Item = (&GroupName, BootInstant)> {
        let is_standby = |g: &Group| matches!(g.state, GroupState::Known { vrrp, .. } if vrrp != VrrpState::Master);
        self.groups.iter().filter(move |(_, g)| is_standby(g)).flat_map(move |(name, group)| {
            let put = |ip: &&Ipv4Addr| self.shows_master(ip) && self.put_by(**ip) == Some(PutBy::Process);
            group.addresses.iter().filter(put).filter_map(move |ip| {
                let since = self.evidence.get(ip)?.since?;
                group.last_notify.is_none_or(|(at, _)| at < since).then_some((name, since + NOTIFY_TIMEOUT))
            })
        })
    }

    /// Until when notify events may still come for the addresses of groups in unknown states.
    pub(super) fn unknown_states_wait_until(&self) -> impl Iterator<Item = BootInstant> {
        let is_unknown = |group: &&Group| matches!(group.state, GroupState::Unknown { .. });
        self.groups.values().filter(is_unknown).filter_map(|group| self.notify_event_awaited_until(group))
    }

    /// Whether the notify event for the addresses of the group may still come.
    fn awaits_notify_event(&self, now: BootInstant, group: &Group) -> bool {
        self.notify_event_awaited_until(group).is_some_and(|until| now < until)
    }

    /// Until when the notify event for the addresses of the group may still come. None if no address shows MASTER, or if one
    /// counts at once.
    fn notify_event_awaited_until(&self, group: &Group) -> Option<BootInstant> {
        let until = |ip: &Ipv4Addr| {
            let added = self.added(*ip).filter(|added| !is_notified(group, *added))?;
            Some(added + if self.put_by(*ip).is_some() { NOTIFY_TIMEOUT } else { MAX_NOTIFY_TIMEOUT })
        };
        group.addresses.iter().filter(|ip| self.shows_master(ip)).map(until).min().flatten()
    }

    /// Whether the local address shows that its group is MASTER.
    fn shows_master(&self, ip: &Ipv4Addr) -> bool {
        self.is_local(*ip)
            && self.is_for_vrrp_alone(ip)
            && (self.put_by(*ip) != Some(PutBy::Command)
                || self.evidence.get(ip).is_some_and(|a| self.adopted_by_keepalived(a)))
    }

    /// Whether only keepalived adds the address to its interface.
    fn is_for_vrrp_alone(&self, ip: &Ipv4Addr) -> bool {
        self.evidence.get(ip).is_some_and(|address| !address.outside_vrrp)
            && !self.interface_enis.values().filter_map(|b| b.eni.as_ref()).any(|eni| eni.primary == *ip)
    }

    /// Whether the last notify event is MASTER and found the address present: keepalived then uses it as its own.
    fn adopted_by_keepalived(&self, address: &LocalAddress) -> bool {
        let group = self.groups.get(&address.group);
        group.is_some_and(|group| is_notified(group, address.since.unwrap_or_default()))
    }

    /// Which kind of process added the address to keepalived's interface.
    fn put_by(&self, ip: Ipv4Addr) -> Option<PutBy> {
        let put_by = self.put_by.get(&ip)?;
        self.its_interfaces(ip).filter_map(|on| put_by.get(on)).copied().max()
    }

    /// When the address was added to keepalived's interface. None if it existed before the agent, or if the FIFO had no writer
    /// then.
    fn added(&self, ip: Ipv4Addr) -> Option<BootInstant> {
        let added = self.added.get(&ip)?;
        self.its_interfaces(ip).map(|on| added.get(on).copied()).min().flatten()
    }

    /// The interfaces with the address that are keepalived's for it.
    fn its_interfaces(&self, ip: Ipv4Addr) -> impl Iterator<Item = &InterfaceName> {
        let address = self.evidence.get(&ip);
        let is_its = move |on: &InterfaceName| address.is_some_and(|a| a.is_there(Some(&BTreeSet::from([on.clone()]))));
        self.local.get(&ip).into_iter().flatten().filter(move |on| is_its(on))
    }

    /// Whether the address is on its interface against what VRRP says, or is not, and since when that is so.
    pub(in crate::claim) fn misplaced(&self, ip: Ipv4Addr, address: &LocalAddress) -> Option<(Misplaced, BootInstant)> {
        let group = self.groups.get(&address.group).filter(|g| g.acts())?;
        let is_assigned = || match self.resources.get(&ip.into()) {
            Some(resource) => matches!(resource.phase, Phase::Assigned { .. }),
            // Its group's routes and Elastic IPs bring its traffic here.
            None => group
                .resources
                .iter()
                .filter_map(|id| self.resources.get(id))
                .any(|r| matches!(r.phase, Phase::Assigned { .. })),
        };
        let wrong = match &group.state {
            GroupState::Known { vrrp: VrrpState::Master, .. } if !self.is_local(ip) && is_assigned() => {
                Misplaced::Missing
            }
            GroupState::Known { vrrp: VrrpState::Master, .. } | GroupState::Unknown { .. } => return None,
            GroupState::Known { .. } if self.is_local(ip) && self.is_for_vrrp_alone(&ip) => Misplaced::Unexpected,
            GroupState::Known { .. } => return None,
        };
        Some((wrong, address.since?.max(group.since)))
    }

    /// The same, once it is not just on its way.
    pub(in crate::claim) fn stays_misplaced(
        &self,
        now: BootInstant,
        ip: Ipv4Addr,
        address: &LocalAddress,
    ) -> Option<(Misplaced, BootInstant)> {
        self.misplaced(ip, address).filter(|(_, since)| *since + MISPLACED_AFTER <= now)
    }

    /// Whether the address is on its interface as VRRP says, or is not.
    fn is_in_its_place(&self, ip: Ipv4Addr, address: &LocalAddress) -> bool {
        self.groups.get(&address.group).filter(|g| g.acts()).is_some_and(|group| match group.state {
            GroupState::Known { vrrp: VrrpState::Master, .. } => self.is_local(ip),
            GroupState::Known { .. } => !(self.is_local(ip) && self.is_for_vrrp_alone(&ip)),
            GroupState::Unknown { .. } => false,
        })
    }

    /// Logs contradictions between local addresses and VRRP, once, and their end.
    pub(super) fn check_placement(&mut self, now: BootInstant) {
        let news: Vec<_> = self
            .evidence
            .iter()
            .map(|(ip, a)| (*ip, a, self.stays_misplaced(now, *ip, a).map(|(wrong, _)| wrong)))
            .filter(|(ip, a, wrong)| a.misplaced != *wrong && (wrong.is_some() || self.is_in_its_place(*ip, a)))
            .map(|(ip, _, wrong)| (ip, wrong))
            .collect();
        for (ip, wrong) in news {
            let Some(address) = self.evidence.get_mut(&ip) else {
                continue;
            };
            address.misplaced = wrong;
            let (group, interface) = (address.group.clone(), address.held_on.clone());
            self.log(LogEvent::Placement { group, address: ip, interface, wrong });
        }
    }

    /// Forgets the ownership losses of a group that is no longer MASTER.
    pub(super) fn reset_flap_damping(&mut self, name: &GroupName) {
        for id in self.groups.get(name).map(|g| g.resources.clone()).unwrap_or_default() {
            let ended = self.resources.get_mut(&id).map(|resource| resource.flap_damping.end()).unwrap_or_default();
            for taker in ended {
                self.log(LogEvent::ContestedEnded { group: name.clone(), resource: id.clone(), taker });
            }
        }
    }

    pub(super) fn end_contested(&mut self, now: BootInstant) {
        let interval = self.config.global.verify_interval.duration();
        let mut over = Vec::new();
        for (id, resource) in &mut self.resources {
            let Some(since) = resource.checks.verified_since else {
                continue;
            };
            for taker in resource.flap_damping.end_due(now, since, interval) {
                over.push(LogEvent::ContestedEnded { group: resource.group.clone(), resource: id.clone(), taker });
            }
        }
        over.into_iter().for_each(|log| self.log(log));
    }

    /// Whether the address is on keepalived's interface.
    pub(in crate::claim) fn is_local(&self, ip: Ipv4Addr) -> bool {
        self.evidence.get(&ip).is_some_and(|address| address.is_there(self.local.get(&ip)))
    }

    /// The addresses of which one must be on its interface for a claim that no notify event has caused: an address itself,
    /// and the one that a route covers exactly; else any of the group's.
    pub(in crate::claim) fn evidence_of(&self, id: &Resource, resource: &ResourceState) -> Vec<Ipv4Addr> {
        let group = self.groups.get(&resource.group);
        let own = match id {
            Resource::Address(ip) => Some(*ip),
            Resource::Route(route) => route.destination.host(),
            Resource::ElasticIp(_) => None,
        };
        match own.filter(|ip| self.evidence.get(ip).is_some_and(|address| address.group == resource.group)) {
            Some(ip) => vec![ip],
            None => group.map(|group| group.addresses.clone()).unwrap_or_default(),
        }
    }

    /// Whether the resource's evidence is on its interface.
    pub(in crate::claim) fn has_local_address(&self, id: &Resource) -> bool {
        self.resources.get(id).is_some_and(|r| self.evidence_of(id, r).iter().any(|ip| self.is_local(*ip)))
    }
}
