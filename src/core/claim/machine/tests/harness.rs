//! A small world around the machine: EC2 and IMDS with delays, faults and a memory of the past, keepalived with its
//! lines and its interface, a router that can stand still, an agent that can be started anew. Time is simulated; the
//! machine is driven by its own deadlines and by what happens, and every step is put before the [`Invariants`].

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::invariants::{Invariants, STALL};
use crate::claim::machine::Machine;
use crate::claim::resource::Phase;
use crate::claim::{
    Action, BootInstant, ClaimId, ClaimRequest, DryRunRequest, Event, Inspection, LogEvent, PutBy, ReadAnswer, ReadId,
    ReadRequest, RestoredState,
};
use crate::keepalived::groups::{AdvertiseInterval, Groups, RunningGroup, VirtualAddress};
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::{Acknowledgement, AddressLimit, CallError, Eni, ErrorClass, Failure, Interface, Owner};
use crate::model::history::{LossHistory, Record, RecordKind};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName, RequestId};
use crate::model::path::LocalNetwork;
use crate::model::resource::{Holder, Resource};
use crate::model::vrrp::{NotifyEvent, NotifyState};

/// The network interfaces of this router, of the other one, and of somebody else.
pub const ETH0: &str = "eni-0000000a";
pub const ETH1: &str = "eni-0000000b";
pub const PEER: &str = "eni-0000000c";
pub const THIRD_PARTY: &str = "eni-0000000d";

/// How long a standby waits for the other router's advertisements (RFC 9568 and 5798, 6.1: three intervals and a skew).
const ELECTION: Duration = Duration::from_millis(3_600);

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The time of day of a moment; the router started in 1970.
pub fn clock(moment: BootInstant) -> Timestamp {
    Timestamp::UNIX_EPOCH.saturating_add(moment.since_boot()).expect("a time")
}

pub fn group(name: &str) -> GroupName {
    GroupName::try_from(name).expect("a group name")
}

pub fn interface(name: &str) -> InterfaceName {
    InterfaceName::try_from(name).expect("an interface name")
}

pub fn eni(id: &str) -> EniId {
    EniId::try_from(id).expect("an ENI")
}

/// A virtual address.
pub fn vip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, n)
}

pub fn owner(id: &str) -> Owner {
    Owner { eni: eni(id), instance: None, primary: false }
}

pub fn error(class: ErrorClass) -> CallError {
    CallError::new(
        Failure::Api { code: format!("{class:?}").try_into().expect("a code"), class },
        "as the test wants it",
    )
}

pub fn line(name: &str, state: NotifyState) -> NotifyEvent {
    NotifyEvent { group: group(name), state }
}

/// The ENI behind an interface, as IMDS tells it.
pub fn network_interface(id: &str) -> Eni {
    Eni {
        id: eni(id),
        subnet: "subnet-0000000a".try_into().expect("a subnet"),
        vpc: "vpc-0000000a".try_into().expect("a VPC"),
        primary: Ipv4Addr::new(10, 0, 0, 1),
        block: Some("10.0.0.0/16".parse().expect("a block")),
    }
}

/// A group without anything configured but its `aws-vipa` node.
pub fn wanted(name: &str) -> GroupConfig {
    GroupConfig::new(group(name))
}

pub fn config(groups: &[&str]) -> Config {
    Config { groups: groups.iter().map(|name| wanted(name)).collect(), ..Config::default() }
}

/// A group of keepalived with these addresses on an interface.
pub fn run(name: &str, dev: &str, vrid: u8, addresses: &[Ipv4Addr]) -> RunningGroup {
    RunningGroup {
        name: group(name),
        interface: interface(dev),
        vrid,
        priority: 100,
        advertise_interval: AdvertiseInterval::default(),
        peers: vec![Ipv4Addr::new(10, 0, 0, 2)],
        addresses: addresses.iter().map(|&address| VirtualAddress { address, interface: None }).collect(),
    }
}

/// Something that is done to a world.
pub type Act = fn(&mut Harness);

/// What EC2 does with calls.
#[derive(Debug, Clone)]
pub struct Ec2 {
    pub claim_delay: Duration,
    pub read_delay: Duration,
    /// How old a state reads show.
    pub stale: Duration,
    /// What happens to the next claims; after that, all is well.
    pub claims: Vec<Fault>,
    /// What all claims fail with.
    pub refuses: Option<ErrorClass>,
    /// Answers to claims do not list what is assigned.
    pub lists_nothing: bool,
    /// What all reads fail with.
    pub read_refuses: Option<ErrorClass>,
    /// A claim that names one of these fails.
    pub bad: BTreeSet<Resource>,
    pub bad_class: ErrorClass,
    /// The code of that failure, if it matters.
    pub bad_code: Option<&'static str>,
    /// What dry runs for these fail with.
    pub dry_runs_fail: BTreeMap<Resource, ErrorClass>,
    /// How it describes ENIs; of all others it shows nothing but that they are owners.
    pub interfaces: BTreeMap<EniId, Interface>,
    /// An ENI that is not among them does not exist; else EC2 refuses to describe it.
    pub has_no_others: bool,
    /// How many addresses an ENI can have; none: the agent may not read it.
    pub limit: Option<usize>,
    /// What inspections fail with that show nothing.
    pub inspections_fail: ErrorClass,
}

