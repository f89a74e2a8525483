//! The status report: what the agent answers on its socket, and what `show status --json` prints.
//!
//! Its shape is stable: fields are added, never renamed or removed, while `format` stays 1. Times are RFC 3339 in UTC.
//! A fact is a value and the time at which it was true; its age is `generated_at` minus that time.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::ClaimCommand;
use super::proof::ProofReport;
use crate::model::calls::Outcomes;
use crate::model::ec2::{CallError, ErrorClass, Failure};
use crate::model::history::{Record, RecordKind};
use crate::model::ids::{AllocationId, EniId, GroupName, InstanceId, InterfaceName, Region, RequestId, RouteTableId};
use crate::model::resource::{ElasticIp, Kind, Resource, Route};
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::VrrpState;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`](crate::FORMAT).
    pub format: u64,
    /// When this was put together.
    pub generated_at: Timestamp,
    /// About the agent; absent if it did not answer, and then `agent_error` says why.
    pub agent: Option<AgentReport>,
    /// Why the agent did not answer.
    pub agent_error: Option<String>,
    /// What did not answer while this report was made, and why, a sentence each.
    #[serde(default)]
    pub not_answered: Vec<String>,
    /// About the transition hook in keepalived.
    pub hook: HookReport,
    /// About this instance and its calls of EC2.
    pub ec2: Ec2Report,
    /// The groups that have an `aws-vipa` node, in the order of their names.
    pub groups: Vec<GroupReport>,
    /// The history, oldest first, if it was requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Record>,
}

/// The running agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// The version of the package that it is from.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub since: Timestamp,
    /// Why it could not load the present config.json or groups.json, if so.
    pub file_error: Option<String>,
    /// The effect of `file_error`; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_error_kind: Option<FileErrorKind>,
}

/// The effect of a file that the agent cannot load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileErrorKind {
    /// The agent keeps the previous version.
    UsingPrevious,
    /// The agent has never loaded it, and claims nothing.
    NoConfiguration,
    /// A newer version of the package wrote it. The agent keeps the previous version, or claims nothing.
    Newer,
}

/// The transition hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookReport {
    /// Whether keepalived holds the FIFO open; absent if unknown.
    pub attached: Option<bool>,
    /// Since when that is so.
    pub since: Option<Timestamp>,
    /// When the last notify event was read.
    pub last_notify_event_at: Option<Timestamp>,
    /// The last keepalived activity: a notify event, or its VRRP process running.
    pub last_activity_at: Option<Timestamp>,
    /// How often the FIFO was full: notify events may be lost.
    pub fifo_full_count: u64,
}

/// The instance and its calls of EC2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ec2Report {
    /// This instance, from IMDS.
    pub instance: Option<InstanceId>,
    /// The region that is called.
    pub region: Option<Region>,
    /// The endpoint, if one is configured.
    pub endpoint_url: Option<String>,
    /// Where the credentials come from, e.g. `instance role router` or `file /config/aws/credentials, profile default`.
    pub credentials: String,
    /// When they were loaded.
    pub credentials_loaded_at: Option<Timestamp>,
    /// When they expire.
    pub credentials_expire_at: Option<Timestamp>,
    /// Why the last attempt to load them failed, if it did, and what to do; earlier ones may still be in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_error: Option<String>,
    /// The last call that EC2 answered with success.
    pub last_success_at: Option<Timestamp>,
    /// The last failure, if it is newer than the last success.
    pub last_error: Option<FailedCall>,
    /// EC2's clock minus this router's, in seconds; 0 if they differ by a few at most. Absent: not known yet.
    pub clock_skew: Option<i64>,
    /// What `force prove` has shown of the permission to assign addresses, by ENI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<ProofReport>,
    /// The agent's calls since its start, by the name of the operation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallsReport>,
}

/// The calls of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsReport {
    /// The API operation, e.g. `ReplaceRoute`.
    pub operation: String,
    /// How many calls had each outcome.
    #[serde(flatten)]
    pub outcomes: Outcomes,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedCall {
    /// When it failed.
    pub at: Timestamp,
    /// What the failure means for the next attempt.
    pub class: ErrorClass,
    /// EC2's error code, or the product's word for a failure without one.
    pub code: String,
    /// The message of EC2, IMDS or the transport.
    pub message: String,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
}

impl FailedCall {
    /// The failure of a call at this time.
    pub fn new(at: Timestamp, error: &CallError) -> Self {
        Self {
            at,
            class: error.class(),
            code: error.code().to_owned(),
            message: error.message.clone(),
            request_id: error.request_id.clone(),
        }
    }

    /// What failed; absent if the code is not a valid one.
    pub(crate) fn failure(&self) -> Option<Failure> {
        Some(Failure::of(self.code.as_str().try_into().ok()?, self.class))
    }
}

/// The state of one group that has an `aws-vipa` node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name; for a skipped group as configured, even if keepalived cannot use it.
    pub name: String,
    /// Its VRRP state on this router.
    pub vrrp: VrrpState,
    /// Since when, as far as the agent knows.
    pub vrrp_since: Option<Timestamp>,
    /// Why the state is UNKNOWN.
    pub vrrp_reason: Option<String>,
    /// Whether the group is disabled by `aws-vipa disable`.
    pub disabled: bool,
    /// Until when an operator has paused it.
    pub paused_until: Option<Timestamp>,
    /// Why the pause, or its end, is not on disk, if so: a restart of the agent would lose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_not_saved: Option<String>,
    /// The configuration errors because of which the group, or some of what it moves, are skipped.
    pub errors: Vec<String>,
    /// The addresses that it moves.
    pub addresses: Vec<AddressReport>,
    /// The virtual addresses that are never assigned to an ENI: overlay addresses, and all with `no-address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_assigned: Vec<LocalAddressReport>,
    /// The routes that it moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteReport>,
    /// The Elastic IPs that it moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elastic_ips: Vec<ElasticIpReport>,
}

