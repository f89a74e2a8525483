//! Reader of keepalived.conf, as VyOS renders it (vyos-1x data/templates/high-availability/keepalived.conf.j2) and as
//! keepalived reads it: the groups, with their interfaces and addresses.
//!
//! keepalived continues after statements that it does not understand (`process_stream` in lib/parser.c): a block opens
//! only after a keyword that takes one, any other `{` is ignored, and so is a `}` outside of every block. This reader
//! does the same, so that an odd name or password has the same effect here as there. A group that cannot be read
//! reliably is skipped.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::groups::{AdvertiseInterval, Groups, RunningGroup, VirtualAddress};
use super::statements::{Statement, statements};
use crate::model::ids::{GroupName, InterfaceName};
use crate::printable;

/// keepalived's own default (VRRP_PRIO_DFL in vrrp.h).
const DEFAULT_PRIORITY: u8 = 100;

/// The longest part of a name that is shown, in characters.
const MAX_SHOWN_NAME_LENGTH: usize = 64;

/// keepalived.conf does not show which groups there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// The file is incomplete, because VyOS is writing it in place.
    #[error("incomplete: it is empty, or ends inside a block")]
    Incomplete,
    /// VyOS never writes a zero byte.
    #[error("line {0}: zero byte: not written by VyOS")]
    Zero(usize),
}

/// The content of keepalived.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The groups that are read reliably, in the order of their names.
    pub groups: Groups,
    /// The groups that are not, each with the reason.
    pub skipped: Vec<SkippedInstance>,
    /// Whether keepalived ignores the end of the file.
    pub is_cut_short: bool,
}

/// A `vrrp_instance` that is left out of groups.json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedInstance {
    /// The line that it begins at, from 1.
    pub line: usize,
    /// The name as written.
    pub name: String,
    /// What is wrong with it.
    pub why: SkipReason,
}

/// What is wrong with a `vrrp_instance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// keepalived reads another name than the one that is written.
    Name(&'static str),
    /// Another one, which begins at this line, has the same name.
    SameName(usize),
    /// A statement of it is missing or invalid.
    Missing(&'static str),
    /// keepalived adds the statements of another one, which begins at this line, to it.
    Mixed(usize),
    /// keepalived ignores everything from here to the end of the file.
    ToTheEnd,
}

impl fmt::Display for SkippedInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, name, why } = self;
        write!(f, "line {line}: vrrp_instance {name} skipped: ")?;
        match why {
            SkipReason::Name(reason) => write!(f, "{reason}: rename the group"),
            SkipReason::SameName(other) => {
                write!(f, "keepalived reads the same name at line {other}: rename one of the two groups")
            }
            SkipReason::Missing(what) => write!(f, "{what} is missing or invalid"),
            SkipReason::Mixed(other) => {
                write!(f, "keepalived adds the group at line {other} to it: rename that group")
            }
            SkipReason::ToTheEnd => f.write_str("keepalived ignores it and everything after it: rename the group"),
        }
    }
}

/// Reads the text of keepalived.conf. Keywords that do not concern addresses are ignored.
///
/// # Errors
/// [`ConfError`].
pub fn parse(text: &[u8]) -> Result<Reading, ConfError> {
    if let Some(zero) = text.iter().position(|b| *b == 0) {
        return Err(ConfError::Zero(text[..zero].iter().filter(|b| **b == b'\n').count() + 1));
    }
    let statements = statements(text);
    if statements.is_empty() {
        return Err(ConfError::Incomplete);
    }
    let mut parser = Parser { lines: text.split(|b| *b == b'\n').collect(), ..Parser::default() };
    for (at, statement) in statements.iter().enumerate() {
        parser.step(statement, &statements[at + 1..]);
    }
    let mut is_cut_short = false;
    match parser.blocks.last() {
        None => {}
        // The file is complete, and keepalived has counted a brace that VyOS did not write as one.
        Some(Block::Skipped { line, is_instance: true, .. }) if ends_outside(text) => {
            let line = *line;
            parser.skipped.retain(|skipped| skipped.line != line);
            parser.skip(line, SkipReason::ToTheEnd);
            is_cut_short = true;
        }
        Some(_) => return Err(ConfError::Incomplete),
    }
    Ok(Reading { is_cut_short, ..parser.finish() })
}

