//! One value at least of each reason, to hold the documents and the expected reports against what is printed.
//!
//! Each list is made by [`examples`], which does not compile when a variant has no row.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use vipa_core::claim::{
    BootInstant, Cause, Dependence, DependentPath, EniElsewhere, EniUnknown, Explanation, FailedClaim, LastOwner,
    NoPrivateAddress, NoRoom, NoSuchEni, NotRead, Obstacle, PrimaryAddress, Reason, RequestRefusal, Room,
};
use vipa_core::model::assignment::Problem;
use vipa_core::model::ec2::{AddressLimit, CallError, ErrorClass, Failure, Owner};
use vipa_core::model::ids::{EniId, GroupName, InstanceId, InterfaceName};
use vipa_core::model::path::Service;
use vipa_core::model::resource::{Kind, NotTakeable, Resource, Route};
use vipa_core::model::vrrp::{NotifyState, VrrpState};
use vipa_core::report::model::FileErrorKind;
use vipa_core::report::reasons;

/// The values of all rows. Each row is a pattern and the values that it matches; together, the patterns are exhaustive.
macro_rules! examples {
    ($kind:ty: $($pattern:pat => $values:expr,)+) => {{
        // Does not compile when a variant is missing.
        let _row = |value: &$kind| match value {
            $($pattern => stringify!($pattern),)+
        };
        let mut values: Vec<$kind> = Vec::new();
        $(for value in $values {
            assert!(matches!(&value, $pattern), "{value:?} is in the row {}", stringify!($pattern));
            values.push(value);
        })+
        values
    }};
}

/// The time of day of an instant, in these examples.
pub fn clock(instant: BootInstant) -> Timestamp {
    let booted: Timestamp = "2026-11-22T10:00:00Z".parse().expect("a time");
    booted.saturating_add(instant.since_boot()).expect("a time")
}

fn at(seconds: u64) -> BootInstant {
    BootInstant::after_boot(Duration::from_secs(seconds))
}

fn eni() -> EniId {
    EniId::try_from("eni-0123456789abcdef0").expect("an ENI")
}

fn instance(id: &str) -> InstanceId {
    InstanceId::try_from(id).expect("an instance")
}

fn interface() -> InterfaceName {
    InterfaceName::try_from("eth0").expect("an interface")
}

fn group() -> GroupName {
    GroupName::try_from("web").expect("a group")
}

fn owner() -> Owner {
    Owner { eni: eni(), instance: Some(instance("i-0123456789abcdef0")), primary: false }
}

fn primary() -> PrimaryAddress {
    PrimaryAddress { address: Ipv4Addr::new(10, 99, 0, 100), owner: Owner { primary: true, ..owner() } }
}

fn error() -> CallError {
    CallError::new(Failure::Timeout, "no answer within 3s")
}

fn unknown_eni() -> EniUnknown {
    EniUnknown { interface: interface(), error: error() }
}

fn elsewhere() -> [EniElsewhere; 4] {
    let elsewhere = |is_configured, attached_to: Option<&str>| EniElsewhere {
        eni: eni(),
        this: instance("i-0123456789abcdef0"),
        attached_to: attached_to.map(instance),
        is_configured,
    };
    let other = Some("i-0fedcba9876543210");
    [elsewhere(true, other), elsewhere(false, other), elsewhere(true, None), elsewhere(false, None)]
}

fn failed_claims() -> Vec<FailedClaim> {
    let code = "InvalidParameterValue".try_into().expect("a code");
    let error = CallError::new(Failure::Api { code, class: ErrorClass::BadResource }, "invalid");
    let explanations = examples!(Explanation:
        Explanation::Primary(_) => [Explanation::Primary(primary())],
        Explanation::Unassigned => [Explanation::Unassigned],
    );
    let explanations = [None].into_iter().chain(explanations.into_iter().map(Some));
    explanations.map(|explanation| FailedClaim { kind: Kind::Address, error: error.clone(), explanation }).collect()
}

