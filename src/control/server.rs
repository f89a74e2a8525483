//! The agent's end of the control socket.
//!
//! The socket has mode 0660 and belongs to the agent's user and its group, vyos-aws-vipa; root may open any file. Among
//! the users who can open it only root may change something: the kernel reports the user of the peer (SO_PEERCRED,
//! unix(7)).
//!
//! Everything is bounded: the number of connections, the length of a line, the time to receive a line, the time for the
//! agent to answer, and the time to send the answer.
//!
//! Cancel safety: [`Server::run`] owns the tasks of its connections, and they end with it. A request that the agent has
//! accepted is carried out even if the client is gone.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use super::protocol::{self, MAX_REQUEST_BYTES};
use super::{ErrorResponse, Request, Response, ResponseCode};
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// How many connections root may have at once, and all other users together as many.
pub const MAX_CONNECTIONS: usize = 16;

/// How long a client may take to send or receive a line.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the agent may take: a fresh status waits for EC2, whose longest request-timeout is 30 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(40);

/// How long to wait after accept(2) has failed, for example because there are no file descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// A request that its sender is permitted to make.
#[derive(Debug)]
pub struct PermittedRequest {
    pub request: Request,
    /// Where the answer goes. The client may be gone.
    pub answer: oneshot::Sender<Response>,
}

/// The socket, listening.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// The open file holds the lock.
    _lock: File,
}

/// Why the socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another agent holds {0}")]
    Running(PathBuf),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The permits for connections. Other users cannot use up root's.
struct Permits {
    root: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Permits {
    fn new() -> Self {
        let [root, others] = [(); 2].map(|()| Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        Self { root, others }
    }

    /// A permit for a connection of this user.
    fn take(&self, uid: u32) -> Option<OwnedSemaphorePermit> {
        let permits = if uid == 0 { &self.root } else { &self.others };
        Arc::clone(permits).try_acquire_owned().ok()
    }
}

impl Server {
    /// Creates the socket, and replaces that of an earlier agent. Its directory must exist (RuntimeDirectory of the
    /// unit). Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`]: another agent runs, or the system's error.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let lock = lock(path)?;
        // Renamed into place, so that the socket is never missing and never has another mode.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o660))?;
        fs::rename(&new, path)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Passes each request to the agent, until the agent accepts no more.
    pub async fn run(self, agent: mpsc::Sender<PermittedRequest>) {
        let mut connections = JoinSet::new();
        let permits = Permits::new();
        let mut throttle = LogThrottle::default();
        while !agent.is_closed() {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // A client that is gone needs no permit.
                        let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { continue };
                        match permits.take(uid) {
                            Some(permit) => _ = connections.spawn(serve(stream, uid, permit, agent.clone())),
                            None => turn_away(&stream),
                        }
                    }
                    Err(error) => {
                        if let Some(times) = throttle.say(error.kind()) {
                            log!(CONNECTION_NOT_ACCEPTED, %error, socket = %self.path.display(), times);
                        }
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = agent.closed() => {}
            }
        }
    }
}

/// Locks the file beside the socket: two agents would claim against each other, and the second would take over the
/// socket of the first.
fn lock(socket: &Path) -> Result<File, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    // The agent's user owns the directory, and root may start the second agent.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(BindError::Running(path.into())),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Tries once, without waiting, to send a client the error for too many connections.
fn turn_away(stream: &UnixStream) {
    let refusal = ErrorResponse::new(
        ResponseCode::Busy,
        format!("the agent serves {MAX_CONNECTIONS} connections already: try again"),
    );
    let _ = stream.try_write(protocol::answer_line(&Err(refusal)).as_bytes());
}

/// Serves one connection, line by line.
async fn serve(stream: UnixStream, uid: u32, _permit: OwnedSemaphorePermit, agent: mpsc::Sender<PermittedRequest>) {
    let (from, mut to) = stream.into_split();
    let mut lines = FramedRead::new(from, LinesCodec::new_with_max_length(MAX_REQUEST_BYTES));
    loop {
        let (answer, last) = match timeout(CLIENT_TIMEOUT, lines.next()).await {
            Err(_) | Ok(None) => return,
            Ok(Some(Ok(line))) => (answer(&line, uid, &agent).await, false),
            Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => (
                Err(ErrorResponse::new(
                    ResponseCode::BadRequest,
                    format!("the line is longer than {MAX_REQUEST_BYTES} bytes"),
                )),
                true,
            ),
            Ok(Some(Err(LinesCodecError::Io(error)))) if error.kind() == io::ErrorKind::InvalidData => {
                (Err(ErrorResponse::new(ResponseCode::BadRequest, "the line is not UTF-8")), true)
            }
            Ok(Some(Err(LinesCodecError::Io(_)))) => return,
        };
        if !sent(&mut to, &answer).await || last {
            return;
        }
    }
}

async fn answer(line: &str, uid: u32, agent: &mpsc::Sender<PermittedRequest>) -> Response {
    let request = protocol::parse_request(line)?;
    request.permitted(uid)?;
    let (sender, receiver) = oneshot::channel();
    let answered = async {
        let permitted = PermittedRequest { request, answer: sender };
        agent.send(permitted).await.ok()?;
        receiver.await.ok()
    };
    match timeout(AGENT_TIMEOUT, answered).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(ErrorResponse::new(ResponseCode::Busy, "the agent is ending: try again")),
        Err(_) => {
            let message = format!("the agent did not answer within {} s", AGENT_TIMEOUT.as_secs());
            Err(ErrorResponse::new(ResponseCode::Busy, message))
        }
    }
}

