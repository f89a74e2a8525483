//! The history of events for operators, and the part of it that must survive a restart of the agent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ec2::{CallError, Owner, Taker};
use super::ids::{EniId, GroupName, InterfaceName, RequestId};
use super::resource::{Kind, Resource, Resources};
use super::vrrp::VrrpState;

/// How many records of the history are kept. A claim that keeps failing with one error is one record.
pub const MAX_RECORDS: usize = 200;

/// How many ownership losses of a resource are kept: twice as many as make it CONTESTED.
const LOSSES_PER_RESOURCE: usize = 8;

/// How many records of the begin or end of CONTESTED are kept for a resource, with the other router and with third
/// parties together.
const CONTESTED_PER_RESOURCE: usize = 4;

/// How many of the last records are searched for the one that a new record repeats or joins.
const MERGE_WINDOW: usize = 20;

/// Each route and Elastic IP is claimed with a call of its own. Those to which the same happens within this time share a record,
/// so that a failover of two hundred does not displace the rest: EC2 allows 50 such calls at once and then five a second.
const JOIN_TIME: SignedDuration = SignedDuration::from_secs(60);

/// The events, oldest first, at most [`MAX_RECORDS`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct History {
    records: Vec<Record>,
    #[serde(skip)]
    skipped: usize,
}

impl From<Stored> for History {
    fn from(stored: Stored) -> Self {
        let (mut records, skipped) = stored.readable();
        records.drain(..records.len().saturating_sub(MAX_RECORDS));
        Self { records, skipped }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened; the last time, if it happened several times or to several resources.
    pub time: Timestamp,
    /// When it happened for the first time, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How often it has happened to the first of the resources, with or without other records in between.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u32,
    /// The group, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// The addresses, routes and Elastic IPs, if it is about any.
    #[serde(flatten)]
    pub resources: Resources,
    /// What has happened.
    #[serde(flatten)]
    pub kind: RecordKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RecordKind {
    /// The agent has started.
    Started {
        /// The agent's version, as `--version` prints it.
        version: String,
    },
    /// The state of a group has changed.
    Transition {
        /// The state before.
        from: VrrpState,
        /// The state now.
        to: VrrpState,
        /// Why, in an operator's words.
        cause: String,
    },
    /// An operator forced a claim of the group's resources.
    Forced,
    /// EC2 was asked to assign the resources to this router.
    Claim {
        /// The ENI that it was for.
        eni: EniId,
        /// The previous owner of the first resource, if known.
        previous: Option<Owner>,
        /// Milliseconds until the answer or the time-out; of several calls, the longest.
        duration_ms: u64,
        /// The outcome; of several calls, the last one.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A resource that was confirmed as this router's has another owner.
    OwnershipLost {
        /// Who has it.
        by: Owner,
        /// Whether that is the group's peer or a third party.
        taker: Taker,
    },
    /// A resource was lost too often.
    Contested {
        /// Who takes it.
        by: Owner,
        /// Whether that is the group's peer or a third party.
        taker: Taker,
    },
    /// The resource is no longer CONTESTED.
    ContestedEnded {
        /// Whether the resource was contested with the group's peer or a third party.
        taker: Taker,
    },
    /// A claim was due, and the group's address was not on a local interface.
    NotLocal,
    /// A route or an Elastic IP cannot be claimed.
    NotTakeable {
        /// Why, in an operator's words.
        why: String,
    },
    /// A standby has become able or unable to take over.
    Readiness {
        /// Why it could not; absent if it could.
        obstacle: Option<String>,
    },
    /// The ENI of an interface could not be determined.
    Unresolved {
        /// The interface whose addresses cannot be claimed meanwhile.
        interface: InterfaceName,
        /// The failed call to IMDS or EC2.
        error: CallError,
    },
}

/// The ownership losses of one resource that still count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnershipLosses {
    /// When each was, and who took it.
    pub times: Vec<(Timestamp, Taker)>,
    /// The takers that have made it CONTESTED.
    pub contested: Vec<Taker>,
}

/// The outcome of a claim.
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
        /// EC2's refusal, or why it did not answer.
        error: CallError,
    },
}

