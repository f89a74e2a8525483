//! The status report as plain text for a terminal of 80 columns.
//!
//! First the agent, the hook and EC2, then the owner of each address, then what needs attention and what to do.

use std::borrow::Cow;
use std::fmt::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use jiff::{SignedDuration, Timestamp};

use super::clock_skew;
use super::command::{ClaimCommand, quoted};
use super::model::{
    AddressReport, ClaimReport, FailedCall, FileErrorKind, GroupReport, Item, OwnerReport, Report, alike, names,
};
use super::{reasons, remedies};
use crate::model::resource::Kind;
use crate::model::verdict::{Verdict, Who};
use crate::printable;

/// The widths of an address's columns: `255.255.255.255`, twice `eni-0123456789abcdef0`, and `STANDBY-NOT-READY`. With the
/// gaps they make 80.
const COLUMNS: [u16; 4] = [15, 21, 21, 17];
pub(crate) const GAP: u16 = 2;
pub(crate) const WIDTH: u16 = 80;

/// The verdicts, those that need attention first.
const VERDICTS: [Verdict; 9] = [
    Verdict::Drift,
    Verdict::Contested,
    Verdict::Claiming,
    Verdict::StandbyNotReady,
    Verdict::Unknown,
    Verdict::Paused,
    Verdict::Disabled,
    Verdict::Ok,
    Verdict::StandbyReady,
];

/// The report as text. Control characters in names and messages are escaped.
pub fn table(report: &Report) -> String {
    let mut text = head(report);
    if !report.groups.is_empty() {
        text.push('\n');
    }
    if report.groups.iter().any(|g| !g.is_empty()) {
        let first = if has_others(report) { "Resource" } else { "Address" };
        let titles = [first, "Interface / local", "Owner in EC2 / read", "Verdict"].map(str::to_owned);
        lines(&mut text, COLUMNS, [titles, COLUMNS.map(|width| "-".repeat(width.into()))]);
    }
    for (i, group) in report.groups.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        group_lines(&mut text, group, report.generated_at);
    }
    tail(&mut text, report);
    text
}

/// What needs attention, and what to do.
pub(super) fn tail(text: &mut String, report: &Report) {
    for group in report.groups.iter().filter(|g| !g.errors.is_empty()) {
        text.push('\n');
        indented(text, 0, [format!("Group {}", name(group))]);
        indented(text, 2, group.errors.iter().cloned());
    }
    for notice in notices(report) {
        notice_lines(text, &notice);
    }
}

pub(super) fn head(report: &Report) -> String {
    let now = report.generated_at;
    let ec2 = &report.ec2;
    let mut rows: Vec<(&str, String)> = vec![("As of", time(now))];
    match (&report.agent, &report.agent_error) {
        (Some(agent), _) => {
            let since = agent.since;
            let version = &agent.version;
            rows.push(("Agent", format!("running since {}, version {version}", time_and_age(since, now))));
            rows.extend(agent.file_error.iter().map(|e| {
                let kind = agent.file_error_kind.unwrap_or(FileErrorKind::UsingPrevious);
                let (effect, remedy) = reasons::file_error(kind);
                ("", format!("{}: {e}. {remedy}", effect.to_uppercase()))
            }));
        }
        (None, why) => {
            let why = why.as_deref().unwrap_or("reason unknown");
            rows.push(("Agent", format!("NO ANSWER: {why}")));
        }
    }
    rows.push(("Hook", hook(report)));
    // Only the agent counts it.
    rows.extend(report.agent.iter().map(|_| ("", pipe(report.hook.fifo_full_count))));
    let region = ec2.region.as_ref().map_or("region unknown", |r| r.as_str());
    let success = match ec2.last_success_at {
        Some(at) => format!("last successful call {}", ago(at, now)),
        None => "no successful call".to_owned(),
    };
    let endpoint = ec2.endpoint_url.iter().map(|url| format!(" at {url}")).collect::<String>();
    rows.push(("EC2", format!("{region}{endpoint}, {success}")));
    if let Some(error) = &ec2.last_error {
        rows.push(("", format!("LAST CALL FAILED {}: {}", ago(error.at, now), failure(error))));
        rows.extend(remedy(error).map(|remedy| ("", remedy)));
    }
    rows.extend(ec2.clock_skew.filter(|s| *s != 0).map(|skew| {
        let off = clock_skew::skew(SignedDuration::from_secs(skew), now);
        ("", format!("CLOCK IS {off}: check `show ntp`"))
    }));
    rows.push(("Credentials", credentials(report)));
    rows.extend(ec2.credentials_error.iter().map(|e| ("", format!("CANNOT LOAD CREDENTIALS: {e}"))));
    rows.push(("Instance", ec2.instance.as_ref().map_or("unknown".to_owned(), ToString::to_string)));
    rows.extend(report.not_answered.iter().map(|what| ("No answer", what.clone())));
    rows.extend(summaries(report));
    let mut text = String::new();
    lines(&mut text, [11, WIDTH - 11 - GAP], rows.into_iter().map(|(label, value)| [label.to_owned(), value]));
    text
}

