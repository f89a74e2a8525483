//! Observes a router independently of the program that is shown: the advertisements that reach it, and what keepalived
//! writes to VyOS's own FIFO.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lab::Router;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// VRRP's protocol number (RFC 9568 and 5798, 5.1.1.4).
const VRRP: u32 = 112;

/// Where VyOS has keepalived write; its own reader does not run here.
const FIFO: &str = "/run/keepalived/keepalived_notify_fifo";

/// How late a line may be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Observes one router. Only one witness may read its FIFO.
pub struct Witness {
    /// The senders of the advertisements that reach it.
    pub heard: Seen<Ipv4Addr>,
    /// The lines that keepalived writes; those that waited already come first.
    pub written: Seen<String>,
}

impl Witness {
    /// Observes the router until keepalived ends.
    ///
    /// # Panics
    /// If keepalived has made no FIFO.
    pub fn of(router: &Router) -> Self {
        Self { heard: advertisements(router), written: lines(router) }
    }

    /// When keepalived first wrote the state from `start` on, slightly later than it did.
    ///
    /// # Panics
    /// If it did not, or nothing was observed for too long.
    pub fn wrote(&self, start: Timestamp, state: &str) -> Timestamp {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.written.first(start, |line| is_state(line, state)) {
                return at;
            }
            assert!(Instant::now() < deadline, "nothing seen within {PATIENCE:?}: keepalived writes {state}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a line such as `INSTANCE "vyos-aws" MASTER 200` says that state.
pub fn is_state(line: &str, state: &str) -> bool {
    line.split(' ').rev().nth(1) == Some(state)
}

/// Observations, each with its time.
pub struct Seen<T>(Arc<Mutex<Vec<(Timestamp, T)>>>);

impl<T: Clone> Seen<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn add(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Timestamp::now(), thing));
    }

    fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// The first from `start` on that `is_it`.
    pub fn first(&self, start: Timestamp, is_it: impl Fn(&T) -> bool) -> Option<Timestamp> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().find(|(at, thing)| *at >= start && is_it(thing)).map(|(at, _)| *at)
    }

    /// The last before `end` that `is_it`.
    pub fn last(&self, end: Timestamp, is_it: impl Fn(&T) -> bool) -> Option<Timestamp> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().rev().find(|(at, thing)| *at < end && is_it(thing)).map(|(at, _)| *at)
    }
}

fn advertisements(router: &Router) -> Seen<Ipv4Addr> {
    let seen = Seen::new();
    let heard = seen.share();
    let namespace = File::open(router.network_namespace()).expect("the router's namespace");
    thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns(2)");
        let protocol = Protocol::from_raw(NonZeroU32::new(VRRP).expect("not 0"));
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol));
        let socket = socket.expect("a raw socket");
        let mut packet = [MaybeUninit::uninit(); 1500];
        loop {
            let ((packet, _), _) = recv(&socket, &mut packet, RecvFlags::empty()).expect("a packet");
            // The IPv4 header comes first, with the source at 12 (RFC 791, 3.1).
            if let Some([a, b, c, d]) = packet.get(12..16) {
                heard.add(Ipv4Addr::new(*a, *b, *c, *d));
            }
        }
    });
    seen
}

fn lines(router: &Router) -> Seen<String> {
    let seen = Seen::new();
    let read = seen.share();
    let fifo = File::open(router.path(FIFO)).expect("keepalived's FIFO");
    thread::spawn(move || {
        for line in BufReader::new(fifo).lines().map_while(Result::ok) {
            read.add(line);
        }
    });
    seen
}
