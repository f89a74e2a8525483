//! Where the kernel sends packets to an address, with its policy rules: `ip route get`, over rtnetlink(7).
//!
//! Cancel safety: [`path_to`] has no effect to lose.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use futures_util::StreamExt;
use futures_util::future::join_all;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use vipa_core::model::path::{LocalNetwork, Path, Service};

use super::{KernelError, QUERY_TIMEOUT};

/// For messages.
const WHAT: &str = "a route";
/// `IPPROTO_TCP`: policy rules may tell protocols and ports apart.
const TCP: u8 = 6;

/// Whether this router forwards IPv4 packets (ip-sysctl, `ip_forward`).
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Queries the kernel now for a connection of this process, which takes well under a millisecond, and at most a second.
///
/// # Errors
/// [`KernelError`]; [`KernelError::Refused`] also where there is no route.
pub async fn path_to(destination: SocketAddrV4) -> Result<Path, KernelError> {
    tokio::time::timeout(QUERY_TIMEOUT, look_up(destination)).await.unwrap_or(Err(KernelError::TimedOut(WHAT)))
}

/// What the kernel shows of this router's network now: whether it forwards, and the paths to these addresses.
pub async fn local_network(addresses: impl IntoIterator<Item = (Service, SocketAddr)>) -> LocalNetwork {
    let forwards = match fs::read_to_string(IP_FORWARD) {
        Ok(text) => Some(text.trim() != "0"),
        Err(_) => None,
    };
    let addresses: Vec<(Service, SocketAddr)> = addresses.into_iter().collect();
    let with = |ipv6: bool| -> BTreeSet<Service> {
        addresses.iter().filter(|(_, address)| address.is_ipv6() == ipv6).map(|(service, _)| *service).collect()
    };
    let ipv6_only = &with(true) - &with(false);
    let paths = addresses.into_iter().map(async |(service, address)| match address {
        SocketAddr::V4(address) => (service, path_to(address).await.ok()),
        SocketAddr::V6(_) => (service, None),
    });
    LocalNetwork { forwards, ipv6_only, paths: join_all(paths).await }
}

async fn look_up(destination: SocketAddrV4) -> Result<Path, KernelError> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request.header.destination_prefix_length = 32;
    request.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(*destination.ip())),
        RouteAttribute::IpProto(TCP),
        RouteAttribute::Dport(destination.port()),
    ];
    let (connection, mut handle, _messages) = rtnetlink::new_connection().map_err(KernelError::Socket)?;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(request));
    message.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(message).map_err(|_| KernelError::Closed(WHAT))?;
    let answer = async {
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    return Ok(path(*destination.ip(), &route));
                }
                NetlinkPayload::Error(error) => {
                    return Err(KernelError::Refused { what: WHAT, reason: error.to_io() });
                }
                _ => {}
            }
        }
        Err(KernelError::Closed(WHAT))
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = connection => Err(KernelError::Closed(WHAT)),
    }
}

fn path(destination: Ipv4Addr, route: &RouteMessage) -> Path {
    let mut path = Path { destination, gateway: None, source: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => path.gateway = Some(*gateway),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => path.source = Some(*source),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::netlink::namespace::{inside, ip};

    const EC2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    async fn shown(port: u16) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
        let path = path_to(SocketAddrV4::new(EC2, port)).await.expect("a route");
        assert_eq!(path.destination, EC2);
        (path.gateway, path.source)
    }

    #[tokio::test]
    async fn the_next_hop_and_the_source_are_those_of_a_connection() {
        if !inside("netlink::routes::tests::the_next_hop_and_the_source_are_those_of_a_connection", &["-Urn"]) {
            return;
        }
        let at = |last| Some(Ipv4Addr::new(10, 99, 0, last));
        let none = path_to(SocketAddrV4::new(EC2, 443)).await.expect_err("no route");
        assert!(matches!(none, KernelError::Refused { .. }), "{none}");
        ip("link set lo up");
        ip("link add eth0 type veth peer name eth1");
        ip("link set eth0 up");
        ip("link set eth1 up");
        ip("address add 10.99.0.11/24 dev eth0");
        ip("route add default via 10.99.0.1");
        assert_eq!(shown(443).await, (at(1), at(11)));
        // A more specific route by another router, and a source of its own.
        ip("address add 10.99.0.100/32 dev eth0");
        ip("route add 192.0.2.0/24 via 10.99.0.12 src 10.99.0.100");
        assert_eq!(shown(443).await, (at(12), at(100)));
        // A policy rule for one port.
        ip("route add default via 10.99.0.13 table 100");
        ip("rule add ipproto tcp dport 443 lookup 100");
        assert_eq!(shown(443).await, (at(13), at(11)));
        assert_eq!(shown(80).await, (at(12), at(100)));
        // Only IPv4 paths are looked up.
        let ipv4 = (Service::Ec2, SocketAddr::from((EC2, 443)));
        let ipv6 = |service| (service, SocketAddr::from((Ipv6Addr::LOCALHOST, 443)));
        let network = local_network([ipv4, ipv6(Service::Ec2), ipv6(Service::Imds)]).await;
        assert_eq!(network.ipv6_only, [Service::Imds].into());
        let paths: Vec<_> = network.paths.iter().map(|(service, path)| (*service, path.is_some())).collect();
        assert_eq!(paths, [(Service::Ec2, true), (Service::Ec2, false), (Service::Imds, false)]);
        // On the link itself.
        ip("rule delete ipproto tcp dport 443 lookup 100");
        ip("route replace 192.0.2.0/24 dev eth0");
        assert_eq!(shown(443).await, (None, at(11)));
        ip("route replace unreachable 192.0.2.0/24");
        let refused = path_to(SocketAddrV4::new(EC2, 443)).await.expect_err("unreachable");
        assert!(refused.to_string().starts_with("the kernel refuses a route"), "{refused}");
    }
}