fn last_owners() -> Vec<LastOwner> {
    examples!(LastOwner:
        LastOwner::ThisRouter => [LastOwner::ThisRouter],
        LastOwner::Other(_) => [LastOwner::Other(owner()), LastOwner::Other(Owner { instance: None, ..owner() })],
        LastOwner::Unassigned => [LastOwner::Unassigned],
        LastOwner::NotRead => [LastOwner::NotRead],
    )
}

/// Every cause of a transition.
pub fn causes() -> Vec<Cause> {
    let notify = examples!(NotifyState:
        NotifyState::Master => [NotifyState::Master],
        NotifyState::MasterRxLowerPri => [NotifyState::MasterRxLowerPri],
        NotifyState::Backup => [NotifyState::Backup],
        NotifyState::Fault => [NotifyState::Fault],
        NotifyState::Stop => [NotifyState::Stop],
        NotifyState::Deleted => [NotifyState::Deleted],
    );
    let others = examples!(Cause:
        Cause::Notify(_) => [Cause::Notify(NotifyState::Master)],
        Cause::Inferred => [Cause::Inferred],
        Cause::NoTimer => [Cause::NoTimer],
        Cause::NoWriter => [Cause::NoWriter],
        Cause::NoLiveness => [Cause::NoLiveness],
        Cause::ActiveAgain => [Cause::ActiveAgain],
        Cause::Stalled => [Cause::Stalled],
        Cause::FifoFull => [Cause::FifoFull],
        Cause::NoNotifyEvent => [Cause::NoNotifyEvent],
        Cause::New => [Cause::New],
        Cause::Paused => [Cause::Paused],
        Cause::PauseEnded => [Cause::PauseEnded],
    );
    notify.into_iter().map(Cause::Notify).chain(others.into_iter().skip(1)).collect()
}

fn route() -> Resource {
    let table = "rtb-0123456789abcdef0".try_into().expect("a route table");
    Resource::Route(Route { table, destination: "192.0.2.1/32".parse().expect("a prefix") })
}

fn not_takeable() -> Vec<NotTakeable> {
    examples!(NotTakeable:
        NotTakeable::LeadsTo(_) => [NotTakeable::LeadsTo("igw-0123456789abcdef0".to_owned())],
        NotTakeable::Propagated => [NotTakeable::Propagated],
        NotTakeable::WithinVpc(_) => [NotTakeable::WithinVpc("10.99.0.0/16".parse().expect("a prefix"))],
        NotTakeable::NoSuchTable => [NotTakeable::NoSuchTable],
        NotTakeable::NoSuchAllocation => [NotTakeable::NoSuchAllocation],
        NotTakeable::ManagedBy(_) => [NotTakeable::ManagedBy("nlb".to_owned())],
    )
}

fn dependent_paths() -> Vec<Obstacle> {
    let address = Ipv4Addr::new(10, 99, 0, 100);
    let on = examples!(Dependence:
        Dependence::VirtualAddress(_) => [Dependence::VirtualAddress(address)],
        Dependence::OtherRouter(_) => [Dependence::OtherRouter(address)],
        Dependence::VirtualSource(_) => [Dependence::VirtualSource(address)],
    );
    let services = examples!(Service:
        Service::Ec2 => [Service::Ec2],
        Service::Imds => [Service::Imds],
    );
    let destination = Ipv4Addr::new(192, 0, 2, 1);
    let path = |service, on| Obstacle::DependentPath(DependentPath { service, destination, on });
    services.into_iter().flat_map(|service| on.iter().map(move |on| path(service, *on))).collect()
}

