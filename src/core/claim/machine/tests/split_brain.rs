//! Two routers and a link between them that is cut and healed. Both machines are those that ship; keepalived, the link and
//! EC2 are models in simulated time.
//!
//! **The first invariant.** Once one router alone is MASTER of a group, EC2 shows it as the owner of all addresses of the
//! group within a verify-interval and 5 s, and from then on for as long as it alone is MASTER. It does not matter for how
//! long, how often and in which direction the link was cut before. Where a claim of the other router is still under way,
//! that time begins with the end of the claim. Calls that take longer than [`USUAL_CALL`] add the time of three: two reads
//! and a claim lie in it.
//!
//! **The second.** While both are MASTER, each claims an address once for every line that asks for a claim at once, and
//! otherwise 10 s at least after its last such claim. A start of the agent begins that count anew.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::harness::{config, eni, group, interface, line, ms, network_interface, run, secs, vip};
use crate::claim::machine::Machine;
use crate::claim::{Action, BootInstant, ClaimId, ClaimRequest, Event, LogEvent, ReadId, RestoredState};
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::ec2::{Acknowledgement, Eni, Owner, Owners, Taker};
use crate::model::ids::{GroupName, InstanceId, InterfaceName};
use crate::model::resource::{Holder, Resource};
use crate::model::vrrp::NotifyState;

/// The routers, the one of the higher priority first.
const ROUTERS: [usize; 2] = [0, 1];
const ENIS: [&str; 2] = ["eni-0000000a", "eni-0000000c"];
/// An advertisement of a group goes out once a second (RFC 9568, 5.2.8).
const ADVERTISEMENT: Duration = secs(1);
/// How long a group that stands by waits for one: three of them, and the skew of priorities 200 and 100 (RFC 9568, 6.1).
const DOWN: [Duration; 2] = [ms(3_219), ms(3_609)];
/// What EC2 takes for a call at most as long as nothing is wrong with it.
const USUAL_CALL: Duration = ms(500);
/// After the last change: what has come right by the bound stays so.
const QUIET_TIME: Duration = secs(90);

fn primary(router: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 11 + router as u8)
}

fn owned_by(router: usize, primary: bool) -> Owner {
    let instance = InstanceId::try_from(format!("i-0000000{router}")).expect("an instance");
    Owner { eni: eni(ENIS[router]), instance: Some(instance), primary }
}

/// What the link lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Whole,
    Cut,
    /// Nothing comes from this router to the other.
    CutFrom(usize),
}

impl Link {
    fn passes(self, from: usize) -> bool {
        match self {
            Link::Whole => true,
            Link::Cut => false,
            Link::CutFrom(router) => router != from,
        }
    }
}

/// What happens to the link and to the agents, each step after the one before it.
#[derive(Debug, Clone)]
struct Scenario {
    verify_interval: u16,
    groups: u8,
    /// The router of the lower priority is MASTER at first, and the other one does not preempt.
    lower_first: bool,
    /// Cuts: how, for how long, which direction heals first and by how much, and how long the link is whole after it.
    cuts: Vec<(Link, u64, usize, u64, u64)>,
    /// When an agent is started anew, in milliseconds after the begin.
    restarts: Vec<(u64, usize)>,
    /// The bounds of what EC2 takes for a call.
    calls: (u64, u64),
    seed: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    Tell(usize, u32, Event),
    Land(usize, Vec<Ipv4Addr>),
    Show(usize, u32, ReadId, Vec<Ipv4Addr>, Duration),
    /// The timer of a group on a router, unless it was set anew.
    Timer(usize, GroupName, u64),
    Restart(usize),
}

/// A group as keepalived runs it.
#[derive(Debug)]
struct VrrpInstance {
    is_master: bool,
    timer: u64,
    /// The last MASTER_RX_LOWER_PRI.
    heard: Option<BootInstant>,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    at: BootInstant,
    ip: Ipv4Addr,
    /// A read asked for it, and not a notify event.
    has_precondition: bool,
}

struct Router {
    machine: Machine,
    /// How often the agent was started.
    epoch: u32,
    vrrp: BTreeMap<GroupName, VrrpInstance>,
    /// When the agent was started.
    started: Vec<BootInstant>,
    /// When a notify event of a group asked for a claim at once.
    asked: Vec<(BootInstant, GroupName)>,
    claims: Vec<Claim>,
    in_flight: BTreeSet<ClaimId>,
    losses: Vec<(GroupName, Resource, BootInstant, Taker)>,
    beat: BootInstant,
    sampled: BootInstant,
    /// The last look, if the machine has wanted to know ever since.
    looking: Option<BootInstant>,
}

