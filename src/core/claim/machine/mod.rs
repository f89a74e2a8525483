//! The claim state machine: what to do about what has happened.

mod answers;
mod evidence;
mod sending;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use self::evidence::{MISPLACED, life_lasts, life_patience};
use self::sending::LOOK_AGAIN;
use super::address::{Address, Phase};
use super::group::{Belief, Group};
use super::message::{Action, Cause, ClaimId, Event, Note, Past, PutBy, ReadId};
use super::readiness::Attachments;
use super::{Moment, pace};
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::ec2::{CallError, Eni, Owner};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName};
use crate::model::vrrp::VrrpState;
use crate::report::command::quoted;

/// The FIFO without a writer for that long means that keepalived is gone.
const WRITERLESS: Duration = Duration::from_secs(2);
/// A new set of groups counts after that time even if nothing else says so.
const GROUPS_COUNT: Duration = Duration::from_secs(2);
/// A timer that is that late tells that this router stood still.
const LATE: Duration = Duration::from_secs(2);
/// Some timer is never further away than that while a group is configured: a stall is seen whatever comes next.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The state machine of one router. It has no clock, no socket and no task: every event comes with the time, and the
/// answer is what to do.
///
/// What is kept for each address goes through these phases. On BACKUP, FAULT, STOP, DELETED, a pause, or when the state
/// of the group becomes UNKNOWN, every phase goes to Rest; a MASTER line and the first MASTER_RX_LOWER_PRI lead to Wanted
/// from every phase.
///
/// ```text
///               MASTER, MASTER_RX_LOWER_PRI
///   Rest ───────────────────────────────────────────┐
///    │ on an interface, keepalived alive            │
///    ▼                                              │
///   Appearing ◄── look: not on an interface ──┐     │
///    │ on an interface, keepalived alive      │     │
///    ▼                                        │     ▼
///   Adopting ──── read: not ours ─────────────┴──► Wanted ◄── back-off ──┐
///    │                                              │ sent              │
///    │ read: ours                                   ▼          failed    │
///    │                                             InFlight ─────────────┤
///    │                                              │ acknowledged       │
///    ▼                        read: ours            ▼                    │
///   Held, confirmed ◄───────────────────────────── Held, unconfirmed     │
///    │          ▲                                   │ disagreeing read,  │
///    │ a read   │ read: ours                        │ once in 10 s       │
///    ▼ disagrees│                                   │                    │
///   Held, suspect ── a second read disagrees ───────┴─ life, look ───────┘
/// ```
#[derive(Debug)]
pub struct Machine {
    pub(super) config: Config,
    keepalived: Groups,
    /// Groups that count once keepalived has reloaded, and since when they wait.
    coming: Option<(Groups, Moment)>,
    pub(super) groups: BTreeMap<GroupName, Group>,
    /// Until when groups are paused, also those that are not there now.
    pauses: BTreeMap<GroupName, Moment>,
    pub(super) addresses: BTreeMap<Ipv4Addr, Address>,
    pub(super) bindings: BTreeMap<InterfaceName, Binding>,
    pub(super) senders: BTreeMap<EniId, Sender>,
    claims: BTreeMap<ClaimId, ClaimInFlight>,
    reads: BTreeMap<ReadId, ReadInFlight>,
    /// The owners of the peers' addresses, by which the other router is told from a stranger.
    pub(super) peers: BTreeMap<Ipv4Addr, Owner>,
    /// Where the ENIs that take addresses are attached, as far as reads have shown.
    pub(super) attachments: Attachments,
    /// This instance, once it is known.
    pub(super) instance: Option<InstanceId>,
    /// What was before the agent started, for addresses that are not there yet.
    past: Vec<Past>,
    local: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
    /// Who has put addresses on their interfaces, as far as that is known.
    put_by: BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>>,
    look_asked: Option<Moment>,
    /// Since when the FIFO has had no writer.
    pub(super) writer_gone: Option<Moment>,
    /// keepalived was alive at this time or later.
    pub(super) life: Option<Moment>,
    /// When this router was last seen to have stood still.
    stalled: Option<Moment>,
    pub(super) sweep: Sweep,
    armed: Option<Moment>,
    last_id: u64,
    rng: Rng,
    actions: Vec<Action>,
}

/// The ENI behind an interface.
#[derive(Debug, Default)]
pub(super) struct Binding {
    pub eni: Option<Eni>,
    pub error: Option<CallError>,
    asked: bool,
    failed: u32,
    next: Option<Moment>,
}

/// The way of claims to one ENI.
#[derive(Debug, Default)]
pub(super) struct Sender {
    allowance: pace::Allowance,
    first_attempts: pace::Spacing,
    timeouts: u32,
    /// The last error asked for one more attempt at once: the next of its kind is permanent.
    second_chance: bool,
    /// When EC2 last acknowledged a claim.
    pub proven: Option<Moment>,
}

