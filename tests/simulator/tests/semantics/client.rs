//! A plain HTTP client without signatures, and the setup of the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use simulator::{AccessKey, Listener, Simulator, World};

pub const R1: &str = "eni-0a000000000000001";
pub const R2: &str = "eni-0a000000000000002";
pub const THIRD_PARTY: &str = "eni-0a000000000000003";
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const SOON: Duration = Duration::from_secs(10);
/// A key without a secret, so that the value of signatures is not checked: these tests do not sign.
pub const KEY: &str = "AKIAVIPAUNSIGNED0001";

/// One keep-alive connection.
pub struct Client(pub BufReader<TcpStream>);

pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn code(&self) -> &str {
        between(&self.body, "<Code>", "</Code>").unwrap_or("Success")
    }
}

pub fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

impl Client {
    pub fn new(listener: &Listener) -> Client {
        let stream = TcpStream::connect(listener.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Client(BufReader::new(stream))
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub fn receive(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = between(&head, "content-length: ", "\r\n").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            body: String::from_utf8(body).unwrap(),
            headers: head,
        })
    }

    pub fn send_ec2(&mut self, scope: &str, clock: jiff::Timestamp, extra: &str, query: &str) {
        let date = clock.strftime("%Y%m%dT%H%M%SZ");
        let headers = format!(
            "X-Amz-Date: {date}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={scope}, \
             SignedHeaders=host;x-amz-date, Signature=00\r\n{extra}"
        );
        self.send("POST", "/", &headers, &format!("Version=2016-11-15&Action={query}"));
    }

    /// Sends a valid request.
    pub fn send_query(&mut self, query: &str) {
        let scope = format!("{KEY}/20260101/eu-west-1/ec2/aws4_request");
        self.send_ec2(&scope, jiff::Timestamp::now(), "", query);
    }

    pub fn ask(&mut self, query: &str) -> Answer {
        self.send_query(query);
        self.receive().unwrap()
    }

    pub fn claim(&mut self, eni: &str, addresses: &[Ipv4Addr]) -> Answer {
        self.ask(&claim(eni, addresses, true))
    }

    pub fn imds(&mut self, token: &str, path: &str) -> Answer {
        self.send("GET", path, &format!("X-aws-ec2-metadata-token: {token}\r\n"), "");
        self.receive().unwrap()
    }
}

pub fn claim(eni: &str, addresses: &[Ipv4Addr], reassign: bool) -> String {
    let mut query = format!("AssignPrivateIpAddresses&NetworkInterfaceId={eni}&AllowReassignment={reassign}");
    for (index, address) in addresses.iter().enumerate() {
        query.push_str(&format!("&PrivateIpAddress.{}={address}", index + 1));
    }
    query
}

pub fn find(address: Ipv4Addr) -> String {
    format!("DescribeNetworkInterfaces&Filter.1.Name=addresses.private-ip-address&Filter.1.Value.1={address}")
}

pub fn world() -> World {
    unsigned(World::two_routers())
}

/// The world with prompt reads, and with that key.
pub fn unsigned(world: World) -> World {
    let mut world = world.stale_reads(Duration::ZERO);
    world.access_keys.push(AccessKey { id: KEY.to_owned(), ..AccessKey::default() });
    world
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn start(world: World) -> (Simulator, Listener, Client) {
    let simulator = Simulator::start(world).unwrap();
    let listener = simulator.serve_ec2_http(any_port(), None).unwrap();
    let client = Client::new(&listener);
    (simulator, listener, client)
}
