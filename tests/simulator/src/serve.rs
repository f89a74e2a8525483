//! Listeners in any network namespace, and the handling of a request: from its connection through the faults to the service,
//! and back.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sched::CloneFlags;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::cloud::{ApiError, Cloud};
use crate::ec2;
use crate::faults::{Effect, Plan, denial};
use crate::ids::InstanceId;
use crate::imds;
use crate::log::{Moment, Outcome, Request, Service};
use crate::simulator::{Shared, State};

/// The size limit of a request's body.
const MAX_BODY: usize = 1 << 20;

/// The service of a listener, over HTTP or TLS, and the instance of IMDS.
#[derive(Clone)]
pub(crate) enum Role {
    Ec2(Option<TlsAcceptor>),
    Imds(InstanceId),
}

impl Role {
    fn service(&self) -> Service {
        match self {
            Role::Ec2(_) => Service::Ec2,
            Role::Imds(_) => Service::Imds,
        }
    }
}

/// A listening address of the simulator. It serves until it is stopped or the last
/// [`Simulator`](crate::Simulator) handle is gone; dropping this handle changes nothing.
#[derive(Clone)]
pub struct Listener(Arc<Inner>);

struct Inner {
    number: usize,
    address: SocketAddr,
    role: Role,
    namespace: Option<(PathBuf, File)>,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    mute: Arc<AtomicBool>,
    running: Mutex<Option<(AbortHandle, mpsc::Receiver<()>)>>,
}

impl Listener {
    pub(crate) fn open(
        number: usize,
        address: SocketAddr,
        namespace: Option<&Path>,
        role: Role,
        shared: Arc<Shared>,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Listener> {
        let namespace = match namespace {
            None => None,
            Some(path) => {
                let file = File::open(path)
                    .map_err(|error| context(error, format!("network namespace {}", path.display())))?;
                Some((path.to_owned(), file))
            }
        };
        let socket = bind(address, namespace.as_ref())?;
        let listener = Listener(Arc::new(Inner {
            number,
            address: socket.local_addr()?,
            role,
            namespace,
            shared,
            runtime,
            mute: Arc::default(),
            running: Mutex::new(None),
        }));
        listener.serve(socket)?;
        Ok(listener)
    }

    /// Its number, which requests in the log have.
    pub fn number(&self) -> usize {
        self.0.number
    }

    /// Its address and port.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Its service.
    pub fn service(&self) -> Service {
        self.0.role.service()
    }

    /// `http://…` or `https://…` with its address.
    pub fn url(&self) -> String {
        let scheme = match self.0.role {
            Role::Ec2(Some(_)) => "https",
            _ => "http",
        };
        format!("{scheme}://{}", self.0.address)
    }

    /// Closes the socket and all its connections: new ones are refused from now on. Requests that
    /// are being handled are still performed.
    pub fn stop(&self) {
        if let Some((task, gone)) = self.running().take() {
            task.abort();
            // The expected error: the task has dropped the sender, after the socket.
            let _ = gone.recv();
        }
    }

    /// Listens again, on the same address and in the same namespace. Does nothing while it runs.
    pub fn start(&self) -> io::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        self.serve(bind(self.0.address, self.0.namespace.as_ref())?)
    }

