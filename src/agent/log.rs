//! What the state machine reports, as log lines and as history.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Instant;

use jiff::Timestamp;
use vipa_core::claim::{BootInstant, ClaimRequest, LogEvent, Misplaced};
use vipa_core::model::ec2::{Acknowledgement, CallError, ErrorClass, Owner, Taker};
use vipa_core::model::failover::Transition;
use vipa_core::model::history::{Outcome, Record, RecordKind};
use vipa_core::model::ids::{EniId, GroupName, InstanceId, RequestId};
use vipa_core::model::proof::Proofs;
use vipa_core::model::resource::{Kind, Resource};
use vipa_core::model::vrrp::VrrpState;
use vipa_core::report::{reasons, remedies};

use super::Agent;
use super::state::Urgency;
use crate::log_messages::log;
use crate::systemd::log_throttle::{LogThrottle, REPEAT_INTERVAL, ThrottledLine, named};

/// How many state or readiness changes of a group, and claims of the same addresses, are logged at once within ten minutes:
/// two failovers, each with its return.
const MAX_LINES_AT_ONCE: u32 = 5;

/// Limits the log lines about what happens repeatedly.
#[derive(Debug)]
pub struct AgentLog {
    /// Failures of claims, by ENI, and of reads; with the error code.
    failures: LogThrottle<(Kind, Option<EniId>, String)>,
    /// When failures of claims have ended within the last ten minutes.
    recoveries: BTreeMap<(Kind, EniId), Vec<Instant>>,
    /// Acknowledged claims of addresses.
    claims: LogThrottle<EniId, Vec<Ipv4Addr>>,
    /// The last of them, for the lines that are held back.
    acknowledged: BTreeMap<EniId, AcknowledgedClaim>,
    changes: LogThrottle<LoggedChange, String>,
    /// The kinds whose last logged read has failed.
    unread: BTreeSet<Kind>,
}

/// What a line about claims has beside their addresses: that of the last claim, and the unlisted addresses of all.
#[derive(Debug, Default)]
struct AcknowledgedClaim {
    duration_ms: u64,
    request_id: Option<RequestId>,
    unlisted: BTreeSet<Ipv4Addr>,
}

/// What can happen to many subjects at once, or to one repeatedly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LoggedChange {
    /// The VRRP state of groups changed.
    Transition { is_unknown: bool, from: String, to: String, cause: &'static str },
    /// The readiness of standbys changed.
    Readiness { obstacle: Option<String> },
    /// Claims were abandoned.
    NotLocal,
    /// Routes or Elastic IPs were claimed for an ENI.
    Claimed { eni: EniId },
    /// Routes or Elastic IPs cannot be claimed.
    NotTakeable { why: String },
    /// The group is MASTER, and the address is missing from its interface.
    Missing,
    /// The group is not MASTER, and the address is on its interface.
    Unexpected,
    /// Interface and VRRP state agree again.
    InPlace,
    /// The ENIs of interfaces cannot be determined.
    Unresolved { code: String, message: String },
    /// keepalived opened the FIFO, or has not had it open for a while, and why.
    Hook { gone: Option<String> },
    /// The FIFO was full.
    FifoFull,
    /// Another owner took addresses, routes or Elastic IPs.
    OwnershipLost(NewOwner),
    /// They are contested: another owner took them too often.
    Contested(NewOwner),
    /// They are no longer contested.
    ContestedEnded { taker: Taker },
}

/// The owner that took them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NewOwner {
    eni: EniId,
    instance: Option<InstanceId>,
    taker: Taker,
}

impl NewOwner {
    fn new(by: &Owner, taker: Taker) -> Self {
        Self { eni: by.eni.clone(), instance: by.instance.clone(), taker }
    }

    /// The fields of a line: the ENI, the instance, and whether it is the group's peer.
    fn fields(&self) -> (&str, Option<&str>, &'static str) {
        (self.eni.as_str(), self.instance.as_ref().map(|i| i.as_str()), taker_name(self.taker))
    }
}

impl Default for AgentLog {
    fn default() -> Self {
        Self {
            failures: LogThrottle::default(),
            recoveries: BTreeMap::new(),
            claims: LogThrottle::allowing(MAX_LINES_AT_ONCE),
            acknowledged: BTreeMap::new(),
            changes: LogThrottle::allowing(MAX_LINES_AT_ONCE),
            unread: BTreeSet::new(),
        }
    }
}