/// What happens to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fails(ErrorClass),
    /// It is performed, and the answer comes too late.
    LandsUnanswered,
    /// It is performed, and the answer is cut off.
    LandsCutOff,
    None,
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// To the agent that was started so many times.
    Tell(u32, Event),
    Land(ClaimRequest),
    Show(u32, ReadId, ReadRequest),
    /// After a stall that began then.
    Thaw(BootInstant),
    /// It is known who has put addresses on interfaces a second before.
    Judged(u32),
    /// keepalived hears the other router, which its stale timer had taken for dead.
    Hears(Vec<GroupName>),
}

pub struct Harness {
    pub now: BootInstant,
    pub machine: Machine,
    pub invariants: Invariants,
    pub ec2: Ec2,
    pub imds: Result<(), ErrorClass>,
    /// What the kernel shows of the paths to EC2 and IMDS.
    pub network: LocalNetwork,
    /// The instances that ENIs are attached to; of all others EC2 does not say it.
    pub instances: BTreeMap<EniId, InstanceId>,
    /// The ENI behind each interface.
    pub enis: BTreeMap<InterfaceName, EniId>,
    pub config: Config,
    pub groups: Groups,
    /// Everything that the machine wanted done.
    pub done: Vec<(BootInstant, Action)>,
    /// What keepalived takes each group for.
    pub truth: BTreeMap<GroupName, NotifyState>,
    pub local: BTreeSet<Ipv4Addr>,
    /// What a person has put on the interface where keepalived puts it.
    pub by_hand: BTreeSet<Ipv4Addr>,
    /// Who has put each address that the agent has seen appear, and when.
    put: BTreeMap<Ipv4Addr, (BootInstant, PutBy)>,
    /// What the agent was told of the interfaces.
    known_local: BTreeSet<Ipv4Addr>,
    /// Addresses on interfaces that keepalived puts none of them on.
    pub elsewhere: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
    /// keepalived runs; how often its child does something; whether the child stands still.
    pub runs: bool,
    pub beat: Duration,
    pub child_frozen: bool,
    /// Ticks that nothing asked for are put in between: they must not lead to anything.
    pub pokes: Option<Rng>,
    holders: Vec<(BootInstant, Resource, Option<Holder>)>,
    queue: BTreeMap<(BootInstant, u64), Happening>,
    count: u64,
    /// How often the agent was started; not running in between.
    epoch: u32,
    is_down: bool,
    pipe: Vec<NotifyEvent>,
    /// What outlives the agent.
    losses: LossHistory,
    /// What reaches the agent once this router goes on.
    frozen: Option<Vec<Happening>>,
    /// When a stall that is to be seen has last ended.
    thawed: Option<BootInstant>,
    /// After a stall keepalived finds its timer run out before it hears the other router, that much later.
    pub stale: Option<Duration>,
    liveness_before: Option<BootInstant>,
    sampled: BootInstant,
    quiet: Option<BootInstant>,
    /// How often keepalived was looked at.
    pub samples: usize,
    /// When keepalived's child last did something.
    pub last_beat: BootInstant,
}

impl Harness {
    /// A world in which nothing has happened yet.
    pub fn new(config: Config, groups: Groups) -> Self {
        let names = groups.groups.iter().map(|g| (g.name.clone(), NotifyState::Backup)).collect();
        let mut harness = Self {
            now: BootInstant::default(),
            machine: Machine::new(BootInstant::default(), 1),
            invariants: Invariants::default(),
            ec2: Ec2 {
                claim_delay: ms(50),
                read_delay: ms(20),
                stale: Duration::ZERO,
                claims: Vec::new(),
                refuses: None,
                lists_nothing: false,
                read_refuses: None,
                bad: BTreeSet::new(),
                bad_class: ErrorClass::BadResource,
                bad_code: None,
                dry_runs_fail: BTreeMap::new(),
                interfaces: BTreeMap::new(),
                has_no_others: false,
                limit: None,
                inspections_fail: ErrorClass::Denied,
            },
            imds: Ok(()),
            network: LocalNetwork { forwards: Some(true), ..LocalNetwork::default() },
            instances: BTreeMap::new(),
            enis: BTreeMap::from([(interface("eth0"), eni(ETH0)), (interface("eth1"), eni(ETH1))]),
            config,
            groups,
            done: Vec::new(),
            truth: names,
            local: BTreeSet::new(),
            by_hand: BTreeSet::new(),
            put: BTreeMap::new(),
            known_local: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            runs: true,
            beat: secs(1),
            child_frozen: false,
            pokes: None,
            holders: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            epoch: 0,
            is_down: true,
            pipe: Vec::new(),
            losses: LossHistory::default(),
            frozen: None,
            thawed: None,
            stale: None,
            liveness_before: None,
            sampled: BootInstant::default(),
            quiet: None,
            samples: 0,
            last_beat: BootInstant::default(),
        };
        for ip in harness.groups.groups.iter().flat_map(|g| &g.addresses).map(|a| a.address).collect::<Vec<_>>() {
            harness.holders.push((BootInstant::default(), ip.into(), Some(Holder::Eni(owner(PEER)))));
        }
        harness
    }

