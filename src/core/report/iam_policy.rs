//! The IAM policy document with the least permissions that the agent needs.
//!
//! AssignPrivateIpAddresses is authorized on the network interface that gets the addresses, ReplaceRoute and CreateRoute on the
//! route table, AssociateAddress on the Elastic IP and on the network interface, and Describe calls only on `*` (Service
//! Authorization Reference, "Actions, resources, and condition keys for Amazon EC2").

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::model::ids::{AccountId, AllocationId, EniId, Partition, Region, RouteTableId};

/// What the policy is made from. Absent values are unknown.
#[derive(Debug, Clone, Default)]
pub struct PolicyInputs {
    /// The partition of the router's region.
    pub partition: Option<Partition>,
    /// The region that is called.
    pub region: Option<Region>,
    /// The account that everything belongs to.
    pub account: Option<AccountId>,
    /// Whether private addresses are claimed.
    pub claims_addresses: bool,
    /// The ENIs that get addresses.
    pub enis: BTreeSet<EniId>,
    /// The route tables that have a route to move.
    pub route_tables: BTreeSet<RouteTableId>,
    /// The Elastic IPs to move.
    pub elastic_ips: BTreeSet<AllocationId>,
    /// The ENIs that the Elastic IPs are associated with.
    pub elastic_ip_enis: BTreeSet<EniId>,
    /// Why ENIs are missing, a sentence each.
    pub missing: Vec<String>,
}

/// The most characters of a managed policy, without white space (IAM User Guide, "IAM and AWS STS quotas").
const MAX_MANAGED_POLICY_LENGTH: usize = 6_144;
/// The same for all inline policies of a role.
const MAX_INLINE_POLICIES_LENGTH: usize = 10_240;

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
    statement: Vec<PolicyStatement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyStatement {
    sid: &'static str,
    effect: &'static str,
    #[serde(serialize_with = "one_or_list")]
    action: Vec<&'static str>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<String, Vec<String>>>,
}

