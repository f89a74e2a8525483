//! The handle that tests hold.

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

/// A running simulator. Clones share it; it ends with the last of them.
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

    /// Changes the state and wakes those who wait.
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

/// What was awaited did not come in time. Shows what was seen instead: owners, moves and the last
/// requests.
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub struct Timeout(String);

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Simulator {
    /// Starts a simulator of `world`, with a certificate authority of its own and no listener yet.
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

    /// Serves IMDS as `instance` sees it: whoever reaches this listener is that instance.
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

    /// Takes connections to a service again.
    ///
    /// # Errors
    /// An address cannot be bound any more.
    pub fn accept_connections(&self, service: Service) -> io::Result<()> {
        self.listeners().iter().filter(|listener| listener.service() == service).try_for_each(Listener::start)
    }

    /// Who has the address now, in the VPC of the first instance.
    pub fn owner(&self, address: Ipv4Addr) -> Option<EniId> {
        let state = self.0.shared.state();
        state.cloud.owner(&state.cloud.home()?, address).cloned()
    }

    /// Who has the address of that VPC now.
    pub fn owner_in(&self, vpc: &VpcId, address: Ipv4Addr) -> Option<EniId> {
        self.0.shared.state().cloud.owner(vpc, address).cloned()
    }

    /// Every EC2 request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log(Service::Ec2)
    }

    /// The EC2 requests from that number on: all that came after a moment at which the log had this length.
    pub fn requests_from(&self, number: usize) -> Vec<Request> {
        let state = self.0.shared.state();
        let news = state.requests.get(number..).unwrap_or_default();
        news.iter().filter(|request| request.service == Service::Ec2).cloned().collect()
    }

    /// How many requests of both services there were so far: the number of the next one.
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

    /// A third party gives the address to an interface, by EC2's rules.
    ///
    /// # Errors
    /// EC2's own: the address is not in the subnet, primary, or beyond the limit.
    pub fn steal(&self, address: Ipv4Addr, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.0.shared.change(|state| {
            let cause = Cause::ThirdParty;
            state.cloud.assign(Moment::now(), eni.as_ref(), &[address], true, &cause)
        })
    }

    /// A third party takes the address off its interface: nobody has it then.
    ///
    /// # Errors
    /// Nobody has it, or it is a primary address.
    pub fn release(&self, address: Ipv4Addr) -> Result<(), ApiError> {
        let owner = self.owner(address);
        let owner = owner.ok_or_else(|| ApiError::value(format!("nobody has {address}")))?;
        self.0
            .shared
            .change(|state| state.cloud.unassign(Moment::now(), owner.as_ref(), &[address], &Cause::ThirdParty))
    }

    /// A third party deletes a network interface; its addresses are nobody's then.
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

    /// A third party detaches a network interface from its instance; routes to it are blackholes.
    ///
    /// # Errors
    /// It does not exist.
    pub fn detach_network_interface(&self, eni: impl AsRef<str>) -> Result<(), ApiError> {
        self.set_attachment(eni.as_ref(), None)
    }

    /// A third party attaches a network interface to an instance.
    ///
    /// # Errors
    /// One of them does not exist, or something has that device index.
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

    /// Stops an instance: routes to its network interfaces are blackholes, its addresses stay.
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

    /// Removes a fault; one that is used up is gone already.
    pub fn remove_fault(&self, id: FaultId) {
        self.0.shared.change(|state| state.faults.active.retain(|(other, _)| *other != id));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.0.shared.change(|state| state.faults.active.clear());
    }

    /// The faults that are still to come.
    pub fn faults(&self) -> Vec<(FaultId, Fault)> {
        self.0.shared.state().faults.active.clone()
    }

    /// Changes how old the answers of reads may be.
    pub fn set_stale_reads(&self, stale: StaleReads) {
        self.0.shared.change(|state| state.cloud.world.stale_reads = stale);
    }

    /// Changes how far EC2's clock is ahead of this machine's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.0.shared.change(|state| state.cloud.world.clock_ahead_seconds = seconds);
    }

    /// Gives the instance's role a new access key, valid for so long, and returns its id. IMDS gives
    /// it out from now on. The keys before it stay valid until they expire.
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

    /// The access key id that IMDS gives the instance now.
    ///
    /// # Errors
    /// The instance does not exist or has no role.
    pub fn role_access_key(&self, instance: &str) -> Result<String, ApiError> {
        let id = self.instance(instance)?;
        let state = self.0.shared.state();
        let role = state.cloud.instances.get(&id).and_then(|instance| instance.role.as_ref());
        role.map(|role| role.key.clone()).ok_or_else(|| no_role(instance))
    }

    /// Takes the role off an instance: IMDS has no credentials for it any more.
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

    /// Waits until `look` returns something; it is asked again after every change. `what` names what
    /// is awaited, for the error.
    ///
    /// # Errors
    /// It did not come within the time.
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

    /// Waits until the interface has the address; returns when it got it last, `None` if it has it
    /// from the start.
    ///
    /// # Errors
    /// It did not get it within the time.
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

    /// Waits for a request of either service, seen already or still to come, and returns the first.
    ///
    /// # Errors
    /// None came within the time.
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

/// The moves of addresses, routes and Elastic IPs, and the last 40 requests, one a line.
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