/// Every obstacle of a standby.
pub fn obstacles() -> Vec<Obstacle> {
    let mut obstacles = examples!(Obstacle:
        Obstacle::EniUnknown(_) => [Obstacle::EniUnknown(unknown_eni())],
        Obstacle::ReadFailed(_) => [Obstacle::ReadFailed(error())],
        Obstacle::Primary(_) => [Obstacle::Primary(primary())],
        Obstacle::NoSuchEni(_) => [true, false].map(|is_configured| {
            Obstacle::NoSuchEni(NoSuchEni { eni: eni(), is_configured })
        }),
        Obstacle::EniElsewhere(_) => elsewhere().map(Obstacle::EniElsewhere),
        Obstacle::OutsideSubnet { .. } => [
            Obstacle::OutsideSubnet {
                address: Ipv4Addr::new(192, 0, 2, 1),
                block: "10.99.0.0/24".parse().expect("a block"),
            },
        ],
        Obstacle::Reserved { .. } => [
            Obstacle::Reserved {
                address: Ipv4Addr::new(10, 99, 0, 3),
                block: "10.99.0.0/24".parse().expect("a block"),
            },
        ],
        Obstacle::NoPrivateAddress(_) => [
            Obstacle::NoPrivateAddress(NoPrivateAddress { eni: eni(), address: Ipv4Addr::new(10, 99, 0, 12) }),
        ],
        Obstacle::NoRoom(_) => [0, 1, 2].map(|prefixes| {
            let limit = AddressLimit { instance_type: "t3.micro".try_into().expect("a type"), addresses: 2 };
            let room = Room { addresses: 2 - prefixes.min(1), prefixes, to_come: 1 };
            Obstacle::NoRoom(NoRoom { eni: eni(), room, limit })
        }),
        Obstacle::SourceDestCheck(_) => [Obstacle::SourceDestCheck(eni())],
        Obstacle::DependentPath(_) => dependent_paths(),
        Obstacle::NotTakeable { .. } => {
            not_takeable().into_iter().map(|why| Obstacle::NotTakeable { resource: route(), why })
        },
        Obstacle::DryRunRefused { .. } => [
            Obstacle::DryRunRefused { resource: route(), error: failed_claims().remove(0).error },
            Obstacle::DryRunRefused {
                resource: Ipv4Addr::new(10, 99, 0, 100).into(),
                error: failed_claims().remove(0).error,
            },
        ],
        Obstacle::LastClaimRefused { .. } => [
            Obstacle::LastClaimRefused { at: None, failure: failed_claims().remove(0) },
        ],
    );
    obstacles
        .extend(failed_claims().into_iter().map(|failure| Obstacle::LastClaimRefused { at: Some(at(1_800)), failure }));
    obstacles
}

/// Every reason of a verdict.
pub fn reasons_of_verdicts() -> Vec<Reason> {
    let with_and_without = |reason: fn(Option<CallError>) -> Reason| [reason(None), reason(Some(error()))];
    let mut all = examples!(Reason:
        Reason::Paused(_) => [Reason::Paused(group())],
        Reason::VrrpUnknown(_) => [Reason::VrrpUnknown(Cause::New)],
        Reason::VrrpDown(_) => [Reason::VrrpDown(VrrpState::Fault), Reason::VrrpDown(VrrpState::Stop)],
        Reason::NoTimer(_) => [Reason::NoTimer(VrrpState::Fault)],
        Reason::ReadinessUnknown => [Reason::ReadinessUnknown],
        Reason::NotReady(_) => [Reason::NotReady(Obstacle::ReadFailed(error()))],
        Reason::Unexpected { .. } => [Reason::Unexpected { vrrp: VrrpState::Backup, interface: interface() }],
        Reason::NotTakenOver => [Reason::NotTakenOver],
        Reason::HeldByThirdParty(_) => [Reason::HeldByThirdParty(owner())],
        Reason::ContestedWithPeer(_) => [Reason::ContestedWithPeer(LastOwner::ThisRouter)],
        Reason::ContestedWithThirdParty { .. } => [
            Reason::ContestedWithThirdParty { group: group(), owner: LastOwner::ThisRouter },
        ],
        Reason::NotTakeable(_) => not_takeable().into_iter().map(Reason::NotTakeable),
        Reason::Refused(_) => [Reason::Refused(failed_claims().remove(0))],
        Reason::Missing { .. } => [Reason::Missing { interface: interface(), since: at(60) }],
        Reason::EniElsewhere(_) => elsewhere().map(Reason::EniElsewhere),
        Reason::EniUnknown(_) => [Reason::EniUnknown(unknown_eni())],
        Reason::NotVerifiedLately { .. } => with_and_without(|error| Reason::NotVerifiedLately { at: at(120), error }),
        Reason::NotVerified { .. } => with_and_without(|error| Reason::NotVerified { error }),
        Reason::Mismatch { .. } => [
            Reason::Mismatch { owner: None, error: None },
            Reason::Mismatch { owner: Some(owner()), error: Some(error()) },
        ],
        Reason::NotLocal => [Reason::NotLocal],
        Reason::AwaitingLiveness => [Reason::AwaitingLiveness],
        Reason::CheckingOwner { .. } => with_and_without(|error| Reason::CheckingOwner { error }),
        Reason::Retrying { .. } => [
            Reason::Retrying { failure: failed_claims().remove(0), allowed_at: None },
            Reason::Retrying { failure: failed_claims().remove(0), allowed_at: Some(at(180)) },
        ],
        Reason::RateLimited { .. } => [Reason::RateLimited { allowed_at: at(240) }],
        Reason::AwaitingPrecondition => [Reason::AwaitingPrecondition],
    );
    all.extend(causes().into_iter().map(Reason::VrrpUnknown));
    all.extend(obstacles().into_iter().map(Reason::NotReady));
    all.extend(last_owners().into_iter().map(Reason::ContestedWithPeer));
    all.extend(last_owners().into_iter().map(|owner| Reason::ContestedWithThirdParty { group: group(), owner }));
    all.extend(failed_claims().into_iter().map(Reason::Refused));
    all
}

