//! The timelines of the last failovers: what the agent answers on its socket, what `show failover --json` prints, and the text
//! for a terminal of 80 columns.
//!
//! The JSON is as stable as that of the status. Times within a failover are in milliseconds after the transition.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::quoted;
use super::history::exact;
use super::model::{GroupReport, names};
use super::status::{GAP, WIDTH, indented, lines, span, without_reason};
use crate::model::ec2::ErrorClass;
use crate::model::failover::{
    AcknowledgedAttempt, ConfirmingRead, FailedAttempt, Failover, LastFailovers, MAX_FAILURES, MovedResource,
};
use crate::model::ids::{ErrorCode, GroupName, RequestId};
use crate::model::resource::{Kind, Resource};
use crate::model::verdict::Verdict;
use crate::model::vrrp::VrrpState;

/// The most attempts of a kind that are shown one by one: all that are kept of one resource.
const MAX_SHOWN_ATTEMPTS: usize = MAX_FAILURES + 1;
/// The most confirming reads of a kind that are shown one by one.
const MAX_SHOWN_READS: usize = 4;
/// The most resources that are named in a line; JSON has them all.
const MAX_NAMED_RESOURCES: usize = 4;
/// The widths of `9999999` and `Elastic IP`.
const COLUMNS: [u16; 3] = [7, 10, WIDTH - 7 - 10 - 2 * GAP];

/// The timelines of the last failovers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// [`FORMAT`](crate::FORMAT).
    pub format: u64,
    /// When this was put together.
    pub generated_at: Timestamp,
    /// The groups that have an `aws-vipa` node, in the order of their names.
    pub groups: Vec<GroupFailovers>,
}

/// The last failovers of one group, and its state now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupFailovers {
    /// The name of the VRRP group.
    pub name: String,
    /// Its VRRP state now.
    pub vrrp: VrrpState,
    /// The last time that this router became MASTER; absent: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub became_master: Option<Timeline>,
    /// The last time that it ceased to be MASTER, unless it has become MASTER since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_master: Option<Timeline>,
    /// What the group moves, as it is now.
    pub now: Vec<ResourceNow>,
}

/// A transition to MASTER or away from it, and what followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// When the agent read the notify event, or inferred the state. The times below count from it.
    pub at: Timestamp,
    /// The VRRP state before.
    pub from: VrrpState,
    /// The VRRP state after.
    pub to: VrrpState,
    /// Why the state has changed.
    pub cause: String,
    /// A summary of each kind that the group moved.
    pub kinds: Vec<KindTimeline>,
    /// What the group moved.
    pub resources: Vec<MovedResource>,
}

/// What happened to all resources of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindTimeline {
    /// What they all are.
    pub kind: Kind,
    /// How many there are.
    pub resources: usize,
    /// When the first request for any of them was sent.
    pub first_request_ms: Option<u64>,
    /// How many EC2 has acknowledged.
    pub acknowledged: usize,
    /// The first of them.
    pub first_acknowledged: Option<Answered>,
    /// The last of them.
    pub last_acknowledged: Option<Answered>,
    /// The one that took EC2 the longest.
    pub slowest: Option<Answered>,
    /// The failed attempts, by error code.
    pub failures: Vec<Failures>,
    /// Of how many a read has shown the new owner.
    pub confirmed: usize,
    /// The first of these reads.
    pub first_confirmed: Option<Confirmed>,
    /// The last of them.
    pub last_confirmed: Option<Confirmed>,
}

/// An acknowledged claim of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// What was claimed.
    #[serde(flatten)]
    pub resource: Resource,
    /// When it was sent and answered, and EC2's request id.
    #[serde(flatten)]
    pub attempt: AcknowledgedAttempt,
}

/// The read that shows the new owner of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confirmed {
    /// What the read was for.
    #[serde(flatten)]
    pub resource: Resource,
    /// When it was sent and answered.
    #[serde(flatten)]
    pub read: ConfirmingRead,
}

/// Failed attempts with the same error code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// EC2's error code, or the product's word for a failure without one.
    pub code: ErrorCode,
    /// What the failure means for the next attempt.
    pub class: ErrorClass,
    /// How many attempts failed, of those that are kept.
    pub attempts: usize,
    /// When the first of them ended.
    pub first_ms: u64,
    /// When the last of them ended.
    pub last_ms: u64,
    /// EC2's request id of the last one.
    pub request_id: Option<RequestId>,
}