    /// Whether it listens.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// While set, new connections are accepted, but not answered, without even a TLS handshake.
    pub fn mute(&self, mute: bool) {
        self.0.mute.store(mute, Ordering::SeqCst);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<(AbortHandle, mpsc::Receiver<()>)>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = {
            let _inside = self.0.runtime.enter();
            tokio::net::TcpListener::from_std(socket)?
        };
        let (alive, gone) = mpsc::channel();
        let open = Open { socket, _alive: alive };
        let inner = Arc::clone(&self.0);
        let task = self.0.runtime.spawn(async move {
            // Moves all of it into the task, so that even a task that never ran drops its fields in order.
            let open = open;
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((stream, peer)) = open.socket.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let connection = Arc::new(Connection {
                    listener: inner.number,
                    number: inner.shared.next_connection(),
                    peer,
                    role: inner.role.clone(),
                    shared: Arc::clone(&inner.shared),
                    active: Mutex::new(Instant::now()),
                });
                let mute = inner.mute.load(Ordering::SeqCst);
                connections.spawn(async move {
                    let acceptor = match &connection.role {
                        _ if mute => {
                            let _stream = stream;
                            return std::future::pending().await;
                        }
                        Role::Ec2(Some(acceptor)) => Some(acceptor.clone()),
                        _ => None,
                    };
                    match acceptor {
                        None => connection.speak(stream).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection.speak(stream).await;
                            }
                        }
                    }
                });
            }
        });
        *self.running() = Some((task.abort_handle(), gone));
        Ok(())
    }
}

/// The socket of a running listener. Fields are dropped in order, so [`Listener::stop`] sees the end of the channel once the
/// socket is closed.
struct Open {
    socket: tokio::net::TcpListener,
    _alive: mpsc::Sender<()>,
}

/// Binds in the namespace. Entering a namespace changes the whole thread, so a separate one does it.
fn bind(address: SocketAddr, namespace: Option<&(PathBuf, File)>) -> io::Result<TcpListener> {
    let listen = || TcpListener::bind(address).map_err(|error| context(error, format!("listening on {address}")));
    let Some((path, file)) = namespace else {
        return listen();
    };
    std::thread::scope(|scope| {
        let bound = scope.spawn(|| {
            nix::sched::setns(file, CloneFlags::CLONE_NEWNET)
                .map_err(|error| context(error.into(), format!("entering {}", path.display())))?;
            listen()
        });
        bound.join().unwrap_or_else(|_| Err(io::Error::other("the binding thread panicked")))
    })
}