impl AgentLog {
    /// Logs a change of that group, address or interface, now or later.
    pub(super) fn change(&mut self, change: LoggedChange, subject: impl ToString) {
        if let Some(line) = self.changes.happened(Instant::now(), change.clone(), subject.to_string()) {
            write(&change, &line);
        }
    }

    /// A claim has succeeded, so the next failure is a new one, a few times within ten minutes: claims that fail every other
    /// time count as one lasting failure.
    fn claims_succeed(&mut self, kind: Kind, eni: &EniId) {
        let is_its = |(of, other, _): &(Kind, Option<EniId>, String)| (*of, other.as_ref()) == (kind, Some(eni));
        if !self.failures.has(is_its) {
            return;
        }
        let now = Instant::now();
        let recoveries = self.recoveries.entry((kind, eni.clone())).or_default();
        recoveries.retain(|at| now < *at + REPEAT_INTERVAL);
        if recoveries.len() < MAX_LINES_AT_ONCE as usize {
            recoveries.push(now);
            self.failures.forget(is_its);
        }
    }

    /// Logs that EC2 has accepted a claim of addresses, now or later.
    fn acknowledged(&mut self, eni: &EniId, addresses: &[Ipv4Addr], duration_ms: u64, answer: &Acknowledgement) {
        let last = self.acknowledged.entry(eni.clone()).or_default();
        (last.duration_ms, last.request_id) = (duration_ms, answer.request_id.clone());
        last.unlisted.extend(&answer.unlisted);
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        if let Some(line) = self.claims.happened(Instant::now(), eni.clone(), addresses) {
            self.write_acknowledged(eni, line);
        }
    }

    fn write_acknowledged(&mut self, eni: &EniId, line: ThrottledLine<Vec<Ipv4Addr>>) {
        let last = self.acknowledged.entry(eni.clone()).or_default();
        let addresses: BTreeSet<Ipv4Addr> = line.subjects.into_iter().flatten().collect();
        let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
        let unlisted: Vec<Ipv4Addr> = std::mem::take(&mut last.unlisted).into_iter().collect();
        // The machine reads the owners of these addresses at once.
        let unlisted = (!unlisted.is_empty()).then(|| tracing::field::debug(unlisted));
        let request_id = last.request_id.as_ref().map(RequestId::as_str);
        let times = Some(line.times).filter(|times| *times > 1);
        let duration_ms = last.duration_ms;
        log!(CLAIM_ACKNOWLEDGED, %eni, ?addresses, duration_ms, request_id, unlisted, times);
    }

    /// Waits until a line that was held back is due. Safe to cancel: the deadline is stored.
    pub async fn due(&self) {
        match self.changes.next().into_iter().chain(self.claims.next()).min() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => pending().await,
        }
    }

    /// Writes the lines that are due.
    pub fn write_due(&mut self) {
        let now = Instant::now();
        self.changes.due(now).iter().for_each(|(change, line)| write(change, line));
        self.claims.due(now).into_iter().for_each(|(eni, line)| self.write_acknowledged(&eni, line));
    }

    /// Writes all lines that were held back, at the end of the log.
    pub fn write_rest(&mut self) {
        let now = Instant::now();
        self.changes.rest(now).iter().for_each(|(change, line)| write(change, line));
        self.claims.rest(now).into_iter().for_each(|(eni, line)| self.write_acknowledged(&eni, line));
    }
}

