//! States of VRRP that are not known, and what the addresses on the interface show about them.
//!
//! A MASTER line can be lost: another process read the FIFO, or the pipe was full. The address on the interface then shows
//! that the group is MASTER. But a person can add the address to a standby's interface by hand, and that does not make it
//! MASTER. Both look the same: the address is where keepalived puts it, and the last line says BACKUP. The difference is
//! who has put it there, and the kernel says so: its notification of a new address names the netlink socket that asked for
//! it (`nlmsg_pid`, net/ipv4/devinet.c `rtmsg_ifa`). keepalived opens its socket when its VRRP process starts, and keeps
//! it; that of ip(8) is closed when the command ends. Three rules follow.
//!
//! 1. A group that is not MASTER, by a line or otherwise, becomes UNKNOWN when one of its addresses has appeared on the
//!    interface since the group's last line, put there by a process that still runs a second later ([`PutBy::Process`]).
//!    Nothing is claimed on that alone: keepalived must give a sign of life after it, EC2 is read, and the address is looked
//!    at again, as in every other UNKNOWN state. A line that comes within that second decides.
//! 2. An address that a command put there ([`PutBy::Command`]) proves nothing, whatever made the state UNKNOWN, until a
//!    later line says MASTER: keepalived takes over an address that is there already.
//! 3. Who put an address there is not known where it was there when the agent started, or was listed because notifications
//!    were lost. It counts as evidence where the state is UNKNOWN, and not against a line.
//!
//! Where an address and VRRP disagree and no rule applies, that is reported and not acted on: [`Misplaced`]. A BACKUP line
//! comes some milliseconds before or after keepalived removes the address; it is newer than the appearance in either case,
//! so no rule applies.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Machine;
use crate::claim::Moment;
use crate::claim::address::{Address, Phase};
use crate::claim::group::{Belief, Group};
use crate::claim::message::{Cause, Misplaced, Note, PutBy};
use crate::model::ids::{GroupName, InterfaceName};
use crate::model::vrrp::VrrpState;

/// The line comes within a millisecond of the address. Without it for that long, it may be lost.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// keepalived does something for a group once per advertisement interval. A sign of life is missing when that much more time
/// has passed.
const LIFE_LATE: Duration = Duration::from_secs(2);
/// How much longer than an advertisement interval a claim waits for a sign of life.
const LIFE_PATIENCE: Duration = Duration::from_secs(1);
/// Groups that advertise more often than that are not held to it.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// An address that is on its interface against VRRP for that long, or is not, is not on its way.
pub(super) const MISPLACED: Duration = Duration::from_secs(3);
/// How soon keepalived is looked at again while something waits for its sign of life.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// The same while something may wait for it later on. What was seen is never older than an advertisement interval and twice
/// this, which is less than a claim needs.
const LOOK_LATER: Duration = Duration::from_millis(500);
/// The same at last, where nothing comes of it.
const LOOK_SELDOM: Duration = Duration::from_secs(2);

/// What keepalived may need beyond an advertisement interval to hear the other router, and to write a line about it.
const HEARS: Duration = Duration::from_millis(500);

/// Until when a MASTER of keepalived may be its stale timer's, after a stall. It stood still as well, and found that timer
/// run out before it could hear the other router; with the next advertisement at the latest it takes it back.
pub(super) fn settled(stalled: Option<Moment>, advertise_interval: Duration) -> Moment {
    stalled.map_or_else(Moment::default, |stalled| stalled + advertise_interval + HEARS)
}

/// A retry, and a claim that no line asks for, need a sign of life of keepalived that is younger.
pub(super) fn life_lasts(advertise_interval: Duration) -> Duration {
    advertise_interval.max(SHORTEST_INTERVAL) + LIFE_LATE
}

/// A first attempt that is due for that long needs a sign of life too, and no claim waits longer for it before the state
/// counts as unknown.
pub(super) fn life_patience(advertise_interval: Duration) -> Duration {
    advertise_interval.max(SHORTEST_INTERVAL) + LIFE_PATIENCE
}