fn context(error: io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

struct Connection {
    listener: usize,
    number: usize,
    peer: SocketAddr,
    role: Role,
    shared: Arc<Shared>,
    /// When the last request came or was answered.
    active: Mutex<Instant>,
}

/// What happens to a connection after a request.
enum Answer {
    Send(Reply),
    Close,
    Silence,
}

impl Connection {
    async fn speak(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| Arc::clone(&self).respond(request));
        // An error: the client has closed the connection, or a fault closes it. The log has the outcome.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn respond(self: Arc<Self>, request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        if self.was_dropped() {
            return std::future::pending().await;
        }
        let arrived = Moment::now();
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
        let call = match &self.role {
            Role::Ec2(_) => Call::Ec2(Box::new(ec2::Call::read(parts, body))),
            Role::Imds(instance) => Call::Imds(Box::new(parts), instance.clone()),
        };
        // A separate task, so that a request is performed even if its client gives up.
        let task = tokio::spawn(Arc::clone(&self).exchange(call, arrived));
        let answer = task.await.map_err(io::Error::other)?;
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match answer {
            Answer::Send(reply) => reply.into_response(),
            Answer::Close => Err(io::Error::other("closed by a fault")),
            Answer::Silence => std::future::pending().await,
        }
    }

    /// Whether something on the path has dropped the connection because it was idle: what is sent on it arrives nowhere.
    fn was_dropped(&self) -> bool {
        let bound = self.shared.state().cloud.world.idle_timeout_ms.map(Duration::from_millis);
        let idle = self.active.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        matches!(self.role, Role::Ec2(_)) && bound.is_some_and(|bound| idle > bound)
    }

    async fn exchange(self: Arc<Self>, call: Call, arrived: Moment) -> Answer {
        let (number, request_id, plan) = self.shared.change(|state| {
            let request = self.enter(state, &call, arrived);
            let plan = state.faults.plan(&request);
            let entry = (request.number, request.request_id.clone(), plan);
            state.requests.push(request);
            entry
        });
        let Plan { before, after, perform, effect } = plan;
        sleep(before).await;
        let mut reply = None;
        // A call that changes nothing can be looked at although it is denied.
        let checks_first = effect == Some(Effect::Deny) && {
            let state = self.shared.state();
            let world = &state.cloud.world;
            call.is_dry_run() && world.deny_dry_runs_last
                || call.assigns_primaries(&state.cloud) && world.deny_claims_last
        };
        if effect.is_none() || perform || checks_first {
            reply = Some(self.shared.change(|state| call.perform(state, number, &request_id)));
        }
        sleep(after).await;
        self.shared.change(|state| {
            let injected = |status, code: &str| {
                let error = ApiError::new(status, code, "An injected error");
                call.refuse(&error, &request_id)
            };
            let answer = match (effect, reply) {
                (None, Some(reply)) => Answer::Send(call.dated(state, reply)),
                (None, None) | (Some(Effect::Drop), _) => Answer::Close,
                (Some(Effect::Hang), _) => Answer::Silence,
                (Some(Effect::Error { status, code }), _) => Answer::Send(injected(status, &code)),
                (Some(Effect::Deny), Some(reply)) if checks_first && reply.code != "DryRunOperation" => {
                    Answer::Send(reply)
                }
                (Some(Effect::Deny), _) => Answer::Send(call.refuse(&call.denial(state), &request_id)),
                (Some(Effect::NotXml), _) => {
                    let page = "<html><head><title>Welcome to the hotel</title><body>Sign in & surf";
                    Answer::Send(Reply::xml(200, "NotXml", page.to_owned(), &request_id))
                }
                (Some(Effect::Truncated), reply) => {
                    let mut whole = reply.unwrap_or_else(|| injected(200, ""));
                    whole.body.truncate(whole.body.len() / 2);
                    whole.code = "Truncated".to_owned();
                    Answer::Send(whole)
                }
                (Some(Effect::Huge(bytes)), _) => {
                    let mut body = "<?xml version=\"1.0\"?><Response><junk>".to_owned();
                    body.push_str(&"A".repeat(bytes));
                    Answer::Send(Reply::xml(200, "Huge", body, &request_id))
                }
                (Some(Effect::EndlessPages { interfaces, addresses }), _) => {
                    let body = ec2::endless_page(call.action(), number, interfaces, addresses);
                    Answer::Send(Reply::xml(200, "EndlessPages", body, &request_id))
                }
                (Some(Effect::Bare), _) => Answer::Send(call.bare(&request_id)),
            };
            if let Some(request) = state.requests.get_mut(number) {
                request.outcome = match &answer {
                    Answer::Send(reply) => Outcome::Answered { status: reply.status, code: reply.code.clone() },
                    Answer::Close => Outcome::Dropped,
                    Answer::Silence => Outcome::Hanging,
                };
            }
            answer
        })
    }

    /// The request as the log has it before it is performed.
    fn enter(&self, state: &mut State, call: &Call, arrived: Moment) -> Request {
        let (high, low) = (state.cloud.random(), state.cloud.random());
        let mut request = Request {
            number: state.requests.len(),
            service: self.role.service(),
            arrived: arrived.instant,
            arrived_wall: arrived.wall,
            listener: self.listener,
            connection: self.number,
            peer: self.peer,
            action: String::new(),
            network_interfaces: Vec::new(),
            addresses: Vec::new(),
            route_tables: Vec::new(),
            destination: None,
            allocations: Vec::new(),
            dry_run: false,
            allow_reassignment: false,
            parameters: Vec::new(),
            access_key: None,
            instance: None,
            request_id: format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                high >> 32,
                high >> 16 & 0xffff,
                high & 0xfff,
                low >> 52,
                low & 0xffff_ffff_ffff
            ),
            performed: None,
            performed_wall: None,
            outcome: Outcome::Pending,
        };
        match call {
            Call::Ec2(call) => {
                request.action = call.action.clone();
                request.network_interfaces = call.network_interfaces();
                request.addresses = call.addresses();
                request.route_tables = call.route_tables();
                request.destination = call.destination().map(str::to_owned);
                request.allocations = call.allocations();
                request.dry_run = call.is_dry_run();
                request.allow_reassignment = call.allows_reassignment();
                request.parameters = call.parameters.pairs().to_vec();
                request.access_key = call.access_key().map(str::to_owned);
                request.instance = call.instance(&state.cloud).cloned();
            }
            Call::Imds(parts, instance) => {
                request.action = format!("{} {}", parts.method, parts.uri.path());
                request.instance = Some(instance.clone());
            }
        }
        request
    }
}

