//! Network interfaces and owners of addresses in EC2, and why a call to EC2 or IMDS failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::ids::{AccountId, EniId, ErrorCode, InstanceId, InstanceType, Region, RequestId, SubnetId, VpcId};
use crate::model::resource::Prefix;

/// How far the clock may differ from EC2's before it explains a refused signature. AWS refuses requests that are 5 minutes off
/// (Signature Version 4, "Elements of an AWS API request signature").
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(4);

/// The network interface that has an address, as EC2 reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The ENI that the address is assigned to.
    pub eni: EniId,
    /// The instance that the ENI is attached to, if it is attached.
    pub instance: Option<InstanceId>,
    /// Whether it is that ENI's primary address, which can never be reassigned (AssignPrivateIpAddresses, EC2 API).
    pub primary: bool,
}

/// Which kind of owner took an address from this router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taker {
    /// The other router: its instance has one of the group's peer addresses.
    Peer,
    /// A third party: any other instance.
    ThirdParty,
}

/// The owner of each address that was asked for; an address that no ENI has is absent.
pub type Owners = BTreeMap<Ipv4Addr, Owner>;

/// Which instance this is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The id that IMDS reports.
    pub id: InstanceId,
    /// The region it runs in.
    pub region: Region,
    /// The availability zone it runs in, for display.
    pub availability_zone: String,
}

/// The ENI behind a local interface, as IMDS reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eni {
    /// The id by which EC2 knows it.
    pub id: EniId,
    /// The subnet it is in: an address can only be claimed inside it.
    pub subnet: SubnetId,
    /// The VPC it is in: an address is unique inside it.
    pub vpc: VpcId,
    /// Its primary address, which is never evidence of a VRRP state and never claimed.
    pub primary: Ipv4Addr,
    /// The IPv4 CIDR block of its subnet; absent: not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Prefix>,
}

/// A network interface, as EC2 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The subnet whose addresses it can have.
    pub subnet: SubnetId,
    /// The instance that it is attached to, if it is attached.
    pub instance: Option<InstanceId>,
    /// Whether EC2 drops packets that are neither from nor to one of its addresses; absent: not reported.
    pub source_dest_check: Option<bool>,
    /// Its primary private IPv4 address; absent: it has IPv6 addresses alone.
    pub primary: Option<Ipv4Addr>,
    /// Its private IPv4 addresses, the primary one among them.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// How many IPv4 prefixes are delegated to it.
    pub prefixes: usize,
}

/// How many private IPv4 addresses each ENI of an instance type can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressLimit {
    /// The type that the limit is of, for messages.
    pub instance_type: InstanceType,
    /// The number of addresses, the primary one included.
    pub addresses: usize,
}

/// The subnet block and the account of an ENI, which IMDS reports in addition to [`Eni`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniNetwork {
    /// The IPv4 CIDR block of its subnet.
    pub block: Ipv4Net,
    /// The account that it belongs to.
    pub account: AccountId,
}

/// EC2's acknowledgement of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledgement {
    /// AWS's id of the request.
    pub request_id: Option<RequestId>,
    /// The claimed addresses that the answer does not list. EC2 accepted the claim, but the list may be missing, or hold only
    /// newly assigned addresses. Only a read proves that they are ours.
    pub unlisted: BTreeSet<Ipv4Addr>,
}

/// Why a call to EC2 or IMDS failed. In files and on the control socket its fields are `class`, `code`, `message` and
/// `request_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "FlatCallError", into = "FlatCallError")]
#[error("{}: {message}", failure.code())]
pub struct CallError {
    /// What failed.
    pub failure: Failure,
    /// What EC2, IMDS or the transport reported, in one line.
    pub message: String,
    /// EC2's request id, if EC2 answered.
    pub request_id: Option<RequestId>,
}

impl CallError {
    /// A failure without an answer of EC2.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), request_id: None }
    }

    /// See [`Failure::class`].
    pub fn class(&self) -> ErrorClass {
        self.failure.class()
    }

    /// See [`Failure::code`].
    pub fn code(&self) -> &str {
        self.failure.code()
    }

    /// Whether EC2 has answered that it does not perform such a call, and neither its load nor a clock is the reason.
    pub fn is_refusal(&self) -> bool {
        matches!(self.failure, Failure::Api { .. })
            && matches!(
                self.class(),
                ErrorClass::Denied | ErrorClass::NoSuchInterface | ErrorClass::BadResource | ErrorClass::Refused
            )
    }
}

