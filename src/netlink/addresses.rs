//! The IPv4 addresses of this network namespace: all of them now, and every change as it happens.
//!
//! keepalived adds a virtual address to an interface as MASTER and removes it otherwise, so that its presence is
//! evidence of the VRRP state when a line of keepalived was lost. The origin of an address is reported too: the
//! notification of a new address has the port of the netlink socket that requested it, and a second later
//! /proc/net/netlink, which every user may read, shows whether that socket is still open.
//!
//! Cancel safety: [`Addresses::changed`] keeps the subscription, and a list that is being read, in `self`; a message
//! that was taken from the socket is applied before the next await. [`list`] has no effect to lose.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use std::{fs, io, mem};

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::time::Instant;
use vipa_core::claim::PutBy;
use vipa_core::model::ids::InterfaceName;

use super::KernelError;
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// How long to wait after the kernel has refused a subscription.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A command has ended and closed its socket within this time after it has added an address.
const MAX_COMMAND_TIME: Duration = Duration::from_secs(1);
/// The netlink family for links, addresses and routes (NETLINK_ROUTE, linux/netlink.h).
const NETLINK_ROUTE: &str = "0";
/// The netlink sockets of this network namespace. /proc/net would be those of the main thread, which has the same one.
const PROC_NETLINK: &str = "/proc/self/net/netlink";
/// The most that is read of that file: some 10,000 sockets. In the beginning of a longer file a socket could be
/// missing.
const MAX_PROC_NETLINK_BYTES: u64 = 1 << 20;

/// The addresses, each with the interfaces that have it.
pub type Local = BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>;

/// The origin of the addresses on each interface, as far as it is known.
pub type Puts = BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>>;

/// Queries the kernel now, which takes well under a millisecond, and at most a second.
///
/// # Errors
/// [`KernelError`].
pub async fn list() -> Result<Local, KernelError> {
    Ok(addresses(&assigned().await?))
}

/// One assignment. The kernel distinguishes assignments of an address by interface and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Assignment {
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
}

/// The assignments, with the current names of their interfaces.
type Assigned = BTreeMap<Assignment, InterfaceName>;

impl Assignment {
    /// `IFA_LOCAL` is the interface's own address; `IFA_ADDRESS` is the peer's on a point-to-point link
    /// (linux/if_addr.h). `IFA_LABEL` is the interface's current name, or that name with a colon and an alias
    /// (net/ipv4/devinet.c, rtnetlink(7)).
    fn of(message: &AddressMessage) -> Option<(Self, InterfaceName)> {
        if message.header.family != AddressFamily::Inet {
            return None;
        }
        let own = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        let address = own.or_else(|| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })
        })?;
        let label = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Label(label) => Some(label.split_once(':').map_or(&label[..], |(name, _)| name)),
            _ => None,
        });
        let interface = InterfaceName::try_from(label?).ok()?;
        Some((Self { index: message.header.index, address, prefix: message.header.prefix_len }, interface))
    }
}

async fn assigned() -> Result<Assigned, KernelError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let all = super::list("the list of addresses", RouteNetlinkMessage::GetAddress(request), |message| match message {
        RouteNetlinkMessage::NewAddress(message) => Assignment::of(&message),
        _ => None,
    });
    Ok(all.await?.into_iter().collect())
}

fn addresses(assigned: &Assigned) -> Local {
    let mut local = Local::new();
    for (Assignment { address, .. }, interface) in assigned {
        local.entry(*address).or_default().insert(interface.clone());
    }
    local
}

/// The requesters of the assignments that were notified.
#[derive(Debug, Default)]
struct Requesters {
    /// The port of the requesting socket, and when to check whether it is still open.
    ports: BTreeMap<Assignment, (u32, Instant)>,
    classified: BTreeMap<Assignment, PutBy>,
    /// When the next check is due.
    next: Option<Instant>,
    /// `classified` has changed since the last report.
    is_new: bool,
}

impl Requesters {
    fn add(&mut self, assignment: Assignment, port: u32) {
        let at = Instant::now() + MAX_COMMAND_TIME;
        self.ports.insert(assignment, (port, at));
        self.next.get_or_insert(at);
    }

    fn remove(&mut self, assignment: &Assignment) {
        self.ports.remove(assignment);
        self.is_new |= self.classified.remove(assignment).is_some();
    }

