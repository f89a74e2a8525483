//! What outlives the agent: its history, contests, the ENIs behind MAC addresses, pauses, and rights that were proven.
//!
//! The files are in /var/lib/vyos-aws-vipa (the unit's StateDirectory, 0700): root never reads them, status gets what is
//! in them over the socket. A file that is missing or damaged counts as empty, and one of a newer format too, but that one
//! is never overwritten: the agent works without any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::control::Minutes;
use crate::files::{self, FileError};
use crate::names::{EniId, GroupName, InstanceId, InterfaceName, MacAddress, Region, RequestId};
use crate::ownership::{CallError, Eni, Owner, Taker};
use crate::status::report::Vrrp;

/// How many records of the history are kept. A claim that goes on failing in one way is one record.
pub const HISTORY: usize = 200;

/// How many thefts of an address are kept: twice as many as make a contest.
const THEFTS: usize = 8;

/// How many begins and ends of contests of an address are kept, with the other router and with strangers.
const CONTESTS: usize = 4;

/// How many of the last records are searched for the failure that a new one goes on with.
const RECENT: usize = 20;

/// Everything that is kept.
#[derive(Debug)]
pub struct State {
    /// What has happened.
    pub history: Kept<History>,
    /// Addresses that were taken away.
    pub contests: Kept<Contests>,
    /// The ENIs behind MAC addresses, for an IMDS that does not answer.
    pub enis: Kept<EniMap>,
    /// Groups that a person has paused.
    pub pauses: Kept<Pauses>,
    /// Rights that EC2 has shown us to have.
    pub proven: Kept<Proven>,
}

impl State {
    /// Reads what is in this folder, and removes what a write that was killed has left. What is wrong with a file is
    /// logged.
    pub fn load(folder: &Path) -> Self {
        files::remove_leftovers(folder);
        let history: Kept<History> = Kept::load(folder.join("history.json"));
        let mut contests: Kept<Contests> = Kept::load(folder.join("contests.json"));
        if contests.was_missing {
            // Before 0.2 the history alone knew of them.
            history.get().records.iter().for_each(|record| contests.value.note(record));
        }
        Self {
            history,
            contests,
            enis: Kept::load(folder.join("eni-map.json")),
            pauses: Kept::load(folder.join("pauses.json")),
            proven: Kept::load(folder.join("proven.json")),
        }
    }

    /// Adds to what has happened.
    pub fn record(&mut self, record: Record) {
        if self.contests.get().is_about(&record) {
            self.contests.change(|contests| contests.note(&record));
        }
        // Of a failure that goes on, the count can wait: an outage is no reason to keep the disk busy.
        let goes_on = self.history.value.add(record);
        self.history.touch(if goes_on { Urgency::Later } else { Urgency::Soon });
    }

    /// How soon something is to be written; nothing, if all is on disk or on its way there.
    pub fn urgency(&self) -> Option<Urgency> {
        let Self { history, contests, enis, pauses, proven } = self;
        [history.dirty, contests.dirty, enis.dirty, pauses.dirty, proven.dirty].into_iter().max().flatten()
    }

    /// What is to be written by now, for a thread that may wait for the disk; let it end before the next one begins, and
    /// tell [`State::written`] what came of each.
    pub fn writes(&mut self) -> Vec<Write> {
        let Self { history, contests, enis, pauses, proven } = self;
        [history.write(), contests.write(), enis.write(), pauses.write(), proven.write()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Takes note of what came of the writes under way. One that is not among the results, or failed, is to be done again.
    pub fn written(&mut self, results: &[Written]) {
        let Self { history, contests, enis, pauses, proven } = self;
        history.written(results);
        contests.written(results);
        enis.written(results);
        pauses.written(results);
        proven.written(results);
    }
}

/// How soon a change has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// With the next change that has to, or in a minute.
    Later,
    /// With what else changes now.
    Soon,
    /// Now: somebody waits for it.
    AtOnce,
}

/// A file to write.
pub struct Write {
    path: PathBuf,
    perform: Perform,
}

type Perform = Box<dyn FnOnce(&Path) -> Result<(), FileError> + Send>;

impl Write {
    /// Writes it, and waits for the disk.
    pub fn perform(self) -> Written {
        let Self { path, perform } = self;
        Written { result: perform(&path), path }
    }
}

/// What came of the write of a file.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Why it was not written, if it was not.
    pub result: Result<(), FileError>,
}

/// A value and the file that it is kept in.
#[derive(Debug)]
pub struct Kept<T> {
    path: PathBuf,
    value: T,
    was_missing: bool,
    dirty: Option<Urgency>,
    /// It is being written.
    under_way: bool,
    /// Why it is not on disk, and may never be.
    fault: Option<String>,
    /// Not for a file that a newer version wrote.
    writable: bool,
}

/// Whether a value is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is.
    Yes,
    /// It is on its way.
    NotYet,
    /// It could not be written, and why.
    No(String),
}

