//! Verifies VyOS's configuration and converts it to the agent's. Every error has its configuration path.
//!
//! An error in a node that this commit changes fails the commit. A committed configuration always loads: at boot, and
//! in nodes that this commit does not change, an error is only a warning, and that group is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::input::{CalledFor, Input, Node};
use super::resources::{self, Errors, Moved, OfGroup};
use crate::model::config::{Config, ElasticIpConfig, Global, GroupConfig, SkippedGroup, overlay_addresses};
use crate::model::endpoint::Endpoint;
use crate::model::ids::{EniId, GroupName, InterfaceName, Region};
use crate::model::mounts::NotLocal;

const GLOBAL_PARAMETERS: &str = "high-availability vrrp global-parameters aws-vipa";
/// The directory that survives an image upgrade.
const PERSISTENT: &str = "/config/";
/// Directories that the package's units cannot access: systemd gives the units their own (PrivateTmp).
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// The longest path, and the longest name in a path, that the kernel accepts, in bytes (path_resolution(7), limits.h).
const MAX_PATH_BYTES: usize = 4095;
const MAX_NAME_BYTES: usize = 255;

/// The state of the router that verification needs in addition to the configuration.
pub struct HostState<'a> {
    /// The kernel's interfaces, each with its IPv4 addresses and their prefix lengths, such as `10.99.0.11/24`,
    /// including those from DHCP and keepalived.
    pub interfaces: BTreeMap<String, Vec<String>>,
    /// The mode bits of a file (chmod(2)); `None` if it does not exist, and an error if it is on a file system that
    /// could hang.
    pub mode: &'a dyn Fn(&Path) -> Result<Option<u32>, NotLocal>,
}

/// An error in a node of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The path of the node, as typed after `set`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// The result of verification.
#[derive(Debug, PartialEq, Eq)]
pub struct Verification {
    /// The configuration after the commit, which is the same for each of its calls. It may be used only if there are no
    /// errors.
    pub config: Config,
    /// The errors that fail this call: those of the nodes that it may be for.
    pub errors: Vec<ConfigError>,
    /// Warnings that this call prints.
    pub warnings: Vec<String>,
    /// Warnings about nodes that other calls of this commit are for.
    pub later: Vec<String>,
    /// Every call that this commit may have.
    pub calls: Vec<CommitCall>,
}

/// The result of one call of the commit.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitCall {
    /// The node that the call is for.
    pub called_for: CalledFor,
    /// Whether the call fails.
    pub has_errors: bool,
    /// Warnings about nodes that this commit changes.
    pub warnings: Vec<String>,
}

/// Verifies what is proposed.
///
/// VyOS calls once for each node of this package that a commit changes, deleted nodes first, and keeps the effective
/// value of a node whose call fails. So a call fails only for the errors of its own node, and all calls of one commit
/// result in the same configuration, in any order.
pub fn verify(input: &Input, host: &HostState<'_>) -> Verification {
    let mut commit = CommitChanges {
        boot: input.boot,
        proposed: input.proposed.vrrp(),
        effective: input.effective.vrrp(),
        refused: BTreeSet::new(),
    };
    let mut errors = Vec::new();
    let pass = loop {
        let mut pass = Pass::of(&commit, input, host);
        if pass.errors.is_empty() {
            break pass;
        }
        // The effective value of a refused node may conflict with another node: repeat until no more are refused.
        for (owned, _) in &pass.errors {
            commit.refuse(*owned);
        }
        errors.append(&mut pass.errors);
    };
    let calls = commit.calls(&errors, &pass.warnings);
    let of_this_call = commit.may_be_called_for(&input.called_for);
    let (now, later): (Vec<_>, Vec<_>) =
        pass.warnings.into_iter().partition(|(owned, _)| of_this_call.contains(owned) || !commit.differs(*owned));
    let [warnings, later] = [now, later].map(|warnings| warnings.into_iter().map(|(_, warning)| warning).collect());
    let errors = errors.into_iter().filter(|(owned, _)| of_this_call.contains(owned)).map(|(_, error)| error).collect();
    Verification { config: pass.config, errors, warnings, later, calls }
}

/// The IPv4 addresses of the proposed and the effective groups, which VRRP adds to interfaces and removes at any time.
pub fn virtual_addresses(input: &Input) -> BTreeSet<Ipv4Addr> {
    let of = |vrrp: Node<'_>| -> BTreeSet<Ipv4Addr> {
        vrrp.node("group").names().flat_map(|group| held(vrrp, group)).collect()
    };
    [input.proposed.vrrp(), input.effective.vrrp()].into_iter().flat_map(of).collect()
}

/// A node of this package, for which VyOS runs the owner script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owned<'a> {
    /// `global-parameters aws-vipa`.
    Settings,
    /// `group <name> aws-vipa`.
    Group(&'a str),
}

/// The changes of a commit to the nodes of this package.
struct CommitChanges<'a> {
    boot: bool,
    proposed: Node<'a>,
    effective: Node<'a>,
    /// The nodes whose call fails, so that VyOS keeps their effective value.
    refused: BTreeSet<Owned<'a>>,
}

impl<'a> CommitChanges<'a> {
    /// The node as it will be after the commit.
    fn node(&self, owned: Owned<'a>) -> Node<'a> {
        node(if self.refused.contains(&owned) { self.effective } else { self.proposed }, owned)
    }

    fn differs(&self, owned: Owned<'a>) -> bool {
        node(self.proposed, owned) != node(self.effective, owned)
    }

    fn vrid(&self, group: &str) -> Option<&'a str> {
        self.proposed.node("group").node(group).value("vrid")
    }

    /// Records a node whose call fails, and the nodes whose calls cannot be distinguished from that call and fail too.
    fn refuse(&mut self, owned: Owned<'a>) {
        self.refused.insert(owned);
        if let Owned::Group(name) = owned
            && let Some(vrid) = self.vrid(name)
        {
            let groups = self.proposed.node("group").names();
            let alike: Vec<&str> = groups.filter(|group| self.vrid(group) == Some(vrid)).collect();
            self.refused.extend(alike.into_iter().map(Owned::Group));
        }
    }

    /// Whether an error in the node fails the commit.
    fn is_held_to_the_rules(&self, owned: Owned<'a>) -> bool {
        !self.boot && self.differs(owned) && !self.refused.contains(&owned)
    }

    /// The nodes of this package that this commit changes.
    fn changed(&self) -> BTreeSet<Owned<'a>> {
        let groups = [self.proposed, self.effective].into_iter().flat_map(|vrrp| vrrp.node("group").names());
        let mut changed: BTreeSet<Owned<'a>> = groups.map(Owned::Group).chain([Owned::Settings]).collect();
        changed.retain(|owned| self.differs(*owned));
        changed
    }

    /// The result of each call of this commit, as [`Self::may_be_called_for`] assigns errors and warnings to calls.
    fn calls(&self, errors: &[(Owned<'a>, ConfigError)], warnings: &[(Owned<'a>, String)]) -> Vec<CommitCall> {
        let for_node = |owned| match owned {
            Owned::Settings => CalledFor::Settings,
            Owned::Group(name) => CalledFor::Group { vrid: self.vrid(name).map(str::to_owned) },
        };
        let calls: BTreeSet<CalledFor> = self.changed().into_iter().map(for_node).chain([CalledFor::Unknown]).collect();
        let call = |called_for: CalledFor| {
            let nodes = self.may_be_called_for(&called_for);
            let warnings = warnings.iter().filter(|(owned, _)| nodes.contains(owned));
            CommitCall {
                called_for,
                has_errors: errors.iter().any(|(owned, _)| nodes.contains(owned)),
                warnings: warnings.map(|(_, text)| text.clone()).collect(),
            }
        };
        calls.into_iter().map(call).collect()
    }

    /// The nodes that a call may be for, which are always nodes that this commit changes.
    fn may_be_called_for(&self, called_for: &CalledFor) -> BTreeSet<Owned<'a>> {
        let changed = self.changed();
        let is_meant = |owned: &Owned<'a>| match (called_for, owned) {
            (CalledFor::Settings, Owned::Settings) => true,
            (CalledFor::Group { vrid }, Owned::Group(name)) => self.vrid(name) == vrid.as_deref(),
            _ => false,
        };
        let meant: BTreeSet<Owned<'a>> = changed.iter().copied().filter(is_meant).collect();
        if meant.is_empty() { changed } else { meant }
    }
}

fn node<'a>(vrrp: Node<'a>, owned: Owned<'_>) -> Node<'a> {
    match owned {
        Owned::Settings => vrrp.node("global-parameters"),
        Owned::Group(name) => vrrp.node("group").node(name),
    }
    .node("aws-vipa")
}

