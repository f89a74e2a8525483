//! What the machine notes, as log lines and as history. A message is constant; the facts are fields.

use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Instant;

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Agent;
use crate::claim::{Misplaced, Note};
use crate::log_throttle::{Line, LogThrottle, named};
use crate::names::{EniId, RequestId};
use crate::ownership::{Acknowledgement, CallError, ErrorClass, Owner, Taker};
use crate::state::{Kind, Outcome, Record};
use crate::status::report::Vrrp;

/// How often in ten minutes each group's change of state or readiness is written at once: a failover there and back, twice.
const CHANGES: u32 = 5;

/// What has been written of what may happen again and again.
#[derive(Debug)]
pub struct Said {
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
}

impl Default for Said {
    fn default() -> Self {
        Self { failures: LogThrottle::default(), changes: LogThrottle::allowing(CHANGES), unread: false }
    }
}

impl Said {
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

fn write(change: &Change, line: &Line<String>) {
    let who = named(&line.subjects);
    // Where it has happened to each of them once, that goes without saying.
    let times = Some(line.times).filter(|times| *times as usize > line.subjects.len());
    match change {
        Change::Transition { is_unknown: true, from, to, cause } => {
            warn!(group = %who, %from, %to, cause, times, "transition");
        }
        Change::Transition { is_unknown: false, from, to, cause } => {
            info!(group = %who, %from, %to, cause, times, "transition");
        }
        Change::Readiness { obstacle: Some(obstacle) } => {
            error!(group = %who, obstacle, times, "standby not ready");
        }
        Change::Readiness { obstacle: None } => info!(group = %who, times, "standby ready"),
        Change::NotLocal => error!(address = %who, times, "claim given up, address not on a local interface"),
        Change::Missing => error!(address = %who, times, "MASTER, and the address is missing on its interface"),
        Change::Left => warn!(address = %who, times, "not MASTER, and the address is on its interface"),
        Change::InPlace => info!(address = %who, times, "the interface agrees with VRRP again"),
        Change::Unresolved { code, message } => {
            error!(interface = %who, code, message, times, "network interface (ENI) not known");
        }
        Change::Hook { gone: Some(reason) } => warn!(%reason, times, "hook not attached"),
        Change::Hook { gone: None } => info!(times, "hook attached"),
        Change::PipeFull => warn!(times, "pipe found full, lines may be lost"),
    }
}

impl Agent<'_> {
    /// Logs a note, and keeps it.
    pub(super) fn note(&mut self, note: Note) {
        let time = Timestamp::now();
        let record = match note {
            Note::Transition { group, from, to, cause } => {
                let is_unknown = to == Vrrp::Unknown;
                let (before, after) = (from.to_string(), to.to_string());
                let change = Change::Transition { is_unknown, from: before, to: after, cause: cause.text() };
                self.said.change(change, &group);
                Record::new(time, Kind::Transition { from, to, cause: cause.text().to_owned() }).of_group(group)
            }
            Note::Claim { eni, addresses, previous, duration, result } => {
                let duration_ms = duration.as_millis().try_into().unwrap_or(u64::MAX);
                self.log_claim(&eni, &addresses, duration_ms, &result);
                if result.is_ok() {
                    self.state.proven.change(|proven| proven.prove(eni.clone(), time));
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
                let (eni, instance) = ends(&by);
                warn!(%group, %address, eni, instance, taker = word(taker), "address taken by another");
                Record::new(time, Kind::Theft { by, taker }).of_group(group).of_addresses([address])
            }
            Note::Contested { group, address, by, taker } => {
                let (eni, instance) = ends(&by);
                match taker {
                    Taker::Peer => error!(
                        %group, %address, eni, instance,
                        "address contested: both routers are MASTER, restore the VRRP link between them"
                    ),
                    Taker::Stranger => error!(
                        %group, %address, eni, instance,
                        "address contested: find out what claims it there"
                    ),
                }
                Record::new(time, Kind::Contested { by, taker }).of_group(group).of_addresses([address])
            }
            Note::ContestOver { group, address, taker } => {
                info!(%group, %address, taker = word(taker), "contest over");
                Record::new(time, Kind::ContestOver { taker }).of_group(group).of_addresses([address])
            }
            Note::NotLocal { group, address } => {
                self.said.change(Change::NotLocal, format!("{address} ({group})"));
                Record::new(time, Kind::NotLocal).of_group(group).of_addresses([address])
            }
            // The status shows it as long as it lasts.
            Note::Place { group, address, interface, wrong } => {
                let change = match wrong {
                    Some(Misplaced::Missing) => Change::Missing,
                    Some(Misplaced::Left) => Change::Left,
                    None => Change::InPlace,
                };
                return self.said.change(change, format!("{address} on {interface} ({group})"));
            }
            Note::Readiness { group, obstacle } => {
                self.said.change(Change::Readiness { obstacle: obstacle.clone() }, &group);
                Record::new(time, Kind::Readiness { obstacle }).of_group(group)
            }
            // The history is of what has happened.
            Note::Elsewhere { eni, instance } => {
                let attached_to = instance.as_ref().map(|i| i.as_str());
                error!(%eni, attached_to, "network interface (ENI) not attached to this instance");
                return;
            }
            Note::Holder { addresses, by } => {
                let (eni, instance) = ends(&by);
                warn!(?addresses, eni, instance, "address held by neither router: a failover takes it from there");
                return;
            }
            Note::Unresolved { interface, error } => {
                let CallError { code, message, .. } = error.clone();
                self.said.change(Change::Unresolved { code, message }, &interface);
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
                self.said.failures.forget(|(other, _)| other.as_ref() == Some(eni));
                let request_id = request_id.as_ref().map(RequestId::as_str);
                // They are read at once.
                let unlisted = (!unlisted.is_empty()).then(|| tracing::field::debug(unlisted));
                info!(%eni, ?addresses, duration_ms, request_id, unlisted, "claim acknowledged");
            }
            Err(error) => {
                let Some(times) = self.said.failures.say((Some(eni.clone()), error.code.clone())) else {
                    return;
                };
                let CallError { code, message, .. } = error;
                let request_id = error.request_id.as_ref().map(RequestId::as_str);
                if passes(error) {
                    warn!(%eni, ?addresses, duration_ms, code, message, request_id, times, "claim failed, goes on");
                } else {
                    error!(%eni, ?addresses, duration_ms, code, message, request_id, times, "claim refused");
                }
            }
        }
    }

    fn log_read(&mut self, error: Option<&CallError>) {
        // What fails every other time is one failure that lasts.
        let Some(error) = error else {
            if std::mem::take(&mut self.said.unread) {
                info!("owners read again");
            }
            return;
        };
        let Some(times) = self.said.failures.say((None, error.code.clone())) else {
            return;
        };
        self.said.unread = true;
        let CallError { code, message, .. } = error;
        let request_id = error.request_id.as_ref().map(RequestId::as_str);
        if passes(error) {
            warn!(code, message, request_id, times, "owners not read, goes on");
        } else {
            error!(code, message, request_id, times, "owners not read, refused");
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

fn ends(owner: &Owner) -> (&str, Option<&str>) {
    (owner.eni.as_str(), owner.instance.as_ref().map(|i| i.as_str()))
}
