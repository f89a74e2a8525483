//! The reasons that the claim machine and the agent give, as text: what, why, and what to do. The remedies for failed calls
//! are in [`super::remedies`].

use std::fmt::Display;
use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::command::quoted;
use super::model::FileErrorKind;
use super::remedies::{ATTACH_HOOK, WAY_TO_EC2, with_remedy, with_remedy_of_kind};
use super::status::time;
use crate::claim::{
    BootInstant, Cause, Dependence, DependentPath, EniElsewhere, EniUnknown, Explanation, FailedClaim, LastOwner,
    NoPrivateAddress, NoRoom, NoSuchEni, NotRead, Obstacle, OwnerRead, PrimaryAddress, Reason, RequestRefusal, Room,
};
use crate::model::assignment::Problem;
use crate::model::ec2::{CallError, ErrorClass, Owner};
use crate::model::ids::{EniId, ErrorCode, GroupName};
use crate::model::resource::{Kind, NotTakeable};
use crate::model::vrrp::{NotifyState, VrrpState};

/// The code of a refused claim as the reason.
pub(super) const CLAIM_REFUSED: &str = "claim-refused";

/// Why the state of a group has changed.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Notify(NotifyState::Master) => "keepalived: MASTER",
        Cause::Notify(NotifyState::MasterRxLowerPri) => "keepalived: MASTER_RX_LOWER_PRI",
        Cause::Notify(NotifyState::Backup) => "keepalived: BACKUP",
        Cause::Notify(NotifyState::Fault) => "keepalived: FAULT",
        Cause::Notify(NotifyState::Stop) => "keepalived: STOP",
        Cause::Notify(NotifyState::Deleted) => "keepalived: DELETED",
        Cause::Inferred => "inferred from the local addresses",
        Cause::NoTimer => "keepalived has no timer set, and the address is on no local interface",
        Cause::NoWriter => "keepalived does not have the FIFO open",
        Cause::NoLiveness => "no keepalived activity",
        Cause::ActiveAgain => "keepalived is active again",
        Cause::Stalled => "this router was suspended or stalled",
        Cause::FifoFull => "the FIFO was full: notify events may be lost",
        Cause::NoNotifyEvent => "a process added the address without a notify event for MASTER",
        Cause::New => "new: waiting for keepalived activity",
        Cause::Paused => "paused by an operator",
        Cause::PauseEnded => "pause ended",
    }
}

/// The effect of a file that the agent cannot use, and what to do.
pub fn file_error(kind: FileErrorKind) -> (&'static str, &'static str) {
    match kind {
        FileErrorKind::UsingPrevious => {
            ("running with an old configuration", "Commit a change of an `aws-vipa` node, which writes the file again")
        }
        FileErrorKind::NoConfiguration => (
            "no configuration loaded, nothing is claimed",
            "Commit a change of an `aws-vipa` node, which writes the file again; `sudo systemctl reload keepalived` writes groups.json",
        ),
        FileErrorKind::Newer => (
            "the configuration is newer than this agent",
            "If the newer package is installed, `restart aws-vipa`; otherwise commit a change of an `aws-vipa` node, which writes the file again",
        ),
    }
}

/// Why a group or an address is not moved although it has an `aws-vipa` node, and what to do.
pub fn problem(problem: &Problem) -> String {
    match problem {
        Problem::NotRun => {
            "keepalived does not run this group: it is disabled or renamed in VRRP, or keepalived rejected \
                            its configuration; check `show vrrp` and `show log vrrp`"
                .to_owned()
        }
        Problem::NoAddress => {
            "keepalived runs this group without an IPv4 virtual address: no address to move".to_owned()
        }
        Problem::NotHeld(address) => format!(
            "{address} is not moved: keepalived does not run it in this group; add it to the group's addresses, or delete \
             it below `aws-vipa address`"
        ),
        Problem::MovedByOther { resource, group } => {
            format!("{resource} is not moved by this group: group {group} moves it; delete it in one of the two")
        }
    }
}

