//! From what the operator has set to what the agent goes by, with every fault and its configuration path.
//!
//! A fault of what this commit changes fails the commit. A configuration that once committed always loads: at boot, and
//! for what this commit does not change, a fault is a warning, and that group alone is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::input::{Input, Node};
use crate::config::{Config, Global, GroupConfig, LeftOut, RequestTimeout, VerifyInterval};
use crate::names::{EniId, GroupName, InterfaceName, Region};

/// The folder that an image upgrade keeps.
const PERSISTENT: &str = "/config/";

/// What verification sees beside the configuration.
pub struct Surroundings<'a> {
    /// The interfaces that the kernel has.
    pub interfaces: BTreeSet<String>,
    /// The mode of a file, as chmod(2) counts it; nothing if there is no such file.
    pub mode: &'a dyn Fn(&Path) -> Option<u32>,
}

/// Something wrong, at a place of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place, as it is typed behind `set`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What verification comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to go by, if there are no faults.
    pub config: Config,
    /// What fails the commit.
    pub faults: Vec<Fault>,
    /// What does not, and is worth a line.
    pub warnings: Vec<String>,
}

/// Verifies what is proposed.
pub fn verify(input: &Input, around: &Surroundings<'_>) -> Outcome {
    let mut outcome = Outcome { config: Config::default(), faults: Vec::new(), warnings: Vec::new() };
    let (proposed, effective) = (input.proposed.vrrp(), input.effective.vrrp());
    let [global, global_before] = [proposed, effective].map(|vrrp| vrrp.node("global-parameters").node("aws-vipa"));
    let mut faults = Vec::new();
    outcome.config.global = global_parameters(global, &mut faults, &mut outcome.warnings, around);
    if input.boot || global == global_before {
        outcome.warnings.extend(faults.iter().map(|f| format!("{f}: the node is passed over")));
    } else {
        outcome.faults.extend(faults);
    }
    let outside = outside_vrrp(input);
    outcome.config.interface_addresses = outside.keys().copied().collect();
    let mut interfaces = around.interfaces.clone();
    interfaces.extend(input.interface_addresses.keys().cloned());
    let checks = Checks { proposed, interfaces, outside: &outside, networks: &input.interface_addresses };
    let mut taken = BTreeMap::new();
    let is_changed = |name: &str| !input.boot && nodes(proposed, name) != nodes(effective, name);
    // What was there before comes first: of two groups with one address the newer one is at fault.
    let mut names: Vec<&str> = proposed.node("group").names().filter(|n| nodes(proposed, n).exists()).collect();
    names.sort_by_key(|name| (is_changed(name), *name));
    for name in names {
        match checks.group(name, &mut taken) {
            Ok(group) => {
                outcome.warnings.extend(checks.warnings(&group));
                outcome.config.groups.push(group);
            }
            Err(faults) if is_changed(name) => outcome.faults.extend(faults),
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
                outcome.warnings.extend(faults.iter().map(|f| format!("{f}: the group is left out")));
                outcome.config.left_out.push(LeftOut { name: name.to_owned(), faults });
            }
        }
    }
    outcome.config.groups.sort_by(|a, b| a.name.cmp(&b.name));
    outcome.config.left_out.sort_by(|a, b| a.name.cmp(&b.name));
    outcome
}

fn nodes<'a>(vrrp: Node<'a>, group: &str) -> Node<'a> {
    vrrp.node("group").node(group).node("aws-vipa")
}

fn group_path(group: &str) -> String {
    format!("high-availability vrrp group {} aws-vipa", group.escape_debug())
}

/// The addresses that interfaces have outside VRRP, and which interface that is.
fn outside_vrrp(input: &Input) -> BTreeMap<Ipv4Addr, &str> {
    input
        .interface_addresses
        .iter()
        .flat_map(|(interface, addresses)| addresses.iter().map(move |a| (ipv4(a), interface.as_str())))
        .filter_map(|(address, interface)| Some((address?, interface)))
        .collect()
}

/// The IPv4 address before the prefix length.
fn ipv4(address: &str) -> Option<Ipv4Addr> {
    address.split('/').next()?.parse().ok()
}

/// Whether the address is in the network that `with_prefix` is in.
fn same_network(address: Ipv4Addr, with_prefix: &str) -> Option<bool> {
    let (other, length) = with_prefix.split_once('/')?;
    let (other, length): (Ipv4Addr, u32) = (other.parse().ok()?, length.parse().ok().filter(|l| *l <= 32)?);
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    Some(address.to_bits() & mask == other.to_bits() & mask)
}

