//! The history as plain text for a terminal of 80 columns, oldest first, so that the newest events are next to the prompt.

use jiff::Timestamp;

use super::model::{Report, names};
use super::reasons::holder;
use super::status::{GAP, WIDTH, indented, lines, time};
use crate::model::ec2::Taker;
use crate::model::history::{Outcome, Record, RecordKind};
use crate::model::ids::RequestId;
use crate::model::resource::Resource;

/// The width of `2026-11-22 09:00:00.142`. Milliseconds, so that the histories of two routers can be compared.
const TIME_WIDTH: u16 = 23;
/// The most resources of a batch that are named; JSON has them all.
const MAX_NAMED_RESOURCES: usize = 6;

/// The history of a report as text.
pub fn history(report: &Report) -> String {
    let mut text = String::new();
    if report.agent.is_none() {
        indented(&mut text, 0, ["History: only available from the agent.".to_owned()]);
        return text;
    }
    if report.history.is_empty() {
        indented(&mut text, 0, ["History: no events yet.".to_owned()]);
        return text;
    }
    let widths = [TIME_WIDTH, WIDTH - TIME_WIDTH - GAP];
    let titles = ["Time (UTC)", "Event"].map(str::to_owned);
    lines(&mut text, widths, [titles, widths.map(|width| "-".repeat(width.into()))]);
    lines(&mut text, widths, report.history.iter().map(|record| [exact(record.time), event(record)]));
    text
}

/// A time with its milliseconds.
pub(super) fn exact(at: Timestamp) -> String {
    at.strftime("%F %T%.3f").to_string()
}

fn event(record: &Record) -> String {
    let group = record.group.as_ref().map_or("", |g| g.as_str());
    let resources = resources(&record.resources.0);
    let mut text = match &record.kind {
        RecordKind::Started { version } => format!("agent started, version {version}"),
        RecordKind::Transition { from, to, cause } if from == to => format!("{group}: {to}, {cause}"),
        RecordKind::Transition { from, to, cause } => format!("{group}: {from} -> {to}, {cause}"),
        RecordKind::Forced => format!("{group}: claim forced by an operator"),
        RecordKind::Claim { eni, previous, duration_ms, outcome } => {
            let (what, why, id) = match outcome {
                Outcome::Acknowledged { request_id } => ("claimed in", String::new(), request_id),
                Outcome::Failed { error } => ("NOT CLAIMED after", format!(": {error}"), &error.request_id),
            };
            let before = match previous {
                Some(owner) if owner.eni == *eni => ", which already had it".to_owned(),
                Some(owner) => format!(", previous owner {}", holder(owner)),
                None => ", previous owner unknown".to_owned(),
            };
            format!("{resources} {what} {duration_ms} ms for {eni}{before}{why}{}", request(id.as_ref()))
        }
        RecordKind::OwnershipLost { by, .. } => format!("{resources} ({group}) LOST to {}", holder(by)),
        RecordKind::Contested { by, taker: Taker::Peer } => {
            format!("{resources} ({group}) CONTESTED: both routers are MASTER; last lost to {}", holder(by))
        }
        RecordKind::Contested { by, taker: Taker::ThirdParty } => {
            format!("{resources} ({group}) CONTESTED: lost several times, last to {}", holder(by))
        }
        RecordKind::ContestedEnded { .. } => format!("{resources} ({group}) no longer contested"),
        RecordKind::NotLocal if record.resources.0.iter().all(|resource| resource.address().is_some()) => {
            format!("{resources} ({group}) not claimed: it is on no local interface")
        }
        RecordKind::NotLocal => {
            format!("{resources} ({group}) not claimed: the group's address is on no local interface")
        }
        RecordKind::NotTakeable { why } => format!("{resources} ({group}) not claimed: {why}"),
        RecordKind::Readiness { obstacle: Some(obstacle) } => format!("{group}: standby NOT READY: {obstacle}"),
        RecordKind::Readiness { obstacle: None } => format!("{group}: standby ready"),
        RecordKind::Unresolved { interface, error } => format!("ENI of {interface} unknown: {error}"),
    };
    if let Some(since) = record.since {
        let times = if record.times > 1 { format!("{} times ", record.times) } else { String::new() };
        text.push_str(&format!(" ({times}since {})", time(since)));
    }
    text
}

fn resources(all: &[Resource]) -> String {
    let named = all.iter().take(MAX_NAMED_RESOURCES).map(|resource| match resource {
        Resource::Route(route) => (String::new(), Some(route)),
        Resource::Address(_) | Resource::ElasticIp(_) => (resource.to_string(), None),
    });
    let mut named = names(named);
    if all.len() > MAX_NAMED_RESOURCES {
        named.push(format!("{} more", all.len() - MAX_NAMED_RESOURCES));
    }
    named.join(", ")
}

fn request(id: Option<&RequestId>) -> String {
    id.map_or(String::new(), |id| format!("; request {id}"))
}