/// Whether the last line, without blank lines, comments and `include`, is a brace in the first column: only VyOS's
/// blocks at the outermost level end like this.
fn ends_outside(text: &[u8]) -> bool {
    let says_something = |line: &&[u8]| {
        let line = line.trim_ascii();
        !(line.is_empty() || line.starts_with(b"#") || line.starts_with(b"include "))
    };
    text.split(|b| *b == b'\n').rfind(says_something).is_some_and(|line| line.trim_ascii_end() == b"}")
}

/// The keywords that take a block at the outermost level, and the keywords in these blocks that take a list: a block of
/// values, which ends at its first `}`.
const BLOCKS: [(&str, &[&str]); 9] = [
    ("global_defs", &["notification_email"]),
    ("track_group", &["group"]),
    ("vrrp_sync_group", &["group", "track_interface", "track_script", "track_file", "track_process", "track_bfd"]),
    ("garp_group", &["interfaces"]),
    ("vrrp_script", &[]),
    ("vrrp_track_process", &[]),
    ("track_file", &[]),
    ("vrrp_track_file", &[]),
    ("bfd_instance", &[]),
];

/// The keywords that take a list at the outermost level.
const LISTS: [&str; 5] =
    ["static_ipaddress", "static_routes", "static_rules", "linkbeat_interfaces", "interface_up_down_delays"];

/// The blocks that do not belong to VRRP: the VRRP process only counts the braces in them.
const NOT_VRRP: [&str; 3] = ["virtual_server", "virtual_server_group", "SSL"];

#[derive(Debug, Clone, Copy)]
enum Block {
    /// The last instance, also after a refused header, at this line, that no brace follows.
    Instance { refused: Option<usize> },
    /// Keywords that do not concern addresses; these of them take a list.
    Keywords(&'static [&'static str]),
    /// A list of values.
    List { list: List, awaits_brace: bool },
    /// Ignored up to the brace that returns the depth to 0. The depth is 0 at first, because the opening brace is still
    /// to come.
    Skipped { line: usize, depth: usize, is_instance: bool },
}

#[derive(Debug, Clone, Copy)]
enum List {
    Addresses,
    Excluded,
    Peers,
    Other,
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpVersion {
    V4,
    V6,
}

impl IpVersion {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An instance, as keepalived reads it.
#[derive(Debug)]
struct ParsedInstance {
    line: usize,
    name: String,
    /// Why it is unreliable.
    skip_reason: Option<SkipReason>,
    interface: Option<InterfaceName>,
    vrid: Option<u8>,
    priority: u8,
    advertise_interval: AdvertiseInterval,
    /// The IP version of the first address. Addresses of the other version are ignored (alloc_vrrp_vip in vrrp_data.c).
    family: Option<IpVersion>,
    peers: Vec<Ipv4Addr>,
    addresses: Vec<VirtualAddress>,
}

#[derive(Default)]
struct Parser<'a> {
    lines: Vec<&'a [u8]>,
    instances: Vec<ParsedInstance>,
    /// The open blocks, the innermost last.
    blocks: Vec<Block>,
    skipped: Vec<SkippedInstance>,
}

impl Parser<'_> {
    /// Processes a statement. The statements after it show whether a header is one that VyOS writes.
    fn step(&mut self, statement: &Statement, following: &[Statement]) {
        match self.blocks.last_mut() {
            Some(Block::Skipped { depth, .. }) if *depth > 0 => {
                for word in &statement.words {
                    match word.as_str() {
                        "{" => *depth += 1,
                        "}" => *depth -= 1,
                        _ => {}
                    }
                    if *depth == 0 {
                        self.blocks.pop();
                        return;
                    }
                }
            }
            Some(Block::Skipped { depth, .. }) if statement.opens() => *depth = 1,
            Some(block @ Block::Skipped { .. }) => {
                *block = match *block {
                    Block::Skipped { line, is_instance: true, .. } => Block::Instance { refused: Some(line) },
                    _ => Block::Keywords(&[]),
                };
                self.step(statement, following);
            }
            Some(Block::List { list, awaits_brace }) => {
                let (list, is_begin) = (*list, std::mem::take(awaits_brace) && statement.opens());
                let words = statement.words.get(usize::from(is_begin)..).unwrap_or_default();
                let is_end = words.last().is_some_and(|word| word == "}");
                let words = &words[..words.len() - usize::from(is_end)];
                if let (Some(instance), [first, options @ ..]) = (self.instances.last_mut(), words) {
                    instance.take(list, first, options);
                }
                if is_end {
                    self.blocks.pop();
                }
            }
            // The brace of the block that has just begun, or one without a keyword that takes it.
            _ if statement.opens() => {}
            // At the outermost level there is no block to close.
            _ if statement.closes() => _ = self.blocks.pop(),
            Some(Block::Instance { refused }) => {
                let refused = *refused;
                self.in_instance(refused, &statement.words);
            }
            Some(Block::Keywords(lists)) => {
                if lists.contains(&statement.words[0].as_str()) {
                    self.open_list(List::Other);
                }
            }
            None => self.outermost(statement, following),
        }
    }