    /// Waits until the next check.
    async fn due(&self) {
        match self.next {
            Some(next) => tokio::time::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Determines who requested the assignments that are a second old: a running process, or a command that has ended.
    fn classify(&mut self, throttle: &mut Throttle) {
        let now = Instant::now();
        let open = fs::File::open(PROC_NETLINK).and_then(ports);
        if let Err(error) = &open
            && let Some(times) = throttle.say(error.to_string())
        {
            log!(NETLINK_SOCKETS_NOT_READ, %error, path = PROC_NETLINK, times);
        }
        let due = self.ports.extract_if(.., |_, (_, at)| *at <= now);
        for (assignment, (port, _)) in due {
            if let Ok(open) = &open {
                // The kernel itself, and ioctl(2), have no port.
                let runs = port != 0 && open.contains(&port);
                self.classified.insert(assignment, if runs { PutBy::Process } else { PutBy::Command });
                self.is_new = true;
            }
        }
        self.next = self.ports.values().map(|(_, at)| *at).min();
    }

    fn puts(&self, assigned: &Assigned) -> Puts {
        let mut puts = Puts::new();
        for (assignment, by) in &self.classified {
            if let Some(interface) = assigned.get(assignment) {
                let on = puts.entry(assignment.address).or_default();
                // The same address can have two prefix lengths.
                let known = on.entry(interface.clone()).or_insert(*by);
                *known = (*known).max(*by);
            }
        }
        puts
    }
}

/// The ports of the open sockets.
fn ports(file: impl Read) -> io::Result<BTreeSet<u32>> {
    let mut text = String::new();
    file.take(MAX_PROC_NETLINK_BYTES).read_to_string(&mut text)?;
    if text.len() as u64 == MAX_PROC_NETLINK_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_PROC_NETLINK_BYTES} bytes")));
    }
    Ok(ports_of(&text))
}

/// `sk Eth Pid …`: the address of the socket, its family, and its port (netlink_native_seq_show in
/// net/netlink/af_netlink.c).
fn ports_of(sockets: &str) -> BTreeSet<u32> {
    let port = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next() == Some(NETLINK_ROUTE)).then(|| fields.next()?.parse().ok()).flatten()
    };
    sockets.lines().filter_map(port).collect()
}

/// A subscription that is being opened, with its initial list.
type Opening = Pin<Box<dyn Future<Output = (Monitor, Assigned, Throttle)>>>;

/// Limits the log lines about failures. A subscription that is being opened holds it meanwhile.
type Throttle = LogThrottle<String>;

/// The addresses, and their changes.
pub struct Addresses {
    monitor: Option<Monitor>,
    /// A new subscription and its initial list, while they are on their way.
    opening: Option<Opening>,
    assigned: Assigned,
    requesters: Requesters,
    reported: Option<(Local, Puts)>,
    throttle: Throttle,
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

impl Addresses {
    /// Nothing is known yet: the first [`Addresses::changed`] returns the current addresses.
    pub fn new() -> Self {
        Self {
            monitor: None,
            opening: None,
            assigned: Assigned::new(),
            requesters: Requesters::default(),
            reported: None,
            throttle: Throttle::default(),
        }
    }

    /// Waits until the addresses, or what is known of their origin, differ from the last report. A failed subscription
    /// is retried each second.
    pub async fn changed(&mut self) -> &(Local, Puts) {
        loop {
            if self.monitor.is_none() && self.opening.is_none() {
                self.opening = Some(Box::pin(open(std::mem::take(&mut self.throttle))));
            }
            tokio::select! {
                biased;
                () = self.requesters.due() => self.requesters.classify(&mut self.throttle),
                message = heard(&mut self.monitor) => self.apply(message),
                (monitor, assigned, throttle) = opened(&mut self.opening) => {
                    self.opening = None;
                    self.throttle = throttle;
                    self.monitor = Some(monitor);
                    self.assigned = assigned;
                    // Notifications may have been missed meanwhile.
                    self.requesters = Requesters { is_new: true, ..Requesters::default() };
                }
            }
            while let Some(message) = heard(&mut self.monitor).now_or_never() {
                self.apply(message);
            }
            if self.monitor.is_some() && self.opening.is_none() {
                let local = addresses(&self.assigned);
                let puts = mem::take(&mut self.requesters.is_new).then(|| self.requesters.puts(&self.assigned));
                let is_known = self.reported.as_ref().is_some_and(|(last, last_puts)| {
                    *last == local && puts.as_ref().is_none_or(|puts| puts == last_puts)
                });
                if !is_known {
                    let last_puts = || self.reported.take().map(|(_, puts)| puts).unwrap_or_default();
                    let puts = puts.unwrap_or_else(last_puts);
                    return self.reported.insert((local, puts));
                }
            }
        }
    }

