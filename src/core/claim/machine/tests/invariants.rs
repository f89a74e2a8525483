//! What must hold at every step, decided from the machine's inputs and what it wants done, and from nothing inside
//! of it. Where the rules leave room (when exactly a new set of groups counts), the judge is lenient.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::harness::{ms, secs};
use crate::claim::{Action, BootInstant, Cause, ClaimId, ClaimRequest, DryRunId, Event, LogEvent, PutBy, ReadId};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::Eni;
use crate::model::ids::{EniId, GroupName, InterfaceName, RouteTableId};
use crate::model::resource::{Holder, Kind, Resource, Route};
use crate::model::vrrp::{NotifyEvent, NotifyState, VrrpState};

/// B8: the FIFO without a writer for that long.
const WRITER_GONE_TIMEOUT: Duration = secs(2);
/// B26 and B2: a timer is never further away than 2 s, and one that is over 2 s late tells of a stall.
pub const STALL: Duration = secs(4);
/// B2: how old liveness may be for a retry, and for a claim that no notify event has caused, beyond the time in which
/// keepalived does nothing for the group.
const LIVENESS_MAX_AGE: Duration = secs(2);
/// How often keepalived's groups advertise here.
const ADVERTISEMENT: Duration = secs(1);
/// A look at the interface right before a claim.
const LOOKED: Duration = ms(100);
/// B4: the age of the first claim at which the second may start.
const SECOND: Duration = ms(20);

/// The claims of routes and Elastic IPs in flight, without those of before a line; and with them.
const SINGLE: (usize, usize) = (8, 16);

/// The dry runs in flight, and the time between two.
const DRY_RUNS: (usize, Duration) = (2, secs(1));

/// What the inputs so far say of a group.
#[derive(Debug, Clone, Copy, Default)]
struct GroupInputs {
    /// The state of the last notify event, unless it was invalidated.
    notified: Option<VrrpState>,
    /// Since when the local addresses decide.
    invalidated: Option<BootInstant>,
}

#[derive(Debug, Default)]
struct Moved {
    /// Which line or person last asked for a claim, and when, until one that began later was acknowledged.
    asked: Option<(u64, BootInstant)>,
    /// When a claim last failed, since it was asked for or acknowledged.
    failed: Option<BootInstant>,
    /// The first read that disagreed, since the last one that agreed or the last acknowledgement.
    disagreed: Option<BootInstant>,
    /// A read failed since then.
    unread: bool,
    /// Who owns it is found out anew: the proof that keepalived is alive came before the read.
    adopted: bool,
}

/// What is in flight may be of before: a line or a person asked for a claim since, or the group may have left MASTER.
#[derive(Debug, Default, Clone, Copy)]
struct Superseded {
    at: BootInstant,
    /// A line or a person asked.
    asked: BootInstant,
}

#[derive(Debug)]
struct InFlight {
    began: BootInstant,
    eni: EniId,
    kind: Kind,
    resources: Vec<Resource>,
    /// How often a claim had been asked for.
    asks: u64,
}

#[derive(Debug, Default)]
pub struct Invariants {
    groups: BTreeMap<GroupName, GroupInputs>,
    moved: BTreeMap<Resource, Moved>,
    superseded: BTreeMap<Resource, Superseded>,
    /// What the last read has shown of each resource.
    shown: BTreeMap<Resource, Option<Holder>>,
    /// The last set of groups and the one before it.
    sets: [Groups; 2],
    /// The set is new: until when the machine may find out anew at any moment.
    changing: BootInstant,
    paused: BTreeMap<GroupName, BootInstant>,
    heard: BTreeMap<GroupName, BootInstant>,
    enis: BTreeMap<InterfaceName, EniId>,
    /// Interfaces whose ENI is not known: what is behind them cannot be read.
    blind: BTreeSet<InterfaceName>,
    writer_gone: Option<BootInstant>,
    /// When a group was last spoken of, and when an address of those on the interfaces came.
    spoken: BTreeMap<GroupName, BootInstant>,
    came: BTreeMap<Ipv4Addr, BootInstant>,
    /// When a group was last said to be MASTER, however old that was.
    last_master_event: BTreeMap<GroupName, BootInstant>,
    /// The addresses that came while the FIFO had no writer.
    added_without_writer: BTreeSet<Ipv4Addr>,
    /// What a process has put there.
    put: BTreeSet<Ipv4Addr>,
    liveness: Option<BootInstant>,
    local: BTreeSet<Ipv4Addr>,
    local_read: Option<BootInstant>,
    claims: BTreeMap<ClaimId, InFlight>,
    /// How often a claim was asked for.
    asks: u64,
    reads: BTreeMap<ReadId, Vec<Resource>>,
    dry_runs: BTreeSet<DryRunId>,
    last_dry_run: Option<BootInstant>,
    /// The claims of addresses that an ENI may still send, and those of each other kind; and when that was so.
    rate_limiter: BTreeMap<(Kind, Option<EniId>), (f64, BootInstant)>,
    config: Config,
    /// After a stall, a MASTER that keepalived speaks of before that moment may be its stale timer's: it had no time to hear
    /// the other router.
    stale_until: BootInstant,
}

