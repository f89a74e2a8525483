//! Checks that a failover would work, step by step, without doing one: the result of each step and what to do about it.
//!
//! The command `show check` gathers the facts and prints one line for each step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};

use crate::claim::{
    DependentPath, DryRunRequest, EniElsewhere, NoPrivateAddress, NoRoom, NoSuchEni, PrimaryAddress, Room,
    Unassignable, drops_packets,
};
use crate::keepalived::groups::Groups;
use crate::model::assignment::{Plan, PlannedAddress, PlannedGroup, PlannedResource};
use crate::model::config::Config;
use crate::model::credentials::CredentialFacts;
use crate::model::ec2::{
    AddressLimit, CLOCK_TOLERANCE, CallError, Eni, EniNetwork, Failure, Instance, Interface, Owner, Owners,
};
use crate::model::endpoint::Endpoint;
use crate::model::ids::{AccountId, EniId, ErrorCode, InstanceId, InstanceType, InterfaceName, SubnetId};
use crate::model::path::{LocalNetwork, Service};
use crate::model::resource::{Holder, Kind, Resource};
use crate::model::verdict::{Verdict, Who};
use crate::report::clock_skew::skew;
use crate::report::command::quoted;
use crate::report::model::{AddressReport, FailedCall, FileErrorKind, Report};
use crate::report::proof::{self, ProofReport};
use crate::report::status::{GAP, WIDTH, lines, span, time};
use crate::report::{reasons, remedies};

/// A clock that is off by this much is reported, although AWS still accepts its signatures.
const MIN_REPORTED_SKEW: SignedDuration = SignedDuration::from_secs(30);

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// A failover would not fail at this step.
    Ok,
    /// A failover would fail at this step, or its monitoring does not work.
    Fail,
    /// The step cannot be checked.
    Unknown,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "OK",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Whether a failover would succeed at this step.
    pub result: CheckResult,
    /// What was checked.
    pub what: &'static str,
    /// What was found, and what to do if the result is not OK.
    pub text: String,
}

impl Step {
    /// The step as a row of the table, wrapped within its column.
    pub fn line(&self) -> String {
        row([self.result.to_string(), self.what.to_owned(), self.text.clone()])
    }
}

/// The widths of the columns: the result, what was checked, and what was found.
const COLUMNS: [u16; 3] = [7, 14, WIDTH - 7 - 14 - 2 * GAP];

/// The table's header.
pub fn heading() -> String {
    row(["Result", "Check", "Found, and what to do"].map(str::to_owned))
        + &row(COLUMNS.map(|width| "-".repeat(width.into())))
}

fn row(cells: [String; 3]) -> String {
    let mut text = String::new();
    lines(&mut text, COLUMNS, [cells]);
    text
}

fn ok(what: &'static str, text: impl Into<String>) -> Step {
    Step { result: CheckResult::Ok, what, text: text.into() }
}

fn fail(what: &'static str, text: impl Into<String>) -> Step {
    Step { result: CheckResult::Fail, what, text: text.into() }
}

fn unknown(what: &'static str, text: impl Into<String>) -> Step {
    Step { result: CheckResult::Unknown, what, text: text.into() }
}

/// The transition hook: whether keepalived holds the FIFO open, or why that is unknown.
pub fn hook(attached: &Result<bool, String>) -> Step {
    const WHAT: &str = "Hook";
    match attached {
        Ok(true) => ok(WHAT, "keepalived has the transition FIFO open"),
        Ok(false) => fail(WHAT, format!("keepalived does not have the FIFO open; {}", remedies::ATTACH_HOOK)),
        Err(why) => unknown(WHAT, why.clone()),
    }
}

