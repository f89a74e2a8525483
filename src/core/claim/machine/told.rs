//! What keepalived, the kernel and the operator say.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Machine;
use super::evidence::settled;
use super::sending::STANDBY_INTERVAL;
use crate::claim::Moment;
use crate::claim::address::{Address, Phase};
use crate::claim::contest::Contest;
use crate::claim::group::{Belief, Group};
use crate::claim::message::{Cause, Note, Past};
use crate::keepalived::groups::Groups;
use crate::model::assignment::plan;
use crate::model::config::Config;
use crate::model::ids::{GroupName, InterfaceName};
use crate::model::vrrp::{Line, NotifyState, VrrpState};

/// Two MASTER_RX_LOWER_PRI of one group further apart than this are two events; closer together, one that lasts.
const RX_QUIET: Duration = Duration::from_secs(10);
/// A lasting MASTER_RX_LOWER_PRI asks for one read in that time.
const RX_READ: Duration = Duration::from_secs(5);

impl Machine {
    pub(super) fn configure(&mut self, now: Moment, config: Config) {
        self.config = config;
        let groups = &self.config.groups;
        self.past.retain(|past| groups.iter().any(|group| group.name == past.group));
        self.replan(now);
        for address in self.addresses.values_mut() {
            address.alone = None;
        }
        self.retry_permanent(now);
        self.sweep.due = now;
    }

    pub(super) fn announce(&mut self, now: Moment, groups: Groups) {
        if self.keepalived.groups.is_empty() {
            self.keepalived = groups;
            self.replan(now);
        } else if groups == self.keepalived {
            self.coming = None;
        } else {
            self.coming = Some((groups, now));
        }
    }

    pub(super) fn count_coming(&mut self, now: Moment) {
        if let Some((groups, _)) = self.coming.take() {
            self.keepalived = groups;
            self.replan(now);
        }
    }

    /// Goes by the configuration and by what keepalived runs, and keeps what is known of all that stays as it was.
    pub(super) fn replan(&mut self, now: Moment) {
        let plan = plan(&self.config, &self.keepalived);
        let mut old_groups = mem::take(&mut self.groups);
        let mut old_addresses = mem::take(&mut self.addresses);
        let mut old_bindings = mem::take(&mut self.bindings);
        for planned in plan.groups {
            let (is_renewed, mut group) = match old_groups.remove(&planned.name) {
                Some(group) if group.vrid == planned.vrid && group.disabled == planned.disabled => (false, group),
                _ => {
                    let paused_until = self.pauses.get(&planned.name).copied();
                    let life_after = now.max(settled(self.stalled, planned.advertise_interval));
                    (true, Group { paused_until, ..Group::new(now, life_after, &planned) })
                }
            };
            let is_master = group.acts() && group.belief.vrrp() == VrrpState::Master;
            group.advertise_interval = planned.advertise_interval;
            group.peers = planned.peers;
            group.addresses = planned.addresses.iter().map(|a| a.address).collect();
            group.addresses.sort_unstable();
            group.problems = planned.problems;
            for wanted in planned.addresses {
                let binding = old_bindings.remove(&wanted.interface).unwrap_or_default();
                let binding = self.bindings.entry(wanted.interface.clone()).or_insert(binding);
                let behind = binding.eni.as_ref().map(|eni| &eni.id);
                let ip = wanted.address;
                let (is_new, mut address) = match old_addresses.remove(&ip) {
                    Some(mut address) if address.group == planned.name => {
                        address.replan(now, wanted, behind);
                        (false, address)
                    }
                    old => (true, Address::new(planned.name.clone(), wanted, behind).after(old)),
                };
                if is_new {
                    let before = |p: &Past| p.group == address.group && p.address == ip;
                    if let Some(place) = self.past.iter().position(before) {
                        let Past { thefts, contested, .. } = self.past.swap_remove(place);
                        let interval = self.config.global.verify_interval.duration();
                        address.contest = Contest::resumed(now, &thefts, &contested, interval);
                    }
                    address.local_since = Some(now);
                    if is_master {
                        address.phase = Phase::Appearing { since: now };
                    }
                } else if is_renewed {
                    address.rest();
                }
                self.addresses.insert(ip, address);
            }
            self.groups.insert(planned.name, group);
        }
        let groups = &self.groups;
        self.peers.retain(|peer, _| groups.values().any(|g| g.peers.contains(peer)));
        for binding in self.bindings.values_mut().filter(|b| b.eni.is_none() && !b.asked) {
            binding.next = Some(now);
        }
        self.sweep.due = now;
    }

    pub(super) fn lines(&mut self, now: Moment, lines: &[Line]) {
        self.life = Some(now);
        for line in lines {
            let is_run = self.groups.get(&line.group).is_some_and(|g| g.vrid.is_some());
            if !is_run && self.is_coming(&line.group) {
                self.count_coming(now);
            }
            let is = line.state.vrrp();
            let interval = self.groups.get(&line.group).map(|g| g.advertise_interval);
            if is == VrrpState::Master && interval.is_some_and(|interval| now < settled(self.stalled, interval)) {
                self.doubt_but(now, &line.group, Cause::StoodStill, Some(is));
            } else {
                self.line(now, line);
            }
        }
    }

    pub(super) fn is_coming(&self, group: &GroupName) -> bool {
        self.coming.as_ref().is_some_and(|(groups, _)| groups.groups.iter().any(|g| g.name == *group))
    }