impl<T> Kept<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    fn load(path: PathBuf) -> Self {
        let kept = |value, writable| Self {
            path: path.clone(),
            value,
            was_missing: false,
            dirty: None,
            under_way: false,
            fault: None,
            writable,
        };
        match files::read(&path) {
            Ok(value) => kept(value, true),
            Err(FileError::Missing(_)) => Self { was_missing: true, ..kept(T::default(), true) },
            Err(error @ FileError::Newer { .. }) => {
                warn!(%error, "state file is from a newer version; ignored, not overwritten");
                kept(T::default(), false)
            }
            Err(error) => {
                warn!(%error, "state file is corrupt; starting empty");
                kept(T::default(), true)
            }
        }
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Replaces the value; nothing is written if it is the same.
    pub fn set(&mut self, value: T) {
        if self.value != value {
            self.value = value;
            self.touch(Urgency::Soon);
        }
    }

    /// Changes the value.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value);
        self.touch(Urgency::Soon);
        changed
    }

    /// Has the last change written at once.
    pub fn hurry(&mut self) {
        // What is on its way now may arrive.
        self.fault = None;
        self.touch(Urgency::AtOnce);
    }

    /// Whether the value is on disk.
    pub fn saved(&self) -> Saved {
        match &self.fault {
            Some(fault) => Saved::No(fault.clone()),
            None if self.dirty.is_some() || self.under_way => Saved::NotYet,
            None => Saved::Yes,
        }
    }

    fn touch(&mut self, urgency: Urgency) {
        if self.writable {
            self.dirty = self.dirty.max(Some(urgency));
        } else {
            self.fault = Some(format!("a newer version of vyos-aws-vipa wrote {}", self.path.display()));
        }
    }

    fn write(&mut self) -> Option<Write> {
        self.dirty.take()?;
        self.under_way = true;
        let value = self.value.clone();
        Some(Write { path: self.path.clone(), perform: Box::new(move |path| files::write(path, 0o600, &value)) })
    }

    fn written(&mut self, results: &[Written]) {
        if !std::mem::take(&mut self.under_way) {
            return;
        }
        self.fault = match results.iter().find(|written| written.path == self.path) {
            Some(Written { result: Ok(()), .. }) => None,
            Some(Written { result: Err(error), .. }) => Some(error.to_string()),
            None => Some(format!("the write of {} ended early", self.path.display())),
        };
        if self.fault.is_some() {
            self.touch(Urgency::Later);
        }
    }
}

/// What has happened, oldest first, [`HISTORY`] records at most.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    #[serde(deserialize_with = "readable_records")]
    records: Vec<Record>,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When; the last time, if it happened several times.
    pub time: Timestamp,
    /// When it happened for the first time, if several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How often.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u32,
    /// The group, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// The addresses, where it is about some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// The agent has started.
    Started {
        /// Its version.
        version: String,
    },
    /// The state of a group has changed.
    Transition {
        /// The state before.
        from: Vrrp,
        /// The state now.
        to: Vrrp,
        /// Why, in an operator's words.
        cause: String,
    },
    /// A person had the group's addresses claimed.
    Forced,
    /// EC2 was asked to assign the addresses to us.
    Claim {
        /// The ENI.
        eni: EniId,
        /// Who had the first of them before, as far as known.
        previous: Option<Owner>,
        /// How long it took to be answered, or not, in milliseconds.
        duration_ms: u64,
        /// What came of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// An address that was confirmed as ours went to another.
    Theft {
        /// Who has it.
        by: Owner,
        /// What that is to the group; records of 0.1.0 do not say it.
        #[serde(default)]
        taker: Taker,
    },
    /// An address was taken away too often.
    Contested {
        /// Who takes it.
        by: Owner,
        /// What that is to the group; records of 0.1.0 do not say it.
        #[serde(default)]
        taker: Taker,
    },
    /// The contest is over.
    ContestOver {
        /// With whom it was; records of 0.1.0 do not say it.
        #[serde(default)]
        taker: Taker,
    },
    /// A claim was due, and the address was not on a local interface.
    NotLocal,
    /// A standby has become able or unable to take over.
    Readiness {
        /// Why it could not; absent if it could.
        obstacle: Option<String>,
    },
    /// The ENI of an interface could not be found out.
    Unresolved {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        error: CallError,
    },
}

/// The thefts of one address that still count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thefts {
    /// When each was, and who took the address.
    pub times: Vec<(Timestamp, Taker)>,
    /// With whom they have become a contest.
    pub contested: Vec<Taker>,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// EC2 has acknowledged it.
    Acknowledged {
        /// EC2's request id.
        request_id: Option<RequestId>,
    },
    /// It failed, or was not answered in time.
    Failed {
        /// Why.
        error: CallError,
    },
}

fn once() -> u32 {
    1
}

fn is_once(times: &u32) -> bool {
    *times == 1
}

/// Records that another version wrote and this one does not understand are left out.
fn readable_records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Record>, D::Error> {
    let all = Vec::<Value>::deserialize(deserializer)?;
    let count = all.len();
    let mut records: Vec<Record> = all.into_iter().filter_map(|r| serde_json::from_value(r).ok()).collect();
    if records.len() < count {
        warn!(left_out = count - records.len(), "records of the history are not understood");
    }
    records.drain(..records.len().saturating_sub(HISTORY));
    Ok(records)
}