fn once() -> u32 {
    1
}

fn is_once(times: &u32) -> bool {
    *times == 1
}

/// Records in a file, of this version or another one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    records: Vec<Value>,
}

impl Stored {
    /// The records that this version understands, and the number of those that it does not understand.
    fn readable(self) -> (Vec<Record>, usize) {
        let count = self.records.len();
        let records: Vec<Record> = self.records.into_iter().filter_map(|r| serde_json::from_value(r).ok()).collect();
        let skipped = count - records.len();
        (records, skipped)
    }
}

impl Record {
    /// An event that has happened once.
    pub fn new(time: Timestamp, kind: RecordKind) -> Self {
        Self { time, since: None, times: 1, group: None, resources: Resources::default(), kind }
    }

    /// The group that it is about.
    #[must_use]
    pub fn of_group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// What it is about.
    #[must_use]
    pub fn about<R: Into<Resource>>(mut self, resources: impl IntoIterator<Item = R>) -> Self {
        self.resources = Resources(resources.into_iter().map(Into::into).collect());
        self
    }

    /// Whether `later` is the same failure again: the same claim, or the same unresolved interface, and the same error
    /// code.
    fn goes_on_in(&self, later: &Record) -> bool {
        let is_part = match &later.resources.0[..] {
            [resource] if self.joined_kind().is_some() => self.resources.0.contains(resource),
            resources => self.resources.0 == resources,
        };
        is_part && self.group == later.group && self.has_same_failure(later)
    }

    fn has_same_failure(&self, later: &Record) -> bool {
        match (&self.kind, &later.kind) {
            (
                RecordKind::Claim { eni, outcome: Outcome::Failed { error }, .. },
                RecordKind::Claim { eni: other_eni, outcome: Outcome::Failed { error: other }, .. },
            ) => eni == other_eni && error.code() == other.code(),
            (
                RecordKind::Unresolved { interface, error },
                RecordKind::Unresolved { interface: other_interface, error: other },
            ) => interface == other_interface && error.code() == other.code(),
            (RecordKind::NotLocal, RecordKind::NotLocal) => true,
            (RecordKind::NotTakeable { why }, RecordKind::NotTakeable { why: other }) => why == other,
            (RecordKind::Started { version }, RecordKind::Started { version: other }) => version == other,
            _ => false,
        }
    }

    /// The kind of the resources, if records about several of them are joined.
    fn joined_kind(&self) -> Option<Kind> {
        self.resources.0.first().map(Resource::kind).filter(|kind| *kind != Kind::Address)
    }

    /// Whether in `later` the same happened to another route or Elastic IP, about as early.
    fn is_joined_by(&self, later: &Record) -> bool {
        let happened_alike = match (&self.kind, &later.kind) {
            (
                RecordKind::Claim { eni, previous, outcome: Outcome::Acknowledged { .. }, .. },
                RecordKind::Claim { eni: other_eni, previous: other, outcome: Outcome::Acknowledged { .. }, .. },
            ) => (eni, previous) == (other_eni, other),
            (
                RecordKind::OwnershipLost { .. } | RecordKind::Contested { .. } | RecordKind::ContestedEnded { .. },
                RecordKind::OwnershipLost { .. } | RecordKind::Contested { .. } | RecordKind::ContestedEnded { .. },
            ) => self.kind == later.kind,
            _ => self.has_same_failure(later),
        };
        happened_alike
            && self.joined_kind().is_some()
            && self.joined_kind() == later.joined_kind()
            && self.group == later.group
            && later.time.duration_since(self.since.unwrap_or(self.time)) <= JOIN_TIME
            && !later.resources.0.iter().any(|resource| self.resources.0.contains(resource))
    }

    /// The record of both, in which `later` is the same failure again.
    fn repeated_by(self, mut later: Record) -> Self {
        let is_first = self.resources.0.first() == later.resources.0.first();
        later.since = self.since.or(Some(self.time));
        later.times = self.times.saturating_add(if is_first { later.times } else { 0 });
        Self { resources: self.resources, ..later }
    }

