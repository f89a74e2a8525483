//! A server with the answers of a test: for invalid answers, which EC2 and IMDS do not give, and for exactly timed ones.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::Timestamp;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: String,
    /// The number of its connection, from 1.
    pub connection: usize,
}

impl Request {
    /// A parameter of EC2's query protocol, whose values need no decoding here.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The access key id that the request is signed with.
    pub fn key(&self) -> &str {
        let (_, rest) = self.headers["authorization"].split_once("Credential=").expect("a credential");
        rest.split_once('/').expect("a scope").0
    }

    /// The time that it is signed with.
    pub fn signed_at(&self) -> Timestamp {
        let date = &self.headers["x-amz-date"];
        jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%z", date.replace('Z', "+0000"))
            .and_then(|broken_down| broken_down.to_timestamp())
            .unwrap_or_else(|e| panic!("{date}: {e}"))
    }
}

pub enum Answer {
    /// Status, more header lines, body.
    Text(u16, String, String),
    /// No answer on an open connection.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// An endless body.
    Endless,
}

pub struct Scripted {
    pub url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// The requests so far.
    pub fn log(&self) -> Vec<Request> {
        self.log.lock().expect("the log").clone()
    }
}

/// Serves on a free port until the process ends.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Scripted {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (answer, shared) = (Arc::new(answer), log.clone());
    thread::spawn(move || {
        for (connection, stream) in (1..).zip(listener.incoming()) {
            let (answer, log) = (answer.clone(), shared.clone());
            thread::spawn(move || converse(stream.expect("a connection"), connection, &*answer, &log));
        }
    });
    Scripted { url, log }
}

fn converse(mut stream: TcpStream, connection: usize, answer: &dyn Fn(&Request) -> Answer, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    while let Some(request) = read(&mut reader, connection) {
        let answer = {
            log.lock().expect("the log").push(request.clone());
            answer(&request)
        };
        let written = match answer {
            Answer::Text(status, headers, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes())
            }
            Answer::Hang => continue,
            Answer::Close => return,
            Answer::Endless => {
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                let mut written = stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n");
                while written.is_ok() {
                    written = stream.write_all(chunk.as_bytes());
                }
                written
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body).ok()?;
    Some(Request { line: line.trim_end().to_owned(), headers, body, connection })
}

pub fn ok(body: impl Into<String>) -> Answer {
    Answer::Text(200, String::new(), body.into())
}

/// An answer to AssignPrivateIpAddresses that assigns the requested addresses.
pub fn assigned(request: &Request) -> Answer {
    let items: String = (1..)
        .map_while(|n| request.parameter(&format!("PrivateIpAddress.{n}")))
        .map(|address| format!("<item><privateIpAddress>{address}</privateIpAddress></item>"))
        .collect();
    Answer::Text(
        200,
        "x-amzn-requestid: 0f0e-1d\r\n".to_owned(),
        format!(
            "<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet>{items}</assignedPrivateIpAddressesSet>\
             </AssignPrivateIpAddressesResponse>"
        ),
    )
}

/// A response of DescribeNetworkInterfaces without interfaces.
pub fn no_interface() -> Answer {
    ok("<DescribeNetworkInterfacesResponse><networkInterfaceSet/></DescribeNetworkInterfacesResponse>")
}

/// An error in EC2's format.
pub fn refused(status: u16, code: &str, message: &str) -> Answer {
    Answer::Text(
        status,
        "x-amzn-requestid: 0f0e-2d\r\n".to_owned(),
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>0f0e-2d</RequestID></Response>"
        ),
    )
}

/// The same answer with a Date.
pub fn dated(answer: Answer, date: Timestamp) -> Answer {
    match answer {
        Answer::Text(status, headers, body) => {
            let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
            Answer::Text(status, format!("{headers}date: {date}\r\n"), body)
        }
        other => other,
    }
}