/// The state of a resource now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceNow {
    /// What it is the state of.
    #[serde(flatten)]
    pub resource: Resource,
    /// Whether VRRP, EC2 and the kernel agree about it.
    pub verdict: Verdict,
    /// Why, and what to do, where the verdict is not OK.
    pub reason: Option<String>,
}

/// One request for claims that has ended; those of one batch share it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AttemptReport<'a> {
    began_ms: u64,
    ended_ms: u64,
    /// The error code, and what it means; none: EC2 acknowledged it.
    failure: Option<(&'a ErrorCode, ErrorClass)>,
    request_id: Option<&'a RequestId>,
}

impl<'a> From<&'a AcknowledgedAttempt> for AttemptReport<'a> {
    fn from(AcknowledgedAttempt { began_ms, ended_ms, request_id }: &'a AcknowledgedAttempt) -> Self {
        Self { began_ms: *began_ms, ended_ms: *ended_ms, failure: None, request_id: request_id.as_ref() }
    }
}

impl<'a> From<&'a FailedAttempt> for AttemptReport<'a> {
    fn from(FailedAttempt { began_ms, ended_ms, class, code, request_id }: &'a FailedAttempt) -> Self {
        let failure = Some((code, *class));
        Self { began_ms: *began_ms, ended_ms: *ended_ms, failure, request_id: request_id.as_ref() }
    }
}

/// The requests that have ended, in the order of their begin, each with the resources in it.
fn attempts<'a>(moved: &[&'a MovedResource]) -> BTreeMap<AttemptReport<'a>, Vec<&'a Resource>> {
    let mut all: BTreeMap<AttemptReport, Vec<&Resource>> = BTreeMap::new();
    for moved in moved {
        let ended =
            moved.failures.iter().map(AttemptReport::from).chain(moved.acknowledged.iter().map(AttemptReport::from));
        ended.for_each(|attempt| all.entry(attempt).or_default().push(&moved.resource));
    }
    all
}

impl KindTimeline {
    fn new(kind: Kind, moved: &[&MovedResource]) -> Self {
        let answered = |(resource, attempt): (&Resource, &AcknowledgedAttempt)| Answered {
            resource: resource.clone(),
            attempt: attempt.clone(),
        };
        let acknowledged: Vec<_> =
            moved.iter().filter_map(|moved| Some((&moved.resource, moved.acknowledged.as_ref()?))).collect();
        let confirmed: Vec<_> =
            moved.iter().filter_map(|moved| Some((&moved.resource, moved.confirmed.as_ref()?))).collect();
        let read = |(resource, read): (&Resource, &ConfirmingRead)| Confirmed {
            resource: resource.clone(),
            read: read.clone(),
        };
        let mut failures: Vec<Failures> = Vec::new();
        // One request of a batch fails once.
        let mut failed: Vec<AttemptReport> =
            attempts(moved).into_keys().filter(|attempt| attempt.failure.is_some()).collect();
        failed.sort_by_key(|attempt| attempt.ended_ms);
        for AttemptReport { ended_ms, failure, request_id, .. } in failed {
            let Some((code, class)) = failure else { continue };
            match failures.iter_mut().find(|of| (&of.code, of.class) == (code, class)) {
                Some(known) => {
                    known.attempts += 1;
                    known.last_ms = ended_ms;
                    known.request_id = request_id.cloned();
                }
                None => failures.push(Failures {
                    code: code.clone(),
                    class,
                    attempts: 1,
                    first_ms: ended_ms,
                    last_ms: ended_ms,
                    request_id: request_id.cloned(),
                }),
            }
        }
        let ended = |(_, attempt): &(&Resource, &AcknowledgedAttempt)| attempt.ended_ms;
        let took = |(_, attempt): &(&Resource, &AcknowledgedAttempt)| attempt.ended_ms - attempt.began_ms;
        let read_at = |(_, read): &(&Resource, &ConfirmingRead)| read.ended_ms;
        Self {
            kind,
            resources: moved.len(),
            first_request_ms: moved.iter().filter_map(|moved| moved.requested_ms).min(),
            acknowledged: acknowledged.len(),
            first_acknowledged: acknowledged.iter().copied().min_by_key(ended).map(answered),
            last_acknowledged: acknowledged.iter().copied().max_by_key(ended).map(answered),
            slowest: acknowledged.iter().copied().max_by_key(took).map(answered),
            failures,
            confirmed: confirmed.len(),
            first_confirmed: confirmed.iter().copied().min_by_key(read_at).map(read),
            last_confirmed: confirmed.iter().copied().max_by_key(read_at).map(read),
        }
    }
}

