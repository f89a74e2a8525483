//! How many calls of EC2's API were made, and their outcomes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ec2::{CallError, ErrorClass, Failure};

/// The numbers of calls since the start of the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calls {
    /// By API operation.
    operations: BTreeMap<&'static str, Outcomes>,
}

/// How many calls of one operation had each outcome. A request that was sent again within its attempt counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// EC2 answered with success, or that a dry run would have succeeded.
    pub succeeded: u64,
    /// EC2 refused the call because there were too many.
    pub throttled: u64,
    /// EC2 refused the call for another reason.
    pub refused: u64,
    /// There was no valid answer, or the call was not sent.
    pub failed: u64,
    /// How many requests were late and were sent again.
    #[serde(default)]
    pub sent_again: u64,
}

impl Calls {
    /// Counts a call that has ended.
    pub fn count(&mut self, operation: &'static str, failure: Option<&CallError>) {
        let outcomes = self.operations.entry(operation).or_default();
        *match failure {
            None => &mut outcomes.succeeded,
            Some(error) if error.code() == "DryRunOperation" => &mut outcomes.succeeded,
            Some(error) if error.class() == ErrorClass::Throttled => &mut outcomes.throttled,
            Some(CallError { failure: Failure::Api { .. }, .. }) => &mut outcomes.refused,
            Some(_) => &mut outcomes.failed,
        } += 1;
    }

    /// Counts a request that is sent again within its attempt.
    pub fn sent_again(&mut self, operation: &'static str) {
        self.operations.entry(operation).or_default().sent_again += 1;
    }

    /// Each operation that was called, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Outcomes)> {
        self.operations.iter().map(|(operation, outcomes)| (*operation, *outcomes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ec2::NoCredentials;

    #[test]
    fn each_outcome_of_each_operation_is_counted() {
        let api = |code: &str, class| {
            let failure = Failure::Api { code: code.try_into().expect("a code"), class };
            Some(CallError::new(failure, "as EC2 says it"))
        };
        let mut calls = Calls::default();
        for failure in [
            None,
            api("DryRunOperation", ErrorClass::Refused),
            None,
            api("RequestLimitExceeded", ErrorClass::Throttled),
            api("UnauthorizedOperation", ErrorClass::Denied),
            api("InternalError", ErrorClass::Transient),
            Some(CallError::new(Failure::Timeout, "no answer")),
            Some(CallError::new(Failure::Connection, "refused")),
            Some(CallError::new(NoCredentials::Role.into(), "none")),
            Some(CallError::new(Failure::InvalidResponse, "rubbish")),
        ] {
            calls.count("ReplaceRoute", failure.as_ref());
        }
        calls.count("AssociateAddress", None);
        calls.sent_again("AssociateAddress");
        let counted: Vec<_> = calls.iter().collect();
        let once = Outcomes { succeeded: 1, sent_again: 1, ..Outcomes::default() };
        let replaced = Outcomes { succeeded: 3, throttled: 1, refused: 2, failed: 4, sent_again: 0 };
        assert_eq!(counted, [("AssociateAddress", once), ("ReplaceRoute", replaced)]);
    }
}
