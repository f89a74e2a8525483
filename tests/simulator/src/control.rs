//! The control socket: one JSON command a line in, one JSON answer a line out, `{"ok": …}` or
//! `{"error": "…"}`.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simulator::{EniId, Fault, FaultId, InstanceId, Listener, Simulator, StaleReads};

use crate::Failure;

/// What a running simulator can be asked and told.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Who has an address: the interface's id or null.
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
    /// Moves and the last requests, for people.
    Log,
    /// Let a third party give an address to an interface.
    Steal {
        /// The private address.
        address: Ipv4Addr,
        /// The network interface.
        eni: EniId,
    },
    /// Let a third party take an address off its interface.
    Release {
        /// The private address.
        address: Ipv4Addr,
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
    /// The faults that are still to come, by id.
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
    /// Accept a listener's new connections and leave them alone.
    Mute {
        /// Its number.
        listener: usize,
    },
    /// Serve a listener's new connections again.
    Unmute {
        /// Its number.
        listener: usize,
    },
    /// Make every read as old as this.
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

/// Answers commands at the socket, in threads of its own, until the program ends.
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