fn unknown_nodes(node: Node<'_>, known: &[&str], path: &str, faults: &mut Vec<Fault>) {
    for name in node.names().filter(|name| !known.contains(name)) {
        faults.push(Fault {
            path: format!("{path} {}", name.escape_debug()),
            message:
                "this version of vyos-aws-vipa does not know the node: delete it, or install the version that does"
                    .to_owned(),
        });
    }
}

fn global_parameters(
    node: Node<'_>,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
    around: &Surroundings<'_>,
) -> Global {
    const PATH: &str = "high-availability vrrp global-parameters aws-vipa";
    const KNOWN: [&str; 7] = [
        "region",
        "endpoint-url",
        "credentials-file",
        "profile",
        "ca-certificate-file",
        "verify-interval",
        "request-timeout",
    ];
    unknown_nodes(node, &KNOWN, PATH, faults);
    let mut fault = |name: &str, message: String| faults.push(Fault { path: format!("{PATH} {name}"), message });
    let mut global = Global::default();
    if let Some(region) = node.value("region") {
        match Region::try_from(region) {
            Ok(region) => global.region = Some(region),
            Err(error) => fault("region", error.to_string()),
        }
    }
    if let Some(url) = node.value("endpoint-url") {
        match endpoint_url(url) {
            Ok(()) => global.endpoint_url = Some(url.to_owned()),
            Err(reason) => fault("endpoint-url", format!("{url:?} {reason}")),
        }
    }
    for (name, into) in
        [("credentials-file", &mut global.credentials_file), ("ca-certificate-file", &mut global.ca_certificate_file)]
    {
        let Some(file) = node.value(name) else {
            continue;
        };
        match absolute(file) {
            Ok(path) => {
                warnings.extend(file_warnings(name, &path, around).into_iter().map(|w| format!("{PATH} {name}: {w}")));
                *into = Some(path);
            }
            Err(reason) => fault(name, format!("{file:?} {reason}")),
        }
    }
    if let Some(profile) = node.value("profile") {
        if profile.is_empty() || profile.chars().any(|c| c.is_control() || matches!(c, '[' | ']')) {
            fault("profile", format!("{profile:?} is no name of a profile"));
        } else if global.credentials_file.is_none() {
            fault("profile", "a profile is one of a file: set credentials-file too".to_owned());
        } else {
            global.profile = Some(profile.to_owned());
        }
    }
    let seconds = |name: &str| node.value(name).map(|v| (v, v.parse::<u16>()));
    match seconds("verify-interval") {
        Some((_, Ok(given))) => match VerifyInterval::try_from(given) {
            Ok(interval) => global.verify_interval = interval,
            Err(error) => fault("verify-interval", error.to_string()),
        },
        Some((given, Err(_))) => fault("verify-interval", format!("{given:?} is no number of seconds from 5 to 300")),
        None => {}
    }
    match seconds("request-timeout") {
        Some((_, Ok(given))) => match RequestTimeout::try_from(given) {
            Ok(timeout) => global.request_timeout = timeout,
            Err(error) => fault("request-timeout", error.to_string()),
        },
        Some((given, Err(_))) => fault("request-timeout", format!("{given:?} is no number of seconds from 1 to 30")),
        None => {}
    }
    global
}

/// `http://` or `https://`, a host, and a port where it is another: nothing that could hold a secret.
fn endpoint_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or("does not begin with https:// or http://")?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() {
        return Err("names no host");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b)) {
        return Err("holds something else than a host and a port");
    }
    Ok(())
}

fn absolute(file: &str) -> Result<PathBuf, &'static str> {
    if !file.starts_with('/') {
        return Err("is not an absolute path");
    }
    if file.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    Ok(PathBuf::from(file))
}

fn file_warnings(name: &str, path: &Path, around: &Surroundings<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let shown = path.display();
    if !path.starts_with(PERSISTENT) {
        warnings.push(format!("{shown} does not survive an image upgrade: keep it below {PERSISTENT}"));
    }
    match (around.mode)(path) {
        None => warnings.push(format!("{shown} is not there: no claim succeeds until it is")),
        Some(mode) if name == "credentials-file" && mode & 0o077 != 0 => {
            warnings.push(format!("{shown} can be read by others than its owner: chmod 600 {shown}"));
        }
        Some(_) => {}
    }
    warnings
}