/// The resources of each kind that there is.
fn by_kind(resources: &[MovedResource]) -> Vec<(Kind, Vec<&MovedResource>)> {
    let of = |kind: Kind| resources.iter().filter(|moved| moved.resource.kind() == kind).collect::<Vec<_>>();
    Kind::ALL.into_iter().map(|kind| (kind, of(kind))).filter(|(_, moved)| !moved.is_empty()).collect()
}

impl From<&Failover> for Timeline {
    fn from(failover: &Failover) -> Self {
        let kinds = by_kind(&failover.resources).iter().map(|(kind, moved)| KindTimeline::new(*kind, moved)).collect();
        Self {
            at: failover.time,
            from: failover.from,
            to: failover.to,
            cause: failover.cause.clone(),
            kinds,
            resources: failover.resources.clone(),
        }
    }
}

/// The last failovers of a group, with its state now.
pub fn group(group: &GroupReport, last: Option<&LastFailovers>) -> GroupFailovers {
    let addresses = group.addresses.iter().map(|a| (Resource::Address(a.address), a.verdict, a.reason.clone()));
    let routes =
        group.routes.iter().map(|r| (Resource::Route(r.route.clone()), r.state.verdict, r.state.reason.clone()));
    let elastic_ips = group.elastic_ips.iter();
    let elastic_ips =
        elastic_ips.map(|e| (Resource::ElasticIp(e.allocation.clone()), e.state.verdict, e.state.reason.clone()));
    let now = addresses.chain(routes).chain(elastic_ips);
    GroupFailovers {
        name: group.name.clone(),
        vrrp: group.vrrp,
        became_master: last.and_then(|last| last.became_master.as_ref()).map(Timeline::from),
        left_master: last.and_then(|last| last.left_master.as_ref()).map(Timeline::from),
        now: now.map(|(resource, verdict, reason)| ResourceNow { resource, verdict, reason }).collect(),
    }
}

impl FailoverReport {
    /// The report about one group.
    pub fn only(&self, name: &GroupName) -> Option<Self> {
        let group = self.groups.iter().find(|group| group.name == name.as_str())?;
        Some(Self { groups: vec![group.clone()], ..self.clone() })
    }
}

/// The report as text. Of several groups, those without a failover share a line.
pub fn failover(report: &FailoverReport) -> String {
    let mut text = String::new();
    let (with, without): (Vec<&GroupFailovers>, Vec<&GroupFailovers>) =
        report.groups.iter().partition(|group| group.became_master.is_some() || group.left_master.is_some());
    for group in &with {
        if !text.is_empty() {
            text.push('\n');
        }
        group_text(&mut text, group, report.generated_at);
    }
    if !without.is_empty() {
        if !with.is_empty() {
            text.push('\n');
        }
        let names: Vec<String> = without.iter().map(|group| quoted(&group.name).into_owned()).collect();
        let what = if without.len() == 1 { "Group" } else { "Groups" };
        indented(&mut text, 0, [format!("{what} {}: no failover recorded by this router.", names.join(", "))]);
    } else if with.is_empty() {
        indented(&mut text, 0, ["No group is configured.".to_owned()]);
    }
    text
}

fn group_text(text: &mut String, group: &GroupFailovers, now: Timestamp) {
    indented(text, 0, [format!("Group {}", quoted(&group.name))]);
    for timeline in group.became_master.iter().chain(&group.left_master) {
        let what = match timeline.to {
            VrrpState::Master => "Became MASTER",
            _ => "Left MASTER",
        };
        let at = timeline.at;
        indented(text, 0, [format!("{what} at {} UTC, {} ago", exact(at), span(now, at))]);
        let mut rows = rows(timeline);
        if group.left_master.as_ref().is_none_or(|left| left == timeline) {
            rows.push(["    now".to_owned(), "State".to_owned(), state(group)]);
        }
        let titles = ["     ms", "What", "Result"].map(str::to_owned);
        lines(text, COLUMNS, [titles, COLUMNS.map(|width| "-".repeat(width.into()))]);
        lines(text, COLUMNS, rows);
        if group.left_master.as_ref().is_some_and(|left| left != timeline) {
            text.push('\n');
        }
    }
    next_steps(text, group);
}

