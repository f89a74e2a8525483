//! Every state of an address and its group with every event. What must always hold is asserted in every cell. `table.txt`
//! has the cells that a reviewer checks by hand; `BLESS=1` rewrites it, and `PRINT_EVERY_CELL=1` prints all cells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use super::harness::{
    ETH0, Harness, PEER, THIRD_PARTY, config, eni, error, group, interface, line, ms, network_interface, run, secs,
    vip, wanted,
};
use crate::claim::group::GroupState;
use crate::claim::machine::network::NetworkReads;
use crate::claim::resource::Phase;
use crate::claim::{
    Action, BootInstant, Cause, ClaimId, DryRunId, DryRunRequest, Event, Inspection, LogEvent, Misplaced, PutBy,
    ReadAnswer, ReadId, RestoredState,
};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::{Acknowledgement, ErrorClass, Taker};
use crate::model::ids::EniId;
use crate::model::path::LocalNetwork;
use crate::model::resource::Holder;
use crate::model::vrrp::{NotifyState, VrrpState};

const LINES: [NotifyState; 6] = [
    NotifyState::Master,
    NotifyState::MasterRxLowerPri,
    NotifyState::Backup,
    NotifyState::Fault,
    NotifyState::Stop,
    NotifyState::Deleted,
];

/// How a state is reached.
type Setup = fn() -> Harness;

/// The states, by name.
const STATES: [(&str, Setup); 31] = [
    ("new", || Harness::started(true)),
    ("BACKUP by a line", Harness::one),
    ("BACKUP by inference", || Harness::started(true).after(secs(5))),
    ("FAULT", || Harness::one().with(|w| w.becomes("a", NotifyState::Fault))),
    ("STOP", || Harness::one().with(|w| w.becomes("a", NotifyState::Stop))),
    ("MASTER, the writer gone for a second", || Harness::held().with(Harness::kill_keepalived).after(secs(1))),
    ("MASTER, the writer gone for long", || Harness::held().with(Harness::kill_keepalived).after(secs(10))),
    ("MASTER, the FIFO was full", || Harness::held().with(|w| w.tell(Event::FifoFull))),
    ("MASTER, paused", || Harness::held().with(pause)),
    ("MASTER by inference, paused", || Harness::held().with(pause).with(|w| w.tell(Event::FifoFull)).after(secs(5))),
    ("disabled", || Harness::held().with(|w| w.tell(Event::Config(switched_off()))).with(Harness::local_master_line)),
    ("await local address", || {
        Harness::held().with(|w| w.forget_locally()).with(Harness::assign_to_third_party).after(secs(5))
    }),
    ("check owner", || {
        Harness::held().with(|w| w.tell(Event::FifoFull)).until(|p| matches!(p, Phase::CheckOwner { .. }))
    }),
    ("pending, ENI unknown", || Harness::started(false).with(|w| w.master("a")).after(ms(60))),
    ("pending, a retry", || Harness::one().with(|w| w.fail(ErrorClass::Transient))),
    ("pending, permanent error", || Harness::one().with(|w| w.fail(ErrorClass::Denied)).after(secs(1))),
    ("pending, rate limit reached", || Harness::one().with(Harness::storm)),
    ("pending, no liveness since the ownership loss", Harness::lost_without_liveness),
    ("pending, local addresses requested", || {
        Harness::lost_without_liveness().with(Harness::liveness_without_local_read)
    }),
    ("pending, contested", || Harness::contested().with(Harness::lose_ownership)),
    ("pending, the previous claim in flight", || {
        Harness::one().with(|w| w.master("a")).with(|w| w.backup("a")).with(|w| w.master("a"))
    }),
    ("idle, the previous claim in flight", || Harness::one().with(|w| w.master("a")).with(|w| w.backup("a"))),
    ("in flight", || Harness::one().with(|w| w.master("a")).after(ms(10))),
    ("in flight, after an ownership loss", || {
        Harness::held().with(Harness::lose_ownership).until(|p| matches!(p, Phase::InFlight(_)))
    }),
    ("assigned", || Harness::one().with(|w| w.master("a")).after(ms(60))),
    ("assigned, unverified for long", || {
        Harness::one().with(|w| w.ec2.read_refuses = Some(ErrorClass::Denied)).with(|w| w.master("a")).after(secs(70))
    }),
    ("assigned, verified", Harness::held),
    ("assigned, mismatch", || Harness::held().with(Harness::assign_to_third_party).after(ms(500))),
    ("assigned, mismatch: unassigned", || {
        Harness::held().with(|w| w.unassign(vip(1))).with(|w| w.tell(Event::ReadNow)).after(ms(500))
    }),
    ("assigned, verified, contested", Harness::contested),
    ("assigned, contested before the agent started", || {
        Harness::contested().with(Harness::kill_agent).with(Harness::start_agent).after(secs(5))
    }),
];

