//! The remedy for each failure of a call: what an operator can do about it, in the status, in `check` and in the reasons of
//! verdicts.
//!
//! Remedies that depend on details of the call (which policy denied it, why a certificate was refused) are part of its error
//! message; those texts are here too.

use crate::model::ec2::{CallError, ErrorClass, Failure, NoCredentials};
use crate::model::ids::ErrorCode;
use crate::model::resource::Kind;

/// For an action that a policy does not allow.
pub(crate) const IAM_POLICY: &str = "`generate aws-vipa iam-policy` prints the required permissions";
/// For a failure without a [`remedy`].
const OTHERWISE: &str = "try again; if it persists, check `show log aws-vipa`";
/// For a certificate from an authority that is not trusted.
pub const UNKNOWN_ISSUER: &str = "if its authority is to be trusted, name it with ca-certificate-file";
/// For a certificate that is not valid yet, or no longer.
pub const CERTIFICATE_TIME: &str = "check this router's clock";
/// For an instance on which IMDS is disabled.
pub const ENABLE_IMDS: &str = "enable it with ModifyInstanceMetadataOptions";
/// For IMDS that does not answer.
pub const WAY_TO_IMDS: &str =
    "check the route to 169.254.169.254, and the hop limit in the instance's metadata options";

/// Where keepalived does not have the FIFO open.
pub(crate) const ATTACH_HOOK: &str = "check `show vrrp`: if keepalived is running, `sudo systemctl reload keepalived` attaches the hook without a failover; if not, check `show log vrrp`";
/// Where EC2 does not answer.
pub(crate) const WAY_TO_EC2: &str =
    "check the route, security groups (also the VPC endpoint's), the firewall and DNS on the way to EC2's endpoint";
/// For an address that EC2 does not assign to the ENI.
const ADDRESS: &str =
    "the address must be in the ENI's subnet and not be a primary address, and the ENI must have room for it";
const THROTTLED: &str = "reduce the calls of other programs to EC2 in this account and region";
pub(crate) const ENI: &str =
    "check which network interfaces are attached to this instance, and `aws-vipa network-interface-id`";

/// Why credentials could not be loaded, and what to do.
pub fn credentials_error(error: &CallError) -> String {
    followed_by_remedy(error.message.clone(), &error.failure)
}

/// What failed, and what to do.
pub(crate) fn with_remedy(error: &CallError) -> String {
    followed_by_remedy(error.to_string(), &error.failure)
}

/// Why a call about resources of that kind failed, and what to do.
pub(crate) fn with_remedy_of_kind(kind: Kind, error: &CallError) -> String {
    followed_by(error.to_string(), remedy_of_kind(kind, &error.failure))
}

fn followed_by_remedy(text: String, failure: &Failure) -> String {
    followed_by(text, remedy(failure))
}

fn followed_by(text: String, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text,
    }
}

/// What failed in a step of `check`, and what to do next: for each failure there is something.
pub(crate) fn with_next_step(error: &CallError) -> String {
    followed_by_next_step(error, remedy(&error.failure))
}

/// The same for a call about resources of that kind.
pub(crate) fn with_next_step_of_kind(kind: Kind, error: &CallError) -> String {
    followed_by_next_step(error, remedy_of_kind(kind, &error.failure))
}

/// What failed in a call of IMDS, and what to do next.
pub(crate) fn with_next_step_of_imds(error: &CallError) -> String {
    let next = match error.failure {
        // Its message has it.
        _ if error.message.ends_with(WAY_TO_IMDS) => return error.to_string(),
        Failure::InvalidResponse | Failure::TooLong => {
            "another service may answer at 169.254.169.254: check routes and firewall rules"
        }
        Failure::TooManyRequests => "reduce the requests of other programs on this router to IMDS",
        _ => WAY_TO_IMDS,
    };
    followed_by_next_step(error, Some(next))
}

fn followed_by_next_step(error: &CallError, remedy: Option<&str>) -> String {
    let next = match &error.failure {
        failure if failure.has_code(ErrorCode::is_denial) => IAM_POLICY,
        // Its message has it.
        Failure::ImdsDisabled => return error.to_string(),
        _ => remedy.unwrap_or(OTHERWISE),
    };
    let error = error.to_string();
    format!("{}. {}", error.trim_end_matches('.'), capitalized(next))
}

