//! States that are not known, and what the interface says of them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Machine;
use crate::claim::Moment;
use crate::claim::address::{Address, Phase};
use crate::claim::group::{Belief, Group};
use crate::claim::message::{Cause, Note};
use crate::names::GroupName;
use crate::status::report::Vrrp;

/// The line comes within a millisecond of the address. Without it for that long, it may be lost.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// A retry needs a sign of life of keepalived that is not older.
pub(super) const LIFE: Duration = Duration::from_secs(3);
/// A guarded claim waits that long for its sign of life before the state counts as unknown.
pub(super) const LIFE_PATIENCE: Duration = Duration::from_secs(2);

impl Machine {
    pub(super) fn stood_still(&mut self, now: Moment) {
        for group in self.groups.values_mut() {
            group.needs_life_after(now);
        }
        let masters: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| g.belief.vrrp() == Vrrp::Master).map(|(n, _)| n.clone()).collect();
        masters.iter().for_each(|name| self.doubt(now, name, Cause::StoodStill));
    }

    pub(super) fn doubt_all(&mut self, now: Moment, why: Cause) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.doubt(now, name, why));
    }

    /// The state of a group is not to be relied on any more; its return needs a sign of life from after `now`.
    pub(super) fn doubt(&mut self, now: Moment, name: &GroupName, why: Cause) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let from = group.belief.vrrp();
        let hint = match &group.belief {
            Belief::Known { vrrp, .. } => Some(*vrrp),
            Belief::Unknown { hint, .. } => *hint,
        };
        group.believe(now, Belief::Unknown { why, life_after: now, hint });
        self.rest(name);
        if from != Vrrp::Unknown {
            self.note(Note::Transition { group: name.clone(), from, to: Vrrp::Unknown, cause: why });
        }
    }

    pub(super) fn rest(&mut self, name: &GroupName) {
        self.addresses.values_mut().filter(|a| a.group == *name).for_each(Address::rest);
    }

    /// Retries and guarded claims that are due, without the sign of life that they need.
    pub(super) fn need_life(&mut self, now: Moment) {
        let life = self.life;
        let recent = life.is_some_and(|l| l.until(now) <= LIFE);
        let mut silent = BTreeSet::new();
        for address in self.addresses.values() {
            if let Phase::Wanted { due } = address.phase
                && due <= now
            {
                let unguarded = address.guard.as_ref().is_some_and(|g| life < Some(g.life_after));
                if (address.failed > 0 && !recent) || (unguarded && due + LIFE_PATIENCE <= now) {
                    silent.insert(address.group.clone());
                }
            }
        }
        silent.iter().for_each(|name| self.doubt(now, name, Cause::NoLife));
    }

    /// Groups whose state is not known, and addresses that were not looked after before: what the interface says.
    pub(super) fn find_out(&mut self, now: Moment) {
        if self.writer_gone.is_some() {
            return;
        }
        let life = self.life;
        let alive = |g: &Group| matches!(g.belief, Belief::Unknown { life_after, .. } if life >= Some(life_after));
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| g.acts() && alive(g)).map(|(n, _)| n.clone()).collect();
        for name in names {
            let is_master = self
                .addresses
                .iter()
                .any(|(ip, a)| a.group == name && self.local.contains(ip) && self.is_evidence(*ip, a));
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            let Belief::Unknown { hint, life_after, .. } = group.belief else {
                continue;
            };
            let to = match hint {
                _ if is_master => Vrrp::Master,
                Some(hint @ (Vrrp::Fault | Vrrp::Stop)) => hint,
                _ => Vrrp::Backup,
            };
            group.believe(now, Belief::Known { vrrp: to, cause: Cause::Evidence });
            self.note(Note::Transition { group: name.clone(), from: Vrrp::Unknown, to, cause: Cause::Evidence });
            for (_, address) in self.addresses.iter_mut().filter(|(_, a)| a.group == name) {
                if is_master {
                    address.phase = Phase::Appearing { since: life_after };
                } else {
                    address.contest.end();
                }
            }
        }
        let appeared: Vec<Ipv4Addr> = self
            .addresses
            .iter()
            .filter(|(ip, a)| {
                matches!(a.phase, Phase::Appearing { since } if life >= Some(since))
                    && self.local.contains(ip)
                    && self.is_evidence(**ip, a)
            })
            .map(|(ip, _)| *ip)
            .collect();
        for ip in appeared {
            if let Some(address) = self.addresses.get_mut(&ip) {
                address.adopt(now);
            }
        }
    }

    /// A standby that no line has named, and whose address has appeared: it is looked at anew.
    pub(super) fn doubt_standbys(&mut self, now: Moment) {
        let over = self.unannounced().filter(|(_, until)| *until <= now).map(|(group, _)| group.clone());
        let over: Vec<GroupName> = over.collect();
        over.iter().for_each(|name| self.doubt(now, name, Cause::NoLine));
    }

    /// Standbys by evidence with an address on an interface, and until when the line may take to come.
    pub(super) fn unannounced(&self) -> impl Iterator<Item = (&GroupName, Moment)> {
        self.addresses.iter().filter_map(|(ip, address)| {
            let group = self.groups.get(&address.group)?;
            let by_evidence =
                matches!(group.belief, Belief::Known { vrrp, cause: Cause::Evidence } if vrrp != Vrrp::Master);
            let here = by_evidence && self.is_local(*ip) && self.is_evidence(*ip, address);
            here.then_some((&address.group, address.local_since? + LINE_PATIENCE))
        })
    }

    /// Whether seeing the address on an interface says that the group is MASTER.
    pub(super) fn is_evidence(&self, ip: Ipv4Addr, address: &Address) -> bool {
        !address.outside_vrrp && !self.bindings.values().filter_map(|b| b.eni.as_ref()).any(|e| e.primary == ip)
    }

    pub(super) fn end_contests(&mut self, now: Moment) {
        let mut over = Vec::new();
        for (ip, address) in &mut self.addresses {
            let ends = address.confirmed_since.and_then(|since| address.contest.ends(since));
            if ends.is_some_and(|ends| ends <= now) && address.contest.end() {
                over.push(Note::ContestOver { group: address.group.clone(), address: *ip });
            }
        }
        over.into_iter().for_each(|note| self.note(note));
    }

    /// Whether the address is on a local interface.
    pub(in crate::claim) fn is_local(&self, ip: Ipv4Addr) -> bool {
        self.local.contains(&ip)
    }
}