impl Invariants {
    /// Another agent starts: it knows nothing.
    pub fn started(&mut self, now: BootInstant) {
        *self = Self { writer_gone: Some(now), ..Self::default() };
    }

    /// This router has stood still for that long, and goes on. What the machine makes of it is its own affair: nothing
    /// here asks for its timers.
    pub fn thawed(&mut self, now: BootInstant, stall: Duration) {
        if stall > STALL {
            self.stale_until = now + ADVERTISEMENT;
            self.invalidate_all(now);
        }
    }

    /// The machine is about to be told something; what had `waited` while this router stood still is of the past.
    pub fn before_event(&mut self, now: BootInstant, event: &Event, waited: bool) {
        if self.is_writerless(now) {
            self.invalidate_all(now);
        }
        let over: Vec<GroupName> =
            self.paused.iter().filter(|(_, until)| **until <= now).map(|(g, _)| g.clone()).collect();
        for name in over {
            self.paused.remove(&name);
            self.invalidate(now, &name);
        }
        match event {
            Event::Config(new) => {
                self.configured(new);
                for group in new.groups.iter().filter(|g| !self.config.groups.contains(g)) {
                    self.of(&group.name).into_iter().for_each(|id| self.superseded.entry(id).or_default().at = now);
                    self.groups.entry(group.name.clone()).or_default().invalidated.get_or_insert(now);
                }
                self.config = new.clone();
            }
            Event::Groups(groups) => {
                if *groups != self.sets[0] {
                    self.sets = [groups.clone(), std::mem::take(&mut self.sets[0])];
                    self.changing = now + secs(2);
                }
            }
            Event::Notify(lines) if waited => self.backlog(now, lines, false),
            Event::Notify(lines) => {
                self.liveness = Some(now);
                lines.iter().for_each(|line| self.line(now, line));
            }
            Event::Backlog { lines, was_full } => self.backlog(now, lines, *was_full),
            Event::FifoFull => self.invalidate_all(now),
            Event::Writer(true) => {
                if self.writer_gone.take().is_some() {
                    self.groups.values_mut().for_each(|inputs| inputs.invalidated = inputs.invalidated.and(Some(now)));
                }
            }
            Event::Writer(false) => self.writer_gone = self.writer_gone.or(Some(now)),
            Event::LocalAddresses { addresses, requested } => {
                let local: BTreeSet<Ipv4Addr> = addresses.keys().copied().collect();
                self.came.retain(|ip, _| local.contains(ip));
                self.came.extend(local.difference(&self.local).map(|ip| (*ip, now)));
                self.added_without_writer.retain(|ip| local.contains(ip) && self.local.contains(ip));
                let new = local.difference(&self.local).filter(|_| self.writer_gone.is_some());
                self.added_without_writer.extend(new.copied());
                self.local = local;
                if *requested {
                    self.local_read = Some(now);
                }
            }
            Event::PutBy(puts) => {
                let by_process = puts.iter().filter(|(_, on)| on.values().any(|by| *by == PutBy::Process));
                self.put = by_process.map(|(ip, _)| *ip).collect();
            }
            Event::Liveness { after } => self.liveness = self.liveness.max(Some(*after)),
            Event::Resolved { interface, eni: Ok(eni) } => self.resolved(now, interface, eni),
            Event::Claimed { id, result } => self.claimed(now, *id, result.is_ok()),
            Event::Read { id, result } => self.read(now, *id, result.as_ref().ok().map(|answer| &answer.holders)),
            Event::DryRun { id, .. } => assert!(self.dry_runs.remove(id), "an answer to a dry run in flight"),
            Event::Pause { group, until } => {
                self.paused.insert(group.clone(), *until);
            }
            Event::Resume(group) => {
                if self.paused.remove(group).is_some() {
                    self.invalidate(now, group);
                }
            }
            Event::Force(group) => self.ask(now, group),
            Event::Resolved { interface, eni: Err(_) } => {
                if !self.enis.contains_key(interface) {
                    self.blind.insert(interface.clone());
                }
            }
            Event::Restored(_)
            | Event::Instance(_)
            | Event::Inactive { .. }
            | Event::Hup
            | Event::Inspected(_)
            | Event::Proved(_)
            | Event::DryRunByOperator { .. }
            | Event::Denials(_)
            | Event::Network(_)
            | Event::Credentials(_)
            | Event::ReadNow
            | Event::Tick => {}
        }
        if now <= self.changing {
            let names = self.sets.iter().flat_map(|s| &s.groups).map(|g| &g.name);
            names.for_each(|name| {
                self.groups.entry(name.clone()).or_default().invalidated.get_or_insert(now);
            });
        }
    }