#[derive(Debug)]
struct ClaimInFlight {
    eni: EniId,
    began: Moment,
    addresses: Vec<Ipv4Addr>,
}

#[derive(Debug)]
struct ReadInFlight {
    began: Moment,
    addresses: Vec<Ipv4Addr>,
    sweep: bool,
}

/// The regular read of all addresses.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    due: Moment,
    throttled: u32,
    /// When the last one that has ended began.
    ended: Option<Moment>,
    /// When a read last succeeded.
    pub success: Option<Moment>,
    /// Why the last read failed, if it did.
    pub error: Option<CallError>,
}

impl Machine {
    /// A machine that knows nothing yet. The seed drives the jitter of its timers.
    pub fn new(now: Moment, seed: u64) -> Self {
        Self {
            config: Config::default(),
            keepalived: Groups::default(),
            coming: None,
            groups: BTreeMap::new(),
            pauses: BTreeMap::new(),
            addresses: BTreeMap::new(),
            bindings: BTreeMap::new(),
            senders: BTreeMap::new(),
            claims: BTreeMap::new(),
            reads: BTreeMap::new(),
            peers: BTreeMap::new(),
            attachments: Attachments::new(),
            instance: None,
            past: Vec::new(),
            local: BTreeMap::new(),
            put_by: BTreeMap::new(),
            look_asked: None,
            writer_gone: Some(now),
            life: None,
            stalled: None,
            sweep: Sweep::default(),
            armed: None,
            last_id: 0,
            rng: Rng::with_seed(seed),
            actions: Vec::new(),
        }
    }

    /// Takes in what has happened at `now` and says what to do. `now` never goes back.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        let stood_still = self.armed.is_some_and(|armed| armed + LATE < now);
        if stood_still {
            self.stood_still(now);
        }
        match event {
            Event::Past(past) => self.past = past,
            Event::Instance(instance) => {
                self.instance = Some(instance);
                self.note_attachments();
            }
            Event::Config(config) => self.configure(now, config),
            Event::Groups(groups) => self.announce(now, groups),
            // What waited in the pipe while this router stood still is of the past.
            Event::Lines(lines) if stood_still => self.backlog(now, &lines, false),
            Event::Lines(lines) => self.lines(now, &lines),
            Event::Backlog { lines, was_full } => self.backlog(now, &lines, was_full),
            Event::PipeFull => self.doubt_all(now, Cause::PipeFull),
            Event::Hup => self.count_coming(now),
            Event::Writer(there) => self.writer(now, there),
            Event::Local { addresses, asked } => self.local(now, addresses, asked),
            Event::PutBy(put_by) => self.put_by = put_by,
            Event::Life { after } => self.life = self.life.max(Some(after)),
            Event::Quiet { since } => self.quiet(now, since),
            Event::Resolved { interface, eni } => self.resolved(now, &interface, eni),
            Event::Claimed { id, result } => self.claimed(now, id, result),
            Event::Read { id, result } => self.read(now, id, result),
            Event::Credentials => self.retry_permanent(now),
            Event::Pause { group, until } => self.pause(now, &group, until),
            Event::Resume(group) => self.resume(now, &group),
            Event::Force(group) => self.force(now, &group),
            Event::ReadNow => self.sweep.due = now,
            Event::Tick => {}
        }
        self.settle(now);
        let heartbeat = (!self.groups.is_empty()).then_some(now + HEARTBEAT);
        self.armed = self.next_deadline(now).into_iter().chain(heartbeat).min();
        mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if nothing else comes before.
    pub fn deadline(&self) -> Option<Moment> {
        self.armed
    }

    /// Which instance this is, once [`Event::Instance`] has said so.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// Why [`Event::Force`] would do nothing for a group, and what to do instead.
    pub fn refuses_force(&self, group: &GroupName) -> Option<String> {
        let Some(state) = self.groups.get(group) else {
            return Some(format!("group {group} has no aws-vipa node, or keepalived does not run it"));
        };
        let name = quoted(group.as_str());
        if state.paused_until.is_some() {
            return Some(format!("group {name} is paused: end that with `force aws-vipa resume {name}` first"));
        }
        if state.disabled {
            return Some(format!(
                "group {name} is switched off: `delete high-availability vrrp group {name} aws-vipa disable`"
            ));
        }
        if let Some(problem) = state.problems.first().filter(|_| self.addresses_of(group).next().is_none()) {
            return Some(format!("group {name} has no address to claim: {problem}"));
        }
        match &state.belief {
            Belief::Known { vrrp: VrrpState::Master, .. } => None,
            Belief::Known { vrrp, .. } => {
                Some(format!("group {name} is {vrrp}, not MASTER, on this router: claim on the router that is"))
            }
            Belief::Unknown { why, .. } => Some(format!(
                "whether group {name} is MASTER on this router is not known ({}): see `show vrrp` and `show log vrrp`",
                why.text()
            )),
        }
    }

    /// Whether a person has paused the group.
    pub fn is_paused(&self, group: &GroupName) -> bool {
        self.groups.get(group).is_some_and(|g| g.paused_until.is_some())
    }