    pub(super) fn line(&mut self, now: Moment, line: &Line) {
        let Some(group) = self.groups.get_mut(&line.group) else {
            return;
        };
        let was = group.belief.vrrp();
        let is = line.state.vrrp();
        group.line = Some((now, is));
        let quiet = group.rx_lower.is_none_or(|last| last.until(now) > RX_QUIET);
        if line.state == NotifyState::MasterRxLowerPri {
            group.rx_lower = Some(now);
        }
        group.believe(now, Belief::Known { vrrp: is, cause: Cause::Line(line.state) });
        let read = group.rx_read.is_none_or(|last| last.until(now) >= RX_READ);
        let acts = group.acts();
        let changed = was != is;
        let claim = is == VrrpState::Master && (line.state == NotifyState::Master || quiet);
        let read = line.state == NotifyState::MasterRxLowerPri && !claim && read;
        if read {
            group.rx_read = Some(now);
        }
        for ip in group.addresses.clone() {
            let Some(address) = self.addresses.get_mut(&ip) else {
                continue;
            };
            // The time-outs of an outage before it are none of this mastership's.
            if (changed || claim)
                && let Some(sender) = address.eni.as_ref().and_then(|eni| self.senders.get_mut(eni))
            {
                sender.timeouts = 0;
            }
            if is != VrrpState::Master {
                address.rest();
            } else if !acts {
                // A pause or `disable`: the state is known, and nothing is done.
            } else if claim {
                if line.state == NotifyState::Master {
                    address.grace = None;
                }
                address.claim_now(now);
            } else if changed {
                // A repeated MASTER_RX_LOWER_PRI, in a state that was not MASTER: the line proves MASTER, not a theft.
                address.adopt(now);
            } else if read {
                address.outranked_other = true;
                address.read_at(now);
            }
        }
        if is != VrrpState::Master {
            self.end_contests_of(&line.group);
        }
        if changed {
            self.note(Note::Transition {
                group: line.group.clone(),
                from: was,
                to: is,
                cause: Cause::Line(line.state),
            });
        }
    }

    /// Lines of the past: the last one of each group is a hint, and the interface decides.
    pub(super) fn backlog(&mut self, now: Moment, lines: &[Line], was_full: bool) {
        let cause = if was_full { Cause::PipeFull } else { Cause::New };
        let mut last: BTreeMap<&GroupName, NotifyState> = BTreeMap::new();
        if !was_full {
            last.extend(lines.iter().map(|l| (&l.group, l.state)));
        }
        let named: Vec<GroupName> = self.groups.keys().filter(|g| was_full || last.contains_key(g)).cloned().collect();
        for name in named {
            let hint = last.get(&name).map(|s| s.vrrp());
            self.doubt_but(now, &name, cause, hint);
        }
        // A BACKUP that nobody was there to hear of ends a contest all the same.
        lines.iter().filter(|l| l.state.vrrp() != VrrpState::Master).for_each(|l| self.end_contests_of(&l.group));
    }

    pub(super) fn writer(&mut self, now: Moment, there: bool) {
        match (there, self.writer_gone) {
            (false, None) => self.writer_gone = Some(now),
            (true, Some(_)) => {
                self.writer_gone = None;
                self.need_life_after(now);
            }
            _ => {}
        }
    }

    pub(super) fn local(&mut self, now: Moment, addresses: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>, asked: bool) {
        let appeared: Vec<Ipv4Addr> =
            addresses.iter().filter(|(ip, on)| self.local.get(ip) != Some(on)).map(|(ip, _)| *ip).collect();
        let before = mem::replace(&mut self.local, addresses);
        for (ip, address) in &mut self.addresses {
            if address.is_there(before.get(ip)) != address.is_there(self.local.get(ip)) {
                address.local_since = Some(now);
            }
        }
        // Who has put an address there that went and came is not known yet: not the one who had put it there before.
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
        if asked {
            self.look_asked = None;
            self.looked(now);
        }
    }

    /// The local addresses were read anew: a guarded claim that was only waiting for this may go, or may not be.
    pub(super) fn looked(&mut self, now: Moment) {
        let mut missing = Vec::new();
        for (ip, address) in &mut self.addresses {
            let due = matches!(address.phase, Phase::Wanted { due } if due <= now);
            let is_there = address.is_there(self.local.get(ip));
            let Some(guard) = address.guard.as_mut().filter(|_| due) else {
                continue;
            };
            if is_there {
                guard.looked = Some(now);
            } else {
                address.rest();
                address.phase = Phase::Appearing { since: now };
                missing.push(Note::NotLocal { group: address.group.clone(), address: *ip });
            }
        }
        missing.into_iter().for_each(|note| self.note(note));
    }

    pub(super) fn pause(&mut self, now: Moment, name: &GroupName, until: Moment) {
        self.pauses.insert(name.clone(), until);
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        group.paused_until = Some(until);
        let vrrp = group.belief.vrrp();
        self.rest(name);
        self.note(Note::Transition { group: name.clone(), from: vrrp, to: vrrp, cause: Cause::Paused });
        self.sweep.due = self.sweep.due.min(now + STANDBY_INTERVAL);
    }

    pub(super) fn resume(&mut self, now: Moment, name: &GroupName) {
        self.pauses.remove(name);
        if let Some(group) = self.groups.get_mut(name)
            && group.paused_until.take().is_some()
        {
            self.doubt(now, name, Cause::PauseOver);
        }
    }

    pub(super) fn force(&mut self, now: Moment, name: &GroupName) {
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

    pub(super) fn retry_permanent(&mut self, now: Moment) {
        for address in self.addresses.values_mut() {
            // A standby's too: that it failed before says nothing any more of what it could do now.
            let was_permanent = address.permanent.take().is_some();
            if let Phase::Wanted { due } = &mut address.phase
                && was_permanent
            {
                *due = now;
            }
        }
        for sender in self.senders.values_mut() {
            sender.second_chance = false;
        }
        if self.sweep.error.is_some() {
            self.sweep.due = now;
        }
    }
}
