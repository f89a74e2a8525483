//! What the machine notes, as log lines and as history. A message is constant; the facts are fields.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Agent;
use crate::claim::{Misplaced, Note};
use crate::names::{EniId, RequestId};
use crate::ownership::{Acknowledgement, CallError, ErrorClass, Owner, Taker};
use crate::state::{Kind, Outcome, Record};
use crate::status::report::Vrrp;

/// How often a failure that lasts is said again, with the number of times that it happened.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Failures of claims, by their ENI, and of reads that have been said: once, and then every ten minutes with a count.
#[derive(Debug, Default)]
pub struct Said {
    failures: BTreeMap<(Option<EniId>, String), (Instant, u32)>,
    /// The log ends with reads that fail.
    unread: bool,
}

impl Said {
    /// How often it has happened since it was last said, if it is to be said now.
    fn say(&mut self, eni: Option<&EniId>, code: &str) -> Option<u32> {
        let now = Instant::now();
        let what = (eni.cloned(), code.to_owned());
        match self.failures.get_mut(&what) {
            Some((last, times)) if now.duration_since(*last) < AGAIN => {
                *times += 1;
                None
            }
            Some((last, times)) => {
                *last = now;
                Some(std::mem::take(times) + 1)
            }
            None => {
                self.failures.insert(what, (now, 0));
                Some(1)
            }
        }
    }

    fn forget(&mut self, eni: &EniId) {
        self.failures.retain(|(other, _), _| other.as_ref() != Some(eni));
    }
}

impl Agent<'_> {
    /// Logs a note, and keeps it.
    pub(super) fn note(&mut self, note: Note) {
        let time = Timestamp::now();
        let record = match note {
            Note::Transition { group, from, to, cause } => {
                match to {
                    Vrrp::Unknown => warn!(%group, %from, %to, cause = cause.text(), "transition"),
                    _ => info!(%group, %from, %to, cause = cause.text(), "transition"),
                }
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
                error!(%group, %address, "claim given up, address not on a local interface");
                Record::new(time, Kind::NotLocal).of_group(group).of_addresses([address])
            }
            // The status shows it as long as it lasts.
            Note::Place { group, address, interface, wrong } => {
                return match wrong {
                    Some(Misplaced::Missing) => {
                        error!(%group, %address, %interface, "MASTER, and the address is missing on its interface");
                    }
                    Some(Misplaced::Left) => {
                        warn!(%group, %address, %interface, "not MASTER, and the address is on its interface");
                    }
                    None => info!(%group, %address, %interface, "the interface agrees with VRRP again"),
                };
            }
            Note::Readiness { group, obstacle } => {
                match &obstacle {
                    Some(obstacle) => error!(%group, obstacle, "standby not ready"),
                    None => info!(%group, "standby ready"),
                }
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
                error!(%interface, code = error.code, message = error.message, "network interface (ENI) not known");
                Record::new(time, Kind::Unresolved { interface, error })
            }
        };
        self.state.history.change(|history| history.add(record));
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
                self.said.forget(eni);
                let request_id = request_id.as_ref().map(RequestId::as_str);
                // They are read at once.
                let unlisted = (!unlisted.is_empty()).then(|| tracing::field::debug(unlisted));
                info!(%eni, ?addresses, duration_ms, request_id, unlisted, "claim acknowledged");
            }
            Err(error) => {
                let Some(times) = self.said.say(Some(eni), &error.code) else {
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
        let Some(times) = self.said.say(None, &error.code) else {
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
