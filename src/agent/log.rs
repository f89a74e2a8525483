//! What the machine notes, as log lines and as history. A message is constant; the facts are fields.

use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Instant;

use jiff::Timestamp;
use vipa_core::claim::{Misplaced, Note};
use vipa_core::model::ec2::{Acknowledgement, CallError, ErrorClass, Owner, Taker};
use vipa_core::model::history::{Kind, Outcome, Record};
use vipa_core::model::ids::{EniId, GroupName, InstanceId, RequestId};
use vipa_core::model::vrrp::VrrpState;

use super::Agent;
use crate::log_messages::log;
use crate::systemd::log_throttle::{LogThrottle, ThrottledLine, named};

/// How often in ten minutes each group's change of state or readiness is written at once: a failover there and back, twice.
const MAX_LINES_AT_ONCE: u32 = 5;

/// What has been written of what may happen again and again.
#[derive(Debug)]
pub struct AgentLog {
    /// Failures of claims, by their ENI, and of reads.
    failures: LogThrottle<(Option<EniId>, String)>,
    changes: LogThrottle<Change, String>,
    /// The log ends with reads that fail.
    unread: bool,
}

/// What may happen to many at once, or to one again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Of the state of groups.
    Transition { is_unknown: bool, from: String, to: String, cause: &'static str },
    /// Of what keeps standbys from taking over.
    Readiness { obstacle: Option<String> },
    /// The claim of addresses was given up.
    NotLocal,
    /// The addresses of a MASTER are not on their interfaces.
    Missing,
    /// Those of a group that is not MASTER are.
    Left,
    /// Either is over.
    InPlace,
    /// The ENIs of interfaces cannot be found out.
    Unresolved { code: String, message: String },
    /// keepalived holds the FIFO open, or not, and why.
    Hook { gone: Option<String> },
    /// The FIFO was found full.
    PipeFull,
    /// Addresses were taken away.
    Taken(Thief),
    /// That happened too often.
    Contested(Thief),
    /// Contests are over.
    ContestOver { taker: Taker },
}

/// Who takes addresses away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thief {
    eni: EniId,
    instance: Option<InstanceId>,
    taker: Taker,
}

impl Thief {
    fn new(by: &Owner, taker: Taker) -> Self {
        Self { eni: by.eni.clone(), instance: by.instance.clone(), taker }
    }

    /// The ENI, the instance, and what that is to the group, as fields of a line.
    fn fields(&self) -> (&str, Option<&str>, &'static str) {
        (self.eni.as_str(), self.instance.as_ref().map(|i| i.as_str()), word(self.taker))
    }
}

impl Default for AgentLog {
    fn default() -> Self {
        Self { failures: LogThrottle::default(), changes: LogThrottle::allowing(MAX_LINES_AT_ONCE), unread: false }
    }
}

impl AgentLog {
    /// A change has happened to that group, address or interface.
    pub(super) fn change(&mut self, change: Change, subject: impl ToString) {
        if let Some(line) = self.changes.happened(Instant::now(), change.clone(), subject.to_string()) {
            write(&change, &line);
        }
    }

    /// Waits until something that was held back is to be written. Safe to cancel: the deadline is kept.
    pub async fn due(&self) {
        match self.changes.next() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => pending().await,
        }
    }

    /// Writes what is due.
    pub fn write_due(&mut self) {
        self.changes.due(Instant::now()).iter().for_each(|(change, line)| write(change, line));
    }

    /// Writes all that was held back, before the log ends.
    pub fn write_rest(&mut self) {
        self.changes.rest(Instant::now()).iter().for_each(|(change, line)| write(change, line));
    }
}