/// Why a resource of that kind has its verdict, and what to do. `clock` gives the time of day of an instant.
pub fn reason(kind: Kind, reason: &Reason, clock: impl Fn(BootInstant) -> Timestamp) -> String {
    let at = |instant: BootInstant| time(clock(instant));
    // Its presence on the interface shows whether the group is MASTER.
    let evidence = match kind {
        Kind::Address => "the address",
        Kind::Route | Kind::ElasticIp => "the group's address",
    };
    match reason {
        Reason::Paused(group) => {
            format!("claims are paused; `force aws-vipa resume {}` resumes them", quoted(group.as_str()))
        }
        Reason::VrrpUnknown(why) => vrrp_unknown(*why),
        Reason::VrrpDown(vrrp @ VrrpState::Fault) => {
            format!("VRRP is in {vrrp}: `show vrrp` shows which tracked interface or script is down")
        }
        Reason::VrrpDown(vrrp) => format!("VRRP is in {vrrp}: check `show vrrp`"),
        Reason::NoTimer(vrrp) => {
            format!(
                "{}: VRRP is in {vrrp}, or keepalived hangs: check `show vrrp`; if it shows BACKUP or MASTER, `restart aws-vipa`",
                cause(Cause::NoTimer)
            )
        }
        Reason::ReadinessUnknown => "readiness not checked yet; the next ownership check shows it".to_owned(),
        // The status names the resources beside the text, which those with the same obstacle share.
        Reason::NotReady(Obstacle::NotTakeable { why, .. }) => not_takeable(why),
        Reason::NotReady(Obstacle::DryRunRefused { error, .. }) => dry_run_refused("the claim", kind, error),
        Reason::NotReady(obstacle) => not_ready(obstacle, at),
        Reason::Unexpected { vrrp, interface } => format!(
            "VRRP is {vrrp} here, but {evidence} is on {interface}: if `show vrrp` shows MASTER, `restart aws-vipa`; \
             otherwise delete the address from {interface}, where only keepalived may add it"
        ),
        Reason::NotTakenOver => {
            let still = match kind {
                Kind::Address => "EC2 still delivers the address's traffic to this router",
                Kind::Route => "in EC2 the route still leads to this router",
                Kind::ElasticIp => "in EC2 the Elastic IP is still associated with this router",
            };
            format!(
                "VRRP is BACKUP here, but {still}: the MASTER has not claimed it; check `show aws-vipa status` there"
            )
        }
        Reason::HeldByThirdParty(owner) => held_by_third_party(kind, owner),
        Reason::ContestedWithPeer(owner) => {
            let now = last_seen(owner);
            format!(
                "the other router of the group took it more than three times in five minutes; {now}. Both routers were \
                 MASTER: if `show vrrp` still shows MASTER on both, restore the VRRP link between them; otherwise this ends \
                 by itself"
            )
        }
        Reason::ContestedWithThirdParty { group, owner } => {
            let name = quoted(group.as_str());
            let at_once = format!("`force aws-vipa claim {name}` claims it at once");
            let find = format!("`show aws-vipa group {name}` shows who took it: stop what claims it there");
            let next = match owner {
                LastOwner::ThisRouter => format!("{}. {find}", last_seen(owner)),
                LastOwner::Other(_) => format!("{}. Stop what claims it there; {at_once}", last_seen(owner)),
                LastOwner::Unassigned | LastOwner::NotRead => format!("{}. {find}; {at_once}", last_seen(owner)),
            };
            format!("taken away more than three times in five minutes; {next}")
        }
        Reason::NotTakeable(why) => not_takeable(why),
        Reason::Refused(why) => {
            format!("{}; retried every minute, and when the credentials or the configuration change", failed_claim(why))
        }
        Reason::Missing { interface, since } => {
            let evidence = if kind == Kind::Address { "it" } else { evidence };
            format!(
                "EC2 delivers its traffic to this router, but {evidence} has not been on {interface} since {}: the traffic is \
                 lost. `show log vrrp` shows why keepalived does not add it; `restart vrrp` adds it, or makes the other router \
                 take over",
                at(*since)
            )
        }
        Reason::EniElsewhere(elsewhere) => eni_elsewhere(elsewhere),
        Reason::EniUnknown(unknown) => eni_unknown(unknown),
        Reason::NotVerifiedLately { at: last, error } => {
            format!("EC2 last confirmed at {} that this router has it{}", at(*last), last_check(error.as_ref()))
        }
        Reason::NotVerified { error } => {
            format!("claimed; not confirmed by an ownership check yet{}", last_check(error.as_ref()))
        }
        Reason::Mismatch { owner, error } => {
            let owner = owner.as_ref().map_or_else(|| "no network interface".to_owned(), holder);
            let shown = if kind == Kind::Route { "EC2 shows that it leads to" } else { "EC2 shows it on" };
            format!("{shown} {owner}; checking again before claiming it back{}", last_check(error.as_ref()))
        }
        Reason::NotLocal => {
            format!("the group is MASTER, but {evidence} is on no local interface: check `show vrrp`")
        }
        Reason::AwaitingLiveness => "waiting for keepalived activity".to_owned(),
        Reason::CheckingOwner { error } => format!("checking the owner before a claim{}", last_check(error.as_ref())),
        Reason::Retrying { failure: why, allowed_at } => {
            let again = allowed_at.map_or_else(|| "retried soon".to_owned(), |allowed| rate_limited(kind, at(allowed)));
            format!("{}; {again}", failed_claim(why))
        }
        Reason::RateLimited { allowed_at } => rate_limited(kind, at(*allowed_at)),
        Reason::AwaitingPrecondition => "waiting for keepalived activity and the local address".to_owned(),
    }
}