impl Machine {
    /// How soon to look for a sign of life of keepalived again, where one is of interest. The longer nothing has come of it,
    /// the less often.
    pub fn look_again(&self, now: Moment) -> Option<Duration> {
        if self.writer_gone.is_some() {
            return None;
        }
        let since = |since: Moment| (since.until(now) / 20).clamp(LOOK_SOON, LOOK_SELDOM);
        let groups = self.groups.values().filter(|g| g.is_looked_at()).filter_map(|g| match g.belief {
            Belief::Unknown { life_after, .. } => Some(since(life_after)),
            Belief::Known { .. } => None,
        });
        let addresses = self.addresses.values().filter_map(|a| match &a.phase {
            Phase::Rest | Phase::Held { suspect: None, .. } => None,
            Phase::Held { suspect: Some(suspect), .. } => Some(since(suspect.since)),
            Phase::Appearing { since: begun } | Phase::Adopting { since: begun } => Some(since(*begun)),
            // Its retry needs one that is recent, whenever that comes.
            Phase::InFlight(_) => Some(LOOK_LATER),
            Phase::Wanted { due } => {
                let is_near = now.until(*due) <= life_lasts(self.interval(&a.group));
                Some(if is_near && !self.has_life(now, a) { LOOK_SOON } else { LOOK_LATER })
            }
        });
        groups.chain(addresses).min()
    }

    /// How often keepalived does something for a group.
    pub(super) fn interval(&self, group: &GroupName) -> Duration {
        self.groups.get(group).map(|g| g.advertise_interval).unwrap_or_default()
    }