/// What the groups are checked against.
struct Checks<'a> {
    proposed: Node<'a>,
    interfaces: BTreeSet<String>,
    outside: &'a BTreeMap<Ipv4Addr, &'a str>,
    networks: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> Checks<'a> {
    fn group(&self, name: &'a str, taken: &mut BTreeMap<Ipv4Addr, &'a str>) -> Result<GroupConfig, Vec<Fault>> {
        let path = group_path(name);
        let node = nodes(self.proposed, name);
        let mut faults = Vec::new();
        unknown_nodes(node, &["address", "interface", "network-interface-id", "disable"], &path, &mut faults);
        let mut fault = |below: &str, message: String| {
            let path = if below.is_empty() { path.clone() } else { format!("{path} {below}") };
            faults.push(Fault { path, message });
        };
        let group = GroupName::try_from(name).map_err(|e| fault("", format!("{e}: rename the group"))).ok();
        let disable = node.has("disable");
        let held = self.held(name);
        if held.is_empty() {
            fault(
                "",
                "the group has no IPv4 address, and only those are moved in EC2: add one, or delete aws-vipa"
                    .to_owned(),
            );
        }
        let mut addresses = BTreeSet::new();
        for given in node.values("address") {
            let below = format!("address {}", given.escape_debug());
            match given.parse::<Ipv4Addr>() {
                Err(_) => fault(&below, format!("{given:?} is no IPv4 address (without a prefix length)")),
                Ok(address) if !held.contains(&address) => {
                    fault(
                        &below,
                        "the group has no such address or excluded-address: add it there, or delete it here".to_owned(),
                    );
                }
                Ok(address) => {
                    addresses.insert(address);
                }
            }
        }
        let moved: Vec<Ipv4Addr> =
            held.iter().filter(|a| addresses.is_empty() || addresses.contains(a)).copied().collect();
        for address in &moved {
            if let Some(interface) = self.outside.get(address) {
                let message = format!(
                    "{address} is also configured on interface {interface}: it cannot move; delete it there, or name the \
                     other addresses with `aws-vipa address`"
                );
                fault("", message);
            }
            // A group that is switched off claims nothing, and may wait beside the one that does.
            if !disable && let Some(other) = taken.get(address) {
                fault(
                    "",
                    format!(
                        "{address} is moved for group {} already: delete it in one of the two",
                        other.escape_debug()
                    ),
                );
            }
        }
        let interface = node.value("interface").and_then(|given| match InterfaceName::try_from(given) {
            Ok(interface) if self.interfaces.contains(given) => Some(interface),
            Ok(_) => {
                fault("interface", format!("there is no interface {given}"));
                None
            }
            Err(error) => {
                fault("interface", error.to_string());
                None
            }
        });
        let network_interface_id = node.value("network-interface-id").and_then(|given| {
            EniId::try_from(given).map_err(|error| fault("network-interface-id", error.to_string())).ok()
        });
        match group {
            Some(group) if faults.is_empty() => {
                if !disable {
                    taken.extend(moved.into_iter().map(|address| (address, name)));
                }
                Ok(GroupConfig { name: group, addresses, interface, network_interface_id, disable })
            }
            _ => Err(faults),
        }
    }

    /// The IPv4 addresses of a group.
    fn held(&self, group: &str) -> BTreeSet<Ipv4Addr> {
        let node = self.proposed.node("group").node(group);
        ["address", "excluded-address"].iter().flat_map(|n| node.values(n)).filter_map(ipv4).collect()
    }

    /// What saves an evening.
    fn warnings(&self, group: &GroupConfig) -> Vec<String> {
        let node = self.proposed.node("group").node(group.name.as_str());
        let path = format!("high-availability vrrp group {}", group.name);
        let mut warnings = Vec::new();
        let mut warn = |text: &str| warnings.push(format!("{path}: {text}"));
        if node.has("disable") {
            warn("the group is disabled in VRRP: keepalived does not run it, and nothing is claimed");
        }
        if node.values("peer-address").is_empty() {
            warn("no peer-address: a VPC carries no multicast, so the routers will not hear each other");
        }
        if node.value("hello-source-address").is_none() {
            warn("no hello-source-address: the other router takes adverts from its configured peer alone");
        }
        if node.has("rfc3768-compatibility") {
            warn("rfc3768-compatibility: EC2 drops frames from a MAC address that is not the ENI's");
        }
        for (given, below) in ["address", "excluded-address"].iter().flat_map(|n| node.node(n).tags()) {
            let own = below.value("interface").or(node.value("interface"));
            let interface = group.interface.as_ref().map(InterfaceName::as_str).or(own);
            let (Some(address), Some(interface)) = (ipv4(given), interface) else {
                continue;
            };
            let is_moved = group.addresses.is_empty() || group.addresses.contains(&address);
            let networks = self.networks.get(interface).map(Vec::as_slice).unwrap_or_default();
            let inside: Vec<bool> = networks.iter().filter_map(|n| same_network(address, n)).collect();
            if is_moved && !inside.is_empty() && !inside.contains(&true) {
                warn(&format!("{address} is in no subnet of {interface}: EC2 moves an address inside its subnet only"));
            }
        }
        warnings
    }
}