    /// Groups whose addresses another ENI takes: what a line asked for holds for that one too.
    fn configured(&mut self, new: &Config) {
        let before = |group: &GroupConfig| {
            let same = self.config.groups.iter().find(|g| g.name == group.name);
            same.and_then(|g| g.network_interface_id.clone())
        };
        let others: Vec<GroupName> =
            new.groups.iter().filter(|g| before(g) != g.network_interface_id).map(|g| g.name.clone()).collect();
        for id in others.iter().flat_map(|name| self.of(name)).collect::<Vec<_>>() {
            self.asks += 1;
            let asks = self.asks;
            let moved = self.moved(id);
            moved.adopted = true;
            moved.asked = moved.asked.map(|(_, when)| (asks, when));
        }
    }

    fn invalidate(&mut self, now: BootInstant, group: &GroupName) {
        let since = now.max(self.stale_until);
        self.groups.insert(group.clone(), GroupInputs { notified: None, invalidated: Some(since) });
        self.of(group).into_iter().for_each(|id| self.superseded.entry(id).or_default().at = now);
    }

    fn invalidate_all(&mut self, now: BootInstant) {
        let names: Vec<GroupName> = self.sets.iter().flat_map(|s| &s.groups).map(|g| g.name.clone()).collect();
        names.iter().for_each(|name| self.invalidate(now, name));
    }

    fn backlog(&mut self, now: BootInstant, lines: &[NotifyEvent], was_full: bool) {
        if was_full {
            self.invalidate_all(now);
        }
        for line in lines {
            if line.state.vrrp() == VrrpState::Master && !was_full {
                self.last_master_event.insert(line.group.clone(), now);
            }
            self.invalidate(now, &line.group);
        }
    }

    fn line(&mut self, now: BootInstant, line: &NotifyEvent) {
        if line.state.vrrp() == VrrpState::Master {
            self.last_master_event.insert(line.group.clone(), now);
        }
        if line.state.vrrp() == VrrpState::Master && now < self.stale_until {
            return self.invalidate(now, &line.group);
        }
        self.spoken.insert(line.group.clone(), now);
        let inputs = GroupInputs { notified: Some(line.state.vrrp()), invalidated: None };
        let was = self.groups.insert(line.group.clone(), inputs).unwrap_or_default();
        let quiet = self.heard.get(&line.group).is_none_or(|last| last.until(now) > secs(10));
        match line.state {
            NotifyState::Master => self.ask(now, &line.group),
            NotifyState::MasterRxLowerPri => {
                self.heard.insert(line.group.clone(), now);
                if quiet {
                    self.ask(now, &line.group);
                } else if was.notified != Some(VrrpState::Master) {
                    self.of(&line.group).into_iter().for_each(|id| self.moved(id).adopted = true);
                }
            }
            _ => self.of(&line.group).into_iter().for_each(|id| {
                self.moved.remove(&id);
                self.superseded.entry(id).or_default().at = now;
            }),
        }
    }

