//! Requests over the control socket: the report, a claim, and pauses.

use std::future::pending;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;
use vipa_core::claim::{BootInstant, Event, RequestRefusal};
use vipa_core::model::history::{Record, RecordKind};
use vipa_core::model::ids::GroupName;
use vipa_core::model::pause::Minutes;
use vipa_core::model::resource::Resource;
use vipa_core::report::model::{self as report, Report};
use vipa_core::report::{live, offline, reasons, remedies};

use super::Agent;
use crate::agent::state::Saved;
use crate::control::server::PermittedRequest;
use crate::control::{Encoded, ErrorResponse, Request, Response, ResponseCode};
use crate::fs::json_file::FORMAT;
use crate::log_messages::log;

/// How long a request for a claim waits for EC2's answer before it is answered without it.
const CLAIM_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer than EC2's request timeout a request for a fresh report waits. With the default request-timeout the
/// answer comes before the commands give up ([`crate::commands::show_status`]); with a longer one they show the
/// previous report.
const READ_REPLY_MARGIN: Duration = Duration::from_millis(500);

/// How long a request for a pause waits for the disk.
const DISK_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request for a proof waits for EC2's answers, and for the disk.
const PROOF_REPLY_TIMEOUT: Duration = Duration::from_secs(8);

/// How long an answer of EC2 counts as fresh: requests within that time share one read.
const READ_REUSE_TIME: Duration = Duration::from_secs(1);

/// Requests that wait for something before they are answered.
#[derive(Debug, Default)]
pub struct PendingReplies(Vec<PendingReply>);

#[derive(Debug)]
struct PendingReply {
    what: What,
    since: BootInstant,
    until: Instant,
    reply: Reply,
}

type Reply = oneshot::Sender<Response>;

#[derive(Debug)]
enum What {
    /// A report with owners that were read after the request, and the number of history records in it.
    Report { history: usize },
    /// The results of a group's claims.
    Claims(GroupName),
    /// The pause of a group, or its end, on disk.
    Saved(GroupName),
    /// What EC2 has shown of the permission to claim.
    Proof,
}

impl PendingReplies {
    /// Whether a client waits for a proof.
    pub fn await_a_proof(&self) -> bool {
        self.0.iter().any(|reply| matches!(reply.what, What::Proof))
    }

    /// Waits until the first of them times out. Safe to cancel: the deadlines are stored.
    pub async fn due(&self) {
        match self.0.iter().map(|w| w.until).min() {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => pending().await,
        }
    }
}