/// The code of a reason, for programs: it stays the same while the text may change. An obstacle has its own.
pub fn code(reason: &Reason) -> &'static str {
    match reason {
        Reason::Paused(_) => "paused",
        Reason::VrrpUnknown(_) => "vrrp-unknown",
        Reason::VrrpDown(_) => "vrrp-down",
        Reason::NoTimer(_) => "no-timer",
        Reason::ReadinessUnknown => "readiness-unknown",
        Reason::NotReady(obstacle) => obstacle_code(obstacle),
        Reason::Unexpected { .. } => "address-unexpected",
        Reason::NotTakenOver => "not-taken-over",
        Reason::HeldByThirdParty(_) => "held-by-third-party",
        Reason::ContestedWithPeer(_) => "contested-with-peer",
        Reason::ContestedWithThirdParty { .. } => "contested-with-third-party",
        Reason::NotTakeable(_) => "not-takeable",
        Reason::Refused(_) => CLAIM_REFUSED,
        Reason::Missing { .. } => "address-missing",
        Reason::EniElsewhere(_) => "eni-elsewhere",
        Reason::EniUnknown(_) => "eni-unknown",
        Reason::NotVerifiedLately { .. } => "not-verified-lately",
        Reason::NotVerified { .. } => "not-verified",
        Reason::Mismatch { .. } => "mismatch",
        Reason::NotLocal => "not-local",
        Reason::AwaitingLiveness => "awaiting-liveness",
        Reason::CheckingOwner { .. } => "checking-owner",
        Reason::Retrying { .. } => "retrying",
        Reason::RateLimited { .. } => "rate-limited",
        Reason::AwaitingPrecondition => "awaiting-precondition",
    }
}

fn obstacle_code(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::EniUnknown(_) => "eni-unknown",
        Obstacle::ReadFailed(_) => "read-failed",
        Obstacle::Primary(_) => "primary-address",
        Obstacle::OutsideSubnet { .. } => "outside-subnet",
        Obstacle::Reserved { .. } => "address-reserved",
        Obstacle::NotTakeable { .. } => "not-takeable",
        Obstacle::NoSuchEni(_) => "no-such-eni",
        Obstacle::EniElsewhere(_) => "eni-elsewhere",
        Obstacle::NoPrivateAddress(_) => "no-private-address",
        Obstacle::NoRoom(_) => "no-room",
        Obstacle::SourceDestCheck(_) => "source-dest-check",
        Obstacle::DependentPath(_) => "dependent-path",
        Obstacle::LastClaimRefused { .. } => CLAIM_REFUSED,
        Obstacle::DryRunRefused { .. } => "dry-run-refused",
    }
}

