//! The handle of a running simulator, for tests.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::cloud::{ApiError, Cloud, WorldError};
use crate::faults::{Fault, FaultId, Faults};
use crate::ids::{EniId, InstanceId, VpcId};
use crate::imds::Sessions;
use crate::log::{Cause, Moment, Move, Request, Service};
use crate::serve::{Listener, Role};
use crate::tls::Authority;
use crate::world::{StaleReads, World};

/// A running simulator. Clones are handles of the same one, which ends when the last is dropped.
#[derive(Clone)]
pub struct Simulator(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    authority: Authority,
    listeners: Mutex<Vec<Listener>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct State {
    pub(crate) cloud: Cloud,
    pub(crate) sessions: Sessions,
    pub(crate) faults: Faults,
    pub(crate) requests: Vec<Request>,
    connections: usize,
    changes: u64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes waiting threads.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        state.changes += 1;
        self.changed.notify_all();
        result
    }

    pub(crate) fn next_connection(&self) -> usize {
        let mut state = self.state();
        state.connections += 1;
        state.connections - 1
    }
}

/// A condition did not become true in time. The message shows owners, moves and the last requests.
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub struct Timeout(String);

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Simulator {
    /// Starts a simulator of `world`, with its own certificate authority and without listeners.
    ///
    /// # Errors
    /// The faults of the world.
    pub fn start(world: World) -> Result<Simulator, WorldError> {
        let failed = |what: &str, error: &dyn fmt::Display| WorldError(vec![format!("{what}: {error}")]);
        let cloud = Cloud::build(world)?;
        let authority = Authority::new().map_err(|error| failed("certificate authority", &error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed("runtime", &error))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("simulator".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })
            .map_err(|error| failed("thread", &error))?;
        Ok(Simulator(Arc::new(Running {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    cloud,
                    sessions: Sessions::default(),
                    faults: Faults::default(),
                    requests: Vec::new(),
                    connections: 0,
                    changes: 0,
                }),
                changed: Condvar::new(),
            }),
            runtime: handle,
            authority,
            listeners: Mutex::new(Vec::new()),
            stop: Some(stop),
            thread: Some(thread),
        })))
    }

    /// The certificate of the authority that signs the TLS listeners' certificates.
    pub fn ca_pem(&self) -> &str {
        self.0.authority.pem()
    }

    /// Serves EC2 over HTTP. `netns` is a network namespace file such as `/proc/PID/ns/net`; port 0
    /// takes a free port.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the address not bound.
    pub fn serve_ec2_http(&self, address: SocketAddr, netns: Option<&Path>) -> io::Result<Listener> {
        self.serve(address, netns, Role::Ec2(None))
    }

    /// Serves EC2 over TLS, with a certificate for `dns_names` (IP addresses are allowed too).
    ///
    /// # Errors
    /// As [`serve_ec2_http`](Self::serve_ec2_http), or a name that no certificate can have.
    pub fn serve_ec2_tls(&self, address: SocketAddr, netns: Option<&Path>, dns_names: &[&str]) -> io::Result<Listener> {
        let config = self.0.authority.server_config(dns_names).map_err(io::Error::other)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        self.serve(address, netns, Role::Ec2(Some(acceptor)))
    }

    /// Serves IMDS for `instance`: each client of this listener is taken for that instance.
    ///
    /// # Errors
    /// As [`serve_ec2_http`](Self::serve_ec2_http), or an instance that does not exist.
    pub fn serve_imds(&self, instance: &str, address: SocketAddr, netns: Option<&Path>) -> io::Result<Listener> {
        let id = self.instance(instance).map_err(io::Error::other)?;
        self.serve(address, netns, Role::Imds(id))
    }

    fn serve(&self, address: SocketAddr, netns: Option<&Path>, role: Role) -> io::Result<Listener> {
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let listener =
            Listener::open(listeners.len(), address, netns, role, Arc::clone(&self.0.shared), self.0.runtime.clone())?;
        listeners.push(listener.clone());
        Ok(listener)
    }

    /// All listeners in the order of their numbers.
    pub fn listeners(&self) -> Vec<Listener> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses all connections to a service from now on, and closes those that exist.
    pub fn refuse_connections(&self, service: Service) {
        for listener in self.listeners() {
            if listener.service() == service {
                listener.stop();
            }
        }
    }

    /// Accepts connections to a service again.
    ///
    /// # Errors
    /// An address cannot be bound again.
    pub fn accept_connections(&self, service: Service) -> io::Result<()> {
        self.listeners().iter().filter(|listener| listener.service() == service).try_for_each(Listener::start)
    }

    /// The owner of the address now, in the VPC of the first instance.
    pub fn owner(&self, address: Ipv4Addr) -> Option<EniId> {
        let state = self.0.shared.state();
        state.cloud.owner(&state.cloud.home()?, address).cloned()
    }

    /// The owner of the address of that VPC now.
    pub fn owner_in(&self, vpc: &VpcId, address: Ipv4Addr) -> Option<EniId> {
        self.0.shared.state().cloud.owner(vpc, address).cloned()
    }

    /// Every EC2 request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log(Service::Ec2)
    }

    /// The EC2 requests from that number on: those that arrived after the log had this length.
    pub fn requests_from(&self, number: usize) -> Vec<Request> {
        let state = self.0.shared.state();
        let news = state.requests.get(number..).unwrap_or_default();
        news.iter().filter(|request| request.service == Service::Ec2).cloned().collect()
    }

    /// The number of requests of both services so far, which is the number of the next one.
    pub fn next_number(&self) -> usize {
        self.0.shared.state().requests.len()
    }

    /// Every IMDS request so far.
    pub fn imds_requests(&self) -> Vec<Request> {
        self.log(Service::Imds)
    }

    fn log(&self, service: Service) -> Vec<Request> {
        let state = self.0.shared.state();
        state.requests.iter().filter(|request| request.service == service).cloned().collect()
    }

    /// Every change of an address's owner so far.
    pub fn moves(&self) -> Vec<Move> {
        self.0.shared.state().cloud.journal.addresses.clone()
    }

    /// A third party assigns the address to an interface, by EC2's rules.
    ///
    /// # Errors
    /// EC2's own: the address is not in the subnet, is a primary one, or exceeds the limit.
    pub fn steal(&self, address: Ipv4Addr, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let cause = Cause::ThirdParty;
            state.cloud.assign(Moment::now(), eni.as_ref(), &[address], true, &cause)
        })
    }

    /// A third party unassigns the address.
    ///
    /// # Errors
    /// It is not assigned, or it is a primary address.
    pub fn release(&self, address: Ipv4Addr) -> Result<(), ApiError> {
        let owner = self.owner(address);
        let owner = owner.ok_or_else(|| ApiError::value(format!("{address} is not assigned")))?;
        self.0
            .shared
            .change(|state| state.cloud.unassign(Moment::now(), owner.as_ref(), &[address], &Cause::ThirdParty))
    }

    /// A third party deletes a network interface; its addresses are unassigned.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete_network_interface(&self, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let (id, _) = state.cloud.eni(eni.as_ref())?;
            state.cloud.delete_interface(Moment::now(), &id, &Cause::ThirdParty);
            Ok(())
        })
    }

    /// A third party detaches a network interface from its instance; routes to it become blackholes.
    ///
    /// # Errors
    /// It does not exist.
    pub fn detach_network_interface(&self, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.set_attachment(eni.as_ref(), None)
    }

    /// A third party attaches a network interface to an instance.
    ///
    /// # Errors
    /// One of them does not exist, or the device index is in use.
    pub fn attach_network_interface(
        &self,
        eni: impl AsRef<str>,
        instance: &str,
        device_index: usize,
    ) -> Result<(), ApiError> {
        let attachment = (self.instance(instance)?, device_index);
        if self.0.shared.state().cloud.enis.values().any(|eni| eni.attachment.as_ref() == Some(&attachment)) {
            return Err(ApiError::value(format!("Instance '{instance}' has an interface at index {device_index}")));
        }
        self.set_attachment(eni.as_ref(), Some(attachment))
    }

    fn set_attachment(&self, eni: &str, attachment: Option<(InstanceId, usize)>) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let (id, _) = state.cloud.eni(eni)?;
            if let Some(eni) = state.cloud.enis.get_mut(&id) {
                eni.attachment = attachment;
            }
            Ok(())
        })
    }

    /// Switches the source/destination check of a network interface on or off.
    ///
    /// # Errors
    /// It does not exist.
    pub fn set_source_dest_check(&self, eni: impl AsRef<str>, on: bool) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let (id, _) = state.cloud.eni(eni.as_ref())?;
            if let Some(eni) = state.cloud.enis.get_mut(&id) {
                eni.source_dest_check = on;
            }
            Ok(())
        })
    }

    /// A third party takes all delegated prefixes from a network interface.
    ///
    /// # Errors
    /// It does not exist.
    pub fn unassign_prefixes(&self, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let (id, _) = state.cloud.eni(eni.as_ref())?;
            if let Some(eni) = state.cloud.enis.get_mut(&id) {
                eni.prefixes.clear();
            }
            Ok(())
        })
    }

    /// Whether the source/destination check of a network interface is on.
    ///
    /// # Errors
    /// It does not exist.
    pub fn source_dest_check(&self, eni: impl AsRef<str>) -> Result<bool, ApiError> {
        self.0.shared.state().cloud.eni(eni.as_ref()).map(|(_, eni)| eni.source_dest_check)
    }

    /// The private addresses of a network interface now, the primary one among them.
    ///
    /// # Errors
    /// It does not exist.
    pub fn private_addresses(&self, eni: impl AsRef<str>) -> Result<Vec<Ipv4Addr>, ApiError> {
        let state = self.0.shared.state();
        let (id, _) = state.cloud.eni(eni.as_ref())?;
        Ok(state.cloud.view(Some(Instant::now())).of(&id).iter().map(|assigned| assigned.address).collect())
    }

    /// Stops an instance: routes to its network interfaces become blackholes, its addresses stay.
    ///
    /// # Errors
    /// It does not exist.
    pub fn stop_instance(&self, instance: &str) -> Result<(), ApiError> {
        self.set_running(instance, false)
    }

    /// Starts an instance again.
    ///
    /// # Errors
    /// It does not exist.
    pub fn start_instance(&self, instance: &str) -> Result<(), ApiError> {
        self.set_running(instance, true)
    }

    fn set_running(&self, instance: &str, running: bool) -> Result<(), ApiError> {
        let id = self.instance(instance)?;
        self.0.shared.change(|state| {
            if let Some(instance) = state.cloud.instances.get_mut(&id) {
                instance.running = running;
            }
            Ok(())
        })
    }

    /// Injects a fault from now on.
    pub fn add_fault(&self, fault: Fault) -> FaultId {
        self.0.shared.change(|state| state.faults.add(fault))
    }

    /// Removes a fault, if it still exists.
    pub fn remove_fault(&self, id: FaultId) {
        self.0.shared.change(|state| state.faults.active.retain(|(other, _)| *other != id));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.0.shared.change(|state| state.faults.active.clear());
    }

    /// The active faults.
    pub fn faults(&self) -> Vec<(FaultId, Fault)> {
        self.0.shared.state().faults.active.clone()
    }

    /// Changes how old the state may be that reads show.
    pub fn set_stale_reads(&self, stale: StaleReads) {
        self.0.shared.change(|state| state.cloud.world.stale_reads = stale);
    }

    /// Changes how far EC2's clock is ahead of this machine's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.0.shared.change(|state| state.cloud.world.clock_ahead_seconds = seconds);
    }

    /// Gives the instance's role a new access key that is valid for that time, and returns its id. IMDS returns it from now
    /// on. Previous keys stay valid until they expire.
    ///
    /// # Errors
    /// The instance does not exist or has no role.
    pub fn rotate_credentials(&self, instance: &str, valid: Duration) -> Result<String, ApiError> {
        let id = self.instance(instance)?;
        self.0.shared.change(|state| {
            let role = state.cloud.instances.get(&id).and_then(|instance| instance.role.as_ref());
            let name = role.map(|role| role.name.clone()).ok_or_else(|| no_role(instance))?;
            Ok(state.cloud.give_role_key(&id, &name, valid))
        })
    }

    /// The access key id that IMDS returns to the instance now.
    ///
    /// # Errors
    /// The instance does not exist or has no role.
    pub fn role_access_key(&self, instance: &str) -> Result<String, ApiError> {
        let id = self.instance(instance)?;
        let state = self.0.shared.state();
        let role = state.cloud.instances.get(&id).and_then(|instance| instance.role.as_ref());
        role.map(|role| role.key.clone()).ok_or_else(|| no_role(instance))
    }

    /// Removes the role of an instance: IMDS no longer returns credentials.
    ///
    /// # Errors
    /// The instance does not exist.
    pub fn remove_role(&self, instance: &str) -> Result<(), ApiError> {
        let id = self.instance(instance)?;
        self.0.shared.change(|state| {
            if let Some(instance) = state.cloud.instances.get_mut(&id) {
                instance.role = None;
            }
        });
        Ok(())
    }

    /// Lets an access key expire now.
    pub fn expire_access_key(&self, id: &str) {
        self.0.shared.change(|state| {
            if let Some(key) = state.cloud.keys.get_mut(id) {
                key.expires = Some(Timestamp::now());
            }
        });
    }

    /// Deletes an access key: it is unknown from now on.
    pub fn delete_access_key(&self, id: &str) {
        self.0.shared.change(|state| state.cloud.keys.remove(id));
    }

    /// Makes every IMDS session token invalid.
    pub fn forget_imds_sessions(&self) {
        self.0.shared.change(|state| state.sessions.clear());
    }

    fn instance(&self, id: &str) -> Result<InstanceId, ApiError> {
        self.0.shared.state().cloud.instance(id)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Waits until `look`, which is called after each change, returns a value. `what` describes it in the error.
    ///
    /// # Errors
    /// It did not within the time.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Simulator) -> Option<T>,
    ) -> Result<T, Timeout> {
        let deadline = Instant::now() + within;
        loop {
            let before = self.0.shared.state().changes;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Timeout(format!("not within {within:?}: {what}\n{self}")));
            }
            let state = self.0.shared.state();
            let _ = self.0.shared.changed.wait_timeout_while(state, left, |state| state.changes == before);
        }
    }

    /// Waits until the interface has the address. Returns the last move of the address to it, or `None` if it has had the
    /// address from the start.
    ///
    /// # Errors
    /// It did not get the address within the time.
    pub fn wait_for_owner(
        &self,
        address: Ipv4Addr,
        eni: impl AsRef<str>,
        within: Duration,
    ) -> Result<Option<Move>, Timeout> {
        let eni = eni.as_ref();
        self.wait_for(&format!("{eni} has {address}"), within, |simulator| {
            (simulator.owner(address)? == *eni).then(|| {
                let moves = simulator.moves().into_iter().rev();
                moves.into_iter().find(|moved| moved.address == address)
            })
        })
    }

    /// Waits for a matching request of either service, and returns the first one, which may have arrived before.
    ///
    /// # Errors
    /// None arrived within the time.
    pub fn wait_for_request(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Request) -> bool,
    ) -> Result<Request, Timeout> {
        self.wait_for(what, within, |simulator| {
            let state = simulator.0.shared.state();
            state.requests.iter().find(|request| wanted(request)).cloned()
        })
    }
}

fn no_role(instance: &str) -> ApiError {
    ApiError::value(format!("instance {instance} has no role"))
}

/// The moves of addresses, routes and Elastic IPs, and the last 40 requests, one per line.
impl fmt::Display for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.shared.state();
        let journal = &state.cloud.journal;
        writeln!(f, "moves ({}):", journal.addresses.len())?;
        for moved in &journal.addresses {
            writeln!(f, "  {moved}")?;
        }
        for moved in &journal.routes {
            writeln!(f, "  {moved}")?;
        }
        for moved in &journal.associations {
            writeln!(f, "  {moved}")?;
        }
        writeln!(f, "requests ({}):", state.requests.len())?;
        for request in state.requests.iter().rev().take(40).rev() {
            writeln!(f, "  {request}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