fn hook(report: &Report) -> String {
    let now = report.generated_at;
    let hook = &report.hook;
    let since = |word: &str| match hook.since {
        Some(at) => format!("{word} since {}", time_and_age(at, now)),
        None => word.to_owned(),
    };
    let mut text = match hook.attached {
        Some(true) => since("attached to keepalived"),
        Some(false) => {
            let state = since("NOT ATTACHED");
            return format!("{state}: keepalived does not have the FIFO open; {}", remedies::ATTACH_HOOK);
        }
        None => "unknown whether keepalived has the FIFO open".to_owned(),
    };
    match hook.last_notify_event_at {
        Some(at) => text.push_str(&format!("; last notify event read {}", ago(at, now))),
        None if report.agent.is_some() => text.push_str("; no notify event read yet"),
        None => {}
    }
    if let Some(at) = hook.last_activity_at {
        text.push_str(&format!("; last keepalived activity {}", ago(at, now)));
    }
    text
}

/// How often the FIFO was full since the agent started.
fn pipe(times_full: u64) -> String {
    let times = match times_full {
        0 => return "FIFO never full".to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    format!("FIFO WAS FULL {times}: notify events may be lost")
}

fn credentials(report: &Report) -> String {
    let now = report.generated_at;
    let ec2 = &report.ec2;
    let loaded = match ec2.credentials_loaded_at {
        Some(at) => format!(", loaded {}", ago(at, now)),
        None if report.agent.is_some() => ", not loaded".to_owned(),
        None => String::new(),
    };
    let end = match ec2.credentials_expire_at {
        Some(at) if at <= now => format!(", EXPIRED {}", ago(at, now)),
        Some(at) => format!(", expire in {}", span(at, now)),
        None => String::new(),
    };
    format!("{}{loaded}{end}", ec2.credentials)
}

/// What to do about a failed call.
fn remedy(error: &FailedCall) -> Option<String> {
    remedies::remedy(&error.failure()?).map(|remedy| remedies::capitalized(remedy) + ".")
}

fn has_others(report: &Report) -> bool {
    report.groups.iter().any(|group| !group.routes.is_empty() || !group.elastic_ips.is_empty())
}

/// For each kind: `50 in 50 groups: 1 DRIFT, 49 OK`.
fn summaries(report: &Report) -> Vec<(&'static str, String)> {
    let of_kind = |kind: Kind| {
        let verdicts_of = |group: &GroupReport| -> Vec<Verdict> {
            group.items().filter(|item| item.kind == kind).map(|item| item.verdict).collect()
        };
        let verdicts: Vec<Vec<Verdict>> = report.groups.iter().map(verdicts_of).collect();
        let groups = match kind {
            Kind::Address if !has_others(report) => report.groups.len(),
            _ => verdicts.iter().filter(|of_group| !of_group.is_empty()).count(),
        };
        let groups = format!("{groups} {}", if groups == 1 { "group" } else { "groups" });
        let verdicts = verdicts.concat();
        let counts: Vec<String> = VERDICTS
            .iter()
            .map(|v| (verdicts.iter().filter(|other| *other == v).count(), v))
            .filter(|(count, _)| *count > 0)
            .map(|(count, verdict)| format!("{count} {verdict}"))
            .collect();
        if counts.is_empty() {
            (kind == Kind::Address && !has_others(report)).then(|| (label(kind), format!("none in {groups}")))
        } else {
            Some((label(kind), format!("{} in {groups}: {}", verdicts.len(), counts.join(", "))))
        }
    };
    Kind::ALL.into_iter().filter_map(of_kind).collect()
}

/// What several of a kind are called at the start of a line.
pub(super) fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "Addresses",
        Kind::Route => "Routes",
        Kind::ElasticIp => "Elastic IPs",
    }
}