/// The rows of a timeline, in the order of their times.
fn rows(timeline: &Timeline) -> Vec<[String; 3]> {
    let became_master = timeline.to == VrrpState::Master;
    let mut events: Vec<(u64, &str, String)> = Vec::new();
    for (kind, moved) in by_kind(&timeline.resources) {
        let label = match kind {
            Kind::Address => "Address",
            Kind::Route => "Route",
            Kind::ElasticIp => "Elastic IP",
        };
        if became_master {
            events.extend(claims(kind, &moved).into_iter().map(|(ms, text)| (ms, label, text)));
        }
        events.extend(confirmations(&moved, became_master).into_iter().map(|(ms, text)| (ms, label, text)));
    }
    events.sort_by_key(|(ms, ..)| *ms);
    let mut rows = Vec::new();
    if became_master && timeline.cause.starts_with("keepalived: ") {
        rows.push([
            "-".to_owned(),
            "VRRP".to_owned(),
            "last advertisement heard: not reported by keepalived".to_owned(),
        ]);
    }
    rows.push(["0".to_owned(), "VRRP".to_owned(), format!("{} -> {}, {}", timeline.from, timeline.to, timeline.cause)]);
    rows.extend(events.into_iter().map(|(ms, label, text)| [ms.to_string(), label.to_owned(), text]));
    rows.into_iter().map(|[ms, label, text]| [format!("{ms:>7}"), label, text]).collect()
}

/// What the claims of a kind came to.
fn claims(kind: Kind, moved: &[&MovedResource]) -> Vec<(u64, String)> {
    let all = attempts(moved);
    let mut events = Vec::new();
    if all.len() <= MAX_SHOWN_ATTEMPTS {
        for (attempt, resources) in &all {
            events.push((attempt.began_ms, format!("request sent: {}", named(resources))));
            events.push((attempt.ended_ms, outcome(attempt)));
        }
        for moved in moved {
            let kept = moved.failures.len() + usize::from(moved.acknowledged.is_some());
            if let (Some(omitted @ 1..), Some(last)) =
                ((moved.attempts as usize).checked_sub(kept), moved.failures.last())
            {
                let resource = &moved.resource;
                events.push((
                    last.began_ms,
                    format!("{resource}: {omitted} attempts before the next one are not listed"),
                ));
            }
        }
        // A request without an answer so far.
        let unanswered = |moved: &&&MovedResource| moved.requested_ms.is_some() && moved.attempts == 0;
        let waiting: Vec<&MovedResource> = moved.iter().filter(unanswered).copied().collect();
        if let Some(first) = waiting.iter().filter_map(|moved| moved.requested_ms).min() {
            let resources: Vec<&Resource> = waiting.iter().map(|moved| &moved.resource).collect();
            events.push((first, format!("request sent: {}; no answer yet", named(&resources))));
        }
        return events;
    }
    let summary = KindTimeline::new(kind, moved);
    if let Some(first) = summary.first_request_ms {
        events.push((first, format!("first request sent; {} are to move", moved.len())));
    }
    let answered = |which: &str, answered: &Answered| {
        let Answered { resource, attempt } = answered;
        let took = attempt.ended_ms - attempt.began_ms;
        let request = request(attempt.request_id.as_ref());
        (attempt.ended_ms, format!("{which}: {}, after {took} ms{request}", named(&[resource])))
    };
    events.extend(summary.first_acknowledged.iter().map(|first| answered("first acknowledged", first)));
    events.extend(summary.slowest.iter().map(|slowest| answered("EC2's slowest answer", slowest)));
    let last = format!("{} of {} acknowledged, last", summary.acknowledged, moved.len());
    events.extend(summary.last_acknowledged.iter().map(|acknowledged| answered(&last, acknowledged)));
    for Failures { code, class, attempts, first_ms, last_ms, request_id } in &summary.failures {
        let attempts = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
        let class = class.as_str();
        let since = if first_ms == last_ms { String::new() } else { format!(", first at {first_ms}") };
        events.push((*last_ms, format!("{attempts} failed: {code} ({class}){since}{}", request(request_id.as_ref()))));
    }
    events
}