pub(super) fn held_by_third_party(kind: Kind, owner: &Owner) -> String {
    let holder = holder(owner);
    match kind {
        Kind::Address => format!(
            "assigned to {holder}, which is not one of the group's routers: a failover takes the address from it. If it is in \
             use there, choose another address for the group; otherwise unassign it there"
        ),
        Kind::Route => format!(
            "the route leads to {holder}, which is not one of the group's routers: a failover replaces it. If it must lead \
             there, delete it below `aws-vipa route`"
        ),
        Kind::ElasticIp => format!(
            "associated with {holder}, which is not one of the group's routers: a failover takes the Elastic IP from it. If it \
             is in use there, delete it below `aws-vipa elastic-ip`; otherwise disassociate it there"
        ),
    }
}

fn vrrp_unknown(why: Cause) -> String {
    let next = match why {
        Cause::NoWriter => return format!("{}: nothing is claimed; {ATTACH_HOOK}", cause(why)),
        Cause::NoLiveness => {
            ": nothing is claimed meanwhile. If `show log vrrp` shows that keepalived hangs, check that the other router is MASTER \
             before `restart vrrp` here"
        }
        Cause::Notify(NotifyState::Stop) => ": check `show vrrp`",
        Cause::Notify(_)
        | Cause::Inferred
        | Cause::NoTimer
        | Cause::Stalled
        | Cause::FifoFull
        | Cause::ActiveAgain
        | Cause::NoNotifyEvent
        | Cause::New
        | Cause::Paused
        | Cause::PauseEnded => "",
    };
    format!("{}{next}", cause(why))
}

/// What prevents a standby from taking over.
pub fn obstacle(obstacle: &Obstacle, clock: impl Fn(BootInstant) -> Timestamp) -> String {
    not_ready(obstacle, |instant| time(clock(instant)))
}

fn not_ready(obstacle: &Obstacle, at: impl Fn(BootInstant) -> String) -> String {
    match obstacle {
        Obstacle::EniUnknown(unknown) => eni_unknown(unknown),
        Obstacle::ReadFailed(error) => read_failed(error),
        Obstacle::Primary(address) => primary(address),
        Obstacle::OutsideSubnet { address, block } => outside_subnet(*address, *block, None),
        Obstacle::Reserved { address, block } => reserved(*address, *block),
        Obstacle::NotTakeable { resource, why } => format!("{resource}: {}", not_takeable(why)),
        Obstacle::NoSuchEni(absent) => no_such_eni(absent),
        Obstacle::EniElsewhere(elsewhere) => eni_elsewhere(elsewhere),
        Obstacle::NoPrivateAddress(absent) => no_private_address(absent),
        Obstacle::NoRoom(full) => no_room(full),
        Obstacle::SourceDestCheck(eni) => source_dest_check(eni),
        Obstacle::DependentPath(path) => dependent_path(path),
        Obstacle::LastClaimRefused { at: when, failure: why } => {
            let when = when.map_or_else(String::new, |when| format!(" at {}", at(when)));
            let remains_until = |what| format!("a standby does not retry: this remains until {what}");
            let (failure, is_denied) = (&why.error.failure, why.error.class() == ErrorClass::Denied);
            let lasts = if failure.has_code(ErrorCode::is_full_table) {
                remains_until(
                    "the table has the route, the credentials or the configuration change, or a day has passed",
                )
            } else if is_denied && why.kind != Kind::Address {
                "a dry run checks within ten minutes whether this is still so".to_owned()
            } else if is_denied {
                remains_until(
                    "`force aws-vipa prove` or another claim shows the permission, or the credentials or the \
                     configuration change",
                )
            } else if failure.has_code(ErrorCode::is_no_room) {
                remains_until(
                    "EC2 shows room (which needs the permission ec2:DescribeInstanceTypes), or the credentials or the \
                     configuration change",
                )
            } else {
                "a standby does not retry: correct the cause, and then `restart aws-vipa`".to_owned()
            };
            format!("the last claim from this router failed{when}: {}; {lasts}", failed_claim(why))
        }
        Obstacle::DryRunRefused { resource, error } => {
            dry_run_refused(&format!("the claim of {resource}"), resource.kind(), error)
        }
    }
}

