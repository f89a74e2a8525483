//! The IPv4 addresses of this network namespace: all of them now, and every change as it happens.
//!
//! keepalived puts a virtual address on an interface as MASTER and takes it away otherwise, so that its presence is
//! evidence of the VRRP state where keepalived says nothing.
//!
//! Cancel safety: [`Addresses::changed`] keeps the subscription and a list that is being read in `self`; a message that was
//! taken from the socket is applied before the next await. [`list`] has no effect to lose.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use rustix::net::{AddressFamily as SocketFamily, SocketType};
use tracing::warn;

use super::KernelError;
use crate::names::InterfaceName;

/// How long to wait after the kernel refused.
const PAUSE: Duration = Duration::from_secs(1);

/// The IPv4 addresses at one moment, each with the interfaces that have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(BTreeMap<Ipv4Addr, BTreeSet<Interface>>);

/// An interface that has an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name; absent for a moment when it is being removed.
    pub name: Option<InterfaceName>,
}

impl Snapshot {
    /// Whether any interface has the address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains_key(&address)
    }

    /// The interfaces that have the address, in the order of their indexes.
    pub fn interfaces(&self, address: Ipv4Addr) -> impl Iterator<Item = &Interface> {
        self.0.get(&address).into_iter().flatten()
    }

    /// All addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.keys().copied()
    }
}

/// Asks the kernel now. It takes well under a millisecond, and at most a second.
///
/// # Errors
/// [`KernelError`].
pub async fn list() -> Result<Snapshot, KernelError> {
    Ok(snapshot(&assigned().await?))
}

/// One assignment. The kernel tells assignments of the same address apart by interface and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Assignment {
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
}

impl Assignment {
    /// `IFA_LOCAL` is the interface's own address; `IFA_ADDRESS` is the other end's on a point-to-point link
    /// (linux/if_addr.h).
    fn of(message: &AddressMessage) -> Option<Self> {
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
        Some(Self { index: message.header.index, address, prefix: message.header.prefix_len })
    }
}

async fn assigned() -> Result<BTreeSet<Assignment>, KernelError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let all = super::list("addresses", RouteNetlinkMessage::GetAddress(request), |message| match message {
        RouteNetlinkMessage::NewAddress(message) => Assignment::of(&message),
        _ => None,
    });
    Ok(all.await?.into_iter().collect())
}

/// Adds the names, as they are now.
fn snapshot(assigned: &BTreeSet<Assignment>) -> Snapshot {
    let socket = rustix::net::socket(SocketFamily::INET, SocketType::DGRAM, None).ok();
    let mut names = BTreeMap::new();
    let mut snapshot = Snapshot::default();
    for Assignment { index, address, .. } in assigned {
        let name = names.entry(*index).or_insert_with(|| {
            let name = rustix::net::netdevice::index_to_name(socket.as_ref()?, *index).ok()?;
            InterfaceName::try_from(name).ok()
        });
        snapshot.0.entry(*address).or_default().insert(Interface { index: *index, name: name.clone() });
    }
    snapshot
}

/// A subscription on its way, with the list that it begins with.
type Opening = Pin<Box<dyn Future<Output = (Monitor, BTreeSet<Assignment>)>>>;

/// The addresses as they change.
pub struct Addresses {
    monitor: Option<Monitor>,
    /// A new subscription and the list that goes with it, while they are on their way.
    opening: Option<Opening>,
    assigned: BTreeSet<Assignment>,
    reported: Option<Snapshot>,
    overruns: u64,
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

impl Addresses {
    /// Nothing is known yet: the first [`Addresses::changed`] says what there is.
    pub fn new() -> Self {
        Self { monitor: None, opening: None, assigned: BTreeSet::new(), reported: None, overruns: 0 }
    }

    /// The addresses as last reported by [`Addresses::changed`]; nothing before the first time.
    pub fn last(&self) -> Option<&Snapshot> {
        self.reported.as_ref()
    }

    /// How often the kernel dropped messages, so that everything was listed anew.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Waits until the addresses are other than last reported. Where the kernel refuses, it is asked again each second.
    pub async fn changed(&mut self) -> &Snapshot {
        loop {
            if self.monitor.is_none() && self.opening.is_none() {
                self.opening = Some(Box::pin(open()));
            }
            tokio::select! {
                biased;
                message = heard(&mut self.monitor) => self.apply(message),
                (monitor, assigned) = opened(&mut self.opening) => {
                    self.opening = None;
                    self.monitor = Some(monitor);
                    self.assigned = assigned;
                }
            }
            while let Some(message) = heard(&mut self.monitor).now_or_never() {
                self.apply(message);
            }
            if self.monitor.is_some() && self.opening.is_none() {
                let now = snapshot(&self.assigned);
                if self.reported.as_ref() != Some(&now) {
                    return self.reported.insert(now);
                }
            }
        }
    }