    /// Whether there is such a group to pause.
    pub fn knows(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// Whether a read of all addresses that began at `since` or later has ended, well or not.
    pub fn has_read_since(&self, since: Moment) -> bool {
        self.sweep.ended.is_some_and(|began| began >= since)
    }

    /// Whether every address of the group has an answer to a claim that began at `since` or later.
    pub fn has_answers(&self, group: &GroupName, since: Moment) -> bool {
        self.addresses_of(group).all(|a| a.last_claim.as_ref().is_some_and(|c| c.began >= since && c.answer.is_some()))
    }

    /// Whether a claim of the address began at `since` or later.
    pub fn claimed_since(&self, ip: &Ipv4Addr, since: Moment) -> bool {
        self.addresses.get(ip).and_then(|a| a.last_claim.as_ref()).is_some_and(|c| c.began >= since)
    }

    fn addresses_of<'a>(&'a self, group: &'a GroupName) -> impl Iterator<Item = &'a Address> {
        self.addresses.values().filter(move |a| a.group == *group)
    }

    fn settle(&mut self, now: Moment) {
        if self.writer_gone.is_some_and(|since| since + WRITERLESS <= now) {
            let known: Vec<GroupName> =
                self.groups.iter().filter(|(_, g)| !g.is_writerless()).map(|(n, _)| n.clone()).collect();
            known.iter().for_each(|name| self.doubt(now, name, Cause::NoWriter));
        }
        if self.coming.as_ref().is_some_and(|(_, since)| *since + GROUPS_COUNT <= now) {
            self.count_coming(now);
        }
        let over: Vec<GroupName> =
            self.pauses.iter().filter(|(_, until)| **until <= now).map(|(name, _)| name.clone()).collect();
        over.iter().for_each(|name| self.resume(now, name));
        self.need_life(now);
        self.doubt_standbys(now);
        self.find_out(now);
        self.end_contests(now);
        self.adopt_unread(now);
        self.send_claims(now);
        self.send_reads(now);
        self.send_resolves(now);
        self.judge_places(now);
        self.judge_readiness();
    }

    fn judge_readiness(&mut self) {
        let mut news = Vec::new();
        for (name, group) in &self.groups {
            if group.belief.vrrp() != VrrpState::Backup || !group.acts() {
                continue;
            }
            let Some(obstacle) = self.obstacle(group) else {
                continue;
            };
            if group.obstacle.as_ref() != Some(&obstacle) {
                news.push((name.clone(), obstacle));
            }
        }
        for (name, obstacle) in news {
            if let Some(group) = self.groups.get_mut(&name) {
                // That all is well is worth a line only after it was not.
                let was_bad = matches!(group.obstacle, Some(Some(_)));
                group.obstacle = Some(obstacle.clone());
                if was_bad || obstacle.is_some() {
                    self.note(Note::Readiness { group: name, obstacle });
                }
            }
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        self.actions.push(Action::Note(note));
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The earliest moment after `now` at which something may be due.
    fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let verify_interval = self.config.global.verify_interval.duration();
        let addresses = self.addresses.values().flat_map(|a| {
            let interval = self.interval(&a.group);
            let life_ends = self.life.map(|life| life + life_lasts(interval));
            let wanted = match a.phase {
                Phase::Wanted { due } if due > now => [Some(due), None, None],
                Phase::Wanted { due } => [Some(due + life_patience(interval)), life_ends, self.may_go(now, a)],
                _ => [None; 3],
            };
            let contest = a.confirmed_since.and_then(|since| a.contest.ends(since, verify_interval));
            wanted.into_iter().chain([a.reads.first().copied(), contest]).flatten()
        });
        let waits = self.addresses.values().any(|a| matches!(a.phase, Phase::Wanted { due } if due <= now));
        let in_flight = self.claims.values().filter(|_| waits).map(|c| c.began);
        let next_claim = in_flight.flat_map(|began| [began + pace::SHORTEST_GAP, began + pace::LONGEST_GAP]);
        let pauses = self.pauses.values().copied();
        let resolves = self.bindings.values().filter(|b| !b.asked).filter_map(|b| b.next);
        let lines = self.unannounced().map(|(_, until)| until);
        let places = self.addresses.iter().filter_map(|(ip, a)| Some(self.misplaced(*ip, a)?.1 + MISPLACED));
        let others = [
            self.writer_gone.map(|since| since + WRITERLESS),
            self.coming.as_ref().map(|(_, since)| *since + GROUPS_COUNT),
            self.look_asked.map(|asked| asked + LOOK_AGAIN),
            (!self.addresses.is_empty()).then_some(self.sweep.due),
        ];
        addresses
            .chain(next_claim)
            .chain(pauses)
            .chain(lines)
            .chain(places)
            .chain(resolves)
            .chain(others.into_iter().flatten())
            .filter(|t| *t > now)
            .min()
    }
}
