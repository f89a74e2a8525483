//! What is measured beside the product: two ways in which people do it today, and the least that it can take.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lab::simulator::{Request, Simulator, Timeout};
use lab::{EC2, Router, said};
use nix::sched::{CloneFlags, setns};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::resources::Kind;

/// The access key of [`lab::world`], and its secret: a static user's, which costs the peers no call to IMDS.
const ACCESS_KEY: [&str; 2] = ["AKIAVIPAEXAMPLE00001", "vipa-example-secret"];

/// The claim of a script, and the move of routes or Elastic IPs.
const SCRIPT: &str = include_str!("claim.py");
const MOVE: &str = include_str!("move.py");

/// A script with boto3, or the AWS CLI, from a Python environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The way of scripts that keepalived calls: DescribeInstances, then AssignPrivateIpAddresses.
    Boto3,
    /// The way of Pacemaker's awsvip: describe, then assign, a process each.
    Cli,
}

impl Peer {
    /// Claims the address for the router's first interface, as a transition script would. Returns the moment before its
    /// start; it has ended well.
    ///
    /// # Panics
    /// If it fails.
    pub fn claim(self, router: &Router, environment: &Path, address: Ipv4Addr) -> Instant {
        let began = Instant::now();
        match self {
            Peer::Boto3 => {
                let (own, address) = (router.primaries[0].to_string(), address.to_string());
                run(router, environment, "python", &["-c", SCRIPT, &own, &address]);
            }
            Peer::Cli => {
                let (address, query) = (address.to_string(), "Reservations[].Instances[].NetworkInterfaces[]");
                let describe = ["ec2", "describe-instances", "--instance-ids", &router.instance, "--query", query];
                run(router, environment, "aws", &describe);
                let assign = ["ec2", "assign-private-ip-addresses", "--network-interface-id", &router.enis[0]];
                let what = ["--private-ip-addresses", &address, "--allow-reassignment"];
                run(router, environment, "aws", &[assign.as_slice(), &what].concat());
            }
        }
        began
    }

    /// Takes routes or Elastic IPs for the router's first interface, one after the other, as a transition script would. Each
    /// has its route table and destination, or its allocation and private address.
    ///
    /// # Panics
    /// If it fails.
    pub fn take(self, router: &Router, environment: &Path, kind: Kind, places: &[[String; 2]]) {
        let eni = router.enis[0].as_str();
        match self {
            Peer::Boto3 => {
                let kind = match kind {
                    Kind::Route => "route",
                    Kind::ElasticIp => "elastic-ip",
                };
                let places: Vec<String> = places.iter().map(|place| place.join("=")).collect();
                let places = places.iter().map(String::as_str);
                let arguments: Vec<&str> = ["-c", MOVE, kind, eni].into_iter().chain(places).collect();
                run(router, environment, "python", &arguments);
            }
            Peer::Cli => places.iter().for_each(|place| {
                let [what, place] = place.each_ref().map(String::as_str);
                let aws = |arguments: &[&str]| run(router, environment, "aws", arguments);
                match kind {
                    // What Pacemaker's aws-vpc-move-ip does for each table.
                    Kind::Route => {
                        let query =
                            format!("RouteTables[*].Routes[?DestinationCidrBlock=='{place}'].NetworkInterfaceId");
                        aws(&["ec2", "describe-route-tables", "--route-table-ids", what, "--query", &query]);
                        let route = ["--route-table-id", what, "--destination-cidr-block", place];
                        aws(&[["ec2", "replace-route", "--network-interface-id", eni].as_slice(), &route].concat());
                    }
                    // What its awseip does: it does not look before.
                    Kind::ElasticIp => {
                        let from = ["--allocation-id", what, "--allow-reassociation"];
                        let to = ["--network-interface-id", eni, "--private-ip-address", place];
                        aws(&[["ec2", "associate-address"].as_slice(), &from, &to].concat());
                    }
                }
            }),
        }
    }
}

fn run(router: &Router, environment: &Path, program: &str, arguments: &[&str]) {
    let mut command: Command = router.command(environment.join("bin").join(program));
    command.args(arguments).envs([
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY[0]),
        ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY[1]),
        ("AWS_CA_BUNDLE", "/run/lab/ca.pem"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_PAGER", ""),
    ]);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
}

/// A bare TLS connection from a router, without anything of the SDK.
pub struct Bare(StreamOwned<ClientConnection, TcpStream>);

impl Bare {
    /// Connects to EC2 from the router, and ends when the handshake is done.
    ///
    /// # Errors
    /// The connection's.
    pub fn connect(router: &Router, simulator: &Simulator, ec2: SocketAddr) -> io::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(EC2).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let socket = connect_from(router.network_namespace(), ec2)?;
        socket.set_nodelay(true)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// Sends a request and reads its answer. Returns the moment before.
    ///
    /// # Errors
    /// The connection's, and an answer without a length.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Instant> {
        let began = Instant::now();
        self.0.write_all(request)?;
        self.0.flush()?;
        read_message(&mut self.0)?;
        Ok(began)
    }
}

/// Connects in a network namespace: in a thread of its own, since entering one changes the whole thread.
fn connect_from(namespace: PathBuf, to: SocketAddr) -> io::Result<TcpStream> {
    let file = File::open(namespace)?;
    let connecting = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        TcpStream::connect(to)
    });
    connecting.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
}

/// Reads one HTTP/1.1 message with a Content-Length.
fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(head) = message.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let length: usize = length.ok_or_else(|| io::Error::other(format!("no length: {text}")))?;
            if message.len() >= head + 4 + length {
                return Ok(message);
            }
        }
        match from.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => message.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Stands in for EC2 over plain HTTP until the first claim comes, and gives its bytes. All else is refused.
///
/// # Errors
/// No claim comes within the time.
pub fn record_claim(listener: &TcpListener, within: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    listener.set_nonblocking(true)?;
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // A client that is killed leaves a connection without a whole request.
        let Ok(request) = read_message(&mut stream) else { continue };
        if String::from_utf8_lossy(&request).contains("Action=AssignPrivateIpAddresses") {
            return Ok(request);
        }
        let unavailable = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(unavailable);
    }
}

/// The claim of that address, of the requests from that number on.
///
/// # Errors
/// There is none that succeeded within 10 s; shows what came instead.
pub fn claim_of(simulator: &Simulator, address: Ipv4Addr, from: usize) -> Result<Request, Timeout> {
    simulator.wait_for(&format!("a claim of {address}"), Duration::from_secs(10), |simulator| {
        simulator.requests_from(from).into_iter().find(|request| request.claims(address) && request.succeeded())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_whole_request_do_not_end_the_recording() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = listener.local_addr().expect("its address");
        let send = move |bytes: &[u8]| {
            let mut stream = TcpStream::connect(to).expect("connected");
            stream.write_all(bytes).expect("sent");
            stream
        };
        let claim = b"POST / HTTP/1.1\r\nContent-Length: 31\r\n\r\nAction=AssignPrivateIpAddresses";
        // Closed at once, in the middle of a request, and with a request of another kind that waits for no answer.
        drop(send(b""));
        drop(send(&claim[..40]));
        drop(send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
        let open = send(claim);
        assert_eq!(record_claim(&listener, Duration::from_secs(30)).expect("a claim"), claim);
        drop(open);
        let error = record_claim(&listener, Duration::from_millis(10)).expect_err("no claim");
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }
}