fn write(change: &LoggedChange, line: &ThrottledLine<String>) {
    let who = named(&line.subjects);
    // `times` adds nothing where each subject is named and had one event.
    let times = Some(line.times).filter(|times| *times as usize > line.subjects.len());
    match change {
        LoggedChange::Transition { is_unknown: true, from, to, cause } => {
            log!(TRANSITION_TO_UNKNOWN, group = %who, %from, %to, cause, times);
        }
        LoggedChange::Transition { is_unknown: false, from, to, cause } => {
            log!(TRANSITION, group = %who, %from, %to, cause, times);
        }
        LoggedChange::Readiness { obstacle: Some(obstacle) } => {
            log!(STANDBY_NOT_READY, group = %who, obstacle, times);
        }
        LoggedChange::Readiness { obstacle: None } => log!(STANDBY_READY, group = %who, times),
        LoggedChange::NotLocal => log!(CLAIM_ABANDONED, resource = %who, times),
        LoggedChange::Claimed { eni } => log!(CLAIMS_ACKNOWLEDGED, %eni, resources = %who, times),
        LoggedChange::NotTakeable { why } => log!(NOT_TAKEABLE, resource = %who, why, times),
        LoggedChange::Missing => log!(ADDRESS_MISSING, address = %who, times),
        LoggedChange::Unexpected => log!(ADDRESS_UNEXPECTED, address = %who, times),
        LoggedChange::InPlace => log!(ADDRESS_IN_PLACE, address = %who, times),
        LoggedChange::Unresolved { code, message } => {
            log!(ENI_NOT_KNOWN, interface = %who, code, message, times);
        }
        LoggedChange::Hook { gone: Some(reason) } => log!(HOOK_NOT_ATTACHED, %reason, times),
        LoggedChange::Hook { gone: None } => log!(HOOK_ATTACHED, times),
        LoggedChange::FifoFull => log!(FIFO_FULL, times),
        LoggedChange::OwnershipLost(new_owner) => {
            let (eni, instance, taker) = new_owner.fields();
            log!(OWNERSHIP_LOST, resource = %who, eni, instance, taker, times);
        }
        LoggedChange::Contested(new_owner) => {
            let (eni, instance, taker) = new_owner.fields();
            match new_owner.taker {
                Taker::Peer => log!(CONTESTED_WITH_PEER, resource = %who, eni, instance, taker, times),
                Taker::ThirdParty => log!(CONTESTED_WITH_THIRD_PARTY, resource = %who, eni, instance, taker, times),
            }
        }
        LoggedChange::ContestedEnded { taker } => {
            log!(CONTESTED_ENDED, resource = %who, taker = taker_name(*taker), times)
        }
    }
}