fn group_lines(text: &mut String, group: &GroupReport, now: Timestamp) {
    let mut title = format!("Group {}: ", name(group));
    match (group.is_empty(), group.disabled) {
        (_, true) => title.push_str("disabled"),
        (true, false) => title.push_str("nothing is moved, see below"),
        (false, false) => {
            let _ = write!(title, "{}", group.vrrp);
            if let Some(since) = group.vrrp_since {
                title.push_str(&format!(" for {}", span(now, since)));
            }
            if let Some(reason) = &group.vrrp_reason {
                title.push_str(&format!(", {reason}"));
            }
        }
    }
    if let Some(until) = group.paused_until {
        title.push_str(&format!(", PAUSED until {} ({} left)", time(until), span(until, now)));
    }
    if let Some(why) = &group.pause_not_saved {
        title.push_str(&format!(", NOT SAVED (lost when the agent restarts): {why}"));
    }
    indented(text, 0, [title]);
    for address in &group.addresses {
        address_lines(text, address, now);
    }
    for address in &group.not_assigned {
        let here = format!("{} / {}", address.interface, local(address.local, address.local_since, now));
        lines(text, COLUMNS, [[address.address.to_string(), here, "not on an ENI".to_owned(), String::new()]]);
    }
    for items in alike(group.items().filter(|item| item.kind != Kind::Address).collect()) {
        match &items[..] {
            [item] => {
                indented(text, 0, [item.name.clone()]);
                columns(text, item, String::new(), item.interface.to_string(), now);
                let standby = matches!(item.verdict, Verdict::StandbyReady | Verdict::StandbyNotReady);
                let permission = standby.then(|| match item.permission_proven_at {
                    Some(at) => format!("permission proven {}", time(at)),
                    None => "permission never proven".to_owned(),
                });
                indented(text, 2, last_claim(item, now).into_iter().chain(permission));
            }
            items => many_lines(text, group, items, now),
        }
    }
}

/// Routes or Elastic IPs that are alike.
fn many_lines(text: &mut String, group: &GroupReport, items: &[Item], now: Timestamp) {
    let Some(first) = items.first() else {
        return;
    };
    let what = match first.kind {
        Kind::Address => "addresses",
        Kind::Route => "routes",
        Kind::ElasticIp => "Elastic IPs",
    };
    columns(text, first, format!("{} {what}", items.len()), first.interface.to_string(), now);
    let claimed = newest_claim(items).map(|claim| format!("last claimed {}", ago(claim.at, now)));
    let listed = format!("`show aws-vipa group {}` lists them", quoted(&group.name));
    indented(text, 2, [claimed.into_iter().chain([listed]).collect::<Vec<_>>().join("; ")]);
}

/// The newest claim that was acknowledged.
pub(super) fn newest_claim<'a>(items: &[Item<'a>]) -> Option<&'a ClaimReport> {
    let claims = items.iter().filter(|item| item.is_claimed()).filter_map(|item| item.last_claim);
    claims.max_by_key(|claim| claim.at)
}

/// The columns of an item: its name, its interface and ENI, its owner, its verdict.
fn columns(text: &mut String, item: &Item, name: String, interface: String, now: Timestamp) {
    let here = [interface, item.eni.map_or("ENI unknown".to_owned(), ToString::to_string)];
    let owner = item.owner.map_or(vec!["unknown".to_owned()], |o| owner(o, now));
    let cell = |cells: &[String], i: usize| cells.get(i).cloned().unwrap_or_default();
    let rows = (0..here.len().max(owner.len())).map(|i| {
        let (first, last) =
            if i == 0 { (name.clone(), item.verdict.to_string()) } else { (String::new(), String::new()) };
        [first, cell(&here, i), cell(&owner, i), last]
    });
    lines(text, COLUMNS, rows);
}

/// Whether an address is on a local interface, and since when.
fn local(local: Option<bool>, since: Option<Timestamp>, now: Timestamp) -> String {
    let word = match local {
        Some(true) => "yes",
        Some(false) => "no",
        None => return "unknown".to_owned(),
    };
    since.map_or(word.to_owned(), |at| format!("{word}, {}", span(now, at)))
}

fn address_lines(text: &mut String, address: &AddressReport, now: Timestamp) {
    let local = local(address.local, address.local_since, now);
    let item = Item::address(address);
    columns(text, &item, item.name.clone(), format!("{} / {local}", address.interface), now);
    let elastic_ip = address.elastic_ip.as_ref();
    let elastic_ip = elastic_ip.map(|ip| format!("Elastic IP {} ({})", ip.public_address, ip.allocation));
    let permission = match (address.verdict, address.assign_permission_proven_at) {
        (Verdict::StandbyReady | Verdict::StandbyNotReady, Some(at)) => {
            Some(format!("assign permission proven {}", time(at)))
        }
        (Verdict::StandbyReady | Verdict::StandbyNotReady, None) => Some("assign permission never proven".to_owned()),
        _ => None,
    };
    indented(text, 2, elastic_ip.into_iter().chain(last_claim(&item, now)).chain(permission));
}