/// The agent: its report, or why there is none and what to do. The agent is not root, so it may be denied what the later
/// steps can read.
pub fn agent(report: &Result<Report, String>) -> Step {
    const WHAT: &str = "Agent";
    let report = match report {
        Ok(report) => report,
        Err(why) => return fail(WHAT, why.clone()),
    };
    if let Some(agent) = &report.agent
        && let Some(error) = &agent.file_error
    {
        let kind = agent.file_error_kind.unwrap_or(FileErrorKind::UsingPrevious);
        let (effect, remedy) = reasons::file_error(kind);
        return fail(WHAT, format!("{effect}: {error}. {remedy}"));
    }
    if let Some(error) = &report.ec2.credentials_error {
        return fail(WHAT, format!("cannot load credentials: {error}. If all checks below are OK, `restart aws-vipa`"));
    }
    if let Some(error) = &report.ec2.last_error {
        let failed = format!(
            "the agent's last call failed {} ago: {}: {}",
            span(report.generated_at, error.at),
            error.code,
            error.message
        );
        // Other failures may end with the next call, or concern one address only.
        return match error.failure() {
            Some(Failure::Tls) => fail(
                WHAT,
                format!(
                    "{failed}. If all checks below are OK, the agent, which is not root, may be unable to read the file of `aws-vipa ca-certificate-file`"
                ),
            ),
            Some(Failure::Connection | Failure::Credentials { .. } | Failure::Settings) => {
                fail(WHAT, format!("{failed}. If all checks below are OK, `restart aws-vipa`"))
            }
            _ => unknown(WHAT, format!("{failed}. Check `show aws-vipa status`")),
        };
    }
    ok(WHAT, "running with this configuration")
}

/// The configuration, and what keepalived runs of it; `plan` is absent where that cannot be read.
pub fn configuration(config: &Config, plan: &Result<Plan, String>) -> Vec<Step> {
    const WHAT: &str = "Groups";
    let skipped =
        config.skipped.iter().map(|group| fail(WHAT, format!("{}: {}", quoted(&group.name), group.errors.join("; "))));
    let plan = match plan {
        Ok(plan) => plan,
        Err(why) => {
            let why = format!("{why}. `sudo systemctl reload keepalived` writes it");
            return skipped.chain([fail(WHAT, why)]).collect();
        }
    };
    let problems = plan.groups.iter().filter(|g| !g.disabled).flat_map(|group| {
        group
            .problems
            .iter()
            .map(|problem| fail(WHAT, format!("{}: {}", quoted(group.name.as_str()), reasons::problem(problem))))
    });
    let steps: Vec<Step> = skipped.chain(problems).collect();
    if !steps.is_empty() {
        return steps;
    }
    let acting: Vec<_> = plan.groups.iter().filter(|g| !g.disabled).collect();
    let count = |kind: Kind| acting.iter().flat_map(|g| &g.resources).filter(|r| r.resource.kind() == kind).count();
    let mut moved = Vec::new();
    let (addresses, routes, elastic_ips) = (count(Kind::Address), count(Kind::Route), count(Kind::ElasticIp));
    if addresses > 0 || routes + elastic_ips == 0 {
        moved.push(reasons::many_addresses(addresses));
    }
    moved.extend((routes > 0).then(|| many(routes, "route")));
    moved.extend((elastic_ips > 0).then(|| many(elastic_ips, "Elastic IP")));
    let off = plan.groups.len() - acting.len();
    let off = if off > 0 { format!(", {off} disabled by `aws-vipa disable`") } else { String::new() };
    vec![ok(WHAT, format!("keepalived runs {} with {} to move{off}", many(acting.len(), "group"), moved.join(", ")))]
}

/// IMDS: which instance this is.
pub fn imds(instance: &Result<Instance, CallError>) -> Step {
    const WHAT: &str = "IMDS";
    match instance {
        Ok(Instance { id, availability_zone, .. }) => ok(WHAT, format!("this is {id} in {availability_zone}")),
        Err(error) => fail(WHAT, remedies::with_next_step_of_imds(error)),
    }
}

/// The ENI behind an interface, or why IMDS does not name it. `in_use` is the ENI that the agent uses for the interface: it
/// keeps the last answer of IMDS, so that a failover still works.
pub fn eni(interface: &InterfaceName, eni: &Result<Eni, String>, in_use: Option<&EniId>) -> Step {
    const WHAT: &str = "ENI";
    match (eni, in_use) {
        (Ok(Eni { id, subnet, .. }), _) => ok(WHAT, format!("{interface} is {id} in {subnet}")),
        (Err(why), Some(id)) => unknown(
            WHAT,
            format!(
                "{interface}: {why}. The agent uses {id} from an earlier answer. Check which ENIs are attached to the instance"
            ),
        ),
        (Err(why), None) => fail(
            WHAT,
            format!(
                "{interface}: {why}. Check which ENIs are attached to the instance, or set `aws-vipa network-interface-id`"
            ),
        ),
    }
}

