//! Reader of keepalived.conf, as VyOS renders it (vyos-1x data/templates/high-availability/keepalived.conf.j2) and as
//! keepalived reads it (keepalived.conf(5)): which groups there are, on which interfaces, with which addresses.

use std::net::Ipv4Addr;

use super::groups::{AdvertiseInterval, Group, Groups, VirtualAddress};
use crate::names::{GroupName, InterfaceName};

/// keepalived.conf does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// VyOS writes the file in place: this is a part of it.
    #[error("it is incomplete: it ends inside a block, or before anything came")]
    Incomplete,
    /// A `}` without its `{`.
    #[error("line {0}: a block ends that has not begun")]
    Unbalanced(usize),
    /// Outside a comment there is none in what VyOS renders. It says nothing of which groups there are.
    #[error("line {0}: a control character: this is not VyOS's text")]
    Control(usize),
    /// A `vrrp_instance` lacks something, or says it wrongly.
    #[error("vrrp_instance {group}: {what} is missing or wrong")]
    Group {
        /// The instance.
        group: GroupName,
        /// The keyword.
        what: &'static str,
    },
}

/// Reads the text of keepalived.conf. Keywords that say nothing of addresses are passed over.
///
/// # Errors
/// [`ConfError`].
pub fn parse(text: &str) -> Result<Groups, ConfError> {
    let mut groups = Vec::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut anything = false;
    for (number, line) in text.lines().enumerate() {
        let words = words(line);
        if words.iter().any(|word| word.chars().any(char::is_control)) {
            return Err(ConfError::Control(number + 1));
        }
        anything |= !words.is_empty();
        let mut rest = words.as_slice();
        while let Some(at) = rest.iter().position(|w| *w == "{" || *w == "}") {
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            if rest[at] == "{" {
                let block = Block::open(blocks.last_mut(), before);
                blocks.push(block);
            } else {
                statement(&mut blocks, before);
                match blocks.pop() {
                    Some(Block::Instance(instance)) => groups.extend(instance.close()?),
                    Some(Block::Addresses(addresses)) => {
                        if let Some(Block::Instance(instance)) = blocks.last_mut() {
                            instance.addresses.extend(addresses);
                        }
                    }
                    Some(Block::Peers(peers)) => {
                        if let Some(Block::Instance(instance)) = blocks.last_mut() {
                            instance.peers.extend(peers);
                        }
                    }
                    Some(Block::Other) => {}
                    None => return Err(ConfError::Unbalanced(number + 1)),
                }
            }
            rest = after;
        }
        statement(&mut blocks, rest);
    }
    if !blocks.is_empty() || !anything {
        return Err(ConfError::Incomplete);
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Groups { groups })
}

/// The words of a line: `#` and `!` begin a comment, quotes hold a word together, `{` and `}` stand alone.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '#' | '!' => break,
            '{' | '}' => 1,
            quote @ ('"' | '\'') => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
            _ => rest.find(|c: char| c.is_whitespace() || matches!(c, '#' | '!' | '{' | '}')).unwrap_or(rest.len()),
        };
        words.push(rest[..end].trim_matches(['"', '\'']));
        rest = rest[end..].trim_start();
    }
    words
}

enum Block {
    Instance(Instance),
    Addresses(Vec<VirtualAddress>),
    Peers(Vec<Ipv4Addr>),
    Other,
}

#[derive(Default)]
struct Instance {
    /// None if it is no name that could come through the FIFO.
    name: Option<GroupName>,
    interface: Option<InterfaceName>,
    vrid: Option<u8>,
    priority: Option<u8>,
    advertise_interval: Option<AdvertiseInterval>,
    peers: Vec<Ipv4Addr>,
    addresses: Vec<VirtualAddress>,
}

impl Block {
    fn open(inside: Option<&mut Block>, words: &[&str]) -> Self {
        match (inside, words) {
            (None, ["vrrp_instance", name]) => {
                Self::Instance(Instance { name: GroupName::try_from(*name).ok(), ..Instance::default() })
            }
            (Some(Self::Instance(_)), ["virtual_ipaddress" | "virtual_ipaddress_excluded"]) => {
                Self::Addresses(Vec::new())
            }
            (Some(Self::Instance(_)), ["unicast_peer"]) => Self::Peers(Vec::new()),
            _ => Self::Other,
        }
    }
}