/// The configuration after the commit, given the nodes that are refused so far, and the errors of the other nodes.
struct Pass<'a> {
    config: Config,
    errors: Vec<(Owned<'a>, ConfigError)>,
    warnings: Vec<(Owned<'a>, String)>,
}

impl<'a> Pass<'a> {
    fn of(commit: &CommitChanges<'a>, input: &'a Input, host: &HostState<'_>) -> Self {
        let mut pass = Self { config: Config::default(), errors: Vec::new(), warnings: Vec::new() };
        pass.settings(commit, host);
        let outside = outside_vrrp(input);
        pass.config.interface_addresses = outside.keys().copied().collect();
        let proposed = commit.proposed;
        let virtual_addresses: BTreeSet<Ipv4Addr> =
            proposed.node("group").names().flat_map(|name| held(proposed, name)).collect();
        let verifier = GroupVerifier {
            commit,
            outside: &outside,
            configured: &input.interface_addresses,
            kernel: &host.interfaces,
            networks: [&input.interface_addresses, &host.interfaces].map(|all| networks(all, &virtual_addresses)),
        };
        pass.groups(commit, &verifier);
        pass
    }

    fn settings(&mut self, commit: &CommitChanges<'a>, host: &HostState<'_>) {
        let owned = Owned::Settings;
        let (mut errors, mut warnings) = (Errors::below(GLOBAL_PARAMETERS.to_owned()), Vec::new());
        self.config.global = global_parameters(commit.node(owned), &mut errors, &mut warnings, host);
        self.warnings.extend(warnings.into_iter().map(|warning| (owned, warning)));
        if commit.is_held_to_the_rules(owned) {
            self.errors.extend(errors.found.into_iter().map(|error| (owned, error)));
        } else {
            self.warnings.extend(errors.found.iter().map(|f| (owned, format!("{f}: node ignored"))));
        }
    }

    fn groups(&mut self, commit: &CommitChanges<'a>, verifier: &GroupVerifier<'_>) {
        let names = commit.proposed.node("group").names();
        let mut names: Vec<&str> = names.filter(|name| commit.node(Owned::Group(name)).exists()).collect();
        // Groups that were there before come first, so that of two groups with one address the newer one has the error.
        names.sort_by_key(|name| (commit.is_held_to_the_rules(Owned::Group(name)), *name));
        let mut moved = Moved::default();
        for name in names {
            let owned = Owned::Group(name);
            match verifier.group(name, &mut moved) {
                Ok(group) => {
                    self.warnings.extend(verifier.warnings(&group).into_iter().map(|warning| (owned, warning)));
                    self.config.groups.push(group);
                }
                Err(errors) if commit.is_held_to_the_rules(owned) => {
                    self.errors.extend(errors.into_iter().map(|error| (owned, error)));
                }
                Err(errors) => {
                    let errors: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
                    self.warnings.extend(errors.iter().map(|f| (owned, format!("{f}: group skipped"))));
                    self.config.skipped.push(SkippedGroup { name: name.to_owned(), errors });
                }
            }
        }
        self.config.groups.sort_by(|a, b| a.name.cmp(&b.name));
        self.config.skipped.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

fn group_path(group: &str) -> String {
    format!("high-availability vrrp group {} aws-vipa", group.escape_debug())
}

/// The addresses that interfaces have outside VRRP, with their interface.
fn outside_vrrp(input: &Input) -> BTreeMap<Ipv4Addr, &str> {
    input
        .interface_addresses
        .iter()
        .flat_map(|(interface, addresses)| addresses.iter().map(move |a| (ipv4(a), interface.as_str())))
        .filter_map(|(address, interface)| Some((address?, interface)))
        .collect()
}

/// The addresses with prefix lengths of each interface, without those of groups.
fn networks<'a>(
    all: &'a BTreeMap<String, Vec<String>>,
    virtual_addresses: &BTreeSet<Ipv4Addr>,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let ours = |network: &&str| ipv4(network).is_some_and(|address| !virtual_addresses.contains(&address));
    let of = |networks: &'a [String]| networks.iter().map(String::as_str).filter(ours).collect();
    all.iter().map(|(interface, networks)| (interface.as_str(), of(networks))).collect()
}

/// The IPv4 addresses of a group.
fn held(vrrp: Node<'_>, group: &str) -> BTreeSet<Ipv4Addr> {
    let node = vrrp.node("group").node(group);
    ["address", "excluded-address"].iter().flat_map(|n| node.values(n)).filter_map(ipv4).collect()
}

/// The IPv4 address before the prefix length.
fn ipv4(address: &str) -> Option<Ipv4Addr> {
    address.split('/').next()?.parse().ok()
}

/// keepalived 2.2.7 treats an address that was there before as a virtual one: it removes it from the interface when it
/// starts, and when a MASTER becomes BACKUP or is deleted, but not when a reload adds the group.
fn own_address(address: Ipv4Addr, interface: &str) -> String {
    format!(
        "{address} is also configured on interface {interface}; keepalived removes it from there when it starts, and when \
         the group stops being MASTER or is deleted. Configure it in one place only. To keep it on {interface}: delete it \
         from the group and from {interface}, commit, then set it on {interface} again"
    )
}

fn global_parameters(node: Node<'_>, errors: &mut Errors, warnings: &mut Vec<String>, host: &HostState<'_>) -> Global {
    const KNOWN: [&str; 7] = [
        "region",
        "endpoint-url",
        "credentials-file",
        "profile",
        "ca-certificate-file",
        "verify-interval",
        "request-timeout",
    ];
    errors.add_unknown(node, "", &KNOWN);
    let mut global = Global::default();
    if let Some(region) = node.value("region") {
        match Region::try_from(region) {
            Ok(region) => global.region = Some(region),
            Err(error) => errors.add("region", error.to_string()),
        }
    }
    if let Some(url) = node.value("endpoint-url") {
        match Endpoint::parse(url) {
            Ok(endpoint) => {
                if endpoint.is_in_clear() {
                    warnings.push(format!(
                        "{GLOBAL_PARAMETERS} endpoint-url: {url} is not encrypted: the session token can be read in transit, and the server is not authenticated; use https://"
                    ));
                }
                global.endpoint_url = Some(url.to_owned());
            }
            Err(reason) => errors.add("endpoint-url", format!("{url:?} {reason}")),
        }
    }
    for (name, into) in
        [("credentials-file", &mut global.credentials_file), ("ca-certificate-file", &mut global.ca_certificate_file)]
    {
        let Some(file) = node.value(name) else {
            continue;
        };
        match usable_path(file) {
            Ok(path) => {
                warnings.extend(
                    file_warnings(name, &path, host).into_iter().map(|w| format!("{GLOBAL_PARAMETERS} {name}: {w}")),
                );
                *into = Some(path);
            }
            Err(reason) => errors.add(name, format!("{file:?} {reason}")),
        }
    }
    if let Some(profile) = node.value("profile") {
        if profile.is_empty() || profile.chars().any(|c| c.is_control() || matches!(c, '[' | ']')) {
            errors.add("profile", format!("{profile:?} is not a valid profile name"));
        } else if global.credentials_file.is_none() {
            errors.add("profile", "requires a credentials file: set credentials-file too".to_owned());
        } else {
            global.profile = Some(profile.to_owned());
        }
    }
    match node.value("verify-interval").map(str::parse) {
        Some(Ok(interval)) => global.verify_interval = interval,
        Some(Err(error)) => errors.add("verify-interval", error.to_string()),
        None => {}
    }
    match node.value("request-timeout").map(str::parse) {
        Some(Ok(timeout)) => global.request_timeout = timeout,
        Some(Err(error)) => errors.add("request-timeout", error.to_string()),
        None => {}
    }
    global
}

fn usable_path(file: &str) -> Result<PathBuf, &'static str> {
    if !file.starts_with('/') {
        return Err("is not an absolute path");
    }
    if file.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    // The kernel accepts such a path, but it is probably a typing error.
    if file.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err("contains an empty part, `.` or `..`");
    }
    if file.ends_with(char::is_whitespace) || file.contains('\\') {
        return Err("contains a backslash, or ends with white space");
    }
    if file.len() > MAX_PATH_BYTES || file.split('/').any(|part| part.len() > MAX_NAME_BYTES) {
        return Err("is too long");
    }
    if TEMPORARY.iter().any(|directory| Path::new(file).starts_with(directory)) {
        return Err(
            "is below /tmp or /var/tmp: the agent has directories of its own there (PrivateTmp) and cannot read \
                    it, and such files may not survive a reboot; copy the file to /config/auth, and configure that path",
        );
    }
    Ok(PathBuf::from(file))
}

fn file_warnings(name: &str, path: &Path, host: &HostState<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let shown = path.display();
    if !path.starts_with(PERSISTENT) {
        warnings.push(format!("{shown} does not survive an image upgrade: keep it below {PERSISTENT}"));
    }
    match (host.mode)(path) {
        // A warning, as for a missing file: mounts are not part of the configuration.
        Err(why) => warnings.push(format!("{shown} is not read: {why}")),
        Ok(None) => warnings.push(format!("{shown} does not exist: claims fail until it does")),
        Ok(Some(mode)) if name == "credentials-file" && mode & 0o077 != 0 => {
            warnings.push(format!("{shown} is readable by other users: run chmod 600 {shown}"));
        }
        Ok(Some(_)) if name == "ca-certificate-file" => {
            // The agent, which is not root, reads this file itself.
            let needed = |at: &Path| if at == path { 0o004 } else { 0o001 };
            let closed =
                path.ancestors().find(|at| matches!((host.mode)(at), Ok(Some(mode)) if mode & needed(at) == 0));
            warnings.extend(closed.map(|at| {
                let at = at.display();
                format!("the mode of {at} keeps the agent, which is not root, from reading {shown}: make it accessible to other users")
            }));
        }
        Ok(Some(_)) => {}
    }
    warnings
}

/// The data that groups are checked against.
struct GroupVerifier<'a> {
    commit: &'a CommitChanges<'a>,
    outside: &'a BTreeMap<Ipv4Addr, &'a str>,
    /// The addresses that VyOS configures on interfaces.
    configured: &'a BTreeMap<String, Vec<String>>,
    /// The addresses that the kernel has on them.
    kernel: &'a BTreeMap<String, Vec<String>>,
    /// Both, without the groups' addresses: a master has the addresses of all its groups on its interfaces.
    networks: [BTreeMap<&'a str, Vec<&'a str>>; 2],
}