impl Agent<'_> {
    /// Logs an event of the state machine, and adds it to the history.
    pub(super) fn note(&mut self, now: BootInstant, note: LogEvent) {
        let time = Timestamp::now();
        let record = match note {
            LogEvent::Transition { group, from, to, cause } => {
                self.counters.transition(&group);
                let is_unknown = to == VrrpState::Unknown;
                let (before, after) = (from.to_string(), to.to_string());
                let cause = reasons::cause(cause);
                self.record_transition(now, &group, Transition { from, to, cause });
                let change = LoggedChange::Transition { is_unknown, from: before, to: after, cause };
                self.log.change(change, &group);
                Record::new(time, RecordKind::Transition { from, to, cause: cause.to_owned() }).of_group(group)
            }
            LogEvent::Claim { request, previous, duration, result } => {
                let duration_ms = duration.as_millis().try_into().unwrap_or(u64::MAX);
                self.log_claim(&request, duration_ms, &result);
                self.record_claim(now, duration, &request.resources(), &result);
                self.counters.claim(request.kind(), duration, result.as_ref().err().map(CallError::class));
                let eni = request.eni().clone();
                if result.is_ok()
                    && request.kind() == Kind::Address
                    && let Some(caller) = self.effects.caller()
                {
                    let disproved =
                        |proofs: &mut Proofs| proofs.disprove_denial(&eni, &caller).then_some(Urgency::Soon);
                    self.state.proofs.change_if(disproved);
                    self.state.permissions.change(|permissions| permissions.prove(eni.clone(), time, caller));
                }
                let outcome = match result {
                    Ok(Acknowledgement { request_id, .. }) => Outcome::Acknowledged { request_id },
                    Err(error) => Outcome::Failed { error },
                };
                Record::new(time, RecordKind::Claim { eni, previous, duration_ms, outcome }).about(request.resources())
            }
            // The history has the results of the read.
            LogEvent::Read { kind, error } => return self.log_read(kind, error.as_ref()),
            LogEvent::OwnershipLost { group, resource, by, taker } => {
                self.counters.ownership_lost(&group, taker);
                self.log
                    .change(LoggedChange::OwnershipLost(NewOwner::new(&by, taker)), named_resource(&resource, &group));
                Record::new(time, RecordKind::OwnershipLost { by, taker }).of_group(group).about([resource])
            }
            LogEvent::Contested { group, resource, by, taker } => {
                self.log.change(LoggedChange::Contested(NewOwner::new(&by, taker)), named_resource(&resource, &group));
                Record::new(time, RecordKind::Contested { by, taker }).of_group(group).about([resource])
            }
            LogEvent::ContestedEnded { group, resource, taker } => {
                self.log.change(LoggedChange::ContestedEnded { taker }, named_resource(&resource, &group));
                Record::new(time, RecordKind::ContestedEnded { taker }).of_group(group).about([resource])
            }
            LogEvent::NotLocal { group, resource } => {
                self.log.change(LoggedChange::NotLocal, named_resource(&resource, &group));
                Record::new(time, RecordKind::NotLocal).of_group(group).about([resource])
            }
            LogEvent::NotTakeable { group, resource, why } => {
                let why = reasons::not_takeable(&why);
                self.log.change(LoggedChange::NotTakeable { why: why.clone() }, named_resource(&resource, &group));
                Record::new(time, RecordKind::NotTakeable { why }).of_group(group).about([resource])
            }
            // Not in the history: the status shows it as long as it lasts.
            LogEvent::Placement { group, address, interface, wrong } => {
                let change = match wrong {
                    Some(Misplaced::Missing) => LoggedChange::Missing,
                    Some(Misplaced::Unexpected) => LoggedChange::Unexpected,
                    None => LoggedChange::InPlace,
                };
                return self.log.change(change, format!("{address} on {interface} ({group})"));
            }
            LogEvent::Readiness { group, obstacle } => {
                let clock = self.clock;
                let obstacle = obstacle.map(|obstacle| reasons::obstacle(&obstacle, |at| clock.timestamp(at)));
                self.log.change(LoggedChange::Readiness { obstacle: obstacle.clone() }, &group);
                Record::new(time, RecordKind::Readiness { obstacle }).of_group(group)
            }
            // Not in the history, which has events and no states.
            LogEvent::EniElsewhere { eni, instance } => {
                let attached_to = instance.as_ref().map(|i| i.as_str());
                log!(ENI_NOT_ATTACHED, %eni, attached_to);
                return;
            }
            LogEvent::ForeignHolder { resources, by } => {
                let (eni, instance) = owner_fields(&by);
                let resources: Vec<String> = resources.iter().map(ToString::to_string).collect();
                log!(HELD_BY_THIRD_PARTY, resources = %named(&resources), eni, instance);
                return;
            }
            LogEvent::Unresolved { interface, error } => {
                let (code, message) = (error.code().to_owned(), error.message.clone());
                self.log.change(LoggedChange::Unresolved { code, message }, &interface);
                Record::new(time, RecordKind::Unresolved { interface, error })
            }
        };
        self.state.record(record);
    }

    fn log_claim(&mut self, request: &ClaimRequest, duration_ms: u64, result: &Result<Acknowledgement, CallError>) {
        let (kind, eni) = (request.kind(), request.eni());
        let (addresses, route, elastic_ip) = match request {
            ClaimRequest::Addresses { addresses, .. } => (Some(tracing::field::debug(addresses)), None, None),
            ClaimRequest::Route { route, .. } => (None, Some(tracing::field::display(route)), None),
            ClaimRequest::ElasticIp { allocation, .. } => (None, None, Some(tracing::field::display(allocation))),
        };
        match (result, request) {
            (Ok(answer), ClaimRequest::Addresses { addresses, .. }) => {
                self.log.claims_succeed(kind, eni);
                self.log.acknowledged(eni, addresses, duration_ms, answer);
            }
            // Two hundred may come at once.
            (Ok(_), ClaimRequest::Route { .. } | ClaimRequest::ElasticIp { .. }) => {
                self.log.claims_succeed(kind, eni);
                let change = LoggedChange::Claimed { eni: eni.clone() };
                request.resources().iter().for_each(|resource| self.log.change(change.clone(), resource));
            }
            (Err(error), _) => {
                let Some(times) = self.log.failures.say((kind, Some(eni.clone()), error.code().to_owned())) else {
                    return;
                };
                let (code, message) = (error.code(), &error.message);
                let request_id = error.request_id.as_ref().map(RequestId::as_str);
                if is_transient(error) {
                    log!(
                        CLAIM_FAILED,
                        %eni,
                        addresses,
                        route,
                        elastic_ip,
                        duration_ms,
                        code,
                        message,
                        request_id,
                        times
                    );
                } else {
                    let remedy = remedies::remedy_of_kind(kind, &error.failure);
                    log!(
                        CLAIM_REFUSED,
                        %eni,
                        addresses,
                        route,
                        elastic_ip,
                        duration_ms,
                        code,
                        message,
                        remedy,
                        request_id,
                        times
                    );
                }
            }
        }
    }

    fn log_read(&mut self, kind: Kind, error: Option<&CallError>) {
        let of = match kind {
            Kind::Address => "addresses",
            Kind::Route => "routes",
            Kind::ElasticIp => "Elastic IPs",
        };
        // Reads that fail every other time count as one lasting failure.
        let Some(error) = error else {
            if self.log.unread.remove(&kind) {
                log!(OWNERS_READ_AGAIN, of);
            }
            return;
        };
        let Some(times) = self.log.failures.say((kind, None, error.code().to_owned())) else {
            return;
        };
        self.log.unread.insert(kind);
        let (code, message) = (error.code(), &error.message);
        let request_id = error.request_id.as_ref().map(RequestId::as_str);
        if is_transient(error) {
            log!(OWNERS_NOT_READ, of, code, message, request_id, times);
        } else {
            let remedy = remedies::remedy_of_kind(kind, &error.failure);
            log!(OWNERS_REFUSED, of, code, message, remedy, request_id, times);
        }
    }
}

