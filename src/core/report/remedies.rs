//! The remedy for each failure of a call: what an operator can do about it, in the status, in `check` and in the reasons of
//! verdicts.
//!
//! Remedies that depend on details of the call (which policy denied it, why a certificate was refused) are part of its error
//! message; those texts are here too.

use crate::model::ec2::{CallError, ErrorClass, Failure};

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
pub const WAY_TO_IMDS: &str = "check the route to it, and the hop limit of its answers";

/// Where keepalived does not have the FIFO open.
pub(crate) const ATTACH_HOOK: &str = "check `show vrrp`: if keepalived is running, `sudo systemctl reload keepalived` attaches the hook without a failover; if not, check `show log vrrp`";
/// Where EC2 does not answer.
pub(crate) const WAY_TO_EC2: &str =
    "check the route, security groups (also the VPC endpoint's), the firewall and DNS on the way to EC2's endpoint";
const THROTTLED: &str = "reduce the calls of other programs to EC2 in this account and region";
const ENI: &str = "check which network interfaces are attached to this instance, and `aws-vipa network-interface-id`";

const NO_CREDENTIALS: &str = "without `aws-vipa credentials-file`, attach a role to the instance; with it, put aws_access_key_id and aws_secret_access_key into that file, in the profile of `aws-vipa profile`";
const CREDENTIALS_NOT_LOADED: &str = "without `aws-vipa credentials-file`, check that IMDS answers and the instance has a role; with it, check that STS is reachable and the keys may assume the role";

/// Why credentials could not be loaded, and what to do.
pub fn credentials_error(error: &CallError) -> String {
    followed_by_remedy(error.message.clone(), &error.failure)
}

/// What failed, and what to do.
pub(crate) fn with_remedy(error: &CallError) -> String {
    followed_by_remedy(error.to_string(), &error.failure)
}

fn followed_by_remedy(text: String, failure: &Failure) -> String {
    match remedy(failure) {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text,
    }
}

/// What failed in a step of `check`, and what to do next: for each failure there is something.
pub(crate) fn with_next_step(error: &CallError) -> String {
    let next = match &error.failure {
        Failure::Api { code, .. } if code.is_denial() => IAM_POLICY,
        failure => remedy(failure).unwrap_or(OTHERWISE),
    };
    format!("{error}. {}", capitalized(next))
}

/// The remedy, as part of a sentence. None: the failure passes by itself, or its message has the remedy.
pub fn remedy(failure: &Failure) -> Option<&'static str> {
    Some(match failure {
        Failure::Timeout | Failure::Connection => WAY_TO_EC2,
        Failure::Tls => "check `aws-vipa ca-certificate-file`, and the host name in `aws-vipa endpoint-url`",
        Failure::InvalidResponse => {
            "another service than EC2 may have answered: check `aws-vipa endpoint-url` and proxies on the way"
        }
        Failure::TooManyRequests => THROTTLED,
        Failure::Settings => "check `aws-vipa endpoint-url` and `aws-vipa region`",
        Failure::NoRegion => "check that IMDS answers, or set `aws-vipa region`",
        Failure::LocalInterface => "check the interface with `show interfaces`",
        Failure::UnknownMac => ENI,
        Failure::Credentials(ErrorClass::Denied) => NO_CREDENTIALS,
        Failure::Credentials(_) => CREDENTIALS_NOT_LOADED,
        // Its message has it.
        Failure::ImdsDisabled => return None,
        Failure::Api { code, class } => match class {
            // Its message names the policy to change.
            ErrorClass::Denied if code.is_denial() => return None,
            ErrorClass::Denied => "correct the credentials or the IAM policy",
            ErrorClass::Clock => "correct the clock: `show ntp`",
            ErrorClass::NoSuchInterface => ENI,
            ErrorClass::BadResource if code.as_str() == "InvalidRouteTableID.NotFound" => {
                "correct `aws-vipa route … route-table`"
            }
            ErrorClass::BadResource if code.as_str() == "RouteLimitExceeded" => {
                "delete a route of the table, or raise the quota \"Routes per route table\""
            }
            ErrorClass::BadResource if code.as_str() == "InvalidAllocationID.NotFound" => {
                "correct `aws-vipa elastic-ip`"
            }
            ErrorClass::BadResource => {
                "the address must be in the ENI's subnet and not be a primary address, and the ENI must have room for it"
            }
            ErrorClass::TimedOut => WAY_TO_EC2,
            ErrorClass::Throttled => THROTTLED,
            ErrorClass::Transient | ErrorClass::Refused => return None,
        },
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
        let exempt = ["InternalError", "UnauthorizedOperation", "AccessDenied", "SomethingNew", "Forbidden"];
        assert_eq!(without, exempt);
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
