//! Converts the SDK's errors to [`CallError`].

use std::error::Error;
use std::io;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use vipa_core::model::ec2::{CallError, Failure};
use vipa_core::model::ids::{ErrorCode, RequestId};
use vipa_core::report::remedies;

use super::transport::TooLong;

/// The most characters of a message that are kept.
const MAX_MESSAGE_LENGTH: usize = 300;
/// A longer word is dropped: the message of `UnauthorizedOperation` has its reason encoded in a word of a thousand letters.
const MAX_WORD_LENGTH: usize = 200;

/// A failure with its message in one line.
pub(super) fn failed(failure: Failure, message: impl AsRef<str>) -> CallError {
    CallError::new(failure, one_line(message.as_ref()))
}

/// The failure of a call of the SDK. The message names `endpoint` where the connection failed.
pub(super) fn from_sdk<E>(error: &SdkError<E, HttpResponse>, endpoint: &str) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let mut described = match answer.err().code().and_then(|code| ErrorCode::try_from(code).ok()) {
                Some(code) => {
                    let class = code.class(status);
                    failed(Failure::api(code, class), answer.err().message().unwrap_or("no message"))
                }
                None if status == 429 => failed(Failure::TooManyRequests, "HTTP status 429"),
                None => failed(
                    Failure::InvalidResponse,
                    format!("HTTP status {status} from {endpoint}, without an EC2 error: {}", root_cause(answer.err())),
                ),
            };
            described.request_id = error.request_id().and_then(|id| RequestId::try_from(id).ok());
            described
        }
        SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
            Some(error) => {
                let is_tls = chain(error).any(|e| e.is::<rustls::Error>());
                failed(if is_tls { Failure::Tls } else { Failure::Connection }, connection(error, endpoint))
            }
            None => failed(Failure::Connection, format!("no connection to {endpoint}")),
        },
        SdkError::ResponseError(answer) => {
            let error = error_of(answer, error);
            let is_too_long = chain(error).any(|e| e.is::<TooLong>());
            failed(
                if is_too_long { Failure::TooLong } else { Failure::InvalidResponse },
                format!("the answer of {endpoint} cannot be read: {}", root_cause(error)),
            )
        }
        SdkError::TimeoutError(_) => failed(Failure::Timeout, format!("no answer from {endpoint}")),
        // Nothing was sent: the request cannot be made from these settings.
        other => failed(Failure::Settings, format!("no request can be made to {endpoint}: {}", root_cause(other))),
    }
}

/// The context types of [`SdkError`] do not implement `Error`; the whole does.
fn error_of<'a, C, E>(_: &'a C, whole: &'a SdkError<E, HttpResponse>) -> &'a (dyn Error + 'static)
where
    E: Error + 'static,
{
    whole
}

/// Why there was no connection: the root cause, with a remedy if it is known.
fn connection(error: &(dyn Error + 'static), endpoint: &str) -> String {
    let reason = root_cause(error);
    let hint = chain(error).find_map(|e| match e.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            Some(remedies::UNKNOWN_ISSUER)
        }
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidYetContext { .. } | rustls::CertificateError::ExpiredContext { .. },
        )) => Some(remedies::CERTIFICATE_TIME),
        _ => None,
    });
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("no connection to {endpoint}: {reason}{hint}")
}

/// The error and its sources. `io::Error::source` skips the error that it wraps, so this uses `get_ref`.
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

/// One line of bounded length without control characters, text direction marks or unreadably long words.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c)) {
        let length = word.chars().count();
        if length == 0 || length > MAX_WORD_LENGTH {
            continue;
        }
        if line.chars().count() + 1 + length > MAX_MESSAGE_LENGTH {
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
        assert!(long.ends_with(" …") && long.chars().count() <= MAX_MESSAGE_LENGTH + 2, "{long}");
        assert_eq!(one_line(&blob), "");
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
