//! What `force aws-vipa prove` has shown of the permission to assign addresses to an ENI.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::credentials::Identity;
use super::ec2::{CallError, ErrorClass, Failure};
use super::ids::{EniId, ErrorCode, InstanceId, Region, RequestId};

/// What an answer of EC2 shows of the permission to make a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// EC2 permits the call: it has performed it, or refused it for another reason, with this error code.
    Allowed(Option<ErrorCode>),
    /// A policy denies the call, or does not allow it.
    Denied(CallError),
    /// Nothing is shown: EC2 did not get as far as the permission.
    Inconclusive(CallError),
}

/// Error codes of a request that EC2 cannot read: it does not get as far as the permission.
const UNREADABLE: [&str; 8] = [
    "InvalidAction",
    "InvalidQueryParameter",
    "MalformedQueryString",
    "MissingAction",
    "MissingParameter",
    "NoSuchVersion",
    "UnknownParameter",
    "UnsupportedProtocol",
];

impl Judgement {
    /// What the answer to a call shows that cannot move anything. An error counts by its code, never by its message.
    pub fn of(result: Result<(), CallError>) -> Self {
        let error = match result {
            Ok(()) => return Self::Allowed(None),
            Err(error) => error,
        };
        match &error.failure {
            failure if failure.has_code(ErrorCode::is_denial) => Self::Denied(error),
            Failure::Api { code, .. } if UNREADABLE.contains(&code.as_str()) => Self::Inconclusive(error),
            // The permission is judged before the parameters (src/aws/assumptions.rs).
            Failure::Api { code, class: ErrorClass::BadResource | ErrorClass::Refused } => {
                Self::Allowed(Some(code.clone()))
            }
            _ => Self::Inconclusive(error),
        }
    }
}

/// Who has called EC2, from where. Another caller may have other permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The instance that the ENI was attached to.
    pub instance: InstanceId,
    /// The region that was called.
    pub region: Region,
    /// The endpoint, if one is configured.
    pub endpoint_url: Option<String>,
    /// The source of the credentials ([`Identity::source`]).
    pub credentials: String,
    /// The access key, if it does not expire ([`Identity::access_key_id`]).
    pub access_key_id: Option<String>,
}

impl Caller {
    /// The caller with credentials of this identity.
    pub fn new(instance: InstanceId, region: Region, endpoint_url: Option<String>, identity: Identity) -> Self {
        let Identity { source, access_key_id } = identity;
        Self { instance, region, endpoint_url, credentials: source, access_key_id }
    }

    /// What is different now.
    pub(super) fn change(&self, now: &Self) -> Option<OutdatedBy> {
        if self.instance != now.instance {
            Some(OutdatedBy::Instance)
        } else if (&self.region, &self.endpoint_url) != (&now.region, &now.endpoint_url) {
            Some(OutdatedBy::Endpoint)
        } else if (&self.credentials, &self.access_key_id) != (&now.credentials, &now.access_key_id) {
            Some(OutdatedBy::Credentials)
        } else {
            None
        }
    }
}

/// Why a proof does not count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutdatedBy {
    /// It was made on another instance.
    Instance,
    /// It was made in another region, or at another endpoint.
    Endpoint,
    /// It was made with other credentials.
    Credentials,
}

/// EC2's answer about the permission to assign addresses to an ENI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofAnswer {
    /// When EC2 answered.
    pub at: Timestamp,
    /// Whether EC2 permits to assign addresses to the ENI.
    pub allowed: bool,
    /// The error code of the answer; absent: a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// EC2's message, of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// EC2's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

impl ProofAnswer {
    /// The denial, if the answer is one.
    pub fn denial(&self) -> Option<CallError> {
        let code = self.code.clone().filter(|_| !self.allowed)?;
        let mut error =
            CallError::new(Failure::api(code, ErrorClass::Denied), self.message.clone().unwrap_or_default());
        error.request_id = self.request_id.clone();
        Some(error)
    }
}

/// What EC2 has answered to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// What EC2 answered, and when.
    pub answer: ProofAnswer,
    /// Who has called EC2.
    pub caller: Caller,
}