    fn open_list(&mut self, list: List) {
        self.blocks.push(Block::List { list, awaits_brace: true });
    }

    fn outermost(&mut self, statement: &Statement, following: &[Statement]) {
        let keyword = statement.words[0].as_str();
        if keyword == "vrrp_instance" {
            self.instance(statement, following);
        } else if LISTS.contains(&keyword) {
            self.open_list(List::Other);
        } else if NOT_VRRP.contains(&keyword) {
            self.blocks.push(Block::Skipped { line: statement.line, depth: 0, is_instance: false });
        } else if let Some((_, lists)) = BLOCKS.iter().find(|(block, _)| *block == keyword) {
            self.blocks.push(Block::Keywords(lists));
        }
    }

    /// The header of an instance.
    fn instance(&mut self, statement: &Statement, following: &[Statement]) {
        let line = statement.line;
        let skip_reason = self.is_as_written(statement, following).err();
        let [_, name] = statement.words.as_slice() else {
            // keepalived requires exactly one name.
            self.skip(line, skip_reason.unwrap_or(SkipReason::Name("it has no name")));
            return self.blocks.push(Block::Skipped { line, depth: 0, is_instance: true });
        };
        if let Some(first) = self.instances.iter_mut().find(|instance| instance.name == *name) {
            let other = first.line;
            if skip_reason.is_none() && first.skip_reason.is_none() {
                first.skip_reason = Some(SkipReason::SameName(line));
            }
            // keepalived keeps only the first one.
            self.skip(line, skip_reason.unwrap_or(SkipReason::SameName(other)));
            return self.blocks.push(Block::Skipped { line, depth: 0, is_instance: true });
        }
        self.instances.push(ParsedInstance {
            line,
            name: name.clone(),
            skip_reason,
            interface: None,
            vrid: None,
            priority: DEFAULT_PRIORITY,
            advertise_interval: AdvertiseInterval::default(),
            family: None,
            peers: Vec::new(),
            addresses: Vec::new(),
        });
        self.blocks.push(Block::Instance { refused: None });
    }

    /// Whether keepalived reads the name of an instance as it is written: the header is alone on its line, with one
    /// name and one brace, which may be on the next line.
    fn is_as_written(&self, statement: &Statement, following: &[Statement]) -> Result<(), SkipReason> {
        let name = match (statement.words.as_slice(), following) {
            ([_, name], [brace, rest @ ..])
                if statement.is_first
                    && brace.opens()
                    && brace.words.len() == 1
                    && rest.first().is_none_or(|next| next.is_first) =>
            {
                name.clone()
            }
            _ => self.name_at(statement.line),
        };
        match GroupName::try_from(name.as_str()) {
            Err(error) => Err(SkipReason::Name(error.reason())),
            // `$_INSTANCE` and the like (set_std_definitions in lib/parser.c).
            Ok(_) if name.contains("$_") => Err(SkipReason::Name("keepalived replaces what begins with $_")),
            Ok(_) if statement.words.get(1) != Some(&name) => {
                Err(SkipReason::Name("keepalived reads another name there"))
            }
            Ok(_) => Ok(()),
        }
    }