/// The name of the endpoint: its addresses, or why there are none.
pub fn name(host: &str, addresses: &Result<Vec<IpAddr>, String>) -> Step {
    const WHAT: &str = "DNS";
    match addresses {
        _ if host.parse::<IpAddr>().is_ok() => ok(WHAT, format!("{host} is an IP address")),
        Ok(addresses) if !addresses.is_empty() => {
            let shown: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
            ok(WHAT, format!("{host} is {}", shown.join(", ")))
        }
        Ok(_) => fail(WHAT, format!("{host} has no address: check `set system name-server`")),
        Err(why) => fail(
            WHAT,
            format!(
                "cannot resolve {host}: {why}. Check `set system name-server`, and private DNS of the VPC endpoint"
            ),
        ),
    }
}

/// The paths to EC2 and IMDS, as far as their addresses are known.
pub fn paths(network: &LocalNetwork, groups: &Groups) -> Vec<Step> {
    const WHAT: &str = "Path";
    let step = |service| {
        let mut paths = network.paths.iter().filter(|(to, _)| *to == service).map(|(_, path)| path).peekable();
        paths.peek()?;
        if let Some(dependent) = DependentPath::to(service, network, groups) {
            return Some(fail(WHAT, reasons::dependent_path(&dependent)));
        }
        let Some(path) = paths.flatten().next() else {
            let why = if network.ipv6_only.contains(&service) {
                format!(
                    "{service} has only IPv6 addresses: the path is not checked. Make sure that it leads neither through a virtual address nor through the other router"
                )
            } else {
                format!("the kernel shows no route to {service}")
            };
            return Some(unknown(WHAT, why));
        };
        let through = path.gateway.map_or("directly".to_owned(), |gateway| format!("through {gateway}"));
        Some(ok(WHAT, format!("to {service} ({}) {through}", path.destination)))
    };
    [Service::Ec2, Service::Imds].into_iter().filter_map(step).collect()
}

/// The connection to the endpoint, TLS included.
pub fn endpoint(url: &str, reached: &Result<(), CallError>) -> Step {
    let what = if url.starts_with("http://") { "Endpoint" } else { "TLS" };
    let is_in_clear = Endpoint::parse(url).is_ok_and(|endpoint| endpoint.is_in_clear());
    match reached {
        Ok(()) if what == "TLS" => ok(what, format!("{url} answers, and its certificate is trusted")),
        Ok(()) if is_in_clear => fail(
            what,
            format!(
                "{url} answers over plain HTTP: the session token can be read in transit, and the server is not authenticated. Set `aws-vipa endpoint-url` to https://"
            ),
        ),
        Ok(()) => ok(what, format!("{url} answers over plain HTTP on this router itself")),
        Err(error) => fail(what, remedies::with_next_step(error)),
    }
}

/// The credentials and their source; `account` is the instance's, if they are those of its role.
pub fn credentials(loaded: &Result<CredentialFacts, CallError>, account: Option<&AccountId>, now: Timestamp) -> Step {
    const WHAT: &str = "Credentials";
    match loaded {
        Ok(CredentialFacts { source, access_key_id, expires_at, .. }) => {
            let mut who = source.clone();
            who.extend(account.map(|id| format!(" of account {id}")));
            who.extend(access_key_id.as_ref().map(|id| format!(", access key {id}")));
            match expires_at {
                Some(at) if *at <= now => {
                    fail(WHAT, format!("{who}: EXPIRED {} ago. Check the instance role and IMDS", span(now, *at)))
                }
                Some(at) => ok(WHAT, format!("{who}, expire in {}", span(*at, now))),
                None => ok(WHAT, who),
            }
        }
        Err(error) => fail(WHAT, remedies::with_next_step(error)),
    }
}

/// The clock: EC2's time minus this router's, by an answer's Date. `now` is this router's time.
pub fn clock(ec2_ahead: Option<SignedDuration>, now: Timestamp) -> Step {
    const WHAT: &str = "Clock";
    let Some(ec2_ahead) = ec2_ahead else { return unknown(WHAT, "no answer from EC2 to compare with") };
    let off = skew(ec2_ahead, now);
    if ec2_ahead.unsigned_abs() >= CLOCK_TOLERANCE {
        return fail(
            WHAT,
            format!("this router's clock is {off}. EC2 rejects signatures that are 5 minutes off: check `show ntp`"),
        );
    }
    if ec2_ahead.abs() >= MIN_REPORTED_SKEW {
        return ok(WHAT, format!("this router's clock is {off}: check `show ntp` before it gets worse"));
    }
    ok(WHAT, "in sync with EC2")
}

