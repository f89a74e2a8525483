//! boto3 and the AWS CLI as clients of the simulator: they must understand its answers, and it must accept their signatures.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod python;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use simulator::{Effect, ElasticIp, Fault, NetworkInterface, On, RouteTable, Simulator, World};

const R1: &str = "eni-0a000000000000001";
const R2: &str = "eni-0a000000000000002";
const THIRD_PARTY: &str = "eni-0a000000000000003";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const T1: &str = "rtb-0a000000000000001";
const OVERLAY: &str = "10.200.0.1/32";
const EIP: &str = "eipalloc-0a000000000000001";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of this test for the CA's certificate.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// A client without environment variables of the caller.
fn client(program: &str, ca: Option<&Path>) -> Command {
    let mut command = Command::new(python::program(program));
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
    let third_party = world.instances[2].network_interfaces.remove(0);
    let with_eip = Ipv4Addr::new(10, 99, 0, 110);
    let third_party = third_party.secondary(with_eip).elastic_ip(with_eip, Ipv4Addr::new(203, 0, 113, 7));
    world.instances[2].network_interfaces.push(third_party);
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

/// Runs one of the Python scripts in this directory to its end.
fn run_script(name: &str, simulator: &Simulator, url: &str, ca: Option<&Path>) {
    let mut command = with_key(client("python", ca), "vipa-example-secret");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).arg(url);
    let output = run(command);
    assert!(
        output.status.success() && text(&output.stdout) == "done\n",
        "{}{}\n{simulator}",
        text(&output.stdout),
        text(&output.stderr)
    );
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
    run_script("with_boto3.py", simulator, url, ca);
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
fn boto3_claims_reads_and_is_refused_over_http() {
    let simulator = Simulator::start(world()).unwrap();
    let ec2 = simulator.serve_ec2_http(any_port(), None).unwrap();
    boto3(&simulator, &ec2.url(), None);
}

#[test]
fn boto3_claims_reads_and_is_refused_over_tls() {
    let simulator = Simulator::start(world()).unwrap();
    let ca = directory("boto3-tls").join("ca.pem");
    std::fs::write(&ca, simulator.ca_pem()).unwrap();
    let ec2 = simulator.serve_ec2_tls(any_port(), None, &["ec2.eu-west-1.amazonaws.com", "127.0.0.1"]).unwrap();
    boto3(&simulator, &ec2.url(), Some(&ca));
}

/// Two zones with a propagated route, two pages of route tables, an unattached interface, and an Elastic IP of another
/// account.
fn zones() -> World {
    let mut world = World::two_zones().stale_reads(Duration::ZERO).association_lag(Duration::ZERO).routes_per_table(4);
    world.route_tables[0] = world.route_tables[0].clone().propagated("10.201.0.0/16", "vgw-0a000000000000001");
    for number in 1..=5 {
        world = world.route_table(RouteTable::new(&format!("rtb-0b00000000000000{number}"), "vpc-0a000000000000001"));
    }
    let foreign = ElasticIp::new("eipalloc-0b000000000000001", Ipv4Addr::new(203, 0, 113, 20));
    world.elastic_ip(foreign.of_account("210987654321")).unattached(NetworkInterface::new(
        "eni-0b000000000000001",
        "02:00:00:00:01:01",
        "subnet-0a000000000000002",
        Ipv4Addr::new(10, 99, 1, 20),
    ))
}

#[test]
fn boto3_moves_routes_and_elastic_ips_between_zones() {
    let simulator = Simulator::start(zones()).unwrap();
    let ec2 = simulator.serve_ec2_http(any_port(), None).unwrap();
    for action in ["ReplaceRoute", "AssociateAddress"] {
        let on = || On::action(action).network_interface(THIRD_PARTY);
        simulator.add_fault(Fault::on(on().dry_run(true)).deny().times(1));
        simulator.add_fault(Fault::on(on().dry_run(false)).throttle().times(1));
        simulator.add_fault(Fault::on(on().dry_run(false)).drop_connection().performed().times(1));
    }
    run_script("routes_with_boto3.py", &simulator, &ec2.url(), None);
    // The last request of each kind was performed, and its answer was lost.
    assert_eq!(simulator.route_owner(T1, OVERLAY).unwrap().unwrap(), THIRD_PARTY, "{simulator}");
    assert_eq!(simulator.association(EIP).unwrap().unwrap().network_interface, THIRD_PARTY, "{simulator}");
    assert!(simulator.faults().is_empty(), "{:?}", simulator.faults());
}

#[test]
fn the_aws_cli_moves_a_route_and_an_elastic_ip() {
    let simulator = Simulator::start(zones()).unwrap();
    let ec2 = simulator.serve_ec2_http(any_port(), None).unwrap();
    let aws = |arguments: &[&str]| {
        let mut command = with_key(client("aws", None), "vipa-example-secret");
        command.args(["--endpoint-url", &ec2.url(), "--output", "text", "ec2"]).args(arguments);
        run(command)
    };
    let done = |arguments: &[&str]| {
        let output = aws(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{simulator}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let route = |action, eni| {
        [action, "--route-table-id", T1, "--destination-cidr-block", OVERLAY, "--network-interface-id", eni]
    };
    assert_eq!(done(&route("create-route", R1)), "True");
    done(&route("replace-route", R2));
    let filter = format!("Name=route-table-id,Values={T1}");
    let query = format!("RouteTables[].Routes[?DestinationCidrBlock=='{OVERLAY}'][].[NetworkInterfaceId,State]");
    let shown = done(&["describe-route-tables", "--filters", &filter, "--query", &query]);
    assert_eq!(shown, format!("{R2}\tactive"));
    assert_eq!(simulator.route_owner(T1, OVERLAY).unwrap().unwrap(), R2);

    let associate = ["associate-address", "--allocation-id", EIP, "--allow-reassociation", "--network-interface-id"];
    simulator.steal_association(EIP, R1, None).unwrap();
    let association = done(&[&associate[..], &[R2, "--private-ip-address", "10.99.1.12"]].concat());
    let query = "Addresses[].[AssociationId,NetworkInterfaceId,PrivateIpAddress]";
    let shown = done(&["describe-addresses", "--allocation-ids", EIP, "--query", query]);
    assert_eq!(shown, format!("{association}\t{R2}\t10.99.1.12"));
    done(&["disassociate-address", "--association-id", &association]);
    assert_eq!(simulator.association(EIP).unwrap(), None);

    let dry = [&route("replace-route", R1)[..], &["--dry-run"]].concat();
    let errors = text(&aws(&dry).stderr);
    assert!(errors.contains("(DryRunOperation)"), "{errors}");
    simulator.add_fault(Fault::on(On::action("ReplaceRoute").route_table(T1)).deny());
    let errors = text(&aws(&dry).stderr);
    assert!(errors.contains("(UnauthorizedOperation)") && errors.contains("ec2:ReplaceRoute"), "{errors}");
    assert_eq!(simulator.route_owner(T1, OVERLAY).unwrap().unwrap(), R2, "{simulator}");
}

#[test]
fn the_aws_cli_gets_credentials_of_the_role_from_imds() {
    let simulator = Simulator::start(world()).unwrap();
    let ca = directory("cli-imds").join("ca.pem");
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

    simulator.steal(VIP, THIRD_PARTY).unwrap();
    let filter = format!("Name=addresses.private-ip-address,Values={VIP}");
    let query = "NetworkInterfaces[].NetworkInterfaceId";
    let read = ["ec2", "describe-network-interfaces", "--filters", &filter, "--query", query];
    let output = aws(&read);
    assert_eq!(text(&output.stdout).trim(), THIRD_PARTY, "{}\n{simulator}", text(&output.stderr));

    let output = aws(&["sts", "get-caller-identity", "--query", "Arn"]);
    let arn = "arn:aws:sts::123456789012:assumed-role/router/i-0a000000000000002";
    assert_eq!(text(&output.stdout).trim(), arn, "{}", text(&output.stderr));

    simulator.add_fault(Fault::on(On::claims().instance("i-0a000000000000002")).deny());
    let output = aws(&claim);
    let errors = text(&output.stderr);
    assert!(errors.contains("(UnauthorizedOperation)") && errors.contains("router"), "{errors}");
}

#[test]
fn a_wrong_secret_and_an_unknown_authority_are_refused() {
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
    let directory = directory("program");
    let [world_file, ca, socket] = ["world.json", "ca.pem", "socket"].map(|name| directory.join(name));
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
    told(&["steal", &address, THIRD_PARTY]);
    let moved = told(&["wait-for-owner", &address, THIRD_PARTY, "--seconds", "1"]);
    assert!(moved.contains("\"third-party\""), "{moved}");
    let requests: serde_json::Value = serde_json::from_str(&told(&["requests"])).unwrap();
    assert_eq!(requests[0]["action"], "AssignPrivateIpAddresses", "{requests}");
    assert_eq!(requests[0]["addresses"][0], address.as_str(), "{requests}");
    let refused = ctl(&["steal", "10.99.1.1", THIRD_PARTY]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("InvalidParameterValue"), "{refused:?}");
    assert_eq!(ctl(&["owner", "nonsense"]).status.code(), Some(2));
    assert_eq!(program.end(), Some(0));
    assert!(!socket.exists());
}

/// All changes are made over the control socket, without a client.
#[test]
fn the_program_lets_scripts_change_routes_and_elastic_ips() {
    let directory = directory("program-zones");
    let [world_file, socket] = ["world.json", "socket"].map(|name| directory.join(name));
    let binary = env!("CARGO_BIN_EXE_simulator");
    let world = Command::new(binary).args(["world", "--two-zones"]).output().unwrap();
    std::fs::write(&world_file, &world.stdout).unwrap();
    let mut child = Command::new(binary)
        .arg("serve")
        .args([Path::new("--world"), &world_file, Path::new("--socket"), &socket])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut program = Program(child);
    assert_eq!(output.lines().map(Result::unwrap).next().as_deref(), Some("ready"));
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.arg("ctl").arg("--socket").arg(&socket).args(arguments);
        run(command)
    };
    let told = |arguments: &[&str]| {
        let output = ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(&told(arguments)).unwrap();
    let table = "rtb-0b000000000000001";
    let new = format!(r#"{{"id":"{table}","vpc":"vpc-0a000000000000001","routes":{{"{OVERLAY}":"{R1}"}}}}"#);
    told(&["add-route-table", &new]);
    assert_eq!(told(&["route-owner", table, OVERLAY]), R1);
    told(&["steal-route", table, OVERLAY, R2]);
    let moved = json(&["wait-for-route", table, OVERLAY, R2, "--seconds", "1"]);
    assert_eq!((&moved["to"], &moved["cause"]), (&R2.into(), &"third-party".into()));
    told(&["steal-route", table, OVERLAY, "igw-0a000000000000001"]);
    assert_eq!(told(&["route-owner", table, OVERLAY]), "null");
    told(&["delete-gateway", "igw-0a000000000000001"]);
    assert_eq!(json(&["route", table, OVERLAY])["blackhole"], true);
    assert_eq!(json(&["routes", table]).as_array().unwrap().len(), 3);
    told(&["delete-route", table, OVERLAY]);
    assert_eq!(told(&["route", table, OVERLAY]), "null");
    assert_eq!(json(&["route-moves"]).as_array().unwrap().len(), 3);

    told(&["steal-association", EIP, R1]);
    let place = json(&["association", EIP]);
    assert_eq!((&place["network-interface"], &place["private-address"]), (&R1.into(), &"10.99.0.11".into()));
    told(&["steal-association", EIP, R2, "10.99.1.12"]);
    let moved = json(&["wait-for-association", EIP, R2, "--seconds", "1"]);
    assert_eq!(moved["from"]["network-interface"], R1);
    told(&["release-association", EIP]);
    assert_eq!(told(&["association", EIP]), "null");
    assert_eq!(json(&["association-moves"]).as_array().unwrap().len(), 3);
    let other = "eipalloc-0b000000000000001";
    told(&["add-elastic-ip", &format!(r#"{{"id":"{other}","public":"203.0.113.30","network-interface":"{R1}"}}"#)]);
    assert_eq!(json(&["association", other])["network-interface"], R1);
    told(&["delete-elastic-ip", other]);

    told(&["steal-route", T1, OVERLAY, R1]);
    for (command, argument, blackhole) in [
        ("stop-instance", "i-0a000000000000001", true),
        ("start-instance", "i-0a000000000000001", false),
        ("detach-network-interface", R1, true),
    ] {
        told(&[command, argument]);
        assert_eq!(json(&["route", T1, OVERLAY])["blackhole"], blackhole, "{command}");
    }
    told(&["attach-network-interface", R1, "i-0a000000000000001", "0"]);
    assert_eq!(json(&["route", T1, OVERLAY])["blackhole"], false);
    told(&["delete-network-interface", R1]);
    assert_eq!(json(&["route", T1, OVERLAY])["blackhole"], true);
    told(&["delete-route-table", T1]);
    for (arguments, code) in [
        (vec!["route", T1, OVERLAY], "InvalidRouteTableID.NotFound"),
        (vec!["association", other], "InvalidAllocationID.NotFound"),
        (vec!["steal-route", table, "10.99.0.100/32", R2], "InvalidParameterValue"),
        (vec!["add-route-table", &new], "InvalidNetworkInterfaceID.NotFound"),
        (vec!["add-route-table", &new.replace(R1, R2)], "is there twice"),
    ] {
        let refused = ctl(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused.stderr).contains(code), "{arguments:?}: {refused:?}");
    }
    assert_eq!(ctl(&["route-owner", table, "10.200.0.1/16"]).status.code(), Some(2));
    assert_eq!(program.end(), Some(0));
}

#[test]
fn the_program_reports_the_faults_of_its_world() {
    let file = directory("wrong-world").join("world.json");
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