impl<'a> GroupVerifier<'a> {
    fn group(&self, name: &'a str, moved: &mut Moved<'a>) -> Result<GroupConfig, Vec<ConfigError>> {
        const KNOWN: [&str; 7] =
            ["address", "disable", "elastic-ip", "interface", "network-interface-id", "no-address", "route"];
        let node = self.commit.node(Owned::Group(name));
        let mut errors = Errors::below(group_path(name));
        errors.add_unknown(node, "", &KNOWN);
        let group = GroupName::try_from(name).map_err(|e| errors.add("", format!("{e}: rename the group"))).ok();
        let exists = |interface: &str| self.kernel.contains_key(interface) || self.configured.contains_key(interface);
        let routes = resources::routes(node, &exists, &mut errors);
        let elastic_ips = resources::elastic_ips(node, &exists, &mut errors);
        let moves_more = ["route", "elastic-ip"].iter().any(|name| node.node(name).names().next().is_some());
        let no_address = node.has("no-address");
        if no_address && node.has("address") {
            errors.add("no-address", "contradicts address: delete one of the two");
        } else if no_address && !moves_more {
            errors.add("no-address", "leaves nothing to move: set route or elastic-ip too, or delete it");
        }
        let held = held(self.commit.proposed, name);
        if held.is_empty() && moves_more {
            let reason = "the group has no IPv4 address, and only one that is on the interface shows that this router is \
                          master: add one, or delete aws-vipa";
            errors.add("", reason);
        } else if held.is_empty() {
            errors.add(
                "",
                "the group has no IPv4 address, and only IPv4 addresses are moved: add one, or delete aws-vipa",
            );
        }
        let overlay = overlay_addresses(&routes);
        let mut addresses = BTreeSet::new();
        for given in node.values("address") {
            let below = format!("address {}", given.escape_debug());
            match given.parse::<Ipv4Addr>() {
                Err(_) => errors.add(&below, format!("{given:?} is not an IPv4 address without a prefix length")),
                Ok(address) if !held.contains(&address) => {
                    errors.add(
                        &below,
                        "the group has no such address or excluded-address: add it there, or delete it here",
                    );
                }
                Ok(address) if overlay.contains(&address) => {
                    errors.add(&below, format!("route {address}/32 of this group moves it: delete one of the two"));
                }
                Ok(address) => _ = addresses.insert(address),
            }
        }
        for ElasticIpConfig { allocation, private_address, .. } in &elastic_ips {
            if let Some(address) = private_address.filter(|address| overlay.contains(address)) {
                errors.add(
                    &format!("elastic-ip {allocation} private-address"),
                    format!("route {address}/32 of this group moves {address}, and no ENI has it: set another address"),
                );
            }
        }
        let is_chosen =
            |address: &Ipv4Addr| addresses.is_empty() || addresses.contains(address) || overlay.contains(address);
        let chosen: Vec<Ipv4Addr> = held.iter().copied().filter(is_chosen).collect();
        for address in &chosen {
            if let Some(interface) = self.outside.get(address) {
                errors.add("", own_address(*address, interface));
            }
        }
        let interface = resources::interface(node, "", &exists, &mut errors);
        let network_interface_id = node
            .value("network-interface-id")
            .and_then(|given| EniId::try_from(given).map_err(|error| errors.add("network-interface-id", error)).ok());
        let disable = node.has("disable");
        let of_vrrp = self.commit.proposed.node("group").node(name).value("interface");
        let own = OfGroup {
            name,
            is_disabled: disable,
            addresses: &chosen,
            no_address,
            routes: &routes,
            elastic_ips: &elastic_ips,
            eni: network_interface_id.as_ref().map(EniId::as_str),
            interface: interface.as_ref().map(InterfaceName::as_str).or(of_vrrp),
        };
        moved.check(&own, &mut errors);
        match group {
            Some(group) if errors.found.is_empty() => {
                moved.add(&own);
                Ok(GroupConfig {
                    name: group,
                    addresses,
                    interface,
                    network_interface_id,
                    disable,
                    no_address,
                    routes,
                    elastic_ips,
                })
            }
            _ => Err(errors.found),
        }
    }

    /// The subnets of the interface, if known.
    fn subnets(&self, interface: &str) -> Vec<Ipv4Net> {
        // With DHCP, which is usual in EC2, VyOS configures no address.
        let known = self.networks.each_ref().map(|networks| -> Vec<Ipv4Net> {
            let networks = networks.get(interface).into_iter().flatten();
            networks.filter_map(|network| Some(network.parse::<Ipv4Net>().ok()?.trunc())).collect()
        });
        known.into_iter().find(|known| !known.is_empty()).unwrap_or_default()
    }

    /// Whether the subnets of the interface are known, and the address is in none of them.
    fn is_outside(&self, address: Ipv4Addr, interface: &str) -> bool {
        let subnets = self.subnets(interface);
        !subnets.is_empty() && !subnets.iter().any(|subnet| subnet.contains(&address))
    }

