//! The real clients, boto3 and the AWS CLI, against the simulator: what they understand and sign is
//! what keeps it honest.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use simulator::{Effect, Fault, NetworkInterface, On, Simulator, World};

const R1: &str = "eni-0a000000000000001";
const R2: &str = "eni-0a000000000000002";
const STRANGER: &str = "eni-0a000000000000003";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);

/// A program of the private Python environment, which is made if need be.
fn python_program(name: &str) -> PathBuf {
    let venv = match std::env::var_os("VIPA_AWS_VENV") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make-venv");
    let made = Command::new(&script).arg(&venv).output().unwrap();
    assert!(made.status.success(), "{}: {}", script.display(), text(&made.stderr));
    venv.join("bin").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of this test for the CA's certificate.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Without anything from the caller's environment that could change what the client does.
fn client(program: &str, ca: Option<&Path>) -> Command {
    let mut command = Command::new(python_program(program));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_DEFAULT_REGION", "eu-west-1")
        .env("AWS_MAX_ATTEMPTS", "1");
    if let Some(ca) = ca {
        command.env("AWS_CA_BUNDLE", ca);
    }
    command
}

fn with_key(mut command: Command, secret: &str) -> Command {
    command.env("AWS_ACCESS_KEY_ID", "AKIAVIPAEXAMPLE00001").env("AWS_SECRET_ACCESS_KEY", secret);
    command
}

fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn world() -> World {
    let mut world = World::two_routers().stale_reads(Duration::ZERO);
    let stranger = world.instances[2].network_interfaces.remove(0);
    let with_eip = Ipv4Addr::new(10, 99, 0, 110);
    let stranger = stranger.secondary(with_eip).elastic_ip(with_eip, Ipv4Addr::new(203, 0, 113, 7));
    world.instances[2].network_interfaces.push(stranger);
    for number in 0..8u8 {
        world = world.unattached(NetworkInterface::new(
            &format!("eni-0b00000000000000{number}"),
            &format!("02:00:00:00:01:0{number}"),
            "subnet-0a000000000000001",
            Ipv4Addr::new(10, 99, 0, 200 + number),
        ));
    }
    world
}

fn boto3(simulator: &Simulator, url: &str, ca: Option<&Path>) {
    for (last, effect) in [
        (150, Effect::Error { status: 503, code: "RequestLimitExceeded".to_owned() }),
        (151, Effect::Deny),
        (152, Effect::Error { status: 500, code: "InternalError".to_owned() }),
        (153, Effect::Drop),
        (154, Effect::NotXml),
        (155, Effect::Truncated),
    ] {
        let on = On::claims().address(Ipv4Addr::new(10, 99, 0, last));
        simulator.add_fault(Fault::on(on).effect(effect));
    }
    let mut command = with_key(client("python", ca), "vipa-example-secret");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_boto3.py")).arg(url);
    let output = run(command);
    assert!(
        output.status.success() && text(&output.stdout) == "done\n",
        "{}{}\n{simulator}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert_eq!(simulator.owner(VIP).unwrap(), R1, "{simulator}");
    assert_eq!(simulator.owner(Ipv4Addr::new(10, 99, 0, 101)), None, "{simulator}");
    let codes: Vec<String> = simulator
        .requests()
        .iter()
        .filter_map(|request| Some(request.code()?.to_owned()))
        .filter(|code| code != "Success")
        .collect();
    assert_eq!(codes.len(), 12, "{codes:?}\n{simulator}");
}

#[test]
fn boto3_claims_steals_reads_and_is_refused_over_http() {
    let simulator = Simulator::start(world()).unwrap();
    let ec2 = simulator.serve_ec2_http(any_port(), None).unwrap();
    boto3(&simulator, &ec2.url(), None);
}

#[test]
fn boto3_claims_steals_reads_and_is_refused_over_tls() {
    let simulator = Simulator::start(world()).unwrap();
    let ca = folder("boto3-tls").join("ca.pem");
    std::fs::write(&ca, simulator.ca_pem()).unwrap();
    let ec2 = simulator.serve_ec2_tls(any_port(), None, &["ec2.eu-west-1.amazonaws.com", "127.0.0.1"]).unwrap();
    boto3(&simulator, &ec2.url(), Some(&ca));
}

#[test]
fn the_aws_cli_takes_credentials_of_the_role_from_imds() {
    let simulator = Simulator::start(world()).unwrap();
    let ca = folder("cli-imds").join("ca.pem");
    std::fs::write(&ca, simulator.ca_pem()).unwrap();
    let ec2 = simulator.serve_ec2_tls(any_port(), None, &["127.0.0.1"]).unwrap();
    let imds = simulator.serve_imds("i-0a000000000000002", any_port(), None).unwrap();
    let aws = |arguments: &[&str]| {
        let mut command = client("aws", Some(&ca));
        command
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url())
            .args(["--endpoint-url", &ec2.url(), "--output", "text"])
            .args(arguments);
        run(command)
    };
    let address = VIP.to_string();
    let claim = ["ec2", "assign-private-ip-addresses", "--network-interface-id", R2];
    let claim = [&claim[..], &["--private-ip-addresses", &address, "--allow-reassignment"]].concat();
    let output = aws(&claim);
    assert!(output.status.success(), "{}\n{simulator}", text(&output.stderr));
    let request = simulator.requests().pop().unwrap();
    assert_eq!(request.instance.as_ref().unwrap(), "i-0a000000000000002", "{simulator}");
    assert!(request.claims(VIP) && request.allow_reassignment, "{simulator}");
    assert_eq!(simulator.owner(VIP).unwrap(), R2);

    simulator.steal(VIP, STRANGER).unwrap();
    let filter = format!("Name=addresses.private-ip-address,Values={VIP}");
    let query = "NetworkInterfaces[].NetworkInterfaceId";
    let read = ["ec2", "describe-network-interfaces", "--filters", &filter, "--query", query];
    let output = aws(&read);
    assert_eq!(text(&output.stdout).trim(), STRANGER, "{}\n{simulator}", text(&output.stderr));

    let output = aws(&["sts", "get-caller-identity", "--query", "Arn"]);
    let arn = "arn:aws:sts::123456789012:assumed-role/router/i-0a000000000000002";
    assert_eq!(text(&output.stdout).trim(), arn, "{}", text(&output.stderr));

    simulator.add_fault(Fault::on(On::claims().instance("i-0a000000000000002")).deny());
    let output = aws(&claim);
    let errors = text(&output.stderr);
    assert!(errors.contains("(UnauthorizedOperation)") && errors.contains("router"), "{errors}");
}

#[test]
fn a_wrong_secret_and_an_unknown_authority_are_noticed() {
    let simulator = Simulator::start(world()).unwrap();
    let http = simulator.serve_ec2_http(any_port(), None).unwrap();
    let tls = simulator.serve_ec2_tls(any_port(), None, &["127.0.0.1"]).unwrap();
    for (url, secret, wanted) in [
        (http.url(), "vipa-example-secret", ""),
        (http.url(), "not-the-secret", "(AuthFailure)"),
        (tls.url(), "vipa-example-secret", "certificate verify failed"),
    ] {
        let mut command = with_key(client("aws", None), secret);
        command.args(["--endpoint-url", &url, "ec2", "describe-subnets"]);
        let output = run(command);
        let errors = text(&output.stderr);
        assert_eq!(output.status.success(), wanted.is_empty(), "{url} {secret}: {errors}");
        assert!(errors.contains(wanted), "{url} {secret}: {errors}");
    }
}

/// The program, ended by SIGTERM.
struct Program(Child);

impl Program {
    fn end(&mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if Instant::now() > deadline => panic!("it did not end on SIGTERM"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_serves_scripts() {
    let folder = folder("program");
    let [world_file, ca, socket] = ["world.json", "ca.pem", "socket"].map(|name| folder.join(name));
    let binary = env!("CARGO_BIN_EXE_simulator");
    let world = Command::new(binary).arg("world").output().unwrap();
    std::fs::write(&world_file, &world.stdout).unwrap();
    let mut child = Command::new(binary)
        .args(["serve", "--ec2-http", "127.0.0.1:0", "--ec2-tls", "127.0.0.1:0"])
        .args(["--tls-name", "127.0.0.1", "--imds", "i-0a000000000000001=127.0.0.1:0"])
        .args([Path::new("--world"), &world_file, Path::new("--ca"), &ca])
        .args([Path::new("--socket"), &socket])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut program = Program(child);
    let lines: Vec<String> = output.lines().map(Result::unwrap).take_while(|line| line != "ready").collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let tls = lines[1].strip_prefix("listener 1 ec2 ").unwrap();
    assert!(tls.starts_with("https://127.0.0.1:"), "{lines:?}");
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        run({
            command.arg("ctl").arg("--socket").arg(&socket).args(arguments);
            command
        })
    };
    let told = |arguments: &[&str]| {
        let output = ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let address = VIP.to_string();
    assert_eq!(told(&["owner", &address]), "null");
    let fault = r#"{"on":{"action":"AssignPrivateIpAddresses"},"times":1,"delay-before-ms":10}"#;
    assert_eq!(told(&["add-fault", fault]), "1");
    let mut command = with_key(client("aws", Some(&ca)), "vipa-example-secret");
    command.args(["--endpoint-url", tls, "ec2", "assign-private-ip-addresses"]).args([
        "--network-interface-id",
        R1,
        "--private-ip-addresses",
        &address,
    ]);
    let output = run(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(told(&["faults"]), "[]");
    assert_eq!(told(&["owner", &address]), R1);
    told(&["steal", &address, STRANGER]);
    let moved = told(&["wait-for-owner", &address, STRANGER, "--seconds", "1"]);
    assert!(moved.contains("\"third-party\""), "{moved}");
    let requests: serde_json::Value = serde_json::from_str(&told(&["requests"])).unwrap();
    assert_eq!(requests[0]["action"], "AssignPrivateIpAddresses", "{requests}");
    assert_eq!(requests[0]["addresses"][0], address.as_str(), "{requests}");
    let refused = ctl(&["steal", "10.99.1.1", STRANGER]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("InvalidParameterValue"), "{refused:?}");
    assert_eq!(ctl(&["owner", "nonsense"]).status.code(), Some(2));
    assert_eq!(program.end(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn the_program_names_what_is_wrong_with_its_world() {
    let file = folder("wrong-world").join("world.json");
    let binary = env!("CARGO_BIN_EXE_simulator");
    for (content, wanted) in [
        ("{", "EOF"),
        (r#"{"colour": "red"}"#, "unknown field `colour`"),
        (r#"{"vpcs": [{"id": "vpc-x", "cidr": "10.0.0.0/16"}]}"#, "vpc vpc-x: "),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = Command::new(binary).arg("serve").arg("--world").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let errors = text(&output.stderr);
        assert!(errors.contains(wanted), "{errors}");
    }
}