/// How an event is made: the world may be prepared for it, and time may pass before it.
type Make = Box<dyn Fn(&mut Harness) -> Event>;

/// When something other than the read of the network after a transition is due.
fn due(w: &mut Harness) -> BootInstant {
    w.machine.network_reads = NetworkReads::default();
    w.machine.next_deadline(w.now).unwrap_or(w.now)
}

fn events() -> Vec<(String, Make)> {
    let mut events: Vec<(String, Make)> = Vec::new();
    let mut add = |name: &str, make: Make| events.push((name.to_owned(), make));
    for state in LINES {
        add(&format!("line {state:?}"), Box::new(move |_| Event::Notify(vec![line("a", state)])));
    }
    add(
        "line MasterRxLowerPri, 2 s after another",
        Box::new(|w| {
            let heard = w.now - secs(2);
            w.machine.groups.get_mut(&group("a")).expect("the group").rx_lower = Some(heard);
            Event::Notify(vec![line("a", NotifyState::MasterRxLowerPri)])
        }),
    );
    for pair in [[NotifyState::Master, NotifyState::Backup], [NotifyState::Backup, NotifyState::Master]] {
        let lines = pair.map(|state| line("a", state)).to_vec();
        add(&format!("lines {:?} and {:?}", pair[0], pair[1]), Box::new(move |_| Event::Notify(lines.clone())));
    }
    add("line of another group", Box::new(|_| Event::Notify(vec![line("x", NotifyState::Master)])));
    add("line that names no state", Box::new(|_| Event::Notify(vec![])));
    for state in [None, Some(NotifyState::Master), Some(NotifyState::Backup), Some(NotifyState::Fault)] {
        let lines: Vec<_> = state.map(|state| line("a", state)).into_iter().collect();
        let make = move |_: &mut Harness| Event::Backlog { lines: lines.clone(), was_full: false };
        add(&format!("backlog {}", state.map_or("nothing".to_owned(), |s| format!("{s:?}"))), Box::new(make));
    }
    add("backlog, full", Box::new(|_| Event::Backlog { lines: vec![line("a", NotifyState::Master)], was_full: true }));
    add("fifo full", Box::new(|_| Event::FifoFull));
    add("hup", Box::new(|_| Event::Hup));
    add(
        "hup, the group gone",
        Box::new(|w| {
            w.machine.handle(w.now, Event::Groups(Groups { groups: vec![run("z", "eth0", 20, &[vip(9)])] }));
            Event::Hup
        }),
    );
    add(
        "hup, with another router id",
        Box::new(|w| {
            w.machine.handle(w.now, Event::Groups(Groups { groups: vec![run("a", "eth0", 20, &[vip(1)])] }));
            Event::Hup
        }),
    );
    for there in [false, true] {
        add(if there { "writer back" } else { "writer gone" }, Box::new(move |_| Event::Writer(there)));
    }
    for (name, here, asked) in [
        ("local: there", true, false),
        ("local: not there", false, false),
        ("local, requested: there", true, true),
        ("local, requested: not there", false, true),
    ] {
        let addresses: BTreeMap<_, _> = here.then(|| (vip(1), [interface("eth0")].into())).into_iter().collect();
        add(name, Box::new(move |_| Event::LocalAddresses { addresses: addresses.clone(), requested: asked }));
    }
    let elsewhere = BTreeMap::from([(vip(1), [interface("dum0")].into())]);
    add(
        "local: elsewhere",
        Box::new(move |_| Event::LocalAddresses { addresses: elsewhere.clone(), requested: false }),
    );
    for (name, by) in [("put there by a command", PutBy::Command), ("put there by a process", PutBy::Process)] {
        let puts = BTreeMap::from([(vip(1), BTreeMap::from([(interface("eth0"), by)]))]);
        add(
            name,
            Box::new(move |w| {
                let here = BTreeMap::from([(vip(1), [interface("eth0")].into())]);
                w.machine.handle(w.now, Event::LocalAddresses { addresses: here, requested: false });
                w.now = w.now + secs(1);
                Event::PutBy(puts.clone())
            }),
        );
    }
    add("liveness", Box::new(|w| Event::Liveness { after: w.now }));
    add("liveness of long ago", Box::new(|_| Event::Liveness { after: BootInstant::default() }));
    add("quiet", Box::new(|w| Event::Inactive { since: w.now }));
    add(
        "quiet for six seconds",
        Box::new(|w| {
            let since = w.now;
            let due = since + secs(6);
            while let Some(tick) = w.machine.deadline().filter(|deadline| *deadline <= due) {
                w.machine.handle(tick, Event::Tick);
            }
            w.now = due;
            Event::Inactive { since }
        }),
    );
    add("resolved", Box::new(|w| resolved(w, "eni-0000000a")));
    add("resolved to another ENI", Box::new(|w| resolved(w, "eni-0000000e")));
    add(
        "not resolved",
        Box::new(|_| Event::Resolved { interface: interface("eth0"), eni: Err(error(ErrorClass::Transient)) }),
    );
    add("claimed", Box::new(|w| claimed(w, None)));
    add(
        "claimed, not listed",
        Box::new(|w| match claimed(w, None) {
            Event::Claimed { id, .. } => {
                let acknowledged = Acknowledgement { request_id: None, unlisted: [vip(1)].into() };
                Event::Claimed { id, result: Ok(acknowledged) }
            }
            other => other,
        }),
    );
    for class in ErrorClass::ALL {
        add(&format!("claim failed, {class:?}"), Box::new(move |w| claimed(w, Some(class))));
    }
    for (name, owner) in
        [("ours", Some(ETH0)), ("the peer's", Some(PEER)), ("a third party's", Some(THIRD_PARTY)), ("unassigned", None)]
    {
        add(&format!("read: {name}"), Box::new(move |w| read(w, Ok(owner.map(eni)))));
    }
    for class in [ErrorClass::Transient, ErrorClass::Throttled] {
        add(&format!("read failed, {class:?}"), Box::new(move |w| read(w, Err(class))));
    }
    add(
        "inspected: no answer",
        Box::new(|_| Event::Inspected(Inspection { limit: Some(Err(error(ErrorClass::TimedOut))), interfaces: None })),
    );
    add("network", Box::new(|_| Event::Network(LocalNetwork::default())));
    // No address has one.
    add("answer to another's dry run", Box::new(|_| Event::DryRun { id: DryRunId(9_999), result: Ok(()) }));
    add("proof: allowed", Box::new(|_| Event::Proved(eni(ETH0))));
    let not_configured = || DryRunRequest::ElasticIp {
        allocation: "eipalloc-0000000f".try_into().expect("an id"),
        eni: eni(ETH0),
        private_address: None,
    };
    let refused = move || Event::DryRunByOperator { request: not_configured(), result: Err(error(ErrorClass::Denied)) };
    add("an operator's dry run of another resource", Box::new(move |_| refused()));
    let denials = || [(eni(ETH0), error(ErrorClass::Denied))].into();
    add("proof: denied", Box::new(move |_| Event::Denials(denials())));
    add("other credentials", Box::new(|_| Event::Credentials(CredentialsChange::Others)));
    add("new keys", Box::new(|_| Event::Credentials(CredentialsChange::NewKeys)));
    add("pause", Box::new(|w| Event::Pause { group: group("a"), until: w.now + secs(600) }));
    add("resume", Box::new(|_| Event::Resume(group("a"))));
    add("force", Box::new(|_| Event::Force(group("a"))));
    add("read now", Box::new(|_| Event::ReadNow));
    add("the same configuration", Box::new(|w| Event::Config(w.config.clone())));
    add("configuration: disabled", Box::new(|_| Event::Config(switched_off())));
    add("configuration: without the group", Box::new(|_| Event::Config(Config::default())));
    add(
        "configuration: another ENI",
        Box::new(|_| {
            let configured = GroupConfig { network_interface_id: Some(eni("eni-0000000e")), ..wanted("a") };
            Event::Config(Config { groups: vec![configured], ..Config::default() })
        }),
    );
    add("the same groups", Box::new(|w| Event::Groups(w.groups.clone())));
    add(
        "groups: the group gone",
        Box::new(|_| Event::Groups(Groups { groups: vec![run("z", "eth0", 20, &[vip(9)])] })),
    );
    add("instance", Box::new(|_| Event::Instance("i-0000000a".try_into().expect("an id"))));
    add("restored state", Box::new(|_| Event::Restored(vec![restored()])));
    add(
        "restored state, then the group",
        Box::new(|w| {
            w.machine.handle(w.now, Event::Config(Config::default()));
            w.machine.handle(w.now, Event::Restored(vec![restored()]));
            Event::Config(config(&["a"]))
        }),
    );
    add("tick before anything is due", Box::new(|_| Event::Tick));
    add(
        "tick when it is due",
        Box::new(|w| {
            let due = due(w);
            w.sleep_until(due);
            Event::Tick
        }),
    );
    add(
        "tick more than two seconds late",
        Box::new(|w| {
            w.now = due(w) + ms(2_001);
            Event::Tick
        }),
    );
    add(
        "line Master, more than two seconds late",
        Box::new(|w| {
            w.now = due(w) + ms(2_001);
            Event::Notify(vec![line("a", NotifyState::Master)])
        }),
    );
    events
}

