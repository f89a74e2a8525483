//! The verdict on an address, and its owner as this router sees it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ec2;
use super::ids::{EniId, InstanceId};

/// Whether an address works as VRRP says: what EC2, VRRP and the local interface together mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Verdict {
    /// MASTER, and EC2 has confirmed that it is ours, within twice the sum of verify-interval and request-timeout.
    Ok,
    /// MASTER, and a claim is under way, waiting or not yet confirmed.
    Claiming,
    /// VRRP, EC2 and the local interface disagree.
    Drift,
    /// MASTER, and others have taken it away more than three times in five minutes; claims back off.
    Contested,
    /// An operator has paused the claims of the group.
    Paused,
    /// Standby, and nothing is known that would prevent a takeover.
    StandbyReady,
    /// Standby, and a failover to this router would not work.
    StandbyNotReady,
    /// The state of VRRP or the owner in EC2 is unknown.
    Unknown,
    /// Disabled in the configuration.
    Disabled,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "OK",
            Self::Claiming => "CLAIMING",
            Self::Drift => "DRIFT",
            Self::Contested => "CONTESTED",
            Self::Paused => "PAUSED",
            Self::StandbyReady => "STANDBY-READY",
            Self::StandbyNotReady => "STANDBY-NOT-READY",
            Self::Unknown => "UNKNOWN",
            Self::Disabled => "DISABLED",
        })
    }
}

/// The owner of an address, as this router sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The ENI that should have it, attached to this instance.
    ThisRouter,
    /// Another ENI of this instance.
    ThisRouterOtherEni,
    /// The instance that has one of the group's peer addresses.
    OtherRouter,
    /// A third party: any other ENI.
    ThirdParty,
    /// No ENI has it.
    Unassigned,
    /// An ENI whose instance cannot be compared with this router's, because IMDS has not answered.
    Unknown,
}

impl Who {
    /// Who an owner is, seen from `instance`, whose `eni` should have the address. `others` are the instances that have
    /// the group's peer addresses. `None`: unknown, but for `owner`: no ENI has the address.
    pub fn of(
        owner: Option<&ec2::Owner>,
        eni: Option<&EniId>,
        instance: Option<&InstanceId>,
        others: &BTreeSet<InstanceId>,
    ) -> Self {
        let Some(owner) = owner else { return Self::Unassigned };
        if eni == Some(&owner.eni) && instance.is_none_or(|ours| owner.instance.as_ref() == Some(ours)) {
            return Self::ThisRouter;
        }
        match (&owner.instance, instance) {
            (Some(theirs), Some(ours)) if theirs == ours && eni.is_some() => Self::ThisRouterOtherEni,
            (Some(theirs), ours) if others.contains(theirs) && ours != Some(theirs) => Self::OtherRouter,
            (Some(theirs), Some(ours)) if theirs != ours => Self::ThirdParty,
            (None, _) if eni.is_some() => Self::ThirdParty,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vrrp::VrrpState;

    #[test]
    fn a_word_is_displayed_as_it_stands_in_json() {
        use Verdict::*;
        for verdict in [Ok, Claiming, Drift, Contested, Paused, StandbyReady, StandbyNotReady, Unknown, Disabled] {
            assert_eq!(serde_json::to_value(verdict).expect("JSON"), verdict.to_string());
        }
        for vrrp in [VrrpState::Master, VrrpState::Backup, VrrpState::Fault, VrrpState::Stop, VrrpState::Unknown] {
            assert_eq!(serde_json::to_value(vrrp).expect("JSON"), vrrp.to_string());
        }
    }

    #[test]
    fn an_owner_is_distinguished_from_this_router() {
        let eni = |n: u8| EniId::try_from(format!("eni-0000000{n}")).expect("an id");
        let instance = |n: u8| InstanceId::try_from(format!("i-0000000{n}")).expect("an id");
        let others = BTreeSet::from([instance(2)]);
        for (owner, our_eni, our_instance, who) in [
            (None, Some(1), Some(1), Who::Unassigned),
            (Some((1, Some(1))), Some(1), Some(1), Who::ThisRouter),
            (Some((1, None)), Some(1), None, Who::ThisRouter),
            (Some((1, None)), Some(1), Some(1), Who::ThirdParty),
            (Some((1, Some(2))), Some(1), Some(1), Who::OtherRouter),
            (Some((1, Some(3))), Some(1), Some(1), Who::ThirdParty),
            (Some((2, Some(1))), Some(1), Some(1), Who::ThisRouterOtherEni),
            (Some((3, Some(2))), Some(1), Some(1), Who::OtherRouter),
            (Some((3, Some(2))), None, None, Who::OtherRouter),
            (Some((4, Some(3))), Some(1), Some(1), Who::ThirdParty),
            (Some((4, Some(3))), None, Some(1), Who::ThirdParty),
            (Some((4, None)), Some(1), Some(1), Who::ThirdParty),
            (Some((4, Some(3))), Some(1), None, Who::Unknown),
            (Some((4, None)), None, Some(1), Who::Unknown),
            (Some((2, Some(1))), None, Some(1), Who::Unknown),
        ] {
            let owner = owner.map(|(e, i): (u8, Option<u8>)| ec2::Owner {
                eni: eni(e),
                instance: i.map(instance),
                primary: false,
            });
            let seen = Who::of(owner.as_ref(), our_eni.map(eni).as_ref(), our_instance.map(instance).as_ref(), &others);
            assert_eq!(seen, who, "{owner:?} seen from {our_eni:?} of {our_instance:?}");
        }
        let confused = BTreeSet::from([instance(1)]);
        let ours = ec2::Owner { eni: eni(2), instance: Some(instance(1)), primary: false };
        assert_eq!(Who::of(Some(&ours), Some(&eni(1)), Some(&instance(1)), &confused), Who::ThisRouterOtherEni);
    }
}
