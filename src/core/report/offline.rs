//! The status report while the agent does not answer, from what can be observed without it.
//!
//! The VRRP state cannot: only the agent reads keepalived's notify events. An address on a local interface is only evidence
//! of MASTER, so no verdict here is OK.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::command::{Target, claim_command};
use super::model::{
    AddressReport, Ec2Report, ElasticIpReport, FailedCall, GroupReport, HookReport, LocalAddressReport, OwnerReport,
    Report, ResourceReport, RouteReport,
};
use super::{reasons, remedies};
use crate::FORMAT;
use crate::keepalived::groups::Groups;
use crate::model::assignment::{PlannedAddress, PlannedGroup, PlannedResource, is_there, plan};
use crate::model::config::{Config, SkippedGroup};
use crate::model::credentials::CredentialFacts;
use crate::model::ec2::Owners;
use crate::model::ids::{EniId, InstanceId, InterfaceName, Region};
use crate::model::resource::Resource;
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::VrrpState;

/// What was observed without the agent. Absent values could not be read, and `not_answered` says why.
#[derive(Debug, Clone)]
pub struct Observations {
    /// When the observations were made.
    pub now: Timestamp,
    /// Why the agent did not answer, and what to do.
    pub agent_error: String,
    /// What else did not answer, a sentence each.
    pub not_answered: Vec<String>,
    /// The groups that keepalived runs, from groups.json; absent if it cannot be read.
    pub groups: Option<Groups>,
    /// The IPv4 addresses on the local interfaces, each with the interfaces that have it.
    pub local: Option<BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>>,
    /// Whether keepalived holds the FIFO open.
    pub attached: Option<bool>,
    /// The id of this instance, from IMDS; absent if that does not answer.
    pub instance: Option<InstanceId>,
    /// The region that was called.
    pub region: Option<Region>,
    /// The credentials that EC2 was called with.
    pub credentials: Option<CredentialFacts>,
    /// The ENIs of the local interfaces, from IMDS.
    pub enis: BTreeMap<InterfaceName, EniId>,
    /// The owners of the addresses and of the peer addresses in EC2, and when they were read.
    pub owners: Option<(Timestamp, Owners)>,
    /// Why the owners could not be read.
    pub ec2_error: Option<FailedCall>,
}

