//! A client of the routers, and its pings.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::namespaces::{Host, call};
use crate::network;

/// The time between two pings.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long an answer to a ping may take before it counts as missing.
const PATIENCE: SignedDuration = SignedDuration::from_millis(300);

/// What ICMP (RFC 792) and ICMPv6 (RFC 4443) differ in, and the headers of IPv4 without options (RFC 791, 3.1) and of IPv6 (RFC
/// 8200, 3).
struct Family {
    address: AddressFamily,
    protocol: Protocol,
    /// The EtherType.
    ethernet: u16,
    echo: u8,
    echo_reply: u8,
    /// The length of the header, where it has the time to live, and the source.
    header: usize,
    time_to_live: usize,
    source: Range<usize>,
}

const IPV4: Family = Family {
    address: AddressFamily::INET,
    protocol: ipproto::ICMP,
    ethernet: 0x0800,
    echo: 8,
    echo_reply: 0,
    header: 20,
    time_to_live: 8,
    source: 12..16,
};

const IPV6: Family = Family {
    address: AddressFamily::INET6,
    protocol: ipproto::ICMPV6,
    ethernet: 0x86dd,
    echo: 128,
    echo_reply: 129,
    header: 40,
    time_to_live: 7,
    source: 8..24,
};

/// A host with one interface.
pub struct Client {
    host: Host,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Client {
    /// Connects a new host to a bridge, with the bridge as its way to everything else.
    pub(crate) fn start(
        port: &str,
        bridge: &str,
        (address, ipv6): (Ipv4Addr, Option<Ipv6Addr>),
        gateways: &[IpAddr],
    ) -> Self {
        let host = Host::start(port);
        call(&format!("ip link add {port} type veth peer name eth0 netns {}", host.pid()));
        call(&format!("ip link set {port} master {bridge} up"));
        host.call(&["ip", "link", "set", "eth0", "up"]);
        host.call(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        if let Some(address) = ipv6 {
            host.call(&["ip", "address", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
        }
        for gateway in gateways {
            host.call(&["ip", "route", "add", "default", "via", &gateway.to_string(), "dev", "eth0", "onlink"]);
        }
        Self { host, address }
    }

    /// Pings an address from now on, ten times a second.
    ///
    /// # Panics
    /// If the kernel gives no raw socket.
    pub fn ping(&self, address: impl Into<IpAddr>) -> Pings {
        let address = address.into();
        let namespace = File::open(self.host.network_namespace()).expect("the client's namespace");
        let (sent, ends) = (Arc::<Mutex<Vec<Ping>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (sent, ends) = (Arc::clone(&sent), Arc::clone(&ends));
            move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns(2)");
                let sockets = Sockets::to(address).expect("raw sockets");
                while !ends.load(Ordering::Relaxed) {
                    sockets.send(&sent);
                    sockets.receive(&sent);
                }
            }
        });
        Pings { sent, ends, thread: Some(thread) }
    }
}

/// One ping.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// When it was sent.
    pub sent: Timestamp,
    /// When it was answered, and by which router.
    pub answer: Option<(Timestamp, u8)>,
}

/// The pings of a client to one address. They end with this.
pub struct Pings {
    sent: Arc<Mutex<Vec<Ping>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pings {
    /// All pings so far that are answered or whose answer is no longer expected.
    pub fn so_far(&self) -> Vec<Ping> {
        let missing = Timestamp::now() - PATIENCE;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().take_while(|ping| ping.answer.is_some() || ping.sent < missing).copied().collect()
    }

    /// The router that answered the last three pings; `None` if none of them was answered, or not by the same.
    pub fn answered_by(&self) -> Option<u8> {
        let routers = self.last_answers();
        routers.iter().all(|router| *router == routers[0]).then_some(routers[0])?
    }

    /// Whether three pings or more were sent from that time on, and the router has answered the last three.
    pub fn are_answered_since(&self, time: Timestamp, router: u8) -> bool {
        let since = self.so_far().iter().filter(|ping| ping.sent >= time).count();
        since >= 3 && self.answered_by() == Some(router)
    }

    /// Whether three pings or more were sent from that time on, and the last three were not answered.
    pub fn are_lost_since(&self, time: Timestamp) -> bool {
        let pings = self.so_far();
        let since: Vec<&Ping> = pings.iter().filter(|ping| ping.sent >= time).collect();
        since.len() >= 3 && since.iter().rev().take(3).all(|ping| ping.answer.is_none())
    }

    fn last_answers(&self) -> [Option<u8>; 3] {
        let pings = self.so_far();
        let last = |n: usize| pings.len().checked_sub(n).and_then(|n| pings[n].answer).map(|(_, router)| router);
        [1, 2, 3].map(last)
    }
}

/// The sockets of one thread that pings.
struct Sockets {
    family: Family,
    destination: IpAddr,
    /// Sends ICMP messages.
    sender: OwnedFd,
    /// Receives packets with their IP header.
    receiver: OwnedFd,
}

impl Sockets {
    fn to(destination: IpAddr) -> Result<Self, Errno> {
        let family = if destination.is_ipv4() { IPV4 } else { IPV6 };
        let sender = socket_with(family.address, SocketType::RAW, SocketFlags::CLOEXEC, Some(family.protocol))?;
        // packet(7): the protocol in network byte order.
        let ethernet = NonZeroU32::new(u32::from(family.ethernet.to_be())).map(Protocol::from_raw);
        let receiver = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, ethernet)?;
        Ok(Self { family, destination, sender, receiver })
    }

