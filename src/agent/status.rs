//! What people ask over the control socket: the report, and a hand on the claims.

use std::future::pending;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::info;

use super::Agent;
use crate::claim::{Event, Moment};
use crate::control::server::Call;
use crate::control::{Answer, Code, Minutes, Refusal, Request};
use crate::files::FORMAT;
use crate::names::GroupName;
use crate::ownership::CallError;
use crate::state::{Kind, Record};
use crate::status::command::quoted;
use crate::status::report::{self, Report};
use crate::status::without_agent;

/// How long a forced claim is waited for before it is answered with what is known.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long beyond EC2's bound a read is waited for: less than those who ask wait beyond it
/// ([`crate::commands::show_status`]).
const BEYOND: Duration = Duration::from_millis(500);

/// Those who wait for something to happen before they are answered.
#[derive(Debug, Default)]
pub struct Waiters(Vec<Waiter>);

#[derive(Debug)]
struct Waiter {
    what: What,
    since: Moment,
    until: Instant,
    reply: Reply,
}

type Reply = oneshot::Sender<Answer>;

#[derive(Debug)]
enum What {
    /// A report with owners that were read after the question, and so much of the past.
    Report { history: usize },
    /// Answers to the claims of a group.
    Claims(GroupName),
}

impl Waiters {
    /// Waits until somebody's patience ends. Safe to cancel: the deadlines are kept.
    pub async fn due(&self) {
        match self.0.iter().map(|w| w.until).min() {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => pending().await,
        }
    }
}