/// What failed in a call. [`crate::report::remedies`] has the remedy for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// EC2 answered with an error code.
    Api {
        /// The code in EC2's answer.
        code: ErrorCode,
        /// [`ErrorCode::class`], unless the clock or newer credentials explain the refusal.
        class: ErrorClass,
    },
    /// No answer within the time limit.
    Timeout,
    /// The connection could not be made, or was lost.
    Connection,
    /// The TLS handshake failed.
    Tls,
    /// The answer could not be used.
    InvalidResponse,
    /// The answer is longer than any that is expected.
    TooLong,
    /// HTTP status 429 without an error code.
    TooManyRequests,
    /// There are no credentials to sign with.
    Credentials {
        /// Why not.
        cause: NoCredentials,
        /// [`NoCredentials::class`], unless IMDS limits the request rate, or the instance has just started.
        class: ErrorClass,
    },
    /// No request can be made from the configured endpoint and region.
    Settings,
    /// The region is unknown: none is configured, and IMDS has not answered.
    NoRegion,
    /// The local interface or its MAC address could not be read.
    LocalInterface,
    /// IMDS lists no ENI with that MAC address.
    UnknownMac,
    /// The instance's metadata service is disabled.
    ImdsDisabled,
}

/// Why there are no credentials: where an operator has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoCredentials {
    /// The instance has no role, or EC2 may not assume it.
    Role,
    /// IMDS did not return the role's credentials.
    Imds,
    /// The instance's metadata service is disabled.
    ImdsDisabled,
    /// The credentials file has no usable keys for the profile.
    Profile,
    /// STS did not return credentials for the profile's role.
    Sts,
    /// The credentials file cannot be read.
    File,
    /// The credentials file is on a file system that may hang.
    NotLocal,
    /// Root's copy of the credentials file is missing, or is of another file.
    NotCopied,
    /// This user may not read the copy.
    CopyNotPermitted,
    /// The copy is corrupt.
    Copy,
}

impl NoCredentials {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Role,
        Self::Imds,
        Self::ImdsDisabled,
        Self::Profile,
        Self::Sts,
        Self::File,
        Self::NotLocal,
        Self::NotCopied,
        Self::CopyNotPermitted,
        Self::Copy,
    ];

    /// The code in log lines, in files and on the control socket.
    pub fn code(self) -> &'static str {
        match self {
            Self::Role => "Credentials.Role",
            Self::Imds => "Credentials.IMDS",
            Self::ImdsDisabled => "Credentials.IMDSDisabled",
            Self::Profile => "Credentials.Profile",
            Self::Sts => "Credentials.STS",
            Self::File => "Credentials.File",
            Self::NotLocal => "Credentials.NotLocal",
            Self::NotCopied => "Credentials.NotCopied",
            Self::CopyNotPermitted => "Credentials.CopyNotPermitted",
            Self::Copy => "Credentials.Copy",
        }
    }

    /// What it means for the next attempt.
    pub fn class(self) -> ErrorClass {
        match self {
            Self::Imds | Self::Sts | Self::NotCopied => ErrorClass::Transient,
            Self::Role
            | Self::ImdsDisabled
            | Self::Profile
            | Self::File
            | Self::NotLocal
            | Self::CopyNotPermitted
            | Self::Copy => ErrorClass::Denied,
        }
    }
}

impl From<NoCredentials> for Failure {
    fn from(cause: NoCredentials) -> Self {
        Self::Credentials { cause, class: cause.class() }
    }
}

impl Failure {
    /// The failure of a call that was answered with this error code. EC2 has no code that equals one of this program's
    /// own codes: such an answer is from another service.
    pub fn api(code: ErrorCode, class: ErrorClass) -> Self {
        match Self::own(code.as_str(), class) {
            Some(_) => Self::InvalidResponse,
            None => Self::Api { code, class },
        }
    }

    /// The failure with this code and class, as files and the control socket have it. One of this program's own codes
    /// with another class than the program gives it was not written by the program.
    pub fn of(code: ErrorCode, class: ErrorClass) -> Self {
        match Self::own(code.as_str(), class) {
            Some(own) if own.class() == class => own,
            Some(_) => Self::InvalidResponse,
            None => Self::Api { code, class },
        }
    }