/// Every problem of a group.
pub fn problems() -> Vec<Problem> {
    examples!(Problem:
        Problem::NotRun => [Problem::NotRun],
        Problem::NoAddress => [Problem::NoAddress],
        Problem::NotHeld(_) => [Problem::NotHeld(Ipv4Addr::new(10, 99, 0, 100))],
        Problem::MovedByOther { .. } => [
            Problem::MovedByOther { resource: Ipv4Addr::new(10, 99, 0, 100).into(), group: group() },
        ],
    )
}

/// Every refusal of a request.
pub fn request_refusals() -> Vec<RequestRefusal> {
    examples!(RequestRefusal:
        RequestRefusal::NoNode => [RequestRefusal::NoNode],
        RequestRefusal::Skipped => [RequestRefusal::Skipped],
        RequestRefusal::Paused => [RequestRefusal::Paused],
        RequestRefusal::NotPaused => [RequestRefusal::NotPaused],
        RequestRefusal::Disabled => [RequestRefusal::Disabled],
        RequestRefusal::NoAddress(_) => [RequestRefusal::NoAddress(Problem::NoAddress)],
        RequestRefusal::NotMaster(_) => [RequestRefusal::NotMaster(VrrpState::Backup)],
        RequestRefusal::VrrpUnknown(_) => [RequestRefusal::VrrpUnknown(Cause::NoWriter)],
    )
}

/// Every reason why owners were not read.
pub fn not_read() -> Vec<NotRead> {
    examples!(NotRead:
        NotRead::Failed(_) => [NotRead::Failed(error())],
        NotRead::EniUnknown(_) => [NotRead::EniUnknown(unknown_eni())],
        NotRead::AwaitingImds => [NotRead::AwaitingImds],
        NotRead::AwaitingEc2 => [NotRead::AwaitingEc2],
    )
}

/// Everything that the status can show as a reason, as text.
pub fn texts() -> Vec<String> {
    let files = examples!(FileErrorKind:
        FileErrorKind::UsingPrevious => [FileErrorKind::UsingPrevious],
        FileErrorKind::NoConfiguration => [FileErrorKind::NoConfiguration],
        FileErrorKind::Newer => [FileErrorKind::Newer],
    );
    let mut texts: Vec<String> = Vec::new();
    for kind in Kind::ALL {
        texts.extend(reasons_of_verdicts().iter().map(|reason| reasons::reason(kind, reason, clock)));
    }
    texts.extend(obstacles().iter().map(|obstacle| reasons::obstacle(obstacle, clock)));
    texts.extend(request_refusals().iter().map(|refusal| reasons::refused(&group(), refusal)));
    texts.extend(not_read().iter().map(reasons::not_read));
    texts.extend(causes().into_iter().map(|cause| reasons::cause(cause).to_owned()));
    texts.extend(files.into_iter().map(|kind| reasons::file_error(kind).0.to_uppercase()));
    texts.extend(problems().iter().map(reasons::problem));
    texts
}
