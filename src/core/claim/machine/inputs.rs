//! Handles the inputs from keepalived, the kernel and the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::inference::settled;
use super::scheduler::MIN_STANDBY_INTERVAL;
use super::{Channel, Machine};
use crate::claim::BootInstant;
use crate::claim::event::{Cause, LogEvent, RestoredState};
use crate::claim::flap_damping::FlapDamping;
use crate::claim::group::{Group, GroupState};
use crate::claim::local_address::LocalAddress;
use crate::claim::resource::{Phase, ResourceState};
use crate::keepalived::groups::Groups;
use crate::model::assignment::{PlannedGroup, plan};
use crate::model::config::Config;
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::{CallError, ErrorClass};
use crate::model::ids::{ErrorCode, GroupName, InterfaceName};
use crate::model::resource::{Kind, Resource};
use crate::model::vrrp::{NotifyEvent, NotifyState, VrrpState};

/// MASTER_RX_LOWER_PRI events of a group that follow each other within this time are repetitions.
const RX_LOWER_QUIET_TIME: Duration = Duration::from_secs(10);
/// A repeated MASTER_RX_LOWER_PRI causes at most one read in this time.
const RX_LOWER_READ_INTERVAL: Duration = Duration::from_secs(5);

impl Machine {
    pub(super) fn configure(&mut self, now: BootInstant, config: Config) {
        self.config = config;
        let groups = &self.config.groups;
        self.restored.retain(|restored| groups.iter().any(|group| group.name == restored.group));
        self.replan(now);
        for resource in self.resources.values_mut() {
            resource.rejection.isolated = None;
            resource.permission.request(now);
        }
        self.inspection.request(now);
        self.retry_permanent(now, |_| true);
        self.verifications.request(now);
    }

    pub(super) fn announce(&mut self, now: BootInstant, groups: Groups) {
        if self.keepalived.groups.is_empty() {
            self.keepalived = groups;
            self.replan(now);
        } else if groups == self.keepalived {
            self.coming = None;
        } else {
            self.coming = Some((groups, now));
        }
    }

    pub(super) fn count_coming(&mut self, now: BootInstant) {
        if let Some((groups, _)) = self.coming.take() {
            self.keepalived = groups;
            self.replan(now);
        }
    }