fn switched_off() -> Config {
    Config { groups: vec![GroupConfig { disable: true, ..wanted("a") }], ..Config::default() }
}

fn restored() -> RestoredState {
    RestoredState {
        group: group("a"),
        resource: vip(1).into(),
        losses: vec![(BootInstant::default(), Taker::ThirdParty)],
        contested: vec![Taker::ThirdParty],
    }
}

fn pause(harness: &mut Harness) {
    let until = harness.now + secs(600);
    harness.tell(Event::Pause { group: group("a"), until });
}

fn resolved(_: &Harness, id: &str) -> Event {
    Event::Resolved { interface: interface("eth0"), eni: Ok(network_interface(id)) }
}

/// The answer to the claim in flight, or to none.
fn claimed(harness: &mut Harness, failure: Option<ErrorClass>) -> Event {
    let id = harness.machine.claims.keys().next().copied().unwrap_or(ClaimId(0));
    harness.now = harness.now + ms(5);
    Event::Claimed { id, result: failure.map_or(Ok(Acknowledgement::default()), |class| Err(error(class))) }
}

/// The answer to the read in flight, or to one that is asked for now.
fn read(harness: &mut Harness, result: Result<Option<EniId>, ErrorClass>) -> Event {
    let flying = |harness: &Harness| {
        harness.machine.reads.iter().find(|(_, r)| r.resources.contains(&vip(1).into())).map(|(id, _)| *id)
    };
    if flying(harness).is_none() {
        harness.machine.handle(harness.now, Event::ReadNow);
    }
    let id = flying(harness).unwrap_or(ReadId(0));
    harness.now = harness.now + ms(5);
    let owners = |owner: Option<EniId>| {
        let holder = |id: EniId| (vip(1).into(), Holder::Eni(super::harness::owner(id.as_str())));
        ReadAnswer { holders: owner.into_iter().map(holder).collect(), ..ReadAnswer::default() }
    };
    Event::Read { id, result: result.map(owners).map_err(error) }
}

