//! Random sequences of what can happen to a router. The [`super::invariants::Invariants`] watches every step; what follows is
//! whether all comes to a good end. `PROPTEST_CASES` sets how many sequences are tried.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use fastrand::Rng;
use proptest::prelude::*;

use super::harness::{
    ETH0, ETH1, Fault, Harness, PEER, THIRD_PARTY, eni, group, interface, ms, run, secs, vip, wanted,
};
use crate::claim::Event;
use crate::keepalived::groups::{Groups, VirtualAddress};
use crate::model::config::{Config, ElasticIpConfig, GroupConfig, RouteConfig};
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::ErrorClass;
use crate::model::ids::{AllocationId, RouteTableId};
use crate::model::resource::{Prefix, Resource, Route};
use crate::model::vrrp::NotifyState;

/// Something that happens, and then time passes.
#[derive(Debug, Clone)]
enum Step {
    Becomes(usize, NotifyState),
    /// Another process reads the line.
    Unheard(usize, NotifyState),
    ByHand(u8, bool),
    /// Lines in one read.
    Burst(Vec<(usize, NotifyState)>),
    /// A line that comes without anything changing.
    RxLower(usize),
    Take(u8, bool),
    Unassign(u8),
    Claims(Vec<Fault>),
    Refuse(Option<ErrorClass>),
    RefuseReads(Option<ErrorClass>),
    Bad(Option<u8>),
    /// A claim of a route or an Elastic IP, and dry runs for it.
    BadResource(usize, Option<ErrorClass>),
    /// A third party or the peer takes a route or an Elastic IP, or it is free.
    TakeResource(usize, Option<bool>),
    Delays(u64, u64),
    Stale(u64),
    Imds(bool),
    OtherEni(bool),
    KillKeepalived,
    StartKeepalived,
    Reload,
    FreezeChild(bool),
    /// For so long; keepalived's timers are stale after it for that long, if at all.
    Freeze(u64, Option<u64>),
    KillAgent,
    StartAgent,
    FifoFull,
    Pause(usize, u64),
    Resume(usize),
    Force(usize),
    Configure(usize),
    Announce(usize),
    Credentials(CredentialsChange),
    ReadNow,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The routes and the Elastic IP of group `b`.
fn resources() -> [Resource; 3] {
    let route = |n: u8| Resource::Route(Route { table: table(n), destination: destination() });
    [route(1), route(2), Resource::ElasticIp(allocation())]
}

fn table(n: u8) -> RouteTableId {
    format!("rtb-0000000{n}").try_into().expect("a route table")
}

fn destination() -> Prefix {
    "192.0.2.0/24".parse().expect("a prefix")
}

fn allocation() -> AllocationId {
    "eipalloc-00000001".try_into().expect("an allocation")
}

/// Group `b`, with routes and an Elastic IP.
fn wanted_b() -> GroupConfig {
    let tables = [table(1), table(2)].into();
    GroupConfig {
        routes: vec![RouteConfig { destination: destination(), tables, interface: None }],
        elastic_ips: vec![ElasticIpConfig { allocation: allocation(), private_address: None, interface: None }],
        ..wanted("b")
    }
}

/// What the operator asks for: all groups; one switched off; one gone; one with another ENI; one with a part of its
/// addresses.
fn configured(n: usize) -> Config {
    let all = Config { groups: vec![wanted("a"), wanted_b(), wanted("c")], ..Config::default() };
    let groups: Vec<GroupConfig> = match n {
        0 => all.groups,
        1 => vec![wanted("a"), GroupConfig { disable: true, ..wanted_b() }, wanted("c")],
        2 => vec![wanted("a"), wanted("c")],
        3 => vec![GroupConfig { network_interface_id: Some(eni(ETH1)), ..wanted("a") }, wanted_b(), wanted("c")],
        _ => vec![GroupConfig { addresses: [vip(1)].into(), ..wanted("a") }, wanted_b(), wanted("c")],
    };
    Config { groups, ..Config::default() }
}

/// What keepalived runs: all groups; one gone; one with an address more; one with another router id.
fn announced(n: usize) -> Groups {
    let mut c = run("c", "eth0", 12, &[vip(5)]);
    c.addresses.push(VirtualAddress { address: vip(6), interface: Some(interface("eth1")) });
    let a = run("a", "eth0", 10, &[vip(1), vip(2), vip(3)]);
    let b = run("b", "eth0", 11, &[vip(4)]);
    Groups {
        groups: match n {
            0 => vec![a, b, c],
            1 => vec![a, c],
            2 => vec![a, run("b", "eth0", 11, &[vip(4), vip(7)]), c],
            _ => vec![a, run("b", "eth0", 21, &[vip(4)]), c],
        },
    }
}

fn states() -> impl Strategy<Value = NotifyState> {
    prop_oneof![
        4 => Just(NotifyState::Master),
        3 => Just(NotifyState::Backup),
        1 => Just(NotifyState::Fault),
        1 => Just(NotifyState::Stop),
    ]
}

fn classes() -> impl Strategy<Value = ErrorClass> {
    proptest::sample::select(&ErrorClass::ALL[..])
}

fn steps() -> impl Strategy<Value = Step> {
    let a_group = 0..NAMES.len();
    let fault = prop_oneof![
        3 => classes().prop_map(Fault::Fails),
        1 => Just(Fault::LandsUnanswered),
        1 => Just(Fault::None),
    ];
    prop_oneof![
        12 => (a_group.clone(), states()).prop_map(|(g, s)| Step::Becomes(g, s)),
        2 => proptest::collection::vec((a_group.clone(), states()), 2..6).prop_map(Step::Burst),
        2 => (a_group.clone(), states()).prop_map(|(g, s)| Step::Unheard(g, s)),
        2 => (1..8_u8, any::<bool>()).prop_map(|(n, is_there)| Step::ByHand(n, is_there)),
        4 => a_group.clone().prop_map(Step::RxLower),
        8 => (1..8_u8, any::<bool>()).prop_map(|(n, third_party)| Step::Take(n, third_party)),
        1 => (1..8_u8).prop_map(Step::Unassign),
        4 => proptest::collection::vec(fault, 1..4).prop_map(Step::Claims),
        2 => proptest::option::of(classes()).prop_map(Step::Refuse),
        2 => proptest::option::of(classes()).prop_map(Step::RefuseReads),
        1 => proptest::option::of(1..8_u8).prop_map(Step::Bad),
        2 => (0..3_usize, proptest::option::of(classes())).prop_map(|(n, class)| Step::BadResource(n, class)),
        2 => (0..3_usize, proptest::option::of(any::<bool>())).prop_map(|(n, by)| Step::TakeResource(n, by)),
        2 => (1..4_000_u64, 1..4_000_u64).prop_map(|(c, r)| Step::Delays(c, r)),
        1 => (0..60_000_u64).prop_map(Step::Stale),
        1 => any::<bool>().prop_map(Step::Imds),
        1 => any::<bool>().prop_map(Step::OtherEni),
        2 => Just(Step::KillKeepalived),
        3 => Just(Step::StartKeepalived),
        1 => Just(Step::Reload),
        2 => any::<bool>().prop_map(Step::FreezeChild),
        2 => (0..60_000_u64, proptest::option::of(0..1_000_u64)).prop_map(|(f, s)| Step::Freeze(f, s)),
        2 => Just(Step::KillAgent),
        3 => Just(Step::StartAgent),
        1 => Just(Step::FifoFull),
        1 => (a_group.clone(), 1..200_000_u64).prop_map(|(g, d)| Step::Pause(g, d)),
        1 => a_group.clone().prop_map(Step::Resume),
        1 => a_group.prop_map(Step::Force),
        1 => (0..5_usize).prop_map(Step::Configure),
        1 => (0..4_usize).prop_map(Step::Announce),
        2 => prop_oneof![Just(CredentialsChange::Others), Just(CredentialsChange::NewKeys)].prop_map(Step::Credentials),
        1 => Just(Step::ReadNow),
    ]
}

/// How long until the next step: most of the time not long.
fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 3 => 1..30_u64, 4 => 30..1_500_u64, 3 => 1_500..12_000_u64, 1 => 12_000..400_000_u64]
}

