//! The instance metadata service, version 2 only, with session tokens (EC2 user guide, "Use the Instance Metadata Service to
//! access instance metadata").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::http::request::Parts;

use crate::cloud::Cloud;
use crate::ec2::interfaces;
use crate::ids::InstanceId;
use crate::log::Moment;
use crate::route::Ipv6Cidr;
use crate::serve::Reply;
use crate::wire::sigv4::hex;
use crate::world::ImdsAddresses;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// The issued session tokens, with their instance and expiry.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<String, (InstanceId, Instant)>);

impl Sessions {
    /// Makes all tokens invalid, as a restart of the service does.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Answers one request of an instance.
pub(crate) fn perform(
    cloud: &mut Cloud,
    sessions: &mut Sessions,
    now: Moment,
    instance: &InstanceId,
    parts: &Parts,
) -> Reply {
    let header = |name: &str| parts.headers.get(name)?.to_str().ok();
    let path = parts.uri.path();
    if parts.method == Method::PUT && path == "/latest/api/token" {
        if parts.headers.contains_key("x-forwarded-for") {
            return Reply::plain(403, "Forbidden");
        }
        let seconds = header(TTL_HEADER)
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|seconds| (1..=21_600).contains(seconds));
        let Some(seconds) = seconds else {
            return Reply::plain(400, "Bad Request");
        };
        let token = hex(&[cloud.random().to_be_bytes(), cloud.random().to_be_bytes()].concat());
        let until = now.instant + Duration::from_secs(seconds);
        sessions.0.insert(token.clone(), (instance.clone(), until));
        return Reply::plain(200, &token).header(TTL_HEADER, &seconds.to_string());
    }
    let session = header(TOKEN_HEADER).and_then(|token| sessions.0.get(token));
    let Some(until) =
        session.filter(|(owner, until)| owner == instance && *until > now.instant).map(|(_, until)| *until)
    else {
        return Reply::plain(401, "Unauthorized");
    };
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Reply::plain(405, "Method Not Allowed");
    }
    let left = (until - now.instant).as_secs().to_string();
    match look_up(&tree(cloud, now, instance), path) {
        Some(text) => Reply::plain(200, &text).header(TTL_HEADER, &left),
        None => Reply::plain(404, "Not Found"),
    }
}

/// The text of a leaf, or the list of what is below a directory.
fn look_up(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    if let Some(text) = tree.get(path) {
        return Some(text.clone());
    }
    let directory = format!("{}/", path.trim_end_matches('/'));
    let mut entries: Vec<&str> = tree
        .keys()
        .filter_map(|leaf| leaf.strip_prefix(&directory))
        .map(|below| match below.find('/') {
            Some(end) => &below[..=end],
            None => below,
        })
        .collect();
    entries.dedup();
    (!entries.is_empty()).then(|| entries.join("\n"))
}

/// All leaves that the instance can read.
fn tree(cloud: &mut Cloud, now: Moment, instance: &InstanceId) -> BTreeMap<String, String> {
    cloud.renew_role_key(instance);
    let moment = cloud.moment_read(now.instant);
    let view = cloud.view(moment);
    let world = &cloud.world;
    let mut tree = BTreeMap::new();
    let mut meta = |path: &str, text: &str| {
        tree.insert(format!("/latest/meta-data/{path}"), text.to_owned());
    };
    meta("instance-id", instance.as_ref());
    meta("placement/region", &world.region);
    meta("instance-type", "m5.4xlarge");
    meta("services/domain", &world.domain);
    meta("services/partition", &world.partition);
    let mut zone = "";
    let mut private_ip = String::new();
    for (index, (id, eni)) in interfaces(cloud, instance).enumerate() {
        let Some(subnet) = cloud.subnets.get(&eni.subnet) else {
            continue;
        };
        let vpc_cidr = cloud.vpcs.get(&subnet.vpc).map(|vpc| vpc.cidr.to_string()).unwrap_or_default();
        let vpc_ipv6 = cloud.vpcs.get(&subnet.vpc).and_then(|vpc| vpc.ipv6_cidr);
        let ipv6 = |cidr: Option<Ipv6Cidr>| cidr.map(|cidr| cidr.to_string()).unwrap_or_default();
        let mut addresses: Vec<_> = view.of(id).iter().map(|ip| ip.address).collect();
        if world.imds_addresses == ImdsAddresses::Ascending {
            addresses.sort();
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let publics: Vec<String> =
            view.of(id).iter().filter_map(|ip| Some(ip.elastic_ip.as_ref()?.public.to_string())).collect();
        if index == 0 {
            zone = &subnet.zone;
            private_ip = eni.primary.to_string();
            meta("mac", &eni.mac);
            meta("local-ipv4", &private_ip);
            meta("placement/availability-zone", zone);
        }
        for (leaf, text) in [
            ("device-number", index.to_string()),
            ("interface-id", id.to_string()),
            ("local-ipv4s", addresses.join("\n")),
            ("mac", eni.mac.clone()),
            ("owner-id", world.account.clone()),
            ("public-ipv4s", publics.join("\n")),
            ("subnet-id", eni.subnet.to_string()),
            ("subnet-ipv4-cidr-block", subnet.cidr.to_string()),
            ("vpc-id", subnet.vpc.to_string()),
            ("subnet-ipv6-cidr-blocks", ipv6(subnet.ipv6_cidr)),
            ("vpc-ipv4-cidr-block", vpc_cidr.clone()),
            ("vpc-ipv4-cidr-blocks", vpc_cidr),
            ("vpc-ipv6-cidr-blocks", ipv6(vpc_ipv6)),
        ] {
            if !text.is_empty() {
                meta(&format!("network/interfaces/macs/{}/{leaf}", eni.mac), &text);
            }
        }
    }
    if let Some(role) = cloud.instances.get(instance).and_then(|instance| instance.role.as_ref())
        && let Some(key) = cloud.keys.get(&role.key)
    {
        let updated = format!("{:.0}", role.updated);
        let profile = format!("arn:{}:iam::{}:instance-profile/{}", world.partition, world.account, role.name);
        let info = serde_json::json!({
            "Code": "Success",
            "LastUpdated": updated,
            "InstanceProfileArn": profile,
            "InstanceProfileId": "AIPAVIPAEXAMPLE00001",
        });
        let credentials = serde_json::json!({
            "Code": "Success",
            "LastUpdated": updated,
            "Type": "AWS-HMAC",
            "AccessKeyId": role.key,
            "SecretAccessKey": key.secret,
            "Token": key.session_token,
            "Expiration": key.expires.map(|expires| format!("{expires:.0}")),
        });
        meta("iam/info", &format!("{info:#}"));
        meta(&format!("iam/security-credentials/{}", role.name), &format!("{credentials:#}"));
    }
    let document = serde_json::json!({
        "accountId": world.account,
        "architecture": "x86_64",
        "availabilityZone": zone,
        "instanceId": instance.as_ref(),
        "instanceType": "m5.4xlarge",
        "pendingTime": format!("{:.0}", cloud.started),
        "privateIp": private_ip,
        "region": world.region,
        "version": "2017-09-30",
    });
    tree.insert("/latest/dynamic/instance-identity/document".to_owned(), format!("{document:#}"));
    tree
}