    fn apply(&mut self, message: Option<NetlinkMessage<RouteNetlinkMessage>>) {
        let port = message.as_ref().map_or(0, |m| m.header.port_number);
        match message.map(|m| m.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message))) => {
                if let Some((assignment, interface)) = Assignment::of(&message)
                    && self.assigned.insert(assignment, interface).is_none()
                {
                    self.requesters.add(assignment, port);
                }
            }
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message))) => {
                if let Some((gone, _)) = Assignment::of(&message) {
                    self.assigned.remove(&gone);
                    self.requesters.remove(&gone);
                }
            }
            // The kernel dropped messages, so everything is listed again.
            Some(NetlinkPayload::Overrun(_)) => self.monitor = None,
            Some(_) => {}
            None => {
                if let Some(times) = self.throttle.say("closed".to_owned()) {
                    log!(NETLINK_SOCKET_CLOSED, times);
                }
                self.monitor = None;
            }
        }
    }
}

/// A subscription to address changes.
struct Monitor {
    connection: Pin<Box<dyn Future<Output = ()>>>,
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>,
    /// Dropping it ends the connection.
    _handle: Handle,
}

/// The next message of the subscription, or `None` if its socket was closed. Waits while there is no subscription.
async fn heard(monitor: &mut Option<Monitor>) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    poll_fn(|context| {
        let Some(monitor) = monitor else { return Poll::Pending };
        let closed = monitor.connection.poll_unpin(context).is_ready();
        match monitor.messages.poll_next_unpin(context) {
            Poll::Ready(message) => Poll::Ready(message),
            Poll::Pending if closed => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The subscription that is being opened. Waits while there is none.
async fn opened(opening: &mut Option<Opening>) -> (Monitor, Assigned, Throttle) {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// Subscribes, and then lists: changes after the list arrive through the subscription.
async fn open(mut throttle: Throttle) -> (Monitor, Assigned, Throttle) {
    loop {
        let subscribed =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Ifaddr]).map_err(KernelError::Socket);
        let opened = match subscribed {
            Ok((connection, handle, messages)) => {
                let messages = Box::pin(messages.map(|(message, _)| message));
                let monitor = Monitor { connection: Box::pin(connection), messages, _handle: handle };
                assigned().await.map(|assigned| (monitor, assigned))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((monitor, assigned)) => return (monitor, assigned, throttle),
            Err(error) => {
                if let Some(times) = throttle.say(error.to_string()) {
                    log!(NETLINK_FAILED, %error, times);
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::netlink::namespace::{inside, ip};
    use crate::netlink::processor;

    const NETWORK_NAMESPACE: &[&str] = &["-Urn"];
    /// For conditions that must come true, also on a busy machine.
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    fn address(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    fn on(ip: &str, interfaces: &[&str]) -> (Ipv4Addr, BTreeSet<InterfaceName>) {
        let name = |name: &&str| InterfaceName::try_from(*name).expect("a name");
        (address(ip), interfaces.iter().map(name).collect())
    }

    impl Addresses {
        fn last(&self) -> Option<&Local> {
            self.reported.as_ref().map(|(local, _)| local)
        }
    }

    /// Waits until the addresses satisfy a condition.
    async fn wait(addresses: &mut Addresses, what: &str, until: impl Fn(&Local) -> bool) {
        let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
        while !addresses.last().is_some_and(&until) {
            if tokio::time::timeout_at(deadline, addresses.changed()).await.is_err() {
                panic!("{what}: {:?}", addresses.last());
            }
        }
    }

    #[test]
    fn the_ports_of_route_sockets_are_read() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                    00000000a19005e1 0   2893296698 00000000 0        0        0     2        0        43420\n\
                    00000000f88f3488 15  60         00000111 0        0        0     2        0        43418\n\
                    00000000f88f3489 0   61         00000111 0        0        0     2        0        43419\n\
                    0000 0\n0000 0 x\n\n";
        assert_eq!(ports(text.as_bytes()).expect("read"), BTreeSet::from([61, 2_893_296_698]));
        assert!(ports(io::repeat(b'\n')).is_err(), "a socket that is not seen is not closed");
    }

    #[tokio::test]
    async fn who_puts_an_address_there_is_known_a_second_later() {
        if !inside("netlink::addresses::tests::who_puts_an_address_there_is_known_a_second_later", NETWORK_NAMESPACE) {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        ip("address add 10.99.0.1/24 dev eth0");
        let mut addresses = Addresses::new();
        wait(&mut addresses, "the first list", |local| local.len() == 1).await;
        ip("address add 10.99.0.2/24 dev eth0");
        ip("address add 10.99.0.3/24 dev eth0");
        // A process that keeps running.
        let (connection, handle, _) = rtnetlink::new_connection().expect("a socket");
        let connection = tokio::spawn(connection);
        let eth0 = addresses.assigned.keys().next().expect("its own address").index;
        for last in [4, 5] {
            let address = IpAddr::V4(Ipv4Addr::new(10, 99, 0, last));
            handle.address().add(eth0, address, 24).execute().await.expect("added");
        }
        let by = |addresses: &Addresses| -> BTreeMap<Ipv4Addr, PutBy> {
            let puts = addresses.reported.iter().flat_map(|(_, puts)| puts);
            puts.filter_map(|(ip, on)| Some((*ip, *on.values().next()?))).collect()
        };
        let (command, process) = (PutBy::Command, PutBy::Process);
        let all = [(2, command), (3, command), (4, process), (5, process)];
        let expected = |of: &[(u8, PutBy)]| -> BTreeMap<Ipv4Addr, PutBy> {
            of.iter().map(|(last, by)| (Ipv4Addr::new(10, 99, 0, *last), *by)).collect()
        };
        let began = Instant::now();
        while by(&addresses) != expected(&all) {
            let in_time = tokio::time::timeout(Duration::from_secs(10), addresses.changed()).await;
            assert!(in_time.is_ok(), "{:?}", by(&addresses));
        }
        assert!(began.elapsed() >= Duration::from_millis(900), "not before a command has had time to end");
        // An address that is removed and added again gets a new origin.
        ip("address delete 10.99.0.4/24 dev eth0");
        ip("address add 10.99.0.4/24 dev eth0");
        ip("address delete 10.99.0.3/24 dev eth0");
        let then = [(2, command), (4, command), (5, process)];
        while by(&addresses) != expected(&then) {
            let in_time = tokio::time::timeout(Duration::from_secs(10), addresses.changed()).await;
            assert!(in_time.is_ok(), "{:?}", by(&addresses));
        }
        // The origin stays known: keepalived may have ended meanwhile.
        connection.abort();
        drop(handle);
        let later = tokio::time::timeout(Duration::from_millis(1_500), addresses.changed()).await;
        assert!(later.is_err(), "{later:?}");
    }

    #[tokio::test]
    async fn addresses_are_listed_and_followed() {
        if !inside("netlink::addresses::tests::addresses_are_listed_and_followed", NETWORK_NAMESPACE) {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        ip("address add 10.99.0.1/24 dev eth0");
        let mut addresses = Addresses::new();
        assert!(addresses.last().is_none());
        wait(&mut addresses, "the first list", |s| s.contains_key(&address("10.99.0.1"))).await;
        assert_eq!(list().await.expect("listed"), Local::from([on("10.99.0.1", &["eth0"])]));

        // As keepalived adds a virtual address, and the same one in another form.
        ip("address add 10.99.0.100/32 dev eth0");
        wait(&mut addresses, "an address that came", |s| s.contains_key(&address("10.99.0.100"))).await;
        ip("address add 10.99.0.100/24 dev eth0 label eth0:vip");
        ip("address add 10.99.0.100/32 dev eth1");
        ip("address del 10.99.0.100/32 dev eth0");
        ip("address add 10.99.0.101/32 dev eth0");
        wait(&mut addresses, "the next address", |s| s.contains_key(&address("10.99.0.101"))).await;
        assert_eq!(addresses.last(), Some(&list().await.expect("listed")));
        let (vip, both) = on("10.99.0.100", &["eth0", "eth1"]);
        assert_eq!(addresses.last().and_then(|s| s.get(&vip)), Some(&both), "a label is no other interface");
        ip("address del 10.99.0.100/24 dev eth0");
        ip("address add 10.99.0.102/32 dev eth0");
        wait(&mut addresses, "one more", |s| s.contains_key(&address("10.99.0.102"))).await;
        assert!(addresses.last().expect("known").contains_key(&address("10.99.0.100")), "eth1 has it still");
        ip("link set eth1 name eth2");
        ip("address add 10.99.0.103/32 dev eth0");
        wait(&mut addresses, "one more", |s| s.contains_key(&address("10.99.0.103"))).await;
        assert_eq!(list().await.expect("listed").get(&vip), Some(&on("10.99.0.100", &["eth2"]).1), "renamed");
        ip("link set eth2 name eth1");
        ip("address del 10.99.0.100/32 dev eth1");
        wait(&mut addresses, "the last of three assignments went", |s| !s.contains_key(&address("10.99.0.100"))).await;
        let (local, puts) = addresses.reported.clone().expect("a report");
        // The kernel notifies of the lifetime, which is not reported.
        ip("address change 10.99.0.101/32 dev eth0 valid_lft 1000 preferred_lft 1000");
        // Only that the processes are known which added the others may be reported.
        if let Ok(report) = tokio::time::timeout(Duration::from_millis(50), addresses.changed()).await {
            assert_eq!(report.0, local, "no change, no report");
            assert_ne!(report.1, puts, "no change, no report");
        }

        ip("address add 10.99.0.200 peer 10.99.0.201/32 dev eth1");
        wait(&mut addresses, "a peer address", |s| s.contains_key(&address("10.99.0.200"))).await;
        assert!(
            !addresses.last().expect("known").contains_key(&address("10.99.0.201")),
            "the peer's address is not a local one"
        );
        ip("link del eth1");
        wait(&mut addresses, "the interfaces were removed", Local::is_empty).await;
        assert_eq!(list().await.expect("listed"), Local::new());
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        if !inside("netlink::addresses::tests::a_wait_that_is_dropped_loses_nothing", NETWORK_NAMESPACE) {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        let mut addresses = Addresses::new();
        let deadline = Instant::now() + TEST_TIMEOUT;
        let mut added = 0;
        while addresses.last().is_none_or(|s| s.len() < 20) {
            assert!(Instant::now() < deadline, "{:?}", addresses.last());
            if added < 20 {
                added += 1;
                ip(&format!("address add 10.99.0.{added}/32 dev eth0"));
            }
            tokio::select! {
                biased;
                _ = addresses.changed() => {}
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(addresses.last(), Some(&list().await.expect("listed")));
    }

    #[tokio::test]
    async fn messages_that_the_kernel_dropped_lead_to_a_new_list() {
        if !inside("netlink::addresses::tests::messages_that_the_kernel_dropped_lead_to_a_new_list", NETWORK_NAMESPACE)
        {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        let mut addresses = Addresses::new();
        wait(&mut addresses, "the first list", |_| true).await;
        let total = 5_000;
        let mut batch = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
        let mut lines = String::new();
        for n in 0..total {
            lines += &format!("address add 10.98.{}.{}/32 dev eth0\n", n / 250, n % 250);
        }
        let mut input = batch.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, lines.as_bytes()).expect("written");
        drop(input);
        assert!(batch.wait().expect("waited").success());
        let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
        while addresses.monitor.is_some() {
            let message = tokio::time::timeout_at(deadline, heard(&mut addresses.monitor)).await;
            let message = message.unwrap_or_else(|_| panic!("the kernel dropped none of {total} messages"));
            assert!(message.is_some(), "the socket was closed");
            addresses.apply(message);
        }
        wait(&mut addresses, "all of them", |s| s.len() == total).await;
        ip("address add 10.99.0.100/32 dev eth0");
        wait(&mut addresses, "the next one", |s| s.contains_key(&address("10.99.0.100"))).await;
        let deadline = Instant::now() + TEST_TIMEOUT;
        let cost = loop {
            let before = processor::time();
            match list().await {
                Ok(listed) => {
                    assert_eq!(listed.len(), total + 1);
                    break processor::time() - before;
                }
                // A list has a bound of a second, which a busy machine may exceed.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert!(cost < Duration::from_millis(500), "{cost:?} of processor time for {total} addresses");
    }
}