impl Harness {
    fn step(&mut self, step: Step) {
        match step {
            Step::Becomes(g, state) => self.becomes(NAMES[g], state),
            Step::Unheard(g, state) => {
                // keepalived makes no two transitions of a group in one instant. In the instant of a line, the line decides,
                // and this one is not heard.
                self.run(ms(1));
                self.becomes_unheard(NAMES[g], state);
            }
            Step::ByHand(n, is_there) => self.by_hand(vip(n), is_there),
            Step::Burst(states) => self.all_become(&states.iter().map(|(g, s)| (NAMES[*g], *s)).collect::<Vec<_>>()),
            Step::RxLower(g) => {
                if self.truth.get(&group(NAMES[g])) == Some(&NotifyState::Master) {
                    self.says(NAMES[g], NotifyState::MasterRxLowerPri);
                }
            }
            Step::Take(n, third_party) => self.give(vip(n), if third_party { THIRD_PARTY } else { PEER }),
            Step::Unassign(n) => self.unassign(vip(n)),
            Step::Claims(faults) => self.ec2.claims = faults,
            Step::Refuse(class) => self.ec2.refuses = class,
            Step::RefuseReads(class) => self.ec2.read_refuses = class,
            Step::Bad(n) => self.ec2.bad = n.map(|n| vip(n).into()).into_iter().collect(),
            Step::BadResource(n, class) => {
                let resource = resources()[n].clone();
                self.ec2.dry_runs_fail.remove(&resource);
                if let Some(class) = class {
                    self.ec2.bad = [resource.clone()].into();
                    self.ec2.bad_class = class;
                    self.ec2.dry_runs_fail.insert(resource, class);
                }
            }
            Step::TakeResource(n, by) => {
                let by = by.map(|is_third_party| if is_third_party { THIRD_PARTY } else { PEER });
                match (&resources()[n], by) {
                    (resource, None) => self.unassign(resource.clone()),
                    (Resource::ElasticIp(_), Some(by)) => {
                        self.associate(resources()[n].clone(), by, Ipv4Addr::new(10, 0, 0, 2));
                    }
                    (resource, Some(by)) => self.give(resource.clone(), by),
                }
            }
            Step::Delays(claim, read) => {
                self.ec2.claim_delay = ms(claim);
                self.ec2.read_delay = ms(read);
            }
            Step::Stale(millis) => self.ec2.stale = ms(millis),
            Step::Imds(up) => self.imds = if up { Ok(()) } else { Err(ErrorClass::Transient) },
            Step::OtherEni(other) => {
                let id = if other { "eni-0000000e" } else { ETH0 };
                self.enis.insert(interface("eth0"), eni(id));
            }
            Step::KillKeepalived => {
                if self.runs {
                    self.kill_keepalived();
                }
            }
            Step::StartKeepalived => {
                if !self.runs {
                    self.start_keepalived();
                }
            }
            Step::Reload => self.tell(Event::Hup),
            Step::FreezeChild(frozen) => self.child_frozen = frozen,
            Step::Freeze(millis, stale) => {
                self.stale = stale.map(ms);
                self.freeze(ms(millis));
            }
            Step::KillAgent => self.kill_agent(),
            Step::StartAgent => self.start_agent(),
            Step::FifoFull => self.tell(Event::FifoFull),
            Step::Pause(g, millis) => {
                let until = self.now + ms(millis);
                self.tell(Event::Pause { group: group(NAMES[g]), until });
            }
            Step::Resume(g) => self.tell(Event::Resume(group(NAMES[g]))),
            Step::Force(g) => {
                if self.machine.refuses_force(&group(NAMES[g])).is_none() {
                    self.tell(Event::Force(group(NAMES[g])));
                }
            }
            Step::Configure(n) => {
                self.config = configured(n);
                self.tell(Event::Config(self.config.clone()));
            }
            Step::Announce(n) => self.reload(announced(n)),
            Step::Credentials(change) => self.tell(Event::Credentials(change)),
            Step::ReadNow => self.tell(Event::ReadNow),
        }
    }