/// The remedy for a failed call about resources of that kind, as part of a sentence. None: see [`remedy`].
pub fn remedy_of_kind(kind: Kind, failure: &Failure) -> Option<&'static str> {
    let of_kind = match failure {
        Failure::Api { code, class: ErrorClass::BadResource | ErrorClass::Refused | ErrorClass::Denied } => {
            of_code(kind, code.as_str())
        }
        Failure::TooLong if kind == Kind::Route => {
            Some("delete routes of this table, or move `aws-vipa route` to a route table with fewer routes")
        }
        _ => None,
    };
    of_kind.or_else(|| remedy(failure))
}

/// The remedy for a code that means something else for each kind.
fn of_code(kind: Kind, code: &str) -> Option<&'static str> {
    Some(match (kind, code) {
        (Kind::Address, "InvalidParameterValue") => ADDRESS,
        (Kind::Route, "InvalidParameterValue") => {
            "correct `aws-vipa route`: the destination must be outside the VPC's ranges or a whole subnet, and the route table in the \
             VPC of the network interface (ENI)"
        }
        (Kind::Route, "InvalidRoute.NotFound" | "RouteAlreadyExists") => {
            "another program or operator creates or deletes the route at the same time: if this goes on, CloudTrail shows which"
        }
        (Kind::ElasticIp, "InvalidParameterValue") => {
            "correct `aws-vipa elastic-ip … private-address`: the network interface (ENI) must have the private address"
        }
        (Kind::ElasticIp, "AuthFailure") => {
            "correct `aws-vipa elastic-ip` if the Elastic IP belongs to another account or an AWS service manages it; otherwise \
             correct the credentials"
        }
        _ => return None,
    })
}

/// The remedy, as part of a sentence. None: the failure passes by itself, or its message has the remedy.
pub fn remedy(failure: &Failure) -> Option<&'static str> {
    Some(match failure {
        Failure::Timeout | Failure::Connection => WAY_TO_EC2,
        Failure::Tls => "check `aws-vipa ca-certificate-file`, and the host name in `aws-vipa endpoint-url`",
        Failure::InvalidResponse | Failure::TooLong => {
            "another service than EC2 may have answered: check `aws-vipa endpoint-url` and proxies on the way"
        }
        Failure::TooManyRequests => THROTTLED,
        Failure::Settings => "check `aws-vipa endpoint-url` and `aws-vipa region`",
        Failure::NoRegion => "check that IMDS answers, or set `aws-vipa region`",
        Failure::LocalInterface => "check the interface with `show interfaces`",
        Failure::UnknownMac => ENI,
        Failure::Credentials { cause, .. } => return credentials(*cause),
        // Its message has it.
        Failure::ImdsDisabled => return None,
        Failure::Api { code, class } => match class {
            // Its message names the policy to change.
            ErrorClass::Denied if code.is_denial() => return None,
            ErrorClass::Denied => "correct the credentials or the IAM policy",
            ErrorClass::Clock => "correct the clock: `show ntp`",
            ErrorClass::NoSuchInterface => ENI,
            ErrorClass::BadResource => match code.as_str() {
                "InvalidRouteTableID.NotFound" | "InvalidRouteTableId.Malformed" => {
                    "correct `aws-vipa route … route-table`"
                }
                "RouteLimitExceeded" => "delete a route of the table, or raise the quota \"Routes per route table\"",
                "InvalidAllocationID.NotFound" => "correct `aws-vipa elastic-ip`",
                "Resource.AlreadyAssociated" => {
                    "another Elastic IP is associated with the private address: disassociate it, or choose another address in \
                     `aws-vipa elastic-ip … private-address`"
                }
                "InvalidParameterValue" => "correct the address, the route or the Elastic IP that EC2 refuses",
                _ => ADDRESS,
            },
            ErrorClass::TimedOut => WAY_TO_EC2,
            ErrorClass::Throttled => THROTTLED,
            ErrorClass::Transient | ErrorClass::Refused => return None,
        },
    })
}