    fn ask(&mut self, now: BootInstant, group: &GroupName) {
        if self.paused.contains_key(group) {
            return;
        }
        self.asks += 1;
        let asks = self.asks;
        for id in self.of(group) {
            let moved = self.moved(id.clone());
            moved.asked = Some((asks, now));
            moved.failed = None;
            self.superseded.insert(id, Superseded { at: now, asked: now });
        }
    }

    fn moved(&mut self, id: Resource) -> &mut Moved {
        self.moved.entry(id).or_default()
    }

    /// The addresses that keepalived has for a group.
    fn addresses_of(&self, group: &GroupName) -> BTreeSet<Ipv4Addr> {
        let groups = self.sets.iter().flat_map(|s| &s.groups).filter(|g| g.name == *group);
        groups.flat_map(|g| &g.addresses).map(|a| a.address).collect()
    }

    /// What may be moved for a group.
    fn of(&self, group: &GroupName) -> BTreeSet<Resource> {
        let configured = self.config.groups.iter().filter(|g| g.name == *group).flat_map(others);
        self.addresses_of(group).into_iter().map(Resource::Address).chain(configured).collect()
    }

    fn resolved(&mut self, now: BootInstant, interface: &InterfaceName, eni: &Eni) {
        self.blind.remove(interface);
        if self.enis.insert(interface.clone(), eni.id.clone()).is_some_and(|before| before != eni.id) {
            self.asks += 1;
            for (id, moved) in &mut self.moved {
                self.superseded.entry(id.clone()).or_default().at = now;
                moved.adopted = true;
                // What a line asked for holds for the new one.
                moved.asked = moved.asked.map(|(_, when)| (self.asks, when));
            }
        }
    }

    fn claimed(&mut self, now: BootInstant, id: ClaimId, is_ok: bool) {
        let claim = self.claims.remove(&id).expect("an answer to a claim in flight");
        for id in claim.resources {
            let moved = self.moved(id);
            if is_ok {
                let asked = moved.asked.filter(|(ask, _)| *ask > claim.asks);
                *moved = Moved { asked, adopted: moved.adopted, ..Moved::default() };
            } else {
                // One that was asked for while it was under way is a first attempt still.
                if moved.asked.is_none_or(|(ask, _)| ask <= claim.asks) {
                    moved.failed = Some(now);
                }
            }
        }
    }

    fn read(&mut self, now: BootInstant, id: ReadId, holders: Option<&BTreeMap<Resource, Holder>>) {
        for id in self.reads.remove(&id).expect("an answer to a read in flight") {
            let ours = self.targets(&id);
            if let Some(holders) = holders {
                self.shown.insert(id.clone(), holders.get(&id).cloned());
            }
            let is_where_it_belongs = self.is_at_its_private_address(&id);
            let owner = holders.map(|holders| holders.get(&id).filter(|_| is_where_it_belongs).and_then(Holder::owner));
            let moved = self.moved(id);
            match owner {
                None => moved.unread = true,
                Some(Some(owner)) if ours.contains(&owner.eni) => {
                    moved.disagreed = None;
                    moved.adopted = false;
                }
                Some(_) => {
                    moved.disagreed.get_or_insert(now);
                }
            }
        }
    }

    /// Whether an Elastic IP is associated with the address that is configured, as the last read shows it.
    fn is_at_its_private_address(&self, id: &Resource) -> bool {
        let (Resource::ElasticIp(allocation), Some(Some(Holder::Association { private_address, .. }))) =
            (id, self.shown.get(id))
        else {
            return true;
        };
        let mut configured = self.config.groups.iter().flat_map(|g| &g.elastic_ips);
        let configured = configured.find(|e| e.allocation == *allocation).and_then(|e| e.private_address);
        configured.is_none_or(|configured| configured == *private_address)
    }