impl Harness {
    fn started(imds: bool) -> Self {
        let mut harness = Self::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
        harness.imds = if imds { Ok(()) } else { Err(ErrorClass::Transient) };
        harness.start_agent();
        harness.run(ms(50));
        harness
    }

    fn with(mut self, act: impl FnOnce(&mut Self)) -> Self {
        act(&mut self);
        self
    }

    fn after(mut self, duration: Duration) -> Self {
        self.run(duration);
        self
    }

    fn until(mut self, reached: fn(&Phase) -> bool) -> Self {
        let deadline = self.now + secs(600);
        while !reached(&self.machine.resources[&vip(1).into()].phase) {
            assert!(self.now < deadline, "not reached: {:?}", self.machine.resources[&vip(1).into()].phase);
            self.run(ms(1));
        }
        self
    }

    /// Time passes up to a moment at which something is due, and nothing comes of it before.
    fn sleep_until(&mut self, due: BootInstant) {
        while let Some(heartbeat) = self.machine.deadline().filter(|deadline| *deadline < due) {
            assert_eq!(self.machine.handle(heartbeat, Event::Tick), [], "at {heartbeat:?}, and not at {due:?}");
        }
        self.now = due;
    }

    fn local_master_line(&mut self) {
        self.says("a", NotifyState::Master);
    }

