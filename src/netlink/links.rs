//! The network interfaces of this network namespace, and the MAC address by which IMDS names the ENI of each.
//!
//! Cancel safety: [`Links::read`] has no effect to lose.

use std::collections::BTreeMap;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use vipa_core::model::ids::{InterfaceName, MacAddress};

use super::KernelError;

/// All interfaces at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(BTreeMap<InterfaceName, Option<MacAddress>>);

/// The interface, or its MAC address, is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("there is no interface {0} on this router")]
    NoSuchInterface(InterfaceName),
    /// Not an Ethernet interface: for example `lo` or a tunnel.
    #[error("interface {0} has no MAC address, so it has no ENI")]
    NoMacAddress(InterfaceName),
}

impl Links {
    /// Queries the kernel now, which takes about a millisecond, and at most a second. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`KernelError`].
    pub async fn read() -> Result<Self, KernelError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let all =
            super::list("the list of interfaces", RouteNetlinkMessage::GetLink(request), |message| match message {
                RouteNetlinkMessage::NewLink(message) => link(&message),
                _ => None,
            });
        Ok(Self(all.await?.into_iter().collect()))
    }

    /// The MAC address of the interface's ENI: the permanent one, or the current one if the driver reports none.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn mac(&self, name: &InterfaceName) -> Result<MacAddress, LinkError> {
        match self.0.get(name) {
            Some(Some(mac)) => Ok(*mac),
            Some(None) => Err(LinkError::NoMacAddress(name.clone())),
            None => Err(LinkError::NoSuchInterface(name.clone())),
        }
    }
}

fn link(message: &LinkMessage) -> Option<(InterfaceName, Option<MacAddress>)> {
    let (mut name, mut permanent, mut current) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = InterfaceName::try_from(text.as_str()).ok(),
            LinkAttribute::PermAddress(bytes) => permanent = mac(bytes),
            LinkAttribute::Address(bytes) => current = mac(bytes),
            _ => {}
        }
    }
    Some((name?, permanent.or(current)))
}

/// Six bytes, unless all are zero as those of `lo`.
fn mac(bytes: &[u8]) -> Option<MacAddress> {
    let bytes: [u8; 6] = bytes.try_into().ok()?;
    (bytes != [0; 6]).then(|| MacAddress::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::namespace::{inside, ip};

    fn name(text: &str) -> InterfaceName {
        InterfaceName::try_from(text).expect("a name")
    }

    #[tokio::test]
    async fn interfaces_are_listed_with_their_mac_addresses() {
        if !inside("netlink::links::tests::interfaces_are_listed_with_their_mac_addresses", &["-Urn"]) {
            return;
        }
        ip("link add eth0 address 02:00:00:00:00:0a type veth peer name eth1");
        ip("link add br0 type bridge");
        ip("link set eth1 master br0");
        ip("link add vrrp.11 link eth0 address 00:00:5e:00:01:0b type macvlan mode private");
        let links = Links::read().await.expect("read");
        let names: Vec<&str> = links.0.keys().map(InterfaceName::as_str).collect();
        for expected in ["br0", "eth0", "eth1", "lo", "vrrp.11"] {
            assert!(names.contains(&expected), "{expected}: {names:?}");
        }
        assert_eq!(links.mac(&name("eth0")).expect("known").to_string(), "02:00:00:00:00:0a");
        assert_eq!(links.mac(&name("vrrp.11")).expect("known").to_string(), "00:00:5e:00:01:0b");
        assert_eq!(links.mac(&name("lo")), Err(LinkError::NoMacAddress(name("lo"))));
        assert_eq!(links.mac(&name("eth7")), Err(LinkError::NoSuchInterface(name("eth7"))));
    }

    #[test]
    fn the_permanent_mac_address_goes_before_the_current_one() {
        let message = |attributes: Vec<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.attributes = attributes;
            link(&message).map(|(name, mac)| (name.to_string(), mac.map(|m| m.to_string())))
        };
        let name = || LinkAttribute::IfName("eth0".to_owned());
        let current = || LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]);
        let permanent = |last| LinkAttribute::PermAddress(vec![2, 0, 0, 0, 0, last]);
        let expected = |mac: &str| Some(("eth0".to_owned(), Some(mac.to_owned())));
        assert_eq!(message(vec![name(), current(), permanent(2)]), expected("02:00:00:00:00:02"));
        assert_eq!(message(vec![permanent(2), current(), name()]), expected("02:00:00:00:00:02"));
        assert_eq!(message(vec![name(), current()]), expected("02:00:00:00:00:01"));
        let zero = LinkAttribute::PermAddress(vec![0; 6]);
        assert_eq!(message(vec![name(), zero, current()]), expected("02:00:00:00:00:01"));
        assert_eq!(message(vec![name(), LinkAttribute::Address(vec![1; 20])]), Some(("eth0".to_owned(), None)));
        assert_eq!(message(vec![current()]), None);
    }
}