    /// All faults stop, and nobody does anything any more.
    fn end_of_faults(&mut self) {
        self.run(secs(61));
        self.ec2.claims.clear();
        self.ec2.refuses = None;
        self.ec2.read_refuses = None;
        self.ec2.bad.clear();
        self.ec2.dry_runs_fail.clear();
        self.ec2.claim_delay = ms(50);
        self.ec2.read_delay = ms(20);
        self.ec2.stale = secs(0);
        self.imds = Ok(());
        self.child_frozen = false;
        if !self.runs {
            self.start_keepalived();
        }
        if self.is_down() {
            self.start_agent();
        }
        for ip in self.by_hand.clone() {
            self.by_hand(ip, false);
        }
        self.config = configured(0);
        self.tell(Event::Config(self.config.clone()));
        for name in NAMES {
            self.tell(Event::Resume(group(name)));
        }
    }

    /// The addresses, routes and Elastic IPs whose groups keepalived takes for MASTER.
    fn due_to_us(&self) -> BTreeSet<Resource> {
        let master =
            |g: &&crate::keepalived::groups::RunningGroup| self.truth.get(&g.name) == Some(&NotifyState::Master);
        let masters: Vec<_> = self.groups.groups.iter().filter(master).collect();
        let others = masters.iter().filter(|g| g.name == group("b")).flat_map(|_| resources());
        masters.iter().flat_map(|g| &g.addresses).map(|a| a.address.into()).chain(others).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_rule_holds_and_all_comes_to_a_good_end(
        script in proptest::collection::vec((steps(), pauses()), 1..60),
        seed in any::<u64>(),
    ) {
        let mut harness = Harness::new(configured(0), announced(0));
        harness.pokes = Some(Rng::with_seed(seed));
        harness.start_agent();
        for (step, pause) in script {
            harness.step(step);
            harness.run(ms(pause));
        }
        harness.end_of_faults();
        // The longest hold-down, twice, and some reads.
        harness.run(secs(2 * 450 + 120));
        let due = harness.due_to_us();
        let ours = harness.our_resources();
        prop_assert!(due.is_subset(&ours), "due to us: {:?}, ours: {:?}", due, ours);
        let quiet = harness.now;
        harness.run(secs(20 * 60));
        prop_assert_eq!(harness.requests_since(quiet), vec![], "claims although all is well");
        prop_assert!(due.is_subset(&harness.our_resources()));
    }
}