impl Agent<'_> {
    /// Does what is asked; what takes a round trip to EC2 is answered by [`Agent::reply`].
    pub(super) fn order(&mut self, call: Call) {
        let now = self.clock.now();
        let Call { request, answer: reply } = call;
        let answer = match request {
            Request::Status { fresh: false, history } => Ok(value(&self.report(history))),
            Request::Status { fresh: true, history } => {
                self.wait(What::Report { history }, now, reply);
                self.tell(Event::ReadNow);
                return;
            }
            Request::Claim { group } => match self.refuses(&group).or_else(|| self.machine.refuses_force(&group)) {
                Some(why) => Err(Refusal::new(Code::Refused, why)),
                None => {
                    info!(%group, "claim forced");
                    let forced = Record::new(Timestamp::now(), Kind::Forced).of_group(group.clone());
                    self.state.history.change(|history| history.add(forced));
                    self.wait(What::Claims(group.clone()), now, reply);
                    self.tell(Event::Force(group));
                    return;
                }
            },
            Request::Pause { group, minutes } => self.pause(group, minutes),
            Request::Resume { group } => self.resume(group),
        };
        // Whoever asked may be gone.
        let _ = reply.send(answer);
    }

    fn wait(&mut self, what: What, since: Moment, reply: Reply) {
        let patience = match what {
            What::Report { .. } => self.config.global.request_timeout.duration() + BEYOND,
            What::Claims(_) => PATIENCE,
        };
        self.waiters.0.push(Waiter { what, since, until: Instant::now() + patience, reply });
    }

    /// Answers those whose waiting is over.
    pub(super) fn reply(&mut self) {
        let mut waiting = Vec::new();
        for waiter in std::mem::take(&mut self.waiters.0) {
            let happened = match &waiter.what {
                What::Report { .. } => self.machine.has_nothing_to_read() || self.machine.has_read_since(waiter.since),
                What::Claims(group) => self.machine.has_answers(group, waiter.since),
            };
            if !happened && Instant::now() < waiter.until {
                waiting.push(waiter);
                continue;
            }
            let answer = match &waiter.what {
                What::Report { history } => value(&self.fresh_report(*history, waiter.since)),
                What::Claims(group) => value(&self.claims_since(group, waiter.since)),
            };
            let _ = waiter.reply.send(Ok(answer));
        }
        self.waiters.0 = waiting;
    }

    /// The report, with why its owners are older than that where they are.
    fn fresh_report(&self, history: usize, since: Moment) -> Report {
        let mut report = self.report(history);
        let why = self.machine.unread_since(since);
        report.not_answered.extend(why.map(|why| format!("{why}. What follows is what was known before")));
        report
    }

    /// The group, with the claims that began then or later.
    fn claims_since(&self, group: &GroupName, since: Moment) -> Option<report::Group> {
        let mut group = self.report(0).groups.into_iter().find(|g| g.name == group.as_str())?;
        for address in group.addresses.iter_mut().filter(|a| !self.machine.claimed_since(&a.address, since)) {
            address.last_claim = None;
        }
        Some(group)
    }

    /// Why nothing can be done for a group, if it is not one that the agent looks after.
    fn refuses(&self, group: &GroupName) -> Option<String> {
        let name = quoted(group.as_str());
        if self.machine.knows(group) {
            None
        } else if self.config.left_out.iter().any(|g| g.name == group.as_str()) {
            Some(format!("a fault keeps group {name} out: `show aws-vipa group {name}` names it"))
        } else {
            Some(format!("group {name} has no aws-vipa node: `show aws-vipa status` lists those that have one"))
        }
    }

    fn pause(&mut self, group: GroupName, minutes: Minutes) -> Answer {
        if let Some(why) = self.refuses(&group) {
            return Err(Refusal::new(Code::Refused, why));
        }
        let long = minutes.duration();
        let until = Timestamp::now().saturating_add(long).unwrap_or(Timestamp::MAX);
        info!(%group, %until, "group paused");
        self.state.pauses.change(|pauses| pauses.pause(group.clone(), until, Timestamp::now()));
        self.disk.notice(&self.state, true);
        let now = self.clock.now();
        self.tell(Event::Pause { group: group.clone(), until: now + long });
        Ok(value(&self.report(0).group(&group)))
    }

    fn resume(&mut self, group: GroupName) -> Answer {
        if let Some(why) = self.refuses(&group) {
            return Err(Refusal::new(Code::Refused, why));
        }
        info!(%group, "pause ended by a person");
        self.state.pauses.change(|pauses| pauses.resume(&group));
        self.disk.notice(&self.state, true);
        self.tell(Event::Resume(group.clone()));
        Ok(value(&self.report(0).group(&group)))
    }

    /// Everything that is known now, with so much of the past.
    fn report(&self, history: usize) -> Report {
        let now = self.clock.now();
        let clock = self.clock;
        let at = |moment: Moment| clock.timestamp(moment);
        let instance = self.calls.instance_id();
        let region = self.calls.region();
        let mut groups = self.machine.report(now, at);
        for address in groups.iter_mut().flat_map(|g| &mut g.addresses) {
            if address.assign_right_proven_at.is_none() {
                address.assign_right_proven_at = address.eni.as_ref().and_then(|eni| self.state.proven.get().at(eni));
            }
        }
        groups.extend(self.config.left_out.iter().map(without_agent::left_out));
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let credentials = self.calls.credentials();
        let file = self.config_file.unread.as_ref().or(self.groups_file.unread.as_ref());
        let global = &self.config.global;
        Report {
            format: FORMAT,
            generated_at: at(now),
            agent: Some(report::Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: at(clock.started),
                file_error: file.map(|(error, _)| error.clone()),
                file_fault: file.map(|(_, fault)| *fault),
            }),
            agent_error: None,
            not_answered: Vec::new(),
            hook: report::Hook {
                attached: self.hook.attached.map(|(attached, _)| attached),
                since: self.hook.attached.map(|(_, since)| at(since)),
                last_line_at: self.hook.last_line.map(at),
                last_life_at: self.life.last.max(self.hook.last_news).map(at),
                pipe_full: self.hook.pipe_full,
            },
            ec2: report::Ec2 {
                instance,
                region,
                endpoint_url: global.endpoint_url.clone(),
                credentials: credentials.as_ref().map_or_else(|| "not known yet".to_owned(), |c| c.source.clone()),
                credentials_loaded_at: credentials.as_ref().and_then(|c| c.loaded_at),
                credentials_error: credentials.as_ref().and_then(|c| c.error.as_ref()).map(|e| e.message.clone()),
                credentials_expire_at: credentials.as_ref().and_then(|c| c.expires_at),
                last_success_at: self.calls.last_success.map(at),
                last_error: self.calls.last_error.as_ref().map(|(when, error)| failure(at(*when), error)),
                clock_skew: self.calls.clock_skew(),
            },
            groups,
            history: self.state.history.get().last(history).to_vec(),
        }
    }
}

fn failure(at: Timestamp, error: &CallError) -> report::Failure {
    report::Failure {
        at,
        code: error.code.clone(),
        message: error.message.clone(),
        request_id: error.request_id.clone(),
    }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}