    fn send(&self, sent: &Mutex<Vec<Ping>>) {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let [high, low] = (sent.len() as u16).to_be_bytes();
        // Type, code, checksum, identifier and sequence number. The kernel writes the checksum of ICMPv6; that of ICMP makes the
        // sum of all words in one's complement 0.
        let mut message = [self.family.echo, 0, 0, 0, 0, 0, high, low];
        let sum = (u32::from(self.family.echo) + u32::from(high)) * 256 + u32::from(low);
        let sum = (sum & 0xffff) + (sum >> 16);
        [message[2], message[3]] = (!(sum as u16)).to_be_bytes();
        sent.push(Ping { sent: Timestamp::now(), answer: None });
        // Without a route it is not answered either.
        let _ = sendto(&self.sender, &message, SendFlags::empty(), &SocketAddr::new(self.destination, 0));
    }

    /// Takes note of the answers until the next ping is due.
    fn receive(&self, sent: &Mutex<Vec<Ping>>) {
        let due = Instant::now() + INTERVAL;
        let mut packet = [MaybeUninit::uninit(); 1500];
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            set_socket_timeout(&self.receiver, Timeout::Recv, Some(left)).expect("setsockopt(2)");
            match recv(&self.receiver, &mut packet, RecvFlags::empty()) {
                Ok(((packet, _), _)) => self.answered(packet, sent),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => panic!("recv(2): {}", io::Error::from(error)),
            }
        }
    }

    /// Takes note of the packet if it is an answer.
    fn answered(&self, packet: &[u8], sent: &Mutex<Vec<Ping>>) {
        let Family { echo_reply, header, time_to_live, ref source, .. } = self.family;
        let destination = match self.destination {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let Some([kind, _, _, _, _, _, high, low, ..]) = packet.get(header..) else { return };
        if *kind != echo_reply || packet[source.clone()] != destination {
            return;
        }
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ping) = sent.get_mut(usize::from(u16::from_be_bytes([*high, *low]))) {
            // The VPC decrements it, unless the router is in the client's subnet.
            let ttl = packet[time_to_live];
            let is_from = |router: &u8| (ttl..=ttl.saturating_add(1)).contains(&network::time_to_live(*router));
            let router = [1, 2].into_iter().find(is_from);
            ping.answer = ping.answer.or(Some((Timestamp::now(), router.unwrap_or_default())));
        }
    }
}