/// The report from the configuration and the observations.
pub fn report(config: &Config, facts: &Observations) -> Report {
    let mut groups: Vec<GroupReport> = config.skipped.iter().map(skipped_group).collect();
    match &facts.groups {
        Some(running) => groups.extend(plan(config, running).groups.iter().map(|g| group(config, facts, g))),
        None => groups.extend(config.groups.iter().map(|g| GroupReport {
            disabled: g.disable,
            errors: vec!["The addresses that keepalived runs in this group are unknown.".to_owned()],
            ..without_addresses(g.name.as_str())
        })),
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let global = &config.global;
    let credentials = facts.credentials.as_ref();
    Report {
        format: FORMAT,
        generated_at: facts.now,
        agent: None,
        agent_error: Some(facts.agent_error.clone()),
        not_answered: facts.not_answered.clone(),
        hook: HookReport {
            attached: facts.attached,
            since: None,
            last_notify_event_at: None,
            last_activity_at: None,
            fifo_full_count: 0,
        },
        ec2: Ec2Report {
            instance: facts.instance.clone(),
            region: facts.region.clone(),
            endpoint_url: global.endpoint_url.clone(),
            credentials: credentials.map_or("not used".to_owned(), |c| c.source.clone()),
            credentials_loaded_at: credentials.and_then(|c| c.loaded_at),
            credentials_expire_at: credentials.and_then(|c| c.expires_at),
            credentials_error: credentials.and_then(|c| c.error.as_ref()).map(remedies::credentials_error),
            last_success_at: facts.owners.as_ref().map(|(at, _)| *at),
            last_error: facts.ec2_error.clone(),
            clock_skew: None,
            proofs: Vec::new(),
            calls: Vec::new(),
        },
        groups,
        history: Vec::new(),
    }
}

/// A group that was skipped because of a configuration error.
pub fn skipped_group(group: &SkippedGroup) -> GroupReport {
    GroupReport { errors: group.errors.clone(), ..without_addresses(&group.name) }
}

fn without_addresses(name: &str) -> GroupReport {
    GroupReport {
        name: name.to_owned(),
        vrrp: VrrpState::Unknown,
        vrrp_since: None,
        vrrp_reason: None,
        disabled: false,
        paused_until: None,
        pause_not_saved: None,
        errors: Vec::new(),
        addresses: Vec::new(),
        not_assigned: Vec::new(),
        routes: Vec::new(),
        elastic_ips: Vec::new(),
    }
}

fn group(config: &Config, facts: &Observations, group: &PlannedGroup) -> GroupReport {
    let others: BTreeSet<InstanceId> = facts
        .owners
        .iter()
        .flat_map(|(_, owners)| group.peers.iter().filter_map(|peer| owners.get(peer)?.instance.clone()))
        .collect();
    let mut report = GroupReport {
        vrrp_reason: Some("the VRRP state is only available from the agent".to_owned()),
        disabled: group.disabled,
        errors: group.problems.iter().map(reasons::problem).collect(),
        addresses: group.assigned().map(|assigned| address(config, facts, group.disabled, &others, assigned)).collect(),
        ..without_addresses(group.name.as_str())
    };
    for planned in group.not_assigned() {
        report.not_assigned.push(LocalAddressReport {
            address: planned.address,
            interface: planned.held_on.clone(),
            local: is_local(facts, planned),
            local_since: None,
        });
    }
    for planned in &group.resources {
        let state = unread(facts, group.disabled, planned);
        match &planned.resource {
            Resource::Address(_) => {}
            Resource::Route(route) => report.routes.push(RouteReport { route: route.clone(), state }),
            Resource::ElasticIp(allocation) => report.elastic_ips.push(ElasticIpReport {
                allocation: allocation.clone(),
                public_address: None,
                private_address: planned.private_address,
                state,
            }),
        }
    }
    report
}

/// Whether the address is on its interface, if the local addresses are known.
fn is_local(facts: &Observations, planned: &PlannedAddress) -> Option<bool> {
    let local = facts.local.as_ref()?;
    Some(local.get(&planned.address).is_some_and(|having| is_there(&planned.held_on, having)))
}

/// A route or an Elastic IP: only the agent reads who has it.
fn unread(facts: &Observations, disabled: bool, planned: &PlannedResource) -> ResourceReport {
    let seen = if disabled { Seen::Disabled } else { Seen::OnlyByAgent };
    ResourceReport {
        interface: planned.interface.clone(),
        eni: planned.eni.as_ref().or_else(|| facts.enis.get(&planned.interface)).cloned(),
        owner: None,
        permission_proven_at: None,
        verdict: seen.verdict(),
        reason: seen.reason().map(str::to_owned),
        reason_code: None,
        last_claim: None,
        last_failure: None,
    }
}

fn address(
    config: &Config,
    facts: &Observations,
    disabled: bool,
    others: &BTreeSet<InstanceId>,
    (planned, resource): (&PlannedAddress, &PlannedResource),
) -> AddressReport {
    let eni = resource.eni.as_ref().or_else(|| facts.enis.get(&resource.interface));
    let owner = facts.owners.as_ref().map(|(at, owners)| {
        let owner = owners.get(&planned.address);
        OwnerReport {
            at: *at,
            who: Who::of(owner, eni, facts.instance.as_ref(), others),
            eni: owner.map(|o| o.eni.clone()),
            instance: owner.and_then(|o| o.instance.clone()),
            instead_of_eni: None,
        }
    });
    let local = is_local(facts, planned);
    let evidence = local.filter(|_| !planned.outside_vrrp);
    let seen = if disabled { Seen::Disabled } else { Seen::of(evidence, owner.as_ref().map(|o| o.who)) };
    let command = match (seen, eni, &facts.region) {
        (Seen::HereButNotOurs, Some(eni), Some(region)) => {
            let target = Target { region, endpoint_url: config.global.endpoint_url.as_deref() };
            Some(claim_command(eni, [planned.address], target))
        }
        _ => None,
    };
    AddressReport {
        address: planned.address,
        interface: resource.interface.clone(),
        eni: eni.cloned(),
        local,
        local_since: None,
        owner,
        elastic_ip: None,
        verdict: seen.verdict(),
        reason: seen.reason().map(str::to_owned),
        reason_code: None,
        last_claim: None,
        last_failure: None,
        assign_permission_proven_at: None,
        command,
    }
}

/// What a resource looks like without the VRRP state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Disabled,
    OnlyByAgent,
    /// An observation is missing or is not evidence.
    NotEnough,
    LikeMaster,
    LikeBackup,
    HereButNotOurs,
    OursButNotHere,
}