    /// The record of both, in which the same happened to the resources of `later`.
    fn joined_by(self, mut later: Record) -> Self {
        if let (RecordKind::Claim { duration_ms, .. }, RecordKind::Claim { duration_ms: before, .. }) =
            (&mut later.kind, &self.kind)
        {
            *duration_ms = (*duration_ms).max(*before);
        }
        let mut resources = self.resources;
        resources.0.append(&mut later.resources.0);
        Self { since: self.since.or(Some(self.time)), times: self.times, resources, ..later }
    }
}

impl History {
    /// Adds an event. A failure that repeats a recent one is merged into its record, and so is a start right after
    /// another. What happens to several routes or Elastic IPs about as early is one record. Returns whether it was a
    /// repetition.
    pub fn add(&mut self, record: Record) -> bool {
        let within = if matches!(record.kind, RecordKind::Started { .. }) { 1 } else { MERGE_WINDOW };
        let recent = self.records.len().saturating_sub(within)..;
        let last =
            |is: &dyn Fn(&Record) -> bool| self.records[recent.clone()].iter().rposition(is).map(|n| recent.start + n);
        let repeated = last(&|before| before.goes_on_in(&record));
        let joined = last(&|before| before.is_joined_by(&record)).filter(|_| repeated.is_none());
        let record = match (repeated, joined) {
            (Some(n), _) => self.records.remove(n).repeated_by(record),
            (None, Some(n)) => self.records.remove(n).joined_by(record),
            (None, None) => record,
        };
        self.records.push(record);
        self.records.drain(..self.records.len().saturating_sub(MAX_RECORDS));
        repeated.is_some()
    }

    /// The number of records in the file that this version did not understand.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The records from the `count`-th last transition, claim or ownership loss on, oldest first. Other kinds are not
    /// counted, so they do not displace these.
    pub fn last(&self, count: usize) -> &[Record] {
        let chief = |r: &Record| {
            matches!(
                r.kind,
                RecordKind::Transition { .. }
                    | RecordKind::Claim { .. }
                    | RecordKind::OwnershipLost { .. }
                    | RecordKind::Forced
            )
        };
        let mut chiefs = (0..self.records.len()).rev().filter(|n| chief(&self.records[*n]));
        match count.checked_sub(1) {
            Some(before) => &self.records[chiefs.nth(before).unwrap_or(0)..],
            None => &[],
        }
    }
}

/// See [`LossHistory::ownership_losses`].
fn ownership_losses(records: &[Record]) -> BTreeMap<(&GroupName, &Resource), OwnershipLosses> {
    let mut all = BTreeMap::new();
    for record in records {
        let Some(group) = &record.group else {
            continue;
        };
        for resource in &record.resources.0 {
            let losses: &mut OwnershipLosses = all.entry((group, resource)).or_default();
            match record.kind {
                RecordKind::OwnershipLost { taker, .. } => losses.times.push((record.time, taker)),
                RecordKind::Contested { taker, .. } => losses.contested.push(taker),
                RecordKind::ContestedEnded { taker } => {
                    losses.times.retain(|(_, by)| *by != taker);
                    losses.contested.retain(|with| *with != taker);
                }
                _ => {}
            }
        }
        if matches!(
            record.kind,
            RecordKind::Transition { to: VrrpState::Backup | VrrpState::Fault | VrrpState::Stop, .. }
        ) {
            all.retain(|(of, _), _| *of != group);
        }
    }
    all.retain(|_, losses| !losses.times.is_empty());
    all
}

/// The records of resources that were lost since their group was last not MASTER, or CONTESTED ended, which a restart
/// of the agent must always keep. The history cannot hold them: it is shared by all groups, and one failover of many
/// groups fills it. Only the number of records of each resource is limited, in memory and in the file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct LossHistory {
    records: Vec<Record>,
    #[serde(skip)]
    skipped: usize,
}

impl From<Stored> for LossHistory {
    fn from(stored: Stored) -> Self {
        let (records, skipped) = stored.readable();
        Self { records, skipped }
    }
}

