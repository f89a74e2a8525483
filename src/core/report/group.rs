//! All details of one group as plain text for a terminal of 80 columns.

use jiff::Timestamp;

use super::history::history;
use super::model::{AddressReport, ClaimReport, GroupReport, Item, OwnerReport, Report, alike, names};
use super::proof::{ProofReport, sentence};
use super::status::{
    GAP, WIDTH, ago, claim, head, label, last_claim, lines, name, newest_claim, span, tail, time, time_and_age, who,
};
use crate::model::resource::Kind;

/// The width of the labels' column, as at the top of every report.
const LABEL_WIDTH: u16 = 11;

/// The report about one group ([`Report::only`]) as text.
pub fn group(report: &Report) -> String {
    let now = report.generated_at;
    let mut text = head(report);
    for group in &report.groups {
        text.push('\n');
        rows(&mut text, group_rows(group, now));
        for address in &group.addresses {
            text.push('\n');
            let proof = report.ec2.proofs.iter().find(|proof| Some(&proof.eni) == address.eni.as_ref());
            rows(&mut text, address_rows(address, report.agent.is_some(), proof, now));
        }
        for address in &group.not_assigned {
            text.push('\n');
            let shown = format!("{}: never assigned to an ENI", address.address);
            let kernel = local(address.local, address.local_since, now);
            rows(&mut text, vec![("Address", shown), ("Kernel", kernel)]);
        }
        for items in alike(group.items().filter(|item| item.kind != Kind::Address).collect()) {
            text.push('\n');
            match &items[..] {
                [item] => rows(&mut text, item_rows(item, report.agent.is_some(), now)),
                items => rows(&mut text, many_rows(items, report.agent.is_some(), now)),
            }
        }
    }
    tail(&mut text, report);
    text.push('\n');
    text.push_str(&history(report));
    text
}

fn rows(text: &mut String, rows: Vec<(&str, String)>) {
    lines(
        text,
        [LABEL_WIDTH, WIDTH - LABEL_WIDTH - GAP],
        rows.into_iter().map(|(label, value)| [label.to_owned(), value]),
    );
}

fn group_rows(group: &GroupReport, now: Timestamp) -> Vec<(&'static str, String)> {
    let since = group.vrrp_since.map_or(String::new(), |at| format!(" since {}", time_and_age(at, now)));
    let reason = group.vrrp_reason.as_ref().map_or(String::new(), |why| format!(", {why}"));
    let claims = match (group.disabled, group.paused_until) {
        (true, _) => "disabled by `aws-vipa disable`".to_owned(),
        (false, Some(until)) => format!("PAUSED until {} ({} left)", time(until), span(until, now)),
        (false, None) if group.is_empty() => "none: nothing is moved, see below".to_owned(),
        (false, None) => "while the group is MASTER".to_owned(),
    };
    vec![("Group", name(group).into_owned()), ("VRRP", format!("{}{since}{reason}", group.vrrp)), ("Claims", claims)]
}

fn local(local: Option<bool>, since: Option<Timestamp>, now: Timestamp) -> String {
    let since = since.map_or(String::new(), |at| format!(", since {}", time_and_age(at, now)));
    match local {
        Some(true) => format!("on a local interface{since}"),
        Some(false) => format!("on no local interface{since}"),
        None => "unknown".to_owned(),
    }
}

fn address_rows(
    address: &AddressReport,
    asked: bool,
    proof: Option<&ProofReport>,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let local = local(address.local, address.local_since, now);
    // What EC2 has answered last counts.
    let proof = proof.filter(|proof| address.assign_permission_proven_at.is_none_or(|at| at < proof.answer.at));
    let permission = match (proof, address.assign_permission_proven_at) {
        (Some(proof), _) => format!("assign permission {}", sentence(proof, now)),
        (None, Some(at)) => format!("assign permission proven {}", time_and_age(at, now)),
        (None, None) if asked => "assign permission never proven".to_owned(),
        (None, None) => "only available from the agent".to_owned(),
    };
    let mut rows = item_rows(&Item::address(address), asked, now);
    rows.insert(2, ("Kernel", local));
    if let Some(elastic_ip) = &address.elastic_ip {
        let shown = format!("{}, {}: moves along", elastic_ip.public_address, elastic_ip.allocation);
        rows.insert(4, ("Elastic IP", shown));
    }
    rows.push(("IAM", permission));
    rows
}

fn item_rows(item: &Item, asked: bool, now: Timestamp) -> Vec<(&'static str, String)> {
    let label = match item.kind {
        Kind::Address => "Address",
        Kind::Route => "Route",
        Kind::ElasticIp => "Elastic IP",
    };
    let claimed = item.last_claim.zip(last_claim(item, now));
    let mut rows = vec![(label, format!("{}: {}", item.name, item.verdict))];
    rows.extend(common_rows(item, claimed, asked, now));
    if item.kind != Kind::Address {
        rows.push(("IAM", permissions(std::slice::from_ref(item), asked, now)));
    }
    rows
}

/// What is proven of the permission to claim routes or Elastic IPs.
fn permissions(items: &[Item], asked: bool, now: Timestamp) -> String {
    let proven: Vec<Timestamp> = items.iter().filter_map(|item| item.permission_proven_at).collect();
    match (proven.iter().min(), items.len()) {
        _ if !asked => "only available from the agent".to_owned(),
        (None, _) => "permission never proven".to_owned(),
        (Some(at), 1) => format!("permission proven {}", time_and_age(*at, now)),
        (Some(at), all) if proven.len() == all => {
            format!("permission proven for each, first {}", time_and_age(*at, now))
        }
        (Some(_), all) => format!("permission proven for {} of {all}", proven.len()),
    }
}

/// Routes or Elastic IPs that are alike.
fn many_rows(items: &[Item], asked: bool, now: Timestamp) -> Vec<(&'static str, String)> {
    let Some(first) = items.first() else {
        return Vec::new();
    };
    let mut rows = vec![(label(first.kind), format!("{}: {}", items.len(), first.verdict))];
    let names = names(items.iter().map(|item| (item.name.clone(), item.route)));
    rows.extend(names.into_iter().map(|names| ("", names)));
    let claimed = newest_claim(items).map(|last| (last, claim(last, now)));
    rows.extend(common_rows(first, claimed, asked, now));
    rows.push(("IAM", permissions(items, asked, now)));
    rows
}

fn common_rows(
    item: &Item,
    claimed: Option<(&ClaimReport, String)>,
    asked: bool,
    now: Timestamp,
) -> [(&'static str, String); 3] {
    let eni = item.eni.map_or("ENI unknown".to_owned(), ToString::to_string);
    let claimed = match claimed {
        Some((last, text)) => format!("{}: {text}", time(last.at)),
        None if asked => "none by this agent".to_owned(),
        None => "only available from the agent".to_owned(),
    };
    [
        ("Moves to", format!("{eni}, {}", item.interface)),
        ("Owner", item.owner.map_or("unknown".to_owned(), |o| owner(o, now))),
        ("Last claim", claimed),
    ]
}

fn owner(owner: &OwnerReport, now: Timestamp) -> String {
    let eni = owner.eni.as_ref().map_or(String::new(), |eni| format!(", {eni}"));
    let instance = match (&owner.eni, &owner.instance) {
        (Some(_), Some(instance)) => format!(" of {instance}"),
        (Some(_), None) => " of no instance".to_owned(),
        (None, _) => String::new(),
    };
    format!("{}{eni}{instance}; read {}", who(owner), ago(owner.at, now))
}