    fn forget_locally(&mut self) {
        self.local.clear();
        self.look_around();
    }

    fn assign_to_third_party(&mut self) {
        self.give(vip(1), THIRD_PARTY);
        self.tell(Event::ReadNow);
    }

    pub fn lose_ownership(&mut self) {
        self.assign_to_third_party();
        self.run(ms(500));
        let deadline = self.now + secs(5);
        while matches!(self.machine.resources[&vip(1).into()].phase, Phase::Assigned { .. }) {
            assert!(self.now < deadline, "not looked at a second time");
            self.run(ms(1));
        }
    }

    fn fail(&mut self, class: ErrorClass) {
        self.ec2.refuses = Some(class);
        self.master("a");
        self.run(ms(60));
    }

    pub fn storm(&mut self) {
        self.ec2.claim_delay = ms(1);
        while self.machine.resources[&vip(1).into()].phase.due().is_none_or(|due| due + ms(400) >= self.now) {
            self.backup("a");
            self.run(ms(2));
            self.master("a");
            self.run(ms(401));
        }
    }

    fn lost_without_liveness() -> Self {
        Self::held().with(|harness| harness.child_frozen = true).with(Harness::lose_ownership)
    }

    /// The machine wants to look at the interface, and has no answer yet.
    fn liveness_without_local_read(&mut self) {
        let actions = self.machine.handle(self.now, Event::Liveness { after: self.now });
        assert_eq!(actions, [Action::ReadLocalAddresses]);
    }

    pub fn contested() -> Self {
        let mut harness = Self::held();
        for _ in 0..4 {
            harness.lose_ownership();
            harness.says("a", NotifyState::Master);
            harness.run(secs(15));
        }
        harness
    }
}

// ── the table ──

fn state(harness: &Harness, now: BootInstant) -> String {
    let Some(known) = harness.machine.groups.get(&group("a")) else {
        return "no group".to_owned();
    };
    let mut text = match &known.state {
        GroupState::Known { vrrp, cause: Cause::Inferred } => format!("{vrrp} by inference"),
        GroupState::Known { vrrp, .. } => vrrp.to_string(),
        GroupState::Unknown { why, .. } => format!("UNKNOWN ({why:?})"),
    };
    if known.disabled {
        text += ", disabled";
    }
    if known.paused_until.is_some() {
        text += ", paused";
    }
    let Some(address) = harness.machine.resources.get(&vip(1).into()) else {
        return text + ", no address";
    };
    text += match &address.phase {
        Phase::Idle => ", idle",
        Phase::AwaitLocalAddress { .. } => ", await local address",
        Phase::CheckOwner { .. } => ", check owner",
        Phase::Pending { due } => match now.until(*due).as_millis() {
            0 => ", pending",
            1..=200 => ", pending within 0.2 s",
            201..=5_000 => ", pending within 5 s",
            5_001..=60_000 => ", pending in a minute",
            _ => ", pending in some minutes",
        },
        Phase::InFlight(_) => ", in flight",
        Phase::Assigned { verified: false, mismatch: None } => ", assigned",
        Phase::Assigned { verified: true, mismatch: None } => ", verified",
        Phase::Assigned { mismatch: Some(_), .. } => ", mismatch",
    };
    if address.attempt.precondition.is_some() {
        text += ", with precondition";
    }
    text += match address.flap_damping.contested_by() {
        Some(Taker::Peer) => ", contested by the peer",
        Some(Taker::ThirdParty) => ", contested",
        None => "",
    };
    text
}