/// The IAM permission for an action that reads owners, which `read` has just tested.
pub fn read_permission<T>(action: &str, read: &Result<T, CallError>, reached: bool) -> Step {
    const WHAT: &str = "IAM: read";
    match read {
        Ok(_) => ok(WHAT, format!("{action} is allowed")),
        Err(error) if !reached || matches!(error.failure, Failure::Credentials { .. }) => {
            unknown(WHAT, format!("{action} is not checked: {}", error.code()))
        }
        Err(error) => fail(WHAT, remedies::with_next_step(error)),
    }
}

/// The IAM permission to claim for an ENI, which a claim proves, or `force aws-vipa prove`. `known` are the agent's reports of
/// the addresses that move there; absent if it does not answer. `proof` is what it has stored.
pub fn assign_permission(
    eni: &EniId,
    known: Option<&[&AddressReport]>,
    proof: Option<&ProofReport>,
    now: Timestamp,
) -> Step {
    const WHAT: &str = "IAM: claim";
    const ACTION: &str = "ec2:AssignPrivateIpAddresses";
    let Some(known) = known else {
        return unknown(WHAT, format!("{eni}: only available from the agent"));
    };
    let refusal = refusals(eni, known).filter(|e| has_code(e, ErrorCode::is_denial)).max_by_key(|e| e.at);
    let proven = known.iter().filter_map(|a| a.assign_permission_proven_at).max();
    // What EC2 has answered last counts.
    let refusal = refusal.filter(|refusal| proven.is_none_or(|proven| proven < refusal.at));
    let last = refusal.map(|refusal| refusal.at).max(proven);
    let proof = proof.filter(|proof| last.is_none_or(|last| last < proof.answer.at));
    if let Some(current) = proof.filter(|proof| proof.outdated_by.is_none()) {
        let sentence = proof::sentence(current, now);
        return if current.answer.allowed {
            ok(WHAT, format!("{eni}: {ACTION} {sentence}"))
        } else {
            let code = current.answer.code.as_ref().map_or("denied", |code| code.as_str());
            let message = current.answer.message.as_deref().unwrap_or_default().trim_end_matches('.');
            let remedy = remedies::IAM_POLICY;
            fail(
                WHAT,
                format!(
                    "{eni}: {ACTION} {sentence}: {code}: {message}. {remedy}. Then run `force aws-vipa prove` again"
                ),
            )
        };
    }
    match (refusal, proven) {
        (Some(refusal), _) => fail(
            WHAT,
            format!(
                "{eni}: the last claim, {}, was denied: {}: {}. {}",
                time(refusal.at),
                refusal.code,
                refusal.message,
                remedies::IAM_POLICY
            ),
        ),
        (None, Some(at)) => ok(WHAT, format!("{eni}: {ACTION} proven {}", time(at))),
        (None, None) => unknown(
            WHAT,
            match proof {
                Some(outdated) => format!("{eni}: {ACTION} {}", proof::sentence(outdated, now)),
                None => format!("{eni}: {ACTION} not proven yet. Run `force aws-vipa prove`: it moves nothing"),
            },
        ),
    }
}

/// Whether a claim failed with an error code of that kind.
fn has_code(failed: &FailedCall, is_of_kind: fn(&ErrorCode) -> bool) -> bool {
    ErrorCode::try_from(failed.code.as_str()).is_ok_and(|code| is_of_kind(&code))
}

/// Why the last claims for an ENI failed, if they did. While a claim is in flight, the failure before it counts.
fn refusals<'a>(eni: &'a EniId, known: &'a [&AddressReport]) -> impl Iterator<Item = &'a FailedCall> {
    known.iter().filter_map(move |address| {
        let last = address.last_claim.as_ref().filter(|claim| claim.eni.as_ref().is_none_or(|other| other == eni))?;
        let is_in_flight = last.duration_ms.is_none();
        last.error.as_ref().or_else(|| address.last_failure.as_ref().filter(|_| is_in_flight))
    })
}