struct Pair {
    now: BootInstant,
    scenario: Scenario,
    routers: [Router; 2],
    link: Link,
    /// Who has had each address since when.
    owners: Vec<(BootInstant, Ipv4Addr, usize)>,
    /// The router that alone is MASTER of all groups, and since when that is so and no claim of the other is under way.
    settled: Option<(usize, BootInstant)>,
    queue: BTreeMap<(BootInstant, u64), Happening>,
    count: u64,
    rng: Rng,
}

impl Pair {
    fn new(scenario: Scenario) -> Self {
        let rng = Rng::with_seed(scenario.seed);
        let router = || Router {
            machine: Machine::new(BootInstant::default(), 0),
            epoch: 0,
            vrrp: BTreeMap::new(),
            started: Vec::new(),
            asked: Vec::new(),
            claims: Vec::new(),
            in_flight: BTreeSet::new(),
            losses: Vec::new(),
            beat: BootInstant::default(),
            sampled: BootInstant::default(),
            looking: None,
        };
        let mut pair = Self {
            now: BootInstant::after_boot(secs(1_000)),
            routers: [router(), router()],
            link: Link::Whole,
            owners: Vec::new(),
            settled: None,
            queue: BTreeMap::new(),
            count: 0,
            rng,
            scenario,
        };
        for router in ROUTERS {
            for name in pair.names() {
                pair.routers[router].vrrp.insert(name, VrrpInstance { is_master: false, timer: 0, heard: None });
            }
            pair.start_agent(router);
        }
        let first = usize::from(pair.scenario.lower_first);
        for name in pair.names() {
            pair.becomes(1 - first, &name, NotifyState::Backup);
            pair.becomes(first, &name, NotifyState::Master);
        }
        pair
    }

    fn names(&self) -> Vec<GroupName> {
        (0..self.scenario.groups).map(|n| group(&format!("g{n}"))).collect()
    }

    fn vips(&self) -> Vec<Ipv4Addr> {
        (0..self.scenario.groups).map(vip).collect()
    }

    fn configured(&self) -> Config {
        let names: Vec<String> = self.names().iter().map(ToString::to_string).collect();
        let mut config = config(&names.iter().map(String::as_str).collect::<Vec<_>>());
        config.global.verify_interval = self.scenario.verify_interval.try_into().expect("an interval");
        config
    }

    fn run_by(&self, router: usize) -> Groups {
        let group = |(n, name): (u8, &GroupName)| {
            let mut group = run(name.as_str(), "eth0", n + 1, &[vip(n)]);
            group.peers = vec![primary(1 - router)];
            group
        };
        Groups { groups: (0..).zip(&self.names()).map(group).collect() }
    }

    // ── time ──