    fn apply(&mut self, message: Option<NetlinkMessage<RouteNetlinkMessage>>) {
        match message.map(|m| m.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message))) => {
                self.assigned.extend(Assignment::of(&message));
            }
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message))) => {
                if let Some(gone) = Assignment::of(&message) {
                    self.assigned.remove(&gone);
                }
            }
            Some(NetlinkPayload::Overrun(_)) => {
                self.overruns += 1;
                self.monitor = None;
            }
            Some(_) => {}
            None => {
                warn!("the netlink socket was closed");
                self.monitor = None;
            }
        }
    }
}

/// A subscription to address changes.
struct Monitor {
    connection: Pin<Box<dyn Future<Output = ()>>>,
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>,
    /// Without it the connection ends.
    _handle: Handle,
}

/// The next message of the subscription, or nothing when its socket was closed. Waits while there is no subscription.
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

/// What is on its way. Waits while nothing is.
async fn opened(opening: &mut Option<Opening>) -> (Monitor, BTreeSet<Assignment>) {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// Subscribes, and then lists: what changes after the list comes through the subscription.
async fn open() -> (Monitor, BTreeSet<Assignment>) {
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
            Ok(opened) => return opened,
            Err(error) => warn!(%error, "the addresses of this router cannot be read, and are tried again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::kernel::namespace::{inside, ip};

    const NETWORK: &[&str] = &["-Urn"];

    fn address(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    fn names(snapshot: &Snapshot, of: &str) -> Vec<String> {
        snapshot.interfaces(address(of)).filter_map(|i| i.name.as_ref()).map(ToString::to_string).collect()
    }

    /// Waits until the addresses are as they should be.
    async fn wait(addresses: &mut Addresses, what: &str, until: impl Fn(&Snapshot) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !addresses.last().is_some_and(&until) {
            if tokio::time::timeout_at(deadline, addresses.changed()).await.is_err() {
                panic!("{what}: {:?}", addresses.last());
            }
        }
    }

    #[tokio::test]
    async fn addresses_are_listed_and_followed() {
        if !inside("kernel::addresses::tests::addresses_are_listed_and_followed", NETWORK) {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        ip("address add 10.99.0.1/24 dev eth0");
        let mut addresses = Addresses::new();
        assert!(addresses.last().is_none());
        wait(&mut addresses, "the first list", |s| s.contains(address("10.99.0.1"))).await;
        assert_eq!(names(&list().await.expect("listed"), "10.99.0.1"), ["eth0"]);

        // As keepalived adds a virtual address, and the same one in another form.
        ip("address add 10.99.0.100/32 dev eth0");
        wait(&mut addresses, "an address that came", |s| names(s, "10.99.0.100") == ["eth0"]).await;
        ip("address add 10.99.0.100/24 dev eth0 label eth0:vip");
        ip("address add 10.99.0.100/32 dev eth1");
        wait(&mut addresses, "on two interfaces", |s| names(s, "10.99.0.100").len() == 2).await;
        assert_eq!(addresses.last(), Some(&list().await.expect("listed")));
        ip("address del 10.99.0.100/32 dev eth0");
        ip("address add 10.99.0.101/32 dev eth0");
        wait(&mut addresses, "the next address", |s| s.contains(address("10.99.0.101"))).await;
        assert_eq!(names(addresses.last().expect("known"), "10.99.0.100").len(), 2, "one of two assignments went");
        ip("address del 10.99.0.100/24 dev eth0");
        wait(&mut addresses, "the second one too", |s| names(s, "10.99.0.100") == ["eth1"]).await;
        assert!(
            tokio::time::timeout(Duration::from_millis(50), addresses.changed()).await.is_err(),
            "no change, no report"
        );

        ip("address add 10.99.0.200 peer 10.99.0.201/32 dev eth1");
        wait(&mut addresses, "a peer address", |s| s.contains(address("10.99.0.200"))).await;
        assert!(!addresses.last().expect("known").contains(address("10.99.0.201")), "the peer's is not ours");
        ip("link del eth1");
        wait(&mut addresses, "the interfaces were removed", |s| s.addresses().next().is_none()).await;
        assert_eq!(list().await.expect("listed"), Snapshot::default());
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        if !inside("kernel::addresses::tests::a_wait_that_is_dropped_loses_nothing", NETWORK) {
            return;
        }
        ip("link add eth0 type veth peer name eth1");
        let mut addresses = Addresses::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut added = 0;
        while addresses.last().is_none_or(|s| s.addresses().count() < 20) {
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
        if !inside("kernel::addresses::tests::messages_that_the_kernel_dropped_lead_to_a_new_list", NETWORK) {
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
        wait(&mut addresses, "all of them", |s| s.addresses().count() == total).await;
        assert!(addresses.overruns() > 0, "the kernel dropped none of {total} messages");
        ip("address add 10.99.0.100/32 dev eth0");
        wait(&mut addresses, "the next one", |s| s.contains(address("10.99.0.100"))).await;
        let before = Instant::now();
        list().await.expect("listed");
        assert!(before.elapsed() < Duration::from_millis(500), "{:?} for {total} addresses", before.elapsed());
    }
}
