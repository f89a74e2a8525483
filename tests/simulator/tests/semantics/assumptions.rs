//! What EC2 and IMDS do is not documented in every case: the world sets it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use simulator::{ClaimAnswers, Fault, ImdsAddresses, On, RoleKeys, Simulator, Throttling, World};

use crate::client::{Client, R1, SOON, VIP, any_port, start, unsigned, world};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 5);
const INSTANCE: &str = "i-0a000000000000001";

#[test]
fn a_claim_can_list_or_move_the_first_address_alone() {
    for (answers, listed, moved) in
        [(ClaimAnswers::All, 2, true), (ClaimAnswers::FirstListed, 1, true), (ClaimAnswers::FirstMoves, 1, false)]
    {
        let mut world = world();
        world.claim_answers = answers;
        let (simulator, _, mut client) = start(world);
        let answer = client.claim(R1, &[VIP, OTHER]);
        assert_eq!(answer.code(), "Success", "{}", answer.body);
        assert_eq!(answer.body.matches("<privateIpAddress>").count(), listed, "{answers:?}: {}", answer.body);
        assert!(answer.body.contains(&format!("<privateIpAddress>{VIP}")), "{answers:?}: {}", answer.body);
        assert_eq!(simulator.owner(VIP).unwrap(), R1);
        assert_eq!(simulator.owner(OTHER).is_some(), moved, "{answers:?}: {simulator}");
    }
}

#[test]
fn the_limit_of_filter_values_can_be_set() {
    let query = "DescribeNetworkInterfaces&Filter.1.Name=vpc-id&Filter.1.Value.1=a&Filter.1.Value.2=b\
                 &Filter.2.Name=subnet-id&Filter.2.Value.1=c";
    for (limit, code) in [(3, "Success"), (2, "FilterLimitExceeded")] {
        let mut world = world();
        world.filter_value_limit = limit;
        let (_simulator, _, mut client) = start(world);
        assert_eq!(client.ask(query).code(), code);
    }
}

const REPLACE: &str =
    "ReplaceRoute&RouteTableId=rtb-0a000000000000001&NetworkInterfaceId=eni-0a000000000000001&DestinationCidrBlock=";

#[test]
fn a_denied_dry_run_can_be_checked_before_it_is_denied() {
    for (last, of_wrong) in [(false, "UnauthorizedOperation"), (true, "InvalidParameterValue")] {
        let mut world = unsigned(World::two_zones());
        world.deny_dry_runs_last = last;
        let (simulator, _, mut client) = start(world);
        simulator.add_fault(Fault::on(On::action("ReplaceRoute")).deny());
        assert_eq!(client.ask(&format!("{REPLACE}nonsense&DryRun=true")).code(), of_wrong);
        assert_eq!(client.ask(&format!("{REPLACE}0.0.0.0/0&DryRun=true")).code(), "UnauthorizedOperation");
        assert_eq!(client.ask(&format!("{REPLACE}0.0.0.0/0")).code(), "UnauthorizedOperation");
        assert!(simulator.route_moves().is_empty(), "{simulator}");
    }
}

#[test]
fn a_denied_assignment_of_a_primary_address_can_be_checked_before_it_is_denied() {
    for (last, of_primary) in [(false, "UnauthorizedOperation"), (true, "InvalidParameterValue")] {
        let mut world = world();
        world.deny_claims_last = last;
        let (simulator, _, mut client) = start(world);
        simulator.add_fault(Fault::on(On::claims()).deny());
        assert_eq!(client.claim(R1, &[Ipv4Addr::new(10, 99, 0, 11)]).code(), of_primary);
        assert_eq!(client.claim(R1, &[VIP]).code(), "UnauthorizedOperation");
        assert!(simulator.moves().is_empty(), "{simulator}");
    }
}

#[test]
fn dry_runs_can_be_left_out_of_the_rate_limits() {
    for (free, of_last) in [(false, "RequestLimitExceeded"), (true, "DryRunOperation")] {
        let one = Throttling { mutating_burst: 1.0, mutating_per_second: 0.0, ..Throttling::default() };
        let mut world = unsigned(World::two_zones()).throttling(Some(one));
        world.free_dry_runs = free;
        let (_simulator, _, mut client) = start(world);
        let dry_run = format!("{REPLACE}0.0.0.0/0&DryRun=true");
        assert_eq!(client.ask(&dry_run).code(), "DryRunOperation");
        assert_eq!(client.ask(&dry_run).code(), of_last);
    }
}

fn token(client: &mut Client) -> String {
    client.send("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n", "");
    client.receive().unwrap().body
}

#[test]
fn imds_can_list_addresses_in_ascending_order() {
    let path = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/local-ipv4s";
    for (order, expected) in
        [(ImdsAddresses::PrimaryFirst, "10.99.0.11\n10.99.0.5"), (ImdsAddresses::Ascending, "10.99.0.5\n10.99.0.11")]
    {
        let mut world = world();
        world.imds_addresses = order;
        let simulator = Simulator::start(world).unwrap();
        simulator.steal(OTHER, R1).unwrap();
        let mut client = Client::new(&simulator.serve_imds(INSTANCE, any_port(), None).unwrap());
        let token = token(&mut client);
        assert_eq!(client.imds(&token, path).body, expected);
    }
}

#[test]
fn imds_can_renew_the_role_s_key_before_it_expires() {
    let path = "/latest/meta-data/iam/security-credentials/router";
    let mut world = world();
    world.role_keys = RoleKeys { valid_seconds: 600, renewed_seconds_before_expiry: Some(597) };
    let simulator = Simulator::start(world).unwrap();
    let first = simulator.role_access_key(INSTANCE).unwrap();
    let mut client = Client::new(&simulator.serve_imds(INSTANCE, any_port(), None).unwrap());
    let token = token(&mut client);
    assert!(client.imds(&token, path).body.contains(&first));
    let begin = Instant::now();
    while client.imds(&token, path).body.contains(&first) {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_ne!(simulator.role_access_key(INSTANCE).unwrap(), first);
}

#[test]
fn an_idle_connection_can_be_dropped_silently() {
    let mut world = world();
    // Longer than a busy machine takes between two requests.
    world.idle_timeout_ms = Some(2000);
    let (simulator, listener, mut client) = start(world);
    assert_eq!(client.ask("DescribeSubnets").code(), "Success");
    assert_eq!(client.ask("DescribeSubnets").code(), "Success");
    std::thread::sleep(Duration::from_millis(2100));
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.send_query("DescribeSubnets");
    let unanswered = client.receive().map(|answer| answer.status).unwrap_err().kind();
    assert!(matches!(unanswered, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{unanswered:?}");
    assert_eq!(simulator.requests().len(), 2, "what is sent on it arrives nowhere: {simulator}");
    assert_eq!(Client::new(&listener).ask("DescribeSubnets").code(), "Success");
}
