//! A client of the routers, and its pings.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::namespaces::{Host, call};
use crate::network;

/// The time between two pings.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long an answer to a ping may take before it counts as missing.
const PATIENCE: SignedDuration = SignedDuration::from_millis(300);

/// Types of ICMP messages (RFC 792).
const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;

/// A host with one interface.
pub struct Client {
    host: Host,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Client {
    /// Connects a new host to a bridge, with the bridge as its way to everything else.
    pub(crate) fn start(port: &str, bridge: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let host = Host::start(port);
        call(&format!("ip link add {port} type veth peer name eth0 netns {}", host.pid()));
        call(&format!("ip link set {port} master {bridge} up"));
        host.call(&["ip", "link", "set", "eth0", "up"]);
        host.call(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        host.call(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
        Self { host, address }
    }

    /// Pings an address from now on, ten times a second.
    ///
    /// # Panics
    /// If the kernel gives no raw socket.
    pub fn ping(&self, address: Ipv4Addr) -> Pings {
        let namespace = File::open(self.host.network_namespace()).expect("the client's namespace");
        let (sent, ends) = (Arc::<Mutex<Vec<Ping>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (sent, ends) = (Arc::clone(&sent), Arc::clone(&ends));
            move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns(2)");
                let protocol = Some(ipproto::ICMP);
                let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
                let socket = socket.expect("a raw socket");
                while !ends.load(Ordering::Relaxed) {
                    send(&socket, address, &sent);
                    receive(&socket, address, &sent);
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
    /// All pings so far whose answer is there or is not expected any more.
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

    /// Whether none of the last three pings was answered.
    pub fn are_lost(&self) -> bool {
        self.last_answers().iter().all(Option::is_none)
    }

    fn last_answers(&self) -> [Option<u8>; 3] {
        let pings = self.so_far();
        let last = |n: usize| pings.len().checked_sub(n).and_then(|n| pings[n].answer).map(|(_, router)| router);
        [1, 2, 3].map(last)
    }
}

fn send(socket: &OwnedFd, address: Ipv4Addr, sent: &Mutex<Vec<Ping>>) {
    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    let [high, low] = (sent.len() as u16).to_be_bytes();
    // Type, code, checksum, identifier and sequence number; the sum of all words in one's complement is 0.
    let mut message = [ECHO, 0, 0, 0, 0, 0, high, low];
    let sum = u32::from(ECHO) * 256 + u32::from(high) * 256 + u32::from(low);
    let sum = (sum & 0xffff) + (sum >> 16);
    [message[2], message[3]] = (!(sum as u16)).to_be_bytes();
    sent.push(Ping { sent: Timestamp::now(), answer: None });
    // Without a route it is not answered either.
    let _ = sendto(socket, &message, SendFlags::empty(), &SocketAddrV4::new(address, 0));
}

/// Takes note of the answers until the next ping is due.
fn receive(socket: &OwnedFd, address: Ipv4Addr, sent: &Mutex<Vec<Ping>>) {
    let due = Instant::now() + INTERVAL;
    let mut packet = [MaybeUninit::uninit(); 1500];
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        set_socket_timeout(socket, Timeout::Recv, Some(left)).expect("setsockopt(2)");
        let packet = match recv(socket, &mut packet, RecvFlags::empty()) {
            Ok(((packet, _), _)) => packet,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(error) => panic!("recv(2): {}", io::Error::from(error)),
        };
        // An IPv4 header without options comes first, with the time to live at 8 and the source at 12 (RFC 791, 3.1).
        let [_, _, _, _, _, _, _, _, ttl, _, _, _, a, b, c, d, _, _, _, _, kind, _, _, _, _, _, high, low, ..] =
            *packet
        else {
            continue;
        };
        if kind != ECHO_REPLY || address.octets() != [a, b, c, d] {
            continue;
        }
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let number = usize::from(u16::from_be_bytes([high, low]));
        if let Some(ping) = sent.get_mut(number) {
            // A router that the VPC lies between has it decremented.
            let is_from = |router: &u8| (ttl..=ttl.saturating_add(1)).contains(&network::time_to_live(*router));
            let router = [1, 2].into_iter().find(is_from);
            ping.answer = ping.answer.or(Some((Timestamp::now(), router.unwrap_or_default())));
        }
    }
}