    /// Applies the configuration and keepalived's groups, and keeps the state of unchanged groups and resources.
    pub(super) fn replan(&mut self, now: BootInstant) {
        let plan = plan(&self.config, &self.keepalived);
        let mut old_groups = mem::take(&mut self.groups);
        let mut old_evidence = mem::take(&mut self.evidence);
        let mut old_resources = mem::take(&mut self.resources);
        let mut old_interface_enis = mem::take(&mut self.interface_enis);
        for planned in plan.groups {
            let (is_renewed, mut group) = match old_groups.remove(&planned.name) {
                Some(group) if group.vrid == planned.vrid && group.disabled == planned.disabled => (false, group),
                _ => {
                    let paused_until = self.pauses.get(&planned.name).copied();
                    let liveness_after = now.max(settled(self.stalled, planned.advertise_interval));
                    (true, Group { paused_until, ..Group::new(now, liveness_after, &planned) })
                }
            };
            let is_master = group.acts() && group.state.vrrp() == VrrpState::Master;
            let PlannedGroup { name, advertise_interval, peers, addresses, resources, problems, .. } = planned;
            group.advertise_interval = advertise_interval;
            group.peers = peers;
            group.addresses = addresses.iter().map(|a| a.address).collect();
            group.addresses.sort_unstable();
            group.resources = resources.iter().map(|r| r.resource.clone()).collect();
            group.resources.sort_unstable();
            group.problems = problems;
            // Addresses that have to be seen on their interface again.
            let mut appear = BTreeSet::new();
            for wanted in addresses {
                let ip = wanted.address;
                let address = match old_evidence.remove(&ip) {
                    Some(mut address) if address.group == name => {
                        if address.replan(now, wanted) {
                            appear.insert(ip);
                        }
                        address
                    }
                    _ => LocalAddress::new(now, name.clone(), wanted),
                };
                self.evidence.insert(ip, address);
            }
            for wanted in resources {
                let interface_eni = old_interface_enis.remove(&wanted.interface).unwrap_or_default();
                let interface_eni = self.interface_enis.entry(wanted.interface.clone()).or_insert(interface_eni);
                let behind = interface_eni.eni.as_ref();
                let id = wanted.resource.clone();
                let (is_new, mut resource) = match old_resources.remove(&id) {
                    Some(mut resource) if resource.group == name => {
                        if id.address().is_some_and(|ip| appear.contains(&ip)) {
                            resource.appear(now);
                        }
                        resource.replan(now, wanted, behind);
                        (false, resource)
                    }
                    old => (true, ResourceState::new(name.clone(), wanted, behind).after(old)),
                };
                if is_new {
                    let before = |p: &RestoredState| p.group == resource.group && p.resource == id;
                    if let Some(place) = self.restored.iter().position(before) {
                        let RestoredState { losses, contested, .. } = self.restored.swap_remove(place);
                        let interval = self.config.global.verify_interval.duration();
                        resource.flap_damping = FlapDamping::resumed(now, &losses, &contested, interval);
                    }
                    if is_master {
                        resource.phase = Phase::AwaitLocalAddress { since: now };
                    }
                } else if is_renewed {
                    resource.become_idle();
                }
                self.resources.insert(id, resource);
            }
            self.groups.insert(name, group);
        }
        self.update_network();
        let groups = &self.groups;
        self.peers.retain(|peer, _| groups.values().any(|g| g.peers.contains(peer)));
        for interface_eni in self.interface_enis.values_mut().filter(|b| b.eni.is_none()) {
            interface_eni.next = Some(now);
        }
        self.verifications.request(now);
    }

    pub(super) fn notify_events(&mut self, now: BootInstant, events: &[NotifyEvent]) {
        self.liveness = Some(now);
        for event in events {
            if self.is_only_coming(&event.group) {
                self.count_coming(now);
            }
            let is = event.state.vrrp();
            let interval = self.groups.get(&event.group).map(|g| g.advertise_interval);
            if is == VrrpState::Master && interval.is_some_and(|interval| now < settled(self.stalled, interval)) {
                self.invalidate_with_last_known(now, &event.group, Cause::Stalled, Some(is));
            } else {
                self.notify_event(now, event);
            }
        }
    }

    /// Whether the announced groups have this one, with or without an aws-vipa node, and the previous ones do not.
    fn is_only_coming(&self, group: &GroupName) -> bool {
        let has = |groups: &Groups| groups.groups.iter().any(|g| g.name == *group);
        self.coming.as_ref().is_some_and(|(coming, _)| has(coming) && !has(&self.keepalived))
    }

    pub(super) fn notify_event(&mut self, now: BootInstant, event: &NotifyEvent) {
        let Some(group) = self.groups.get_mut(&event.group) else {
            return;
        };
        let was = group.state.vrrp();
        let is = event.state.vrrp();
        group.last_notify = Some((now, is));
        let quiet = group.rx_lower.is_none_or(|last| last.until(now) > RX_LOWER_QUIET_TIME);
        if event.state == NotifyState::MasterRxLowerPri {
            group.rx_lower = Some(now);
        }
        group.set_state(now, GroupState::Known { vrrp: is, cause: Cause::Notify(event.state) });
        let read = group.rx_read.is_none_or(|last| last.until(now) >= RX_LOWER_READ_INTERVAL);
        let acts = group.acts();
        let changed = was != is;
        let claim = is == VrrpState::Master && (event.state == NotifyState::Master || quiet);
        let read = event.state == NotifyState::MasterRxLowerPri && !claim && read;
        if read {
            group.rx_read = Some(now);
        }
        for id in group.resources.clone() {
            let Some(resource) = self.resources.get_mut(&id) else {
                continue;
            };
            // Timeouts from before the transition do not count.
            if (changed || claim)
                && let Some(eni) = &resource.eni
                && let Some(channel) = self.channels.get_mut(&Channel::of(id.kind(), eni))
            {
                channel.timeouts = 0;
            }
            if is != VrrpState::Master {
                resource.become_idle();
            } else if !acts {
                // Paused or disabled: only the state changes.
            } else if claim {
                if event.state == NotifyState::Master {
                    resource.grace = None;
                }
                resource.claim_now(now);
                resource.attempt.notified.get_or_insert(now);
            } else if changed {
                // A repeated MASTER_RX_LOWER_PRI in a state other than MASTER: it proves MASTER, not an ownership loss.
                resource.adopt(now);
            } else if read {
                resource.attempt.outranked_other = true;
                resource.read_at(now);
            }
        }
        if is != VrrpState::Master {
            self.reset_flap_damping(&event.group);
        }
        if changed {
            self.transition(now, event.group.clone(), was, is, Cause::Notify(event.state));
        }
    }