impl Record {
    /// Something that has happened once.
    pub fn new(time: Timestamp, kind: Kind) -> Self {
        Self { time, since: None, times: 1, group: None, addresses: Vec::new(), kind }
    }

    /// The group that it is about.
    #[must_use]
    pub fn of_group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// The addresses that it is about.
    #[must_use]
    pub fn of_addresses(mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Whether `later` is the same failure again: the same claim or the same question, and the same error code.
    fn goes_on_in(&self, later: &Record) -> bool {
        let same = match (&self.kind, &later.kind) {
            (
                Kind::Claim { eni, outcome: Outcome::Failed { error }, .. },
                Kind::Claim { eni: other_eni, outcome: Outcome::Failed { error: other }, .. },
            ) => eni == other_eni && error.code == other.code,
            (Kind::Unresolved { interface, error }, Kind::Unresolved { interface: other_interface, error: other }) => {
                interface == other_interface && error.code == other.code
            }
            (Kind::NotLocal, Kind::NotLocal) => true,
            (Kind::Started { version }, Kind::Started { version: other }) => version == other,
            _ => false,
        };
        same && (&self.group, &self.addresses) == (&later.group, &later.addresses)
    }
}

impl History {
    /// Adds what has happened. A failure that repeats a recent one becomes one record with it, and so does a start right
    /// after another: then it says so.
    pub fn add(&mut self, mut record: Record) -> bool {
        let within = if matches!(record.kind, Kind::Started { .. }) { 1 } else { RECENT };
        let recent = self.records.len().saturating_sub(within)..;
        let before = self.records[recent.clone()].iter().rposition(|r| r.goes_on_in(&record));
        if let Some(n) = before {
            let before = self.records.remove(recent.start + n);
            record.since = before.since.or(Some(before.time));
            record.times = before.times.saturating_add(record.times);
        }
        self.records.push(record);
        self.records.drain(..self.records.len().saturating_sub(HISTORY));
        before.is_some()
    }

    /// The thefts of each address of a group since that was last not MASTER, or a contest over.
    pub fn thefts(&self) -> BTreeMap<(&GroupName, Ipv4Addr), Thefts> {
        thefts(&self.records)
    }

    /// The records from the `count`-th last transition, claim or theft on, oldest first: whatever else has happened does
    /// not crowd these out.
    pub fn last(&self, count: usize) -> &[Record] {
        let chief = |r: &Record| {
            matches!(r.kind, Kind::Transition { .. } | Kind::Claim { .. } | Kind::Theft { .. } | Kind::Forced)
        };
        let mut chiefs = (0..self.records.len()).rev().filter(|n| chief(&self.records[*n]));
        match count.checked_sub(1) {
            Some(before) => &self.records[chiefs.nth(before).unwrap_or(0)..],
            None => &[],
        }
    }
}

/// See [`History::thefts`].
fn thefts(records: &[Record]) -> BTreeMap<(&GroupName, Ipv4Addr), Thefts> {
    let mut all = BTreeMap::new();
    for record in records {
        let Some(group) = &record.group else {
            continue;
        };
        for address in &record.addresses {
            let thefts: &mut Thefts = all.entry((group, *address)).or_default();
            match record.kind {
                Kind::Theft { taker, .. } => thefts.times.push((record.time, taker)),
                Kind::Contested { taker, .. } => thefts.contested.push(taker),
                Kind::ContestOver { taker } => {
                    thefts.times.retain(|(_, by)| *by != taker);
                    thefts.contested.retain(|with| *with != taker);
                }
                _ => {}
            }
        }
        if matches!(record.kind, Kind::Transition { to: Vrrp::Backup | Vrrp::Fault | Vrrp::Stop, .. }) {
            all.retain(|(of, _), _| *of != group);
        }
    }
    all.retain(|_, thefts| !thefts.times.is_empty());
    all
}

/// The records of addresses that were taken away since their group was last not MASTER, or a contest over: what a restart
/// of the agent must not forget, whatever else happens. The history has room for all groups together, and one failover of
/// many fills it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contests {
    #[serde(deserialize_with = "readable_records")]
    records: Vec<Record>,
}

impl Contests {
    /// Whether the record changes anything.
    fn is_about(&self, record: &Record) -> bool {
        match record.kind {
            Kind::Theft { .. } | Kind::Contested { .. } => true,
            Kind::ContestOver { .. } | Kind::Transition { to: Vrrp::Backup | Vrrp::Fault | Vrrp::Stop, .. } => {
                self.records.iter().any(|kept| kept.group == record.group)
            }
            _ => false,
        }
    }

