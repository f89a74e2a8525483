//! What outlives the agent: its history, the ENIs behind MAC addresses, pauses, and rights that were proven.
//!
//! The files are in /var/lib/vyos-aws-vipa (the unit's StateDirectory, 0700): root never reads them, status gets what is
//! in them over the socket. A file that is missing or damaged counts as empty, and one of a newer format too, but that one
//! is never overwritten: the agent works without any of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::files::{self, FileError};
use crate::names::{EniId, GroupName, InstanceId, InterfaceName, MacAddress, Region, RequestId};
use crate::ownership::{CallError, Eni, Owner, Taker};
use crate::status::report::Vrrp;

/// How many records of the history are kept. A claim that goes on failing in one way is one record.
pub const HISTORY: usize = 200;

/// How many of the last records are searched for the failure that a new one goes on with.
const RECENT: usize = 20;

/// Everything that is kept.
#[derive(Debug)]
pub struct State {
    /// What has happened.
    pub history: Kept<History>,
    /// The ENIs behind MAC addresses, for an IMDS that does not answer.
    pub enis: Kept<EniMap>,
    /// Groups that a person has paused.
    pub pauses: Kept<Pauses>,
    /// Rights that EC2 has shown us to have.
    pub proven: Kept<Proven>,
}

impl State {
    /// Reads what is in this folder. What is wrong with a file is logged.
    pub fn load(folder: &Path) -> Self {
        Self {
            history: Kept::load(folder.join("history.json")),
            enis: Kept::load(folder.join("eni-map.json")),
            pauses: Kept::load(folder.join("pauses.json")),
            proven: Kept::load(folder.join("proven.json")),
        }
    }

    /// Has everything written the next time: a write has failed.
    pub fn touch(&mut self) {
        self.history.touch();
        self.enis.touch();
        self.pauses.touch();
        self.proven.touch();
    }

    /// Whether anything is still to be written.
    pub fn is_dirty(&self) -> bool {
        self.history.dirty || self.enis.dirty || self.pauses.dirty || self.proven.dirty
    }

    /// What is to be written by now, for a thread that may wait for the disk; let it end before the next one begins. After a
    /// failure, [`State::touch`] has it tried again.
    pub fn writes(&mut self) -> Vec<Write> {
        [self.history.write(), self.enis.write(), self.pauses.write(), self.proven.write()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Writes everything now, and waits for the disk: for the agent's end.
    ///
    /// # Errors
    /// The first [`FileError`]; the others are tried all the same.
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.writes().into_iter().map(Write::perform).fold(Ok(()), Result::and).inspect_err(|_| self.touch())
    }
}

/// A file to write.
pub struct Write {
    path: PathBuf,
    perform: Perform,
}

type Perform = Box<dyn FnOnce(&Path) -> Result<(), FileError> + Send>;

impl Write {
    /// Writes it, and waits for the disk.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn perform(self) -> Result<(), FileError> {
        (self.perform)(&self.path)
    }
}

/// A value and the file that it is kept in.
#[derive(Debug)]
pub struct Kept<T> {
    path: PathBuf,
    value: T,
    dirty: bool,
    /// Not for a file that a newer version wrote.
    writable: bool,
}

impl<T> Kept<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    fn load(path: PathBuf) -> Self {
        let (value, writable) = match files::read(&path) {
            Ok(value) => (value, true),
            Err(FileError::Missing(_)) => (T::default(), true),
            Err(error @ FileError::Newer { .. }) => {
                warn!(%error, "a state file is left as it is, and does not count");
                (T::default(), false)
            }
            Err(error) => {
                warn!(%error, "a state file does not count, and will be written anew");
                (T::default(), true)
            }
        };
        Self { path, value, dirty: false, writable }
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Replaces the value; nothing is written if it is the same.
    pub fn set(&mut self, value: T) {
        if self.value != value {
            self.value = value;
            self.touch();
        }
    }

