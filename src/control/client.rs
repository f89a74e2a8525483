//! The client of the control socket, for commands that block meanwhile.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;

use super::{ErrorResponse, Request, protocol};

/// The status of 10,000 addresses is shorter, ten times as many as an instance has room for.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// The agent did not carry out the request. `show_status::no_answer` has the texts, with what to do.
#[derive(Debug)]
pub enum ClientError {
    /// No process listens on the socket.
    NotRunning(io::Error),
    /// The socket's mode forbids it.
    NotPermitted,
    /// The connection failed.
    Io(io::Error),
    /// There was no answer in time.
    TimedOut(Duration),
    /// The answer is not one of this protocol.
    InvalidResponse(String),
    /// The agent's error response.
    Refused(ErrorResponse),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    timeout: Duration,
}

impl Client {
    /// Connects. `timeout` bounds each call.
    ///
    /// # Errors
    /// [`ClientError`]: the agent does not run, access is denied, or the agent is too busy to accept.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = connect(path).map_err(|error| match error {
            Errno::NOENT | Errno::CONNREFUSED => ClientError::NotRunning(error.into()),
            Errno::ACCESS | Errno::PERM => ClientError::NotPermitted,
            Errno::AGAIN => ClientError::TimedOut(Duration::ZERO),
            _ => ClientError::Io(error.into()),
        })?;
        Ok(Self { stream, timeout })
    }

    /// Sends a request, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]. After anything but [`ClientError::Refused`] the connection cannot be used any more.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let line = protocol::request_line(request).map_err(|e| self.io(e.into()))?;
        self.stream.set_nonblocking(false).map_err(|e| self.io(e))?;
        self.stream.set_write_timeout(Some(self.timeout)).map_err(|e| self.io(e))?;
        // With too many connections the agent answers and closes without reading. The answer can be read all the same.
        match self.stream.write_all(line.as_bytes()) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(self.io(error)),
        }
        let line = self.line(deadline)?;
        protocol::parse_answer(&line).map_err(ClientError::InvalidResponse)?.map_err(ClientError::Refused)
    }

    /// Reads up to the end of a line.
    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut(self.timeout));
            }
            self.stream.set_read_timeout(Some(left)).map_err(|e| self.io(e))?;
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::InvalidResponse("the connection ended before it".to_owned())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.io(error)),
            };
            if line.len() + count > MAX_RESPONSE_BYTES {
                return Err(ClientError::InvalidResponse(format!("it is longer than {MAX_RESPONSE_BYTES} bytes")));
            }
            line.extend_from_slice(&buffer[..count]);
            // An answer is one line, and nothing follows it before the next request.
            if line.last() == Some(&b'\n') {
                return Ok(line);
            }
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut(self.timeout),
            _ => ClientError::Io(source),
        }
    }
}

/// Connects without blocking: connect(2) would block for ever while the queue of an agent that accepts nothing is full.
fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::Value;
    use vipa_core::report::model::Report;

    use super::*;
    use crate::control::ResponseCode;

    /// For a client that gets no answer.
    const SHORT_TIMEOUT: Duration = Duration::from_millis(300);
    /// For a client that gets one, on a busy machine too.
    const LONG_TIMEOUT: Duration = Duration::from_secs(20);

    fn status() -> Request {
        Request::Status { fresh: false, history: 0 }
    }

    /// Calls a listener that reads one request and answers with these bytes.
    fn call<T: DeserializeOwned>(answer: impl Into<Vec<u8>>) -> Result<T, ClientError> {
        let answer = answer.into();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut buffer = [0; 1000];
            let count = stream.read(&mut buffer).expect("read");
            // The client may close early.
            let _ = stream.write_all(&answer);
            buffer[..count].to_vec()
        });
        let called = Client::connect(&path, LONG_TIMEOUT).and_then(|mut client| client.call(&status()));
        let request = agent.join().expect("no panic");
        assert_eq!(String::from_utf8_lossy(&request), "{\"format\":1,\"fresh\":false,\"request\":\"status\"}\n");
        called
    }

    #[test]
    fn an_answer_is_read_and_rubbish_is_named() {
        assert_eq!(call::<u8>(b"{\"format\":1,\"ok\":7}\n").expect("answered"), 7);
        match call::<Value>(b"{\"format\":1,\"error\":{\"code\":\"refused\",\"message\":\"paused\"}}\n") {
            Err(ClientError::Refused(refusal)) => {
                assert_eq!(refusal, ErrorResponse::new(ResponseCode::Refused, "paused"))
            }
            other => panic!("{other:?}"),
        }
        match call::<Value>(b"{\"format\":1,\"error\":{\"code\":\"of-tomorrow\",\"message\":\"new\"}}\n") {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal, ErrorResponse::new(ResponseCode::Other, "new")),
            other => panic!("{other:?}"),
        }
        for rubbish in
            [b"\x00\xff\n".as_slice(), b"{\"format\":2,\"ok\":1}\n", b"{\"format\":1}\n", b"{\"format\":1,\"ok", b""]
        {
            let error = call::<Value>(rubbish).expect_err("rubbish");
            assert!(matches!(error, ClientError::InvalidResponse(_)), "{rubbish:?}: {error:?}");
        }
    }

    /// Root is the client of an agent that is not root, so no answer may cost much more memory than its length.
    #[test]
    fn an_answer_that_would_use_up_the_memory_is_refused() {
        let before = peak();
        for (fill, end, reason) in [
            ("x", "", "it is longer than 16777216 bytes"),
            ("0,", "0]}}\n", "missing field"),
            ("{},", "0]}}\n", "missing field"),
            ("[", "\n", "EOF"),
        ] {
            let mut answer = br#"{"format":1,"ok":{"groups":[],"surprise":["#.to_vec();
            let length = if end.is_empty() { MAX_RESPONSE_BYTES } else { 2 << 20 };
            answer.extend(fill.as_bytes().iter().cycle().take(length / fill.len() * fill.len()));
            answer.extend(end.as_bytes());
            let error = call::<Report>(answer).expect_err(reason);
            let matches = matches!(&error, ClientError::InvalidResponse(why) if why.contains(reason));
            assert!(matches, "{reason}: {error:?}");
        }
        // Up to four copies of the answer exist: the test's, and those while the client's buffer grows.
        let grown = peak() - before;
        assert!(grown < 6 * MAX_RESPONSE_BYTES / 1024, "{grown} KiB");
    }

    /// The peak memory of this process, in KiB.
    fn peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn an_agent_that_is_not_there_or_does_not_answer_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let error = Client::connect(&path, SHORT_TIMEOUT).expect_err("no listener");
        assert!(matches!(error, ClientError::NotRunning(_)), "{error:?}");

        let listener = UnixListener::bind(&path).expect("bound");
        let start = Instant::now();
        let mut client = Client::connect(&path, SHORT_TIMEOUT).expect("connected");
        assert!(matches!(client.call::<Value>(&status()), Err(ClientError::TimedOut(_))));
        assert!(start.elapsed() < LONG_TIMEOUT, "{:?}", start.elapsed());

        // While an agent accepts nothing its queue fills up, and connecting does not block.
        let mut waiting = Vec::new();
        let full = loop {
            match Client::connect(&path, SHORT_TIMEOUT) {
                Ok(client) => waiting.push(client),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10_000, "the queue has no end");
        };
        assert!(matches!(full, ClientError::TimedOut(_)), "{full:?}");
        drop(listener);
        assert!(matches!(Client::connect(&path, SHORT_TIMEOUT), Err(ClientError::NotRunning(_))));
    }
}
