//! What survives a restart of the agent: its history, ownership losses, failovers, the ENIs of MAC addresses, pauses, and proven
//! permissions.
//!
//! The files are in /var/lib/vyos-aws-vipa (the unit's StateDirectory, 0700). Root never reads them; the status gets
//! their content over the socket. The agent works without any of them: a file that is missing, damaged or of a newer
//! format counts as empty, and one of a newer format is never overwritten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::assignment::plan;
use vipa_core::model::config::Config;
use vipa_core::model::eni_cache::EniCache;
use vipa_core::model::failover::Failovers;
use vipa_core::model::history::{History, LossHistory, Record};
use vipa_core::model::ids::{EniId, GroupName};
use vipa_core::model::pause::Pauses;
use vipa_core::model::permissions::Permissions;
use vipa_core::model::proof::Proofs;

use crate::fs::json_file::{self, FileError};
use crate::log_messages::log;

/// All state files.
#[derive(Debug)]
pub struct PersistentState {
    /// Past events.
    pub history: StateFile<History>,
    /// Addresses that other owners took.
    pub loss_history: StateFile<LossHistory>,
    /// The last failovers of each group.
    pub failovers: StateFile<Failovers>,
    /// The ENIs of MAC addresses, for the time while IMDS does not answer.
    pub enis: StateFile<EniCache>,
    /// Groups that an operator has paused.
    pub pauses: StateFile<Pauses>,
    /// When EC2 last accepted a claim for each ENI.
    pub permissions: StateFile<Permissions>,
    /// What `force prove` has shown of each ENI.
    pub proofs: StateFile<Proofs>,
}

impl PersistentState {
    /// Loads the files in this directory, logs those that cannot be loaded, and removes what an interrupted write has
    /// left.
    pub fn load(directory: &Path) -> Self {
        json_file::remove_leftovers(directory);
        let history: StateFile<History> = StateFile::load(directory.join("history.json"));
        let loss_history: StateFile<LossHistory> = StateFile::load(directory.join("ownership-losses.json"));
        let skipped = [(&history.path, history.get().skipped()), (&loss_history.path, loss_history.get().skipped())];
        for (path, skipped) in skipped.into_iter().filter(|(_, skipped)| *skipped > 0) {
            log!(HISTORY_RECORDS_SKIPPED, path = %path.display(), skipped);
        }
        Self {
            history,
            loss_history,
            failovers: StateFile::load(directory.join("failovers.json")),
            enis: StateFile::load(directory.join("eni-cache.json")),
            pauses: StateFile::load(directory.join("pauses.json")),
            permissions: StateFile::load(directory.join("permissions.json")),
            proofs: StateFile::load(directory.join("proofs.json")),
        }
    }

    /// Adds an event to the history.
    pub(crate) fn record(&mut self, record: Record) {
        if self.loss_history.get().is_about(&record) {
            self.loss_history.change(|loss_history| loss_history.note(&record));
        }
        // The count of a lasting failure can wait: an outage must not keep the disk busy.
        let goes_on = self.history.value.add(record);
        self.history.touch(if goes_on { Urgency::Later } else { Urgency::Soon });
    }

    /// Removes the state of groups, interfaces and ENIs that are no longer configured.
    pub(crate) fn forget_unconfigured(&mut self, config: &Config, groups: &Groups) {
        let is_configured = |group: &GroupName| config.groups.iter().any(|g| g.name == *group);
        if self.loss_history.get().has_other_than(is_configured) {
            self.loss_history.change(|loss_history| loss_history.retain(is_configured));
        }
        self.failovers.change_if(|failovers| {
            let has_other = failovers.has_other_than(is_configured);
            failovers.retain(is_configured);
            has_other.then_some(Urgency::Soon)
        });
        let plan = plan(config, groups);
        // The interfaces of a group that is skipped, or that keepalived does not run, are not known.
        if !config.skipped.is_empty() || plan.groups.iter().any(|group| group.vrid.is_none()) {
            return;
        }
        let interfaces = plan.interfaces();
        let mut enis = self.enis.get().clone();
        enis.retain(|interface| interfaces.contains(interface));
        self.enis.set(enis);
        let resources = plan.groups.iter().flat_map(|group| &group.resources);
        let used: Option<BTreeSet<EniId>> = resources
            .map(|resource| resource.eni.as_ref().or_else(|| self.enis.get().eni_of(&resource.interface)).cloned())
            .collect();
        // Of an interface whose ENI is not known the permission may be among these.
        if let Some(used) = used {
            let mut permissions = self.permissions.get().clone();
            permissions.retain(|eni| used.contains(eni));
            self.permissions.set(permissions);
            let mut proofs = self.proofs.get().clone();
            proofs.retain(|eni| used.contains(eni));
            self.proofs.set(proofs);
        }
    }