fn write(change: &Change, line: &ThrottledLine<String>) {
    let who = named(&line.subjects);
    // Where it has happened to each of them once, that goes without saying.
    let times = Some(line.times).filter(|times| *times as usize > line.subjects.len());
    match change {
        Change::Transition { is_unknown: true, from, to, cause } => {
            log!(TRANSITION_TO_UNKNOWN, group = %who, %from, %to, cause, times);
        }
        Change::Transition { is_unknown: false, from, to, cause } => {
            log!(TRANSITION, group = %who, %from, %to, cause, times);
        }
        Change::Readiness { obstacle: Some(obstacle) } => {
            log!(STANDBY_NOT_READY, group = %who, obstacle, times);
        }
        Change::Readiness { obstacle: None } => log!(STANDBY_READY, group = %who, times),
        Change::NotLocal => log!(ADDRESS_NOT_LOCAL, address = %who, times),
        Change::Missing => log!(ADDRESS_MISSING, address = %who, times),
        Change::Left => log!(ADDRESS_LEFT_BEHIND, address = %who, times),
        Change::InPlace => log!(ADDRESS_IN_PLACE, address = %who, times),
        Change::Unresolved { code, message } => {
            log!(ENI_NOT_KNOWN, interface = %who, code, message, times);
        }
        Change::Hook { gone: Some(reason) } => log!(HOOK_NOT_ATTACHED, %reason, times),
        Change::Hook { gone: None } => log!(HOOK_ATTACHED, times),
        Change::PipeFull => log!(PIPE_FULL, times),
        Change::Taken(thief) => {
            let (eni, instance, taker) = thief.fields();
            log!(ADDRESS_TAKEN, address = %who, eni, instance, taker, times);
        }
        Change::Contested(thief) => {
            let (eni, instance, taker) = thief.fields();
            match thief.taker {
                Taker::Peer => log!(CONTESTED_WITH_PEER, address = %who, eni, instance, taker, times),
                Taker::Stranger => log!(CONTESTED_WITH_STRANGER, address = %who, eni, instance, taker, times),
            }
        }
        Change::ContestOver { taker } => log!(CONTEST_OVER, address = %who, taker = word(*taker), times),
    }
}

impl Agent<'_> {
    /// Logs a note, and keeps it.
    pub(super) fn note(&mut self, note: Note) {
        let time = Timestamp::now();
        let record = match note {
            Note::Transition { group, from, to, cause } => {
                let is_unknown = to == VrrpState::Unknown;
                let (before, after) = (from.to_string(), to.to_string());
                let change = Change::Transition { is_unknown, from: before, to: after, cause: cause.text() };
                self.log.change(change, &group);
                Record::new(time, Kind::Transition { from, to, cause: cause.text().to_owned() }).of_group(group)
            }
            Note::Claim { eni, addresses, previous, duration, result } => {
                let duration_ms = duration.as_millis().try_into().unwrap_or(u64::MAX);
                self.log_claim(&eni, &addresses, duration_ms, &result);
                if result.is_ok() {
                    self.state.permissions.change(|permissions| permissions.prove(eni.clone(), time));
                }
                let outcome = match result {
                    Ok(Acknowledgement { request_id, .. }) => Outcome::Acknowledged { request_id },
                    Err(error) => Outcome::Failed { error },
                };
                Record::new(time, Kind::Claim { eni, previous, duration_ms, outcome }).of_addresses(addresses)
            }
            // The history has what came of it.
            Note::Read { error } => return self.log_read(error.as_ref()),
            Note::Theft { group, address, by, taker } => {
                self.log.change(Change::Taken(Thief::new(&by, taker)), of_group(address, &group));
                Record::new(time, Kind::Theft { by, taker }).of_group(group).of_addresses([address])
            }
            Note::Contested { group, address, by, taker } => {
                self.log.change(Change::Contested(Thief::new(&by, taker)), of_group(address, &group));
                Record::new(time, Kind::Contested { by, taker }).of_group(group).of_addresses([address])
            }
            Note::ContestOver { group, address, taker } => {
                self.log.change(Change::ContestOver { taker }, of_group(address, &group));
                Record::new(time, Kind::ContestOver { taker }).of_group(group).of_addresses([address])
            }
            Note::NotLocal { group, address } => {
                self.log.change(Change::NotLocal, of_group(address, &group));
                Record::new(time, Kind::NotLocal).of_group(group).of_addresses([address])
            }
            // The status shows it as long as it lasts.
            Note::Place { group, address, interface, wrong } => {
                let change = match wrong {
                    Some(Misplaced::Missing) => Change::Missing,
                    Some(Misplaced::Left) => Change::Left,
                    None => Change::InPlace,
                };
                return self.log.change(change, format!("{address} on {interface} ({group})"));
            }
            Note::Readiness { group, obstacle } => {
                self.log.change(Change::Readiness { obstacle: obstacle.clone() }, &group);
                Record::new(time, Kind::Readiness { obstacle }).of_group(group)
            }
            // The history is of what has happened.
            Note::Elsewhere { eni, instance } => {
                let attached_to = instance.as_ref().map(|i| i.as_str());
                log!(ENI_NOT_ATTACHED, %eni, attached_to);
                return;
            }
            Note::Holder { addresses, by } => {
                let (eni, instance) = ends(&by);
                log!(ADDRESS_HELD_BY_STRANGER, ?addresses, eni, instance);
                return;
            }
            Note::Unresolved { interface, error } => {
                let CallError { code, message, .. } = error.clone();
                self.log.change(Change::Unresolved { code, message }, &interface);
                Record::new(time, Kind::Unresolved { interface, error })
            }
        };
        self.state.record(record);
    }

    fn log_claim(
        &mut self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        duration_ms: u64,
        result: &Result<Acknowledgement, CallError>,
    ) {
        match result {
            Ok(Acknowledgement { request_id, unlisted }) => {
                self.log.failures.forget(|(other, _)| other.as_ref() == Some(eni));
                let request_id = request_id.as_ref().map(RequestId::as_str);
                // They are read at once.
                let unlisted = (!unlisted.is_empty()).then(|| tracing::field::debug(unlisted));
                log!(CLAIM_ACKNOWLEDGED, %eni, ?addresses, duration_ms, request_id, unlisted);
            }
            Err(error) => {
                let Some(times) = self.log.failures.say((Some(eni.clone()), error.code.clone())) else {
                    return;
                };
                let CallError { code, message, .. } = error;
                let request_id = error.request_id.as_ref().map(RequestId::as_str);
                if passes(error) {
                    log!(CLAIM_FAILED, %eni, ?addresses, duration_ms, code, message, request_id, times);
                } else {
                    log!(CLAIM_REFUSED, %eni, ?addresses, duration_ms, code, message, request_id, times);
                }
            }
        }
    }

    fn log_read(&mut self, error: Option<&CallError>) {
        // What fails every other time is one failure that lasts.
        let Some(error) = error else {
            if std::mem::take(&mut self.log.unread) {
                log!(OWNERS_READ_AGAIN);
            }
            return;
        };
        let Some(times) = self.log.failures.say((None, error.code.clone())) else {
            return;
        };
        self.log.unread = true;
        let CallError { code, message, .. } = error;
        let request_id = error.request_id.as_ref().map(RequestId::as_str);
        if passes(error) {
            log!(OWNERS_NOT_READ, code, message, request_id, times);
        } else {
            log!(OWNERS_REFUSED, code, message, request_id, times);
        }
    }
}