    /// The text after `vrrp_instance` on a line, without the last brace.
    fn name_at(&self, line: usize) -> String {
        let text = self.lines.get(line - 1).copied().unwrap_or_default().trim_ascii();
        let text = text.strip_prefix(b"vrrp_instance").unwrap_or(text);
        let text = text.strip_suffix(b"{").unwrap_or(text);
        let text = text.strip_suffix(b" ").unwrap_or(text);
        String::from_utf8_lossy(text.strip_prefix(b" ").unwrap_or(text)).into_owned()
    }

    fn in_instance(&mut self, refused: Option<usize>, words: &[String]) {
        match words[0].as_str() {
            "virtual_ipaddress" => self.open_list(List::Addresses),
            "virtual_ipaddress_excluded" => self.open_list(List::Excluded),
            "unicast_peer" => self.open_list(List::Peers),
            "track_interface" | "track_script" | "track_file" | "track_process" | "track_bfd" | "virtual_routes"
            | "virtual_rules" => self.open_list(List::Other),
            "authentication" => self.blocks.push(Block::Keywords(&[])),
            _ => {}
        }
        if let Some(instance) = self.instances.last_mut() {
            if let (Some(line), None) = (refused, &instance.skip_reason) {
                instance.skip_reason = Some(SkipReason::Mixed(line));
            }
            instance.set(words);
        }
    }

    fn skip(&mut self, line: usize, why: SkipReason) {
        let name: String = self.name_at(line).chars().take(MAX_SHOWN_NAME_LENGTH).collect();
        let name = printable::line(&name).into_owned();
        self.skipped.push(SkippedInstance { line, name, why });
    }

    fn finish(mut self) -> Reading {
        let mut groups = Vec::new();
        for instance in std::mem::take(&mut self.instances) {
            let line = instance.line;
            match instance.close() {
                Ok(group) => groups.push(group),
                Err(why) => self.skip(line, why),
            }
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        self.skipped.sort_by_key(|skipped| skipped.line);
        Reading { groups: Groups { groups }, skipped: self.skipped, is_cut_short: false }
    }
}

impl ParsedInstance {
    /// A statement of its block.
    fn set(&mut self, words: &[String]) {
        let [keyword, value, ..] = words else {
            if words[0] == "native_ipv6" {
                self.family.get_or_insert(IpVersion::V6);
            }
            return;
        };
        match keyword.as_str() {
            "interface" => {
                if let Ok(interface) = InterfaceName::try_from(value.as_str()) {
                    self.interface = Some(interface);
                }
            }
            "virtual_router_id" => self.vrid = number(value).or(self.vrid),
            "priority" => self.priority = number(value).unwrap_or(DEFAULT_PRIORITY),
            "advert_int" => {
                self.advertise_interval = AdvertiseInterval::parse(value).unwrap_or(self.advertise_interval);
            }
            "mcast_src_ip" | "unicast_src_ip" | "mcast_dst_ip" => {
                if let Ok(address) = value.parse() {
                    self.family.get_or_insert(IpVersion::of(address));
                }
            }
            _ => {}
        }
    }

    /// A value of one of its lists.
    fn take(&mut self, list: List, first: &str, options: &[String]) {
        match list {
            List::Addresses | List::Excluded => {
                let Some(address) = address(first) else { return };
                let is_of_family = matches!(list, List::Excluded) || self.is_of_family(address);
                if let (IpAddr::V4(address), Some(interface), true) = (address, device(options), is_of_family) {
                    self.addresses.push(VirtualAddress { address, interface });
                }
            }
            List::Peers => {
                let Ok(address) = first.parse() else { return };
                if let (IpAddr::V4(peer), true) = (address, self.is_of_family(address)) {
                    self.peers.push(peer);
                }
            }
            List::Other => {}
        }
    }

    fn is_of_family(&mut self, address: IpAddr) -> bool {
        *self.family.get_or_insert(IpVersion::of(address)) == IpVersion::of(address)
    }

    fn close(self) -> Result<RunningGroup, SkipReason> {
        if let Some(why) = self.skip_reason {
            return Err(why);
        }
        Ok(RunningGroup {
            name: GroupName::try_from(self.name).map_err(|error| SkipReason::Name(error.reason()))?,
            interface: self.interface.ok_or(SkipReason::Missing("interface"))?,
            vrid: self.vrid.ok_or(SkipReason::Missing("virtual_router_id"))?,
            priority: self.priority,
            advertise_interval: self.advertise_interval,
            peers: self.peers,
            addresses: self.addresses,
        })
    }
}

/// A number from 1 to 255.
fn number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|n| *n > 0)
}