fn wants(actions: &[Action]) -> String {
    let names = actions.iter().filter_map(|action| match action {
        Action::Claim { request, .. } if request.eni().as_str() == "eni-0000000a" => Some("claim".to_owned()),
        Action::Claim { request, .. } => Some(format!("claim for {}", request.eni())),
        Action::Read { .. } => Some("read".to_owned()),
        Action::DryRun { .. } => Some("dry run".to_owned()),
        Action::Inspect { .. } => Some("inspect".to_owned()),
        Action::Resolve(_) => Some("resolve".to_owned()),
        Action::ReadLocalAddresses => Some("read local addresses".to_owned()),
        // Each periodic read of addresses asks for it.
        Action::ReadNetwork => None,
        // The state says it.
        Action::Log(LogEvent::Transition { .. }) => None,
        Action::Log(LogEvent::Claim { result, .. }) => {
            Some(if result.is_ok() { "acknowledged" } else { "failed" }.to_owned())
        }
        Action::Log(LogEvent::Read { error, .. }) => {
            Some(if error.is_some() { "UNREAD" } else { "read again" }.to_owned())
        }
        Action::Log(LogEvent::OwnershipLost { .. }) => Some("OWNERSHIP LOST".to_owned()),
        Action::Log(LogEvent::Contested { .. }) => Some("CONTESTED".to_owned()),
        Action::Log(LogEvent::ContestedEnded { .. }) => Some("contested ended".to_owned()),
        Action::Log(LogEvent::NotLocal { .. }) => Some("NOT LOCAL".to_owned()),
        Action::Log(LogEvent::Placement { wrong: Some(Misplaced::Missing), .. }) => Some("MISSING".to_owned()),
        Action::Log(LogEvent::Placement { wrong: Some(Misplaced::Unexpected), .. }) => Some("UNEXPECTED".to_owned()),
        Action::Log(LogEvent::Placement { wrong: None, .. }) => Some("in place".to_owned()),
        Action::Log(LogEvent::Readiness { obstacle, .. }) => {
            Some(if obstacle.is_some() { "NOT READY" } else { "ready" }.to_owned())
        }
        Action::Log(LogEvent::Unresolved { .. }) => Some("UNRESOLVED".to_owned()),
        Action::Log(LogEvent::EniElsewhere { .. }) => Some("ELSEWHERE".to_owned()),
        Action::Log(LogEvent::ForeignHolder { .. }) => Some("HELD BY ANOTHER".to_owned()),
        Action::Log(LogEvent::NotTakeable { .. }) => Some("NOT TAKEABLE".to_owned()),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What holds in every cell.
fn check(cell: &str, harness: &Harness, was: Option<VrrpState>, actions: &[Action]) {
    let claims = actions.iter().filter(|a| matches!(a, Action::Claim { .. })).count();
    let known = harness.machine.groups.get(&group("a"));
    let is = known.map(|g| g.state.vrrp());
    let may = known.is_some_and(|g| g.acts()) && is == Some(VrrpState::Master);
    assert!(claims <= usize::from(may), "{cell}: {claims} claims");
    if let Some(address) = harness.machine.resources.get(&vip(1).into()) {
        assert!(may || address.phase == Phase::Idle, "{cell}: {:?}", address.phase);
        assert!(claims == 0 || matches!(address.phase, Phase::InFlight(_)), "{cell}: {:?}", address.phase);
    }
    let logged = actions.iter().rev().find_map(|action| match action {
        Action::Log(LogEvent::Transition { to, .. }) => Some(*to),
        _ => None,
    });
    if is.is_some() && was.is_some() && is != was && !(logged.is_none() && is == Some(VrrpState::Unknown)) {
        assert_eq!(logged, is, "{cell}: was {was:?}");
    }
    assert!(harness.machine.deadline().is_none_or(|deadline| deadline > harness.now), "{cell}: a deadline of the past");
}

/// The cells of `table.txt`: for each of these states, the events that a reviewer checks by hand.
const REVIEWED: [(&str, &[&str]); 17] = [
    ("new", &["line Master", "line Backup", "liveness", "quiet for six seconds"]),
    (
        "BACKUP by a line",
        &[
            "line Master",
            "line MasterRxLowerPri",
            "backlog Master",
            "fifo full",
            "writer gone",
            "put there by a command",
            "put there by a process",
            "force",
            "line Master, more than two seconds late",
        ],
    ),
    ("MASTER, the writer gone for long", &["writer back", "line Master", "liveness", "force"]),
    ("MASTER, the FIFO was full", &["line Master", "line Backup", "liveness", "local, requested: there"]),
    (
        "MASTER, paused",
        &[
            "line Master",
            "line MasterRxLowerPri",
            "fifo full",
            "read: a third party's",
            "resume",
            "force",
            "writer gone",
        ],
    ),
    ("disabled", &["line Master", "read: the peer's", "force", "the same configuration"]),
    (
        "check owner",
        &[
            "read: ours",
            "read: the peer's",
            "read: a third party's",
            "read: unassigned",
            "read failed, Transient",
            "line Backup",
            "fifo full",
            "tick more than two seconds late",
        ],
    ),
    (
        "pending, a retry",
        &["line Backup", "tick when it is due", "tick more than two seconds late", "read: ours", "fifo full", "pause"],
    ),
    ("pending, permanent error", &["other credentials", "line Master", "the same configuration"]),
    (
        "pending, local addresses requested",
        &["local, requested: there", "local, requested: not there", "line Backup", "tick more than two seconds late"],
    ),
    (
        "idle, the previous claim in flight",
        &["claimed", "claim failed, TimedOut", "line Master", "tick when it is due"],
    ),
    (
        "in flight",
        &[
            "claimed",
            "claim failed, Denied",
            "claim failed, Throttled",
            "claim failed, TimedOut",
            "line Backup",
            "pause",
            "fifo full",
            "tick more than two seconds late",
        ],
    ),
    (
        "assigned",
        &["read: ours", "read: the peer's", "read: a third party's", "read: unassigned", "line Backup", "fifo full"],
    ),
    (
        "assigned, verified",
        &[
            "read: ours",
            "read: the peer's",
            "read: a third party's",
            "read: unassigned",
            "line Master",
            "line Backup",
            "fifo full",
            "pause",
            "put there by a command",
            "tick more than two seconds late",
            "line Master, more than two seconds late",
        ],
    ),
    (
        "assigned, mismatch",
        &[
            "read: ours",
            "read: the peer's",
            "read: a third party's",
            "read: unassigned",
            "read failed, Transient",
            "tick when it is due",
            "fifo full",
        ],
    ),
    ("assigned, mismatch: unassigned", &["read: ours", "read: unassigned", "read: a third party's"]),
    ("assigned, verified, contested", &["line Backup", "line Master", "force", "read: ours", "read: a third party's"]),
];

/// Handles every event in every state, and asserts in every cell what must always hold. Calls `row` with the names of the
/// state and of the event, and with the cell as text.
fn for_every_cell(mut row: impl FnMut(&str, &str, &str)) {
    let (mut phases, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for (name, make) in STATES {
        // An input at the moment of an invalidation is not newer than it.
        let harness = make().after(ms(1));
        phases.insert(harness.machine.resources.get(&vip(1).into()).map(|a| phase_number(&a.phase)));
        row(name, "state", &state(&harness, harness.now));
        let report = harness.reported().expect("the address");
        let text = format!("{}: {}", report.verdict, report.reason.unwrap_or_default());
        row(name, "status", text.trim_end_matches([' ', ':']));
        for (what, event) in events() {
            let mut harness = make().after(ms(1));
            let before = state(&harness, harness.now);
            let event = event(&mut harness);
            kinds.insert(event_number(&event));
            let was = harness.machine.groups.get(&group("a")).map(|g| g.state.vrrp());
            let actions = harness.machine.handle(harness.now, event);
            check(&format!("{name} × {what}"), &harness, was, &actions);
            let after = state(&harness, harness.now);
            let after = if after == before { "=" } else { &after };
            row(name, &what, format!("{after:56}{}", wants(&actions)).trim_end());
        }
    }
    assert_eq!(phases.into_iter().flatten().collect::<Vec<_>>(), (0..PHASES).collect::<Vec<_>>(), "every phase");
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0..EVENTS).collect::<Vec<_>>(), "every kind of event");
}

/// The text of a row: a state's own rows begin a new paragraph.
fn line_of(name: &str, what: &str, cell: &str) -> String {
    match what {
        "state" => format!("\n{name}: {cell}\n"),
        "status" => format!("    status {cell}\n"),
        _ => format!("    {what:42}{cell}\n"),
    }
}

/// The rows of a table, each with the name of its state.
fn rows(table: &str) -> BTreeSet<(&str, &str)> {
    let mut state = "";
    let lines = table.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            if !line.starts_with(' ') {
                state = line.rsplit_once(": ").map_or(line, |(name, _)| name);
            }
            (state, line.trim_start())
        })
        .collect()
}

