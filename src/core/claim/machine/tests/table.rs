//! Every state of an address and of its group, with every event: what comes out and where it ends, as `table.txt` says.
//! `BLESS=1` writes that file anew; what must hold in every cell is asserted apart from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use super::world::{
    PEER, THIEF, World, config, eni, error, group, interface, line, ms, network_interface, run, secs, vip, wanted,
};
use crate::claim::address::Phase;
use crate::claim::group::Belief;
use crate::claim::{Action, Cause, ClaimId, Event, Misplaced, Moment, Note, Past, PutBy, ReadId};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::{Acknowledgement, ErrorClass, Owners, Taker};
use crate::model::ids::EniId;
use crate::model::vrrp::{NotifyState, VrrpState};

const LINES: [NotifyState; 6] = [
    NotifyState::Master,
    NotifyState::MasterRxLowerPri,
    NotifyState::Backup,
    NotifyState::Fault,
    NotifyState::Stop,
    NotifyState::Deleted,
];

const CLASSES: [ErrorClass; 8] = [
    ErrorClass::TimedOut,
    ErrorClass::Throttled,
    ErrorClass::Transient,
    ErrorClass::Clock,
    ErrorClass::Denied,
    ErrorClass::NoSuchInterface,
    ErrorClass::BadAddress,
    ErrorClass::Refused,
];

/// How a state is reached.
type Setup = fn() -> World;

/// The states, by name.
const STATES: [(&str, Setup); 31] = [
    ("new", || World::started(true)),
    ("BACKUP by a line", World::one),
    ("BACKUP by evidence", || World::started(true).after(secs(5))),
    ("FAULT", || World::one().with(|w| w.becomes("a", NotifyState::Fault))),
    ("STOP", || World::one().with(|w| w.becomes("a", NotifyState::Stop))),
    ("MASTER, the writer gone for a second", || World::held().with(World::kill_keepalived).after(secs(1))),
    ("MASTER, the writer gone for long", || World::held().with(World::kill_keepalived).after(secs(10))),
    ("MASTER, the pipe was full", || World::held().with(|w| w.tell(Event::PipeFull))),
    ("MASTER, paused", || World::held().with(pause)),
    ("MASTER by evidence, paused", || World::held().with(pause).with(|w| w.tell(Event::PipeFull)).after(secs(5))),
    ("switched off", || World::held().with(|w| w.tell(Event::Config(switched_off()))).with(World::local_master_line)),
    ("appearing", || World::held().with(|w| w.forget_locally()).with(World::steal).after(secs(5))),
    ("adopting", || World::held().with(|w| w.tell(Event::PipeFull)).until(|p| matches!(p, Phase::Adopting { .. }))),
    ("wanted, the ENI not known", || World::started(false).with(|w| w.master("a")).after(ms(60))),
    ("wanted, a retry", || World::one().with(|w| w.fail(ErrorClass::Transient))),
    ("wanted, permanent error", || World::one().with(|w| w.fail(ErrorClass::Denied)).after(secs(1))),
    ("wanted, the allowance used up", || World::one().with(World::storm)),
    ("wanted, no life since the theft", World::robbed_in_silence),
    ("wanted, looked for", || World::robbed_in_silence().with(World::shows_life_unseen)),
    ("wanted, in a contest", || World::contest().with(World::rob_twice)),
    ("wanted, the old claim in flight", || {
        World::one().with(|w| w.master("a")).with(|w| w.backup("a")).with(|w| w.master("a"))
    }),
    ("let go, the claim in flight", || World::one().with(|w| w.master("a")).with(|w| w.backup("a"))),
    ("in flight", || World::one().with(|w| w.master("a")).after(ms(10))),
    ("in flight, to take it back", || World::held().with(World::rob_twice).until(|p| matches!(p, Phase::InFlight(_)))),
    ("held", || World::one().with(|w| w.master("a")).after(ms(60))),
    ("held, long not confirmed", || {
        World::one().with(|w| w.ec2.read_refuses = Some(ErrorClass::Denied)).with(|w| w.master("a")).after(secs(70))
    }),
    ("held, confirmed", World::held),
    ("held, suspect", || World::held().with(World::steal).after(ms(500))),
    ("held, suspect of nobody", || {
        World::held().with(|w| w.unassign(vip(1))).with(|w| w.tell(Event::ReadNow)).after(ms(500))
    }),
    ("held, confirmed, contested", World::contest),
    ("held, contested before the agent's start", || {
        World::contest().with(World::kill_agent).with(World::start_agent).after(secs(5))
    }),
];

/// How an event is made: the world may be prepared for it, and time may pass before it.
type Make = Box<dyn Fn(&mut World) -> Event>;