/// The reads that show the new owner.
fn confirmations(moved: &[&MovedResource], became_master: bool) -> Vec<(u64, String)> {
    let mut reads: BTreeMap<(u64, String), Vec<&Resource>> = BTreeMap::new();
    for moved in moved {
        if let Some(ConfirmingRead { ended_ms, eni, instance, request_id }) = &moved.confirmed {
            let instance = instance.as_ref().map_or_else(String::new, |instance| format!(" of {instance}"));
            let what =
                if became_master { "confirmed by a read".to_owned() } else { format!("a read shows {eni}{instance}") };
            let what = format!("{what}{}", request(request_id.as_ref()));
            reads.entry((*ended_ms, what)).or_default().push(&moved.resource);
        }
    }
    let confirmed: usize = reads.values().map(Vec::len).sum();
    let event =
        |((ms, what), resources): (&(u64, String), &Vec<&Resource>)| (*ms, format!("{}: {what}", named(resources)));
    if reads.len() <= MAX_SHOWN_READS {
        return reads.iter().map(event).collect();
    }
    let mut ends = reads.iter().take(1).chain(reads.iter().next_back()).map(event);
    let first = ends.next().map(|(ms, text)| (ms, format!("first of {confirmed}: {text}")));
    let last = ends.next().map(|(ms, text)| (ms, format!("last of {confirmed}: {text}")));
    first.into_iter().chain(last).collect()
}

fn outcome(attempt: &AttemptReport<'_>) -> String {
    let took = attempt.ended_ms - attempt.began_ms;
    let request = request(attempt.request_id);
    match attempt.failure {
        Some((code, class)) => format!("FAILED after {took} ms: {code} ({}){request}", class.as_str()),
        None => format!("acknowledged by EC2 after {took} ms{request}"),
    }
}

fn request(id: Option<&RequestId>) -> String {
    id.map_or(String::new(), |id| format!("; request {id}"))
}

fn named(resources: &[&Resource]) -> String {
    let shown = resources.iter().take(MAX_NAMED_RESOURCES).map(|resource| match resource {
        Resource::Route(route) => (String::new(), Some(route)),
        Resource::Address(_) | Resource::ElasticIp(_) => (resource.to_string(), None),
    });
    let mut named = names(shown);
    if resources.len() > MAX_NAMED_RESOURCES {
        named.push(format!("{} more", resources.len() - MAX_NAMED_RESOURCES));
    }
    named.join(", ")
}

/// The state of the group, and how many resources have each verdict.
fn state(group: &GroupFailovers) -> String {
    let mut verdicts: Vec<(Verdict, usize)> = Vec::new();
    for now in &group.now {
        match verdicts.iter_mut().find(|(verdict, _)| *verdict == now.verdict) {
            Some((_, count)) => *count += 1,
            None => verdicts.push((now.verdict, 1)),
        }
    }
    let verdicts: Vec<String> = verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    if verdicts.is_empty() { group.vrrp.to_string() } else { format!("{}: {}", group.vrrp, verdicts.join(", ")) }
}

/// What is not finished, and what to do, a paragraph for each verdict and reason.
fn next_steps(text: &mut String, group: &GroupFailovers) {
    let mut steps: Vec<(Verdict, String, Vec<&Resource>)> = Vec::new();
    for now in &group.now {
        if matches!(now.verdict, Verdict::Ok | Verdict::StandbyReady | Verdict::Disabled) {
            continue;
        }
        let reason = now.reason.clone().unwrap_or_else(|| without_reason(now.verdict, &group.name));
        match steps.iter_mut().find(|(verdict, other, _)| (*verdict, other) == (now.verdict, &reason)) {
            Some((.., resources)) => resources.push(&now.resource),
            None => steps.push((now.verdict, reason, vec![&now.resource])),
        }
    }
    for (verdict, reason, resources) in steps {
        text.push('\n');
        indented(text, 0, [format!("{verdict}: {}", named(&resources))]);
        indented(text, 2, [reason]);
    }
}