fn statement(blocks: &mut [Block], words: &[&str]) {
    match (blocks.last_mut(), words) {
        (Some(Block::Instance(instance)), [keyword, value, ..]) => match *keyword {
            "interface" => instance.interface = InterfaceName::try_from(*value).ok(),
            "virtual_router_id" => instance.vrid = value.parse().ok(),
            "priority" => instance.priority = value.parse().ok(),
            "advert_int" => instance.advertise_interval = AdvertiseInterval::parse(value),
            _ => {}
        },
        (Some(Block::Addresses(addresses)), [address, options @ ..]) => {
            // IPv6 addresses are keepalived's alone.
            if let Ok(address) = address.split('/').next().unwrap_or_default().parse() {
                let dev = options.iter().position(|word| *word == "dev").and_then(|at| options.get(at + 1));
                let interface = dev.and_then(|dev| InterfaceName::try_from(*dev).ok());
                addresses.push(VirtualAddress { address, interface });
            }
        }
        (Some(Block::Peers(peers)), [peer, ..]) => peers.extend(peer.parse::<Ipv4Addr>().ok()),
        _ => {}
    }
}

impl Instance {
    fn close(self) -> Result<Option<Group>, ConfError> {
        let Some(name) = self.name else {
            return Ok(None);
        };
        let missing = |what| ConfError::Group { group: name.clone(), what };
        Ok(Some(Group {
            interface: self.interface.ok_or_else(|| missing("interface"))?,
            vrid: self.vrid.ok_or_else(|| missing("virtual_router_id"))?,
            // keepalived's own default (VRRP_PRIO_DFL in vrrp.h).
            priority: self.priority.unwrap_or(100),
            advertise_interval: self.advertise_interval.unwrap_or_default(),
            peers: self.peers,
            addresses: self.addresses,
            name,
        }))
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
    ) -> Group {
        Group {
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
        let first = parse(include_str!("../../tests/samples/keepalived.conf")).expect("read");
        assert_eq!(
            first.groups,
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
        let second = parse(include_str!("../../tests/samples/keepalived-2.conf")).expect("read");
        assert_eq!(
            second.groups,
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

    #[test]
    fn a_part_of_a_file_is_refused_wherever_it_ends_inside_a_block() {
        let text = include_str!("../../tests/samples/keepalived-2.conf");
        assert_eq!(parse(""), Err(ConfError::Incomplete));
        let inside = text.find("unicast_src_ip").expect("there");
        assert_eq!(parse(&text[..inside]), Err(ConfError::Incomplete));
        assert_eq!(parse("}\n"), Err(ConfError::Unbalanced(1)));
        assert_eq!(parse("# \0\na {\n\u{1}\n}\n"), Err(ConfError::Control(3)));
        let error = parse("vrrp_instance a {\n interface eth0\n}\n").expect_err("no vrid");
        assert_eq!(error.to_string(), "vrrp_instance a: virtual_router_id is missing or wrong");
    }

    #[test]
    fn comments_quotes_and_blocks_on_one_line_are_read_as_keepalived_does() {
        let text = "! c\nvrrp_instance a { # x {\n interface eth0 ! }\n virtual_router_id 1\n authentication { auth_pass \"a}b\" }\n \
                    virtual_ipaddress { 10.0.0.1/24 dev eth1 label x }\n}\n";
        assert_eq!(parse(text).expect("read").groups, [group("a", "eth0", 1, 100, &[], &[("10.0.0.1", Some("eth1"))])]);
    }

    #[test]
    fn the_interval_of_a_group_is_read_where_there_is_one() {
        let interval = |line: &str| {
            let text = format!("vrrp_instance a {{\n interface eth0\n virtual_router_id 1\n {line}\n}}\n");
            u64::from(parse(&text).expect("read").groups[0].advertise_interval)
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
            let _ = parse(&text);
        }

        #[test]
        fn a_cut_file_is_never_read_as_other_groups(cut in 0_usize..2000) {
            let text = include_str!("../../tests/samples/keepalived-2.conf");
            let whole = parse(text).expect("read");
            if let Ok(part) = parse(&text[..cut.min(text.len())]) {
                prop_assert!(part.groups.iter().all(|g| whole.groups.contains(g)));
            }
        }
    }
}
