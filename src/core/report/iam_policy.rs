//! The IAM policy document with the least permissions that the agent needs.
//!
//! AssignPrivateIpAddresses is authorized on the network interface that gets the addresses, DescribeNetworkInterfaces only
//! on `*` (Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2").

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Serialize;

use crate::model::ids::{AccountId, EniId, Partition, Region};

/// What the policy is made from. Absent values are unknown.
#[derive(Debug, Clone, Default)]
pub struct PolicyInputs {
    /// The partition of the router's region.
    pub partition: Option<Partition>,
    /// The region that is called.
    pub region: Option<Region>,
    /// The account that the ENIs belong to.
    pub account: Option<AccountId>,
    /// The ENIs that get addresses.
    pub enis: BTreeSet<EniId>,
    /// Why ENIs are missing from `enis`, a sentence each.
    pub missing: Vec<String>,
}

/// The tag that selects the ENIs that may get addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    key: String,
    value: String,
}

impl FromStr for Tag {
    type Err = String;

    /// `key=value`, both of the characters that EC2 recommends for tags (EC2 User Guide, "Tag restrictions"). None of them
    /// is special in a policy.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("a tag must be KEY=VALUE, not {text:?}"))?;
        let plain = |part: &str| part.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c));
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return Err("a tag key must have 1 to 128 characters, and the value at most 256".to_owned());
        }
        if !plain(key) || !plain(value) {
            return Err("a tag may contain only letters, digits, spaces and + - = . _ : / @".to_owned());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// A policy document (IAM User Guide, "IAM JSON policy elements reference").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: &'static str,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<String, Vec<String>>>,
}

/// The policy, and notes for the operator, a sentence each.
pub fn policy(facts: &PolicyInputs, tag: Option<&Tag>) -> (Policy, Vec<String>) {
    let mut notes = Vec::new();
    let mut condition = BTreeMap::new();
    let mut interfaces = vec!["*".to_owned()];
    match tag {
        Some(Tag { key, value }) => {
            condition.insert(format!("aws:ResourceTag/{key}"), vec![value.clone()]);
            notes.push(format!("Give the network interface (ENI) of each router the tag {key}={value}."));
        }
        None => {
            notes.extend(facts.missing.iter().cloned());
            if facts.enis.is_empty() {
                notes.push(
                    "No ENI found: this policy allows every network interface. Put the routers' ENIs in it, or limit it to a tag: `generate aws-vipa iam-policy tag <key=value>`."
                        .to_owned(),
                );
            } else {
                interfaces = facts.enis.iter().map(ToString::to_string).collect();
                notes.push(
                    "This policy has only this router's ENIs. If the other router uses the same role or user, add the ENIs that this command prints there."
                        .to_owned(),
                );
            }
        }
    }
    let or_any = |part: Option<&str>| part.unwrap_or("*").to_owned();
    let resource = match &facts.partition {
        Some(partition) => {
            if facts.region.is_none() {
                notes.push("Region unknown; using \"*\".".to_owned());
            }
            if facts.account.is_none() {
                notes.push("Account unknown; using \"*\".".to_owned());
            }
            let region = or_any(facts.region.as_ref().map(Region::as_str));
            let account = or_any(facts.account.as_ref().map(AccountId::as_str));
            let arn = |eni: String| format!("arn:{partition}:ec2:{region}:{account}:network-interface/{eni}");
            interfaces.into_iter().map(arn).collect()
        }
        // An ARN needs the partition; the condition has the same effect.
        None => {
            notes.push(
                "Partition unknown: the policy uses a condition instead of ARNs. To get ARNs, set \
                 `high-availability vrrp global-parameters aws-vipa region`."
                    .to_owned(),
            );
            if tag.is_none() && !facts.enis.is_empty() {
                condition.insert("ec2:NetworkInterfaceID".to_owned(), interfaces);
            }
            vec!["*".to_owned()]
        }
    };
    let condition = if condition.is_empty() { BTreeMap::new() } else { BTreeMap::from([("StringEquals", condition)]) };
    let statement = |sid, action, resource, condition| Statement { sid, effect: "Allow", action, resource, condition };
    let policy = Policy {
        version: "2012-10-17",
        statement: vec![
            statement("ClaimAddresses", "ec2:AssignPrivateIpAddresses", resource, condition),
            statement("ReadOwners", "ec2:DescribeNetworkInterfaces", vec!["*".to_owned()], BTreeMap::new()),
        ],
    };
    (policy, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_key_and_a_value() {
        for good in ["vrrp=yes", "a=", "Name=router a", "a=b=c", "ä:/@+-._=ü"] {
            assert!(good.parse::<Tag>().is_ok(), "{good:?}");
        }
        for bad in ["", "=", "=a", "a", "a=${aws:username}", "a=*", "a=b?", "a=\"b\"", "a\nb=c", &"k".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        assert!(format!("{}=v", "k".repeat(129)).parse::<Tag>().is_err());
        assert!(format!("k={}", "v".repeat(257)).parse::<Tag>().is_err());
    }
}