fn credentials(cause: NoCredentials) -> Option<&'static str> {
    Some(match cause {
        NoCredentials::Role => {
            "attach a role to the instance, with a trust policy that allows EC2 to assume it, or set `aws-vipa credentials-file`"
        }
        NoCredentials::Imds => WAY_TO_IMDS,
        NoCredentials::ImdsDisabled => ENABLE_IMDS,
        NoCredentials::Profile => {
            "put aws_access_key_id and aws_secret_access_key into that profile of the file, or correct `aws-vipa profile`"
        }
        NoCredentials::Sts => "check that STS is reachable and the keys may assume the role",
        NoCredentials::File => "correct the file, or `aws-vipa credentials-file`",
        // Its message has it.
        NoCredentials::NotLocal => return None,
        NoCredentials::NotCopied => {
            "`systemctl status vyos-aws-vipa-credentials.service` shows why; vyos-aws-vipa-credentials.timer, which starts it, must be active; if /run/vyos-aws-vipa/config.json is missing, commit a change of an aws-vipa node"
        }
        NoCredentials::CopyNotPermitted => "run the command with sudo",
        NoCredentials::Copy => "remove it: it is written again within a minute",
    })
}

/// The text as the beginning of a sentence.
pub(crate) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// The kind of policy that refused a call, by the message of the refusal (IAM User Guide, "Troubleshoot access denied error
/// messages"). It selects the remedy only; the class comes from the error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedBy {
    /// The policy of the VPC endpoint.
    EndpointPolicy,
    /// A service control policy of the organization.
    ServiceControlPolicy,
    /// A resource control policy of the organization.
    ResourceControlPolicy,
    /// The permissions boundary of the role or user.
    PermissionsBoundary,
    /// The policy of the session.
    SessionPolicy,
    /// A statement with `Deny` in a policy of the role or user itself: no further `Allow` helps.
    ExplicitDeny,
    /// No policy allows it, or the message does not say.
    NoPolicyAllows,
}

impl DeniedBy {
    /// Reads the whole message: its reason may stand behind long ARNs.
    pub fn of(message: &str) -> Self {
        let message = message.to_ascii_lowercase();
        // None of these can be part of an ARN or a name in one, which have no blanks.
        for (words, denied_by) in [
            ("vpc endpoint polic", Self::EndpointPolicy),
            ("service control polic", Self::ServiceControlPolicy),
            ("resource control polic", Self::ResourceControlPolicy),
            ("permissions boundar", Self::PermissionsBoundary),
            ("session polic", Self::SessionPolicy),
            ("explicit deny", Self::ExplicitDeny),
        ] {
            if message.contains(words) {
                return denied_by;
            }
        }
        Self::NoPolicyAllows
    }

