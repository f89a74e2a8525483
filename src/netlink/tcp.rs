//! What the kernel knows of a TCP connection of this network namespace, over sock_diag(7).
//!
//! The SDK's HTTP client gives no access to its sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `INET_DIAG_INFO` (linux/inet_diag.h): the attribute that holds a `struct tcp_info`.
const INFO: u16 = 2;
/// The sizes of `struct nlmsghdr` and `struct inet_diag_msg`.
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 72;
/// An answer has some 400 bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// How far the other end has acknowledged what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgements {
    /// The bytes that were written to the connection and are not acknowledged.
    pub missing: u32,
    /// The bytes that have been acknowledged since the connection was opened.
    pub received: u64,
    /// The smoothed round-trip time.
    pub round_trip: Duration,
}

/// The state of the connection between these addresses. The kernel answers at once.
///
/// # Errors
/// There is no such connection, or the kernel cannot be asked.
pub fn acknowledgements(local: SocketAddr, remote: SocketAddr) -> io::Result<Acknowledgements> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, &request(local, remote), SendFlags::empty())?;
    let mut answer = [0; MAX_ANSWER_BYTES];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    parse(&answer[..length])
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` for one connection.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    /// `NLM_F_REQUEST`.
    const REQUEST: u16 = 1;
    const REQUEST_BYTES: u32 = HEADER_BYTES as u32 + 56;
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = Vec::with_capacity(REQUEST_BYTES as usize);
    bytes.extend(REQUEST_BYTES.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Sequence number and port.
    bytes.extend([0; 8]);
    bytes.extend([family.as_raw() as u8, TCP, 1 << (INFO - 1), 0]);
    // In any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    [local, remote].iter().for_each(|address| bytes.extend(address.port().to_be_bytes()));
    for address in [local, remote] {
        let mut octets = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets = ip.octets(),
        }
        bytes.extend(octets);
    }
    // Any interface; no cookie (`INET_DIAG_NOCOOKIE`).
    bytes.extend([0; 4]);
    bytes.extend([u8::MAX; 8]);
    bytes
}

fn parse(answer: &[u8]) -> io::Result<Acknowledgements> {
    /// `NLMSG_ERROR`.
    const ERROR: u16 = 2;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "invalid answer of sock_diag");
    let u16_at = |bytes: &[u8], at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let u32_at = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    match u16_at(answer, 4).ok_or_else(invalid)? {
        BY_FAMILY => {}
        ERROR => {
            let code = u32_at(answer, HEADER_BYTES).ok_or_else(invalid)?;
            return Err(io::Error::from_raw_os_error((code as i32).wrapping_neg()));
        }
        _ => return Err(invalid()),
    }
    // `idiag_wqueue`: for TCP, from the oldest byte without an acknowledgement to the last one written.
    let missing = u32_at(answer, HEADER_BYTES + 60).ok_or_else(invalid)?;
    let mut attributes = answer.get(HEADER_BYTES + MESSAGE_BYTES..).ok_or_else(invalid)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        if kind == INFO {
            let info = attributes.get(4..length).ok_or_else(invalid)?;
            // `tcpi_rtt`, in microseconds, and `tcpi_bytes_acked`.
            let round_trip = u32_at(info, 68).ok_or_else(invalid)?;
            let received = info.get(120..128).and_then(|bytes| bytes.try_into().ok()).ok_or_else(invalid)?;
            return Ok(Acknowledgements {
                missing,
                received: u64::from_ne_bytes(received),
                round_trip: Duration::from_micros(round_trip.into()),
            });
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Err(invalid())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::sleep;

    use super::*;

    #[test]
    fn bytes_are_missing_until_the_other_end_takes_them() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).expect("a free port");
            let remote = listener.local_addr().expect("its address");
            let mut client = TcpStream::connect(remote).expect("a connection");
            let local = client.local_addr().expect("its address");
            let (mut server, _) = listener.accept().expect("the connection");
            assert_eq!(acknowledgements(local, remote).expect("a state").missing, 0);

            // More than the buffers of both ends hold.
            client.set_nonblocking(true).expect("set");
            let mut sent = 0;
            while let Ok(count) = client.write(&[0; 1 << 16]) {
                sent += count;
            }
            let full = acknowledgements(local, remote).expect("a state");
            assert!(full.missing > 0 && full.round_trip < Duration::from_secs(5), "{full:?}");
            server.read_exact(&mut vec![0; sent]).expect("all of it");
            let received = loop {
                let seen = acknowledgements(local, remote).expect("a state");
                if seen.missing == 0 {
                    break seen.received;
                }
                sleep(Duration::from_millis(1));
            };
            // The kernel counts the SYN as well.
            assert!((sent..=sent + 1).contains(&(received as usize)), "{received} of {sent}");

            let missing = acknowledgements(local, SocketAddr::new(remote.ip(), 1)).expect_err("no such connection");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{missing}");
        }
    }

    #[test]
    fn broken_answers_are_errors() {
        for length in [0, 4, HEADER_BYTES, HEADER_BYTES + MESSAGE_BYTES, HEADER_BYTES + MESSAGE_BYTES + 6] {
            let mut answer = vec![0; length];
            if let Some(kind) = answer.get_mut(4..6) {
                kind.copy_from_slice(&BY_FAMILY.to_ne_bytes());
            }
            parse(&answer).expect_err("too short");
        }
    }
}