/// An address, with its prefix length or without one.
fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let is_right = length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= longest));
    is_right.then_some(address)
}

/// The interface that the options of an address name, if any. `None` if the options are invalid.
fn device(options: &[String]) -> Option<Option<InterfaceName>> {
    match options.iter().position(|word| word == "dev") {
        None => Some(None),
        Some(at) => Some(Some(InterfaceName::try_from(options.get(at + 1)?.as_str()).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(
        name: &str,
        interface: &str,
        vrid: u8,
        priority: u8,
        peers: &[&str],
        addresses: &[(&str, Option<&str>)],
    ) -> RunningGroup {
        RunningGroup {
            name: GroupName::try_from(name).expect("a name"),
            interface: InterfaceName::try_from(interface).expect("an interface"),
            vrid,
            priority,
            advertise_interval: AdvertiseInterval::default(),
            peers: peers.iter().map(|p| p.parse().expect("an address")).collect(),
            addresses: addresses
                .iter()
                .map(|(address, dev)| VirtualAddress {
                    address: address.parse().expect("an address"),
                    interface: dev.map(|dev| InterfaceName::try_from(dev).expect("an interface")),
                })
                .collect(),
        }
    }

    #[test]
    fn what_vyos_renders_is_read() {
        let read = |text: &str| {
            let reading = parse(text.as_bytes()).expect("read");
            assert_eq!(reading.skipped, []);
            reading.groups.groups
        };
        assert_eq!(
            read(include_str!("../../../tests/samples/keepalived.conf")),
            [
                group(
                    "second",
                    "eth1",
                    11,
                    100,
                    &[],
                    &[("10.98.0.100", None), ("10.98.0.101", None), ("10.98.0.102", None)]
                ),
                group("six", "eth1", 12, 100, &[], &[]),
                group("vyos-aws", "eth0", 10, 200, &["10.99.0.2"], &[("10.99.0.100", None)]),
            ]
        );
        assert_eq!(
            read(include_str!("../../../tests/samples/keepalived-2.conf")),
            [
                group(
                    "dev-case",
                    "eth0",
                    21,
                    100,
                    &["10.99.0.2"],
                    &[("10.98.0.110", Some("eth1")), ("10.99.0.110", None), ("10.98.0.111", Some("eth1"))]
                ),
                group("odd$(n)ame", "eth0", 22, 100, &[], &[("10.99.0.120", None)]),
            ]
        );
    }

    /// A group as VyOS writes it; its VRID is also the last part of its address.
    fn instance(name: &str, vrid: u8) -> String {
        format!(
            "vrrp_instance {name} {{\n    state BACKUP\n    interface eth0\n    virtual_router_id {vrid}\n    \
             virtual_ipaddress {{\n        10.0.0.{vrid}/24\n    }}\n}}\n"
        )
    }

    /// The groups that are read, with the last part of their addresses, and the messages about the others.
    fn read(text: &str) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
        let Reading { groups, skipped, .. } = parse(text.as_bytes()).expect("read");
        let last = |group: &RunningGroup| group.addresses.iter().map(|a| a.address.octets()[3]).collect();
        let groups = groups.groups.iter().map(|group| (group.name.to_string(), last(group))).collect();
        (groups, skipped.iter().map(SkippedInstance::to_string).collect())
    }

    fn carried(names: &[(&str, u8)]) -> Vec<(String, Vec<u8>)> {
        names.iter().map(|(name, vrid)| ((*name).to_owned(), vec![*vrid])).collect()
    }

    #[test]
    fn a_part_of_a_file_is_refused_wherever_it_ends_inside_a_block() {
        let text = include_str!("../../../tests/samples/keepalived-2.conf");
        assert_eq!(parse(b""), Err(ConfError::Incomplete));
        assert_eq!(parse(b"# only this\n"), Err(ConfError::Incomplete));
        let inside = text.find("unicast_src_ip").expect("there");
        assert_eq!(parse(&text.as_bytes()[..inside]), Err(ConfError::Incomplete));
        assert_eq!(parse(b"# \na {\n\0\n}\n"), Err(ConfError::Zero(3)));
        // Inside of a group that keepalived ignores as well.
        let text = instance("a b", 1);
        assert_eq!(parse(&text.as_bytes()[..text.len() - 3]), Err(ConfError::Incomplete));
        assert_eq!(read(&text).0, []);
    }

    #[test]
    fn comments_quotes_and_blocks_on_one_line_are_read_as_keepalived_does() {
        let text = "! c\nvrrp_instance a { # x {\n interface eth0 ! }\n virtual_router_id 1\n authentication { auth_pass \"a}b\" }\n \
                    virtual_ipaddress { 10.0.0.1/24 dev eth1 label x }\n}\n";
        let expected = group("a", "eth0", 1, 100, &[], &[("10.0.0.1", Some("eth1"))]);
        assert_eq!(parse(text.as_bytes()).expect("read").groups.groups, [expected]);
    }

    /// In all these cases keepalived 2.2.7 runs the other groups, and those with a unique name.
    #[test]
    fn a_name_that_keepalived_takes_for_another_costs_that_group_alone() {
        let reason = "it contains one of # ! { }";
        for (name, why) in [
            ("x{y", reason),
            ("x}y", reason),
            ("x{", reason),
            ("x {", "it contains white space or a control character"),
            ("}", reason),
            ("x#y", reason),
            ("x!", reason),
            ("x y", "it contains white space or a control character"),
            ("x\ty", "it contains white space or a control character"),
            ("a'", "it contains a quote"),
            ("x$_PWD", "keepalived replaces what begins with $_"),
            ("x\u{202e}{y", reason),
            ("{@y", reason),
            ("{~SEQ", reason),
            ("{include", reason),
        ] {
            let text = instance("a", 1) + &instance(name, 2) + &instance("z", 3);
            let (groups, skipped) = read(&text);
            assert_eq!(groups, carried(&[("a", 1), ("z", 3)]), "{name:?}");
            let name = name.replace('\t', "\\t").replace('\u{202e}', "\\u{202e}");
            let expected = format!("line 9: vrrp_instance {name} skipped: {why}: rename the group");
            assert_eq!(skipped, [expected]);
        }
        let text = instance("a", 1) + &instance(&"n".repeat(300), 2) + &instance("z", 3);
        let (groups, skipped) = read(&text);
        assert_eq!(groups, carried(&[("a", 1), ("z", 3)]));
        assert!(skipped[0].len() < 200, "{skipped:?}");
    }

    #[test]
    fn two_groups_of_one_name_are_never_merged() {
        let same = |line, other| {
            format!(
                "line {line}: vrrp_instance web skipped: keepalived reads the same name at line {other}: rename one of the two groups"
            )
        };
        let (groups, skipped) = read(&(instance("web", 1) + &instance("a", 2) + &instance("web", 3)));
        assert_eq!((groups, skipped), (carried(&[("a", 2)]), vec![same(1, 17), same(17, 1)]));
        // keepalived runs the first one, whatever it reads for the other name.
        let (groups, skipped) = read(&(instance("web", 1) + &instance("web{x", 2)));
        assert_eq!((groups, skipped.len()), (carried(&[("web", 1)]), 1), "{skipped:?}");
        // It runs the first one under the name of the second one: both are unreliable.
        let (groups, skipped) = read(&(instance("web{x", 1) + &instance("web", 2)));
        assert_eq!((groups, skipped.len()), (vec![], 2), "{skipped:?}");
        assert_eq!(skipped[1], same(9, 1));
        // A quote is part of the name, except a pair of double quotes around it.
        let (groups, _) = read(&(instance("web", 1) + &instance("web'", 2) + &instance("'web'", 3)));
        assert_eq!(groups, carried(&[("web", 1)]));
        assert_eq!(read(&instance("\"web\"", 1)).0, carried(&[("web", 1)]));
    }

    #[test]
    fn where_keepalived_adds_a_group_to_the_one_before_neither_counts() {
        let (groups, skipped) =
            read(&(instance("a", 1) + &instance("b", 2) + &instance("x y\"z", 3) + &instance("c", 4)));
        assert_eq!(groups, carried(&[("a", 1), ("c", 4)]));
        assert_eq!(
            skipped,
            [
                "line 9: vrrp_instance b skipped: keepalived adds the group at line 17 to it: rename that group",
                "line 17: vrrp_instance x y\"z skipped: it contains white space or a control character: rename the group",
            ]
        );
    }

    #[test]
    fn what_keepalived_passes_over_to_the_end_of_the_file_is_no_part_of_a_file() {
        for include in ["", "include /run/vyos-aws-vipa/keepalived.conf\n"] {
            for name in ["{", "a{"] {
                let text = instance("a", 1) + &instance(name, 2) + &instance("b", 3) + "\n" + include;
                let (groups, skipped) = read(&text);
                assert_eq!(groups, carried(&[("a", 1)]));
                let expected = format!(
                    "line 9: vrrp_instance {name} skipped: keepalived ignores it and everything after it: rename the group"
                );
                assert_eq!(skipped, [expected]);
                assert!(parse(text.as_bytes()).expect("read").is_cut_short);
            }
        }
        // The same with a password inside of it.
        let skipped =
            instance("x y", 2).replace("    state", "    authentication {\n        auth_pass \"{\"\n    }\n    state");
        assert_eq!(read(&(instance("a", 1) + &skipped + &instance("b", 3))).0, carried(&[("a", 1)]));
    }

    #[test]
    fn no_password_or_description_changes_what_is_read() {
        for odd in [
            "{", "}", "a{b", "a}b", "\t", "a\tb", "\"", "a\"b", "a\"{", "'", "#", "!", "\\", "\u{1}", "$_PWD", "ü",
            "@x", "a b",
        ] {
            let text = instance("a", 1).replace(
                "    state",
                &format!(
                    "    # {odd}\n    authentication {{\n        auth_pass \"{odd}\"\n        auth_type PASS\n    }}\n    state"
                ),
            );
            assert_eq!(read(&(text + &instance("b", 2))), (carried(&[("a", 1), ("b", 2)]), vec![]), "{odd:?}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_group_costs_that_group_alone() {
        let wrong = instance("b", 2).replace("    virtual_router_id 2\n", "    virtual_router_id 256\n");
        let (groups, skipped) = read(&(instance("a", 1) + &wrong + "}\n{\n" + &instance("c", 3)));
        assert_eq!(groups, carried(&[("a", 1), ("c", 3)]));
        assert_eq!(skipped, ["line 9: vrrp_instance b skipped: virtual_router_id is missing or invalid"]);
    }

    /// keepalived does not add addresses of another IP version than the group's (observed with 2.2.7).
    #[test]
    fn addresses_of_the_other_version_of_ip_are_passed_over() {
        let both = |first: &str| {
            instance("a", 1).replace("10.0.0.1/24", &format!("{first}\n        10.0.0.1/24\n        10.0.0.2/33"))
        };
        assert_eq!(read(&both("2001:db8::1/64")).0, [("a".to_owned(), vec![])]);
        assert_eq!(read(&both("10.0.0.9")).0, [("a".to_owned(), vec![9, 1])]);
        let text = both("2001:db8::1/64") + &instance("b", 2);
        let text = text.replacen("virtual_ipaddress {", "virtual_ipaddress_excluded {", 1);
        assert_eq!(read(&text).0, [("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])]);
    }

    #[test]
    fn the_interval_of_a_group_is_read_where_there_is_one() {
        let interval = |line: &str| {
            let text = format!("vrrp_instance a {{\n interface eth0\n virtual_router_id 1\n {line}\n}}\n");
            u64::from(parse(text.as_bytes()).expect("read").groups.groups[0].advertise_interval)
        };
        for (line, millis) in
            [("advert_int 10", 10_000), ("advert_int 0.25", 250), ("", 1_000), ("advert_int x", 1_000)]
        {
            assert_eq!(interval(line), millis, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z{}#!\"' \n./0-9é]{0,200}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_cut_file_is_never_read_as_other_groups(cut in 0_usize..2000) {
            let text = include_str!("../../../tests/samples/keepalived-2.conf");
            let whole = parse(text.as_bytes()).expect("read").groups.groups;
            if let Ok(part) = parse(&text.as_bytes()[..cut.min(text.len())]) {
                prop_assert!(part.groups.groups.iter().all(|g| whole.contains(g)));
            }
        }
    }
}