async fn sent(to: &mut OwnedWriteHalf, answer: &Response) -> bool {
    let line = protocol::answer_line(answer);
    matches!(timeout(CLIENT_TIMEOUT, to.write_all(line.as_bytes())).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream as Plain;
    use std::time::Instant;

    use serde_json::{Value, json};
    use vipa_core::model::ids::GroupName;

    use super::*;
    use crate::control::Encoded;
    use crate::control::client::{Client, ClientError};
    use crate::netlink::namespace::inside;

    const TEST_TIMEOUT: Duration = Duration::from_secs(5);

    /// The agent of these tests: it has the group `a`, and answers a fresh status with a long text.
    async fn agent(mut calls: mpsc::Receiver<PermittedRequest>) {
        let mut paused = Vec::new();
        while let Some(PermittedRequest { request, answer }) = calls.recv().await {
            let response = match request {
                Request::Status { fresh: false, .. } | Request::Failovers => Encoded::new(&json!({"paused": paused})),
                Request::Status { fresh: true, .. } => Encoded::new(&"x".repeat(1 << 20)),
                Request::Claim { group } => {
                    Err(ErrorResponse::new(ResponseCode::Refused, format!("{group} is paused")))
                }
                Request::Pause { group, minutes } => {
                    paused.push(group.to_string());
                    Encoded::new(&minutes.get())
                }
                // Dropped without an answer.
                Request::Resume { .. } | Request::Prove => continue,
            };
            let _ = answer.send(response);
        }
    }

    struct Running {
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    /// Starts a server with its agent, on a thread of its own until the test ends.
    fn start() -> Running {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let there = path.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(&there).expect("bound");
                ready.send(()).expect("the test waits");
                let (sender, receiver) = mpsc::channel(4);
                tokio::join!(server.run(sender), agent(receiver));
            });
        });
        is_ready.recv_timeout(TEST_TIMEOUT).expect("the server listens");
        Running { path, _directory: directory }
    }

    /// Sends bytes, closes the sending side, and reads all that follows.
    fn exchange(path: &Path, bytes: &[u8]) -> String {
        let mut stream = Plain::connect(path).expect("connected");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("set");
        // The server may close before everything is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("UTF-8")
    }

    fn group() -> GroupName {
        GroupName::try_from("a").expect("a name")
    }

    #[test]
    fn requests_are_answered_in_order_on_one_connection() {
        // The test is root in a user namespace of its own, whichever user runs it.
        if !inside("control::server::tests::requests_are_answered_in_order_on_one_connection", &["-Ur"]) {
            return;
        }
        let running = start();
        let mut client = Client::connect(&running.path, TEST_TIMEOUT).expect("connected");
        let minutes = 5.try_into().expect("in range");
        let pause = Request::Pause { group: group(), minutes };
        assert_eq!(client.call::<Value>(&pause).expect("paused"), json!(5));
        assert_eq!(
            client.call::<Value>(&Request::Status { fresh: false, history: 0 }).expect("answered"),
            json!({"paused": ["a"]})
        );
        let large = client.call::<Value>(&Request::Status { fresh: true, history: 0 }).expect("answered");
        assert_eq!(large.as_str().map(str::len), Some(1 << 20));
        match client.call::<Value>(&Request::Claim { group: group() }) {
            Err(ClientError::Refused(refusal)) => {
                assert_eq!(refusal, ErrorResponse::new(ResponseCode::Refused, "a is paused"))
            }
            other => panic!("{other:?}"),
        }
        match client.call::<Value>(&Request::Resume { group: group() }) {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, ResponseCode::Busy),
            other => panic!("{other:?}"),
        }
        let two = "{\"format\":1,\"request\":\"status\"}\n".repeat(2);
        assert_eq!(exchange(&running.path, two.as_bytes()).lines().count(), 2);
    }

    #[test]
    fn rubbish_is_refused_and_the_next_client_is_served() {
        let running = start();
        let long = vec![b'x'; 1 << 20];
        let deep = "[".repeat(MAX_REQUEST_BYTES - 1) + "\n";
        for (bytes, expected) in [
            (b"\x00\xff\xfe\n".as_slice(), "not UTF-8"),
            (b"\x7fELF\x01\x02\n", "invalid request"),
            (b"GET / HTTP/1.1\r\n", "invalid request"),
            (b"{\"format\":1,\"request\":\"sta", "EOF"),
            (b"\n", "EOF"),
            (&long, "longer than 4096 bytes"),
            (deep.as_bytes(), "invalid request"),
            (b"{\"format\":9,\"request\":\"status\"}\n", "newer-format"),
        ] {
            let answer = exchange(&running.path, bytes);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            assert!(answer.contains(expected) && answer.starts_with(r#"{"error":{"code":"#), "{shown:?}: {answer:?}");
        }
        assert_eq!(exchange(&running.path, b""), "");
        // The lines after a bad one are served, as long as the end of that one can be found.
        let answer = exchange(&running.path, b"rubbish\n{\"format\":1,\"request\":\"status\"}\n");
        let [refused, served] = answer.lines().collect::<Vec<_>>()[..] else { panic!("{answer}") };
        assert!(refused.contains("bad-request") && served.contains(r#""ok":{"paused":[]}"#), "{answer}");
    }

    #[test]
    fn a_half_line_is_waited_for_and_a_silent_client_is_not() {
        let running = start();
        let mut stream = Plain::connect(&running.path).expect("connected");
        stream.set_read_timeout(Some(CLIENT_TIMEOUT * 2)).expect("set");
        for part in ["{\"format\":1,", "\"request\":\"status\"}", "\n"] {
            stream.write_all(part.as_bytes()).expect("written");
            std::thread::yield_now();
        }
        let mut answer = [0; 100];
        let count = stream.read(&mut answer).expect("answered");
        assert!(answer[..count].ends_with(b"\n"), "{:?}", String::from_utf8_lossy(&answer[..count]));
        stream.write_all(b"{\"form").expect("written");
        // Within twice the bound, which is the timeout of the read.
        assert_eq!(stream.read(&mut answer).expect("closed"), 0);
    }

    #[test]
    fn too_many_connections_are_turned_away_and_served_later() {
        let running = start();
        let held: Vec<Plain> =
            (0..MAX_CONNECTIONS).map(|_| Plain::connect(&running.path).expect("connected")).collect();
        let status = Request::Status { fresh: false, history: 0 };
        let ask = || Client::connect(&running.path, TEST_TIMEOUT).and_then(|mut client| client.call::<Value>(&status));
        match ask() {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, ResponseCode::Busy),
            other => panic!("{other:?}"),
        }
        drop(held);
        let deadline = Instant::now() + TEST_TIMEOUT;
        while let Err(error) = ask() {
            assert!(Instant::now() < deadline, "{error:?}");
        }
    }

    #[tokio::test]
    async fn the_socket_of_an_agent_before_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        drop(Server::bind(&path).expect("bound"));
        assert!(path.exists(), "it stays");
        assert!(matches!(Client::connect(&path, TEST_TIMEOUT), Err(ClientError::NotRunning(_))));
        fs::write(directory.path().join("agent.sock.new"), "left by a crash").expect("written");
        let server = Server::bind(&path).expect("bound again");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        let (sender, receiver) = mpsc::channel(1);
        let asked = tokio::task::spawn_blocking(move || {
            Client::connect(&path, TEST_TIMEOUT)
                .and_then(|mut client| client.call::<Value>(&Request::Status { fresh: false, history: 0 }))
        });
        tokio::select! {
            () = server.run(sender) => panic!("the server ended"),
            () = agent(receiver) => panic!("the agent ended"),
            answer = asked => assert_eq!(answer.expect("no panic").expect("answered"), json!({"paused": []})),
        }
        assert!(Server::bind(&directory.path().join("missing/agent.sock")).is_err());
    }

    #[tokio::test]
    async fn a_second_agent_is_refused_and_the_socket_of_the_first_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let first = Server::bind(&path).expect("bound");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).expect("there"));
        let before = inode();
        let error = Server::bind(&path).expect_err("there is one");
        assert!(matches!(&error, BindError::Running(lock) if lock.ends_with("agent.sock.lock")), "{error:?}");
        assert_eq!(inode(), before);
        drop(first);
        Server::bind(&path).expect("bound");
        // A symbolic link of the agent's user is not followed.
        let elsewhere = directory.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, directory.path().join("other.sock.lock")).expect("linked");
        let error = Server::bind(&directory.path().join("other.sock")).expect_err("a link");
        assert!(matches!(error, BindError::Io(_)) && !elsewhere.exists(), "{error:?}");
    }

    #[test]
    fn others_leave_roots_permits_free() {
        let permits = Permits::new();
        let held: Vec<_> = (0..MAX_CONNECTIONS as u32).map(|n| permits.take(1_000 + n).expect("a permit")).collect();
        assert!(permits.take(1_000).is_none() && permits.take(65_534).is_none());
        let roots: Vec<_> = (0..MAX_CONNECTIONS).map(|_| permits.take(0).expect("a permit")).collect();
        assert!(permits.take(0).is_none());
        drop(held);
        assert!(permits.take(1_000).is_some() && permits.take(0).is_none());
        drop(roots);
        assert!(permits.take(0).is_some());
    }

    #[tokio::test]
    async fn a_request_of_another_user_never_reaches_the_agent() {
        let (sender, mut receiver) = mpsc::channel(1);
        let refusal = answer(r#"{"format":1,"request":"claim","group":"a"}"#, 1000, &sender).await;
        assert_eq!(refusal.expect_err("refused").code, ResponseCode::NotPermitted);
        assert!(receiver.try_recv().is_err(), "the agent got the request");
    }

    #[tokio::test]
    async fn the_server_ends_with_the_agent() {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::bind(&directory.path().join("agent.sock")).expect("bound");
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        timeout(TEST_TIMEOUT, server.run(sender)).await.expect("it ends");
    }
}
