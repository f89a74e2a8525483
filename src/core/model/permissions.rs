//! The permissions that EC2 has shown this router to have.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::EniId;
use super::proof::Caller;

/// The last claim for each ENI that EC2 has accepted, which proves the permission to assign addresses to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    enis: BTreeMap<EniId, AcceptedClaim>,
}

/// A claim that EC2 has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedClaim {
    at: Timestamp,
    caller: Caller,
}

impl Permissions {
    /// Records that EC2 has acknowledged a claim.
    pub fn prove(&mut self, eni: EniId, at: Timestamp, caller: Caller) {
        self.enis.insert(eni, AcceptedClaim { at, caller });
    }

    /// Removes other ENIs.
    pub fn retain(&mut self, is_used: impl Fn(&EniId) -> bool) {
        self.enis.retain(|eni, _| is_used(eni));
    }

    /// When EC2 last accepted a claim for the ENI, if it was the present caller's. While that is not known, any counts.
    pub fn at(&self, eni: &EniId, now: Option<&Caller>) -> Option<Timestamp> {
        let last = self.enis.get(eni)?;
        let has_changed = now.is_some_and(|now| last.caller.change(now).is_some());
        (!has_changed).then_some(last.at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::Identity;
    use super::super::ids::{InstanceId, Region};
    use super::*;

    #[test]
    fn an_accepted_claim_shows_the_permission_of_its_caller_only() {
        let caller = |source: &str| {
            let instance = InstanceId::try_from("i-00000001").expect("an id");
            let identity = Identity { source: source.to_owned(), access_key_id: None };
            Caller::new(instance, Region::try_from("eu-west-1").expect("a region"), None, identity)
        };
        let eni = |n: u8| EniId::try_from(format!("eni-0000000{n}")).expect("an id");
        let mut permissions = Permissions::default();
        permissions.prove(eni(1), Timestamp::UNIX_EPOCH, caller("a role"));
        let at = |n, now: Option<&Caller>| permissions.at(&eni(n), now);
        assert_eq!(at(1, Some(&caller("a role"))), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(at(1, Some(&caller("another role"))), None);
        assert_eq!((at(1, None), at(2, None)), (Some(Timestamp::UNIX_EPOCH), None));
    }
}