impl GroupReport {
    /// Whether it moves nothing.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.routes.is_empty() && self.elastic_ips.is_empty()
    }

    /// What it moves: addresses, routes, Elastic IPs.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let routes = self.routes.iter().map(Item::route);
        let elastic_ips = self.elastic_ips.iter().map(Item::elastic_ip);
        self.addresses.iter().map(Item::address).chain(routes).chain(elastic_ips)
    }

    /// What it moves, and the interface whose ENI gets it.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (Resource, &InterfaceName)> {
        let addresses = self.addresses.iter().map(|a| (Resource::Address(a.address), &a.interface));
        let routes = self.routes.iter().map(|r| (Resource::Route(r.route.clone()), &r.state.interface));
        let elastic_ips = self.elastic_ips.iter();
        let elastic_ips = elastic_ips.map(|e| (Resource::ElasticIp(e.allocation.clone()), &e.state.interface));
        addresses.chain(routes).chain(elastic_ips)
    }
}

/// A virtual address that is never assigned to an ENI. On its interface it shows that the group is MASTER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddressReport {
    /// The address, which the VRRP master has.
    pub address: Ipv4Addr,
    /// The interface that keepalived adds it to.
    pub interface: InterfaceName,
    /// Whether it is on a local interface; absent if unknown.
    pub local: Option<bool>,
    /// Since when it is, or is not, as far as the agent has seen it.
    pub local_since: Option<Timestamp>,
}

/// The state of one route of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The route table and the destination.
    #[serde(flatten)]
    pub route: Route,
    /// Where it leads, and the state of its claim.
    #[serde(flatten)]
    pub state: ResourceReport,
}

/// The state of one Elastic IP of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElasticIpReport {
    /// The id by which EC2 knows it.
    pub allocation: AllocationId,
    /// Its public address, while it is associated with a private one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<Ipv4Addr>,
    /// The private address that it is to be associated with, once it is known.
    pub private_address: Option<Ipv4Addr>,
    /// Where it is associated, and the state of its claim.
    #[serde(flatten)]
    pub state: ResourceReport,
}

/// One thing that a group moves, as the texts name it and show it.
pub(crate) struct Item<'a> {
    pub kind: Kind,
    pub name: String,
    pub route: Option<&'a Route>,
    pub interface: &'a InterfaceName,
    pub eni: Option<&'a EniId>,
    /// For an address: whether it is on a local interface, and since when.
    pub local: Option<(Option<bool>, Option<Timestamp>)>,
    pub owner: Option<&'a OwnerReport>,
    /// For a route or an Elastic IP: when the permission to claim it was last proven.
    pub permission_proven_at: Option<Timestamp>,
    pub verdict: Verdict,
    pub reason: Option<&'a String>,
    pub last_claim: Option<&'a ClaimReport>,
    pub last_failure: Option<&'a FailedCall>,
    pub command: Option<&'a ClaimCommand>,
}

