//! From what the SDK says went wrong to what it means for the next attempt.

use std::error::Error;
use std::io;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use vipa_core::model::ec2::{CallError, ErrorClass};
use vipa_core::model::ids::RequestId;

/// The most characters of a message that are kept.
const MAX_MESSAGE: usize = 300;
/// A longer word is not for people: `UnauthorizedOperation` carries its reason encoded in one of a thousand letters.
const MAX_WORD: usize = 200;
const MAX_CODE: usize = 100;

/// What an error code of EC2 means for the next attempt ("Error codes for the Amazon EC2 API", and "Common errors" there).
/// `status` is the answer's HTTP status, which counts only where the code is not known.
///
/// [`ErrorClass::Clock`] is never the answer: whether the clock explains a refusal is seen from its Date.
pub fn classify(code: &str, status: u16) -> ErrorClass {
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

        "InvalidParameterValue" | "PrivateIpAddressLimitExceeded" | "InvalidIPAddress.InUse" => ErrorClass::BadAddress,
        _ if code.starts_with("InvalidNetworkInterfaceID.") || code.starts_with("InvalidNetworkInterfaceId.") => {
            ErrorClass::NoSuchInterface
        }

        _ if status == 429 => ErrorClass::Throttled,
        _ if (400..500).contains(&status) => ErrorClass::Refused,
        _ => ErrorClass::Transient,
    }
}

/// Whether a refusal with this code may come from a clock that is off.
pub(super) fn may_be_the_clock(code: &str) -> bool {
    matches!(
        code,
        "RequestExpired"
            | "AuthFailure"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "AccessDeniedException"
    )
}

/// Whether a refusal with this code may end with other credentials, those on disk or in IMDS being newer than those used.
pub(super) fn may_be_the_credentials(code: &str) -> bool {
    matches!(
        code,
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

/// Whether a refusal with this code is one of IAM's: the credentials are good, the right is missing.
pub(super) fn lacks_a_right(code: &str) -> bool {
    matches!(code, "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException")
}

/// Which kind of policy refused a call, as far as the message of the refusal says it (IAM User Guide, "Troubleshoot access
/// denied error messages"). It picks the advice alone: what a refusal means for the next attempt is its code's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeniedBy {
    EndpointPolicy,
    ServiceControlPolicy,
    ResourceControlPolicy,
    PermissionsBoundary,
    SessionPolicy,
    /// A statement with `Deny` in a policy of the role or user itself: no further `Allow` helps.
    ExplicitDeny,
    /// No policy allows it, or the message does not say.
    NoPolicyAllows,
}

impl DeniedBy {
    /// Reads the whole message: its reason may stand behind long ARNs.
    pub(super) fn of(message: &str) -> Self {
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
    pub(super) fn remedy(self, action: &str, source: &str) -> String {
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

/// An error of ours, where no answer came or none that can be read.
pub(super) fn failure(class: ErrorClass, code: &str, message: impl AsRef<str>) -> CallError {
    CallError { class, code: code.to_owned(), message: one_line(message.as_ref()), request_id: None }
}

/// What a call of the SDK that failed means. `endpoint` is named where the connection is at fault.
pub(super) fn from_sdk<E>(error: &SdkError<E, HttpResponse>, endpoint: &str) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let mut described = match answer.err().code().filter(|code| is_code(code)) {
                Some(code) => {
                    failure(classify(code, status), code, answer.err().message().unwrap_or("without a message"))
                }
                None if status == 429 => failure(ErrorClass::Throttled, "Answer", "HTTP status 429"),
                None => failure(
                    ErrorClass::Transient,
                    "Answer",
                    format!(
                        "HTTP status {status} from {endpoint}, and not in EC2's words: {}",
                        root_cause(answer.err())
                    ),
                ),
            };
            described.request_id = error.request_id().and_then(|id| RequestId::try_from(id).ok());
            described
        }
        SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
            Some(error) => {
                let code = if chain(error).any(|e| e.is::<rustls::Error>()) { "TLS" } else { "Connection" };
                failure(ErrorClass::Transient, code, connection(error, endpoint))
            }
            None => failure(ErrorClass::Transient, "Connection", format!("no connection to {endpoint}")),
        },
        SdkError::ResponseError(answer) => failure(
            ErrorClass::Transient,
            "Answer",
            format!("the answer of {endpoint} cannot be read: {}", root_cause(error_of(answer, error))),
        ),
        SdkError::TimeoutError(_) => failure(ErrorClass::TimedOut, "Timeout", format!("no answer from {endpoint}")),
        // Nothing was sent: the request cannot be made from these settings.
        other => failure(
            ErrorClass::Denied,
            "Settings",
            format!("no request can be made to {endpoint}: {}; set endpoint-url and region right", root_cause(other)),
        ),
    }
}