impl LossHistory {
    /// Whether the record changes anything.
    pub fn is_about(&self, record: &Record) -> bool {
        match record.kind {
            RecordKind::OwnershipLost { .. } | RecordKind::Contested { .. } => true,
            RecordKind::ContestedEnded { .. }
            | RecordKind::Transition { to: VrrpState::Backup | VrrpState::Fault | VrrpState::Stop, .. } => {
                self.records.iter().any(|kept| kept.group == record.group)
            }
            _ => false,
        }
    }

    /// Adds the record, if it changes anything.
    pub fn note(&mut self, record: &Record) {
        if !self.is_about(record) {
            return;
        }
        // Only this group's records are touched: the event loop waits for this, and two hundred groups may change at
        // once.
        let (mut records, others): (Vec<Record>, Vec<Record>) =
            std::mem::take(&mut self.records).into_iter().partition(|kept| kept.group == record.group);
        self.records = others;
        records.push(record.clone());
        let losses = ownership_losses(&records).into_keys();
        let counting: BTreeSet<Resource> = losses.map(|(_, resource)| resource.clone()).collect();
        let mut kept: BTreeMap<Resource, [usize; 2]> = BTreeMap::new();
        // The newest of each resource, as many as can have an effect.
        records.reverse();
        records.retain(|record| {
            record.resources.0.iter().any(|resource| {
                let [losses, contested] = kept.entry(resource.clone()).or_default();
                let (count, most) = match record.kind {
                    RecordKind::OwnershipLost { .. } => (losses, LOSSES_PER_RESOURCE),
                    _ => (contested, CONTESTED_PER_RESOURCE),
                };
                *count += 1;
                *count <= most && counting.contains(resource)
            })
        });
        self.records.extend(records.into_iter().rev());
    }

    /// The number of records in the file that this version did not understand.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Removes the groups that are no longer configured.
    pub fn retain(&mut self, is_configured: impl Fn(&GroupName) -> bool) {
        self.records.retain(|record| record.group.as_ref().is_some_and(&is_configured));
    }

    /// Whether there is a group that is no longer configured.
    pub fn has_other_than(&self, is_configured: impl Fn(&GroupName) -> bool) -> bool {
        self.records.iter().any(|record| !record.group.as_ref().is_some_and(&is_configured))
    }

