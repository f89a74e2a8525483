//! Requests and answers, and their encoding as lines.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vipa_core::model::ids::GroupName;
use vipa_core::model::pause::Minutes;

use crate::fs::json_file::FORMAT;

/// A group name has at most 255 bytes, each of at most six in JSON.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs, reason = "`group` says what it is")]
pub enum Request {
    /// The status report.
    Status {
        /// Whether the agent reads the owners from EC2 first.
        #[serde(default)]
        fresh: bool,
        /// How many of the last transitions, claims and losses the report includes, with what else happened since the
        /// first of them.
        #[serde(default, skip_serializing_if = "is_zero")]
        history: usize,
    },
    /// The timelines of the last failovers.
    Failovers,
    /// Claim a group's addresses now.
    Claim { group: GroupName },
    /// Claim nothing for a group for some time.
    Pause {
        group: GroupName,
        /// How long; absent in the request: 30 minutes.
        #[serde(default)]
        minutes: Minutes,
    },
    /// Test whether EC2 allows the claims, without moving anything.
    Prove,
    /// End a pause.
    Resume { group: GroupName },
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The answer, or an error.
pub type Response = Result<Encoded, ErrorResponse>;

/// An answer as JSON text: a tree of values would take several times the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(String);

impl Encoded {
    /// # Errors
    /// If the value cannot be JSON, such as a map whose keys are no strings.
    pub fn new(value: &impl Serialize) -> Response {
        let failed =
            |error| ErrorResponse::new(ResponseCode::Refused, format!("the answer cannot be encoded: {error}"));
        serde_json::to_string(value).map(Self).map_err(failed)
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorResponse {
    /// The kind of error.
    pub code: ResponseCode,
    /// The reason, and what to do.
    pub message: String,
}

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseCode {
    /// The line is no request of this format.
    BadRequest,
    /// The line has a newer format than the agent.
    NewerFormat,
    /// Only root may send this request.
    NotPermitted,
    /// Too many connections, or the agent did not answer in time.
    Busy,
    /// The agent refuses the request.
    Refused,
    /// A code of another version.
    #[serde(other)]
    Other,
}

impl ErrorResponse {
    /// An error of this kind.
    pub fn new(code: ResponseCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Request {
    /// Checks whether this user may send the request. Every user who can open the socket may read; only root may change
    /// something.
    ///
    /// # Errors
    /// [`ResponseCode::NotPermitted`].
    pub fn permitted(&self, uid: u32) -> Result<(), ErrorResponse> {
        match self {
            Self::Status { .. } | Self::Failovers => Ok(()),
            Self::Claim { .. } | Self::Pause { .. } | Self::Resume { .. } | Self::Prove if uid == 0 => Ok(()),
            Self::Claim { .. } | Self::Pause { .. } | Self::Resume { .. } | Self::Prove => Err(ErrorResponse::new(
                ResponseCode::NotPermitted,
                "only root may change anything: use sudo".to_owned(),
            )),
        }
    }
}

/// Encodes a request as a line.
pub(super) fn request_line(request: &Request) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(request)?;
    value["format"] = FORMAT.into();
    Ok(format!("{value}\n"))
}

/// Decodes the request in a line.
pub(super) fn parse_request(line: &str) -> Result<Request, ErrorResponse> {
    let bad = |e: serde_json::Error| ErrorResponse::new(ResponseCode::BadRequest, format!("invalid request: {e}"));
    let mut object: Map<String, Value> = serde_json::from_str(line).map_err(bad)?;
    check_format(object.remove("format").and_then(|f| f.as_u64()))
        .map_err(|(code, reason)| ErrorResponse::new(code, format!("invalid request: {reason}")))?;
    serde_json::from_value(Value::Object(object)).map_err(bad)
}

/// Encodes an answer as a line.
pub(super) fn answer_line(answer: &Response) -> String {
    match answer {
        Ok(Encoded(value)) => format!("{{\"format\":{FORMAT},\"ok\":{value}}}\n"),
        Err(refusal) => format!("{}\n", json!({"format": FORMAT, "error": refusal})),
    }
}

/// Decodes the answer in a line; the outer error is why the line is not an answer. Keeps only what a `T` consists of.
pub(super) fn parse_answer<T: DeserializeOwned>(line: &[u8]) -> Result<Result<T, ErrorResponse>, String> {
    /// The format is checked first, because another format may have other fields.
    #[derive(Deserialize)]
    struct Head {
        format: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Payload<T> {
        ok: Option<T>,
        error: Option<ErrorResponse>,
    }
    let Head { format } = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    check_format(format).map_err(|(_, reason)| reason)?;
    match serde_json::from_slice(line).map_err(|e| format!("unexpected content: {e}"))? {
        Payload { ok: Some(value), error: None } => Ok(Ok(value)),
        Payload { ok: None, error: Some(refusal) } => Ok(Err(refusal)),
        _ => Err("it holds neither ok nor error".to_owned()),
    }
}

fn check_format(format: Option<u64>) -> Result<(), (ResponseCode, String)> {
    match format {
        None | Some(0) => Err((ResponseCode::BadRequest, "it has no format number".to_owned())),
        Some(found) if found > FORMAT => {
            let reason = format!("it has format {found}, and this version of vyos-aws-vipa reads up to {FORMAT}");
            Err((ResponseCode::NewerFormat, reason))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupName {
        GroupName::try_from("a").expect("a name")
    }

    fn every_request() -> [Request; 6] {
        let minutes = Minutes::try_from(5).expect("in range");
        [
            Request::Status { fresh: true, history: 50 },
            Request::Failovers,
            Request::Claim { group: group() },
            Request::Pause { group: group(), minutes },
            Request::Resume { group: group() },
            Request::Prove,
        ]
    }

    #[test]
    fn requests_and_answers_read_back_as_they_were_written() {
        for request in every_request() {
            let line = request_line(&request).expect("a line");
            assert!(line.ends_with("}\n") && !line.trim_end().contains('\n'), "{line:?}");
            assert_eq!(parse_request(&line), Ok(request), "{line}");
        }
        let value = json!({"a": [1, "two\n"]});
        let refused = ErrorResponse::new(ResponseCode::Refused, "paused");
        for (answer, expected) in [(Encoded::new(&value), Ok(value)), (Err(refused.clone()), Err(refused))] {
            let line = answer_line(&answer);
            assert!(!line.trim_end().contains('\n'), "{line:?}");
            assert_eq!(parse_answer(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let parse = |line: &str| parse_request(line).expect(line);
        assert_eq!(parse(r#"{"format":1,"request":"status"}"#), Request::Status { fresh: false, history: 0 });
        let minutes = Minutes::default();
        assert_eq!(minutes.get(), 30);
        assert_eq!(parse(r#"{"request":"pause","group":"a","format":1}"#), Request::Pause { group: group(), minutes });
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        use ResponseCode::*;
        for (line, code, reason) in [
            ("", BadRequest, "EOF"),
            ("{", BadRequest, "EOF"),
            ("[]", BadRequest, "invalid type"),
            ("{}", BadRequest, "no format number"),
            (r#"{"format":2,"request":"status"}"#, NewerFormat, "format 2"),
            (r#"{"format":1}"#, BadRequest, "missing field `request`"),
            (r#"{"format":1,"request":"reboot"}"#, BadRequest, "unknown variant `reboot`"),
            (r#"{"format":1,"request":"claim"}"#, BadRequest, "missing field `group`"),
            (r#"{"format":1,"request":"claim","group":"a b"}"#, BadRequest, "white space"),
            (r#"{"format":1,"request":"claim","group":"a","all":true}"#, BadRequest, "unknown field `all`"),
            (r#"{"format":1,"request":"pause","group":"a","minutes":0}"#, BadRequest, "from 1 to 1440"),
            (r#"{"format":1,"request":"pause","group":"a","minutes":1441}"#, BadRequest, "from 1 to 1440"),
            (r#"{"format":1,"request":"pause","group":"a","minutes":-1}"#, BadRequest, "invalid value"),
        ] {
            let refusal = parse_request(line).expect_err(line);
            assert!(refusal.code == code && refusal.message.contains(reason), "{line}: {refusal:?}");
        }
    }

    #[test]
    fn only_root_may_change_something() {
        for request in every_request() {
            assert_eq!(request.permitted(0), Ok(()));
            let may = request.permitted(1000);
            match request {
                Request::Status { .. } | Request::Failovers => assert_eq!(may, Ok(())),
                _ => assert_eq!(may.expect_err("refused").code, ResponseCode::NotPermitted, "{request:?}"),
            }
        }
    }
}