    /// The ENIs that may be meant for a resource: of the groups that move it, the configured one, or that of its interface.
    fn targets(&self, id: &Resource) -> BTreeSet<EniId> {
        let groups = self.sets.iter().flat_map(|s| &s.groups);
        let configured = |name: &GroupName| self.config.groups.iter().find(|g| g.name == *name);
        let Resource::Address(ip) = id else {
            let interfaces = groups.filter(|g| self.of(&g.name).contains(id)).map(|g| &g.interface);
            return interfaces.filter_map(|interface| self.enis.get(interface)).cloned().collect();
        };
        let held = groups.flat_map(|g| g.addresses.iter().map(move |a| (g, a)));
        held.filter(|(_, a)| a.address == *ip)
            .filter_map(|(group, address)| {
                let configured = configured(&group.name)?.network_interface_id.as_ref();
                configured.or_else(|| self.enis.get(address.interface.as_ref().unwrap_or(&group.interface))).cloned()
            })
            .collect()
    }

    fn is_writerless(&self, now: BootInstant) -> bool {
        self.writer_gone.is_some_and(|since| since + WRITER_GONE_TIMEOUT <= now)
    }

    /// The machine wants something done.
    pub fn wants(&mut self, now: BootInstant, action: &Action) {
        match action {
            Action::Claim { id, request, .. } => {
                let resources = request.resources();
                let distinct: BTreeSet<&Resource> = resources.iter().collect();
                assert!(!resources.is_empty() && distinct.len() == resources.len(), "{resources:?}");
                self.in_flight(now, request.kind(), request.eni(), &resources);
                self.within_the_rate_limit(now, request);
                resources.iter().for_each(|id| self.claim(now, id));
                let (eni, kind) = (request.eni().clone(), request.kind());
                self.claims.insert(*id, InFlight { began: now, eni, kind, resources, asks: self.asks });
            }
            Action::Read { id, request, .. } => {
                self.reads.insert(*id, request.resources());
            }
            Action::DryRun { id, request, .. } => {
                self.dry_run(now, &request.resource());
                self.dry_runs.insert(*id);
                self.last_dry_run = Some(now);
            }
            Action::Log(LogEvent::Transition { group, to: VrrpState::Unknown, cause, .. }) => {
                let came = |ip: &Ipv4Addr| self.put.contains(ip) && self.came.get(ip) > self.spoken.get(group);
                assert!(
                    *cause != Cause::NoNotifyEvent || self.addresses_of(group).iter().any(came),
                    "{group} is doubted at {now:?}, and no process has put an address of it there since its last line"
                );
                self.invalidate(now, group);
            }
            Action::Log(LogEvent::Transition { group, to: VrrpState::Master, cause: Cause::Inferred, .. }) => {
                let wait = |ip: &Ipv4Addr| secs(if self.put.contains(ip) { 1 } else { 5 });
                let is_old = |ip: &Ipv4Addr| self.came.get(ip).is_some_and(|came| *came + wait(ip) <= now);
                let called = self.last_master_event.get(group);
                let is_spoken = |ip: &Ipv4Addr| called.is_some_and(|at| self.came.get(ip) <= Some(&(*at + secs(1))));
                let counts = |ip: &Ipv4Addr| self.local.contains(ip) && (is_old(ip) || is_spoken(ip));
                assert!(
                    self.addresses_of(group).iter().any(|ip| counts(ip) || self.added_without_writer.contains(ip)),
                    "{group} is inferred to be MASTER at {now:?}, while the line of its address may still come"
                );
            }
            Action::Log(LogEvent::NotLocal { resource, .. }) => self.moved(resource.clone()).adopted = true,
            Action::Inspect { .. }
            | Action::Resolve(_)
            | Action::ReadLocalAddresses
            | Action::ReadNetwork
            | Action::Log(_) => {}
        }
    }