    /// The failure for one of this program's own codes, which stand for a missing answer of EC2.
    fn own(word: &str, class: ErrorClass) -> Option<Self> {
        Some(match word {
            "Timeout" => Self::Timeout,
            "Connection" => Self::Connection,
            "TLS" => Self::Tls,
            "Answer" => Self::InvalidResponse,
            "AnswerTooLong" => Self::TooLong,
            "TooManyRequests" => Self::TooManyRequests,
            "Settings" => Self::Settings,
            "Region" => Self::NoRegion,
            "Interface" => Self::LocalInterface,
            "NotFound" => Self::UnknownMac,
            "Forbidden" => Self::ImdsDisabled,
            word => {
                let cause = NoCredentials::ALL.into_iter().find(|cause| cause.code() == word)?;
                Self::Credentials { cause, class }
            }
        })
    }

    /// EC2's error code, or one of this program's own codes if EC2 did not answer.
    pub fn code(&self) -> &str {
        match self {
            Self::Api { code, .. } => code.as_str(),
            Self::Timeout => "Timeout",
            Self::Connection => "Connection",
            Self::Tls => "TLS",
            Self::InvalidResponse => "Answer",
            Self::TooLong => "AnswerTooLong",
            Self::TooManyRequests => "TooManyRequests",
            Self::Credentials { cause, .. } => cause.code(),
            Self::Settings => "Settings",
            Self::NoRegion => "Region",
            Self::LocalInterface => "Interface",
            Self::UnknownMac => "NotFound",
            Self::ImdsDisabled => "Forbidden",
        }
    }

    fn into_code(self) -> ErrorCode {
        match self {
            Self::Api { code, .. } => code,
            other => ErrorCode::word(other.code()),
        }
    }

    /// Whether it is an answer of EC2 with an error code of that kind.
    pub fn has_code(&self, is_of_kind: fn(&ErrorCode) -> bool) -> bool {
        matches!(self, Self::Api { code, .. } if is_of_kind(code))
    }

    /// What the failure means for the next attempt.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Api { class, .. } | Self::Credentials { class, .. } => *class,
            Self::Timeout => ErrorClass::TimedOut,
            Self::TooManyRequests => ErrorClass::Throttled,
            Self::Connection
            | Self::Tls
            | Self::InvalidResponse
            | Self::TooLong
            | Self::NoRegion
            | Self::LocalInterface => ErrorClass::Transient,
            Self::Settings | Self::ImdsDisabled => ErrorClass::Denied,
            Self::UnknownMac => ErrorClass::NoSuchInterface,
        }
    }
}

/// A [`CallError`] as files and the control socket have it.
#[derive(Serialize, Deserialize)]
struct FlatCallError {
    class: ErrorClass,
    code: ErrorCode,
    message: String,
    request_id: Option<RequestId>,
}

impl From<FlatCallError> for CallError {
    fn from(flat: FlatCallError) -> Self {
        let FlatCallError { class, code, message, request_id } = flat;
        Self { failure: Failure::of(code, class), message, request_id }
    }
}

impl From<CallError> for FlatCallError {
    fn from(error: CallError) -> Self {
        let CallError { failure, message, request_id } = error;
        let class = failure.class();
        Self { class, code: failure.into_code(), message, request_id }
    }
}

/// What a failure means for the next attempt. It depends on the error code, never on the text of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// No answer within the time limit: EC2 may have performed the request, or may still perform it.
    TimedOut,
    /// `RequestLimitExceeded`, `Throttling*`: retry later and less often.
    Throttled,
    /// 5xx, connection errors, unusable answers, unknown codes: retry soon.
    Transient,
    /// `RequestExpired`, or `AuthFailure` while the clock is minutes off: requests now use EC2's time; retry at once.
    Clock,
    /// `UnauthorizedOperation`, `AuthFailure`, `InvalidClientTokenId`, `ExpiredToken`, no credentials: an operator must act.
    Denied,
    /// `InvalidNetworkInterfaceID.*`: the ENI does not exist, or no longer exists.
    NoSuchInterface,
    /// `InvalidParameterValue`, `PrivateIpAddressLimitExceeded`, `InvalidRouteTableID.NotFound` …: one of the addresses, the
    /// route or the Elastic IP is invalid, or there is no room for it.
    BadResource,
    /// HTTP 4xx with any other code: one address may be the cause, and it may be temporary.
    Refused,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 8] = [
        Self::TimedOut,
        Self::Throttled,
        Self::Transient,
        Self::Clock,
        Self::Denied,
        Self::NoSuchInterface,
        Self::BadResource,
        Self::Refused,
    ];

    /// Its word, as JSON and the metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timed-out",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Clock => "clock",
            Self::Denied => "denied",
            Self::NoSuchInterface => "no-such-interface",
            Self::BadResource => "bad-resource",
            Self::Refused => "refused",
        }
    }
}