    /// Outdated notify events: the last one of each group gives the last known state; the state itself is inferred.
    pub(super) fn backlog(&mut self, now: BootInstant, events: &[NotifyEvent], was_full: bool) {
        let cause = if was_full { Cause::FifoFull } else { Cause::New };
        let mut last: BTreeMap<&GroupName, NotifyState> = BTreeMap::new();
        if !was_full {
            last.extend(events.iter().map(|event| (&event.group, event.state)));
        }
        let named: Vec<GroupName> = self.groups.keys().filter(|g| was_full || last.contains_key(g)).cloned().collect();
        for name in named {
            let last_known = last.get(&name).map(|s| s.vrrp());
            self.invalidate_with_last_known(now, &name, cause, last_known);
        }
        // A BACKUP in the backlog resets flap damping, too.
        let others = events.iter().filter(|event| event.state.vrrp() != VrrpState::Master);
        others.for_each(|event| self.reset_flap_damping(&event.group));
    }

    pub(super) fn writer(&mut self, now: BootInstant, there: bool) {
        match (there, self.writer_gone) {
            (false, None) => self.writer_gone = Some(now),
            (true, Some(_)) => {
                self.writer_gone = None;
                self.require_liveness_after(now);
            }
            _ => {}
        }
    }

    pub(super) fn local(
        &mut self,
        now: BootInstant,
        addresses: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
        requested: bool,
    ) {
        let appeared: Vec<Ipv4Addr> =
            addresses.iter().filter(|(ip, on)| self.local.get(ip) != Some(on)).map(|(ip, _)| *ip).collect();
        let before = mem::replace(&mut self.local, addresses);
        for (ip, address) in &mut self.evidence {
            if address.is_there(before.get(ip)) != address.is_there(self.local.get(ip)) {
                address.since = Some(now);
            }
        }
        // Forget the origin of addresses that were removed, even if they were added again.
        let stayed = |ip: &Ipv4Addr, on: &InterfaceName| {
            [&before, &self.local].iter().all(|local| local.get(ip).is_some_and(|having| having.contains(on)))
        };
        retain(&mut self.put_by, stayed);
        retain(&mut self.added, stayed);
        for ip in appeared.iter().filter(|_| self.writer_gone.is_none()) {
            let new = self.local.get(ip).into_iter().flatten().filter(|on| !stayed(ip, on));
            self.added.entry(*ip).or_default().extend(new.map(|on| (on.clone(), now)));
        }
        if let Some((coming, _)) = &self.coming {
            let held = |groups: &Groups| -> BTreeSet<Ipv4Addr> {
                groups.groups.iter().flat_map(|g| &g.addresses).map(|a| a.address).collect()
            };
            let (new, old) = (held(coming), held(&self.keepalived));
            if appeared.iter().any(|ip| new.contains(ip) && !old.contains(ip)) {
                self.count_coming(now);
            }
        }
        if requested {
            self.local_read_requested = None;
            self.local_read(now);
        }
    }