fn dry_run_refused(claim: &str, kind: Kind, error: &CallError) -> String {
    if kind == Kind::Address {
        return format!(
            "EC2 would refuse {claim}, as `force aws-vipa prove` has shown: {}; then run `force aws-vipa prove` again",
            with_remedy_of_kind(kind, error)
        );
    }
    format!(
        "EC2 would refuse {claim}, as a dry run has shown: {}; checked again every ten minutes, and when the credentials or \
         the configuration change",
        with_remedy_of_kind(kind, error)
    )
}

/// Why the agent refuses a request about the group, and what to do instead.
pub fn refused(group: &GroupName, why: &RequestRefusal) -> String {
    let name = quoted(group.as_str());
    match why {
        RequestRefusal::NoNode => {
            format!("group {name} has no aws-vipa node: `show aws-vipa status` lists the groups that have one")
        }
        RequestRefusal::Skipped => {
            format!("group {name} is skipped because of an error: check `show aws-vipa group {name}`")
        }
        RequestRefusal::Paused => format!("group {name} is paused: `force aws-vipa resume {name}` first"),
        RequestRefusal::NotPaused => format!("group {name} is not paused"),
        RequestRefusal::Disabled => {
            format!("group {name} is disabled: `delete high-availability vrrp group {name} aws-vipa disable`")
        }
        RequestRefusal::NoAddress(why) => format!("group {name} has no address to claim: {}", problem(why)),
        RequestRefusal::NotMaster(vrrp) => {
            format!("group {name} is {vrrp}, not MASTER, on this router: claim on the router that is MASTER")
        }
        RequestRefusal::VrrpUnknown(why) => format!(
            "the VRRP state of group {name} is unknown ({}): check `show vrrp` and `show log vrrp`",
            cause(*why)
        ),
    }
}

/// Why the owners in a report are older than the request for it.
pub fn not_read(why: &NotRead) -> String {
    let why = match why {
        NotRead::Failed(error) => read_failed(error),
        NotRead::EniUnknown(unknown) => eni_unknown(unknown),
        NotRead::AwaitingImds => "IMDS has not reported the network interfaces (ENIs) yet".to_owned(),
        NotRead::AwaitingEc2 => format!("EC2 has not answered yet; {WAY_TO_EC2}"),
    };
    format!("{why}. The owners below are from an earlier check")
}

/// An ENI and its instance.
pub(super) fn holder(owner: &Owner) -> String {
    match &owner.instance {
        Some(instance) => format!("{} of {instance}", owner.eni),
        None => format!("{} of no instance", owner.eni),
    }
}

fn last_seen(owner: &LastOwner) -> String {
    match owner {
        LastOwner::ThisRouter => "this router has it now".to_owned(),
        LastOwner::Other(owner) => format!("last seen on {}", holder(owner)),
        LastOwner::Unassigned => "last seen on no network interface".to_owned(),
        LastOwner::NotRead => "owner not checked yet".to_owned(),
    }
}

fn rate_limited(kind: Kind, next: impl Display) -> String {
    let limit = match kind {
        Kind::Address => "rate limit for claims of this network interface (ENI) reached",
        Kind::Route | Kind::ElasticIp => "this router spaces its calls to stay within EC2's rate limit",
    };
    format!("{limit}: next claim at {next}")
}

fn eni_unknown(EniUnknown { interface, error }: &EniUnknown) -> String {
    format!("the network interface (ENI) of {interface} is unknown: {error}")
}

/// That EC2 does not have an ENI, and what to do.
pub(super) fn no_such_eni(NoSuchEni { eni, is_configured }: &NoSuchEni) -> String {
    let remedy = if *is_configured {
        "correct `aws-vipa network-interface-id`; if it is right, check `aws-vipa region` and the account of the credentials"
    } else {
        "check `aws-vipa region`, the account of the credentials, and which network interfaces are attached to this instance"
    };
    format!("EC2 has no {eni} in this account and region: {remedy}")
}

/// That EC2 cannot assign an address to the ENI, and what to do.
pub(super) fn outside_subnet(address: Ipv4Addr, block: impl Display, eni: Option<&EniId>) -> String {
    let eni = eni.map_or("the ENI", |eni| eni.as_str());
    format!(
        "{address} is not in {block}, the subnet of {eni}, and EC2 assigns addresses only within the subnet: for an overlay \
         address set `aws-vipa route {address}/32 route-table <rtb-…>`; otherwise choose another address, or correct \
         `aws-vipa interface`"
    )
}