impl Agent<'_> {
    /// Carries out a request. Requests that need EC2 are answered later, by [`Agent::reply`].
    pub(super) fn handle_request(&mut self, permitted: PermittedRequest) {
        let now = self.clock.now();
        let PermittedRequest { request, answer: reply } = permitted;
        let answer = match request {
            Request::Status { fresh: false, history } => Encoded::new(&self.report(history)),
            Request::Status { fresh: true, history } => {
                // Requests within a second share one read.
                let asked = self.fresh_asked.filter(|asked| *asked + READ_REUSE_TIME > now);
                self.wait(What::Report { history }, asked.unwrap_or(now), reply);
                if asked.is_none() {
                    self.fresh_asked = Some(now);
                    self.handle(Event::ReadNow);
                } else {
                    self.reply();
                }
                return;
            }
            Request::Failovers => Encoded::new(&self.failovers()),
            Request::Claim { group } => match self.refuses(&group).or_else(|| self.machine.refuses_force(&group)) {
                Some(why) => Err(refused(&group, &why)),
                None => {
                    log!(CLAIM_FORCED, %group);
                    let forced = Record::new(Timestamp::now(), RecordKind::Forced).of_group(group.clone());
                    self.state.record(forced);
                    self.wait(What::Claims(group.clone()), now, reply);
                    self.handle(Event::Force(group));
                    return;
                }
            },
            Request::Pause { group, minutes } => match self.pause(&group, minutes) {
                Err(refusal) => Err(refusal),
                Ok(()) => return self.wait_for_the_disk(group, now, reply),
            },
            Request::Prove => match self.start_proof() {
                Err(refusal) => Err(refusal),
                Ok(()) => return self.wait(What::Proof, now, reply),
            },
            Request::Resume { group } => match self.resume(&group) {
                Err(refusal) => Err(refusal),
                Ok(()) => return self.wait_for_the_disk(group, now, reply),
            },
        };
        // The client may be gone.
        let _ = reply.send(answer);
    }

    fn wait(&mut self, what: What, since: BootInstant, reply: Reply) {
        let patience = match what {
            What::Report { .. } => self.config.global.request_timeout.duration() + READ_REPLY_MARGIN,
            What::Claims(_) => CLAIM_REPLY_TIMEOUT,
            What::Saved(_) => DISK_REPLY_TIMEOUT,
            What::Proof => PROOF_REPLY_TIMEOUT,
        };
        self.waiters.0.push(PendingReply { what, since, until: Instant::now() + patience, reply });
    }

    /// Answers the requests that need not wait any longer.
    pub(super) fn reply(&mut self) {
        let mut waiting = Vec::new();
        for waiter in std::mem::take(&mut self.waiters.0) {
            let happened = match &waiter.what {
                What::Report { .. } => self.machine.has_nothing_to_read() || self.machine.has_read_since(waiter.since),
                What::Claims(group) => self.machine.has_responses(group, waiter.since),
                What::Saved(_) => self.state.pauses.saved() != Saved::NotYet,
                What::Proof => self.proof_ended(),
            };
            if !happened && Instant::now() < waiter.until {
                waiting.push(waiter);
                continue;
            }
            let answer = match &waiter.what {
                What::Report { history } => Encoded::new(&self.fresh_report(*history, waiter.since)),
                What::Claims(group) => Encoded::new(&self.claims_since(group, waiter.since)),
                What::Saved(group) => Encoded::new(&self.saved(group)),
                What::Proof => self.proof_report().and_then(|report| Encoded::new(&report)),
            };
            let _ = waiter.reply.send(answer);
        }
        self.waiters.0 = waiting;
    }

    /// The report, with the reason why its owners are older than `since`, if they are.
    fn fresh_report(&self, history: usize, since: BootInstant) -> Report {
        let mut report = self.report(history);
        report.not_answered.extend(self.machine.not_read_since(since).map(|why| reasons::not_read(&why)));
        report
    }

    /// The group, with only the claims that began at `since` or later.
    fn claims_since(&self, group: &GroupName, since: BootInstant) -> Option<report::GroupReport> {
        let mut group = self.report(0).groups.into_iter().find(|g| g.name == group.as_str())?;
        let is_old = |resource: Resource| !self.machine.claimed_since(&resource, since);
        for address in group.addresses.iter_mut().filter(|a| is_old(a.address.into())) {
            address.last_claim = None;
        }
        for route in group.routes.iter_mut().filter(|r| is_old(Resource::Route(r.route.clone()))) {
            route.state.last_claim = None;
        }
        for elastic_ip in group.elastic_ips.iter_mut().filter(|e| is_old(Resource::ElasticIp(e.allocation.clone()))) {
            elastic_ip.state.last_claim = None;
        }
        Some(group)
    }

    /// Why nothing can be done for a group, if the agent does not manage it.
    fn refuses(&self, group: &GroupName) -> Option<RequestRefusal> {
        if self.machine.has_group(group) {
            None
        } else if self.config.skipped.iter().any(|g| g.name == group.as_str()) {
            Some(RequestRefusal::Skipped)
        } else {
            Some(RequestRefusal::NoNode)
        }
    }

    fn pause(&mut self, group: &GroupName, minutes: Minutes) -> Result<(), ErrorResponse> {
        if let Some(why) = self.refuses(group) {
            return Err(refused(group, &why));
        }
        let now = self.of_both_kinds(self.clock.now());
        log!(GROUP_PAUSED, %group, minutes = minutes.get());
        self.state.pauses.change(|pauses| pauses.pause(group.clone(), minutes, &now));
        self.state.pauses.hurry();
        self.handle(Event::Pause { group: group.clone(), until: self.clock.now() + minutes.duration() });
        Ok(())
    }

    fn resume(&mut self, group: &GroupName) -> Result<(), ErrorResponse> {
        if let Some(why) = self.refuses(group) {
            return Err(refused(group, &why));
        }
        if !self.machine.is_paused(group) {
            return Err(refused(group, &RequestRefusal::NotPaused));
        }
        log!(PAUSE_ENDED, %group);
        self.state.pauses.change(|pauses| pauses.resume(group));
        self.state.pauses.hurry();
        self.handle(Event::Resume(group.clone()));
        Ok(())
    }

    /// Answers once the change is on disk, or known not to be.
    fn wait_for_the_disk(&mut self, group: GroupName, since: BootInstant, reply: Reply) {
        self.wait(What::Saved(group), since, reply);
        self.reply();
    }

    /// The group, with the reason why its pause, or the end of it, is not on disk.
    fn saved(&self, group: &GroupName) -> Option<report::GroupReport> {
        let mut group = self.report(0).groups.into_iter().find(|g| g.name == group.as_str())?;
        group.pause_not_saved = match self.state.pauses.saved() {
            Saved::Yes => None,
            Saved::NotYet => Some(format!("the disk did not finish the write within {DISK_REPLY_TIMEOUT:?}")),
            Saved::No(why) => Some(why),
        };
        Some(group)
    }

    /// The current report, with that many history records.
    pub(super) fn report(&self, history: usize) -> Report {
        let now = self.clock.now();
        let clock = self.clock;
        let at = |moment: BootInstant| clock.timestamp(moment);
        let instance = self.effects.instance_id();
        let region = self.effects.region();
        let mut groups = live::groups(self.machine.facts(now), at);
        let caller = self.effects.caller();
        for address in groups.iter_mut().flat_map(|g| &mut g.addresses) {
            let accepted = |eni| self.state.permissions.get().at(eni, caller.as_ref());
            address.assign_permission_proven_at = address.eni.as_ref().and_then(accepted);
        }
        if let Saved::No(why) = self.state.pauses.saved() {
            for group in groups.iter_mut().filter(|g| g.paused_until.is_some()) {
                group.pause_not_saved = Some(why.clone());
            }
        }
        groups.extend(self.config.skipped.iter().map(offline::skipped_group));
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let credentials = self.effects.credentials();
        let file = self.config_file.unread.as_ref().or(self.groups_file.unread.as_ref());
        let global = &self.config.global;
        Report {
            format: FORMAT,
            generated_at: at(now),
            agent: Some(report::AgentReport {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: at(clock.started),
                file_error: file.map(|(error, _)| error.clone()),
                file_error_kind: file.map(|(_, kind)| *kind),
            }),
            agent_error: None,
            not_answered: Vec::new(),
            hook: report::HookReport {
                attached: self.hook.attached.map(|(attached, _)| attached),
                since: self.hook.attached.map(|(_, since)| at(since)),
                last_notify_event_at: self.hook.last_notify_event.map(at),
                last_activity_at: self.liveness.last.max(self.hook.last_news).map(at),
                fifo_full_count: self.hook.fifo_full_count,
            },
            ec2: report::Ec2Report {
                instance,
                region,
                endpoint_url: global.endpoint_url.clone(),
                credentials: credentials.as_ref().map_or_else(|| "not known yet".to_owned(), |c| c.source.clone()),
                credentials_loaded_at: credentials.as_ref().and_then(|c| c.loaded_at),
                credentials_error: credentials.as_ref().and_then(|c| c.error.as_ref()).map(remedies::credentials_error),
                credentials_expire_at: credentials.as_ref().and_then(|c| c.expires_at),
                last_success_at: self.effects.last_success.map(at),
                last_error: self
                    .effects
                    .last_error
                    .as_ref()
                    .map(|(when, error)| report::FailedCall::new(at(*when), error)),
                clock_skew: self.effects.clock_skew(),
                proofs: self.proofs(),
                calls: self
                    .effects
                    .calls()
                    .iter()
                    .map(|(operation, outcomes)| report::CallsReport { operation: operation.to_owned(), outcomes })
                    .collect(),
            },
            groups,
            history: self.state.history.get().last(history).to_vec(),
        }
    }
}

fn refused(group: &GroupName, why: &RequestRefusal) -> ErrorResponse {
    ErrorResponse::new(ResponseCode::Refused, reasons::refused(group, why))
}