/// Whether the next attempt can succeed without a change by an operator.
fn is_transient(error: &CallError) -> bool {
    match error.class() {
        ErrorClass::TimedOut | ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Refused => true,
        ErrorClass::Clock | ErrorClass::Denied | ErrorClass::NoSuchInterface | ErrorClass::BadResource => false,
    }
}

fn taker_name(taker: Taker) -> &'static str {
    match taker {
        Taker::Peer => "peer",
        Taker::ThirdParty => "third-party",
    }
}

/// A resource as log lines name it.
fn named_resource(resource: &Resource, group: &GroupName) -> String {
    format!("{resource} ({group})")
}

fn owner_fields(owner: &Owner) -> (&str, Option<&str>) {
    (owner.eni.as_str(), owner.instance.as_ref().map(|i| i.as_str()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;
    use vipa_core::model::ec2::Failure;
    use vipa_core::model::ids::ErrorCode;

    use super::*;
    use crate::agent::effects::Effects;
    use crate::agent::state::PersistentState;
    use crate::paths::Paths;

    /// The log as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An agent, and what it logs as long as the guard lives.
    fn logged_agent(paths: &Paths) -> (Agent<'_>, Log, DefaultGuard) {
        let log = Log::default();
        let to = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || to.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let state = PersistentState::load(std::path::Path::new("/nonexistent"));
        let effects = Effects::new(tokio::sync::mpsc::unbounded_channel().0, &state, paths.credentials.clone());
        (Agent::new(paths, state, effects), log, guard)
    }

    fn code(code: &str) -> ErrorCode {
        ErrorCode::try_from(code).expect("a code")
    }

    #[tokio::test]
    async fn a_failure_that_an_operator_must_end_has_its_remedy() {
        let paths = Paths::system();
        let (mut agent, log, _guard) = logged_agent(&paths);
        let eni = EniId::try_from("eni-0000000a").expect("an id");
        for (failure, expected) in [
            (Failure::Settings, Some("check `aws-vipa endpoint-url` and `aws-vipa region`")),
            (Failure::api(code("InvalidParameterValue"), ErrorClass::BadResource), Some("be in the ENI's subnet")),
            // Its message has it.
            (Failure::api(code("UnauthorizedOperation"), ErrorClass::Denied), None),
        ] {
            let error = CallError::new(failure, "why");
            let claim = LogEvent::Claim {
                request: ClaimRequest::Addresses { eni: eni.clone(), addresses: vec![Ipv4Addr::new(10, 0, 0, 1)] },
                previous: None,
                duration: std::time::Duration::ZERO,
                result: Err(error.clone()),
            };
            for (event, message) in [
                (claim, "claim refused"),
                (LogEvent::Read { kind: Kind::Address, error: Some(error) }, "ownership check denied"),
            ] {
                log.0.lock().expect("no panic").clear();
                agent.note(BootInstant::default(), event);
                let line = log.text();
                assert!(line.contains(message), "{line}");
                assert_eq!(line.split_once("remedy=").is_some(), expected.is_some(), "{line}");
                assert!(expected.is_none_or(|words| line.contains(words)), "{line}");
            }
        }
    }

    /// keepalived flaps, or EC2 fails every other time.
    #[tokio::test]
    async fn claims_that_succeed_or_fail_again_and_again_fill_no_log() {
        let paths = Paths::system();
        let claim = |result| LogEvent::Claim {
            request: ClaimRequest::Addresses {
                eni: EniId::try_from("eni-0000000a").expect("an id"),
                addresses: vec![Ipv4Addr::new(10, 0, 0, 1)],
            },
            previous: None,
            duration: std::time::Duration::ZERO,
            result,
        };
        let acknowledged = || claim(Ok(Acknowledgement::default()));
        let failed = || claim(Err(CallError::new(Failure::Connection, "reset")));
        let count = |log: &Log, words: &str| log.text().lines().filter(|line| line.contains(words)).count();

        let (mut agent, log, _guard) = logged_agent(&paths);
        for _ in 0..100 {
            agent.note(BootInstant::default(), failed());
            agent.note(BootInstant::default(), acknowledged());
        }
        agent.log.write_rest();
        // The first failure, and one after each recovery that counts.
        assert_eq!(count(&log, "claim failed"), MAX_LINES_AT_ONCE as usize + 1, "{}", log.text());
        // The first, and those of the second after it, or of some on a busy machine.
        let text = log.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("claim acknowledged")).collect();
        assert!((2..=MAX_LINES_AT_ONCE as usize + 1).contains(&lines.len()), "{text}");
        let times = |line: &&str| line.rsplit_once("times=").map_or(1, |(_, times)| times.parse().expect("a number"));
        assert_eq!(lines.iter().map(times).sum::<u32>(), 100, "none is lost: {text}");
        assert!(lines.iter().all(|line| line.contains("addresses=[10.0.0.1] duration_ms=0")), "{text}");
        drop((agent, _guard));

        let (mut agent, log, _guard) = logged_agent(&paths);
        for event in [failed(), failed(), acknowledged(), failed()] {
            agent.note(BootInstant::default(), event);
        }
        assert_eq!(count(&log, "claim failed"), 2, "the second failure is a new one:\n{}", log.text());
    }

    /// Both routers are MASTER, and each read shows that the other one has claimed all addresses.
    #[tokio::test]
    async fn two_hundred_addresses_that_are_taken_again_and_again_fill_no_log() {
        let paths = Paths::system();
        let (mut agent, log, _guard) = logged_agent(&paths);
        let by = Owner {
            eni: EniId::try_from("eni-0000000b").expect("an id"),
            instance: InstanceId::try_from("i-0000000b").ok(),
            primary: false,
        };
        for round in 0..10 {
            for n in 1..=200 {
                let resource = || Resource::Address(Ipv4Addr::new(10, 0, 0, n));
                let taker = Taker::Peer;
                let group = || GroupName::try_from(format!("g{n}")).expect("a name");
                agent.note(
                    BootInstant::default(),
                    LogEvent::OwnershipLost { group: group(), resource: resource(), by: by.clone(), taker },
                );
                if round == 3 {
                    agent.note(
                        BootInstant::default(),
                        LogEvent::Contested { group: group(), resource: resource(), by: by.clone(), taker },
                    );
                }
            }
        }
        agent.log.write_rest();
        let log = log.text();
        let lines: Vec<&str> = log.lines().collect();
        let first = "ownership lost resource=10.0.0.1 (g1) eni=\"eni-0000000b\" instance=\"i-0000000b\"";
        assert!(lines[0].contains(first) && lines[0].contains("taker=\"peer\""), "{log}");
        assert!(log.contains("contested: both routers are MASTER") && log.contains(" more "), "{log}");
        // The first lines at once, then one a second; a busy machine takes some seconds.
        assert!(lines.len() < 40, "{log}");
    }
}