/// The last proof for each ENI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proofs {
    enis: BTreeMap<EniId, Proof>,
}

impl Proofs {
    /// Stores what an answer has shown. An inconclusive one shows nothing, and replaces nothing.
    pub fn add(
        &mut self,
        at: Timestamp,
        eni: EniId,
        judgement: &Judgement,
        request_id: Option<&RequestId>,
        caller: Caller,
    ) {
        let (allowed, code, message) = match judgement {
            Judgement::Allowed(code) => (true, code.clone(), None),
            Judgement::Denied(error) => (false, ErrorCode::try_from(error.code()).ok(), Some(error.message.clone())),
            Judgement::Inconclusive(_) => return,
        };
        let answer = ProofAnswer { at, allowed, code, message, request_id: request_id.cloned() };
        self.enis.insert(eni, Proof { answer, caller });
    }

    /// The proof for each ENI, and why it does not count any more, if so. While the caller is not known, none counts as changed.
    pub fn all<'a>(
        &'a self,
        now: Option<&'a Caller>,
    ) -> impl Iterator<Item = (&'a EniId, &'a Proof, Option<OutdatedBy>)> {
        self.enis.iter().map(move |(eni, proof)| (eni, proof, now.and_then(|now| proof.caller.change(now))))
    }

    /// EC2 has accepted the caller's claim for the ENI: forgets a denial of the same caller. Returns whether there was one.
    pub fn disprove_denial(&mut self, eni: &EniId, caller: &Caller) -> bool {
        let is_denial = |proof: &Proof| !proof.answer.allowed && proof.caller.change(caller).is_none();
        self.enis.get(eni).is_some_and(is_denial) && self.enis.remove(eni).is_some()
    }

    /// The denials that count for the caller, by ENI.
    pub fn denials(&self, caller: &Caller) -> BTreeMap<EniId, CallError> {
        let counting = self.all(Some(caller)).filter(|(_, _, change)| change.is_none());
        counting.filter_map(|(eni, proof, _)| Some((eni.clone(), proof.answer.denial()?))).collect()
    }

    /// Removes other ENIs.
    pub fn retain(&mut self, is_used: impl Fn(&EniId) -> bool) {
        self.enis.retain(|eni, _| is_used(eni));
    }
}

#[cfg(test)]
mod tests {
    use super::super::ec2::every_failure;
    use super::*;

    fn failure(code: &str, status: u16) -> CallError {
        let code = ErrorCode::try_from(code).expect("a code");
        let class = code.class(status);
        CallError::new(Failure::api(code, class), "a message")
    }

    #[test]
    fn only_an_answer_about_the_call_itself_shows_the_permission() {
        assert_eq!(Judgement::of(Ok(())), Judgement::Allowed(None));
        for (code, status, expected) in [
            ("UnauthorizedOperation", 403, "no"),
            ("AccessDenied", 403, "no"),
            ("AccessDeniedException", 403, "no"),
            ("InvalidParameterValue", 400, "yes"),
            ("PrivateIpAddressLimitExceeded", 400, "yes"),
            ("InvalidIPAddress.InUse", 400, "yes"),
            ("SomethingNew", 400, "yes"),
            ("RequestLimitExceeded", 503, "?"),
            ("Throttling", 400, "?"),
            ("SomethingNew", 429, "?"),
            ("InternalError", 500, "?"),
            ("Unavailable", 503, "?"),
            ("SomethingNew", 500, "?"),
            ("AuthFailure", 401, "?"),
            ("InvalidClientTokenId", 403, "?"),
            ("ExpiredToken", 400, "?"),
            ("RequestExpired", 400, "?"),
            ("SignatureDoesNotMatch", 403, "?"),
            ("OptInRequired", 401, "?"),
            ("OperationNotPermitted", 400, "?"),
            ("InvalidNetworkInterfaceID.NotFound", 400, "?"),
            ("MissingParameter", 400, "?"),
            ("InvalidAction", 400, "?"),
        ] {
            let error = failure(code, status);
            let expected = match expected {
                "yes" => Judgement::Allowed(ErrorCode::try_from(code).ok()),
                "no" => Judgement::Denied(error.clone()),
                _ => Judgement::Inconclusive(error.clone()),
            };
            assert_eq!(Judgement::of(Err(error)), expected, "{code} with {status}");
        }
        for failure in every_failure().into_iter().filter(|failure| !matches!(failure, Failure::Api { .. })) {
            let error = CallError::new(failure, "no answer of EC2");
            assert_eq!(Judgement::of(Err(error.clone())), Judgement::Inconclusive(error));
        }
    }