async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

enum Call {
    Ec2(Box<ec2::Call>),
    Imds(Box<hyper::http::request::Parts>, InstanceId),
}

impl Call {
    fn perform(&self, state: &mut State, number: usize, request_id: &str) -> Reply {
        let now = Moment::now();
        let reply = match self {
            Call::Ec2(call) => call.perform(&mut state.cloud, now, number, request_id),
            Call::Imds(parts, instance) => imds::perform(&mut state.cloud, &mut state.sessions, now, instance, parts),
        };
        if let Some(request) = state.requests.get_mut(number) {
            request.performed = Some(now.instant);
            request.performed_wall = Some(now.wall);
        }
        reply
    }

    /// EC2's answers have its own clock's time as Date, if that differs from this machine's.
    fn dated(&self, state: &State, reply: Reply) -> Reply {
        match (self, state.cloud.world.clock_ahead_seconds) {
            (Call::Imds(..), _) | (_, 0) => reply,
            (Call::Ec2(_), ahead) => {
                let date = Moment::now().wall + jiff::SignedDuration::from_secs(ahead);
                reply.header("date", &date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            }
        }
    }

    fn refuse(&self, error: &ApiError, request_id: &str) -> Reply {
        match self {
            Call::Ec2(_) => ec2::error_reply(error, request_id),
            Call::Imds(..) => Reply::plain(error.status, &error.message),
        }
    }

    fn is_dry_run(&self) -> bool {
        matches!(self, Call::Ec2(call) if call.is_dry_run())
    }

    fn assigns_primaries(&self, cloud: &Cloud) -> bool {
        matches!(self, Call::Ec2(call) if call.assigns_primaries(cloud))
    }

    fn action(&self) -> &str {
        match self {
            Call::Ec2(call) => &call.action,
            Call::Imds(..) => "",
        }
    }

    fn bare(&self, request_id: &str) -> Reply {
        match self {
            Call::Ec2(call) => call.bare(request_id),
            Call::Imds(..) => Reply::plain(200, "true"),
        }
    }

    fn denial(&self, state: &State) -> ApiError {
        match self {
            Call::Ec2(call) => denial(&call.action, &call.who(&state.cloud)),
            Call::Imds(..) => ApiError::new(403, "Forbidden", "Forbidden"),
        }
    }
}

/// An HTTP answer.
pub(crate) struct Reply {
    status: u16,
    code: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Reply {
    pub(crate) fn xml(status: u16, code: &str, body: String, request_id: &str) -> Reply {
        Reply {
            status,
            code: code.to_owned(),
            headers: vec![
                ("content-type", "text/xml;charset=UTF-8".to_owned()),
                ("x-amzn-requestid", request_id.to_owned()),
                ("cache-control", "no-cache, no-store".to_owned()),
                ("server", "AmazonEC2".to_owned()),
            ],
            body: body.into(),
        }
    }

    pub(crate) fn plain(status: u16, text: &str) -> Reply {
        let code = match status {
            200 => "Success".to_owned(),
            other => other.to_string(),
        };
        Reply {
            status,
            code,
            headers: vec![("content-type", "text/plain".to_owned()), ("server", "EC2ws".to_owned())],
            body: text.to_owned().into(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Reply {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn into_response(self) -> Result<Response<Full<Bytes>>, io::Error> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::builder().status(status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Full::new(self.body)).map_err(io::Error::other)
    }
}