#[test]
fn invariants_hold_in_every_cell_and_the_reviewed_cells_are_as_in_the_table() {
    let mut table = String::new();
    let mut found = 0;
    let print_every_cell = env::var_os("PRINT_EVERY_CELL").is_some();
    for_every_cell(|name, what, cell| {
        if print_every_cell {
            print!("{}", line_of(name, what, cell));
        }
        let Some((_, reviewed)) = REVIEWED.iter().find(|(state, _)| *state == name) else {
            return;
        };
        if reviewed.contains(&what) {
            found += 1;
        } else if !["state", "status"].contains(&what) {
            return;
        }
        table += &line_of(name, what, cell);
    });
    assert_eq!(found, REVIEWED.iter().map(|(_, events)| events.len()).sum::<usize>(), "every reviewed cell exists");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("claim/machine/tests/table.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &table).expect("the table is written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let (new, old) = (rows(&table), rows(&expected));
    let removed = old.difference(&new).map(|(state, row)| format!("- {state} × {row}"));
    let added = new.difference(&old).map(|(state, row)| format!("+ {state} × {row}"));
    let differences: Vec<String> = removed.chain(added).collect();
    assert_eq!(table, expected, "BLESS=1 rewrites the table; it differs in:\n{}", differences.join("\n"));
}

const PHASES: usize = 6;

/// Another phase needs a state of the table.
fn phase_number(phase: &Phase) -> usize {
    match phase {
        Phase::Idle => 0,
        Phase::AwaitLocalAddress { .. } => 1,
        Phase::CheckOwner { .. } => 2,
        Phase::Pending { .. } => 3,
        Phase::InFlight(_) => 4,
        Phase::Assigned { .. } => 5,
    }
}

const EVENTS: usize = 28;

/// Another event needs a row in the table.
fn event_number(event: &Event) -> usize {
    match event {
        Event::Config(_) => 0,
        Event::Groups(_) => 1,
        Event::Notify(_) => 2,
        Event::Backlog { .. } => 3,
        Event::FifoFull => 4,
        Event::Hup => 5,
        Event::Writer(_) => 6,
        Event::LocalAddresses { .. } => 7,
        Event::Liveness { .. } => 8,
        Event::Resolved { .. } => 9,
        Event::Claimed { .. } => 10,
        Event::Read { .. } => 11,
        Event::Credentials(CredentialsChange::Others) => 12,
        Event::Pause { .. } | Event::Resume(_) => 13,
        Event::Force(_) => 14,
        Event::ReadNow => 15,
        Event::Tick => 16,
        Event::Restored(_) => 17,
        Event::Instance(_) => 20,
        Event::Inactive { .. } => 18,
        Event::PutBy(_) => 19,
        Event::DryRun { .. } => 21,
        Event::Inspected(_) => 22,
        Event::Network(_) => 23,
        Event::Proved(_) => 24,
        Event::Denials(_) => 25,
        Event::Credentials(CredentialsChange::NewKeys) => 26,
        Event::DryRunByOperator { .. } => 27,
    }
}