    /// One group `a` with one address on eth0, the agent started, keepalived in BACKUP, and all of that known.
    pub fn one() -> Self {
        Self::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] })
    }

    /// The agent started, every group in BACKUP by a line, and ten seconds of quiet.
    pub fn settled(config: Config, groups: Groups) -> Self {
        let mut harness = Self::new(config, groups);
        harness.start_agent();
        let names: Vec<GroupName> = harness.truth.keys().cloned().collect();
        names.iter().for_each(|name| harness.becomes(name.as_str(), NotifyState::Backup));
        harness.run(secs(10));
        harness.done.clear();
        harness
    }

    /// As [`Harness::one`], with the address claimed by a MASTER line and confirmed, and long after that.
    pub fn held() -> Self {
        let mut harness = Self::one();
        harness.master("a");
        harness.run(secs(100));
        assert_eq!(harness.ours(), [vip(1)].into());
        harness.done.clear();
        harness
    }

    // ── what happens ──

    /// Tells the machine something now.
    pub fn tell(&mut self, event: Event) {
        if self.is_down {
            return;
        }
        if let Some(held) = &mut self.frozen {
            held.push(Happening::Tell(self.epoch, event));
            return;
        }
        self.invariants.before_event(self.now, &event, self.thawed == Some(self.now));
        let actions = self.machine.handle(self.now, event);
        self.machine.assert_bounded();
        self.perform(actions);
        self.watch_liveness();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let deadline = self.machine.deadline();
        if let Some(deadline) = deadline {
            assert!(deadline > self.now, "a deadline that has passed: {deadline:?} at {:?}", self.now);
        }
        // B26.
        let is_soon = deadline.is_some_and(|deadline| deadline <= self.now + secs(2));
        assert!(is_soon || self.machine.groups.is_empty(), "a stall from {:?} on is seen at {deadline:?}", self.now);
        for (id, resource) in &self.machine.resources {
            let is_verified = resource.phase == Phase::Assigned { verified: true, mismatch: None };
            assert!(resource.checks.verified_since.is_none() || is_verified, "{id}: {:?}", resource.phase);
        }
        for action in actions {
            self.invariants.wants(self.now, &action);
            match &action {
                Action::Claim { id, request, timeout, .. } => self.claim(*id, request, *timeout),
                Action::Read { id, request, timeout } => {
                    let delay = self.ec2.read_delay.min(*timeout);
                    self.later(delay / 2, Happening::Show(self.epoch, *id, request.clone()));
                }
                Action::DryRun { id, request, timeout } => {
                    let class = self.ec2.dry_runs_fail.get(&request.resource()).copied();
                    let delay = if class == Some(ErrorClass::TimedOut) { *timeout } else { self.ec2.claim_delay };
                    self.answer(
                        delay,
                        Event::DryRun { id: *id, result: class.map_or(Ok(()), |class| Err(error(class))) },
                    );
                }
                Action::Inspect { wants_limit, enis, .. } => {
                    let failed = || error(self.ec2.inspections_fail);
                    let instance_type = || "m5.large".try_into().expect("a type");
                    let limit = self.ec2.limit.ok_or_else(failed);
                    let limit = limit.map(|addresses| AddressLimit { instance_type: instance_type(), addresses });
                    let described = self.described(enis);
                    let has_failed = described.is_empty() && !self.ec2.has_no_others;
                    let interfaces = if has_failed { Err(failed()) } else { Ok(described) };
                    let inspection = Inspection {
                        limit: wants_limit.then_some(limit),
                        interfaces: (!enis.is_empty()).then_some(interfaces),
                    };
                    self.answer(self.ec2.read_delay, Event::Inspected(inspection));
                }
                Action::Resolve(interface) => {
                    let eni = match self.imds {
                        Ok(()) => Ok(network_interface(self.enis[interface].as_str())),
                        Err(class) => Err(error(class)),
                    };
                    self.answer(ms(1), Event::Resolved { interface: interface.clone(), eni });
                }
                Action::ReadNetwork => self.answer(ms(1), Event::Network(self.network.clone())),
                Action::ReadLocalAddresses => {
                    let addresses = self.interfaces();
                    self.answer(Duration::ZERO, Event::LocalAddresses { addresses, requested: true });
                }
                Action::Log(log) => self.keep(log),
            }
            self.done.push((self.now, action));
        }
    }

    fn keep(&mut self, log: &LogEvent) {
        let (group, resource, kind) = match log {
            LogEvent::OwnershipLost { group, resource, by, taker } => {
                (group, Some(resource), RecordKind::OwnershipLost { by: by.clone(), taker: *taker })
            }
            LogEvent::Contested { group, resource, by, taker } => {
                (group, Some(resource), RecordKind::Contested { by: by.clone(), taker: *taker })
            }
            LogEvent::ContestedEnded { group, resource, taker } => {
                (group, Some(resource), RecordKind::ContestedEnded { taker: *taker })
            }
            LogEvent::Transition { group, from, to, cause } => {
                (group, None, RecordKind::Transition { from: *from, to: *to, cause: format!("{cause:?}") })
            }
            _ => return,
        };
        self.losses.note(&Record::new(clock(self.now), kind).of_group(group.clone()).about(resource.cloned()));
    }

    fn claim(&mut self, id: ClaimId, request: &ClaimRequest, timeout: Duration) {
        let planned = if self.ec2.claims.is_empty() { Fault::None } else { self.ec2.claims.remove(0) };
        let is_bad = request.resources().iter().any(|resource| self.ec2.bad.contains(resource));
        let fault = match (planned, self.ec2.refuses) {
            (Fault::None, _) if is_bad => Fault::Fails(self.ec2.bad_class),
            (Fault::None, Some(class)) => Fault::Fails(class),
            (fault, _) => fault,
        };
        let delay = self.ec2.claim_delay;
        let code = self.ec2.bad_code.filter(|_| is_bad).map(|code| code.try_into().expect("a code"));
        let failed = |class| {
            let error = error(class);
            let failure = code.clone().map_or(error.failure.clone(), |code| Failure::Api { code, class });
            Event::Claimed { id, result: Err(CallError { failure, ..error }) }
        };
        match fault {
            Fault::None if delay < timeout => {
                self.later(delay / 2, Happening::Land(request.clone()));
                let addresses = request.resources().into_iter().filter_map(|resource| resource.address());
                let unlisted = addresses.filter(|_| self.ec2.lists_nothing).collect();
                let request = RequestId::try_from(format!("request-{}", id.0)).expect("a request id");
                self.answer(
                    delay,
                    Event::Claimed { id, result: Ok(Acknowledgement { request_id: Some(request), unlisted }) },
                );
            }
            Fault::None | Fault::LandsUnanswered => {
                self.later(delay / 2, Happening::Land(request.clone()));
                self.answer(timeout, failed(ErrorClass::TimedOut));
            }
            Fault::LandsCutOff => {
                self.later(delay / 2, Happening::Land(request.clone()));
                self.answer(delay, failed(ErrorClass::Transient));
            }
            Fault::Fails(ErrorClass::TimedOut) => self.answer(timeout, failed(ErrorClass::TimedOut)),
            Fault::Fails(class) => self.answer(delay, failed(class)),
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    fn answer(&mut self, after: Duration, event: Event) {
        self.later(after, Happening::Tell(self.epoch, event));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(epoch, event) if epoch == self.epoch => self.tell(event),
            Happening::Tell(..) => {}
            Happening::Land(ClaimRequest::ElasticIp { allocation, eni, private_address }) => {
                let private_address = private_address.unwrap_or(network_interface(eni.as_str()).primary);
                self.associate(Resource::ElasticIp(allocation), eni.as_str(), private_address);
            }
            Happening::Land(request) => {
                request.resources().into_iter().for_each(|resource| self.give(resource, request.eni().as_str()));
            }
            Happening::Show(epoch, id, request) => {
                let result = match self.ec2.read_refuses {
                    Some(class) => Err(error(class)),
                    None => Ok(self.answer_to(&request)),
                };
                let rest = self.ec2.read_delay / 2;
                self.later(rest, Happening::Tell(epoch, Event::Read { id, result }));
            }
            Happening::Thaw(since) => {
                let held = self.frozen.take().unwrap_or_default();
                self.last_beat = self.now;
                if since.until(self.now) > STALL {
                    self.thawed = Some(self.now);
                    self.invariants.thawed(self.now, since.until(self.now));
                }
                held.into_iter().for_each(|happening| self.happen(happening));
                self.wake_stale(since);
            }
            Happening::Judged(epoch) if epoch == self.epoch => self.tell(Event::PutBy(self.puts())),
            Happening::Judged(_) => {}
            Happening::Hears(names) => {
                let is_master = |name: &&GroupName| self.truth.get(*name) == Some(&NotifyState::Backup);
                let names: Vec<GroupName> = names.iter().filter(is_master).cloned().collect();
                let states: Vec<_> = names.iter().map(|name| (name.as_str(), NotifyState::Backup)).collect();
                self.all_become(&states);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let awake = !self.is_down && self.frozen.is_none();
            let queued = self.queue.keys().next().map(|(moment, _)| *moment);
            let deadline = self.machine.deadline().filter(|_| awake).map(|d| d.max(self.now));
            let again = self.machine.liveness_poll_interval(self.now).filter(|_| awake);
            let look = again.map(|again| (self.sampled + again).max(self.now));
            let Some(next) = [queued, deadline, look].into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.poke(next);
            self.now = next;
            if queued == Some(next) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            } else if deadline == Some(next) {
                self.tell(Event::Tick);
            } else if let Some(event) = self.sample_liveness() {
                self.tell(event);
            }
        }
        self.now = end;
    }

    /// A tick before anything is due.
    fn poke(&mut self, next: BootInstant) {
        let between = self.now.until(next) / 2;
        let awake = !self.is_down && self.frozen.is_none();
        if between > Duration::ZERO && awake && self.pokes.as_mut().is_some_and(Rng::bool) {
            self.now = self.now + between;
            let before = self.machine.deadline();
            let actions = self.machine.handle(self.now, Event::Tick);
            assert_eq!(actions, [], "slept through at {:?}: the deadline was {before:?}", self.now);
        }
    }

    // ── the agent ──

    pub fn start_agent(&mut self) {
        // Nothing starts on a router that stands still.
        if self.frozen.is_some() {
            return;
        }
        self.epoch += 1;
        self.is_down = false;
        self.machine = Machine::new(self.now, u64::from(self.epoch));
        self.invariants.started(self.now);
        self.liveness_before = None;
        // Its list of the addresses does not have the processes that added them.
        self.known_local.clone_from(&self.local);
        self.put.clear();
        self.look_around();
        let moment = |time: &Timestamp| {
            BootInstant::after_boot(time.duration_since(clock(BootInstant::default())).unsigned_abs())
        };
        // As the agent keeps them: in a file.
        let file = serde_json::to_string(&self.losses).expect("JSON");
        self.losses = serde_json::from_str(&file).expect("its own file");
        let losses = self.losses.ownership_losses().into_iter();
        let restored = losses.map(|((group, resource), losses)| RestoredState {
            group: group.clone(),
            resource: resource.clone(),
            losses: losses.times.iter().map(|(time, by)| (moment(time), *by)).collect(),
            contested: losses.contested,
        });
        self.tell(Event::Restored(restored.collect()));
        self.tell(Event::Config(self.config.clone()));
        self.tell(Event::Groups(self.groups.clone()));
        let lines = mem::take(&mut self.pipe);
        self.tell(Event::Backlog { lines, was_full: false });
        self.tell(Event::Writer(self.runs));
    }

    pub fn kill_agent(&mut self) {
        self.is_down = true;
    }

    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// What the kernel says: every address where keepalived puts it, and what is elsewhere.
    fn interfaces(&self) -> BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>> {
        let mut interfaces = self.elsewhere.clone();
        for ip in &self.local {
            let held = self.groups.groups.iter().flat_map(|g| g.addresses.iter().map(move |a| (g, a)));
            let mut on =
                held.filter(|(_, a)| a.address == *ip).map(|(g, a)| a.interface.as_ref().unwrap_or(&g.interface));
            let on = on.next().cloned().unwrap_or_else(|| interface("eth0"));
            interfaces.entry(*ip).or_default().insert(on);
        }
        interfaces
    }

    /// The agent is told of the addresses as they are now, and a second later of who has put them there.
    pub fn look_around(&mut self) {
        let gone: Vec<Ipv4Addr> = self.known_local.difference(&self.local).copied().collect();
        gone.iter().for_each(|ip| _ = self.put.remove(ip));
        for ip in self.local.difference(&self.known_local) {
            let by = if self.by_hand.contains(ip) { PutBy::Command } else { PutBy::Process };
            self.put.insert(*ip, (self.now, by));
        }
        if self.local != self.known_local {
            self.known_local.clone_from(&self.local);
            self.later(secs(1), Happening::Judged(self.epoch));
        }
        self.tell(Event::LocalAddresses { addresses: self.interfaces(), requested: false });
    }

    fn puts(&self) -> BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>> {
        let interfaces = self.interfaces();
        let judged = self.put.iter().filter(|(_, (since, _))| *since + secs(1) <= self.now);
        judged
            .map(|(ip, (_, by))| {
                let on = interfaces.get(ip).into_iter().flatten();
                (*ip, on.map(|name| (name.clone(), *by)).collect())
            })
            .collect()
    }

    /// A person puts an address where keepalived puts it, or takes it away.
    pub fn by_hand(&mut self, ip: Ipv4Addr, is_there: bool) {
        // What keepalived does about it when it goes on is nothing that happens here.
        if self.frozen.is_some() || self.child_frozen || self.local.contains(&ip) == is_there {
            return;
        }
        if is_there {
            self.by_hand.insert(ip);
            self.local.insert(ip);
            return self.look_around();
        }
        self.by_hand.remove(&ip);
        self.local.remove(&ip);
        self.look_around();
        // keepalived sees it go, gives up and is elected again.
        let of = |g: &&RunningGroup| g.addresses.iter().any(|a| a.address == ip);
        let holder = self.groups.groups.iter().find(of).map(|g| g.name.clone());
        if let Some(name) = holder.filter(|name| self.truth.get(name) == Some(&NotifyState::Master)) {
            self.all_become(&[(name.as_str(), NotifyState::Backup)]);
            self.all_become(&[(name.as_str(), NotifyState::Master)]);
        }
    }

    fn watch_liveness(&mut self) {
        match self.machine.liveness_poll_interval(self.now) {
            None => (self.liveness_before, self.quiet) = (None, None),
            Some(again) if self.liveness_before.is_none() && self.sampled + again <= self.now => {
                self.sample_liveness();
            }
            Some(_) => {}
        }
    }

    fn sample_liveness(&mut self) -> Option<Event> {
        self.samples += 1;
        self.sampled = self.now;
        if !self.runs {
            (self.liveness_before, self.quiet) = (None, None);
            return None;
        }
        if !self.child_frozen && !self.is_in_fault() {
            while self.last_beat + self.beat <= self.now {
                self.last_beat = self.last_beat + self.beat;
            }
        }
        let before = self.liveness_before.replace(self.now)?;
        if before < self.last_beat && self.last_beat <= self.now {
            self.quiet = None;
            return Some(Event::Liveness { after: before });
        }
        // A stopped process is not asleep.
        self.quiet = (!self.child_frozen).then(|| self.quiet.unwrap_or(before));
        self.quiet.map(|since| Event::Inactive { since })
    }

    /// Without a group that is not in FAULT keepalived has no timer.
    fn is_in_fault(&self) -> bool {
        !self.truth.is_empty() && self.truth.values().all(|state| *state == NotifyState::Fault)
    }

    // ── keepalived ──

    /// A group becomes what it is now; the address comes or goes a moment before the line.
    pub fn becomes(&mut self, name: &str, state: NotifyState) {
        self.all_become(&[(name, state)]);
    }

    /// The same of several groups, or of one again and again; the agent reads all lines at once.
    pub fn all_become(&mut self, states: &[(&str, NotifyState)]) {
        let lines = self.change(states);
        if !lines.is_empty() {
            self.write(lines);
        }
    }

    /// The same, and another process reads the lines.
    pub fn becomes_unheard(&mut self, name: &str, state: NotifyState) {
        self.change(&[(name, state)]);
    }

    fn change(&mut self, states: &[(&str, NotifyState)]) -> Vec<NotifyEvent> {
        if !self.runs || self.child_frozen || self.frozen.is_some() {
            return Vec::new();
        }
        let before = self.local.clone();
        let mut lines = Vec::new();
        for (name, state) in states {
            let Some(run) = self.groups.groups.iter().find(|g| g.name.as_str() == *name) else {
                continue;
            };
            for address in &run.addresses {
                match state {
                    NotifyState::Master => _ = self.local.insert(address.address),
                    _ => {
                        self.local.remove(&address.address);
                        self.by_hand.remove(&address.address);
                    }
                }
            }
            self.truth.insert(group(name), *state);
            lines.push(line(name, *state));
        }
        if before != self.local {
            self.look_around();
        }
        lines
    }

    pub fn master(&mut self, name: &str) {
        self.becomes(name, NotifyState::Master);
    }

    pub fn backup(&mut self, name: &str) {
        self.becomes(name, NotifyState::Backup);
    }

    /// A line without a change.
    pub fn says(&mut self, name: &str, state: NotifyState) {
        if self.runs && !self.child_frozen && self.frozen.is_none() {
            self.write(vec![line(name, state)]);
        }
    }

    /// Lines of keepalived, and nothing else.
    pub fn write(&mut self, lines: Vec<NotifyEvent>) {
        if self.is_down {
            self.pipe.extend(lines);
        } else {
            self.tell(Event::Notify(lines));
        }
    }

    /// SIGKILL of keepalived's process group: its addresses stay.
    pub fn kill_keepalived(&mut self) {
        self.runs = false;
        self.tell(Event::Hup);
        self.tell(Event::Writer(false));
    }

    /// keepalived starts: left-over addresses go, and every group begins as BACKUP.
    pub fn start_keepalived(&mut self) {
        self.runs = true;
        self.child_frozen = false;
        self.last_beat = self.now;
        self.tell(Event::Writer(true));
        self.run(ms(2));
        let groups = self.groups.groups.clone();
        self.truth = groups.iter().map(|g| (g.name.clone(), NotifyState::Backup)).collect();
        self.local.clear();
        self.look_around();
        self.write(groups.iter().map(|g| line(g.name.as_str(), NotifyState::Backup)).collect());
    }

    /// keepalived takes another set of groups, announced a moment before. A group that is gone leaves with FAULT; one
    /// that is there with another router id begins anew.
    pub fn reload(&mut self, groups: Groups) {
        self.tell(Event::Groups(groups.clone()));
        let before = mem::replace(&mut self.groups, groups.clone());
        if !self.runs {
            return;
        }
        self.tell(Event::Hup);
        let mut lines = Vec::new();
        for old in &before.groups {
            match groups.groups.iter().find(|new| new.name == old.name) {
                Some(new) if new.vrid == old.vrid => {
                    let is_master = self.truth.get(&old.name) == Some(&NotifyState::Master);
                    old.addresses.iter().for_each(|a| {
                        self.local.remove(&a.address);
                    });
                    self.local.extend(new.addresses.iter().filter(|_| is_master).map(|a| a.address));
                }
                _ => {
                    old.addresses.iter().for_each(|a| {
                        self.local.remove(&a.address);
                    });
                    self.truth.remove(&old.name);
                    lines.push(line(old.name.as_str(), NotifyState::Fault));
                }
            }
        }
        for new in &groups.groups {
            if !self.truth.contains_key(&new.name) {
                self.truth.insert(new.name.clone(), NotifyState::Backup);
                lines.push(line(new.name.as_str(), NotifyState::Backup));
            }
        }
        self.look_around();
        self.write(lines);
    }

    // ── this router ──

    /// This router stands still for a while.
    pub fn freeze(&mut self, duration: Duration) {
        if self.frozen.is_none() {
            self.frozen = Some(Vec::new());
            self.later(duration, Happening::Thaw(self.now));
        }
    }

    /// Every standby's timer has run out in the stall: keepalived takes its groups for MASTER until it hears the other router.
    fn wake_stale(&mut self, since: BootInstant) {
        let (Some(stale), true) = (self.stale, since.until(self.now) > ELECTION) else {
            return;
        };
        let backups = self.truth.iter().filter(|(_, state)| **state == NotifyState::Backup);
        let names: Vec<GroupName> = backups.map(|(name, _)| name.clone()).collect();
        let truth = self.truth.clone();
        let states: Vec<_> = names.iter().map(|name| (name.as_str(), NotifyState::Master)).collect();
        self.all_become(&states);
        // The other router is MASTER all the while.
        self.truth = truth;
        self.later(stale, Happening::Hears(names));
    }

    // ── EC2 ──

    /// An ENI has a resource from now on.
    pub fn give(&mut self, resource: impl Into<Resource>, id: &str) {
        let instance = self.instances.get(&eni(id)).cloned();
        self.give_to(resource, Owner { instance, ..owner(id) });
    }

    /// The same, with where that is attached, and whether it is its primary address.
    pub fn give_to(&mut self, resource: impl Into<Resource>, owner: Owner) {
        self.show(resource, Some(Holder::Eni(owner)));
    }

    /// An Elastic IP is associated with that private address of the ENI from now on.
    pub fn associate(&mut self, resource: impl Into<Resource>, id: &str, private_address: Ipv4Addr) {
        let instance = self.instances.get(&eni(id)).cloned();
        let (owner, public_address) = (Owner { instance, ..owner(id) }, None);
        self.show(resource, Some(Holder::Association { owner, private_address, public_address }));
    }

    /// The resource is free from now on.
    pub fn unassign(&mut self, resource: impl Into<Resource>) {
        self.show(resource, None);
    }

    /// EC2 has this of a resource from now on.
    pub fn show(&mut self, resource: impl Into<Resource>, holder: Option<Holder>) {
        self.holders.push((self.now, resource.into(), holder));
    }

    fn answer_to(&self, request: &ReadRequest) -> ReadAnswer {
        let interfaces = match request {
            ReadRequest::Addresses { enis, .. } => self.described(enis),
            ReadRequest::Routes(_) | ReadRequest::ElasticIps(_) => BTreeMap::new(),
        };
        ReadAnswer { holders: self.shown(&request.resources()), interfaces }
    }

    fn described(&self, enis: &[EniId]) -> BTreeMap<EniId, Interface> {
        enis.iter().filter_map(|eni| Some((eni.clone(), self.ec2.interfaces.get(eni)?.clone()))).collect()
    }

    fn shown(&self, resources: &[Resource]) -> BTreeMap<Resource, Holder> {
        let then = self.now - self.ec2.stale;
        let holder = |resource: &Resource| {
            let mut of = self.holders.iter().filter(|(_, other, _)| other == resource);
            let first = of.clone().next();
            of.rfind(|(when, _, _)| *when <= then).or(first)?.2.clone()
        };
        resources.iter().filter_map(|resource| Some((resource.clone(), holder(resource)?))).collect()
    }

    /// The ENI that has a resource now.
    pub fn owner(&self, resource: impl Into<Resource>) -> Option<&str> {
        let resource = resource.into();
        let (_, _, holder) = self.holders.iter().rev().find(|(_, other, _)| *other == resource)?;
        holder.as_ref()?.owner().map(|owner| owner.eni.as_str())
    }

    /// The virtual addresses that this router has in EC2.
    pub fn ours(&self) -> BTreeSet<Ipv4Addr> {
        self.our_resources().iter().filter_map(Resource::address).collect()
    }

    /// What this router has in EC2.
    pub fn our_resources(&self) -> BTreeSet<Resource> {
        let all: BTreeSet<&Resource> = self.holders.iter().map(|(_, resource, _)| resource).collect();
        let is_ours = |id: &str| self.enis.values().any(|e| e.as_str() == id);
        all.into_iter().filter(|resource| self.owner((*resource).clone()).is_some_and(is_ours)).cloned().collect()
    }

    // ── what was done ──

    /// The claims of addresses since a moment: milliseconds after it, and the addresses.
    pub fn claims_since(&self, moment: BootInstant) -> Vec<(u64, Vec<Ipv4Addr>)> {
        let requests = self.requests_since(moment).into_iter();
        requests
            .filter_map(|(when, request)| match request {
                ClaimRequest::Addresses { addresses, .. } => Some((when, addresses)),
                ClaimRequest::Route { .. } | ClaimRequest::ElasticIp { .. } => None,
            })
            .collect()
    }

    /// All claims since a moment, and how many milliseconds after it they went out.
    pub fn requests_since(&self, moment: BootInstant) -> Vec<(u64, ClaimRequest)> {
        self.done
            .iter()
            .filter_map(|(when, action)| match action {
                Action::Claim { request, .. } if *when >= moment => {
                    Some((moment.until(*when).as_millis() as u64, request.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// The notify events that each claim since a moment names, by address; in milliseconds after the moment, as the claim is.
    pub fn notified_since(&self, moment: BootInstant) -> Vec<(u64, Vec<(Ipv4Addr, u64)>)> {
        let ms = |when: &BootInstant| moment.until(*when).as_millis() as u64;
        let of = |(when, action): &(BootInstant, Action)| match action {
            Action::Claim { notified, .. } if *when >= moment => {
                let addresses = notified.iter().filter_map(|(resource, at)| Some((resource.address()?, ms(at))));
                Some((ms(when), addresses.collect()))
            }
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    /// All dry runs since a moment, and how many milliseconds after it they went out.
    pub fn dry_runs_since(&self, moment: BootInstant) -> Vec<(u64, DryRunRequest)> {
        let of = |(when, action): &(BootInstant, Action)| match action {
            Action::DryRun { request, .. } if *when >= moment => {
                Some((moment.until(*when).as_millis() as u64, request.clone()))
            }
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    /// All reads since a moment, and how many milliseconds after it they went out.
    pub fn reads_since(&self, moment: BootInstant) -> Vec<(u64, ReadRequest)> {
        let of = |(when, action): &(BootInstant, Action)| match action {
            Action::Read { request, .. } if *when >= moment => {
                Some((moment.until(*when).as_millis() as u64, request.clone()))
            }
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    /// When claims went out, in milliseconds after a moment.
    pub fn claim_times(&self, moment: BootInstant) -> Vec<u64> {
        self.claims_since(moment).into_iter().map(|(when, _)| when).collect()
    }

    /// When reads went out, in milliseconds after a moment.
    pub fn read_times(&self, moment: BootInstant) -> Vec<u64> {
        let is_read =
            |(when, action): &&(BootInstant, Action)| *when >= moment && matches!(action, Action::Read { .. });
        self.done.iter().filter(is_read).map(|(when, _)| moment.until(*when).as_millis() as u64).collect()
    }

    /// What was noted since a moment, in milliseconds after it.
    pub fn log_events(&self, moment: BootInstant) -> Vec<(u64, LogEvent)> {
        self.done
            .iter()
            .filter_map(|(when, action)| match action {
                Action::Log(log) if *when >= moment => Some((moment.until(*when).as_millis() as u64, log.clone())),
                _ => None,
            })
            .collect()
    }

    /// When ownership losses were logged, in milliseconds after a moment.
    pub fn ownership_loss_times(&self, moment: BootInstant) -> Vec<u64> {
        let log_events = self.log_events(moment).into_iter();
        log_events.filter(|(_, log)| matches!(log, LogEvent::OwnershipLost { .. })).map(|(when, _)| when).collect()
    }
}