/// The meaning of EC2's error codes ("Error codes for the Amazon EC2 API", and "Common errors" there).
impl ErrorCode {
    /// What the code means for the next attempt. `status` is the answer's HTTP status, which decides only for a code
    /// that is not listed here.
    ///
    /// It is never [`ErrorClass::Clock`]: whether the clock explains a refusal depends on the answer's `Date`.
    pub fn class(&self, status: u16) -> ErrorClass {
        let code = self.as_str();
        match code {
            "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "EC2ThrottledException"
            | "BandwidthLimitExceeded"
            | "SlowDown" => ErrorClass::Throttled,
            _ if code.starts_with("Throttl") => ErrorClass::Throttled,

            "UnauthorizedOperation"
            | "AuthFailure"
            | "InvalidClientTokenId"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationToken"
            | "AccessDenied"
            | "AccessDeniedException"
            | "OperationNotPermitted"
            | "OptInRequired"
            | "PendingVerification"
            | "Blocked" => ErrorClass::Denied,

            "InvalidParameterValue"
            | "PrivateIpAddressLimitExceeded"
            | "InvalidIPAddress.InUse"
            | "InvalidRouteTableID.NotFound"
            | "InvalidRouteTableId.Malformed"
            | "RouteLimitExceeded"
            | "InvalidAllocationID.NotFound"
            | "Resource.AlreadyAssociated" => ErrorClass::BadResource,
            _ if code.starts_with("InvalidNetworkInterfaceID.") || code.starts_with("InvalidNetworkInterfaceId.") => {
                ErrorClass::NoSuchInterface
            }

            _ if status == 429 => ErrorClass::Throttled,
            _ if (400..500).contains(&status) => ErrorClass::Refused,
            _ => ErrorClass::Transient,
        }
    }

    /// Whether a wrong clock can cause a refusal with this code.
    pub fn may_be_the_clock(&self) -> bool {
        matches!(
            self.as_str(),
            "RequestExpired"
                | "AuthFailure"
                | "RequestTimeTooSkewed"
                | "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "AccessDeniedException"
        )
    }

    /// Whether newer credentials, on disk or in IMDS, can end a refusal with this code.
    pub fn may_be_the_credentials(&self) -> bool {
        matches!(
            self.as_str(),
            "AuthFailure"
                | "InvalidClientTokenId"
                | "ExpiredToken"
                | "ExpiredTokenException"
                | "RequestExpired"
                | "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "UnrecognizedClientException"
                | "InvalidAccessKeyId"
        )
    }

    /// Whether IAM refused the call: the credentials are valid, and a policy denies the action or does not allow it.
    pub fn is_denial(&self) -> bool {
        matches!(self.as_str(), "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException")
    }

    /// Whether the ENI has no room for the addresses.
    pub fn is_no_room(&self) -> bool {
        self.as_str() == "PrivateIpAddressLimitExceeded"
    }

    /// Whether the route table has no room for another route.
    pub fn is_full_table(&self) -> bool {
        self.as_str() == "RouteLimitExceeded"
    }
}