impl Seen {
    fn of(local: Option<bool>, who: Option<Who>) -> Self {
        match (local, who) {
            (None, _) | (_, None | Some(Who::Unknown)) => Self::NotEnough,
            (Some(true), Some(Who::ThisRouter)) => Self::LikeMaster,
            (Some(true), Some(Who::ThisRouterOtherEni | Who::OtherRouter | Who::ThirdParty | Who::Unassigned)) => {
                Self::HereButNotOurs
            }
            (Some(false), Some(Who::ThisRouter | Who::ThisRouterOtherEni)) => Self::OursButNotHere,
            (Some(false), Some(Who::OtherRouter | Who::ThirdParty | Who::Unassigned)) => Self::LikeBackup,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Disabled => Verdict::Disabled,
            Self::OnlyByAgent | Self::NotEnough | Self::LikeMaster | Self::LikeBackup => Verdict::Unknown,
            Self::HereButNotOurs | Self::OursButNotHere => Verdict::Drift,
        }
    }

    fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Disabled => return None,
            Self::OnlyByAgent => {
                "Only the agent reads the owner of routes and Elastic IPs. Restart it first: while it is down, a failover to this router does not move them."
            }
            Self::NotEnough => {
                "Not enough information without the agent. Restart it first; until then `show vrrp` shows which router is MASTER."
            }
            Self::LikeMaster => {
                "On a local interface and assigned to this router in EC2, as expected on the MASTER (`show vrrp`). While the agent is down, nothing is checked or claimed."
            }
            Self::LikeBackup => {
                "On no local interface and not assigned to this router in EC2, as expected on a BACKUP (`show vrrp`). While the agent is down, a failover to this router does not move the address."
            }
            Self::HereButNotOurs => {
                "On a local interface, but EC2 delivers its traffic elsewhere. If `show vrrp` shows MASTER here and not on the other router, restart the agent: it claims the address."
            }
            Self::OursButNotHere => {
                "EC2 delivers the traffic of the address to this router, but the address is on none of its interfaces. If `show vrrp` shows MASTER on the other router, its agent should have claimed the address: check `show aws-vipa status` there."
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_agent_nothing_is_ok() {
        use Who::*;
        for (local, who, seen) in [
            (None, Some(ThisRouter), Seen::NotEnough),
            (Some(true), None, Seen::NotEnough),
            (Some(true), Some(Unknown), Seen::NotEnough),
            (Some(false), Some(Unknown), Seen::NotEnough),
            (Some(true), Some(ThisRouter), Seen::LikeMaster),
            (Some(true), Some(ThisRouterOtherEni), Seen::HereButNotOurs),
            (Some(true), Some(OtherRouter), Seen::HereButNotOurs),
            (Some(true), Some(ThirdParty), Seen::HereButNotOurs),
            (Some(true), Some(Unassigned), Seen::HereButNotOurs),
            (Some(false), Some(ThisRouter), Seen::OursButNotHere),
            (Some(false), Some(ThisRouterOtherEni), Seen::OursButNotHere),
            (Some(false), Some(OtherRouter), Seen::LikeBackup),
            (Some(false), Some(ThirdParty), Seen::LikeBackup),
            (Some(false), Some(Unassigned), Seen::LikeBackup),
        ] {
            assert_eq!(Seen::of(local, who), seen, "{local:?} {who:?}");
            assert!(matches!(seen.verdict(), Verdict::Unknown | Verdict::Drift), "{seen:?}");
            assert!(seen.reason().is_some(), "{seen:?}");
        }
    }
}
