//! The control socket: each line in is a JSON command, each line out its answer, `{"ok": …}` or `{"error": "…"}`.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simulator::{
    AllocationId, Destination, ElasticIp, EniId, Fault, FaultId, InstanceId, Listener, RouteTable, RouteTableId,
    Simulator, StaleReads, Target,
};

use crate::Failure;

/// A command for a running simulator.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// The owner of an address: an interface's id or null.
    Owner {
        /// The private address.
        address: Ipv4Addr,
    },
    /// Wait until an interface has an address; prints the move.
    WaitForOwner {
        /// The private address.
        address: Ipv4Addr,
        /// The network interface.
        eni: EniId,
        /// How long to wait.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Every EC2 request so far.
    Requests,
    /// Every IMDS request so far.
    ImdsRequests,
    /// Every change of an owner so far.
    Moves,
    /// All moves and the last requests, as text.
    Log,
    /// Let a third party assign an address to an interface.
    Steal {
        /// The private address.
        address: Ipv4Addr,
        /// The network interface.
        eni: EniId,
    },
    /// Let a third party unassign an address.
    Release {
        /// The private address.
        address: Ipv4Addr,
    },
    /// Add a route table.
    AddRouteTable {
        /// Such as {"id":"rtb-0a000001","vpc":"vpc-0a000001","routes":{"10.0.0.0/8":"eni-0a000001"}}
        #[arg(value_parser = route_table)]
        table: RouteTable,
    },
    /// Let a third party delete a route table.
    DeleteRouteTable {
        /// The route table.
        table: RouteTableId,
    },
    /// All routes of a table.
    Routes {
        /// The route table.
        table: RouteTableId,
    },
    /// The route to a destination, or null.
    Route {
        /// The route table.
        table: RouteTableId,
        /// The prefix or prefix list.
        destination: Destination,
    },
    /// Which interface a route leads to: its id or null.
    RouteOwner {
        /// The route table.
        table: RouteTableId,
        /// The prefix or prefix list.
        destination: Destination,
    },
    /// Wait until a route leads to an interface; prints the move.
    WaitForRoute {
        /// The route table.
        table: RouteTableId,
        /// The prefix or prefix list.
        destination: Destination,
        /// The network interface.
        eni: EniId,
        /// How long to wait.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Let a third party change or create a route.
    StealRoute {
        /// The route table.
        table: RouteTableId,
        /// The prefix or prefix list.
        destination: Destination,
        /// A network interface, a gateway, an endpoint …, or `local`.
        target: Target,
    },
    /// Let a third party delete a route.
    DeleteRoute {
        /// The route table.
        table: RouteTableId,
        /// The prefix or prefix list.
        destination: Destination,
    },
    /// Let a third party delete a target of routes: a gateway, an endpoint …
    DeleteGateway {
        /// Its id.
        id: String,
    },
    /// Every change of a route so far.
    RouteMoves,
    /// Add an Elastic IP.
    AddElasticIp {
        /// Such as {"id":"eipalloc-0a000001","public":"203.0.113.10"}
        #[arg(value_parser = elastic_ip)]
        elastic_ip: ElasticIp,
    },
    /// What an Elastic IP is associated with, or null.
    Association {
        /// The Elastic IP.
        allocation: AllocationId,
    },
    /// Wait until an Elastic IP is associated with an address of an interface; prints the move.
    WaitForAssociation {
        /// The Elastic IP.
        allocation: AllocationId,
        /// The network interface.
        eni: EniId,
        /// How long to wait.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Let a third party associate an Elastic IP.
    StealAssociation {
        /// The Elastic IP.
        allocation: AllocationId,
        /// The network interface.
        eni: EniId,
        /// Its private address; the primary one by default.
        private: Option<Ipv4Addr>,
    },
    /// Let a third party disassociate an Elastic IP.
    ReleaseAssociation {
        /// The Elastic IP.
        allocation: AllocationId,
    },
    /// Let a third party release an Elastic IP.
    DeleteElasticIp {
        /// The Elastic IP.
        allocation: AllocationId,
    },
    /// Every change of an association so far.
    AssociationMoves,
    /// Let a third party delete a network interface.
    DeleteNetworkInterface {
        /// The network interface.
        eni: EniId,
    },
    /// Let a third party detach a network interface from its instance.
    DetachNetworkInterface {
        /// The network interface.
        eni: EniId,
    },
    /// Let a third party attach a network interface to an instance.
    AttachNetworkInterface {
        /// The network interface.
        eni: EniId,
        /// The instance.
        instance: InstanceId,
        /// The device index.
        device_index: usize,
    },
    /// Stop an instance.
    StopInstance {
        /// The instance.
        instance: InstanceId,
    },
    /// Start an instance again.
    StartInstance {
        /// The instance.
        instance: InstanceId,
    },
    /// Inject a fault; prints its id.
    AddFault {
        /// Such as {"on":{"action":"AssignPrivateIpAddresses"},"times":2,"effect":"hang"}
        #[arg(value_parser = fault)]
        fault: Box<Fault>,
    },
    /// Remove a fault.
    RemoveFault {
        /// Its id.
        id: FaultId,
    },
    /// Remove all faults.
    ClearFaults,
    /// The active faults, by id.
    Faults,
    /// The listeners.
    Listeners,
    /// Stop a listener: connections are refused.
    Stop {
        /// Its number.
        listener: usize,
    },
    /// Start a listener again.
    Start {
        /// Its number.
        listener: usize,
    },
    /// Accept a listener's new connections, but never answer.
    Mute {
        /// Its number.
        listener: usize,
    },
    /// Answer on a listener's new connections again.
    Unmute {
        /// Its number.
        listener: usize,
    },
    /// Make each read show a state of that age.
    StaleReads {
        /// Milliseconds; 0 for prompt reads.
        milliseconds: u64,
    },
    /// Let an access key expire now.
    ExpireAccessKey {
        /// The access key id.
        id: String,
    },
    /// Give an instance's role a new access key; prints its id.
    RotateCredentials {
        /// The instance.
        instance: InstanceId,
        /// How long the key is valid.
        #[arg(long, default_value_t = 21_600)]
        seconds: u64,
    },
}

fn fault(text: &str) -> Result<Box<Fault>, serde_json::Error> {
    serde_json::from_str(text)
}

fn route_table(text: &str) -> Result<RouteTable, serde_json::Error> {
    serde_json::from_str(text)
}

fn elastic_ip(text: &str) -> Result<ElasticIp, serde_json::Error> {
    serde_json::from_str(text)
}

/// Answers commands at the socket, in separate threads, until the program ends.
pub fn serve(path: &Path, simulator: Simulator) -> io::Result<()> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another simulator answers there"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let simulator = simulator.clone();
            std::thread::spawn(move || answer_all(stream, &simulator));
        }
    });
    Ok(())
}