/// One failure of each variant, and of each class of EC2's codes.
#[cfg(test)]
pub(crate) fn every_failure() -> Vec<Failure> {
    use ErrorClass::*;
    let api = |code: &str, class| Failure::Api { code: code.try_into().expect("a code"), class };
    let failures = vec![
        api("RequestLimitExceeded", Throttled),
        api("InternalError", Transient),
        api("RequestExpired", Clock),
        api("AuthFailure", Denied),
        api("UnauthorizedOperation", Denied),
        api("AccessDenied", Denied),
        api("InvalidNetworkInterfaceID.NotFound", NoSuchInterface),
        api("InvalidParameterValue", BadResource),
        api("SomethingNew", Refused),
        Failure::Timeout,
        Failure::Connection,
        Failure::Tls,
        Failure::InvalidResponse,
        Failure::TooLong,
        Failure::TooManyRequests,
        Failure::Credentials { cause: NoCredentials::Role, class: Transient },
        Failure::Settings,
        Failure::NoRegion,
        Failure::LocalInterface,
        Failure::UnknownMac,
        Failure::ImdsDisabled,
    ];
    failures.into_iter().chain(NoCredentials::ALL.map(Failure::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_code(code: &str) -> ErrorCode {
        code.try_into().expect("a code")
    }

    #[test]
    fn the_word_of_a_class_is_that_of_json() {
        for class in ErrorClass::ALL {
            assert_eq!(serde_json::to_value(class).expect("JSON"), class.as_str());
        }
    }

    #[test]
    fn every_code_has_its_class() {
        use ErrorClass::*;
        for (code, status, class) in [
            ("RequestLimitExceeded", 503, Throttled),
            ("Throttling", 400, Throttled),
            ("ThrottlingException", 400, Throttled),
            ("SomethingNew", 429, Throttled),
            ("InternalError", 500, Transient),
            ("Unavailable", 503, Transient),
            ("ServiceUnavailable", 503, Transient),
            ("InternalFailure", 500, Transient),
            ("SomethingNew", 400, Refused),
            ("SomethingNew", 500, Transient),
            ("UnauthorizedOperation", 403, Denied),
            ("AuthFailure", 401, Denied),
            ("InvalidClientTokenId", 403, Denied),
            ("ExpiredToken", 400, Denied),
            ("RequestExpired", 400, Denied),
            ("SignatureDoesNotMatch", 403, Denied),
            ("OptInRequired", 401, Denied),
            ("InvalidNetworkInterfaceID.NotFound", 400, NoSuchInterface),
            ("InvalidNetworkInterfaceID.Malformed", 400, NoSuchInterface),
            ("InvalidNetworkInterfaceId.NotFound", 400, NoSuchInterface),
            ("InvalidParameterValue", 400, BadResource),
            ("PrivateIpAddressLimitExceeded", 400, BadResource),
        ] {
            assert_eq!(error_code(code).class(status), class, "{code} with {status}");
        }
    }

    #[test]
    fn only_refusals_may_come_from_the_clock_or_the_credentials() {
        for code in ["RequestExpired", "AuthFailure", "SignatureDoesNotMatch"] {
            assert!(error_code(code).may_be_the_clock() && error_code(code).may_be_the_credentials(), "{code}");
        }
        for code in ["ExpiredToken", "InvalidClientTokenId"] {
            assert!(!error_code(code).may_be_the_clock() && error_code(code).may_be_the_credentials(), "{code}");
        }
        for code in ["UnauthorizedOperation", "InvalidParameterValue", "InternalError"] {
            assert!(!error_code(code).may_be_the_clock() && !error_code(code).may_be_the_credentials(), "{code}");
        }
    }

    #[test]
    fn a_failure_reads_back_as_it_was_written() {
        for failure in every_failure() {
            let error = CallError::new(failure, "a message");
            let json = serde_json::to_value(&error).expect("JSON");
            assert_eq!(json["code"], error.code());
            assert_eq!(serde_json::from_value::<CallError>(json).expect("a failure"), error);
        }
    }

    #[test]
    fn an_answer_with_one_of_our_own_words_is_not_from_ec2() {
        let own = every_failure().into_iter().filter(|failure| !matches!(failure, Failure::Api { .. }));
        for failure in own {
            let word = error_code(failure.code());
            for status in [400, 404, 429, 500] {
                assert_eq!(Failure::api(word.clone(), word.class(status)), Failure::InvalidResponse, "{word} {status}");
            }
            assert_eq!(Failure::of(word.clone(), failure.class()), failure);
            let other = if failure.class() == ErrorClass::Clock { ErrorClass::Refused } else { ErrorClass::Clock };
            if !matches!(failure, Failure::Credentials { .. }) {
                assert_eq!(Failure::of(word.clone(), other), Failure::InvalidResponse, "{word}");
            }
        }
        let code = error_code("AuthFailure");
        let refused = Failure::Api { code: code.clone(), class: ErrorClass::Denied };
        assert_eq!(Failure::api(code, ErrorClass::Denied), refused);
    }
}