impl<'a> Item<'a> {
    pub fn address(address: &'a AddressReport) -> Self {
        Self {
            kind: Kind::Address,
            name: address.address.to_string(),
            route: None,
            interface: &address.interface,
            eni: address.eni.as_ref(),
            local: Some((address.local, address.local_since)),
            owner: address.owner.as_ref(),
            permission_proven_at: None,
            verdict: address.verdict,
            reason: address.reason.as_ref(),
            last_claim: address.last_claim.as_ref(),
            last_failure: address.last_failure.as_ref(),
            command: address.command.as_ref(),
        }
    }

    pub fn route(route: &'a RouteReport) -> Self {
        Self { route: Some(&route.route), ..Self::other(Kind::Route, route.route.to_string(), &route.state) }
    }

    pub fn elastic_ip(elastic_ip: &'a ElasticIpReport) -> Self {
        let on = elastic_ip.private_address.map_or_else(String::new, |address| format!(" on {address}"));
        let public = elastic_ip.public_address.map_or_else(String::new, |address| format!(" ({address})"));
        Self::other(Kind::ElasticIp, format!("{}{public}{on}", elastic_ip.allocation), &elastic_ip.state)
    }

    fn other(kind: Kind, name: String, state: &'a ResourceReport) -> Self {
        Self {
            kind,
            name,
            route: None,
            interface: &state.interface,
            eni: state.eni.as_ref(),
            local: None,
            owner: state.owner.as_ref(),
            permission_proven_at: state.permission_proven_at,
            verdict: state.verdict,
            reason: state.reason.as_ref(),
            last_claim: state.last_claim.as_ref(),
            last_failure: state.last_failure.as_ref(),
            command: None,
        }
    }

    /// Whether the last claim was acknowledged; for an Elastic IP also whether it needs none.
    pub fn is_claimed(&self) -> bool {
        match self.last_claim {
            Some(claim) => claim.error.is_none() && claim.duration_ms.is_some(),
            None => self.local.is_none() && self.verdict == Verdict::Ok,
        }
    }

    /// Whether one text describes both, but for their names, claims and the times of reads.
    fn is_like(&self, other: &Self) -> bool {
        let owner = |item: &Self| item.owner.map(|owner| OwnerReport { at: Timestamp::default(), ..owner.clone() });
        (self.kind, self.interface, self.eni, self.verdict, self.reason)
            == (other.kind, other.interface, other.eni, other.verdict, other.reason)
            && owner(self) == owner(other)
    }
}

/// How many routes or Elastic IPs of a group that are alike are described one by one.
const MAX_SHOWN_ALIKE: usize = 4;

/// Routes and Elastic IPs, in their order: more than [`MAX_SHOWN_ALIKE`] that are alike in one list, each other one on its own.
pub(crate) fn alike(items: Vec<Item<'_>>) -> Vec<Vec<Item<'_>>> {
    let mut lists: Vec<Vec<(usize, Item)>> = Vec::new();
    for (n, item) in items.into_iter().enumerate() {
        match lists.iter_mut().find(|list| list[0].1.is_like(&item)) {
            Some(list) => list.push((n, item)),
            None => lists.push(vec![(n, item)]),
        }
    }
    let (many, few): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| list.len() > MAX_SHOWN_ALIKE);
    let mut lists: Vec<_> = many.into_iter().chain(few.into_iter().flatten().map(|item| vec![item])).collect();
    lists.sort_by_key(|list| list[0].0);
    lists.into_iter().map(|list| list.into_iter().map(|(_, item)| item).collect()).collect()
}

/// What is listed in a text: the routes of one table share its id, as in `10.0.0.0/8, 10.1.0.0/16 in rtb-…`.
pub(crate) fn names<'a>(all: impl IntoIterator<Item = (String, Option<&'a Route>)>) -> Vec<String> {
    let mut lists: Vec<(Option<&RouteTableId>, Vec<String>)> = Vec::new();
    for (name, route) in all {
        let table = route.map(|route| &route.table);
        let name = route.map_or(name, |route| route.destination.to_string());
        match lists.iter_mut().find(|(other, _)| table.is_some() && *other == table) {
            Some((_, names)) => names.push(name),
            None => lists.push((table, vec![name])),
        }
    }
    let list = |(table, names): (Option<&RouteTableId>, Vec<String>)| {
        let of_table = table.map_or_else(String::new, |table| format!(" in {table}"));
        names.join(", ") + &of_table
    };
    lists.into_iter().map(list).collect()
}