    /// B25: a standby alone proves its permission, for what a claim would take, and never at the cost of a claim.
    fn dry_run(&self, now: BootInstant, id: &Resource) {
        let is_standby = |name: &GroupName| {
            let inputs = self.groups.get(name).copied().unwrap_or_default();
            inputs.invalidated.is_some() || inputs.notified == Some(VrrpState::Backup)
        };
        let acts = |group: &&GroupConfig| !group.disable && !self.paused.contains_key(&group.name);
        let owners = self.config.groups.iter().filter(acts).filter(|g| self.of(&g.name).contains(id));
        let states: Vec<bool> = owners.map(|g| is_standby(&g.name)).collect();
        assert!(states.contains(&true), "a dry run for {id} at {now:?}, whose group is no standby");
        let shown = self.shown.get(id);
        let is_takeable = shown.is_some_and(|shown| !matches!(shown, Some(Holder::NotTakeable(_))));
        assert!(is_takeable, "a dry run for {id} at {now:?}, and the last read was {shown:?}");
        assert!(self.dry_runs.len() < DRY_RUNS.0, "{:?} in flight at {now:?}", self.dry_runs);
        assert!(self.last_dry_run.is_none_or(|last| last + DRY_RUNS.1 <= now), "two at once at {now:?}");
        let claim = self.claims.values().find(|claim| claim.kind != Kind::Address);
        assert!(claim.is_none(), "a dry run for {id} at {now:?} beside {claim:?}");
        for (whose, (left, then)) in self.rate_limiter.iter().filter(|((kind, _), _)| *kind != Kind::Address) {
            let left = left + then.until(now).as_secs_f64() * 5.0;
            assert!(left >= 49.999, "a dry run for {id} at {now:?}, and {whose:?} has {left} of its tokens");
        }
    }

    /// B4: one claim in flight for an address, unless it is of before a line or a change of state; two for an ENI, the second
    /// not before the first is 20 ms old, and a third for what a line asked for after both.
    fn in_flight(&self, now: BootInstant, kind: Kind, eni: &EniId, resources: &[Resource]) {
        let superseded = |id: &Resource| self.superseded.get(id).copied().unwrap_or_default();
        for claim in self.claims.values().filter(|_| now > self.changing) {
            let twice = claim.resources.iter().find(|id| resources.contains(id) && superseded(id).at < claim.began);
            assert_eq!(twice, None, "in flight already at {now:?}");
        }
        if kind != Kind::Address {
            let single = self.claims.values().filter(|claim| claim.kind != Kind::Address);
            let (current, outdated): (Vec<_>, Vec<_>) =
                single.partition(|claim| resources.iter().all(|id| superseded(id).asked < claim.began));
            let is_bounded = current.len() < SINGLE.0 && current.len() + outdated.len() < SINGLE.1;
            assert!(is_bounded, "{current:?} and {outdated:?} are in flight at {now:?}");
            return;
        }
        let same = self.claims.values().filter(|claim| claim.kind == kind && claim.eni == *eni);
        let same: Vec<BootInstant> = same.map(|c| c.began).collect();
        let fresh = |id: &Resource| same.iter().all(|began| superseded(id).asked >= *began);
        let room = same.len() < 2 || (same.len() == 2 && resources.iter().any(fresh));
        let is_apart = same.iter().all(|began| began.until(now) >= SECOND);
        assert!(room && is_apart, "{eni}: in flight since {same:?} at {now:?}");
    }

    /// B1: 20 at once, and 1,500 an hour. EC2's own bucket for calls with one resource: 50 at once, and 5 a second.
    fn within_the_rate_limit(&mut self, now: BootInstant, request: &ClaimRequest) {
        let (burst, per_second) = match request.kind() {
            Kind::Address => (20.0, 1_500.0 / 3_600.0),
            Kind::Route | Kind::ElasticIp => (50.0, 5.0),
        };
        let whose = (request.kind(), Some(request.eni().clone()).filter(|_| request.kind() == Kind::Address));
        let (left, then) = self.rate_limiter.get(&whose).copied().unwrap_or((burst, now));
        let left = (left + then.until(now).as_secs_f64() * per_second).min(burst);
        assert!(left >= 0.999, "{whose:?}: claim beyond the allowance at {now:?}");
        self.rate_limiter.insert(whose, (left - 1.0, now));
    }