    fn caller() -> Caller {
        let identity = Identity { source: "instance role router".to_owned(), access_key_id: None };
        let instance = InstanceId::try_from("i-00000001").expect("an id");
        Caller::new(instance, Region::try_from("eu-west-1").expect("a region"), None, identity)
    }

    #[test]
    fn a_proof_counts_for_the_caller_that_made_it() {
        let eni = EniId::try_from("eni-00000001").expect("an id");
        let mut proofs = Proofs::default();
        let denied = Judgement::Denied(failure("UnauthorizedOperation", 403));
        proofs.add(Timestamp::UNIX_EPOCH, eni.clone(), &denied, None, caller());
        let inconclusive = Judgement::Inconclusive(failure("RequestLimitExceeded", 503));
        proofs.add(Timestamp::MAX, eni.clone(), &inconclusive, None, caller());
        let change = |now: Option<&Caller>| {
            let (of, proof, change) = proofs.all(now).next().expect("a proof");
            let ProofAnswer { at, allowed, .. } = &proof.answer;
            assert!(*of == eni && *at == Timestamp::UNIX_EPOCH && !allowed, "{proof:?}");
            change
        };
        assert_eq!(change(None), None);
        assert_eq!(change(Some(&caller())), None);
        let instance = InstanceId::try_from("i-00000002").expect("an id");
        assert_eq!(change(Some(&Caller { instance, ..caller() })), Some(OutdatedBy::Instance));
        let region = Region::try_from("eu-west-2").expect("a region");
        assert_eq!(change(Some(&Caller { region, ..caller() })), Some(OutdatedBy::Endpoint));
        let endpoint_url = Some("https://ec2.example".to_owned());
        assert_eq!(change(Some(&Caller { endpoint_url, ..caller() })), Some(OutdatedBy::Endpoint));
        let credentials = "instance role other".to_owned();
        assert_eq!(change(Some(&Caller { credentials, ..caller() })), Some(OutdatedBy::Credentials));
        let access_key_id = Some("AKIA1".to_owned());
        assert_eq!(change(Some(&Caller { access_key_id, ..caller() })), Some(OutdatedBy::Credentials));
        let other = Caller { region: Region::try_from("eu-west-2").expect("a region"), ..caller() };
        let denials = proofs.denials(&caller());
        assert_eq!(
            denials.iter().map(|(eni, error)| (eni, error.code())).collect::<Vec<_>>(),
            [(&eni, "UnauthorizedOperation")]
        );
        assert_eq!(denials[&eni].class(), ErrorClass::Denied);
        assert_eq!(proofs.denials(&other), BTreeMap::new());
        let text = serde_json::to_string(&proofs).expect("JSON");
        assert_eq!(serde_json::from_str::<Proofs>(&text).expect("read"), proofs);
        let mut claimed = proofs.clone();
        assert!(!claimed.disprove_denial(&eni, &other), "another caller's claim shows nothing of it");
        assert_eq!([(); 2].map(|()| claimed.disprove_denial(&eni, &caller())), [true, false]);
        assert_eq!(claimed, Proofs::default());
        proofs.add(Timestamp::MAX, eni.clone(), &Judgement::Allowed(None), None, caller());
        assert!(proofs.denials(&caller()).is_empty() && !proofs.disprove_denial(&eni, &caller()));
        proofs.retain(|_| false);
        assert_eq!(proofs, Proofs::default());
    }
}