/// The network interfaces and their addresses, as far as they are known.
#[derive(Debug, Default)]
pub struct AwsState {
    /// The id of this instance, from IMDS; absent if that does not answer.
    pub instance: Option<InstanceId>,
    /// The type of this instance, from IMDS.
    pub instance_type: Option<InstanceType>,
    /// How many addresses each of its ENIs can have; absent where the type is not known.
    pub limit: Option<Result<AddressLimit, CallError>>,
    /// The ENIs of the local interfaces, and their subnets.
    pub local: BTreeMap<InterfaceName, (Eni, Option<EniNetwork>)>,
    /// The ENI that the agent uses for each interface: it keeps the last answer of IMDS.
    pub in_use: BTreeMap<InterfaceName, EniId>,
    /// EC2's description of the ENIs that get addresses; absent if EC2 did not answer.
    pub interfaces: Option<BTreeMap<EniId, Interface>>,
    /// The owners of the addresses; absent if EC2 did not answer.
    pub owners: Option<Owners>,
    /// What EC2 has of each route and Elastic IP; absent if EC2 did not answer.
    pub holders: BTreeMap<Resource, Option<Holder>>,
    /// EC2's answers to dry runs of claims; absent where none was made.
    pub dry_runs: BTreeMap<Resource, Result<(), CallError>>,
    /// The virtual addresses that move to each ENI that gets anything.
    pub moving: BTreeMap<EniId, BTreeSet<Ipv4Addr>>,
    /// The ENIs that get routes.
    pub routed: BTreeSet<EniId>,
    /// The ENIs that `network-interface-id` names.
    pub configured: BTreeSet<EniId>,
    /// What the kernel shows of this router's network.
    pub network: LocalNetwork,
    /// When the agent's dry runs and claims last proved the permission to claim.
    pub proven: BTreeMap<Resource, Timestamp>,
}

impl AwsState {
    fn subnet(&self, eni: &EniId) -> Option<&SubnetId> {
        let local = self.local.values().find(|(local, _)| local.id == *eni).map(|(local, _)| &local.subnet);
        local.or_else(|| Some(&self.interfaces.as_ref()?.get(eni)?.subnet))
    }

    /// That the ENI does not have the private address that is configured for an Elastic IP.
    fn no_private_address(&self, planned: &PlannedResource, eni: &EniId) -> Option<NoPrivateAddress> {
        let address = planned.private_address?;
        let moves = self.moving.get(eni).is_some_and(|moving| moving.contains(&address));
        NoPrivateAddress::of(address, eni, self.interfaces.as_ref()?.get(eni)?, moves)
    }

    /// Whether the owner's ENI is attached to this instance, as far as is known.
    fn is_here(&self, owner: &Owner) -> bool {
        self.instance.is_none() || self.instance == owner.instance
    }

    /// Whether an owner is neither this router nor a peer, if all peers' instances are known.
    fn is_no_routers(&self, owner: &Owner, peers: &[Ipv4Addr], eni: &EniId) -> bool {
        let instance = |peer| self.owners.as_ref()?.get(peer)?.instance.clone();
        let others: Option<BTreeSet<InstanceId>> = peers.iter().map(instance).collect();
        others.is_some_and(|others| {
            !others.is_empty() && Who::of(Some(owner), Some(eni), self.instance.as_ref(), &others) == Who::ThirdParty
        })
    }

    fn block(&self, subnet: &SubnetId) -> Option<Ipv4Net> {
        let mut places = self.local.values().filter(|(local, _)| local.subnet == *subnet);
        places.find_map(|(_, place)| Some(place.as_ref()?.block))
    }
}