/// What a statement applies to: resources, and the values that keys of the request have.
type Scope = (Vec<String>, BTreeMap<&'static str, BTreeMap<String, Vec<String>>>);

fn one_or_list<S: Serializer>(actions: &[&'static str], serializer: S) -> Result<S::Ok, S::Error> {
    match actions {
        [action] => action.serialize(serializer),
        actions => actions.serialize(serializer),
    }
}

/// The policy, and notes for the operator, a sentence each.
pub fn policy(facts: &PolicyInputs, tag: Option<&Tag>) -> (Policy, Vec<String>) {
    let mut notes = Vec::new();
    let mut statements = Vec::new();
    let mut allow = |sid, action, (resource, condition): Scope| {
        statements.push(PolicyStatement { sid, effect: "Allow", action, resource, condition });
    };
    let mut read = vec!["ec2:DescribeNetworkInterfaces"];
    let mut interfaces = Vec::new();
    if facts.claims_addresses {
        allow("ClaimAddresses", vec!["ec2:AssignPrivateIpAddresses"], of_interfaces(facts, &facts.enis, tag));
        interfaces.push(&facts.enis);
        // How many addresses an ENI can have.
        read.push("ec2:DescribeInstanceTypes");
    }
    if !facts.route_tables.is_empty() {
        let tables = named(facts, "route-table", "ec2:RouteTableID", &facts.route_tables);
        allow("ClaimRoutes", vec!["ec2:ReplaceRoute", "ec2:CreateRoute"], tables);
        read.push("ec2:DescribeRouteTables");
    }
    if !facts.elastic_ips.is_empty() {
        let elastic_ips = named(facts, "elastic-ip", "ec2:AllocationId", &facts.elastic_ips);
        allow("ClaimElasticIps", vec!["ec2:AssociateAddress"], elastic_ips);
        let on = of_interfaces(facts, &facts.elastic_ip_enis, tag);
        allow("ClaimElasticIpsForInterfaces", vec!["ec2:AssociateAddress"], on);
        interfaces.push(&facts.elastic_ip_enis);
        read.push("ec2:DescribeAddresses");
    }
    allow("ReadOwners", read, (vec!["*".to_owned()], BTreeMap::new()));
    match tag {
        _ if interfaces.is_empty() => {}
        Some(Tag { key, value }) => {
            notes.push(format!("Give the network interface (ENI) of each router the tag {key}={value}."));
        }
        None => {
            notes.extend(facts.missing.iter().cloned());
            notes.push(
                if interfaces.iter().any(|enis| enis.is_empty()) {
                    "No ENI found: this policy allows every network interface. Put the routers' ENIs in it, or limit it to a tag: `generate aws-vipa iam-policy tag <key=value>`."
                } else {
                    "This policy has only this router's ENIs. If the other router uses the same role or user, add the ENIs that this command prints there."
                }
                .to_owned(),
            );
        }
    }
    if facts.partition.is_none() {
        notes.push(
            "Partition unknown: the policy uses a condition instead of ARNs. To get ARNs, set \
             `high-availability vrrp global-parameters aws-vipa region`."
                .to_owned(),
        );
    } else {
        let unknown = [("Region", facts.region.is_none()), ("Account", facts.account.is_none())];
        let unknown = unknown.into_iter().filter(|(_, is_unknown)| *is_unknown);
        notes.extend(unknown.map(|(what, _)| format!("{what} unknown; using \"*\".")));
    }
    let policy = Policy { version: "2012-10-17", statement: statements };
    let length = serde_json::to_string(&policy).map_or(0, |text| text.chars().count());
    if length > MAX_MANAGED_POLICY_LENGTH {
        notes.push(format!(
            "The policy has {length} characters. IAM allows {MAX_MANAGED_POLICY_LENGTH} in a managed policy, and \
             {MAX_INLINE_POLICIES_LENGTH} in the inline policies of a role: attach a part of it as another policy, or put \"*\" \
             and a condition on a tag in the place of ids."
        ));
    }
    (policy, notes)
}

/// The network interfaces that have the tag, else these; none: every one.
fn of_interfaces(facts: &PolicyInputs, enis: &BTreeSet<EniId>, tag: Option<&Tag>) -> Scope {
    const INTERFACE: &str = "network-interface";
    match tag {
        Some(Tag { key, value }) => {
            let (resource, _) = named(facts, INTERFACE, "", &["*"]);
            (resource, condition(format!("aws:ResourceTag/{key}"), vec![value.clone()]))
        }
        None if enis.is_empty() => (named(facts, INTERFACE, "", &["*"]).0, BTreeMap::new()),
        None => named(facts, INTERFACE, "ec2:NetworkInterfaceID", enis),
    }
}

/// The resources of that type with these ids: ARNs, or where the partition is unknown a condition, which has the same effect.
fn named<'a, I: ToString + 'a>(
    facts: &PolicyInputs,
    of_type: &str,
    key: &str,
    ids: impl IntoIterator<Item = &'a I>,
) -> Scope {
    let ids = ids.into_iter().map(ToString::to_string);
    let or_any = |part: Option<&str>| part.unwrap_or("*").to_owned();
    match &facts.partition {
        Some(partition) => {
            let region = or_any(facts.region.as_ref().map(Region::as_str));
            let account = or_any(facts.account.as_ref().map(AccountId::as_str));
            let arn = |id: String| format!("arn:{partition}:ec2:{region}:{account}:{of_type}/{id}");
            (ids.map(arn).collect(), BTreeMap::new())
        }
        None => (vec!["*".to_owned()], condition(key.to_owned(), ids.collect())),
    }
}

fn condition(key: String, values: Vec<String>) -> BTreeMap<&'static str, BTreeMap<String, Vec<String>>> {
    BTreeMap::from([("StringEquals", BTreeMap::from([(key, values)]))])
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