    /// The ownership losses of each resource of a group since the group was last not MASTER, or CONTESTED ended.
    pub fn ownership_losses(&self) -> BTreeMap<(&GroupName, &Resource), OwnershipLosses> {
        ownership_losses(&self.records)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::ec2::{ErrorClass, Failure};
    use super::super::ids::InstanceId;
    use super::super::resource::Route;
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

    fn every_kind() -> Vec<Record> {
        let request_id = RequestId::try_from("b1c5").ok();
        let transition = RecordKind::Transition {
            from: VrrpState::Backup,
            to: VrrpState::Master,
            cause: "keepalived: MASTER".to_owned(),
        };
        let eth0 = InterfaceName::try_from("eth0").expect("a name");
        vec![
            Record::new(at(0), RecordKind::Started { version: "0.1.0".to_owned() }),
            Record::new(at(1), transition).of_group(group("a")),
            claim(2, Outcome::Acknowledged { request_id }),
            failed(3, "Timeout"),
            Record::new(at(4), RecordKind::OwnershipLost { by: owner(2), taker: Taker::Peer }),
            Record::new(at(5), RecordKind::Contested { by: owner(2), taker: Taker::Peer }),
            Record::new(at(6), RecordKind::ContestedEnded { taker: Taker::Peer }),
            Record::new(at(7), RecordKind::NotLocal),
            Record::new(at(8), RecordKind::Readiness { obstacle: Some("no credentials".to_owned()) }),
            Record::new(at(9), RecordKind::Unresolved { interface: eth0, error: error("Timeout") }),
            Record::new(at(10), RecordKind::Forced).of_group(group("a")),
        ]
    }

    #[test]
    fn every_kind_of_record_survives_a_restart() {
        let mut history = History::default();
        let mut losses = LossHistory::default();
        for record in every_kind() {
            losses.note(&record.clone().of_group(group("a")).about([Ipv4Addr::new(10, 99, 0, 100)]));
            history.add(record);
        }
        let text = serde_json::to_string(&history).expect("JSON");
        let restored: History = serde_json::from_str(&text).expect("read");
        assert_eq!((restored.last(MAX_RECORDS), restored.skipped()), (&every_kind()[..], 0));
        assert_eq!(
            restored.last(3),
            &every_kind()[3..],
            "what is no transition, claim or ownership loss does not count"
        );
        let text = serde_json::to_string(&losses).expect("JSON");
        assert_eq!(serde_json::from_str::<LossHistory>(&text).expect("read"), losses);
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
        assert_eq!(json(6), r#"{"time":"2027-01-15T08:00:06Z","kind":"contested-ended","taker":"peer"}"#);
    }

    #[test]
    fn a_failure_that_goes_on_does_not_push_out_the_rest() {
        let mut history = History::default();
        history.add(every_kind().remove(1));
        for second in 0..5_000 {
            history.add(failed(second, if second % 2 == 0 { "Timeout" } else { "Unavailable" }));
        }
        let [transition, timeouts, unavailable] = history.last(MAX_RECORDS) else { panic!("{history:?}") };
        assert!(matches!(transition.kind, RecordKind::Transition { .. }));
        assert_eq!((timeouts.times, timeouts.since, timeouts.time), (2_500, Some(at(0)), at(4_998)));
        assert_eq!((unavailable.times, unavailable.since, unavailable.time), (2_500, Some(at(1)), at(4_999)));
        let mut other = failed(5_000, "Timeout");
        other.resources = Resources(vec![Ipv4Addr::new(10, 99, 0, 101).into()]);
        history.add(other);
        assert_eq!(history.last(MAX_RECORDS).len(), 4, "another address is another claim");
    }

    fn route(n: u8) -> Resource {
        let table = "rtb-00000001".try_into().expect("a route table");
        Resource::Route(Route { table, destination: format!("10.{n}.0.0/16").parse().expect("a prefix") })
    }

    fn elastic_ip(n: u8) -> Resource {
        Resource::ElasticIp(format!("eipalloc-000000{n:02x}").try_into().expect("an id"))
    }

    fn claim_of(resource: Resource, millis: i64, outcome: Outcome) -> Record {
        let kind =
            RecordKind::Claim { eni: eni(1), previous: Some(owner(2)), duration_ms: 300 + millis as u64 % 7, outcome };
        Record::new(at(10) + SignedDuration::from_millis(millis), kind).about([resource])
    }

    fn acknowledged(request: i64) -> Outcome {
        Outcome::Acknowledged { request_id: RequestId::try_from(format!("r{request}")).ok() }
    }

    /// Eight claims at a time, of both kinds, and every tenth route is throttled at first and claimed later.
    #[test]
    fn a_failover_of_200_routes_and_50_elastic_ips_does_not_push_out_the_rest() {
        let mut history = History::default();
        let before = every_kind();
        before.iter().cloned().for_each(|record| _ = history.add(record));
        let throttled = || Outcome::Failed { error: error("RequestLimitExceeded") };
        for n in 0..200 {
            let outcome = if n % 10 == 0 { throttled() } else { acknowledged(n) };
            history.add(claim_of(route(n as u8), 40 * n, outcome));
            if n % 4 == 0 {
                history.add(claim_of(elastic_ip((n / 4) as u8), 40 * n + 1, acknowledged(n)));
            }
        }
        for n in (0..200).step_by(10) {
            history.add(claim_of(route(n as u8), 8_000 + n, acknowledged(n)));
        }
        let all = history.last(MAX_RECORDS);
        assert_eq!(all[..before.len()], before[..], "what was there before");
        let [refused, elastic_ips, routes] = &all[before.len()..] else { panic!("{all:#?}") };
        assert_eq!(refused.resources.0, (0..200).step_by(10).map(route).collect::<Vec<_>>());
        assert_eq!(elastic_ips.resources.0, (0..50).map(elastic_ip).collect::<Vec<_>>());
        assert_eq!(routes.resources.0.len(), 200);
        assert_eq!((routes.since, routes.times), (Some(at(10) + SignedDuration::from_millis(40)), 1));
        assert_eq!(routes.time, at(10) + SignedDuration::from_millis(8_190));
        let RecordKind::Claim { duration_ms, outcome, .. } = &routes.kind else { panic!("{routes:?}") };
        assert_eq!((duration_ms, outcome), (&306, &acknowledged(190)), "the longest, and the last one's request");
        let text = serde_json::to_string(&history).expect("JSON");
        assert_eq!(serde_json::from_str::<History>(&text).expect("read").last(MAX_RECORDS), all);
    }

    #[test]
    fn routes_that_are_refused_again_and_again_are_one_record() {
        let mut history = History::default();
        let denied = || Outcome::Failed { error: error("UnauthorizedOperation") };
        for round in 0..100 {
            for n in 0..200 {
                history.add(claim_of(route(n), 60_000 * round + i64::from(n), denied()));
            }
        }
        let [record] = history.last(MAX_RECORDS) else { panic!("{history:?}") };
        assert_eq!((record.resources.0.len(), record.times, record.since), (200, 100, Some(at(10))));
        history.add(claim_of(route(0), 6_000_000, Outcome::Failed { error: error("Timeout") }));
        assert_eq!(history.last(MAX_RECORDS).len(), 2, "another error is another record");
    }

    #[test]
    fn what_is_not_the_same_or_later_is_a_record_of_its_own() {
        let base = || claim_of(route(1), 0, acknowledged(1));
        let later = |resource: Resource, seconds: i64| claim_of(resource, 1_000 * seconds, acknowledged(2));
        let mut to_another = later(route(2), 1);
        to_another.kind =
            RecordKind::Claim { eni: eni(9), previous: Some(owner(2)), duration_ms: 300, outcome: acknowledged(2) };
        let lost = |by: u8| {
            let kind = RecordKind::OwnershipLost { by: owner(by), taker: Taker::Peer };
            Record::new(at(10), kind).of_group(group("a"))
        };
        for (one, other, records) in [
            (base(), later(route(2), 60), 1),
            (base(), later(route(2), 61), 2),
            (base(), later(route(1), 1), 2),
            (base(), later(elastic_ip(1), 1), 2),
            (base(), to_another, 2),
            (base(), claim_of(route(2), 1, Outcome::Failed { error: error("Timeout") }), 2),
            (lost(2).about([route(1)]), lost(2).about([route(2)]), 1),
            (lost(2).about([route(1)]), lost(3).about([route(2)]), 2),
            (lost(2).about([route(1)]), lost(2).of_group(group("b")).about([route(2)]), 2),
            (lost(2).about([Ipv4Addr::new(10, 0, 0, 1)]), lost(2).about([Ipv4Addr::new(10, 0, 0, 2)]), 2),
        ] {
            let mut history = History::default();
            history.add(one);
            history.add(other);
            assert_eq!(history.last(MAX_RECORDS).len(), records, "{history:#?}");
        }
    }

    #[test]
    fn an_agent_that_starts_again_and_again_does_not_push_out_the_rest() {
        let started = |second| Record::new(at(second), RecordKind::Started { version: "0.1.0".to_owned() });
        let mut history = History::default();
        history.add(started(0));
        history.add(every_kind().remove(1));
        for second in 1..1_000 {
            history.add(started(second));
        }
        let [first, _, last] = history.last(MAX_RECORDS) else { panic!("{history:?}") };
        assert_eq!((first.times, first.time), (1, at(0)), "a transition is between them");
        assert_eq!((last.times, last.since, last.time), (999, Some(at(1)), at(999)));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        for second in 0..1_000 {
            history.add(Record::new(at(second), RecordKind::OwnershipLost { by: owner(2), taker: Taker::Peer }));
        }
        assert_eq!(history.last(usize::MAX).len(), MAX_RECORDS);
        assert_eq!(history.last(1)[0].time, at(999));
    }
}