    /// How soon something must be written; `None` if everything is on disk or being written.
    pub(crate) fn urgency(&self) -> Option<Urgency> {
        let Self { history, loss_history, failovers, enis, pauses, permissions, proofs } = self;
        let dirty = [
            history.dirty,
            loss_history.dirty,
            failovers.dirty,
            enis.dirty,
            pauses.dirty,
            permissions.dirty,
            proofs.dirty,
        ];
        dirty.into_iter().max().flatten()
    }

    /// What must be written now, for a thread that may wait for the disk. Let the writes end before the next ones
    /// begin, and pass their results to [`PersistentState::written`].
    pub(crate) fn writes(&mut self) -> Vec<PendingWrite> {
        let Self { history, loss_history, failovers, enis, pauses, permissions, proofs } = self;
        let writes = [
            history.write(),
            loss_history.write(),
            failovers.write(),
            enis.write(),
            pauses.write(),
            permissions.write(),
            proofs.write(),
        ];
        writes.into_iter().flatten().collect()
    }

    /// Records the results of the writes. A write that failed, or is not among the results, will be repeated.
    pub(crate) fn written(&mut self, results: &[WriteResult]) {
        let Self { history, loss_history, failovers, enis, pauses, permissions, proofs } = self;
        history.written(results);
        loss_history.written(results);
        failovers.written(results);
        enis.written(results);
        pauses.written(results);
        permissions.written(results);
        proofs.written(results);
    }
}

/// How soon a change must be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// With the next urgent change, or in a minute.
    Later,
    /// With the other changes of this moment.
    Soon,
    /// Now: a client waits for it.
    AtOnce,
}

pub(crate) struct PendingWrite {
    path: PathBuf,
    perform: Perform,
}

type Perform = Box<dyn FnOnce(&Path) -> Result<(), FileError> + Send>;

impl PendingWrite {
    /// Writes the file, and waits for the disk.
    pub(crate) fn perform(self) -> WriteResult {
        let Self { path, perform } = self;
        WriteResult { result: perform(&path), path }
    }
}

/// The result of a write.
#[derive(Debug)]
pub(crate) struct WriteResult {
    /// The file that was written.
    pub path: PathBuf,
    /// Why the write failed, if it did.
    pub result: Result<(), FileError>,
}

/// A value and the file that keeps it.
#[derive(Debug)]
pub struct StateFile<T> {
    path: PathBuf,
    value: T,
    dirty: Option<Urgency>,
    under_way: bool,
    /// Why it is not on disk, if the last write failed or none is possible.
    fault: Option<String>,
    /// False for a file that a newer version wrote.
    writable: bool,
}

/// Whether a value is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Saved {
    /// It is on disk.
    Yes,
    /// It is to be written, or being written.
    NotYet,
    /// The write failed, and why.
    No(String),
}