    /// What has to be done for `action` to be allowed to the credentials from `source`.
    pub fn remedy(self, action: &str, source: &str) -> String {
        match self {
            Self::EndpointPolicy => format!("allow {action} in the policy of the VPC endpoint for EC2"),
            Self::ServiceControlPolicy => {
                format!("change the service control policy of the AWS organization that denies {action}")
            }
            Self::ResourceControlPolicy => {
                format!("change the resource control policy of the AWS organization that denies {action}")
            }
            Self::PermissionsBoundary => format!("allow {action} in the permissions boundary of {source}"),
            Self::SessionPolicy => format!("allow {action} in the session policy of {source}"),
            Self::ExplicitDeny => format!("remove the Deny of {action} from the policies of {source}"),
            Self::NoPolicyAllows => format!("allow {action} to {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ec2::every_failure;

    #[test]
    fn every_failure_has_a_remedy_or_is_exempt() {
        let without = every_failure().into_iter().filter(|failure| remedy(failure).is_none());
        let without: Vec<String> = without.map(|failure| failure.code().to_owned()).collect();
        let exempt = [
            "InternalError",
            "UnauthorizedOperation",
            "AccessDenied",
            "SomethingNew",
            "Forbidden",
            "Credentials.NotLocal",
        ];
        assert_eq!(without, exempt);
    }

    #[test]
    fn the_remedy_for_a_refused_claim_is_that_of_its_kind() {
        let failure = |code: &str| {
            let code: ErrorCode = code.try_into().expect("a code");
            let class = code.class(400);
            Failure::api(code, class)
        };
        for (code, address, route, elastic_ip) in [
            ("InvalidParameterValue", "in the ENI's subnet", "aws-vipa route`: the destination", "… private-address`"),
            ("AuthFailure", "the IAM policy", "the IAM policy", "belongs to another account"),
            ("PrivateIpAddressLimitExceeded", "have room", "have room", "have room"),
            ("InvalidRouteTableID.NotFound", "… route-table`", "… route-table`", "… route-table`"),
            ("RouteLimitExceeded", "raise the quota", "raise the quota", "raise the quota"),
            ("InvalidAllocationID.NotFound", "`aws-vipa elastic-ip`", "`aws-vipa elastic-ip`", "`aws-vipa elastic-ip`"),
            ("Resource.AlreadyAssociated", "disassociate it", "disassociate it", "disassociate it"),
        ] {
            for (kind, words) in Kind::ALL.into_iter().zip([address, route, elastic_ip]) {
                let remedy = remedy_of_kind(kind, &failure(code)).unwrap_or_default();
                assert!(remedy.contains(words), "{code} of {kind:?}: {remedy}");
            }
        }
        for code in ["InvalidRoute.NotFound", "RouteAlreadyExists"] {
            let remedies = Kind::ALL.map(|kind| remedy_of_kind(kind, &failure(code)).is_some());
            assert_eq!(remedies, [false, true, false], "{code}");
        }
        // Of a call that names no resource it is general.
        assert_eq!(
            remedy(&failure("InvalidParameterValue")),
            Some("correct the address, the route or the Elastic IP that EC2 refuses")
        );
        // The clock or newer credentials explain it.
        for class in [ErrorClass::Clock, ErrorClass::Transient] {
            let explained = Failure::Api { code: "AuthFailure".try_into().expect("a code"), class };
            assert_eq!(remedy_of_kind(Kind::ElasticIp, &explained), remedy(&explained));
        }
    }

    #[test]
    fn a_step_of_check_has_one_next_step() {
        let error = CallError::new(Failure::ImdsDisabled, format!("IMDS is disabled; {ENABLE_IMDS}"));
        assert_eq!(with_next_step(&error), "Forbidden: IMDS is disabled; enable it with ModifyInstanceMetadataOptions");
        let denied = Failure::api("UnauthorizedOperation".try_into().expect("a code"), ErrorClass::Denied);
        let step = with_next_step(&CallError::new(denied, "no; allow ec2:DescribeRouteTables to instance role router"));
        assert!(step.ends_with("router. `generate aws-vipa iam-policy` prints the required permissions"), "{step}");
        for failure in every_failure() {
            let step = with_next_step(&CallError::new(failure.clone(), "why"));
            let tries_again = step.contains("Try again");
            let has_none = remedy(&failure).is_none() && !failure.has_code(ErrorCode::is_denial);
            assert_eq!(tries_again, has_none && failure != Failure::ImdsDisabled, "{step}");
        }
    }

    #[test]
    fn a_denial_names_the_policy_to_change() {
        let user = "User: arn:aws:sts::123456789012:assumed-role/session-policy/i-0123 is not authorized to perform: x";
        for (reason, denied_by) in [
            ("because no VPC endpoint policy allows the x action", DeniedBy::EndpointPolicy),
            ("with an explicit deny in a VPC endpoint policy", DeniedBy::EndpointPolicy),
            ("because no service control policy allows the x action", DeniedBy::ServiceControlPolicy),
            ("with an explicit deny in a service control policy", DeniedBy::ServiceControlPolicy),
            ("with an explicit deny in a resource control policy", DeniedBy::ResourceControlPolicy),
            ("because no permissions boundary allows the x action", DeniedBy::PermissionsBoundary),
            ("with an explicit deny in a permissions boundary", DeniedBy::PermissionsBoundary),
            ("because no session policy allows the x action", DeniedBy::SessionPolicy),
            ("with an explicit deny in an identity-based policy", DeniedBy::ExplicitDeny),
            ("because no identity-based policy allows the x action", DeniedBy::NoPolicyAllows),
            ("", DeniedBy::NoPolicyAllows),
        ] {
            assert_eq!(DeniedBy::of(&format!("{user} {reason}")), denied_by, "{reason}");
        }
    }
}