fn events() -> Vec<(String, Make)> {
    let mut events: Vec<(String, Make)> = Vec::new();
    let mut add = |name: &str, make: Make| events.push((name.to_owned(), make));
    for state in LINES {
        add(&format!("line {state:?}"), Box::new(move |_| Event::Lines(vec![line("a", state)])));
    }
    add(
        "line MasterRxLowerPri, 2 s after another",
        Box::new(|w| {
            let heard = w.now - secs(2);
            w.machine.groups.get_mut(&group("a")).expect("the group").rx_lower = Some(heard);
            Event::Lines(vec![line("a", NotifyState::MasterRxLowerPri)])
        }),
    );
    for pair in [[NotifyState::Master, NotifyState::Backup], [NotifyState::Backup, NotifyState::Master]] {
        let lines = pair.map(|state| line("a", state)).to_vec();
        add(&format!("lines {:?} and {:?}", pair[0], pair[1]), Box::new(move |_| Event::Lines(lines.clone())));
    }
    add("line of another group", Box::new(|_| Event::Lines(vec![line("x", NotifyState::Master)])));
    add("line that names no state", Box::new(|_| Event::Lines(vec![])));
    for state in [None, Some(NotifyState::Master), Some(NotifyState::Backup), Some(NotifyState::Fault)] {
        let lines: Vec<_> = state.map(|state| line("a", state)).into_iter().collect();
        let make = move |_: &mut World| Event::Backlog { lines: lines.clone(), was_full: false };
        add(&format!("backlog {}", state.map_or("nothing".to_owned(), |s| format!("{s:?}"))), Box::new(make));
    }
    add("backlog, full", Box::new(|_| Event::Backlog { lines: vec![line("a", NotifyState::Master)], was_full: true }));
    add("pipe full", Box::new(|_| Event::PipeFull));
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
        ("local, asked: there", true, true),
        ("local, asked: not there", false, true),
    ] {
        let addresses: BTreeMap<_, _> = here.then(|| (vip(1), [interface("eth0")].into())).into_iter().collect();
        add(name, Box::new(move |_| Event::Local { addresses: addresses.clone(), asked }));
    }
    let elsewhere = BTreeMap::from([(vip(1), [interface("dum0")].into())]);
    add("local: elsewhere", Box::new(move |_| Event::Local { addresses: elsewhere.clone(), asked: false }));
    for (name, by) in [("put there by a command", PutBy::Command), ("put there by a process", PutBy::Process)] {
        let puts = BTreeMap::from([(vip(1), BTreeMap::from([(interface("eth0"), by)]))]);
        add(
            name,
            Box::new(move |w| {
                let here = BTreeMap::from([(vip(1), [interface("eth0")].into())]);
                w.machine.handle(w.now, Event::Local { addresses: here, asked: false });
                w.now = w.now + secs(1);
                Event::PutBy(puts.clone())
            }),
        );
    }
    add("life", Box::new(|w| Event::Life { after: w.now }));
    add("life of long ago", Box::new(|_| Event::Life { after: Moment::default() }));
    add("quiet", Box::new(|w| Event::Quiet { since: w.now }));
    add(
        "quiet for three seconds",
        Box::new(|w| {
            let since = w.now;
            let due = since + secs(3);
            while let Some(tick) = w.machine.deadline().filter(|deadline| *deadline <= due) {
                w.machine.handle(tick, Event::Tick);
            }
            w.now = due;
            Event::Quiet { since }
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
    for class in CLASSES {
        add(&format!("claim failed, {class:?}"), Box::new(move |w| claimed(w, Some(class))));
    }
    for (name, owner) in [("ours", Some("eni-0000000a")), ("the peer's", Some(PEER)), ("nobody's", None)] {
        add(&format!("read: {name}"), Box::new(move |w| read(w, Ok(owner.map(eni)))));
    }
    for class in [ErrorClass::Transient, ErrorClass::Throttled] {
        add(&format!("read failed, {class:?}"), Box::new(move |w| read(w, Err(class))));
    }
    add("other credentials", Box::new(|_| Event::Credentials));
    add("pause", Box::new(|w| Event::Pause { group: group("a"), until: w.now + secs(600) }));
    add("resume", Box::new(|_| Event::Resume(group("a"))));
    add("force", Box::new(|_| Event::Force(group("a"))));
    add("read now", Box::new(|_| Event::ReadNow));
    add("the same configuration", Box::new(|w| Event::Config(w.config.clone())));
    add("configuration: switched off", Box::new(|_| Event::Config(switched_off())));
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
    add("past", Box::new(|_| Event::Past(vec![past()])));
    add(
        "past, the group there after it",
        Box::new(|w| {
            w.machine.handle(w.now, Event::Config(Config::default()));
            w.machine.handle(w.now, Event::Past(vec![past()]));
            Event::Config(config(&["a"]))
        }),
    );
    add("tick before anything is due", Box::new(|_| Event::Tick));
    add(
        "tick when it is due",
        Box::new(|w| {
            let due = w.machine.next_deadline(w.now).unwrap_or(w.now);
            w.sleep_until(due);
            Event::Tick
        }),
    );
    add(
        "tick more than two seconds late",
        Box::new(|w| {
            w.now = w.machine.next_deadline(w.now).unwrap_or(w.now) + ms(2_001);
            Event::Tick
        }),
    );
    add(
        "line Master, more than two seconds late",
        Box::new(|w| {
            w.now = w.machine.next_deadline(w.now).unwrap_or(w.now) + ms(2_001);
            Event::Lines(vec![line("a", NotifyState::Master)])
        }),
    );
    events
}

fn switched_off() -> Config {
    Config { groups: vec![GroupConfig { disable: true, ..wanted("a") }], ..Config::default() }
}

fn past() -> Past {
    Past {
        group: group("a"),
        address: vip(1),
        thefts: vec![(Moment::default(), Taker::Stranger)],
        contested: vec![Taker::Stranger],
    }
}

fn pause(world: &mut World) {
    let until = world.now + secs(600);
    world.tell(Event::Pause { group: group("a"), until });
}

fn resolved(_: &World, id: &str) -> Event {
    Event::Resolved { interface: interface("eth0"), eni: Ok(network_interface(id)) }
}

/// The answer to the claim in flight, or to none.
fn claimed(world: &mut World, failure: Option<ErrorClass>) -> Event {
    let id = world.machine.claims.keys().next().copied().unwrap_or(ClaimId(0));
    world.now = world.now + ms(5);
    Event::Claimed { id, result: failure.map_or(Ok(Acknowledgement::default()), |class| Err(error(class))) }
}

/// The answer to the read in flight, or to one that is asked for now.
fn read(world: &mut World, result: Result<Option<EniId>, ErrorClass>) -> Event {
    let flying =
        |world: &World| world.machine.reads.iter().find(|(_, r)| r.addresses.contains(&vip(1))).map(|(id, _)| *id);
    if flying(world).is_none() {
        world.machine.handle(world.now, Event::ReadNow);
    }
    let id = flying(world).unwrap_or(ReadId(0));
    world.now = world.now + ms(5);
    let owners = |owner: Option<EniId>| -> Owners {
        owner.into_iter().map(|id| (vip(1), super::world::owner(id.as_str()))).collect()
    };
    Event::Read { id, result: result.map(owners).map_err(error) }
}

impl World {
    fn started(imds: bool) -> Self {
        let mut world = Self::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
        world.imds = if imds { Ok(()) } else { Err(ErrorClass::Transient) };
        world.start_agent();
        world.run(ms(50));
        world
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
        while !reached(&self.machine.addresses[&vip(1)].phase) {
            assert!(self.now < deadline, "not reached: {:?}", self.machine.addresses[&vip(1)].phase);
            self.run(ms(1));
        }
        self
    }

    /// Time passes up to a moment at which something is due, and nothing comes of it before.
    fn sleep_until(&mut self, due: Moment) {
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

    fn steal(&mut self) {
        self.give(vip(1), THIEF);
        self.tell(Event::ReadNow);
    }

    pub fn rob_twice(&mut self) {
        self.steal();
        self.run(ms(500));
        let deadline = self.now + secs(5);
        while matches!(self.machine.addresses[&vip(1)].phase, Phase::Held { .. }) {
            assert!(self.now < deadline, "not looked at a second time");
            self.run(ms(1));
        }
    }

    fn fail(&mut self, class: ErrorClass) {
        self.ec2.refuses = Some(class);
        self.master("a");
        self.run(ms(60));
    }

    fn storm(&mut self) {
        self.ec2.claim_delay = ms(1);
        while self.machine.addresses[&vip(1)].phase.due().is_none_or(|due| due + ms(400) >= self.now) {
            self.backup("a");
            self.run(ms(2));
            self.master("a");
            self.run(ms(401));
        }
    }

    fn robbed_in_silence() -> Self {
        Self::held().with(|world| world.child_frozen = true).with(World::rob_twice)
    }

    /// The machine wants to look at the interface, and has no answer yet.
    fn shows_life_unseen(&mut self) {
        let actions = self.machine.handle(self.now, Event::Life { after: self.now });
        assert_eq!(actions, [Action::Look]);
    }

    pub fn contest() -> Self {
        let mut world = Self::held();
        for _ in 0..4 {
            world.rob_twice();
            world.says("a", NotifyState::Master);
            world.run(secs(15));
        }
        world
    }
}

// ── the table ──

fn state(world: &World, now: Moment) -> String {
    let Some(known) = world.machine.groups.get(&group("a")) else {
        return "no group".to_owned();
    };
    let mut text = match &known.belief {
        Belief::Known { vrrp, cause: Cause::Evidence } => format!("{vrrp} by evidence"),
        Belief::Known { vrrp, .. } => vrrp.to_string(),
        Belief::Unknown { why, .. } => format!("UNKNOWN ({why:?})"),
    };
    if known.disabled {
        text += ", switched off";
    }
    if known.paused_until.is_some() {
        text += ", paused";
    }
    let Some(address) = world.machine.addresses.get(&vip(1)) else {
        return text + ", no address";
    };
    text += match &address.phase {
        Phase::Rest => ", rest",
        Phase::Appearing { .. } => ", appearing",
        Phase::Adopting { .. } => ", adopting",
        Phase::Wanted { due } => match now.until(*due).as_millis() {
            0 => ", wanted",
            1..=200 => ", wanted within 0.2 s",
            201..=5_000 => ", wanted within 5 s",
            5_001..=60_000 => ", wanted in a minute",
            _ => ", wanted in some minutes",
        },
        Phase::InFlight(_) => ", in flight",
        Phase::Held { confirmed: false, suspect: None } => ", held",
        Phase::Held { confirmed: true, suspect: None } => ", confirmed",
        Phase::Held { suspect: Some(_), .. } => ", suspect",
    };
    if address.guard.is_some() {
        text += ", guarded";
    }
    text += match address.contest.with() {
        Some(Taker::Peer) => ", contested by the peer",
        Some(Taker::Stranger) => ", contested",
        None => "",
    };
    text
}

fn wants(actions: &[Action]) -> String {
    let names = actions.iter().filter_map(|action| match action {
        Action::Claim { eni, .. } if eni.as_str() == "eni-0000000a" => Some("claim".to_owned()),
        Action::Claim { eni, .. } => Some(format!("claim for {eni}")),
        Action::Read { .. } => Some("read".to_owned()),
        Action::Resolve(_) => Some("resolve".to_owned()),
        Action::Look => Some("look".to_owned()),
        // The state says it.
        Action::Note(Note::Transition { .. }) => None,
        Action::Note(Note::Claim { result, .. }) => {
            Some(if result.is_ok() { "acknowledged" } else { "failed" }.to_owned())
        }
        Action::Note(Note::Read { error }) => Some(if error.is_some() { "UNREAD" } else { "read again" }.to_owned()),
        Action::Note(Note::Theft { .. }) => Some("THEFT".to_owned()),
        Action::Note(Note::Contested { .. }) => Some("CONTESTED".to_owned()),
        Action::Note(Note::ContestOver { .. }) => Some("contest over".to_owned()),
        Action::Note(Note::NotLocal { .. }) => Some("NOT LOCAL".to_owned()),
        Action::Note(Note::Place { wrong: Some(Misplaced::Missing), .. }) => Some("MISSING".to_owned()),
        Action::Note(Note::Place { wrong: Some(Misplaced::Left), .. }) => Some("LEFT".to_owned()),
        Action::Note(Note::Place { wrong: None, .. }) => Some("in place".to_owned()),
        Action::Note(Note::Readiness { obstacle, .. }) => {
            Some(if obstacle.is_some() { "NOT READY" } else { "ready" }.to_owned())
        }
        Action::Note(Note::Unresolved { .. }) => Some("UNRESOLVED".to_owned()),
        Action::Note(Note::Elsewhere { .. }) => Some("ELSEWHERE".to_owned()),
        Action::Note(Note::Holder { .. }) => Some("HELD BY ANOTHER".to_owned()),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What holds in every cell.
fn check(cell: &str, world: &World, was: Option<VrrpState>, actions: &[Action]) {
    let claims = actions.iter().filter(|a| matches!(a, Action::Claim { .. })).count();
    let known = world.machine.groups.get(&group("a"));
    let is = known.map(|g| g.belief.vrrp());
    let may = known.is_some_and(|g| g.acts()) && is == Some(VrrpState::Master);
    assert!(claims <= usize::from(may), "{cell}: {claims} claims");
    if let Some(address) = world.machine.addresses.get(&vip(1)) {
        assert!(may || address.phase == Phase::Rest, "{cell}: {:?}", address.phase);
        assert!(claims == 0 || matches!(address.phase, Phase::InFlight(_)), "{cell}: {:?}", address.phase);
    }
    let noted = actions.iter().rev().find_map(|action| match action {
        Action::Note(Note::Transition { to, .. }) => Some(*to),
        _ => None,
    });
    if is.is_some() && was.is_some() && is != was && !(noted.is_none() && is == Some(VrrpState::Unknown)) {
        assert_eq!(noted, is, "{cell}: was {was:?}");
    }
    assert!(world.machine.deadline().is_none_or(|deadline| deadline > world.now), "{cell}: a deadline of the past");
}

#[test]
fn every_state_and_every_event() {
    let mut table = String::new();
    let (mut phases, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for (name, make) in STATES {
        // What happens at the same moment as a doubt is not newer than it.
        let world = make().after(ms(1));
        phases.insert(world.machine.addresses.get(&vip(1)).map(|a| phase_number(&a.phase)));
        table += &format!("\n{name}: {}\n", state(&world, world.now));
        let shown = world.reported().expect("the address");
        let row = format!("    shows {}: {}", shown.verdict, shown.reason.unwrap_or_default());
        table += row.trim_end_matches([' ', ':']);
        table += "\n";
        let mut nothing = Vec::new();
        for (what, event) in events() {
            let mut world = make().after(ms(1));
            let before = state(&world, world.now);
            let event = event(&mut world);
            kinds.insert(event_number(&event));
            let was = world.machine.groups.get(&group("a")).map(|g| g.belief.vrrp());
            let actions = world.machine.handle(world.now, event);
            check(&format!("{name} × {what}"), &world, was, &actions);
            let after = state(&world, world.now);
            let wants = wants(&actions);
            if after == before && wants.is_empty() {
                nothing.push(what);
                continue;
            }
            let after = if after == before { "=" } else { &after };
            let row = format!("    {what:42}{after:56}{wants}");
            table += row.trim_end();
            table += "\n";
        }
        table += "    nothing comes of\n";
        nothing.iter().for_each(|what| table += &format!("        {what}\n"));
    }
    assert_eq!(phases.into_iter().flatten().collect::<Vec<_>>(), (0..PHASES).collect::<Vec<_>>(), "every phase");
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0..EVENTS).collect::<Vec<_>>(), "every kind of event");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("claim/machine/tests/table.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &table).expect("the table is written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    let (new, old) = (cells(&table), cells(&pinned));
    let gone = old.difference(&new).map(|(state, cell)| format!("{state}\n  - {cell}"));
    let come = new.difference(&old).map(|(state, cell)| format!("{state}\n  + {cell}"));
    let mut differences: Vec<String> = gone.chain(come).collect();
    differences.sort();
    let shown = differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} lines differ (BLESS=1 takes them over):\n{shown}", differences.len());
    assert_eq!(table, pinned, "BLESS=1 takes the order over");
}

/// The lines of a table, each with the state that it stands below.
fn cells(table: &str) -> BTreeSet<(&str, &str)> {
    let mut state = "";
    let mut cells = BTreeSet::new();
    for line in table.lines() {
        if !line.starts_with(' ') {
            state = line.split(':').next().unwrap_or_default();
        }
        cells.insert((state, line.trim()));
    }
    cells
}

const PHASES: usize = 6;

/// Another phase needs a state of the table.
fn phase_number(phase: &Phase) -> usize {
    match phase {
        Phase::Rest => 0,
        Phase::Appearing { .. } => 1,
        Phase::Adopting { .. } => 2,
        Phase::Wanted { .. } => 3,
        Phase::InFlight(_) => 4,
        Phase::Held { .. } => 5,
    }
}

const EVENTS: usize = 21;

/// Another event needs a row in the table.
fn event_number(event: &Event) -> usize {
    match event {
        Event::Config(_) => 0,
        Event::Groups(_) => 1,
        Event::Lines(_) => 2,
        Event::Backlog { .. } => 3,
        Event::PipeFull => 4,
        Event::Hup => 5,
        Event::Writer(_) => 6,
        Event::Local { .. } => 7,
        Event::Life { .. } => 8,
        Event::Resolved { .. } => 9,
        Event::Claimed { .. } => 10,
        Event::Read { .. } => 11,
        Event::Credentials => 12,
        Event::Pause { .. } | Event::Resume(_) => 13,
        Event::Force(_) => 14,
        Event::ReadNow => 15,
        Event::Tick => 16,
        Event::Past(_) => 17,
        Event::Instance(_) => 20,
        Event::Quiet { .. } => 18,
        Event::PutBy(_) => 19,
    }
}