/// What is known of a route or an Elastic IP; as in [`AddressReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// The interface whose ENI gets it.
    pub interface: InterfaceName,
    /// That ENI, once it is known.
    pub eni: Option<EniId>,
    /// Its owner in EC2; absent if it was never read.
    pub owner: Option<OwnerReport>,
    /// When a dry run or a claim last proved the permission to claim it, unless one was refused since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_proven_at: Option<Timestamp>,
    /// Whether VRRP and EC2 agree about it.
    pub verdict: Verdict,
    /// Why, and what to do, where the verdict is not OK; a warning beside STANDBY-READY.
    pub reason: Option<String>,
    /// The code of that reason ([`reasons::code`](super::reasons::code)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// The last claim, which may be in flight; absent if there was none.
    pub last_claim: Option<ClaimReport>,
    /// Why a claim failed last, while none has succeeded since: the last one may be in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailedCall>,
}

/// One virtual address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressReport {
    /// The address, which moves to an ENI of the VRRP master.
    pub address: Ipv4Addr,
    /// The interface whose ENI gets it.
    pub interface: InterfaceName,
    /// That ENI, once it is known.
    pub eni: Option<EniId>,
    /// Whether it is on a local interface; absent if unknown.
    pub local: Option<bool>,
    /// Since when it is, or is not, as far as the agent has seen it.
    pub local_since: Option<Timestamp>,
    /// Its owner in EC2; absent if it was never read.
    pub owner: Option<OwnerReport>,
    /// The Elastic IP that is associated with it, and moves along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_ip: Option<ElasticIp>,
    /// Whether VRRP, EC2 and the kernel agree about it.
    pub verdict: Verdict,
    /// Why, and what to do, where the verdict is not OK; a warning beside STANDBY-READY.
    pub reason: Option<String>,
    /// The code of that reason ([`reasons::code`](super::reasons::code)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// The last claim, which may be in flight; absent if there was none.
    pub last_claim: Option<ClaimReport>,
    /// The last failure, unless a claim has succeeded since; `last_claim` may be a newer one in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailedCall>,
    /// When a claim that EC2 acknowledged last proved the permission to assign to this ENI.
    pub assign_permission_proven_at: Option<Timestamp>,
    /// The command for a manual claim, if a claim failed. Made by the program that prints the report.
    #[serde(skip_deserializing)]
    pub command: Option<ClaimCommand>,
}

/// The owner of an address in EC2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// When this was read.
    pub at: Timestamp,
    /// Which router that is.
    pub who: Who,
    /// The ENI; absent if none has the address.
    pub eni: Option<EniId>,
    /// The instance that the ENI is attached to.
    pub instance: Option<InstanceId>,
    /// What EC2 shows where no ENI has a route or an Elastic IP: the id of the route's target, `blackhole`, `no such table` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of_eni: Option<String>,
}

/// The last claim of an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// The ENI that it was for; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniId>,
    /// When the request began.
    pub at: Timestamp,
    /// How long it took to be answered, in milliseconds; absent while it is in flight.
    pub duration_ms: Option<u64>,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
    /// Why it failed; absent if it did not.
    pub error: Option<FailedCall>,
}

impl Report {
    /// The group of that name.
    pub fn group(&self, name: &GroupName) -> Option<&GroupReport> {
        self.groups.iter().find(|g| g.name == name.as_str())
    }

    /// The ENI that the agent uses for an interface.
    pub fn eni_of(&self, interface: &InterfaceName) -> Option<&EniId> {
        self.groups.iter().flat_map(GroupReport::items).find(|item| item.interface == interface)?.eni
    }

    /// The report about one group, with the history of the group, of what it moves, and of the interfaces.
    pub fn only(&self, name: &GroupName) -> Option<Self> {
        let group = self.group(name)?;
        let holds = |resource: &Resource| group.resources().any(|(held, _)| held == *resource);
        let is_about = |record: &&Record| match (&record.group, &record.kind) {
            (Some(group), _) => group == name,
            (None, RecordKind::Unresolved { interface, .. }) => group.resources().any(|(_, of)| of == interface),
            (None, _) => record.resources.0.iter().any(holds),
        };
        let history = self.history.iter().filter(is_about).cloned().collect();
        Some(Self { groups: vec![group.clone()], history, ..self.clone() })
    }
}