/// An address of a group with these peers: whether EC2 can assign it to the ENI, and its owner now.
pub fn address(address: Ipv4Addr, peers: &[Ipv4Addr], eni: Option<&EniId>, aws: &AwsState) -> Step {
    const WHAT: &str = "Address";
    let Some(eni) = eni else { return unknown(WHAT, format!("{address}: its ENI is unknown")) };
    let owner = aws.owners.as_ref().map(|owners| owners.get(&address));
    if let Some(primary) = PrimaryAddress::of(address, owner.flatten()) {
        return fail(WHAT, reasons::primary(&primary));
    }
    let Some(subnet) = aws.subnet(eni) else {
        return unknown(WHAT, format!("{address}: the subnet of {eni} is unknown"));
    };
    let Some(block) = aws.block(subnet) else {
        return unknown(WHAT, format!("{address}: IMDS does not return the CIDR block of {subnet}"));
    };
    match Unassignable::of(address, block) {
        None => {}
        Some(Unassignable::OutsideSubnet) => return fail(WHAT, reasons::outside_subnet(address, block, Some(eni))),
        Some(Unassignable::Reserved) => return fail(WHAT, reasons::reserved(address, block)),
    }
    if let Some(Some(owner)) = owner
        && aws.is_no_routers(owner, peers, eni)
    {
        return unknown(WHAT, format!("{address}: {}", reasons::held_by_third_party(Kind::Address, owner)));
    }
    let owner = match owner {
        None => String::new(),
        Some(None) => ", not assigned now".to_owned(),
        Some(Some(owner)) if owner.eni == *eni && aws.is_here(owner) => ", assigned to this router".to_owned(),
        Some(Some(Owner { eni: owner, .. })) => format!(", assigned to {owner}"),
    };
    ok(WHAT, format!("{address} is in {block}, the subnet of {eni}{owner}"))
}

/// The dry run of a claim; none: it would not be made, or has none.
pub fn dry_run(
    planned: &PlannedResource,
    eni: &EniId,
    moved: &BTreeSet<Ipv4Addr>,
    aws: &AwsState,
) -> Option<DryRunRequest> {
    let holder = aws.holders.get(&planned.resource)?;
    if matches!(holder, Some(Holder::NotTakeable(_))) {
        return None;
    }
    let private_address = planned.private_address.filter(|address| !moved.contains(address));
    DryRunRequest::new(&planned.resource, eni.clone(), holder.is_none(), private_address)
}

/// A route or an Elastic IP of a group with these peers: the calls of its claim with EC2's answers to their dry runs, and where
/// it is now.
pub fn resource(planned: &PlannedResource, peers: &[Ipv4Addr], eni: Option<&EniId>, aws: &AwsState) -> Step {
    let id = &planned.resource;
    let kind = id.kind();
    let what = if kind == Kind::Route { "Route" } else { "Elastic IP" };
    let Some(eni) = eni else { return unknown(what, format!("{id}: its ENI is unknown")) };
    let Some(holder) = aws.holders.get(id) else { return unknown(what, format!("{id}: no answer from EC2")) };
    // In the order of the status's reasons.
    if let Some(Holder::NotTakeable(why)) = holder {
        return fail(what, format!("{id}: {}", reasons::not_takeable(why)));
    }
    if let Some(absent) = aws.no_private_address(planned, eni) {
        return fail(what, format!("{id}: {}", reasons::no_private_address(&absent)));
    }
    let calls = match (kind, holder) {
        (Kind::Route, None) => "ec2:ReplaceRoute and ec2:CreateRoute are",
        (Kind::Route, Some(_)) => "ec2:ReplaceRoute is",
        (Kind::Address | Kind::ElasticIp, _) => "ec2:AssociateAddress is",
    };
    let allowed = match aws.dry_runs.get(id) {
        Some(Ok(())) => format!("{calls} allowed (dry run)"),
        Some(Err(error)) if error.is_refusal() => {
            let why = remedies::with_next_step_of_kind(kind, error);
            return fail(what, format!("{id}: EC2 would refuse the claim (dry run): {why}"));
        }
        Some(Err(error)) => {
            return unknown(
                what,
                format!("{id}: no answer to the dry run: {}", remedies::with_next_step_of_kind(kind, error)),
            );
        }
        None => match aws.proven.get(id) {
            Some(at) => format!("{calls} allowed, as the agent proved {}", time(*at)),
            None => {
                return unknown(
                    what,
                    format!(
                        "{id}: not checked, to leave EC2's rate limit to claims; the agent's dry runs check it, and `show aws-vipa status` shows a refusal"
                    ),
                );
            }
        },
    };
    let owner = holder.as_ref().and_then(Holder::owner);
    if let Some(owner) = owner.filter(|owner| aws.is_no_routers(owner, peers, eni)) {
        return unknown(what, format!("{id}: {allowed}; {}", reasons::held_by_third_party(kind, owner)));
    }
    ok(what, format!("{id}: {allowed}; {}", place(kind, holder.as_ref(), eni, aws)))
}