/// That AWS reserves an address in the subnet, and what to do.
pub(super) fn reserved(address: Ipv4Addr, block: impl Display) -> String {
    format!("{address} is reserved by AWS in {block}: choose another address for the group")
}

/// That an ENI is not attached to this instance, and what to do.
pub(super) fn eni_elsewhere(EniElsewhere { eni, this, attached_to, is_configured }: &EniElsewhere) -> String {
    let remedy = if *is_configured {
        "correct `aws-vipa network-interface-id`"
    } else {
        "check which network interfaces are attached to this instance"
    };
    match attached_to {
        Some(other) => {
            format!("{eni} is attached to {other}, not to this instance {this}, and traffic goes there: {remedy}")
        }
        None => format!("{eni} is attached to no instance, and traffic is lost: attach it to this one, or {remedy}"),
    }
}

/// That an ENI does not have the private address for an Elastic IP, and what to do.
pub(super) fn no_private_address(NoPrivateAddress { eni, address }: &NoPrivateAddress) -> String {
    format!(
        "{eni} does not have {address}, and no group moves it there: EC2 refuses to associate the Elastic IP with it. Correct \
         `aws-vipa elastic-ip … private-address`, which differs between the routers, or assign it: `aws ec2 \
         assign-private-ip-addresses --network-interface-id {eni} --private-ip-addresses {address}`"
    )
}

/// What an ENI has, and what may come to it.
pub(super) fn has(Room { addresses, prefixes, to_come }: Room) -> String {
    let prefixes = match prefixes {
        0 => String::new(),
        1 => " and 1 prefix, which counts as an address,".to_owned(),
        _ => format!(" and {prefixes} prefixes, each of which counts as an address,"),
    };
    format!("has {}{prefixes} and may get {to_come} more", many_addresses(addresses))
}

/// A number of addresses.
pub(super) fn many_addresses(count: usize) -> String {
    format!("{count} address{}", if count == 1 { "" } else { "es" })
}

/// That an ENI has no room for the virtual addresses, and what to do.
pub(super) fn no_room(NoRoom { eni, room, limit }: &NoRoom) -> String {
    format!(
        "{eni} {}; a {} allows {}: use a larger instance type, or unassign addresses",
        has(*room),
        limit.instance_type,
        limit.addresses
    )
}

/// That an ENI drops what this router forwards, and what to do.
pub(super) fn source_dest_check(eni: &EniId) -> String {
    format!(
        "the source/destination check is on for {eni}, and EC2 drops packets that are not from or to its addresses. Turn it off: `aws ec2 \
         modify-network-interface-attribute --network-interface-id {eni} --no-source-dest-check`"
    )
}

/// What the path to EC2 or IMDS depends on, and what to do.
pub(super) fn dependent_path(DependentPath { service, destination, on }: &DependentPath) -> String {
    let packets = format!("packets to {service} ({destination})");
    let route = "set a route through another next hop, such as the VPC's own router, the first address of the subnet";
    match on {
        Dependence::VirtualAddress(address) => {
            format!("{packets} go through the virtual address {address}, and are lost in a failover: {route}")
        }
        Dependence::OtherRouter(address) => {
            format!("{packets} go through {address}, the other router of a group, and are lost when it fails: {route}")
        }
        Dependence::VirtualSource(address) => format!(
            "{packets} have the virtual address {address} as their source, and the answers go to the router that has it: set a \
             route with another source address"
        ),
    }
}

/// That EC2 never moves an address, and what to do.
pub(super) fn primary(PrimaryAddress { address, owner }: &PrimaryAddress) -> String {
    format!(
        "{address} is the primary address of {}, which EC2 never moves: choose another address for the group",
        holder(owner)
    )
}