    /// keepalived's VRRP process is there, and sleeps since that moment. A group that waits to hear the other router, or
    /// advertises, has a timer; without one, and without its addresses here, it is in FAULT.
    pub(super) fn quiet(&mut self, now: Moment, since: Moment) {
        let over = |g: &Group| match g.belief {
            Belief::Unknown { life_after, .. } => since.max(life_after) + life_lasts(g.advertise_interval) <= now,
            Belief::Known { .. } => false,
        };
        let is_absent = |g: &Group| !g.addresses.iter().any(|ip| self.shows_master(ip));
        let faulty = |g: &Group| g.is_looked_at() && over(g) && is_absent(g);
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| faulty(g)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            let to = match group.belief {
                Belief::Unknown { hint: Some(VrrpState::Stop), .. } => VrrpState::Stop,
                _ => VrrpState::Fault,
            };
            group.believe(now, Belief::Known { vrrp: to, cause: Cause::Quiet });
            self.note(Note::Transition { group: name.clone(), from: VrrpState::Unknown, to, cause: Cause::Quiet });
            self.end_contests_of(&name);
        }
    }

    pub(super) fn stood_still(&mut self, now: Moment) {
        self.stalled = Some(now);
        self.need_life_after(now);
        let masters: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| g.belief.vrrp() == VrrpState::Master).map(|(n, _)| n.clone()).collect();
        masters.iter().for_each(|name| self.doubt(now, name, Cause::StoodStill));
    }

    /// Where the state is not known, only a sign of life from after `now` counts.
    pub(super) fn need_life_after(&mut self, now: Moment) {
        let stalled = self.stalled;
        for group in self.groups.values_mut() {
            group.needs_life_after(now.max(settled(stalled, group.advertise_interval)));
        }
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
            // What was lost may have named another state.
            _ if why == Cause::PipeFull => None,
            Belief::Known { vrrp, .. } => Some(*vrrp),
            Belief::Unknown { hint, .. } => *hint,
        };
        let life_after = now.max(settled(self.stalled, group.advertise_interval));
        group.believe(now, Belief::Unknown { why, life_after, hint });
        self.rest(name);
        if from != VrrpState::Unknown {
            self.note(Note::Transition { group: name.clone(), from, to: VrrpState::Unknown, cause: why });
        }
    }

    /// As [`Self::doubt`], with what the last line names, if one does.
    pub(super) fn doubt_but(&mut self, now: Moment, name: &GroupName, why: Cause, hint: Option<VrrpState>) {
        self.doubt(now, name, why);
        if let Some(group) = self.groups.get_mut(name) {
            group.line = hint.map(|vrrp| (now, vrrp)).or(group.line);
            if let Belief::Unknown { hint: kept, .. } = &mut group.belief {
                *kept = hint;
            }
        }
    }

    pub(super) fn rest(&mut self, name: &GroupName) {
        for ip in self.groups.get(name).iter().flat_map(|g| &g.addresses) {
            if let Some(address) = self.addresses.get_mut(ip) {
                address.rest();
            }
        }
    }

    /// Claims that are due, without the sign of life that they need.
    pub(super) fn need_life(&mut self, now: Moment) {
        let mut silent = BTreeSet::new();
        for address in self.addresses.values() {
            if let Phase::Wanted { due } = address.phase
                && due <= now
                && !self.has_life(now, address)
                && (address.is_retry() || due + life_patience(self.interval(&address.group)) <= now)
            {
                silent.insert(address.group.clone());
            }
        }
        silent.iter().for_each(|name| self.doubt(now, name, Cause::NoLife));
    }

    /// Whether keepalived has given the sign of life that a claim of the address needs, unless a line has just asked
    /// for it.
    pub(super) fn has_life(&self, now: Moment, address: &Address) -> bool {
        self.life.is_some_and(|life| {
            life.until(now) < life_lasts(self.interval(&address.group))
                && address.guard.as_ref().is_none_or(|guard| guard.life_after <= life)
        })
    }

    /// Groups whose state is not known, and addresses that were not looked after before: what the interface says.
    pub(super) fn find_out(&mut self, now: Moment) {
        if self.writer_gone.is_some() {
            return;
        }
        let life = self.life;
        let alive = |g: &Group| matches!(g.belief, Belief::Unknown { life_after, .. } if life >= Some(life_after));
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, g)| g.is_looked_at() && alive(g)).map(|(n, _)| n.clone()).collect();
        for name in names {
            let Some(group) = self.groups.get(&name) else {
                continue;
            };
            let is_master = group.addresses.iter().any(|ip| self.shows_master(ip));
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            let Belief::Unknown { hint, life_after, .. } = group.belief else {
                continue;
            };
            let to = match hint {
                _ if is_master => VrrpState::Master,
                Some(hint @ (VrrpState::Fault | VrrpState::Stop)) => hint,
                _ => VrrpState::Backup,
            };
            group.believe(now, Belief::Known { vrrp: to, cause: Cause::Evidence });
            let appearing = group.addresses.iter().filter(|_| is_master && group.acts());
            for ip in appearing {
                if let Some(address) = self.addresses.get_mut(ip) {
                    address.phase = Phase::Appearing { since: life_after };
                }
            }
            self.note(Note::Transition { group: name.clone(), from: VrrpState::Unknown, to, cause: Cause::Evidence });
            if !is_master {
                self.end_contests_of(&name);
            }
        }
        let appeared: Vec<Ipv4Addr> = self
            .addresses
            .iter()
            .filter(|(ip, a)| {
                matches!(a.phase, Phase::Appearing { since } if life >= Some(since)) && self.shows_master(ip)
            })
            .map(|(ip, _)| *ip)
            .collect();
        for ip in appeared {
            if let Some(address) = self.addresses.get_mut(&ip) {
                address.adopt(now);
            }
        }
    }

    /// A standby whose address keepalived has put on the interface without a line: it is looked at anew.
    pub(super) fn doubt_standbys(&mut self, now: Moment) {
        let over = self.unannounced().filter(|(_, until)| *until <= now).map(|(group, _)| group.clone());
        let over: Vec<GroupName> = over.collect();
        over.iter().for_each(|name| self.doubt(now, name, Cause::NoLine));
    }

    /// Standbys with an address that a process has put on the interface since their last line, and until when the line may
    /// take to come.
    pub(super) fn unannounced(&self) -> impl Iterator<Item = (&GroupName, Moment)> {
        let is_standby = |g: &Group| matches!(g.belief, Belief::Known { vrrp, .. } if vrrp != VrrpState::Master);
        self.groups.iter().filter(move |(_, g)| is_standby(g)).flat_map(move |(name, group)| {
            let put = |ip: &&Ipv4Addr| self.shows_master(ip) && self.put_by(**ip) == Some(PutBy::Process);
            group.addresses.iter().filter(put).filter_map(move |ip| {
                let since = self.addresses.get(ip)?.local_since?;
                group.line.is_none_or(|(line, _)| line < since).then_some((name, since + LINE_PATIENCE))
            })
        })
    }

    /// Whether the address is on an interface, and that says that its group is MASTER.
    fn shows_master(&self, ip: &Ipv4Addr) -> bool {
        self.is_local(*ip)
            && self.is_for_vrrp_alone(ip)
            && (self.put_by(*ip) != Some(PutBy::Command) || self.addresses.get(ip).is_some_and(|a| self.took_over(a)))
    }

    /// Whether keepalived alone puts the address on its interface.
    fn is_for_vrrp_alone(&self, ip: &Ipv4Addr) -> bool {
        self.addresses.get(ip).is_some_and(|address| !address.outside_vrrp)
            && !self.bindings.values().filter_map(|b| b.eni.as_ref()).any(|eni| eni.primary == *ip)
    }

    /// Whether the last line says MASTER, and the address was there already: keepalived then has it for its own.
    fn took_over(&self, address: &Address) -> bool {
        let line = self.groups.get(&address.group).and_then(|g| g.line);
        // The line may be read first.
        line.is_some_and(|(at, vrrp)| vrrp == VrrpState::Master && address.local_since <= Some(at + LINE_PATIENCE))
    }

    /// Who has put the address where keepalived puts it.
    fn put_by(&self, ip: Ipv4Addr) -> Option<PutBy> {
        let address = self.addresses.get(&ip)?;
        let on = |name: &InterfaceName| address.is_there(Some(&BTreeSet::from([name.clone()])));
        self.put_by.get(&ip)?.iter().filter(|(name, _)| on(name)).map(|(_, by)| *by).max()
    }

    /// Whether the address is on its interface against what VRRP says, or is not, and since when that is so.
    pub(in crate::claim) fn misplaced(&self, ip: Ipv4Addr, address: &Address) -> Option<(Misplaced, Moment)> {
        let group = self.groups.get(&address.group).filter(|g| g.acts())?;
        let wrong = match (&group.belief, &address.phase) {
            (Belief::Known { vrrp: VrrpState::Master, .. }, Phase::Held { .. }) if !self.is_local(ip) => {
                Misplaced::Missing
            }
            (Belief::Known { vrrp: VrrpState::Master, .. } | Belief::Unknown { .. }, _) => return None,
            _ if self.is_local(ip) && self.is_for_vrrp_alone(&ip) => Misplaced::Left,
            _ => return None,
        };
        Some((wrong, address.local_since?.max(group.since)))
    }

    /// The same, once it is not just on its way.
    pub(in crate::claim) fn stays_misplaced(
        &self,
        now: Moment,
        ip: Ipv4Addr,
        address: &Address,
    ) -> Option<(Misplaced, Moment)> {
        self.misplaced(ip, address).filter(|(_, since)| *since + MISPLACED <= now)
    }

    /// Whether the address is on its interface as VRRP says, or is not.
    fn is_in_its_place(&self, ip: Ipv4Addr, address: &Address) -> bool {
        self.groups.get(&address.group).filter(|g| g.acts()).is_some_and(|group| match group.belief {
            Belief::Known { vrrp: VrrpState::Master, .. } => self.is_local(ip),
            Belief::Known { .. } => !(self.is_local(ip) && self.is_for_vrrp_alone(&ip)),
            Belief::Unknown { .. } => false,
        })
    }

    /// Says what is wrong with the places of addresses, once, and when that is over.
    pub(super) fn judge_places(&mut self, now: Moment) {
        let news: Vec<_> = self
            .addresses
            .iter()
            .map(|(ip, a)| (*ip, a, self.stays_misplaced(now, *ip, a).map(|(wrong, _)| wrong)))
            .filter(|(ip, a, wrong)| a.misplaced != *wrong && (wrong.is_some() || self.is_in_its_place(*ip, a)))
            .map(|(ip, _, wrong)| (ip, wrong))
            .collect();
        for (ip, wrong) in news {
            let Some(address) = self.addresses.get_mut(&ip) else {
                continue;
            };
            address.misplaced = wrong;
            let (group, interface) = (address.group.clone(), address.held_on.clone());
            self.note(Note::Place { group, address: ip, interface, wrong });
        }
    }

    /// A contest ends with BACKUP.
    pub(super) fn end_contests_of(&mut self, name: &GroupName) {
        for ip in self.groups.get(name).map(|g| g.addresses.clone()).unwrap_or_default() {
            for taker in self.addresses.get_mut(&ip).map(|address| address.contest.end()).unwrap_or_default() {
                self.note(Note::ContestOver { group: name.clone(), address: ip, taker });
            }
        }
    }

    pub(super) fn end_contests(&mut self, now: Moment) {
        let interval = self.config.global.verify_interval.duration();
        let mut over = Vec::new();
        for (ip, address) in &mut self.addresses {
            let Some(since) = address.confirmed_since else {
                continue;
            };
            for taker in address.contest.end_due(now, since, interval) {
                over.push(Note::ContestOver { group: address.group.clone(), address: *ip, taker });
            }
        }
        over.into_iter().for_each(|note| self.note(note));
    }

    /// Whether the address is where keepalived puts it.
    pub(in crate::claim) fn is_local(&self, ip: Ipv4Addr) -> bool {
        self.addresses.get(&ip).is_some_and(|address| address.is_there(self.local.get(&ip)))
    }
}