    /// The local addresses were read: pending claims with a precondition are sent, or given up.
    pub(super) fn local_read(&mut self, now: BootInstant) {
        let mut missing = Vec::new();
        let is_due = |r: &ResourceState| {
            matches!(r.phase, Phase::Pending { due } if due <= now) && r.attempt.precondition.is_some()
        };
        let due: Vec<Resource> = self.resources.iter().filter(|(_, r)| is_due(r)).map(|(id, _)| id.clone()).collect();
        for id in due {
            let is_there = self.has_local_address(&id);
            let Some(resource) = self.resources.get_mut(&id) else {
                continue;
            };
            if is_there && let Some(precondition) = &mut resource.attempt.precondition {
                precondition.local_read = Some(now);
            } else {
                resource.become_idle();
                resource.phase = Phase::AwaitLocalAddress { since: now };
                missing.push(LogEvent::NotLocal { group: resource.group.clone(), resource: id });
            }
        }
        missing.into_iter().for_each(|log| self.log(log));
    }

    pub(super) fn pause(&mut self, now: BootInstant, name: &GroupName, until: BootInstant) {
        self.pauses.insert(name.clone(), until);
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        group.paused_until = Some(until);
        let vrrp = group.state.vrrp();
        self.make_idle(name);
        self.log(LogEvent::Transition { group: name.clone(), from: vrrp, to: vrrp, cause: Cause::Paused });
        self.verifications.request(now + MIN_STANDBY_INTERVAL);
    }

    pub(super) fn resume(&mut self, now: BootInstant, name: &GroupName) {
        self.pauses.remove(name);
        if let Some(group) = self.groups.get_mut(name)
            && group.paused_until.take().is_some()
        {
            self.invalidate(now, name, Cause::PauseEnded);
        }
    }

    pub(super) fn force(&mut self, now: BootInstant, name: &GroupName) {
        if self.refuses_force(name).is_some() {
            return;
        }
        let Some(group) = self.groups.get(name) else {
            return;
        };
        for id in &group.resources {
            if let Some(resource) = self.resources.get_mut(id) {
                resource.claim_now(now);
            }
        }
    }

    /// With only new keys, what has failed is tried again only where the keys themselves may have been the reason.
    pub(super) fn credentials_changed(&mut self, now: BootInstant, change: CredentialsChange) {
        let are_others = change == CredentialsChange::Others;
        let may_be_over = |error: &CallError| match error.class() {
            _ if are_others => true,
            ErrorClass::Clock => true,
            ErrorClass::Denied => !error.failure.has_code(ErrorCode::is_denial),
            _ => false,
        };
        self.retry_permanent(now, may_be_over);
        for resource in self.resources.values_mut() {
            if are_others || resource.permission.refused.as_ref().is_some_and(may_be_over) {
                resource.permission.request(now);
            }
        }
        self.inspection.request(now);
        // Shows whether they work before a failover needs them.
        self.verifications.request(now + MIN_STANDBY_INTERVAL);
    }

    /// Retries refused claims at once. A standby, which does not claim, forgets its failures that may be over.
    fn retry_permanent(&mut self, now: BootInstant, may_be_over: impl Fn(&CallError) -> bool) {
        for resource in self.resources.values_mut() {
            let permanent = &mut resource.rejection.permanent;
            match &mut resource.phase {
                Phase::Pending { due } if permanent.take().is_some() => *due = now,
                _ => drop(permanent.take_if(|error| may_be_over(error))),
            }
        }
        for channel in self.channels.values_mut() {
            channel.second_chance = false;
        }
        for kind in Kind::ALL {
            if self.verifications[kind].error.is_some() {
                self.verifications[kind].request(now);
            }
        }
    }
}

/// Removes what is known of an address on an interface where it did not stay.
fn retain<T>(
    known: &mut BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, T>>,
    stayed: impl Fn(&Ipv4Addr, &InterfaceName) -> bool,
) {
    known.retain(|ip, known| {
        known.retain(|on, _| stayed(ip, on));
        !known.is_empty()
    });
}
