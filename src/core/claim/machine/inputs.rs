//! Handles the inputs from keepalived, the kernel and the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Machine;
use super::inference::settled;
use super::scheduler::MIN_STANDBY_INTERVAL;
use crate::claim::BootInstant;
use crate::claim::address::{Address, Phase};
use crate::claim::event::{Cause, LogEvent, RestoredState};
use crate::claim::flap_damping::FlapDamping;
use crate::claim::group::{Group, GroupState};
use crate::keepalived::groups::Groups;
use crate::model::assignment::plan;
use crate::model::config::Config;
use crate::model::ids::{GroupName, InterfaceName};
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
        for address in self.addresses.values_mut() {
            address.rejection.isolated = None;
        }
        self.retry_permanent(now);
        self.verification.request(now);
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

    /// Applies the configuration and keepalived's groups, and keeps the state of unchanged groups and addresses.
    pub(super) fn replan(&mut self, now: BootInstant) {
        let plan = plan(&self.config, &self.keepalived);
        let mut old_groups = mem::take(&mut self.groups);
        let mut old_addresses = mem::take(&mut self.addresses);
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
            group.advertise_interval = planned.advertise_interval;
            group.peers = planned.peers;
            group.addresses = planned.addresses.iter().map(|a| a.address).collect();
            group.addresses.sort_unstable();
            group.problems = planned.problems;
            for wanted in planned.addresses {
                let interface_eni = old_interface_enis.remove(&wanted.interface).unwrap_or_default();
                let interface_eni = self.interface_enis.entry(wanted.interface.clone()).or_insert(interface_eni);
                let behind = interface_eni.eni.as_ref().map(|eni| &eni.id);
                let ip = wanted.address;
                let (is_new, mut address) = match old_addresses.remove(&ip) {
                    Some(mut address) if address.group == planned.name => {
                        address.replan(now, wanted, behind);
                        (false, address)
                    }
                    old => (true, Address::new(planned.name.clone(), wanted, behind).after(old)),
                };
                if is_new {
                    let before = |p: &RestoredState| p.group == address.group && p.address == ip;
                    if let Some(place) = self.restored.iter().position(before) {
                        let RestoredState { losses, contested, .. } = self.restored.swap_remove(place);
                        let interval = self.config.global.verify_interval.duration();
                        address.flap_damping = FlapDamping::resumed(now, &losses, &contested, interval);
                    }
                    address.local_since = Some(now);
                    if is_master {
                        address.phase = Phase::AwaitLocalAddress { since: now };
                    }
                } else if is_renewed {
                    address.become_idle();
                }
                self.addresses.insert(ip, address);
            }
            self.groups.insert(planned.name, group);
        }
        let groups = &self.groups;
        self.peers.retain(|peer, _| groups.values().any(|g| g.peers.contains(peer)));
        for interface_eni in self.interface_enis.values_mut().filter(|b| b.eni.is_none() && !b.in_flight) {
            interface_eni.next = Some(now);
        }
        self.verification.request(now);
    }

    pub(super) fn notify_events(&mut self, now: BootInstant, events: &[NotifyEvent]) {
        self.liveness = Some(now);
        for event in events {
            let is_run = self.groups.get(&event.group).is_some_and(|g| g.vrid.is_some());
            if !is_run && self.is_coming(&event.group) {
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

    pub(super) fn is_coming(&self, group: &GroupName) -> bool {
        self.coming.as_ref().is_some_and(|(groups, _)| groups.groups.iter().any(|g| g.name == *group))
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
        for ip in group.addresses.clone() {
            let Some(address) = self.addresses.get_mut(&ip) else {
                continue;
            };
            // Timeouts from before the transition do not count.
            if (changed || claim)
                && let Some(eni_state) = address.eni.as_ref().and_then(|eni| self.enis.get_mut(eni))
            {
                eni_state.timeouts = 0;
            }
            if is != VrrpState::Master {
                address.become_idle();
            } else if !acts {
                // Paused or disabled: only the state changes.
            } else if claim {
                if event.state == NotifyState::Master {
                    address.grace = None;
                }
                address.claim_now(now);
            } else if changed {
                // A repeated MASTER_RX_LOWER_PRI in a state other than MASTER: it proves MASTER, not an ownership loss.
                address.adopt(now);
            } else if read {
                address.attempt.outranked_other = true;
                address.read_at(now);
            }
        }
        if is != VrrpState::Master {
            self.reset_flap_damping(&event.group);
        }
        if changed {
            self.log(LogEvent::Transition {
                group: event.group.clone(),
                from: was,
                to: is,
                cause: Cause::Notify(event.state),
            });
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
        for (ip, address) in &mut self.addresses {
            if address.is_there(before.get(ip)) != address.is_there(self.local.get(ip)) {
                address.local_since = Some(now);
            }
        }
        // Forget the origin of addresses that were removed, even if they were added again.
        let stayed = |ip: &Ipv4Addr, on: &InterfaceName| {
            [&before, &self.local].iter().all(|local| local.get(ip).is_some_and(|having| having.contains(on)))
        };
        self.put_by.retain(|ip, puts| {
            puts.retain(|on, _| stayed(ip, on));
            !puts.is_empty()
        });
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
        for (ip, address) in &mut self.addresses {
            let due = matches!(address.phase, Phase::Pending { due } if due <= now);
            let is_there = address.is_there(self.local.get(ip));
            let Some(precondition) = address.attempt.precondition.as_mut().filter(|_| due) else {
                continue;
            };
            if is_there {
                precondition.local_read = Some(now);
            } else {
                address.become_idle();
                address.phase = Phase::AwaitLocalAddress { since: now };
                missing.push(LogEvent::NotLocal { group: address.group.clone(), address: *ip });
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
        self.verification.request(now + MIN_STANDBY_INTERVAL);
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
        for ip in &group.addresses {
            if let Some(address) = self.addresses.get_mut(ip) {
                address.claim_now(now);
            }
        }
    }

    pub(super) fn credentials_changed(&mut self, now: BootInstant) {
        self.retry_permanent(now);
        // Shows whether they work before a failover needs them.
        self.verification.request(now + MIN_STANDBY_INTERVAL);
    }

    pub(super) fn retry_permanent(&mut self, now: BootInstant) {
        for address in self.addresses.values_mut() {
            // For a standby, too: the failure may be over.
            let was_permanent = address.rejection.permanent.take().is_some();
            if let Phase::Pending { due } = &mut address.phase
                && was_permanent
            {
                *due = now;
            }
        }
        for eni_state in self.enis.values_mut() {
            eni_state.second_chance = false;
        }
        if self.verification.error.is_some() {
            self.verification.request(now);
        }
    }
}