    fn note(&mut self, record: &Record) {
        if !self.is_about(record) {
            return;
        }
        // Those of other groups stay as they are: the loop waits for this, and it may be about two hundred groups at once.
        let (mut records, others): (Vec<Record>, Vec<Record>) =
            std::mem::take(&mut self.records).into_iter().partition(|kept| kept.group == record.group);
        self.records = others;
        records.push(record.clone());
        let counting: BTreeSet<Ipv4Addr> = thefts(&records).into_keys().map(|(_, address)| address).collect();
        let mut kept: BTreeMap<Ipv4Addr, [usize; 2]> = BTreeMap::new();
        // The newest of each address, as many as can matter.
        records.reverse();
        records.retain(|record| {
            record.addresses.iter().any(|address| {
                let [thefts, contests] = kept.entry(*address).or_default();
                let (count, most) = match record.kind {
                    Kind::Theft { .. } => (thefts, THEFTS),
                    _ => (contests, CONTESTS),
                };
                *count += 1;
                *count <= most && counting.contains(address)
            })
        });
        self.records.extend(records.into_iter().rev());
    }

    /// Forgets the groups that are not configured any more.
    pub fn retain(&mut self, is_configured: impl Fn(&GroupName) -> bool) {
        self.records.retain(|record| record.group.as_ref().is_some_and(&is_configured));
    }

    /// Whether there is a group that is not configured any more.
    pub fn has_other_than(&self, is_configured: impl Fn(&GroupName) -> bool) -> bool {
        self.records.iter().any(|record| !record.group.as_ref().is_some_and(&is_configured))
    }

    /// As [`History::thefts`] tells them.
    pub fn thefts(&self) -> BTreeMap<(&GroupName, Ipv4Addr), Thefts> {
        thefts(&self.records)
    }
}

/// The ENIs that IMDS named, with the instance that it named itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniMap {
    instance: Option<InstanceId>,
    region: Option<Region>,
    enis: BTreeMap<MacAddress, Eni>,
}

impl EniMap {
    /// What IMDS said of one MAC address. Whatever was known of another instance is forgotten: the disk was copied.
    pub fn learn(&mut self, instance: &InstanceId, region: &Region, mac: MacAddress, eni: Eni) {
        if self.instance.as_ref() != Some(instance) {
            self.enis.clear();
        }
        self.instance = Some(instance.clone());
        self.region = Some(region.clone());
        self.enis.insert(mac, eni);
    }

    /// The ENI that had this MAC address, on this same instance.
    pub fn eni(&self, instance: &InstanceId, mac: MacAddress) -> Option<&Eni> {
        self.enis.get(&mac).filter(|_| self.instance.as_ref() == Some(instance))
    }

    /// The region of this same instance.
    pub fn region(&self, instance: &InstanceId) -> Option<&Region> {
        self.region.as_ref().filter(|_| self.instance.as_ref() == Some(instance))
    }
}

/// Groups that a person has paused, each until a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pauses {
    groups: BTreeMap<GroupName, Timestamp>,
    /// By a clock that nobody sets; absent where a version before 0.2 wrote the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    began: BTreeMap<GroupName, Began>,
}

/// When a pause began and how long it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Began {
    /// The start of the router that `at` counts from; empty: not known.
    boot: String,
    /// Seconds since then, the time that the router was suspended among them.
    at: u64,
    minutes: Minutes,
}

/// The time of day, and that of a clock that nobody sets.
#[derive(Debug, Clone)]
pub struct Now {
    /// The time of day.
    pub wall: Timestamp,
    /// What tells this start of the router from others; empty: nothing does.
    pub boot: String,
    /// The time since then.
    pub since_boot: Duration,
}

impl Pauses {
    /// Pauses a group; the later call counts. Pauses that are over are forgotten.
    pub fn pause(&mut self, group: GroupName, minutes: Minutes, now: &Now) {
        let lasting: BTreeSet<GroupName> = self.lasting(now).map(|(group, _)| group.clone()).collect();
        self.groups.retain(|group, _| lasting.contains(group));
        self.began.retain(|group, _| lasting.contains(group));
        let until = now.wall.saturating_add(minutes.duration()).unwrap_or(Timestamp::MAX);
        self.groups.insert(group.clone(), until);
        self.began.insert(group, Began { boot: now.boot.clone(), at: now.since_boot.as_secs(), minutes });
    }

    /// Ends a pause. Says whether there was one.
    pub fn resume(&mut self, group: &GroupName) -> bool {
        self.began.remove(group);
        self.groups.remove(group).is_some()
    }

    /// The pauses that are not over, each with what is left of it. The time of day counts only where the router has started
    /// anew since, and never makes a pause longer than a person asked for.
    pub fn lasting(&self, now: &Now) -> impl Iterator<Item = (&GroupName, Duration)> {
        let left = |group: &GroupName, until: Timestamp| {
            let by_day = || Duration::try_from(until.duration_since(now.wall)).unwrap_or_default();
            match self.began.get(group) {
                Some(Began { boot, at, minutes }) if *boot == now.boot && !boot.is_empty() => {
                    let gone = now.since_boot.saturating_sub(Duration::from_secs(*at));
                    minutes.duration().saturating_sub(gone)
                }
                Some(Began { minutes, .. }) => by_day().min(minutes.duration()),
                None => by_day().min(Minutes::LONGEST.duration()),
            }
        };
        self.groups.iter().map(move |(group, until)| (group, left(group, *until))).filter(|(_, left)| !left.is_zero())
    }
}

