//! Subnets in several availability zones.

use std::net::Ipv4Addr;

use simulator::{Simulator, World};

use crate::client::{Client, R1, R2, THIRD_PARTY, any_port, start, unsigned};

#[test]
fn an_address_moves_only_within_its_subnet() {
    let (simulator, _, mut client) = start(unsigned(World::two_zones()));
    let [first, second] = [Ipv4Addr::new(10, 99, 0, 100), Ipv4Addr::new(10, 99, 1, 100)];
    for (eni, address, code) in [
        (R1, first, "Success"),
        (R2, first, "InvalidParameterValue"),
        (THIRD_PARTY, first, "Success"),
        (R2, second, "Success"),
        (R1, second, "InvalidParameterValue"),
    ] {
        let answer = client.claim(eni, &[address]);
        assert_eq!(answer.code(), code, "{eni} {address}: {}", answer.body);
    }
    assert_eq!(simulator.owner(first).unwrap(), THIRD_PARTY);
    assert_eq!(simulator.owner(second).unwrap(), R2);
    assert_eq!(simulator.steal(second, R1).unwrap_err().code, "InvalidParameterValue");
    let answer = client.ask("DescribeSubnets&Filter.1.Name=availability-zone&Filter.1.Value.1=eu-west-1b");
    assert!(answer.body.contains("<subnetId>subnet-0a000000000000002<"), "{}", answer.body);
    assert_eq!(answer.body.matches("<subnetId>").count(), 1, "{}", answer.body);
}

#[test]
fn imds_returns_the_zone_and_subnet_of_each_router() {
    let simulator = Simulator::start(unsigned(World::two_zones())).unwrap();
    for (number, zone, cidr, ipv6) in
        [(1, "eu-west-1a", "10.99.0.0/24", "2001:db8:99::/64"), (2, "eu-west-1b", "10.99.1.0/24", "2001:db8:99:1::/64")]
    {
        let listener = simulator.serve_imds(&format!("i-0a00000000000000{number}"), any_port(), None).unwrap();
        let mut client = Client::new(&listener);
        client.send("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n", "");
        let token = client.receive().unwrap().body;
        let mac = format!("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:0{number}");
        for (path, expected) in [
            ("/latest/meta-data/placement/availability-zone".to_owned(), zone),
            (format!("{mac}/subnet-id"), &format!("subnet-0a00000000000000{number}")),
            (format!("{mac}/subnet-ipv4-cidr-block"), cidr),
            (format!("{mac}/subnet-ipv6-cidr-blocks"), ipv6),
            (format!("{mac}/vpc-id"), "vpc-0a000000000000001"),
            (format!("{mac}/vpc-ipv4-cidr-blocks"), "10.99.0.0/16"),
            (format!("{mac}/vpc-ipv6-cidr-blocks"), "2001:db8:99::/56"),
        ] {
            let answer = client.imds(&token, &path);
            assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path}");
        }
        let document = client.imds(&token, "/latest/dynamic/instance-identity/document").body;
        assert!(document.contains(&format!("\"availabilityZone\": \"{zone}\"")), "{document}");
    }
}

#[test]
fn ipv6_blocks_lie_in_each_other_and_do_not_overlap() {
    let mut world = World::two_zones();
    world.subnets[0].ipv6_cidr = Some("2001:db8:98::/64".to_owned());
    let faults = Simulator::start(world).err().unwrap().0;
    assert!(faults[0].contains("2001:db8:98::/64 is not inside"), "{faults:?}");
    let mut world = World::two_zones();
    world.subnets[1].ipv6_cidr = world.subnets[0].ipv6_cidr.clone();
    let faults = Simulator::start(world).err().unwrap().0;
    assert!(faults[0].contains("overlaps subnet-0a000000000000001"), "{faults:?}");
}