/// Where a route leads, or what an Elastic IP is associated with.
fn place(kind: Kind, holder: Option<&Holder>, eni: &EniId, aws: &AwsState) -> String {
    let router = |owner: &Owner| {
        if owner.eni == *eni && aws.is_here(owner) { "this router".to_owned() } else { reasons::holder(owner) }
    };
    match holder {
        None if kind == Kind::Route => "the table has no such route: a claim creates it".to_owned(),
        None => "associated with nothing now".to_owned(),
        Some(Holder::Blackhole | Holder::NotTakeable(_)) => "a blackhole now".to_owned(),
        Some(Holder::Eni(owner) | Holder::WithElasticIp { owner, .. }) => format!("leads to {}", router(owner)),
        Some(Holder::Association { owner, private_address, .. }) => {
            format!("associated with {private_address} of {}", router(owner))
        }
    }
}

/// The overlay addresses of a group: a route leads to each, in each of its tables to the same router.
pub fn overlay(group: &PlannedGroup, aws: &AwsState) -> Vec<Step> {
    const WHAT: &str = "Overlay";
    let routes_to = |address: Ipv4Addr| {
        let routes = group.resources.iter().filter_map(|planned| match &planned.resource {
            Resource::Route(route) if route.destination.contains(address) => Some((planned, route)),
            _ => None,
        });
        routes.collect::<Vec<_>>()
    };
    let block_of = |held_on: &InterfaceName| aws.local.get(held_on).and_then(|(_, place)| Some(place.as_ref()?.block));
    let step = |planned: &PlannedAddress| {
        let address = planned.address;
        let routes = routes_to(address);
        if routes.is_empty() {
            // One that is within the subnet only shows whether the group is MASTER.
            let block = block_of(&planned.held_on).filter(|block| !block.contains(&address))?;
            let text = format!(
                "{address} is not in {block}, and no route leads to it. Set `aws-vipa route {address}/32 route-table <rtb-…>` for each route table with clients"
            );
            return Some(fail(WHAT, text));
        }
        let holders: Option<Vec<_>> = routes
            .iter()
            .map(|(planned, route)| Some((&route.table, aws.holders.get(&planned.resource)?.as_ref())))
            .collect();
        let Some(holders) = holders else { return Some(unknown(WHAT, format!("{address}: no answer from EC2"))) };
        let leads_to = |holder: Option<&Holder>| holder.and_then(Holder::owner).map(|owner| owner.eni.clone());
        let enis: BTreeSet<Option<EniId>> = holders.iter().map(|(_, holder)| leads_to(*holder)).collect();
        let mut known = enis.iter();
        if let (Some(Some(eni)), None) = (known.next(), known.next()) {
            let lead = if holders.len() == 1 { "leads" } else { "lead" };
            let tables = many(holders.len(), "route table");
            return Some(ok(WHAT, format!("{address}: {tables} {lead} to {eni}")));
        }
        let each: Vec<String> = holders
            .iter()
            .map(|(table, holder)| match leads_to(*holder) {
                Some(eni) => format!("{table} to {eni}"),
                None => format!("{table} to no router"),
            })
            .collect();
        Some(fail(
            WHAT,
            format!(
                "{address}: its routes differ: {}. Check `show aws-vipa status` on the router that is MASTER, which claims all of them",
                each.join(", ")
            ),
        ))
    };
    group.not_assigned().filter_map(step).collect()
}

const ROOM: &str = "Address limit";