/// A group's name, in quotes if it is empty or has blanks or control characters: the name of a skipped group may be any text.
pub(super) fn name(group: &GroupReport) -> Cow<'_, str> {
    let name = &group.name;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Cow::Owned(format!("\"{name}\""))
    } else {
        Cow::Borrowed(name)
    }
}

pub(super) fn who(owner: &OwnerReport) -> &str {
    if let Some(instead) = &owner.instead_of_eni {
        return instead;
    }
    match owner.who {
        Who::ThisRouter => "this router",
        Who::ThisRouterOtherEni => "this router's other ENI",
        Who::OtherRouter => "other router",
        Who::ThirdParty => "third party",
        Who::Unassigned => "unassigned",
        Who::Unknown => "unknown",
    }
}

fn owner(owner: &OwnerReport, now: Timestamp) -> Vec<String> {
    let (who, read) = (who(owner), ago(owner.at, now));
    let first = match owner.instead_of_eni {
        // The id of a gateway is as wide as the column.
        Some(_) => vec![who.to_owned(), format!("read {read}")],
        None => vec![format!("{who} / {read}")],
    };
    let ours = matches!(owner.who, Who::ThisRouter | Who::ThisRouterOtherEni);
    let instance = match (&owner.eni, &owner.instance) {
        (Some(_), Some(instance)) if !ours => Some(instance.to_string()),
        (Some(_), None) => Some("no instance".to_owned()),
        _ => None,
    };
    let eni = owner.eni.as_ref().map(ToString::to_string);
    first.into_iter().chain(eni).chain(instance).collect()
}

pub(super) fn claim(claim: &ClaimReport, now: Timestamp) -> String {
    let request = claim.request_id.as_ref().or(claim.error.as_ref().and_then(|e| e.request_id.as_ref()));
    let request = request.map_or(String::new(), |id| format!(", request {id}"));
    let when = ago(claim.at, now);
    match (&claim.error, claim.duration_ms) {
        (None, None) => format!("claim sent {when}, no answer yet"),
        (None, Some(ms)) => format!("claimed {when} in {ms} ms{request}"),
        (Some(error), Some(ms)) => format!("claim failed {when} after {ms} ms: {}{request}", error.code),
        (Some(error), None) => format!("claim failed {when}: {}{request}", error.code),
    }
}

/// The last claim; while it is in flight, also the failure before it.
pub(super) fn last_claim(item: &Item, now: Timestamp) -> Option<String> {
    let last = item.last_claim?;
    let failed = item.last_failure.filter(|_| last.duration_ms.is_none() && last.error.is_none());
    let failed = failed.map(|f| format!("; the previous one failed {}: {}", ago(f.at, now), f.code));
    let other = last.eni.as_ref().filter(|eni| item.eni.is_some_and(|ours| ours != *eni));
    let other = other.map_or(String::new(), |eni| format!(", for {eni}"));
    Some(claim(last, now) + &other + &failed.unwrap_or_default())
}

pub(super) fn failure(failure: &FailedCall) -> String {
    let request = failure.request_id.as_ref().map_or(String::new(), |id| format!(" (request {id})"));
    format!("{}: {}{request}", failure.code, failure.message)
}

/// A paragraph below the table: a problem, the addresses, routes and Elastic IPs that have it, and what to do.
struct Notice<'a> {
    verdict: Verdict,
    /// Those that have it, a list for each group.
    items: Vec<(&'a GroupReport, Vec<Item<'a>>)>,
    text: Vec<String>,
    commands: Vec<&'a ClaimCommand>,
}

/// What needs attention. What has the same verdict and the same reason shares a paragraph.
fn notices(report: &Report) -> Vec<Notice<'_>> {
    let mut notices: Vec<Notice> = Vec::new();
    for verdict in VERDICTS {
        let says_all = matches!(verdict, Verdict::Ok | Verdict::StandbyReady | Verdict::Disabled);
        let all = report.groups.iter().flat_map(|g| g.items().map(move |item| (g, item)));
        for (group, item) in all.filter(|(_, a)| a.verdict == verdict && !(says_all && a.reason.is_none())) {
            let text = what_to_know(group, &item);
            let place = notices.iter().position(|n| n.verdict == verdict && n.text == text).unwrap_or_else(|| {
                notices.push(Notice { verdict, items: Vec::new(), text, commands: Vec::new() });
                notices.len() - 1
            });
            let notice = &mut notices[place];
            if let Some(command) = item.command.filter(|c| !notice.commands.contains(c)) {
                notice.commands.push(command);
            }
            match notice.items.last_mut() {
                Some((last, items)) if last.name == group.name => items.push(item),
                _ => notice.items.push((group, vec![item])),
            }
        }
    }
    notices
}