    /// Changes the value.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value);
        self.touch();
        changed
    }

    fn touch(&mut self) {
        self.dirty = self.writable;
    }

    fn write(&mut self) -> Option<Write> {
        std::mem::take(&mut self.dirty).then(|| {
            let value = self.value.clone();
            Write { path: self.path.clone(), perform: Box::new(move |path| files::write(path, 0o600, &value)) }
        })
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
    /// after another.
    pub fn add(&mut self, mut record: Record) {
        let within = if matches!(record.kind, Kind::Started { .. }) { 1 } else { RECENT };
        let recent = self.records.len().saturating_sub(within)..;
        if let Some(n) = self.records[recent.clone()].iter().rposition(|r| r.goes_on_in(&record)) {
            let before = self.records.remove(recent.start + n);
            record.since = before.since.or(Some(before.time));
            record.times = before.times.saturating_add(record.times);
        }
        self.records.push(record);
        self.records.drain(..self.records.len().saturating_sub(HISTORY));
    }

    /// The thefts of each address of a group since that was last not MASTER, or a contest over.
    pub fn thefts(&self) -> BTreeMap<(&GroupName, Ipv4Addr), Thefts> {
        let mut all = BTreeMap::new();
        for record in &self.records {
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
}

impl Pauses {
    /// Pauses a group; the later call counts. Pauses that are over are forgotten.
    pub fn pause(&mut self, group: GroupName, until: Timestamp, now: Timestamp) {
        self.groups.retain(|_, until| *until > now);
        self.groups.insert(group, until);
    }

    /// Ends a pause. Says whether there was one.
    pub fn resume(&mut self, group: &GroupName) -> bool {
        self.groups.remove(group).is_some()
    }

    /// The pauses that are not over, each with its end.
    pub fn lasting(&self, now: Timestamp) -> impl Iterator<Item = (&GroupName, Timestamp)> {
        self.groups.iter().map(|(group, until)| (group, *until)).filter(move |(_, until)| *until > now)
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
        assert!(!state.is_dirty(), "nothing was there, and nothing is to be written");
        for record in every_kind() {
            state.history.change(|h| h.add(record));
        }
        state.enis.change(|m| m.learn(&instance(1), &region, mac, known.clone()));
        state.pauses.change(|p| p.pause(group("a"), at(1800), at(0)));
        state.pauses.change(|p| p.pause(group("b"), at(10), at(0)));
        state.proven.change(|p| p.prove(eni(1), at(2)));
        assert!(state.is_dirty());
        state.flush().expect("written");
        assert!(!state.is_dirty());
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
        let left: Vec<_> = state.pauses.get().lasting(at(60)).collect();
        assert_eq!(left, [(&a, at(1800))], "the other one is over");
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

    #[test]
    fn thefts_count_until_the_group_is_not_master_or_the_contest_is_over() {
        let ip = |n| Ipv4Addr::new(10, 99, 0, n);
        let mut history = History::default();
        let mut add = |second, name: &str, address: Option<u8>, kind| {
            history.add(Record::new(at(second), kind).of_group(group(name)).of_addresses(address.map(ip)));
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
        let (a, b) = (group("a"), group("b"));
        let expected = [
            ((&a, ip(1)), Thefts { times: vec![(at(4), peer)], contested: vec![] }),
            ((&b, ip(2)), Thefts { times: vec![(at(1), peer), (at(5), peer)], contested: vec![peer] }),
            ((&b, ip(4)), Thefts { times: vec![(at(11), stranger)], contested: vec![stranger] }),
        ];
        assert_eq!(history.thefts(), expected.into());
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
            for name in ["history.json", "eni-map.json", "pauses.json", "proven.json"] {
                fs::write(folder.path().join(name), text).expect("written");
            }
            let mut state = State::load(folder.path());
            assert_eq!(state.history.get(), &History::default(), "{text:?}");
            state.history.change(|h| h.add(Record::new(at(0), Kind::ContestOver { taker: Taker::Peer })));
            state.pauses.change(|p| p.pause(group("a"), at(10), at(0)));
            state.flush().expect("written");
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
        state.pauses.change(|p| p.pause(group("b"), at(10), at(0)));
        assert!(!state.is_dirty());
        state.flush().expect("nothing to write");
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_and_no_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(&folder.path().join("missing"));
        state.proven.change(|p| p.prove(eni(1), at(0)));
        let error = state.flush().expect_err("no folder").to_string();
        assert!(error.contains("proven.json"), "{error}");
        assert_eq!(state.proven.get().at(&eni(1)), Some(at(0)));
    }

    #[test]
    fn the_same_value_again_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = State::load(folder.path());
        state.proven.set(Proven::default());
        assert!(!state.is_dirty());
    }
}