/// An ENI in EC2: attached to this instance, within its address limit, and without source/destination check. `wanted` are the
/// addresses that move there, `known` the agent's reports of them.
pub fn interface(eni: &EniId, wanted: &BTreeSet<Ipv4Addr>, known: &[&AddressReport], aws: &AwsState) -> Vec<Step> {
    const IN_EC2: &str = "ENI in EC2";
    const CHECK: &str = "Src/dest check";
    let Some(interfaces) = &aws.interfaces else {
        let steps = [IN_EC2, ROOM, CHECK].into_iter().filter(|what| *what != ROOM || !wanted.is_empty());
        return steps.map(|what| unknown(what, format!("{eni}: no answer from EC2"))).collect();
    };
    let interface = match NoSuchEni::or_interface(eni, interfaces, aws.configured.contains(eni)) {
        Ok(interface) => interface,
        Err(absent) => return vec![fail(IN_EC2, reasons::no_such_eni(&absent))],
    };
    let there = interface.instance.as_ref();
    let attached = match (&aws.instance, there) {
        (None, None) => {
            fail(IN_EC2, format!("{eni} is attached to no instance. {}", remedies::capitalized(remedies::ENI)))
        }
        (None, Some(there)) => {
            unknown(IN_EC2, format!("{eni} is attached to {there}; the id of this instance is unknown"))
        }
        (Some(this), _) => match EniElsewhere::of(eni, there, this, aws.configured.contains(eni)) {
            None => ok(IN_EC2, format!("{eni} is attached to this instance")),
            Some(elsewhere) => fail(IN_EC2, reasons::eni_elsewhere(&elsewhere)),
        },
    };
    let gets_route = aws.routed.contains(eni);
    let check = match drops_packets(interface, aws.network.forwards, gets_route) {
        Some(false) if interface.source_dest_check == Some(true) => {
            ok(CHECK, format!("on for {eni}: it drops nothing, because this router does not forward"))
        }
        Some(false) => ok(CHECK, format!("off for {eni}")),
        Some(true) => fail(CHECK, reasons::source_dest_check(eni)),
        None => unknown(CHECK, format!("{eni}: no answer from EC2")),
    };
    let room = (!wanted.is_empty()).then(|| room(eni, Room::of(interface, wanted), known, aws));
    [Some(attached), room, Some(check)].into_iter().flatten().collect()
}

/// The addresses that an ENI has and gets, and how many it can have. `known` are the agent's reports of those that move there.
fn room(eni: &EniId, room: Room, known: &[&AddressReport], aws: &AwsState) -> Step {
    if room.to_come == 0 {
        let has = reasons::many_addresses(room.addresses);
        return ok(ROOM, format!("{eni} has {has}, including all that move there"));
    }
    if let Some(Ok(limit)) = &aws.limit
        && !room.fits(limit.addresses)
    {
        let full = NoRoom { eni: eni.clone(), room, limit: limit.clone() };
        return fail(ROOM, reasons::no_room(&full));
    }
    let fits = matches!(aws.limit, Some(Ok(_)));
    // A standby that has read the limit goes by that, and no longer by an earlier refusal. A master tries again and again.
    let is_over = |address: &AddressReport| match address.verdict {
        Verdict::StandbyReady => true,
        Verdict::StandbyNotReady => fits && address.reason_code.as_deref() != Some(reasons::CLAIM_REFUSED),
        Verdict::Paused | Verdict::Unknown | Verdict::Disabled => fits,
        Verdict::Ok | Verdict::Claiming | Verdict::Drift | Verdict::Contested => false,
    };
    let tried: Vec<&AddressReport> = known.iter().copied().filter(|address| !is_over(address)).collect();
    if let Some(refused) = refusals(eni, &tried).find(|e| has_code(e, ErrorCode::is_no_room)) {
        let (has, code) = (reasons::many_addresses(room.addresses), &refused.code);
        let text = format!(
            "{eni} has {has}, and the last claim was refused: {code}. Use a larger instance type, or unassign addresses"
        );
        return fail(ROOM, text);
    }
    let kind = aws.instance_type.as_ref().map_or("the instance type".to_owned(), |kind| format!("a {kind}"));
    let has = format!("{eni} {}", reasons::has(room));
    match &aws.limit {
        Some(Ok(limit)) => ok(ROOM, format!("{has}; {kind} allows {}", limit.addresses)),
        Some(Err(error)) => unknown(ROOM, format!("{has}. Unknown whether {kind} allows {}: {error}", room.needed())),
        None => unknown(ROOM, format!("{has}. Unknown whether {kind} allows {}", room.needed())),
    }
}

/// The last line, for `steps`.
pub fn summary(steps: &[CheckResult]) -> String {
    let count = |result| steps.iter().filter(|o| **o == result).count();
    let parts = [CheckResult::Fail, CheckResult::Unknown, CheckResult::Ok].map(|result| (count(result), result));
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, result)| format!("{count} {result}")).collect();
    format!("{} checks: {}", steps.len(), parts.join(", "))
}

/// The region is unknown, so EC2 cannot be called.
pub fn no_region() -> Step {
    fail(
        "Region",
        "not configured, and IMDS returns none: `set high-availability vrrp global-parameters aws-vipa region`",
    )
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