fn notice_lines(text: &mut String, notice: &Notice) {
    let whose = notice.items.iter().map(|(group, items)| {
        let names = names(items.iter().map(|item| (item.name.clone(), item.route)));
        format!("{} ({})", names.join(", "), name(group))
    });
    text.push('\n');
    indented(text, 0, [format!("{}: {}", notice.verdict, whose.collect::<Vec<_>>().join("; "))]);
    indented(text, 2, notice.text.iter().cloned());
    if !notice.commands.is_empty() {
        indented(text, 2, ["To claim by hand, where the AWS CLI has credentials:".to_owned()]);
    }
    for command in &notice.commands {
        // Not wrapped, so that it can be pasted.
        text.push_str(&format!("  {command}\n"));
    }
}

fn what_to_know(group: &GroupReport, item: &Item) -> Vec<String> {
    let reason = item.reason.cloned().unwrap_or_else(|| without_reason(item.verdict, &group.name));
    let error = item.last_claim.and_then(|c| c.error.as_ref());
    let error = error.filter(|e| !reason.contains(&e.message)).map(|e| format!("Last claim: {}", failure(e)));
    [reason].into_iter().chain(error).collect()
}

/// The text for a verdict without a reason.
pub(super) fn without_reason(verdict: Verdict, group: &str) -> String {
    let name = quoted(group);
    match verdict {
        Verdict::Claiming => "A claim is in flight, and is repeated until EC2 confirms it.".to_owned(),
        Verdict::Drift => format!(
            "VRRP and EC2 disagree about the owner. Check `show vrrp` on both routers; on the MASTER, `force aws-vipa claim {name}` claims at once."
        ),
        Verdict::Contested => format!(
            "Lost several times. Check `show vrrp` on both routers: only one may be MASTER. Then run `force aws-vipa claim {name}` on that one."
        ),
        Verdict::Paused => format!("An operator paused the group. `force aws-vipa resume {name}` ends the pause."),
        Verdict::StandbyNotReady => "A failover to this router would fail. Check `show log aws-vipa`.".to_owned(),
        _ => "No reliable information is available. Check `show vrrp` and `show log aws-vipa`.".to_owned(),
    }
}

/// Rows of a table; a long cell is wrapped within its column.
pub(crate) fn lines<const N: usize>(text: &mut String, widths: [u16; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| printable::line(&cell).into_owned())));
    for (i, (column, width)) in table.column_iter_mut().zip(widths).enumerate() {
        let gap = if i + 1 < N { GAP } else { 0 };
        column.set_padding((0, gap)).set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + gap)));
    }
    push(text, &table);
}

/// Lines over the whole width, wrapped and indented.
pub fn indented(text: &mut String, indent: u16, rows: impl IntoIterator<Item = String>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.add_rows(rows.into_iter().map(|row| [printable::line(&row).into_owned()]));
    if let Some(column) = table.column_mut(0) {
        column.set_padding((indent, 0));
    }
    push(text, &table);
}

fn push(text: &mut String, table: &Table) {
    if table.row_count() > 0 {
        text.push_str(&table.trim_fmt());
        text.push('\n');
    }
}

pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

pub(super) fn time_and_age(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time(at), span(now, at))
}

pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now, at))
}

/// From one time to a later one, in its two largest units: `2d 3h`, `2h 3m`, `2m 5s`, `5s`; `0s` if it is not later.
pub(crate) fn span(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = later.duration_since(earlier).as_secs().max(0);
    let units = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let largest = units.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let two: Vec<String> = units[largest..].iter().take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    two.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let start = Timestamp::UNIX_EPOCH;
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (5, "5s"),
            (60, "1m 0s"),
            (125, "2m 5s"),
            (7_385, "2h 3m"),
            (86_400, "1d 0h"),
            (8_640_000, "100d 0h"),
        ] {
            let later = Timestamp::from_second(seconds).expect("a time");
            assert_eq!(span(later, start), text);
        }
    }
}