/// What EC2 shows of a resource that no ENI has; `None`: nothing.
pub(super) fn instead_of_eni(read: &OwnerRead) -> Option<String> {
    Some(match read.not_takeable.as_ref() {
        None if read.is_blackhole => "blackhole".to_owned(),
        None => return None,
        Some(NotTakeable::LeadsTo(target)) => target.clone(),
        Some(NotTakeable::Propagated) => "propagated".to_owned(),
        Some(NotTakeable::WithinVpc(_)) => "inside the VPC".to_owned(),
        Some(NotTakeable::NoSuchTable) => "no such table".to_owned(),
        Some(NotTakeable::NoSuchAllocation) => "no such allocation".to_owned(),
        Some(NotTakeable::ManagedBy(service)) => format!("managed by {service}"),
    })
}

/// Why a route or an Elastic IP is never taken, and what to do.
pub fn not_takeable(why: &NotTakeable) -> String {
    match why {
        NotTakeable::LeadsTo(target) => format!(
            "the route leads to {target}, so this router never replaces it. If the prefix or the table is wrong, correct \
             `aws-vipa route`; only if the group's routers are to carry this traffic, point the route at the master's \
             network interface (ENI) in EC2"
        ),
        NotTakeable::Propagated => {
            "the route is propagated by a virtual private gateway or a route server, and EC2 replaces only static routes. If the \
             prefix or the table is wrong, correct `aws-vipa route`; only if the group's routers are to carry this traffic, \
             create a static route for the prefix to the master's network interface (ENI) in EC2: it takes precedence"
                .to_owned()
        }
        NotTakeable::WithinVpc(range) => format!(
            "the destination lies within {range}, a range of the VPC, where EC2 accepts only routes for whole subnets: choose \
             an overlay address outside the VPC's ranges, or correct the prefix or the table of `aws-vipa route`"
        ),
        NotTakeable::NoSuchTable => {
            "there is no such route table in this account and region: correct `aws-vipa route … route-table`".to_owned()
        }
        NotTakeable::NoSuchAllocation => {
            "there is no such Elastic IP in this account and region: correct `aws-vipa elastic-ip`".to_owned()
        }
        NotTakeable::ManagedBy(service) => format!(
            "an AWS service ({service}) manages the Elastic IP, and EC2 refuses to associate it: choose another one in \
             `aws-vipa elastic-ip`"
        ),
    }
}

fn failed_claim(FailedClaim { kind, error, explanation }: &FailedClaim) -> String {
    match explanation {
        Some(Explanation::Primary(address)) => format!("{error}; {}", primary(address)),
        Some(Explanation::Unassigned) => format!(
            "{}; no network interface (ENI) that this account can see has the address: in a shared VPC, one of another \
             account may have it; ask the VPC's owner",
            with_remedy_of_kind(*kind, error)
        ),
        None => with_remedy_of_kind(*kind, error),
    }
}

fn read_failed(error: &CallError) -> String {
    format!("the last ownership check failed: {}", with_remedy(error))
}

/// The failure of the last read, to follow what is known from before.
fn last_check(error: Option<&CallError>) -> String {
    error.map_or_else(String::new, |error| format!("; {}", read_failed(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::Holder;

    #[test]
    fn what_ec2_shows_where_no_eni_has_it_is_reported() {
        let shown = |holder| instead_of_eni(&OwnerRead::new(BootInstant::default(), BootInstant::default(), holder));
        let not_takeable = |why| shown(Some(Holder::NotTakeable(why)));
        assert_eq!(shown(None), None);
        assert_eq!(shown(Some(Holder::Blackhole)).as_deref(), Some("blackhole"));
        assert_eq!(not_takeable(NotTakeable::LeadsTo("igw-0000000a".to_owned())).as_deref(), Some("igw-0000000a"));
        assert_eq!(not_takeable(NotTakeable::Propagated).as_deref(), Some("propagated"));
        let range = "10.99.0.0/16".parse().expect("a prefix");
        assert_eq!(not_takeable(NotTakeable::WithinVpc(range)).as_deref(), Some("inside the VPC"));
        assert_eq!(not_takeable(NotTakeable::NoSuchTable).as_deref(), Some("no such table"));
        assert_eq!(not_takeable(NotTakeable::NoSuchAllocation).as_deref(), Some("no such allocation"));
        assert_eq!(not_takeable(NotTakeable::ManagedBy("nlb".to_owned())).as_deref(), Some("managed by nlb"));
    }
}
