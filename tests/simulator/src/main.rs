//! The simulator as a program, for scripts: `simulator serve` runs it, `simulator ctl` sends commands to its Unix socket, and
//! `simulator world` prints an example of a world.

mod control;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use simulator::{InstanceId, Listener, Simulator, World};
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A simulator of EC2 and IMDSv2 with private addresses, routes and Elastic IPs that move.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run until SIGTERM or SIGINT; print the listeners, and then `ready`.
    Serve(Serve),
    /// Send a command to a running simulator; print the answer as JSON, or a string without quotes.
    Ctl {
        /// The socket of `serve --socket`.
        #[arg(long)]
        socket: PathBuf,
        #[command(subcommand)]
        command: control::Command,
    },
    /// Print the world of two routers and a third party, for `serve --world`.
    World {
        /// With the routers in two availability zones, route tables and an Elastic IP.
        #[arg(long)]
        two_zones: bool,
    },
}

#[derive(Args)]
struct Serve {
    /// The world, a JSON file; by default two routers and a third party.
    #[arg(long)]
    world: Option<PathBuf>,
    /// Serve EC2 over HTTP, optionally in a network namespace: 127.0.0.1:8080@/proc/PID/ns/net
    #[arg(long, value_name = "ADDRESS[@NETNS]")]
    ec2_http: Vec<Place>,
    /// Serve EC2 over TLS.
    #[arg(long, value_name = "ADDRESS[@NETNS]", requires = "tls_name")]
    ec2_tls: Vec<Place>,
    /// A name or IP address in the certificates of the TLS listeners.
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Serve IMDS for an instance.
    #[arg(long, value_name = "INSTANCE=ADDRESS[@NETNS]")]
    imds: Vec<Metadata>,
    /// Write the certificate authority's certificate to this file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The socket for `ctl`.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// A listening address, and its network namespace.
#[derive(Clone)]
struct Place {
    address: SocketAddr,
    namespace: Option<PathBuf>,
}

impl FromStr for Place {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Place, Failure> {
        let (address, namespace) = match text.split_once('@') {
            Some((address, namespace)) => (address, Some(namespace.into())),
            None => (text, None),
        };
        Ok(Place { address: address.parse()?, namespace })
    }
}

impl Place {
    fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }
}

#[derive(Clone)]
struct Metadata {
    instance: InstanceId,
    place: Place,
}

impl FromStr for Metadata {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Metadata, Failure> {
        let (instance, place) = text.split_once('=').ok_or("it is not INSTANCE=ADDRESS")?;
        Ok(Metadata { instance: instance.parse()?, place: place.parse()? })
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve(serve) => run(&serve),
        Verb::Ctl { socket, command } => control::ask(&socket, &command),
        Verb::World { two_zones } => print_world(two_zones),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("simulator: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print_world(two_zones: bool) -> Result<(), Failure> {
    let world = match two_zones {
        true => World::two_zones(),
        false => World::two_routers(),
    };
    println!("{}", serde_json::to_string_pretty(&world)?);
    Ok(())
}

fn run(serve: &Serve) -> Result<(), Failure> {
    let world = match &serve.world {
        None => World::two_routers(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(Failure::from)
            .and_then(|text| Ok(serde_json::from_str(&text)?))
            .map_err(|error| format!("world file {}: {error}", path.display()))?,
    };
    let simulator = Simulator::start(world)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminated, mut interrupted) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    if let Some(path) = &serve.ca {
        std::fs::write(path, simulator.ca_pem()).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    for place in &serve.ec2_http {
        announce(&simulator.serve_ec2_http(place.address, place.namespace())?);
    }
    let names: Vec<&str> = serve.tls_name.iter().map(String::as_str).collect();
    for place in &serve.ec2_tls {
        announce(&simulator.serve_ec2_tls(place.address, place.namespace(), &names)?);
    }
    for Metadata { instance, place } in &serve.imds {
        announce(&simulator.serve_imds(instance.as_ref(), place.address, place.namespace())?);
    }
    if let Some(path) = &serve.socket {
        control::serve(path, simulator.clone())
            .map_err(|error| format!("control socket {}: {error}", path.display()))?;
    }
    println!("ready");
    runtime.block_on(async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    });
    if let Some(path) = &serve.socket {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn announce(listener: &Listener) {
    let service = match listener.service() {
        simulator::Service::Ec2 => "ec2",
        simulator::Service::Imds => "imds",
    };
    println!("listener {} {service} {}", listener.number(), listener.url());
}
