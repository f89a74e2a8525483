//! The results of `force` as plain text for a terminal of 80 columns.

use jiff::Timestamp;

use super::command::quoted;
use super::model::{GroupReport, Item};
use super::status::{GAP, WIDTH, claim, failure, indented, lines, span, time};
use crate::model::vrrp::VrrpState;

/// The width of `255.255.255.255`.
const ADDRESS_WIDTH: u16 = 15;

/// The result of a forced claim. Each `last_claim` must be the forced claim, or absent.
pub fn claimed(group: &GroupReport, now: Timestamp) -> String {
    let mut text = String::new();
    indented(&mut text, 0, [format!("Group {}: {}", quoted(&group.name), group.vrrp)]);
    if group.is_empty() {
        indented(&mut text, 0, ["The group has nothing to claim.".to_owned()]);
    }
    let rows = group.addresses.iter().map(Item::address).map(|item| [item.name.clone(), outcome(&item, now)]);
    lines(&mut text, [ADDRESS_WIDTH, WIDTH - ADDRESS_WIDTH - GAP], rows);
    for item in group.items().filter(|item| item.local.is_none()) {
        indented(&mut text, 0, [format!("{}: {}", item.name, outcome(&item, now))]);
    }
    for command in group.items().filter(|item| !item.is_claimed()).filter_map(|item| item.command) {
        // Not wrapped, so that it can be pasted.
        text.push_str(&format!("{command}\n"));
    }
    text
}

/// How many of what the group moves are without an acknowledged claim; and how many there are.
pub fn missing(group: &GroupReport) -> (usize, usize) {
    (group.items().filter(|item| !item.is_claimed()).count(), group.items().count())
}

/// That a group is paused, and until when.
pub fn paused(group: &GroupReport, now: Timestamp) -> String {
    let mut text = String::new();
    let name = quoted(&group.name);
    let until = match group.paused_until {
        Some(until) => format!("until {} ({})", time(until), span(until, now)),
        None => "until an unknown time".to_owned(),
    };
    indented(
        &mut text,
        0,
        [format!(
            "Group {name} is paused {until}: this router claims nothing for it until then, even as MASTER. \
             `force aws-vipa resume {name}` ends the pause."
        )],
    );
    text
}

/// That the pause of a group has ended, and what follows.
pub fn resumed(group: &GroupReport) -> String {
    let mut text = String::new();
    let next = match group.vrrp {
        VrrpState::Master | VrrpState::Unknown => {
            "the agent reads the owners and, if an address of the group is on a local interface, claims what this router does not have in EC2"
        }
        VrrpState::Backup | VrrpState::Fault | VrrpState::Stop => "the agent claims for it when it becomes MASTER",
    };
    indented(&mut text, 0, [format!("Pause of group {} ended: {next}.", quoted(&group.name))]);
    text
}

fn outcome(item: &Item, now: Timestamp) -> String {
    let why = || item.reason.map_or(String::new(), |reason| format!(": {reason}"));
    match item.last_claim {
        None if item.is_claimed() => "already on this router".to_owned(),
        None => format!("no claim was sent{}", why()),
        Some(last) => match &last.error {
            Some(error) if item.reason.is_none_or(|r| !r.contains(&error.message)) => {
                format!("{}. {}", claim(last, now), failure(error))
            }
            Some(_) => format!("{}. {}", claim(last, now), item.reason.map(String::as_str).unwrap_or_default()),
            None => claim(last, now),
        },
    }
}