/// The context types of [`SdkError`] are no errors themselves; the whole is.
fn error_of<'a, C, E>(_: &'a C, whole: &'a SdkError<E, HttpResponse>) -> &'a (dyn Error + 'static)
where
    E: Error + 'static,
{
    whole
}

/// Why there was no connection, from the innermost reason, with what to do where that is known.
fn connection(error: &(dyn Error + 'static), endpoint: &str) -> String {
    let reason = root_cause(error);
    let hint = chain(error).find_map(|e| match e.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            Some("; if its authority is to be trusted, name it with ca-certificate-file")
        }
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidYetContext { .. } | rustls::CertificateError::ExpiredContext { .. },
        )) => Some("; look at this router's clock"),
        _ => None,
    });
    format!("no connection to {endpoint}: {reason}{}", hint.unwrap_or_default())
}

/// The error and all that it comes from. `io::Error::source` leaves out the error that it wraps, so that is asked for.
pub(super) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The innermost reason of an error.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn is_code(code: &str) -> bool {
    (1..=MAX_CODE).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// One line of bounded length without control characters, text direction marks or words that nobody can read.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c)) {
        let length = word.chars().count();
        if length == 0 || length > MAX_WORD {
            continue;
        }
        if line.chars().count() + 1 + length > MAX_MESSAGE {
            line.push_str(" …");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("InvalidParameterValue", 400, BadAddress),
            ("PrivateIpAddressLimitExceeded", 400, BadAddress),
        ] {
            assert_eq!(classify(code, status), class, "{code} with {status}");
        }
    }

    #[test]
    fn only_refusals_are_put_down_to_the_clock_or_the_credentials() {
        for code in ["RequestExpired", "AuthFailure", "SignatureDoesNotMatch"] {
            assert!(may_be_the_clock(code) && may_be_the_credentials(code), "{code}");
        }
        for code in ["ExpiredToken", "InvalidClientTokenId"] {
            assert!(!may_be_the_clock(code) && may_be_the_credentials(code), "{code}");
        }
        for code in ["UnauthorizedOperation", "InvalidParameterValue", "InternalError"] {
            assert!(!may_be_the_clock(code) && !may_be_the_credentials(code), "{code}");
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

    #[test]
    fn a_message_is_one_readable_line() {
        let blob = "x".repeat(900);
        for (text, line) in [
            ("", ""),
            (" a\r\n\tb\0c ", "a b c"),
            ("red \u{1b}[31mtext", "red [31mtext"),
            ("left\u{202e}right", "left right"),
            (
                &format!("You are not authorized. Encoded authorization failure message: {blob}") as &str,
                "You are not authorized. Encoded authorization failure message:",
            ),
        ] {
            assert_eq!(one_line(text), line);
        }
        let long = one_line(&"word ".repeat(500));
        assert!(long.ends_with(" …") && long.chars().count() <= MAX_MESSAGE + 2, "{long}");
        assert_eq!(one_line(&blob), "");
    }

    #[test]
    fn what_is_no_code_is_not_taken_for_one() {
        for good in ["InvalidNetworkInterfaceID.NotFound", "Client.AuthFailure", "a_b-c"] {
            assert!(is_code(good), "{good}");
        }
        for bad in ["", "a b", "a\n", "ü", &"x".repeat(101)] {
            assert!(!is_code(bad), "{bad}");
        }
    }

    #[test]
    fn the_innermost_reason_is_found_behind_io_errors() {
        let inner = io::Error::other(io::Error::other(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer,
        )));
        assert_eq!(root_cause(&inner), "invalid peer certificate: UnknownIssuer");
        assert_eq!(
            connection(&inner, "https://ec2.example"),
            "no connection to https://ec2.example: invalid peer certificate: UnknownIssuer; \
             if its authority is to be trusted, name it with ca-certificate-file"
        );
    }
}