    /// B3, B6, B8, B9, B19, B21: whether this resource may be claimed now.
    fn claim(&self, now: BootInstant, id: &Resource) {
        let owners: Vec<&GroupName> = self
            .sets
            .iter()
            .flat_map(|s| &s.groups)
            .map(|g| &g.name)
            .filter(|name| self.of(name).contains(id))
            .filter(|name| self.config.groups.iter().any(|g| g.name == **name && !g.disable))
            .filter(|name| !self.paused.contains_key(name))
            .collect();
        assert!(!owners.is_empty(), "{id} is claimed at {now:?} for no group that it may be claimed for");
        assert!(!self.is_writerless(now), "{id} is claimed at {now:?} without a writer since {:?}", self.writer_gone);
        let shown = self.shown.get(id);
        assert!(id.kind() != Kind::Route || shown.is_some(), "{id} is claimed at {now:?} and was never read");
        let is_takeable = !matches!(shown, Some(Some(Holder::NotTakeable(_))));
        assert!(is_takeable, "{id} is claimed at {now:?}, and the last read was {shown:?}");
        let default = Moved::default();
        let moved = self.moved.get(id).unwrap_or(&default);
        let inputs: Vec<GroupInputs> = owners.iter().filter_map(|name| self.groups.get(*name)).copied().collect();
        let by_notify_event = inputs.iter().any(|inputs| inputs.notified == Some(VrrpState::Master));
        let invalidated = inputs.iter().find_map(|inputs| inputs.invalidated);
        assert!(
            by_notify_event || invalidated.is_some(),
            "{id} is claimed at {now:?} although its group is {inputs:?}"
        );
        let of_it = self.sets.iter().flat_map(|s| &s.groups).filter(|g| owners.contains(&&g.name));
        let interval = of_it.map(|g| g.advertise_interval.duration()).max().unwrap_or_default().max(secs(1));
        let is_alive = self.liveness.is_some_and(|liveness| liveness.until(now) <= interval + LIVENESS_MAX_AGE);
        if moved.failed.is_some() {
            assert!(
                is_alive,
                "{id} is claimed again at {now:?}, and keepalived was last active at {:?}",
                self.liveness
            );
        }
        // What a person asks for counts where the interface has said MASTER.
        if moved.asked.is_some_and(|(_, asked)| by_notify_event || invalidated <= Some(asked)) {
            return;
        }
        let local_read = self.local_read.is_some_and(|local_read| local_read.until(now) <= LOOKED);
        let is_local = match id {
            Resource::Address(ip) => self.local.contains(ip),
            _ => owners.iter().any(|name| self.addresses_of(name).iter().any(|ip| self.local.contains(ip))),
        };
        assert!(
            local_read && is_local,
            "{id} is claimed at {now:?}: looked for {local_read}, on an interface {is_local}"
        );
        assert!(is_alive, "{id} is claimed at {now:?} without recent keepalived activity: {:?}", self.liveness);
        let disagreed = moved.disagreed;
        assert!(
            disagreed.is_some() || moved.unread || moved.failed.is_some() || !self.blind.is_empty(),
            "{id} is claimed at {now:?} although no read disagrees: {moved:?}"
        );
        match invalidated {
            Some(since) => {
                assert!(
                    by_notify_event || self.liveness >= Some(since),
                    "{id} is claimed at {now:?} without life since the doubt of {since:?}"
                );
            }
            None if moved.adopted => {}
            None => assert!(
                self.liveness >= disagreed,
                "{id} is claimed back at {now:?}: life at {:?}, read that disagreed at {disagreed:?}",
                self.liveness
            ),
        }
    }
}

/// The routes and the Elastic IPs of a group.
fn others(group: &GroupConfig) -> Vec<Resource> {
    let routes = group.routes.iter().flat_map(|route| {
        let of = |table: &RouteTableId| Resource::Route(Route { table: table.clone(), destination: route.destination });
        route.tables.iter().map(of)
    });
    let elastic_ips = group.elastic_ips.iter().map(|elastic_ip| Resource::ElasticIp(elastic_ip.allocation.clone()));
    routes.chain(elastic_ips).collect()
}