/// Whether nobody has to do anything for the next attempt to succeed.
fn passes(error: &CallError) -> bool {
    match error.class {
        ErrorClass::TimedOut | ErrorClass::Throttled | ErrorClass::Transient | ErrorClass::Refused => true,
        ErrorClass::Clock | ErrorClass::Denied | ErrorClass::NoSuchInterface | ErrorClass::BadAddress => false,
    }
}

fn word(taker: Taker) -> &'static str {
    match taker {
        Taker::Peer => "peer",
        Taker::Stranger => "stranger",
    }
}

/// An address as a line names it.
fn of_group(address: Ipv4Addr, group: &GroupName) -> String {
    format!("{address} ({group})")
}

fn ends(owner: &Owner) -> (&str, Option<&str>) {
    (owner.eni.as_str(), owner.instance.as_ref().map(|i| i.as_str()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::agent::effects::Effects;
    use crate::agent::state::PersistentState;
    use crate::paths::Paths;

    /// What is logged, a line each.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Both routers are MASTER, and each read shows that the other one has claimed all addresses.
    #[tokio::test]
    async fn two_hundred_addresses_that_are_taken_again_and_again_fill_no_log() {
        let log = Log::default();
        let to = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || to.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let paths = Paths::system();
        let state = PersistentState::load(std::path::Path::new("/nonexistent"));
        let effects = Effects::new(tokio::sync::mpsc::unbounded_channel().0, &state, None);
        let mut agent = Agent::new(&paths, state, effects);
        let by = Owner {
            eni: EniId::try_from("eni-0000000b").expect("an id"),
            instance: InstanceId::try_from("i-0000000b").ok(),
            primary: false,
        };
        for round in 0..10 {
            for n in 1..=200 {
                let (address, taker) = (Ipv4Addr::new(10, 0, 0, n), Taker::Peer);
                let group = || GroupName::try_from(format!("g{n}")).expect("a name");
                agent.note(Note::Theft { group: group(), address, by: by.clone(), taker });
                if round == 3 {
                    agent.note(Note::Contested { group: group(), address, by: by.clone(), taker });
                }
            }
        }
        agent.log.write_rest();
        let log = log.0.lock().expect("no panic").clone();
        let log = String::from_utf8(log).expect("text");
        let lines: Vec<&str> = log.lines().collect();
        let first = "address ownership lost address=10.0.0.1 (g1) eni=\"eni-0000000b\" instance=\"i-0000000b\"";
        assert!(lines[0].contains(first) && lines[0].contains("taker=\"peer\""), "{log}");
        assert!(log.contains("address contested: both routers are MASTER") && log.contains(" more "), "{log}");
        // At once, and once a second: a busy machine takes some.
        assert!(lines.len() < 40, "{log}");
    }
}