fn answer_all(stream: UnixStream, simulator: &Simulator) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let result =
            serde_json::from_str(&line?).map_err(Failure::from).and_then(|command| perform(command, simulator));
        let answer = match result {
            Ok(value) => json!({ "ok": value }),
            Err(failure) => json!({ "error": failure.to_string() }),
        };
        writeln!(writer, "{answer}")?;
    }
    Ok(())
}

fn perform(command: Command, simulator: &Simulator) -> Result<Value, Failure> {
    let listener = |number: usize| -> Result<Listener, Failure> {
        let found = simulator.listeners().into_iter().nth(number);
        Ok(found.ok_or_else(|| format!("there is no listener {number}"))?)
    };
    Ok(match command {
        Command::Owner { address } => json!(simulator.owner(address)),
        Command::WaitForOwner { address, eni, seconds } => {
            json!(simulator.wait_for_owner(address, eni, Duration::from_secs(seconds))?)
        }
        Command::Requests => json!(simulator.requests()),
        Command::ImdsRequests => json!(simulator.imds_requests()),
        Command::Moves => json!(simulator.moves()),
        Command::Log => json!(simulator.to_string()),
        Command::Steal { address, eni } => json!(simulator.steal(address, eni)?),
        Command::Release { address } => json!(simulator.release(address)?),
        Command::AddRouteTable { table } => json!(simulator.add_route_table(&table)?),
        Command::DeleteRouteTable { table } => json!(simulator.delete_route_table(table)?),
        Command::Routes { table } => json!(simulator.routes(table)?),
        Command::Route { table, destination } => json!(simulator.route(table, &destination.to_string())?),
        Command::RouteOwner { table, destination } => {
            json!(simulator.route_owner(table, &destination.to_string())?)
        }
        Command::WaitForRoute { table, destination, eni, seconds } => {
            let within = Duration::from_secs(seconds);
            json!(simulator.wait_for_route(table, &destination.to_string(), eni, within)?)
        }
        Command::StealRoute { table, destination, target } => {
            json!(simulator.steal_route(table, &destination.to_string(), target.to_string())?)
        }
        Command::DeleteRoute { table, destination } => {
            json!(simulator.delete_route(table, &destination.to_string())?)
        }
        Command::DeleteGateway { id } => json!(simulator.delete_gateway(&id)),
        Command::RouteMoves => json!(simulator.route_moves()),
        Command::AddElasticIp { elastic_ip } => json!(simulator.add_elastic_ip(&elastic_ip)?),
        Command::Association { allocation } => json!(simulator.association(allocation)?),
        Command::WaitForAssociation { allocation, eni, seconds } => {
            json!(simulator.wait_for_association(allocation, eni, Duration::from_secs(seconds))?)
        }
        Command::StealAssociation { allocation, eni, private } => {
            json!(simulator.steal_association(allocation, eni, private)?)
        }
        Command::ReleaseAssociation { allocation } => json!(simulator.release_association(allocation)?),
        Command::DeleteElasticIp { allocation } => json!(simulator.delete_elastic_ip(allocation)?),
        Command::AssociationMoves => json!(simulator.association_moves()),
        Command::DeleteNetworkInterface { eni } => json!(simulator.delete_network_interface(eni)?),
        Command::DetachNetworkInterface { eni } => json!(simulator.detach_network_interface(eni)?),
        Command::AttachNetworkInterface { eni, instance, device_index } => {
            json!(simulator.attach_network_interface(eni, instance.as_ref(), device_index)?)
        }
        Command::StopInstance { instance } => json!(simulator.stop_instance(instance.as_ref())?),
        Command::StartInstance { instance } => json!(simulator.start_instance(instance.as_ref())?),
        Command::AddFault { fault } => json!(simulator.add_fault(*fault)),
        Command::RemoveFault { id } => json!(simulator.remove_fault(id)),
        Command::ClearFaults => json!(simulator.clear_faults()),
        Command::Faults => json!(simulator.faults()),
        Command::Listeners => simulator.listeners().iter().map(describe).collect(),
        Command::Stop { listener: number } => json!(listener(number)?.stop()),
        Command::Start { listener: number } => json!(listener(number)?.start()?),
        Command::Mute { listener: number } => json!(listener(number)?.mute(true)),
        Command::Unmute { listener: number } => json!(listener(number)?.mute(false)),
        Command::ExpireAccessKey { id } => json!(simulator.expire_access_key(&id)),
        Command::StaleReads { milliseconds } => {
            json!(simulator.set_stale_reads(StaleReads::ExactlyMs(milliseconds)))
        }
        Command::RotateCredentials { instance, seconds } => {
            let valid = Duration::from_secs(seconds);
            json!(simulator.rotate_credentials(instance.as_ref(), valid)?)
        }
    })
}

fn describe(listener: &Listener) -> Value {
    json!({
        "number": listener.number(),
        "service": listener.service(),
        "url": listener.url(),
        "running": listener.is_running(),
    })
}

/// Sends one command and prints its answer.
pub fn ask(path: &Path, command: &Command) -> Result<(), Failure> {
    let mut stream =
        UnixStream::connect(path).map_err(|error| format!("control socket {}: {error}", path.display()))?;
    writeln!(stream, "{}", serde_json::to_string(command)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut answer: Value = serde_json::from_str(&line)?;
    if let Some(error) = answer["error"].as_str() {
        return Err(error.into());
    }
    match answer["ok"].take() {
        Value::String(text) => println!("{text}"),
        value => println!("{value:#}"),
    }
    Ok(())
}