impl<T> StateFile<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    fn load(path: PathBuf) -> Self {
        let kept =
            |value, writable| Self { path: path.clone(), value, dirty: None, under_way: false, fault: None, writable };
        match json_file::read(&path) {
            Ok(value) => kept(value, true),
            Err(FileError::Missing(_)) => kept(T::default(), true),
            Err(error @ FileError::Newer { .. }) => {
                log!(STATE_FILE_NEWER, %error);
                kept(T::default(), false)
            }
            Err(error) => {
                log!(STATE_FILE_CORRUPT, %error);
                kept(T::default(), true)
            }
        }
    }

    /// The value in memory, which may be newer than the file.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Replaces the value. Nothing is written if it is the same.
    pub(crate) fn set(&mut self, value: T) {
        if self.value != value {
            self.value = value;
            self.touch(Urgency::Soon);
        }
    }

    /// Changes the value.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value);
        self.touch(Urgency::Soon);
        changed
    }

    /// Changes the value. `change` says how soon that must be on disk, if it has changed anything.
    pub(crate) fn change_if(&mut self, change: impl FnOnce(&mut T) -> Option<Urgency>) {
        if let Some(urgency) = change(&mut self.value) {
            self.touch(urgency);
        }
    }

    /// Requests that the last change is written at once.
    pub(crate) fn hurry(&mut self) {
        // A write under way may still succeed.
        self.fault = None;
        self.touch(Urgency::AtOnce);
    }

    /// Whether the value is on disk.
    pub(crate) fn saved(&self) -> Saved {
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

    fn write(&mut self) -> Option<PendingWrite> {
        self.dirty.take()?;
        self.under_way = true;
        let value = self.value.clone();
        Some(PendingWrite {
            path: self.path.clone(),
            perform: Box::new(move |path| json_file::write(path, 0o600, &value)),
        })
    }

    fn written(&mut self, results: &[WriteResult]) {
        if !std::mem::take(&mut self.under_way) {
            return;
        }
        self.fault = match results.iter().find(|written| written.path == self.path) {
            Some(WriteResult { result: Ok(()), .. }) => None,
            Some(WriteResult { result: Err(error), .. }) => Some(error.to_string()),
            None => Some(format!("the write of {} ended early", self.path.display())),
        };
        if self.fault.is_some() {
            self.touch(Urgency::Later);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use jiff::Timestamp;
    use vipa_core::keepalived::groups::{AdvertiseInterval, RunningGroup, VirtualAddress};
    use vipa_core::model::config::{GroupConfig, SkippedGroup};
    use vipa_core::model::credentials::Identity;
    use vipa_core::model::ec2::{CallError, Eni, ErrorClass, Failure, Owner, Taker};
    use vipa_core::model::history::{MAX_RECORDS, Outcome, RecordKind};
    use vipa_core::model::ids::{InstanceId, InterfaceName, MacAddress, Region};
    use vipa_core::model::pause::{Minutes, Now};
    use vipa_core::model::proof::Caller;
    use vipa_core::model::vrrp::VrrpState;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn group(name: &str) -> GroupName {
        GroupName::try_from(name).expect("a name")
    }

    fn eni(n: u8) -> EniId {
        EniId::try_from(format!("eni-000000{n:02x}")).expect("an id")
    }

    fn caller() -> Caller {
        let identity = Identity { source: "instance role router".to_owned(), access_key_id: None };
        Caller::new(instance(1), Region::try_from("eu-west-1").expect("a region"), None, identity)
    }

    fn instance(n: u8) -> InstanceId {
        InstanceId::try_from(format!("i-000000{n:02x}")).expect("an id")
    }

    fn owner(n: u8) -> Owner {
        Owner { eni: eni(n), instance: Some(instance(n)), primary: false }
    }

    fn error(code: &str) -> CallError {
        let message = "no answer".to_owned();
        CallError::new(Failure::of(code.try_into().expect("a code"), ErrorClass::TimedOut), message)
    }

    fn claim(second: i64, outcome: Outcome) -> Record {
        let kind = RecordKind::Claim { eni: eni(1), previous: Some(owner(2)), duration_ms: 31, outcome };
        Record::new(at(second), kind).of_group(group("a")).about([Ipv4Addr::new(10, 99, 0, 100)])
    }

    fn failed(second: i64, code: &str) -> Record {
        claim(second, Outcome::Failed { error: error(code) })
    }

    /// Writes what is dirty.
    fn flush(state: &mut PersistentState) -> Vec<WriteResult> {
        let results: Vec<WriteResult> = state.writes().into_iter().map(PendingWrite::perform).collect();
        state.written(&results);
        results
    }

    fn flushed(state: &mut PersistentState) {
        let results = flush(state);
        assert!(results.iter().all(|written| written.result.is_ok()), "{results:?}");
    }

    /// The time, in seconds after the first moment of these tests by the time of day, and after the router's boot.
    fn day(second: i64, boot: &str, since_boot: u64) -> Now {
        Now { wall: at(second), boot: boot.to_owned(), since_boot: Duration::from_secs(since_boot) }
    }

    fn minutes(n: u16) -> Minutes {
        Minutes::try_from(n).expect("in range")
    }

    fn interface(name: &str) -> InterfaceName {
        InterfaceName::try_from(name).expect("a name")
    }

    /// vipa-core tests that each kind of record survives; a few are enough here.
    fn some_records() -> Vec<Record> {
        vec![
            Record::new(at(0), RecordKind::Started { version: "0.1.0".to_owned() }),
            failed(1, "Timeout"),
            Record::new(at(2), RecordKind::NotLocal),
            Record::new(at(3), RecordKind::OwnershipLost { by: owner(2), taker: Taker::Peer }),
            Record::new(at(4), RecordKind::Contested { by: owner(2), taker: Taker::Peer }),
        ]
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let mac = MacAddress::new([2, 0, 0, 0, 0, 1]);
        let region = Region::try_from("eu-central-1").expect("a region");
        let id = |text: &str| text.to_owned().try_into();
        let known = Eni {
            id: eni(1),
            subnet: id("subnet-00000001").expect("an id"),
            vpc: "vpc-00000001".try_into().expect("an id"),
            primary: Ipv4Addr::new(10, 99, 0, 10),
            block: Some("10.99.0.0/24".parse().expect("a block")),
        };
        let mut state = PersistentState::load(directory.path());
        assert_eq!(state.urgency(), None, "nothing was there, and nothing is to be written");
        let records = some_records();
        for record in records.clone() {
            state.record(record);
        }
        state.enis.change(|m| m.learn(&instance(1), &region, &interface("eth0"), mac, known.clone()));
        state.pauses.change(|p| p.pause(group("a"), minutes(30), &day(0, "x", 100)));
        state.pauses.change(|p| p.pause(group("b"), minutes(1), &day(0, "x", 100)));
        state.permissions.change(|p| p.prove(eni(1), at(2), caller()));
        assert_eq!(state.urgency(), Some(Urgency::Soon));
        flushed(&mut state);
        assert_eq!(state.urgency(), None);
        for file in fs::read_dir(directory.path()).expect("listed") {
            let mode = file.expect("listed").metadata().expect("known").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }

        let mut state = PersistentState::load(directory.path());
        assert_eq!(state.history.get().last(MAX_RECORDS), records);
        assert_eq!(
            state.history.get().last(2),
            &records[1..],
            "what is no transition, claim or ownership loss does not count"
        );
        assert_eq!(state.history.get().last(0), []);
        let map = state.enis.get();
        assert_eq!(map.eni(&instance(1), mac), Some(&known));
        assert_eq!(map.region(&instance(1)), Some(&region));
        assert_eq!(map.eni(&instance(2), mac), None, "an image of the disk on another instance");
        assert_eq!(map.region(&instance(2)), None);
        assert_eq!(state.permissions.get().at(&eni(1), None), Some(at(2)));
        assert_eq!(state.permissions.get().at(&eni(2), None), None);
        let a = group("a");
        let now = day(60, "x", 160);
        let left: Vec<_> = state.pauses.get().lasting(&now).collect();
        assert_eq!(left, [(&a, Duration::from_secs(1_740))], "the other one is over");
        assert!(state.pauses.change(|p| p.resume(&group("a"))));
        assert!(!state.pauses.change(|p| p.resume(&group("a"))));

        state
            .enis
            .change(|m| m.learn(&instance(2), &region, &interface("eth0"), MacAddress::new([2, 0, 0, 0, 0, 2]), known));
        assert_eq!(state.enis.get().eni(&instance(2), mac), None, "what another instance had is forgotten");
    }

    /// A group, an address, the seconds of its losses with the takers, and the takers that it is contested with.
    type Losses = (String, Ipv4Addr, Vec<(i64, Taker)>, Vec<Taker>);

    fn loss_history(state: &PersistentState) -> Vec<Losses> {
        let second = |time: Timestamp| time.as_second() - at(0).as_second();
        let all = state.loss_history.get().ownership_losses().into_iter();
        all.map(|((group, address), ownership_losses)| {
            let times = ownership_losses.times.iter().map(|(time, by)| (second(*time), *by)).collect();
            (group.to_string(), address.address().expect("an address"), times, ownership_losses.contested)
        })
        .collect()
    }

    #[test]
    fn ownership_losses_count_until_the_group_is_not_master_or_contested_has_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let ip = |n| Ipv4Addr::new(10, 99, 0, n);
        let mut state = PersistentState::load(directory.path());
        let mut add = |second, name: &str, address: Option<u8>, kind| {
            state.record(Record::new(at(second), kind).of_group(group(name)).about(address.map(ip)));
        };
        let (peer, third_party) = (Taker::Peer, Taker::ThirdParty);
        let ownership_lost = || RecordKind::OwnershipLost { by: owner(2), taker: peer };
        let becomes = |to| RecordKind::Transition { from: VrrpState::Master, to, cause: String::new() };
        add(0, "a", Some(1), ownership_lost());
        add(1, "b", Some(2), ownership_lost());
        add(2, "a", None, becomes(VrrpState::Backup));
        add(3, "b", None, becomes(VrrpState::Unknown));
        add(4, "a", Some(1), ownership_lost());
        add(5, "b", Some(2), ownership_lost());
        add(6, "b", Some(2), RecordKind::Contested { by: owner(2), taker: peer });
        add(7, "b", Some(3), ownership_lost());
        add(8, "b", Some(3), RecordKind::Contested { by: owner(2), taker: peer });
        add(9, "b", Some(3), RecordKind::ContestedEnded { taker: peer });
        add(10, "b", Some(4), ownership_lost());
        add(11, "b", Some(4), RecordKind::OwnershipLost { by: owner(3), taker: third_party });
        add(12, "b", Some(4), RecordKind::Contested { by: owner(3), taker: third_party });
        add(13, "b", Some(4), RecordKind::ContestedEnded { taker: peer });
        let expected = [
            ("a".to_owned(), ip(1), vec![(4, peer)], vec![]),
            ("b".to_owned(), ip(2), vec![(1, peer), (5, peer)], vec![peer]),
            ("b".to_owned(), ip(4), vec![(11, third_party)], vec![third_party]),
        ];
        assert_eq!(loss_history(&state), expected);
        flushed(&mut state);
        let mut state = PersistentState::load(directory.path());
        assert_eq!(loss_history(&state), expected);
        state.loss_history.change(|loss_history| loss_history.retain(|name| *name == group("b")));
        assert_eq!(loss_history(&state), expected[1..]);
    }

    fn running(name: &str, on: &str) -> RunningGroup {
        RunningGroup {
            name: group(name),
            interface: interface(on),
            vrid: 10,
            priority: 100,
            advertise_interval: AdvertiseInterval::default(),
            peers: Vec::new(),
            addresses: vec![VirtualAddress { address: Ipv4Addr::new(10, 99, 0, 100), interface: None }],
        }
    }

    fn wanted(name: &str, network_interface_id: Option<EniId>) -> GroupConfig {
        GroupConfig { network_interface_id, ..GroupConfig::new(group(name)) }
    }

    #[test]
    fn what_is_no_longer_configured_is_forgotten() {
        let region = Region::try_from("eu-central-1").expect("a region");
        let mut state = PersistentState::load(Path::new("/nonexistent"));
        let mac = |n| MacAddress::new([2, 0, 0, 0, 0, n]);
        let learn = |state: &mut PersistentState| {
            for n in 0..3 {
                let known = Eni {
                    id: eni(n),
                    subnet: "subnet-00000001".to_owned().try_into().expect("an id"),
                    vpc: "vpc-00000001".try_into().expect("an id"),
                    primary: Ipv4Addr::new(10, 99, 0, 10),
                    block: None,
                };
                let on = interface(&format!("eth{n}"));
                state.enis.change(|cache| cache.learn(&instance(1), &region, &on, mac(n), known));
            }
        };
        learn(&mut state);
        for n in 0..5 {
            state.permissions.change(|permissions| permissions.prove(eni(n), at(0), caller()));
        }
        let left = |state: &PersistentState| {
            let cached: Vec<u8> = (0..3).filter(|n| state.enis.get().eni(&instance(1), mac(*n)).is_some()).collect();
            let proven: Vec<u8> = (0..5).filter(|n| state.permissions.get().at(&eni(*n), None).is_some()).collect();
            (cached, proven)
        };
        let groups = Groups { groups: vec![running("a", "eth0"), running("b", "eth7")] };
        let config = |groups: Vec<GroupConfig>| Config { groups, ..Config::default() };

        let all = (vec![0, 1, 2], vec![0, 1, 2, 3, 4]);
        let mut faulty = config(vec![wanted("a", None)]);
        faulty.skipped.push(SkippedGroup { name: "b".to_owned(), errors: Vec::new() });
        state.forget_unconfigured(&faulty, &groups);
        assert_eq!(left(&state), all, "the interfaces of b are unknown");
        state.forget_unconfigured(&config(vec![wanted("a", None), wanted("c", None)]), &groups);
        assert_eq!(left(&state), all, "the interfaces of c are unknown");

        state.forget_unconfigured(&config(vec![wanted("b", None)]), &groups);
        assert_eq!(left(&state), (vec![], all.1), "the ENI of eth7 is unknown, and may be any of these");

        learn(&mut state);
        let mut second = running("b", "eth1");
        second.addresses[0].address = Ipv4Addr::new(10, 99, 0, 101);
        let groups = Groups { groups: vec![running("a", "eth0"), second] };
        let configured = config(vec![wanted("a", None), wanted("b", Some(eni(4)))]);
        state.forget_unconfigured(&configured, &groups);
        assert_eq!(left(&state), (vec![0, 1], vec![0, 4]), "the configured ENI of b is not that of eth1");
        state.forget_unconfigured(&Config::default(), &groups);
        assert_eq!(left(&state), (vec![], vec![]));
    }

    /// A third party that takes it until it is contested.
    fn contest(state: &mut PersistentState, name: &str, ip: Ipv4Addr) {
        let (by, taker) = (owner(2), Taker::ThirdParty);
        let lost = (0..4).map(|second| (second, RecordKind::OwnershipLost { by: by.clone(), taker }));
        for (second, kind) in lost.chain([(4, RecordKind::Contested { by: by.clone(), taker })]) {
            state.record(Record::new(at(second), kind).of_group(group(name)).about([ip]));
        }
    }

    /// The history holds fewer events than a failover of many groups, and its return, cause.
    #[test]
    fn a_failover_of_many_groups_does_not_push_out_that_an_address_is_contested() {
        let mut state = PersistentState::load(Path::new("/nonexistent"));
        let ip = Ipv4Addr::new(10, 99, 0, 1);
        let third_party = Taker::ThirdParty;
        contest(&mut state, "web", ip);
        for n in 0..200 {
            for (second, to) in [(5, VrrpState::Master), (6, VrrpState::Backup)] {
                let transition =
                    RecordKind::Transition { from: VrrpState::Unknown, to, cause: "keepalived".to_owned() };
                state.record(Record::new(at(second), transition).of_group(group(&format!("g{n}"))));
            }
        }
        let is_loss = |r: &&Record| matches!(r.kind, RecordKind::OwnershipLost { .. });
        assert_eq!(
            state.history.get().last(MAX_RECORDS).iter().filter(is_loss).count(),
            0,
            "the history has lost them"
        );
        let times = vec![(0, third_party), (1, third_party), (2, third_party), (3, third_party)];
        assert_eq!(loss_history(&state), [("web".to_owned(), ip, times, vec![third_party])]);
        for second in 7..1_000 {
            let kind = RecordKind::OwnershipLost { by: owner(2), taker: third_party };
            state.record(Record::new(at(second), kind).of_group(group("web")).about([ip]));
        }
        let (_, _, times, contested) = &loss_history(&state)[0];
        assert!(times.iter().map(|(second, _)| *second).eq(992..1_000), "bounded: {times:?}");
        assert_eq!(contested, &[third_party], "and still CONTESTED");
    }

    /// Their records are many more than those of the history.
    #[test]
    fn that_two_hundred_addresses_are_contested_survives_restarts() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = PersistentState::load(directory.path());
        for n in 0..200 {
            contest(&mut state, &format!("g{n}"), Ipv4Addr::new(10, 99, 0, n));
        }
        let all = loss_history(&state);
        let is_whole = |(_, _, times, contested): &Losses| (times.len(), contested.len()) == (4, 1);
        assert!(all.len() == 200 && all.iter().all(is_whole), "{all:?}");
        flushed(&mut state);
        state = PersistentState::load(directory.path());
        assert_eq!(loss_history(&state), all);
        // What is written next is what was read, without the group that is no longer MASTER.
        let backup = RecordKind::Transition { from: VrrpState::Master, to: VrrpState::Backup, cause: String::new() };
        state.record(Record::new(at(5), backup).of_group(group("g99")));
        flushed(&mut state);
        let all: Vec<_> = all.into_iter().filter(|(group, ..)| group != "g99").collect();
        assert_eq!(loss_history(&PersistentState::load(directory.path())), all);
    }

    #[test]
    fn a_failure_that_goes_on_leaves_the_disk_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = PersistentState::load(directory.path());
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
    fn what_a_killed_write_has_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for name in [".tmpAbc123", ".tmpx", "history.json.bak", ".other"] {
            fs::write(at(name), "{").expect("written");
        }
        fs::create_dir(at(".tmpdir")).expect("made");
        PersistentState::load(directory.path());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, [".other", ".tmpdir", "history.json.bak"]);
    }

    #[test]
    fn a_damaged_file_counts_as_empty_and_is_written_anew() {
        for text in ["", "{", "[]", "\u{0}\u{1}", r#"{"format":1}"#, r#"{"format":1,"records":7}"#] {
            let directory = tempfile::tempdir().expect("a directory");
            for name in ["history.json", "ownership-losses.json", "eni-cache.json", "pauses.json", "permissions.json"] {
                fs::write(directory.path().join(name), text).expect("written");
            }
            let mut state = PersistentState::load(directory.path());
            assert_eq!(state.history.get(), &History::default(), "{text:?}");
            state.record(Record::new(at(0), RecordKind::ContestedEnded { taker: Taker::Peer }));
            state.pauses.change(|p| p.pause(group("a"), minutes(1), &day(0, "x", 0)));
            flushed(&mut state);
            let state = PersistentState::load(directory.path());
            assert_eq!(state.history.get().last(9).len(), 1, "{text:?}");
            assert_ne!(state.pauses.get(), &Pauses::default(), "{text:?}");
        }
    }

    #[test]
    fn a_record_that_is_not_understood_is_left_out_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = r#"{"format":1,"records":[{"time":"2027-01-15T08:00:00Z","kind":"of-tomorrow"},7,
            {"time":"2027-01-15T08:00:01Z","kind":"contested-ended","taker":"third-party","more":1}]}"#;
        fs::write(directory.path().join("history.json"), text).expect("written");
        assert_eq!(
            PersistentState::load(directory.path()).history.get().last(9),
            [Record::new(at(1), RecordKind::ContestedEnded { taker: Taker::ThirdParty })]
        );
    }

    #[test]
    fn a_file_of_a_newer_format_is_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pauses.json");
        let text = r#"{"format":2,"paused":["a"]}"#;
        fs::write(&path, text).expect("written");
        let mut state = PersistentState::load(directory.path());
        assert_eq!(state.pauses.saved(), Saved::Yes);
        state.pauses.change(|p| p.pause(group("b"), minutes(1), &day(0, "x", 0)));
        assert_eq!(state.urgency(), None);
        assert_eq!(flush(&mut state).len(), 0, "nothing to write");
        assert!(matches!(state.pauses.saved(), Saved::No(why) if why.contains("newer version")));
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error_and_no_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = PersistentState::load(&directory.path().join("missing"));
        state.permissions.change(|p| p.prove(eni(1), at(0), caller()));
        let results = flush(&mut state);
        let [WriteResult { result: Err(error), .. }] = &results[..] else { panic!("{results:?}") };
        assert!(error.to_string().contains("permissions.json"), "{error}");
        assert!(matches!(state.permissions.saved(), Saved::No(why) if why.contains("permissions.json")));
        assert_eq!(state.urgency(), Some(Urgency::Later), "it is tried again");
        // A thread that ended early has written nothing either.
        assert_eq!(state.writes().len(), 1);
        assert_eq!(state.permissions.saved(), Saved::No(error.to_string()));
        state.written(&[]);
        assert_eq!(state.urgency(), Some(Urgency::Later));
        assert_eq!(state.permissions.get().at(&eni(1), None), Some(at(0)));
    }

    #[test]
    fn the_same_value_again_is_not_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = PersistentState::load(directory.path());
        state.permissions.set(Permissions::default());
        assert_eq!(state.urgency(), None);
    }
}