    fn later(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    fn call(&mut self) -> Duration {
        let (low, high) = self.scenario.calls;
        ms(self.rng.u64(low..=high))
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let queued = self.queue.keys().next().map(|(moment, _)| *moment);
            let due = |router: usize| self.routers[router].machine.deadline();
            let look = |router: usize| {
                let router = &self.routers[router];
                router.machine.liveness_poll_interval(self.now).map(|again| router.sampled + again)
            };
            let moments = [queued, due(0), due(1), look(0), look(1)];
            let Some(next) = moments.into_iter().flatten().min().map(|next| next.max(self.now)).filter(|n| *n <= end)
            else {
                break;
            };
            let ticks: Vec<usize> = ROUTERS.into_iter().filter(|r| due(*r).is_some_and(|due| due <= next)).collect();
            let samples: Vec<usize> = ROUTERS.into_iter().filter(|r| look(*r).is_some_and(|at| at <= next)).collect();
            self.now = next;
            if queued == Some(next) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            } else {
                ticks.into_iter().for_each(|router| self.tell(router, Event::Tick));
                samples.into_iter().for_each(|router| self.sample_liveness(router));
            }
            for router in &mut self.routers {
                router.looking = router.looking.filter(|_| router.machine.liveness_poll_interval(self.now).is_some());
            }
            self.invariants();
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(router, epoch, event) => {
                if let Event::Claimed { id, .. } = &event {
                    self.routers[router].in_flight.remove(id);
                }
                if epoch == self.routers[router].epoch {
                    self.tell(router, event);
                }
            }
            Happening::Land(router, ips) => {
                ips.into_iter().for_each(|ip| self.owners.push((self.now, ip, router)));
            }
            Happening::Show(router, epoch, id, ips, rest) => {
                let shown = self.shown(&ips).into_iter();
                let owners: BTreeMap<Resource, Holder> =
                    shown.map(|(ip, owner)| (ip.into(), Holder::Eni(owner))).collect();
                self.later(rest, Happening::Tell(router, epoch, Event::Read { id, result: Ok(owners.into()) }));
            }
            Happening::Timer(router, name, timer) => {
                if self.routers[router].vrrp[&name].timer == timer {
                    self.timer(router, &name);
                }
            }
            Happening::Restart(router) => self.start_agent(router),
        }
    }

    // ── the agents ──

    fn start_agent(&mut self, router: usize) {
        let seed = self.rng.u64(..);
        let this = &mut self.routers[router];
        this.epoch += 1;
        this.machine = Machine::new(self.now, seed);
        this.looking = None;
        this.started.push(self.now);
        // It has heard of none.
        this.vrrp.values_mut().for_each(|vrrp| vrrp.heard = None);
        let mut restored: BTreeMap<Resource, RestoredState> = BTreeMap::new();
        for (group, resource, at, taker) in &this.losses {
            let restored = restored.entry(resource.clone()).or_insert_with(|| RestoredState {
                group: group.clone(),
                resource: resource.clone(),
                losses: Vec::new(),
                contested: Vec::new(),
            });
            restored.losses.push((*at, *taker));
            if restored.losses.len() > 3 && !restored.contested.contains(taker) {
                restored.contested.push(*taker);
            }
        }
        let restored = restored.into_values().collect();
        // In the agent's order: what exists when it starts is listed before it opens the FIFO.
        let addresses = self.local(router);
        self.tell(router, Event::LocalAddresses { addresses, requested: false });
        self.tell(router, Event::Restored(restored));
        let (config, groups) = (self.configured(), self.run_by(router));
        self.tell(router, Event::Config(config));
        self.tell(router, Event::Groups(groups));
        self.tell(router, Event::Backlog { lines: Vec::new(), was_full: false });
        self.tell(router, Event::Writer(true));
    }

    fn tell(&mut self, router: usize, event: Event) {
        let epoch = self.routers[router].epoch;
        for action in self.routers[router].machine.handle(self.now, event) {
            match action {
                Action::Claim { id, request: ClaimRequest::Addresses { addresses, .. }, timeout, .. } => {
                    let this = &mut self.routers[router];
                    this.claims.extend(addresses.iter().map(|ip| Claim {
                        at: self.now,
                        ip: *ip,
                        has_precondition: this.machine.resources[&(*ip).into()].attempt.precondition.is_some(),
                    }));
                    this.in_flight.insert(id);
                    let (lands, responses) = (self.call(), self.call());
                    self.later(lands / 2, Happening::Land(router, addresses));
                    let event = Event::Claimed { id, result: Ok(Acknowledgement::default()) };
                    let takes = (lands / 2 + responses / 2).min(timeout);
                    self.later(takes, Happening::Tell(router, epoch, event));
                }
                Action::Read { id, request, .. } => {
                    let addresses = request.resources().iter().filter_map(Resource::address).collect();
                    let (half, rest) = (self.call() / 2, self.call() / 2);
                    self.later(half, Happening::Show(router, epoch, id, addresses, rest));
                }
                Action::Resolve(interface) => {
                    let eni = Eni { primary: primary(router), ..network_interface(ENIS[router]) };
                    self.later(ms(1), Happening::Tell(router, epoch, Event::Resolved { interface, eni: Ok(eni) }));
                }
                Action::ReadLocalAddresses => self.look_around(router, true),
                Action::Log(LogEvent::OwnershipLost { group, resource, taker, .. }) => {
                    self.routers[router].losses.push((group, resource, self.now, taker));
                }
                Action::Log(LogEvent::ContestedEnded { resource, taker, .. }) => {
                    self.routers[router].losses.retain(|(_, of, _, by)| (of, *by) != (&resource, taker));
                }
                Action::DryRun { .. } | Action::Claim { .. } => unreachable!("the groups have only addresses"),
                // What is not answered stays unknown.
                Action::Inspect { .. } | Action::ReadNetwork | Action::Log(_) => {}
            }
        }
    }

    fn look_around(&mut self, router: usize, asked: bool) {
        let epoch = self.routers[router].epoch;
        let addresses = self.local(router);
        self.later(
            Duration::ZERO,
            Happening::Tell(router, epoch, Event::LocalAddresses { addresses, requested: asked }),
        );
    }

    /// The addresses that keepalived has put on the router's interface.
    fn local(&self, router: usize) -> BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>> {
        let names = self.names();
        let vrrp = &self.routers[router].vrrp;
        let here = (0..).zip(&names).filter(|(_, name)| vrrp.get(name).is_some_and(|vrrp| vrrp.is_master));
        here.map(|(n, _)| (vip(n), BTreeSet::from([interface("eth0")]))).collect()
    }

    fn sample_liveness(&mut self, router: usize) {
        let this = &mut self.routers[router];
        let before = mem::replace(&mut this.sampled, self.now);
        // The first look for something that has just become of interest is of no use by itself.
        if this.looking.replace(self.now) == Some(before) && before < this.beat {
            self.tell(router, Event::Liveness { after: before });
        }
    }

    fn shown(&self, ips: &[Ipv4Addr]) -> Owners {
        let owner = |ip: &Ipv4Addr| match ROUTERS.into_iter().find(|router| primary(*router) == *ip) {
            Some(router) => Some(owned_by(router, true)),
            None => self.owner(*ip).map(|router| owned_by(router, false)),
        };
        ips.iter().filter_map(|ip| Some((*ip, owner(ip)?))).collect()
    }

    fn owner(&self, ip: Ipv4Addr) -> Option<usize> {
        self.owners.iter().rev().find(|(_, other, _)| *other == ip).map(|(_, _, router)| *router)
    }

    // ── keepalived ──

    fn becomes(&mut self, router: usize, name: &GroupName, state: NotifyState) {
        let this = &mut self.routers[router];
        let vrrp = this.vrrp.get_mut(name).expect("a group");
        vrrp.is_master = state != NotifyState::Backup;
        if state == NotifyState::Backup {
            vrrp.heard = None;
            this.losses.retain(|(group, ..)| group != name);
        }
        if state == NotifyState::Master {
            this.asked.push((self.now, name.clone()));
        }
        this.beat = self.now;
        self.look_around(router, false);
        let epoch = self.routers[router].epoch;
        let lines = Event::Notify(vec![line(name.as_str(), state)]);
        self.later(ms(1), Happening::Tell(router, epoch, lines));
        if state == NotifyState::Master {
            self.advertise(router, name);
        } else {
            self.set_timer(router, name, DOWN[router]);
        }
    }

    fn set_timer(&mut self, router: usize, name: &GroupName, after: Duration) {
        let vrrp = self.routers[router].vrrp.get_mut(name).expect("a group");
        vrrp.timer += 1;
        let timer = vrrp.timer;
        self.later(after, Happening::Timer(router, name.clone(), timer));
    }

    fn timer(&mut self, router: usize, name: &GroupName) {
        self.routers[router].beat = self.now;
        match self.routers[router].vrrp[name].is_master {
            true => self.advertise(router, name),
            false => self.becomes(router, name, NotifyState::Master),
        }
    }

    fn advertise(&mut self, from: usize, name: &GroupName) {
        self.set_timer(from, name, ADVERTISEMENT);
        if self.link.passes(from) {
            self.hear(1 - from, name);
        }
    }

    /// An advertisement of the other router (RFC 9568, 6.4.2 and 6.4.3); nobody preempts here.
    fn hear(&mut self, router: usize, name: &GroupName) {
        self.routers[router].beat = self.now;
        let vrrp = &self.routers[router].vrrp[name];
        match (vrrp.is_master, router) {
            (false, _) => self.set_timer(router, name, DOWN[router]),
            (true, 1) => self.becomes(1, name, NotifyState::Backup),
            (true, _) => {
                let quiet = vrrp.heard.is_none_or(|heard| heard.until(self.now) > secs(10));
                let this = &mut self.routers[router];
                this.vrrp.get_mut(name).expect("a group").heard = Some(self.now);
                if quiet {
                    this.asked.push((self.now, name.clone()));
                }
                let epoch = this.epoch;
                let lines = Event::Notify(vec![line(name.as_str(), NotifyState::MasterRxLowerPri)]);
                self.later(ms(1), Happening::Tell(router, epoch, lines));
                self.advertise(router, name);
            }
        }
    }

    // ── what must hold ──

    /// The router that alone is MASTER of all groups.
    fn master(&self) -> Option<usize> {
        let masters = |r: usize| self.routers[r].vrrp.values().filter(|vrrp| vrrp.is_master).count();
        let all = usize::from(self.scenario.groups);
        match [masters(0), masters(1)] {
            [n, 0] if n == all => Some(0),
            [0, n] if n == all => Some(1),
            _ => None,
        }
    }

    fn invariants(&mut self) {
        let agreed = self.master().filter(|master| self.routers[1 - *master].in_flight.is_empty());
        self.settled = agreed.map(|master| match self.settled {
            Some(before @ (the_same, _)) if the_same == master => before,
            _ => (master, self.now),
        });
        let Some((master, settled)) = self.settled else {
            return;
        };
        let longest_call = ms(self.scenario.calls.1);
        let slow_calls = if longest_call > USUAL_CALL { 3 * longest_call } else { Duration::ZERO };
        let bound = secs(u64::from(self.scenario.verify_interval) + 5) + slow_calls;
        if settled + bound <= self.now {
            for ip in self.vips() {
                let owner = self.owner(ip);
                assert_eq!(
                    owner,
                    Some(master),
                    "{ip} at {:?}, {:?} after the routers agreed; claims: {:#?}",
                    self.now,
                    settled.until(self.now),
                    [0, 1].map(|r| self.claims_near(r, settled))
                );
            }
        }
    }

    fn claims_near(&self, router: usize, moment: BootInstant) -> Vec<Claim> {
        self.routers[router].claims.iter().filter(|claim| claim.at + secs(40) > moment).copied().collect()
    }

    /// A notify event asks for one claim at most, and soon. The other claims are at least ten seconds apart.
    fn judge_claims(&self) {
        // The agent hears of the event a moment later, and three claims in flight hold the next one up until one is answered.
        let soon = secs(1) + ms(self.scenario.calls.1);
        for (router, this) in self.routers.iter().enumerate() {
            for (ip, name) in self.vips().into_iter().zip(self.names()) {
                let claims = this.claims.iter().filter(|claim| claim.ip == ip);
                let (repeated, first): (Vec<Claim>, Vec<Claim>) = claims.partition(|claim| claim.has_precondition);
                let asked: Vec<BootInstant> =
                    this.asked.iter().filter(|(_, group)| *group == name).map(|(at, _)| *at).collect();
                let mut unused = asked.clone();
                for claim in &first {
                    let by = unused.iter().position(|at| *at <= claim.at && at.until(claim.at) < soon);
                    assert!(by.is_some(), "router {router}, {ip}: {claim:?} of {first:?}; asked for at {asked:?}");
                    by.map(|n| unused.remove(n));
                }
                let restarted = |pair: &[Claim]| this.started.iter().any(|at| (pair[0].at..pair[1].at).contains(at));
                let close =
                    repeated.windows(2).find(|pair| pair[0].at.until(pair[1].at) < secs(10) && !restarted(pair));
                assert!(close.is_none(), "router {router}, {ip}: {close:?} of {repeated:?}; asked for at {asked:?}");
            }
        }
    }
}