/// When EC2 last acknowledged a claim for an ENI: the right to assign to it is proven since.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    enis: BTreeMap<EniId, Timestamp>,
}

impl Proven {
    /// EC2 has acknowledged a claim.
    pub fn prove(&mut self, eni: EniId, at: Timestamp) {
        self.enis.insert(eni, at);
    }

    /// When that was, if it ever was.
    pub fn at(&self, eni: &EniId) -> Option<Timestamp> {
        self.enis.get(eni).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ownership::ErrorClass;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn group(name: &str) -> GroupName {
        GroupName::try_from(name).expect("a name")
    }

    fn eni(n: u8) -> EniId {
        EniId::try_from(format!("eni-000000{n:02x}")).expect("an id")
    }

    fn instance(n: u8) -> InstanceId {
        InstanceId::try_from(format!("i-000000{n:02x}")).expect("an id")
    }

    fn owner(n: u8) -> Owner {
        Owner { eni: eni(n), instance: Some(instance(n)), primary: false }
    }

    fn error(code: &str) -> CallError {
        let message = "no answer".to_owned();
        CallError { class: ErrorClass::TimedOut, code: code.to_owned(), message, request_id: None }
    }

    fn claim(second: i64, outcome: Outcome) -> Record {
        let kind = Kind::Claim { eni: eni(1), previous: Some(owner(2)), duration_ms: 31, outcome };
        Record::new(at(second), kind).of_group(group("a")).of_addresses([Ipv4Addr::new(10, 99, 0, 100)])
    }

    fn failed(second: i64, code: &str) -> Record {
        claim(second, Outcome::Failed { error: error(code) })
    }

    /// Writes what is dirty.
    fn flush(state: &mut State) -> Vec<Written> {
        let results: Vec<Written> = state.writes().into_iter().map(Write::perform).collect();
        state.written(&results);
        results
    }

    fn flushed(state: &mut State) {
        let results = flush(state);
        assert!(results.iter().all(|written| written.result.is_ok()), "{results:?}");
    }

    /// So many seconds after the first moment of these tests by the time of day, and after the router's start.
    fn day(second: i64, boot: &str, since_boot: u64) -> Now {
        Now { wall: at(second), boot: boot.to_owned(), since_boot: Duration::from_secs(since_boot) }
    }

    fn minutes(n: u16) -> Minutes {
        Minutes::try_from(n).expect("in range")
    }

    fn every_kind() -> Vec<Record> {
        let request_id = RequestId::try_from("b1c5").ok();
        let transition =
            Kind::Transition { from: Vrrp::Backup, to: Vrrp::Master, cause: "keepalived: MASTER".to_owned() };
        let eth0 = InterfaceName::try_from("eth0").expect("a name");
        vec![
            Record::new(at(0), Kind::Started { version: "0.1.0".to_owned() }),
            Record::new(at(1), transition).of_group(group("a")),
            claim(2, Outcome::Acknowledged { request_id }),
            failed(3, "Timeout"),
            Record::new(at(4), Kind::Theft { by: owner(2), taker: Taker::Peer }),
            Record::new(at(5), Kind::Contested { by: owner(2), taker: Taker::Peer }),
            Record::new(at(6), Kind::ContestOver { taker: Taker::Peer }),
            Record::new(at(7), Kind::NotLocal),
            Record::new(at(8), Kind::Readiness { obstacle: Some("no credentials".to_owned()) }),
            Record::new(at(9), Kind::Unresolved { interface: eth0, error: error("Timeout") }),
        ]
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let mac = MacAddress::new([2, 0, 0, 0, 0, 1]);
        let region = Region::try_from("eu-central-1").expect("a region");
        let id = |text: &str| text.to_owned().try_into();
        let known = Eni {
            id: eni(1),
            subnet: id("subnet-00000001").expect("an id"),
            vpc: "vpc-00000001".try_into().expect("an id"),
            primary: Ipv4Addr::new(10, 99, 0, 10),
        };
        let mut state = State::load(folder.path());
        assert_eq!(state.urgency(), None, "nothing was there, and nothing is to be written");
        for record in every_kind() {
            state.record(record);
        }
        state.enis.change(|m| m.learn(&instance(1), &region, mac, known.clone()));
        state.pauses.change(|p| p.pause(group("a"), minutes(30), &day(0, "x", 100)));
        state.pauses.change(|p| p.pause(group("b"), minutes(1), &day(0, "x", 100)));
        state.proven.change(|p| p.prove(eni(1), at(2)));
        assert_eq!(state.urgency(), Some(Urgency::Soon));
        flushed(&mut state);
        assert_eq!(state.urgency(), None);
        for file in fs::read_dir(folder.path()).expect("listed") {
            let mode = file.expect("listed").metadata().expect("known").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }

        let mut state = State::load(folder.path());
        assert_eq!(state.history.get().last(HISTORY), every_kind());
        assert_eq!(
            state.history.get().last(2),
            &every_kind()[3..],
            "what is no transition, claim or theft does not count"
        );
        assert_eq!(state.history.get().last(0), []);
        let map = state.enis.get();
        assert_eq!(map.eni(&instance(1), mac), Some(&known));
        assert_eq!(map.region(&instance(1)), Some(&region));
        assert_eq!(map.eni(&instance(2), mac), None, "an image of the disk on another instance");
        assert_eq!(map.region(&instance(2)), None);
        assert_eq!(state.proven.get().at(&eni(1)), Some(at(2)));
        assert_eq!(state.proven.get().at(&eni(2)), None);
        let a = group("a");
        let now = day(60, "x", 160);
        let left: Vec<_> = state.pauses.get().lasting(&now).collect();
        assert_eq!(left, [(&a, Duration::from_secs(1_740))], "the other one is over");
        assert!(state.pauses.change(|p| p.resume(&group("a"))));
        assert!(!state.pauses.change(|p| p.resume(&group("a"))));

        state.enis.change(|m| m.learn(&instance(2), &region, MacAddress::new([2, 0, 0, 0, 0, 2]), known));
        assert_eq!(state.enis.get().eni(&instance(2), mac), None, "what another instance had is forgotten");
    }

    #[test]
    fn the_words_of_the_history_are_plain() {
        let json = |n: usize| serde_json::to_string(&every_kind()[n]).expect("JSON");
        assert_eq!(
            json(1),
            r#"{"time":"2027-01-15T08:00:01Z","group":"a","kind":"transition","from":"BACKUP","to":"MASTER","cause":"keepalived: MASTER"}"#
        );
        assert!(
            json(2).contains(r#""kind":"claim""#) && json(2).contains(r#""outcome":"acknowledged""#),
            "{}",
            json(2)
        );
        assert!(json(3).contains(r#""outcome":"failed""#) && json(3).contains(r#""class":"timed-out""#), "{}", json(3));
        assert_eq!(json(6), r#"{"time":"2027-01-15T08:00:06Z","kind":"contest-over","taker":"peer"}"#);
    }

    #[test]
    fn a_failure_that_goes_on_does_not_push_out_the_rest() {
        let mut history = History::default();
        history.add(every_kind().remove(1));
        for second in 0..5_000 {
            history.add(failed(second, if second % 2 == 0 { "Timeout" } else { "Unavailable" }));
        }
        let [transition, timeouts, unavailable] = history.last(HISTORY) else { panic!("{history:?}") };
        assert!(matches!(transition.kind, Kind::Transition { .. }));
        assert_eq!((timeouts.times, timeouts.since, timeouts.time), (2_500, Some(at(0)), at(4_998)));
        assert_eq!((unavailable.times, unavailable.since, unavailable.time), (2_500, Some(at(1)), at(4_999)));
        let mut other = failed(5_000, "Timeout");
        other.addresses = vec![Ipv4Addr::new(10, 99, 0, 101)];
        history.add(other);
        assert_eq!(history.last(HISTORY).len(), 4, "another address is another claim");
    }

    #[test]
    fn an_agent_that_starts_again_and_again_does_not_push_out_the_rest() {
        let started = |second| Record::new(at(second), Kind::Started { version: "0.1.0".to_owned() });
        let mut history = History::default();
        history.add(started(0));
        history.add(every_kind().remove(1));
        for second in 1..1_000 {
            history.add(started(second));
        }
        let [first, _, last] = history.last(HISTORY) else { panic!("{history:?}") };
        assert_eq!((first.times, first.time), (1, at(0)), "a transition is between them");
        assert_eq!((last.times, last.since, last.time), (999, Some(at(1)), at(999)));
    }

    /// An address, the seconds of its thefts and who took it, and with whom there is a contest.
    type Taken = (String, Ipv4Addr, Vec<(i64, Taker)>, Vec<Taker>);

    fn contests(state: &State) -> Vec<Taken> {
        let second = |time: Timestamp| time.as_second() - at(0).as_second();
        let all = state.contests.get().thefts().into_iter();
        all.map(|((group, address), thefts)| {
            let times = thefts.times.iter().map(|(time, by)| (second(*time), *by)).collect();
            (group.to_string(), address, times, thefts.contested)
        })
        .collect()
    }

    #[test]
    fn thefts_count_until_the_group_is_not_master_or_the_contest_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let ip = |n| Ipv4Addr::new(10, 99, 0, n);
        let mut state = State::load(folder.path());
        let mut add = |second, name: &str, address: Option<u8>, kind| {
            state.record(Record::new(at(second), kind).of_group(group(name)).of_addresses(address.map(ip)));
        };
        let (peer, stranger) = (Taker::Peer, Taker::Stranger);
        let theft = || Kind::Theft { by: owner(2), taker: peer };
        let becomes = |to| Kind::Transition { from: Vrrp::Master, to, cause: String::new() };
        add(0, "a", Some(1), theft());
        add(1, "b", Some(2), theft());
        add(2, "a", None, becomes(Vrrp::Backup));
        add(3, "b", None, becomes(Vrrp::Unknown));
        add(4, "a", Some(1), theft());
        add(5, "b", Some(2), theft());
        add(6, "b", Some(2), Kind::Contested { by: owner(2), taker: peer });
        add(7, "b", Some(3), theft());
        add(8, "b", Some(3), Kind::Contested { by: owner(2), taker: peer });
        add(9, "b", Some(3), Kind::ContestOver { taker: peer });
        add(10, "b", Some(4), theft());
        add(11, "b", Some(4), Kind::Theft { by: owner(3), taker: stranger });
        add(12, "b", Some(4), Kind::Contested { by: owner(3), taker: stranger });
        add(13, "b", Some(4), Kind::ContestOver { taker: peer });
        let expected = [
            ("a".to_owned(), ip(1), vec![(4, peer)], vec![]),
            ("b".to_owned(), ip(2), vec![(1, peer), (5, peer)], vec![peer]),
            ("b".to_owned(), ip(4), vec![(11, stranger)], vec![stranger]),
        ];
        assert_eq!(contests(&state), expected);
        flushed(&mut state);
        let mut state = State::load(folder.path());
        assert_eq!(contests(&state), expected);
        state.contests.change(|contests| contests.retain(|name| *name == group("b")));
        assert_eq!(contests(&state), expected[1..]);
    }

    /// Before 0.2 the history was all that knew of them.
    #[test]
    fn thefts_of_a_history_without_a_file_of_their_own_are_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(folder.path());
        let theft = Record::new(at(4), Kind::Theft { by: owner(2), taker: Taker::Peer }).of_group(group("a"));
        state.record(theft.of_addresses([Ipv4Addr::new(10, 99, 0, 1)]));
        flushed(&mut state);
        fs::remove_file(folder.path().join("contests.json")).expect("removed");
        let expected = [("a".to_owned(), Ipv4Addr::new(10, 99, 0, 1), vec![(4, Taker::Peer)], vec![])];
        assert_eq!(contests(&State::load(folder.path())), expected);
    }

    /// The history has room for less than what happens when many groups change there and back.
    #[test]
    fn a_failover_of_many_groups_does_not_push_out_a_contest() {
        let mut state = State::load(Path::new("/nonexistent"));
        let ip = Ipv4Addr::new(10, 99, 0, 1);
        let about = |second, kind| Record::new(at(second), kind).of_group(group("web")).of_addresses([ip]);
        for second in 0..4 {
            state.record(about(second, Kind::Theft { by: owner(2), taker: Taker::Peer }));
        }
        state.record(about(4, Kind::Contested { by: owner(2), taker: Taker::Peer }));
        for n in 0..200 {
            for (second, to) in [(5, Vrrp::Master), (6, Vrrp::Backup)] {
                let transition = Kind::Transition { from: Vrrp::Unknown, to, cause: "keepalived".to_owned() };
                state.record(Record::new(at(second), transition).of_group(group(&format!("g{n}"))));
            }
        }
        let is_theft = |r: &&Record| matches!(r.kind, Kind::Theft { .. });
        assert_eq!(state.history.get().last(HISTORY).iter().filter(is_theft).count(), 0, "the history has lost them");
        let peer = Taker::Peer;
        let times = vec![(0, peer), (1, peer), (2, peer), (3, peer)];
        assert_eq!(contests(&state), [("web".to_owned(), ip, times, vec![peer])]);
        for second in 7..1_000 {
            state.record(about(second, Kind::Theft { by: owner(2), taker: Taker::Peer }));
        }
        let (_, _, times, contested) = &contests(&state)[0];
        assert!(times.iter().map(|(second, _)| *second).eq(992..1_000), "bounded: {times:?}");
        assert_eq!(contested, &[peer], "and still a contest");
    }

    #[test]
    fn a_failure_that_goes_on_leaves_the_disk_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(folder.path());
        state.record(failed(0, "Timeout"));
        assert_eq!(state.urgency(), Some(Urgency::Soon));
        flushed(&mut state);
        for second in 1..1_000 {
            state.record(failed(second, "Timeout"));
            assert_eq!(state.urgency(), Some(Urgency::Later));
        }
        state.record(claim(1_000, Outcome::Acknowledged { request_id: None }));
        assert_eq!(state.urgency(), Some(Urgency::Soon));
    }

    #[test]
    fn a_pause_lasts_as_long_as_a_person_asked_whatever_the_clock_does() {
        let mut pauses = Pauses::default();
        let (a, five) = (group("a"), minutes(5));
        pauses.pause(a.clone(), five, &day(1_000, "x", 50));
        let left = |pauses: &Pauses, now: Now| pauses.lasting(&now).next().map(|(_, left)| left.as_secs());
        for (now, expected, why) in [
            (day(1_000, "x", 50), Some(300), "just now"),
            (day(1_060, "x", 110), Some(240), "a minute later"),
            (day(400, "x", 110), Some(240), "the clock has gone back by ten minutes and more"),
            (day(90_000, "x", 110), Some(240), "and a day ahead"),
            (day(1_000, "x", 350), None, "it is over, and the clock stands still"),
            (day(1_060, "y", 5), Some(240), "the router has started anew"),
            (day(0, "y", 5), Some(300), "and its clock has gone back"),
            (day(1_301, "y", 5), None, "and it is over"),
        ] {
            assert_eq!(left(&pauses, now), expected, "{why}");
        }
        // Which start of the router it is, is not known.
        let mut unknown = Pauses::default();
        unknown.pause(a.clone(), five, &day(1_000, "", 90_000));
        assert_eq!(left(&unknown, day(1_060, "", 5)), Some(240), "the time of day counts");
        // A file whose content makes no sense.
        let text = r#"{"groups":{"a":"2100-01-01T00:00:00Z"},"began":{"a":{"boot":"x","at":18446744073709551615,"minutes":5}}}"#;
        assert_eq!(left(&serde_json::from_str(text).expect("read"), day(0, "x", 50)), Some(300));
        // As a version before 0.2 wrote it.
        let old: Pauses = serde_json::from_str(r#"{"groups":{"a":"2100-01-01T00:00:00Z"}}"#).expect("read");
        assert_eq!(left(&old, day(0, "x", 0)), Some(1_440 * 60));
        pauses.pause(group("b"), five, &day(2_000, "x", 1_050));
        assert!(!pauses.resume(&a), "it was over, and is forgotten");
        assert!(pauses.resume(&group("b")) && pauses == Pauses::default());
    }

    #[test]
    fn what_a_killed_write_has_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in [".tmpAbc123", ".tmpx", "history.json.bak", ".other"] {
            fs::write(at(name), "{").expect("written");
        }
        fs::create_dir(at(".tmpdir")).expect("made");
        State::load(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, [".other", ".tmpdir", "history.json.bak"]);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        for second in 0..1_000 {
            history.add(Record::new(at(second), Kind::Theft { by: owner(2), taker: Taker::Peer }));
        }
        assert_eq!(history.last(usize::MAX).len(), HISTORY);
        assert_eq!(history.last(1)[0].time, at(999));
    }

    #[test]
    fn a_damaged_file_counts_as_empty_and_is_written_anew() {
        for text in ["", "{", "[]", "\u{0}\u{1}", r#"{"format":1}"#, r#"{"format":1,"records":7}"#] {
            let folder = tempfile::tempdir().expect("a folder");
            for name in ["history.json", "contests.json", "eni-map.json", "pauses.json", "proven.json"] {
                fs::write(folder.path().join(name), text).expect("written");
            }
            let mut state = State::load(folder.path());
            assert_eq!(state.history.get(), &History::default(), "{text:?}");
            state.record(Record::new(at(0), Kind::ContestOver { taker: Taker::Peer }));
            state.pauses.change(|p| p.pause(group("a"), minutes(1), &day(0, "x", 0)));
            flushed(&mut state);
            let state = State::load(folder.path());
            assert_eq!(state.history.get().last(9).len(), 1, "{text:?}");
            assert_ne!(state.pauses.get(), &Pauses::default(), "{text:?}");
        }
    }

    #[test]
    fn a_record_that_is_not_understood_is_left_out_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = r#"{"format":1,"records":[{"time":"2027-01-15T08:00:00Z","kind":"of-tomorrow"},7,
            {"time":"2027-01-15T08:00:01Z","kind":"contest-over","more":1}]}"#;
        fs::write(folder.path().join("history.json"), text).expect("written");
        assert_eq!(
            State::load(folder.path()).history.get().last(9),
            [Record::new(at(1), Kind::ContestOver { taker: Taker::Stranger })]
        );
    }

    #[test]
    fn a_file_of_a_newer_format_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pauses.json");
        let text = r#"{"format":2,"paused":["a"]}"#;
        fs::write(&path, text).expect("written");
        let mut state = State::load(folder.path());
        assert_eq!(state.pauses.saved(), Saved::Yes);
        state.pauses.change(|p| p.pause(group("b"), minutes(1), &day(0, "x", 0)));
        assert_eq!(state.urgency(), None);
        assert_eq!(flush(&mut state).len(), 0, "nothing to write");
        assert!(matches!(state.pauses.saved(), Saved::No(why) if why.contains("newer version")));
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_and_no_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(&folder.path().join("missing"));
        state.proven.change(|p| p.prove(eni(1), at(0)));
        let results = flush(&mut state);
        let [Written { result: Err(error), .. }] = &results[..] else { panic!("{results:?}") };
        assert!(error.to_string().contains("proven.json"), "{error}");
        assert!(matches!(state.proven.saved(), Saved::No(why) if why.contains("proven.json")));
        assert_eq!(state.urgency(), Some(Urgency::Later), "it is tried again");
        // A thread that ended early has written nothing either.
        assert_eq!(state.writes().len(), 1);
        assert_eq!(state.proven.saved(), Saved::No(error.to_string()));
        state.written(&[]);
        assert_eq!(state.urgency(), Some(Urgency::Later));
        assert_eq!(state.proven.get().at(&eni(1)), Some(at(0)));
    }

    #[test]
    fn the_same_value_again_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(folder.path());
        state.proven.set(Proven::default());
        assert_eq!(state.urgency(), None);
    }
}