    /// Warnings about a group that commits but may not work.
    fn warnings<'b>(&'b self, group: &'b GroupConfig) -> Vec<String> {
        let node = self.commit.proposed.node("group").node(group.name.as_str());
        let path = format!("high-availability vrrp group {}", group.name);
        let mut warnings = Vec::new();
        let mut warn = |text: &str| warnings.push(format!("{path}: {text}"));
        let is_disabled = node.has("disable");
        if is_disabled {
            warn("the group is disabled in VRRP: keepalived does not run it, and nothing is claimed");
        }
        if node.values("peer-address").is_empty() {
            warn(
                "no peer-address: a VPC does not carry multicast, so the routers do not receive each other's advertisements",
            );
        }
        if node.value("hello-source-address").is_none() {
            warn(
                "no hello-source-address: the other router accepts advertisements only from its configured peer-address",
            );
        }
        if node.has("rfc3768-compatibility") {
            warn("rfc3768-compatibility: EC2 drops frames from a MAC address that is not the ENI's");
        }
        let overlay = overlay_addresses(&group.routes);
        let of_group = group.interface.as_ref().map(InterfaceName::as_str);
        for (given, below) in ["address", "excluded-address"].iter().flat_map(|n| node.node(n).tags()) {
            let own = below.value("interface").or(node.value("interface"));
            let (Some(address), Some(interface)) = (ipv4(given), of_group.or(own)) else {
                continue;
            };
            let is_overlay = overlay.contains(&address);
            let is_moved = group.addresses.is_empty() || group.addresses.contains(&address) || is_overlay;
            // keepalived does not run a disabled group, and for a claimed address this is an error.
            if let Some(interface) = self.outside.get(&address).filter(|_| !is_disabled && !is_moved) {
                warn(&own_address(address, interface));
            }
            if !is_moved || is_overlay || !self.is_outside(address, interface) {
                continue;
            }
            let outside = format!("{address} is not in a subnet of {interface}");
            if !group.no_address {
                warn(&format!(
                    "{outside}: EC2 moves addresses only within their subnet, and an overlay address needs aws-vipa \
                     route {address}/32"
                ));
            } else if !group.routes.iter().any(|route| route.destination.contains(address)) {
                warn(&format!("{outside}, and no route leads to it: set aws-vipa route {address}/32"));
            }
        }
        let interface_of = |own: &'b Option<InterfaceName>| -> Option<&'b str> {
            own.as_ref().map(InterfaceName::as_str).or(of_group).or(node.value("interface"))
        };
        for route in &group.routes {
            let (IpNet::V4(destination), Some(interface)) = (route.destination.net(), interface_of(&route.interface))
            else {
                continue;
            };
            let subnets = self.subnets(interface);
            if let Some(subnet) = subnets.iter().find(|net| net.contains(&destination) && **net != destination) {
                warn(&format!(
                    "route {destination} is in subnet {subnet}: EC2 accepts no route for a part of a subnet. Choose an \
                     overlay address outside the VPC's ranges"
                ));
            }
        }
        for ElasticIpConfig { allocation, private_address, interface } in &group.elastic_ips {
            let (Some(address), Some(interface)) = (private_address, interface_of(interface)) else {
                continue;
            };
            if self.is_outside(*address, interface) {
                warn(&format!(
                    "elastic-ip {allocation}: private-address {address} is not in a subnet of {interface}: correct \
                     private-address, or set elastic-ip interface"
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::config::{RequestTimeout, RouteConfig, VerifyInterval};
    use crate::model::ids::{AllocationId, RouteTableId};
    use crate::model::mounts::{Mounts, Unresolved};

    const GROUP: &str = "high-availability vrrp group";
    const GLOBAL: &str = "high-availability vrrp global-parameters aws-vipa";

    /// A group without warnings, with these `aws-vipa` nodes.
    fn group(address: &str, aws_vipa: Value) -> Value {
        json!({
            "address": { address: {} },
            "hello-source-address": "10.99.0.1",
            "interface": "eth0",
            "peer-address": ["10.99.0.2"],
            "vrid": "10",
            "aws-vipa": aws_vipa
        })
    }

    /// The same with one of VRRP's own nodes set, or deleted if the value is null.
    fn with(mut group: Value, node: &str, value: Value) -> Value {
        let nodes = group.as_object_mut().expect("a node");
        if value.is_null() {
            nodes.remove(node)
        } else {
            nodes.insert(node.to_owned(), value)
        };
        group
    }

    fn groups(groups: Value) -> Value {
        json!({ "vrrp": { "group": groups } })
    }

    fn global(nodes: Value) -> Value {
        json!({ "vrrp": { "global-parameters": { "aws-vipa": nodes } } })
    }

    fn verified_at(boot: bool, proposed: &Value, effective: &Value) -> Verification {
        called_for(&[], boot, proposed, effective)
    }

    fn called_for(words: &[&str], boot: bool, proposed: &Value, effective: &Value) -> Verification {
        let text = json!({
            "format": 1,
            "boot": boot,
            "called-for": words,
            "proposed": proposed,
            "effective": effective,
            "interface-addresses": { "eth0": ["10.99.0.1/24", "2001:db8::1/64"], "eth1": ["10.98.0.1/24"], "eth2": [] }
        });
        let input = Input::parse(text.to_string().as_bytes()).expect("read");
        let mounts = Mounts::parse(b"9 1 0:9 / /mnt/nas rw - nfs4 nas:/ rw\n").expect("a mount");
        let mode = |path: &Path| match path.to_str().expect("text") {
            "/config/aws/credentials" | "/root/.aws/credentials" | "/config/aws/own-ca.pem" => Ok(Some(0o600)),
            "/config/aws/open" => Ok(Some(0o640)),
            "/config/aws/ca.pem" | "/config/aws/open-ca.pem" | "/config/closed/ca.pem" => Ok(Some(0o644)),
            "/config/closed" => Ok(Some(0o2770)),
            "/config" | "/config/aws" => Ok(Some(0o2775)),
            _ => match mounts.resolve(path, |_| Ok(None)) {
                Err(Unresolved::NotLocal(why)) => Err(why),
                _ => Ok(None),
            },
        };
        let kernel = ["10.97.0.11/24", "10.97.0.100/24"].map(str::to_owned).to_vec();
        let interfaces = BTreeMap::from([("eth5".to_owned(), kernel), ("eth9".to_owned(), Vec::new())]);
        verify(&input, &HostState { interfaces, mode: &mode })
    }

    fn verified(proposed: &Value) -> Verification {
        verified_at(false, proposed, &json!({}))
    }

    /// The errors of the commit, as text.
    fn errors(outcome: &Verification) -> Vec<String> {
        outcome.errors.iter().map(ConfigError::to_string).collect()
    }

    fn names(outcome: &Verification) -> Vec<&str> {
        outcome.config.groups.iter().map(|g| g.name.as_str()).collect()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_set_comes_through() {
        let outcome = verified(&json!({ "vrrp": {
            "global-parameters": { "aws-vipa": {
                "region": "eu-central-1",
                "endpoint-url": "https://ec2.example:8443/",
                "credentials-file": "/config/aws/credentials",
                "profile": "router",
                "ca-certificate-file": "/config/aws/ca.pem",
                "verify-interval": "300",
                "request-timeout": "1"
            }},
            "group": {
                "whole": group("10.99.0.100/24", json!({})),
                "part": with(
                    group("10.99.0.101/24", json!({
                        "address": ["10.99.0.102"],
                        "interface": "eth9",
                        "network-interface-id": "eni-0123456789abcdef0",
                        "disable": {}
                    })),
                    "excluded-address",
                    json!({ "10.99.0.102": {} })
                ),
                "without": with(group("10.99.0.103/24", json!({})), "aws-vipa", Value::Null)
            }
        }}));
        assert_eq!((errors(&outcome), &outcome.warnings), (vec![], &vec![]));
        let group = |name: &str| GroupConfig::new(GroupName::try_from(name).expect("a name"));
        let expected = Config {
            global: Global {
                region: Some(Region::try_from("eu-central-1").expect("a region")),
                endpoint_url: Some("https://ec2.example:8443/".to_owned()),
                credentials_file: Some("/config/aws/credentials".into()),
                profile: Some("router".to_owned()),
                ca_certificate_file: Some("/config/aws/ca.pem".into()),
                verify_interval: VerifyInterval::try_from(300).expect("an interval"),
                request_timeout: RequestTimeout::try_from(1).expect("a time-out"),
            },
            groups: vec![
                GroupConfig {
                    addresses: BTreeSet::from([address("10.99.0.102")]),
                    interface: Some(InterfaceName::try_from("eth9").expect("a name")),
                    network_interface_id: Some(EniId::try_from("eni-0123456789abcdef0").expect("an id")),
                    disable: true,
                    ..group("part")
                },
                group("whole"),
            ],
            skipped: Vec::new(),
            interface_addresses: BTreeSet::from([address("10.99.0.1"), address("10.98.0.1")]),
        };
        assert_eq!(outcome.config, expected);
    }

    const TABLE: &str = "rtb-0123456789abcdef0";
    const OTHER_TABLE: &str = "rtb-0fedcba9";
    const ELASTIC_IP: &str = "eipalloc-0123456789abcdef0";
    const OTHER_ELASTIC_IP: &str = "eipalloc-0fedcba9";

    /// A group with an overlay address, which a route moves.
    fn overlay(aws_vipa: Value) -> Value {
        let mut group = group("10.255.0.1/32", aws_vipa);
        group["aws-vipa"]["route"]["10.255.0.1/32"] = json!({ "route-table": [TABLE] });
        group
    }

    fn interface(name: &str) -> Option<InterfaceName> {
        Some(InterfaceName::try_from(name).expect("a name"))
    }

    fn route(destination: &str, tables: &[&str], interface: Option<InterfaceName>) -> RouteConfig {
        let tables = tables.iter().map(|table| RouteTableId::try_from(*table).expect("a table")).collect();
        RouteConfig { destination: destination.parse().expect("a prefix"), tables, interface }
    }

    fn elastic_ip(
        allocation: &str,
        private_address: Option<&str>,
        interface: Option<InterfaceName>,
    ) -> ElasticIpConfig {
        let allocation = AllocationId::try_from(allocation).expect("an id");
        ElasticIpConfig { allocation, private_address: private_address.map(address), interface }
    }

    #[test]
    fn routes_and_elastic_ips_come_through() {
        let outcome = verified(&groups(json!({
            "both": group("10.99.0.100/24", json!({
                // VyOS gives several values as a list, and a single one as either.
                "route": {
                    "2001:DB8::/32": { "route-table": TABLE },
                    "9.0.0.0/8": { "route-table": [OTHER_TABLE, TABLE] },
                    "10.0.0.0/8": { "route-table": [TABLE], "interface": "eth1" }
                },
                "elastic-ip": {
                    OTHER_ELASTIC_IP: {},
                    ELASTIC_IP: { "private-address": "10.98.0.5", "interface": "eth1" }
                }
            })),
            "without": overlay(json!({ "no-address": {} }))
        })));
        assert_eq!((errors(&outcome), &outcome.warnings), (vec![], &vec![]));
        let group = |name: &str| GroupConfig::new(GroupName::try_from(name).expect("a name"));
        let expected = [
            GroupConfig {
                routes: vec![
                    route("9.0.0.0/8", &[TABLE, OTHER_TABLE], None),
                    route("10.0.0.0/8", &[TABLE], interface("eth1")),
                    route("2001:db8::/32", &[TABLE], None),
                ],
                elastic_ips: vec![
                    elastic_ip(ELASTIC_IP, Some("10.98.0.5"), interface("eth1")),
                    elastic_ip(OTHER_ELASTIC_IP, None, None),
                ],
                ..group("both")
            },
            GroupConfig { no_address: true, routes: vec![route("10.255.0.1/32", &[TABLE], None)], ..group("without") },
        ];
        assert_eq!(outcome.config.groups, expected);
    }

    #[test]
    fn what_is_deleted_is_gone() {
        let before = groups(json!({
            "a": group("10.99.0.100/24", json!({
                "route": { "10.0.0.0/8": { "route-table": [TABLE, OTHER_TABLE] } },
                "elastic-ip": { ELASTIC_IP: {} }
            }))
        }));
        let group = |routes, elastic_ips| GroupConfig {
            routes,
            elastic_ips,
            ..GroupConfig::new(GroupName::try_from("a").expect("a name"))
        };
        for (nodes, routes, elastic_ips) in [
            (
                json!({ "route": { "10.0.0.0/8": { "route-table": [TABLE] } } }),
                vec![route("10.0.0.0/8", &[TABLE], None)],
                vec![],
            ),
            (json!({ "elastic-ip": { ELASTIC_IP: {} } }), vec![], vec![elastic_ip(ELASTIC_IP, None, None)]),
            (json!({}), vec![], vec![]),
        ] {
            let mut after = before.clone();
            after["vrrp"]["group"]["a"]["aws-vipa"] = nodes;
            let outcome = verified_at(false, &after, &before);
            assert_eq!((errors(&outcome), &outcome.warnings), (vec![], &vec![]));
            assert_eq!(outcome.config.groups, [group(routes, elastic_ips)]);
        }
    }

    #[test]
    fn each_fault_of_routes_and_elastic_ips_is_reported_with_its_node() {
        let route = |prefix: &str, nodes: Value| json!({ "route": { prefix: nodes } });
        let table = || json!({ "route-table": [TABLE] });
        for (nodes, expected) in [
            (route("10.0.0.1/8", table()), "route 10.0.0.1/8: 10.0.0.1/8 has host bits: the prefix is 10.0.0.0/8"),
            (route("2001:db8::1/64", table()), "route 2001:db8::1/64: 2001:db8::1/64 has host bits"),
            (route("10.0.0.0", table()), "route 10.0.0.0: \"10.0.0.0\" is not an IPv4 or IPv6 prefix such as"),
            (route("10.0.0.0/33", table()), "route 10.0.0.0/33: \"10.0.0.0/33\" is not an IPv4 or IPv6 prefix"),
            (route("a\nb", table()), "route a\\nb: \"a\\nb\" is not an IPv4 or IPv6 prefix"),
            (route("10.0.0.0/8", json!({})), "route 10.0.0.0/8: requires a route table: set route-table too"),
            (
                route("10.0.0.0/8", json!({ "interface": "eth0" })),
                "route 10.0.0.0/8: requires a route table: set route-table too",
            ),
            (
                route("10.0.0.0/8", json!({ "route-table": "rtb-1" })),
                "route 10.0.0.0/8 route-table rtb-1: \"rtb-1\" is not the id of a route table: it must be rtb- followed by 8 or",
            ),
            (
                route("10.0.0.0/8", json!({ "route-table": [TABLE, "vpc-01234567"] })),
                "route 10.0.0.0/8 route-table vpc-01234567: \"vpc-01234567\" is not the id of a route table",
            ),
            (
                route("10.0.0.0/8", json!({ "route-table": TABLE, "interface": "eth7" })),
                "route 10.0.0.0/8 interface: interface eth7 does not exist",
            ),
            (
                route("10.0.0.0/8", json!({ "route-table": TABLE, "interface": "a/b" })),
                "route 10.0.0.0/8 interface: \"a/b\" is not the name of a network interface",
            ),
            (
                route("10.0.0.0/8", json!({ "route-table": TABLE, "gateway": "x" })),
                "route 10.0.0.0/8 gateway: node not supported by this version",
            ),
            (
                json!({ "route": { "2001:db8::/32": table(), "2001:DB8::/32": table() } }),
                "route 2001:db8::/32: route 2001:DB8::/32 has the same prefix: delete one of the two",
            ),
            (
                json!({ "elastic-ip": { "eipalloc-1": {} } }),
                "elastic-ip eipalloc-1: \"eipalloc-1\" is not the allocation id of an Elastic IP: it must be eipalloc- followed",
            ),
            (json!({ "elastic-ip": { "203.0.113.9": {} } }), "elastic-ip 203.0.113.9: \"203.0.113.9\" is not the"),
            (
                json!({ "elastic-ip": { ELASTIC_IP: { "interface": "eth7" } } }),
                "elastic-ip eipalloc-0123456789abcdef0 interface: interface eth7 does not exist",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: { "private-address": "10.99.0.5/24" } } }),
                "eipalloc-0123456789abcdef0 private-address: \"10.99.0.5/24\" is not the private IPv4 address of an ENI",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: { "private-address": "2001:db8::5" } } }),
                "private-address: \"2001:db8::5\" is not the private IPv4 address of an ENI",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: { "private-address": "127.0.0.1" } } }),
                "private-address: \"127.0.0.1\" is not the private IPv4 address of an ENI",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: { "allow": {} } } }),
                "elastic-ip eipalloc-0123456789abcdef0 allow: node not supported by this version",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: {}, OTHER_ELASTIC_IP: {} } }),
                "elastic-ip eipalloc-0fedcba9: eipalloc-0123456789abcdef0 of this group has the same private address",
            ),
            (
                json!({ "disable": {}, "elastic-ip": {
                    ELASTIC_IP: { "private-address": "10.99.0.5" },
                    OTHER_ELASTIC_IP: { "private-address": "10.99.0.5", "interface": "eth0" }
                } }),
                "elastic-ip eipalloc-0fedcba9: eipalloc-0123456789abcdef0 of this group has the same private address",
            ),
            (
                json!({ "no-address": {}, "address": "10.99.0.100", "elastic-ip": { ELASTIC_IP: {} } }),
                "no-address: contradicts address: delete one of the two",
            ),
            (
                json!({ "no-address": {} }),
                "no-address: leaves nothing to move: set route or elastic-ip too, or delete it",
            ),
            (
                json!({ "no-address": {}, "network-interface-id": "eni-01234567" }),
                "no-address: leaves nothing to move: set route or elastic-ip too",
            ),
            (
                json!({ "address": ["10.99.0.100"], "route": { "10.99.0.100/32": table() } }),
                "address 10.99.0.100: route 10.99.0.100/32 of this group moves it: delete one of the two",
            ),
            (
                json!({
                    "route": { "10.99.0.100/32": table() },
                    "elastic-ip": { ELASTIC_IP: { "private-address": "10.99.0.100" } }
                }),
                "elastic-ip eipalloc-0123456789abcdef0 private-address: route 10.99.0.100/32 of this group moves",
            ),
        ] {
            let outcome = verified(&groups(json!({ "a": group("10.99.0.100/24", nodes) })));
            let errors = errors(&outcome);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with(&format!("{GROUP} a aws-vipa ")), "{}", errors[0]);
            assert!(errors[0].contains(expected), "{}: not {expected}", errors[0]);
            assert!(outcome.config.groups.is_empty(), "{expected}");
        }
        // VRRP's state shows by an IPv4 address alone.
        let six = with(group("2001:db8::100/64", json!({})), "aws-vipa", json!({ "elastic-ip": { ELASTIC_IP: {} } }));
        let outcome = verified(&groups(json!({ "a": six })));
        let expected =
            format!("{GROUP} a aws-vipa: the group has no IPv4 address, and only one that is on the interface");
        assert!(errors(&outcome).len() == 1 && errors(&outcome)[0].starts_with(&expected), "{:?}", errors(&outcome));
    }

    #[test]
    fn an_overlay_address_is_that_of_a_route() {
        let outcome = verified(&groups(json!({ "a": with(
            overlay(json!({ "address": ["10.99.0.100"] })),
            "excluded-address",
            json!({ "10.99.0.100/24": {}, "10.99.0.101/24": {} })
        ) })));
        assert_eq!((errors(&outcome), &outcome.warnings), (vec![], &vec![]));
        // The rules for every moved address apply to it.
        let outcome = verified(&groups(json!({ "a": overlay(json!({})), "b": overlay(json!({ "disable": {} })) })));
        assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a", "b"]));
        let mut own = group("10.98.0.1/32", json!({}));
        own["aws-vipa"]["route"]["10.98.0.1/32"] = json!({ "route-table": [TABLE] });
        let outcome = verified(&groups(json!({ "a": own })));
        assert!(errors(&outcome)[0].contains("10.98.0.1 is also configured on interface eth1"), "{outcome:?}");
    }

    #[test]
    fn what_is_in_two_groups_is_an_error_of_the_newer() {
        let table = || json!({ "route-table": [TABLE, OTHER_TABLE] });
        let elastic_ip = |private: &str| json!({ "elastic-ip": { ELASTIC_IP: { "private-address": private } } });
        for (old, new, expected) in [
            (
                json!({ "route": { "2001:DB8::/32": table() } }),
                json!({ "route": { "2001:db8::/32": { "route-table": TABLE } } }),
                " route 2001:db8::/32 route-table rtb-0123456789abcdef0: this route is already moved by group {}: delete it",
            ),
            (
                elastic_ip("10.99.0.5"),
                elastic_ip("10.99.0.6"),
                " elastic-ip eipalloc-0123456789abcdef0: this Elastic IP is already moved by group {}: delete it in one",
            ),
            (
                json!({ "elastic-ip": { ELASTIC_IP: {} } }),
                json!({ "elastic-ip": { OTHER_ELASTIC_IP: { "interface": "eth0" } } }),
                " elastic-ip eipalloc-0fedcba9: eipalloc-0123456789abcdef0 of group {} has the same private address",
            ),
            // What one assigns to an ENI, the other's route leads to another place.
            (
                json!({ "route": { "10.99.0.102/32": { "route-table": TABLE } } }),
                json!({ "address": ["10.99.0.102"] }),
                ": route 10.99.0.102/32 of group {} moves 10.99.0.102 too: delete one of the two",
            ),
            (
                json!({ "address": ["10.99.0.102"] }),
                json!({ "route": { "10.99.0.102/32": { "route-table": TABLE } } }),
                " route 10.99.0.102/32: 10.99.0.102 is already moved by group {}: delete it in one of the two",
            ),
        ] {
            for [old_name, new_name] in [["a", "b"], ["b", "a"]] {
                let of = |name: &str, nodes: &Value| {
                    let address = if name == old_name { "10.99.0.100/24" } else { "10.99.0.101/24" };
                    let group = group(address, nodes.clone());
                    let is_chosen = nodes["address"] == json!(["10.99.0.102"]);
                    if is_chosen { with(group, "excluded-address", json!({ "10.99.0.102/24": {} })) } else { group }
                };
                let before = groups(json!({ old_name: of(old_name, &old) }));
                let after = |new: &Value| groups(json!({ old_name: of(old_name, &old), new_name: of(new_name, new) }));
                let outcome = verified_at(false, &after(&new), &before);
                let expected = format!("{GROUP} {new_name} aws-vipa{}", expected.replace("{}", old_name));
                let errors = errors(&outcome);
                assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{errors:?}: not {expected}");
                assert_eq!(names(&outcome), [old_name]);
                // One that is switched off may wait beside the other.
                let mut disabled = new.clone();
                disabled["disable"] = json!({});
                let outcome = verified_at(false, &after(&disabled), &before);
                assert_eq!((self::errors(&outcome), names(&outcome)), (vec![], vec!["a", "b"]));
                // At boot neither fails: the first in the order of their names is moved.
                let outcome = verified_at(true, &after(&new), &json!({}));
                assert_eq!((self::errors(&outcome), names(&outcome)), (vec![], vec!["a"]));
                assert_eq!(outcome.config.skipped.len(), 1);
            }
        }
        // The same prefix in another table, and private addresses of two ENIs.
        let outcome = verified(&groups(json!({
            "a": group("10.99.0.100/24", json!({
                "route": { "10.0.0.0/8": { "route-table": TABLE } },
                "elastic-ip": { ELASTIC_IP: {} }
            })),
            "b": group("10.99.0.101/24", json!({
                "route": { "10.0.0.0/8": { "route-table": OTHER_TABLE } },
                "elastic-ip": { OTHER_ELASTIC_IP: { "interface": "eth1" } }
            }))
        })));
        assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a", "b"]));
    }

    #[test]
    fn a_router_moves_200_routes_and_200_elastic_ips_at_most() {
        let tables = |count: usize| (0..count).map(|n| format!("rtb-{n:08x}")).collect::<Vec<_>>();
        let routes = |prefix: &str, count: usize| json!({ "route": { prefix: { "route-table": tables(count) } } });
        let elastic_ips = |from: usize, count: usize| {
            let of = |n: usize| {
                let private = json!({ "private-address": format!("10.99.{}.{}", n / 250, n % 250 + 1) });
                (format!("eipalloc-{n:08x}"), private)
            };
            json!({ "elastic-ip": (from..from + count).map(of).collect::<serde_json::Map<_, _>>() })
        };
        for (node, what, fits, one, alone) in [
            ("route", "routes", routes("10.0.0.0/8", 200), routes("9.0.0.0/8", 1), routes("9.0.0.0/8", 201)),
            ("elastic-ip", "Elastic IPs", elastic_ips(0, 200), elastic_ips(200, 1), elastic_ips(0, 201)),
        ] {
            let full = group("10.99.0.100/24", fits);
            let plain = || group("10.99.0.102/24", json!({}));
            let before = groups(json!({ "b": full, "c": plain() }));
            assert_eq!((errors(&verified(&before)), names(&verified(&before))), (vec![], vec!["b", "c"]));
            let expected = |name: &str| {
                format!(
                    "{GROUP} {name} aws-vipa {node}: this router would move 201 {what}, and at most 200 are supported"
                )
            };
            let mut after = before.clone();
            after["vrrp"]["group"]["a"] = group("10.99.0.101/24", one.clone());
            let outcome = verified_at(false, &after, &before);
            assert_eq!((errors(&outcome), names(&outcome)), (vec![expected("a")], vec!["b", "c"]));
            let outcome = verified(&groups(json!({ "a": group("10.99.0.101/24", alone) })));
            assert_eq!(errors(&outcome), [expected("a")]);
            after["vrrp"]["group"]["a"]["aws-vipa"]["disable"] = json!({});
            let outcome = verified_at(false, &after, &before);
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a", "b", "c"]));
        }
    }

    #[test]
    fn an_overlay_address_without_a_route_is_warned_of() {
        let table = || json!({ "route-table": [TABLE] });
        let plain = |nodes: Value| group("10.255.0.1/32", nodes);
        let needs_a_route = "10.255.0.1 is not in a subnet of eth0: EC2 moves addresses only within their subnet, and an \
                             overlay address needs aws-vipa route 10.255.0.1/32";
        let no_route =
            "10.255.0.1 is not in a subnet of eth0, and no route leads to it: set aws-vipa route 10.255.0.1/32";
        for (group, expected) in [
            (overlay(json!({})), None),
            (overlay(json!({ "no-address": {} })), None),
            (plain(json!({})), Some(needs_a_route)),
            // It would be assigned all the same.
            (plain(json!({ "route": { "10.255.0.0/24": table() } })), Some(needs_a_route)),
            (plain(json!({ "elastic-ip": { ELASTIC_IP: {} } })), Some(needs_a_route)),
            (plain(json!({ "no-address": {}, "elastic-ip": { ELASTIC_IP: {} } })), Some(no_route)),
            (plain(json!({ "no-address": {}, "route": { "2001:db8::/32": table() } })), Some(no_route)),
            (plain(json!({ "no-address": {}, "route": { "10.255.0.0/24": table() } })), None),
            (plain(json!({ "no-address": {}, "route": { "0.0.0.0/0": table() } })), None),
            (group("10.99.0.100/24", json!({ "no-address": {}, "elastic-ip": { ELASTIC_IP: {} } })), None),
            (with(plain(json!({})), "interface", json!("eth2")), None),
        ] {
            let outcome = verified(&groups(json!({ "a": group })));
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a"]));
            let expected: Vec<String> = expected.iter().map(|text| format!("{GROUP} a: {text}")).collect();
            assert_eq!(outcome.warnings, expected, "{group}");
        }
    }

    #[test]
    fn what_ec2_would_refuse_is_warned_of() {
        let route = |prefix: &str, interface: Option<&str>| {
            let mut nodes = json!({ "route-table": [TABLE] });
            if let Some(interface) = interface {
                nodes["interface"] = json!(interface);
            }
            group("10.99.0.100/24", json!({ "no-address": {}, "route": { prefix: nodes } }))
        };
        let elastic_ip = |nodes: Value| group("10.99.0.100/24", json!({ "elastic-ip": { ELASTIC_IP: nodes } }));
        let in_subnet = |prefix: &str, subnet: &str| {
            format!(
                "{GROUP} a: route {prefix} is in subnet {subnet}: EC2 accepts no route for a part of a subnet. Choose an \
                 overlay address outside the VPC's ranges"
            )
        };
        let elsewhere = |address: &str, interface: &str| {
            format!(
                "{GROUP} a: elastic-ip {ELASTIC_IP}: private-address {address} is not in a subnet of {interface}: correct \
                 private-address, or set elastic-ip interface"
            )
        };
        for (group, expected) in [
            (route("10.99.0.100/32", None), Some(in_subnet("10.99.0.100/32", "10.99.0.0/24"))),
            (route("10.98.0.128/25", Some("eth1")), Some(in_subnet("10.98.0.128/25", "10.98.0.0/24"))),
            // A whole subnet, and what is no part of that interface's.
            (route("10.99.0.0/24", None), None),
            (route("10.98.0.128/25", None), None),
            (route("10.98.0.0/15", Some("eth1")), None),
            (route("10.99.0.0/25", Some("eth2")), None),
            (route("2001:db8::/32", None), None),
            (elastic_ip(json!({ "private-address": "10.98.0.5" })), Some(elsewhere("10.98.0.5", "eth0"))),
            (
                elastic_ip(json!({ "private-address": "10.99.0.5", "interface": "eth1" })),
                Some(elsewhere("10.99.0.5", "eth1")),
            ),
            (elastic_ip(json!({ "private-address": "10.98.0.5", "interface": "eth1" })), None),
            (elastic_ip(json!({ "private-address": "10.99.0.5", "interface": "eth2" })), None),
            (elastic_ip(json!({ "private-address": "10.99.0.5" })), None),
        ] {
            let outcome = verified(&groups(json!({ "a": group })));
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a"]));
            assert_eq!(outcome.warnings, expected.into_iter().collect::<Vec<_>>(), "{group}");
        }
    }

    /// An upgrade, an interface that is gone: only what this commit changes is held to the rules.
    #[test]
    fn faults_of_routes_and_elastic_ips_leave_out_their_group_alone() {
        let table = || json!({ "route-table": [TABLE] });
        let tree = groups(json!({
            "a": group("10.99.0.100/24", json!({ "route": { "10.0.0.0/8": table() } })),
            "b": group("10.99.0.101/24", json!({ "route": { "10.0.0.0/8": table() } })),
            "c": group("10.99.0.102/24", json!({ "route": { "10.0.0.1/8": table(), "9.0.0.0/8": { "interface": "eth7" } } })),
            "d": group("10.99.0.103/24", json!({ "elastic-ip": { ELASTIC_IP: { "interface": "eth7" } } })),
            "e": group("10.99.0.104/24", json!({ "no-address": {} }))
        }));
        let mut later = tree.clone();
        later["vrrp"]["group"]["new"] = group("10.99.0.105/24", json!({ "elastic-ip": { ELASTIC_IP: {} } }));
        for (outcome, expected) in
            [(verified_at(true, &tree, &json!({})), vec!["a"]), (verified_at(false, &later, &tree), vec!["a", "new"])]
        {
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], expected));
            let skipped: Vec<(&str, usize)> =
                outcome.config.skipped.iter().map(|l| (l.name.as_str(), l.errors.len())).collect();
            assert_eq!(skipped, [("b", 1), ("c", 3), ("d", 1), ("e", 1)]);
            assert_eq!(outcome.warnings.len(), 6, "{:?}", outcome.warnings);
            assert!(outcome.warnings.iter().all(|w| w.ends_with(": group skipped")), "{:?}", outcome.warnings);
        }
        let mut changed = tree.clone();
        changed["vrrp"]["group"]["c"]["aws-vipa"]["route"]["9.0.0.0/8"]["route-table"] = json!(TABLE);
        let outcome = verified_at(false, &changed, &tree);
        assert_eq!(errors(&outcome).len(), 2, "{:?}", errors(&outcome));
        assert!(errors(&outcome).iter().all(|e| e.starts_with(&format!("{GROUP} c aws-vipa route "))), "{outcome:?}");
    }

    #[test]
    fn nothing_set_is_nothing_to_do() {
        for proposed in [json!({}), groups(json!({})), global(json!({}))] {
            let outcome = verified(&proposed);
            assert_eq!((errors(&outcome), &outcome.warnings), (vec![], &vec![]), "{proposed}");
            assert!(outcome.config.is_empty() && outcome.config.global == Global::default(), "{proposed}");
        }
    }

    #[test]
    fn each_fault_of_a_group_is_reported_with_its_node() {
        let aws = |nodes| group("10.99.0.100/24", nodes);
        for (name, group, expected) in [
            ("a", aws(json!({ "address": ["10.99.0.101"] })), "a aws-vipa address 10.99.0.101: the group has no such"),
            ("a", aws(json!({ "address": "10.99.0.101" })), "a aws-vipa address 10.99.0.101: the group has no such"),
            (
                "a",
                aws(json!({ "address": ["2001:db8::9"] })),
                "a aws-vipa address 2001:db8::9: \"2001:db8::9\" is not an IPv4",
            ),
            ("a", aws(json!({ "address": ["10.99.0.100/24"] })), "without a prefix length"),
            ("a", aws(json!({ "interface": "eth7" })), "a aws-vipa interface: interface eth7 does not exist"),
            ("a", aws(json!({ "interface": "eth0/../x" })), "a aws-vipa interface: \"eth0/../x\" is not the name of"),
            ("a", aws(json!({ "network-interface-id": "eni-1" })), "a aws-vipa network-interface-id: \"eni-1\" is not"),
            ("a", aws(json!({ "adress": {} })), "a aws-vipa adress: node not supported by this version"),
            ("a", group("2001:db8::100/64", json!({})), "a aws-vipa: the group has no IPv4 address"),
            ("a", with(aws(json!({})), "address", Value::Null), "a aws-vipa: the group has no IPv4 address"),
            ("a", group("10.98.0.1/24", json!({})), "a aws-vipa: 10.98.0.1 is also configured on interface eth1"),
            (
                "a",
                with(aws(json!({})), "excluded-address", json!({ "10.99.0.1/32": {} })),
                "a aws-vipa: 10.99.0.1 is also configured on interface eth0",
            ),
        ] {
            let outcome = verified(&groups(json!({ name: group })));
            let errors = errors(&outcome);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with(GROUP) && errors[0].contains(expected), "{}: not {expected}", errors[0]);
            assert!(outcome.config.groups.is_empty(), "{expected}");
        }
    }

    #[test]
    fn names_that_keepalived_cannot_carry_are_reported() {
        for name in ["a b", "a\tb", "a\nb", "a#b", "a!", "a{b", "a}b", "a\u{a0}b", "a\u{1b}[1m", "a'b", "a\"b"] {
            let outcome = verified(&groups(json!({ name: group("10.99.0.100/24", json!({})) })));
            let errors = errors(&outcome);
            assert_eq!(errors.len(), 1, "{name:?}: {errors:?}");
            let expected = format!("{GROUP} {} aws-vipa: ", name.escape_debug());
            assert!(errors[0].starts_with(&expected) && errors[0].ends_with("rename the group"), "{}", errors[0]);
            assert!(!errors[0].chars().any(char::is_control), "{:?} reaches a terminal", errors[0]);
        }
        for name in ["odd$(n)ame", "a;b", "a\\b", "a`b`", "a@~b", "ü", "-rf", "../../a"] {
            let outcome = verified(&groups(json!({ name: group("10.99.0.100/24", json!({})) })));
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec![name]));
        }
    }

    #[test]
    fn each_fault_of_the_settings_is_reported_with_its_node() {
        for (nodes, expected) in [
            (json!({ "region": "EU" }), "region: \"EU\" is not the name of an AWS region"),
            (json!({ "endpoint-url": "ec2.example" }), "endpoint-url: \"ec2.example\" must begin with https://"),
            (json!({ "endpoint-url": "https://" }), "endpoint-url: \"https://\" has no host"),
            (json!({ "endpoint-url": "https://key:secret@ec2" }), "must be only host[:port] after the scheme"),
            (json!({ "endpoint-url": "https://ec2/?key=secret" }), "must be only host[:port] after the scheme"),
            (
                json!({ "credentials-file": "aws/credentials" }),
                "credentials-file: \"aws/credentials\" is not an absolute",
            ),
            (
                json!({ "ca-certificate-file": "/config/a\nb" }),
                "ca-certificate-file: \"/config/a\\nb\" contains a control",
            ),
            (
                json!({ "credentials-file": "/config/../etc/shadow" }),
                "credentials-file: \"/config/../etc/shadow\" contains an empty",
            ),
            (json!({ "credentials-file": "/config/" }), "credentials-file: \"/config/\" contains an empty"),
            (json!({ "credentials-file": "/config/a\\" }), "credentials-file: \"/config/a\\\\\" contains a backslash"),
            (
                json!({ "credentials-file": "/config/a " }),
                "credentials-file: \"/config/a \" contains a backslash, or ends",
            ),
            (json!({ "credentials-file": format!("/{}", "é".repeat(128)) }), "\" is too long"),
            (json!({ "credentials-file": "/tmp/keys" }), "credentials-file: \"/tmp/keys\" is below /tmp or /var/tmp"),
            (json!({ "credentials-file": "/var/tmp/a/keys" }), "credentials-file: \"/var/tmp/a/keys\" is below /tmp"),
            (json!({ "ca-certificate-file": "/tmp/ca.pem" }), "ca-certificate-file: \"/tmp/ca.pem\" is below /tmp"),
            (json!({ "profile": "router" }), "profile: requires a credentials file: set credentials-file too"),
            (
                json!({ "profile": "a]b", "credentials-file": "/config/aws/credentials" }),
                "profile: \"a]b\" is not a valid profile name",
            ),
            (json!({ "verify-interval": "4" }), "verify-interval: \"4\" is not a number of seconds from 5 to 300"),
            (
                json!({ "verify-interval": "70000" }),
                "verify-interval: \"70000\" is not a number of seconds from 5 to 300",
            ),
            (json!({ "request-timeout": "31" }), "request-timeout: \"31\" is not a number of seconds from 1 to 30"),
            (json!({ "request-timeout": "-1" }), "request-timeout: \"-1\" is not a number of seconds from 1 to 30"),
            (json!({ "secret-key": "x" }), "secret-key: node not supported by this version of vyos-aws-vipa"),
        ] {
            let outcome = verified(&global(nodes));
            let errors = errors(&outcome);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with(&format!("{GLOBAL} ")) && errors[0].contains(expected), "{}", errors[0]);
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let outcome = verified(&groups(json!({
            "a": group("10.99.0.100/24", json!({ "address": ["10.99.0.9"], "interface": "eth7" })),
            "b c": group("2001:db8::1/64", json!({ "network-interface-id": "eni-1" }))
        })));
        assert_eq!(errors(&outcome).len(), 5, "{:?}", errors(&outcome));
    }

    #[test]
    fn of_two_groups_with_one_address_the_newer_has_the_error() {
        let both = |first: Value, second: Value| groups(json!({ "a": first, "b": second }));
        let on = || group("10.99.0.100/24", json!({}));
        let off = || with(on(), "aws-vipa", Value::Null);
        let outcome = verified_at(false, &both(on(), on()), &both(off(), on()));
        assert_eq!(
            errors(&outcome),
            [format!("{GROUP} a aws-vipa: 10.99.0.100 is already moved by group b: delete it in one of the two")]
        );
        let outcome = verified_at(false, &both(on(), on()), &both(on(), off()));
        assert!(errors(&outcome)[0].starts_with(&format!("{GROUP} b aws-vipa: ")), "{:?}", errors(&outcome));
        // A disabled group may have the same address, and so may a group that claims only another address.
        let disabled = group("10.99.0.100/24", json!({ "disable": {} }));
        let other = with(
            group("10.99.0.100/24", json!({ "address": ["10.99.0.101"] })),
            "excluded-address",
            json!({ "10.99.0.101/24": {} }),
        );
        for beside in [disabled, other] {
            let outcome = verified(&both(on(), beside));
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a", "b"]));
        }
    }

    #[test]
    fn what_saves_an_evening_is_warned_of() {
        let plain = || group("10.99.0.100/24", json!({}));
        for (group, expected) in [
            (with(plain(), "peer-address", Value::Null), "a: no peer-address"),
            (with(plain(), "hello-source-address", Value::Null), "a: no hello-source-address"),
            (with(plain(), "rfc3768-compatibility", json!({})), "a: rfc3768-compatibility: EC2 drops frames"),
            (with(plain(), "disable", json!({})), "a: the group is disabled in VRRP"),
            (with(plain(), "interface", json!("eth1")), "a: 10.99.0.100 is not in a subnet of eth1"),
            (
                with(plain(), "address", json!({ "10.99.0.100/24": { "interface": "eth1" } })),
                "a: 10.99.0.100 is not in a subnet of eth1",
            ),
            (
                with(plain(), "excluded-address", json!({ "10.97.0.1/24": {} })),
                "a: 10.97.0.1 is not in a subnet of eth0",
            ),
            (group("10.99.0.100/24", json!({ "interface": "eth1" })), "a: 10.99.0.100 is not in a subnet of eth1"),
        ] {
            let outcome = verified(&groups(json!({ "a": group })));
            assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["a"]));
            assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
            assert!(outcome.warnings[0].starts_with(&format!("{GROUP} {expected}")), "{}", outcome.warnings[0]);
        }
        // eth5 has its address from DHCP, and a virtual one from keepalived.
        let dhcp = |address: &str| with(group(address, json!({})), "interface", json!("eth5"));
        let outcome = verified(&groups(json!({ "a": dhcp("10.99.0.100/24"), "b": dhcp("10.97.0.100/24") })));
        assert_eq!(
            outcome.warnings,
            [format!(
                "{GROUP} a: 10.99.0.100 is not in a subnet of eth5: EC2 moves addresses only within their subnet, and an \
                 overlay address needs aws-vipa route 10.99.0.100/32"
            )]
        );
        // The address is not claimed, or the addresses of its interface are unknown.
        for group in [
            with(
                group("10.99.0.100/24", json!({ "address": ["10.99.0.100"] })),
                "excluded-address",
                json!({ "10.1.0.1": {} }),
            ),
            with(plain(), "interface", json!("eth2")),
            with(plain(), "interface", json!("eth8")),
        ] {
            assert_eq!(verified(&groups(json!({ "a": group }))).warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn an_address_of_the_router_itself_is_warned_of_where_it_is_not_moved() {
        let with_own = |nodes| with(group("10.99.0.100/24", nodes), "excluded-address", json!({ "10.98.0.1/32": {} }));
        let part = with_own(json!({ "address": ["10.99.0.100"] }));
        let outcome = verified(&groups(json!({ "a": part })));
        assert_eq!((errors(&outcome), names(&outcome), outcome.warnings.len()), (vec![], vec!["a"], 1));
        let expected =
            format!("{GROUP} a: 10.98.0.1 is also configured on interface eth1; keepalived removes it from there");
        assert!(outcome.warnings[0].starts_with(&expected), "{:?}", outcome.warnings);
        // keepalived does not run it.
        let outcome = verified(&groups(json!({ "a": with(part, "disable", json!({})) })));
        assert!(matches!(&outcome.warnings[..], [one] if one.contains("is disabled in VRRP")), "{outcome:?}");
    }

    #[test]
    fn an_endpoint_that_is_not_encrypted_is_warned_of() {
        for (url, expected) in [("http://ec2.example", 1), ("https://ec2.example", 0), ("http://[::1]:8080", 0)] {
            let outcome = verified(&global(json!({ "endpoint-url": url })));
            assert_eq!((errors(&outcome), outcome.warnings.len()), (vec![], expected), "{url}: {:?}", outcome.warnings);
            let start = format!("{GLOBAL} endpoint-url: {url} is not encrypted: the session token");
            assert!(outcome.warnings.iter().all(|warning| warning.starts_with(&start)), "{:?}", outcome.warnings);
        }
    }

    #[test]
    fn files_that_do_not_last_or_are_open_to_all_are_warned_of() {
        let warnings = |nodes| verified(&global(nodes)).warnings;
        for (file, expected) in [
            ("/root/.aws/credentials", "does not survive an image upgrade: keep it below /config/"),
            ("/configuration/credentials", "does not survive an image upgrade"),
            ("/tmpfiles/credentials", "does not survive an image upgrade"),
            ("/config/aws/open", "is readable by other users: run chmod 600 /config/aws/open"),
            ("/config/aws/missing", "/config/aws/missing does not exist"),
        ] {
            let found = warnings(json!({ "credentials-file": file }));
            assert!(found[0].starts_with(&format!("{GLOBAL} credentials-file: {file}")), "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
        assert_eq!(warnings(json!({ "credentials-file": "/config/aws/credentials" })), Vec::<String>::new());
        // A certificate is not secret.
        assert_eq!(warnings(json!({ "ca-certificate-file": "/config/aws/open-ca.pem" })), Vec::<String>::new());
        for (file, closed) in
            [("/config/aws/own-ca.pem", "/config/aws/own-ca.pem"), ("/config/closed/ca.pem", "/config/closed")]
        {
            let found = warnings(json!({ "ca-certificate-file": file }));
            let expected =
                format!("{GLOBAL} ca-certificate-file: the mode of {closed} keeps the agent, which is not root");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
        }
    }

    /// Mounts are not part of the configuration, and may be different at the next boot, so they fail no commit.
    #[test]
    fn a_file_on_a_mount_that_may_hang_is_warned_of() {
        for name in ["credentials-file", "ca-certificate-file"] {
            let outcome = verified(&global(json!({ name: "/mnt/nas/keys" })));
            assert_eq!(errors(&outcome), Vec::<String>::new());
            let expected = format!(
                "{GLOBAL} {name}: /mnt/nas/keys is not read: the path is on mount /mnt/nas of type nfs4, which may hang: copy the file to /config/auth, and configure that path"
            );
            assert!(outcome.warnings.contains(&expected), "{:?}", outcome.warnings);
        }
    }

    #[test]
    fn what_once_committed_always_loads() {
        let tree = json!({ "vrrp": {
            "global-parameters": { "aws-vipa": { "region": "EU", "verify-interval": "60" } },
            "group": {
                "good": group("10.99.0.100/24", json!({})),
                "bad name": group("10.99.0.101/24", json!({})),
                "gone": group("10.99.0.102/24", json!({ "address": ["10.99.0.200"], "interface": "eth7" }))
            }
        }});
        let later = {
            let mut later = tree.clone();
            later["vrrp"]["group"]["new"] = group("10.99.0.103/24", json!({}));
            later
        };
        for outcome in [verified_at(true, &tree, &json!({})), verified_at(false, &later, &tree)] {
            assert_eq!(errors(&outcome), Vec::<String>::new());
            assert!(names(&outcome).contains(&"good"), "{outcome:?}");
            let skipped: Vec<(&str, usize)> =
                outcome.config.skipped.iter().map(|l| (l.name.as_str(), l.errors.len())).collect();
            assert_eq!(skipped, [("bad name", 1), ("gone", 2)]);
            assert_eq!(outcome.config.global.region, None);
            assert_eq!(outcome.config.global.verify_interval, VerifyInterval::try_from(60).expect("an interval"));
            assert_eq!(outcome.warnings.len(), 4, "{:?}", outcome.warnings);
            assert!(outcome.warnings[0].ends_with(": node ignored"), "{:?}", outcome.warnings);
            assert!(outcome.warnings[1..].iter().all(|w| w.ends_with(": group skipped")), "{:?}", outcome.warnings);
        }
        // Errors in groups and settings that this commit changes fail it.
        let mut changed = tree.clone();
        changed["vrrp"]["group"]["gone"]["aws-vipa"]["disable"] = json!({});
        changed["vrrp"]["global-parameters"]["aws-vipa"]["verify-interval"] = json!("30");
        let outcome = verified_at(false, &changed, &tree);
        assert_eq!(errors(&outcome).len(), 3, "{:?}", errors(&outcome));
        assert!(!errors(&outcome).iter().any(|f| f.contains("bad name")), "{:?}", errors(&outcome));
    }

    #[test]
    fn a_group_whose_address_goes_is_left_out_until_it_is_put_right() {
        let before = groups(json!({ "a": group("10.99.0.100/24", json!({ "address": ["10.99.0.100"] })) }));
        let after = groups(json!({
            "a": group("10.99.0.101/24", json!({ "address": ["10.99.0.100"] })),
            "b": group("10.99.0.100/24", json!({}))
        }));
        let outcome = verified_at(false, &after, &before);
        assert_eq!((errors(&outcome), names(&outcome)), (vec![], vec!["b"]));
        assert_eq!(outcome.config.skipped.len(), 1, "{outcome:?}");
    }

    /// The calls of a commit: the arguments that VyOS passes, and the path of the node.
    fn calls(vrids: [&'static str; 2], proposed: &Value, effective: &Value) -> Vec<(Vec<&'static str>, String)> {
        let settings = "/vrrp/global-parameters/aws-vipa";
        let is_changed = |path: &str| proposed.pointer(path) != effective.pointer(path);
        let mut calls = Vec::new();
        for (name, vrid) in ["a", "b"].into_iter().zip(vrids) {
            if is_changed(&format!("/vrrp/group/{name}/aws-vipa")) {
                let is_there = proposed.pointer(&format!("/vrrp/group/{name}")).is_some();
                let words = if is_there { vec!["group", vrid] } else { vec!["group"] };
                calls.push((words, format!("/vrrp/group/{name}/aws-vipa")));
            }
        }
        calls.extend(is_changed(settings).then(|| (vec!["global-parameters"], settings.to_owned())));
        calls
    }

    /// Every change of two groups with the same two addresses, of which each may be claimed by only one group.
    #[test]
    fn every_call_of_a_commit_comes_to_the_same_and_fails_for_its_own_node_alone() {
        assert_every_call_comes_to_the_same(["1", "2"], &of_addresses());
    }

    /// The same with what the groups move beside addresses.
    #[test]
    fn every_call_of_a_commit_comes_to_the_same_with_routes_and_elastic_ips() {
        let route = || json!({ "10.0.0.0/8": { "route-table": TABLE } });
        let choices = [
            json!({ "address": ["10.99.0.100"], "route": route() }),
            json!({ "address": ["10.99.0.101"], "route": route() }),
            json!({ "address": ["10.99.0.101"], "elastic-ip": { ELASTIC_IP: {} } }),
            json!({ "no-address": {}, "route": { "10.99.0.100/32": {} } }),
        ];
        assert_every_call_comes_to_the_same(["1", "2"], &choices);
    }

    /// On separate interfaces, where a call does not show which of the two groups it is for.
    #[test]
    fn every_call_of_a_commit_comes_to_the_same_where_groups_share_a_vrid() {
        assert_every_call_comes_to_the_same(["1", "1"], &of_addresses());
    }

    /// What a group of two addresses may have below `aws-vipa`.
    fn of_addresses() -> [Value; 4] {
        [
            json!({}),
            json!({ "address": ["10.99.0.100"] }),
            json!({ "address": ["10.99.0.101"] }),
            json!({ "address": ["10.99.0.100"], "interface": "eth7" }),
        ]
    }

    fn assert_every_call_comes_to_the_same(vrids: [&'static str; 2], choices: &[Value]) {
        let ours: Vec<Option<&Value>> = [None].into_iter().chain(choices.iter().map(Some)).collect();
        let tree = |settings: Value, given: [Option<Option<&Value>>; 2]| {
            let mut tree = json!({ "vrrp": { "global-parameters": { "aws-vipa": settings }, "group": {} } });
            for ((name, vrid), group) in ["a", "b"].into_iter().zip(vrids).zip(given) {
                let Some(ours) = group else { continue };
                let both = with(self::group("10.99.0.100/24", json!({})), "vrid", json!(vrid));
                let both = with(both, "excluded-address", json!({ "10.99.0.101/24": {} }));
                tree["vrrp"]["group"][name] = with(both, "aws-vipa", ours.cloned().unwrap_or_default());
            }
            tree
        };
        // Without the group, with the group but without `aws-vipa`, and with each of these.
        let groups: Vec<Option<Option<&Value>>> = [None].into_iter().chain(ours.into_iter().map(Some)).collect();
        let pairs = || groups.iter().flat_map(|a| groups.iter().map(|b| [*a, *b]));
        let mut refusals = 0;
        for (before, after) in pairs().flat_map(|before| pairs().map(move |after| (before, after))) {
            for settings in [json!({}), json!({ "profile": "router" })] {
                let (effective, proposed) = (tree(json!({}), before), tree(settings, after));
                let mut kept = proposed.clone();
                let outcomes: Vec<(String, Verification)> = calls(vrids, &proposed, &effective)
                    .into_iter()
                    .map(|(words, path)| (path, called_for(&words, false, &proposed, &effective)))
                    .collect();
                for (path, outcome) in &outcomes {
                    let node = format!("high-availability{}", path.replace('/', " "));
                    if vrids[0] != vrids[1] {
                        let is_own = |error: &ConfigError| error.path.starts_with(&node);
                        assert!(outcome.errors.iter().all(is_own), "{node}: {:?}", outcome.errors);
                        assert!(outcome.errors.is_empty() || proposed.pointer(path).is_some(), "{node} is deleted");
                    }
                    assert_eq!(outcome.config, outcomes[0].1.config, "{effective} {proposed}");
                    if outcome.errors.is_empty() {
                        continue;
                    }
                    refusals += 1;
                    let (parent, name) = path.rsplit_once('/').expect("a path");
                    let parent = kept.pointer_mut(parent).and_then(Value::as_object_mut).expect("a node");
                    parent.remove(name);
                    parent.extend(effective.pointer(path).map(|ours| (name.to_owned(), ours.clone())));
                }
                // VyOS keeps the effective value of a refused node, as if the commit had not changed it.
                if let Some((_, outcome)) = outcomes.first() {
                    let without = verified_at(false, &kept, &effective);
                    assert_eq!((&without.config, without.errors), (&outcome.config, vec![]), "{effective} {proposed}");
                }
                // A call that may be for any node fails for all errors.
                let of_all: BTreeSet<String> = outcomes.iter().flat_map(|(_, outcome)| errors(outcome)).collect();
                let unknown = verified_at(false, &proposed, &effective);
                assert_eq!(of_all, errors(&unknown).into_iter().collect(), "{effective} {proposed}");
                assert_eq!(unknown.later, Vec::<String>::new());
            }
        }
        assert!(refusals > 1000, "{refusals}");
    }

    #[test]
    fn each_warning_is_for_one_call_of_a_commit() {
        let multicast = |vrid: &str| {
            with(with(group("10.99.0.100/24", json!({})), "peer-address", Value::Null), "vrid", json!(vrid))
        };
        let effective = groups(json!({ "c": with(multicast("3"), "aws-vipa", json!({ "disable": {} })) }));
        let mut proposed = effective.clone();
        proposed["vrrp"]["group"]["a"] = with(multicast("1"), "address", json!({ "10.99.0.101/24": {} }));
        proposed["vrrp"]["group"]["b"] = with(multicast("2"), "address", json!({ "10.99.0.102/24": {} }));
        proposed["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "credentials-file": "/config/aws/missing" });
        let start = |warning: &String| warning.split(": ").next().expect("a path").to_owned();
        for boot in [false, true] {
            for (words, own) in [
                (&["group", "1"][..], format!("{GROUP} a")),
                (&["group", "2"], format!("{GROUP} b")),
                (&["global-parameters"], format!("{GLOBAL} credentials-file")),
            ] {
                let outcome = called_for(words, boot, &proposed, &effective);
                // No call is for a node that this commit does not change: the first call prints its warnings.
                assert_eq!(
                    outcome.warnings.iter().map(start).collect::<BTreeSet<_>>(),
                    BTreeSet::from([own, format!("{GROUP} c")])
                );
                assert_eq!(outcome.later.len(), 2, "{:?}", outcome.later);
            }
        }
        let outcome = verified_at(false, &proposed, &effective);
        assert_eq!((outcome.warnings.len(), outcome.later.len()), (4, 0));
    }
}