fn play(scenario: &Scenario) -> Pair {
    let mut pair = Pair::new(scenario.clone());
    for (at, router) in &scenario.restarts {
        pair.later(ms(*at), Happening::Restart(*router));
    }
    pair.run(secs(30));
    for (how, cut, first, by, whole) in &scenario.cuts {
        pair.link = *how;
        pair.run(ms(*cut));
        // One direction heals first: `first` is heard, the other is not yet.
        pair.link = Link::CutFrom(1 - *first);
        pair.run(ms(*by));
        pair.link = Link::Whole;
        pair.run(ms(*whole));
    }
    pair.run(secs(u64::from(scenario.verify_interval) + 20) + QUIET_TIME);
    pair.judge_claims();
    pair
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let how = prop_oneof![4 => Just(Link::Cut), 1 => Just(Link::CutFrom(0)), 1 => Just(Link::CutFrom(1))];
    let long = prop_oneof![3 => 5_000..60_000_u64, 1 => 60_000..300_000_u64];
    let whole = prop_oneof![2 => 200..5_000_u64, 2 => 5_000..30_000_u64, 1 => 30_000..120_000_u64];
    let heals_by = prop_oneof![1 => Just(0), 2 => 0..2_000_u64];
    let cuts = proptest::collection::vec((how, long, 0..2_usize, heals_by, whole), 1..6);
    let calls = prop_oneof![3 => Just((5, 60)), 2 => Just((100, 500)), 1 => Just((10, 2_500))];
    let restarts =
        prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec((31_000..400_000_u64, 0..2_usize), 1..3)];
    let interval = prop_oneof![Just(5_u16), Just(30)];
    (interval, 1..4_u8, any::<bool>(), cuts, restarts, calls, any::<u64>()).prop_map(
        |(verify_interval, groups, lower_first, cuts, restarts, calls, seed)| Scenario {
            verify_interval,
            groups,
            lower_first,
            cuts,
            restarts,
            calls,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_the_link_is_cut_the_master_has_the_address_soon_after_it_is_whole(scenario in scenarios()) {
        play(&scenario);
    }
}
