"""Moves routes and Elastic IPs between two availability zones through boto3. Arguments: the endpoint's URL.

Ends with 0 if everything was as expected. What the simulator saw is asserted by the caller.
"""

from botocore.exceptions import ConnectionClosedError

from client import ec2, refused

R1, R2 = "eni-0a000000000000001", "eni-0a000000000000002"
THIRD_PARTY = "eni-0a000000000000003"
VPC = "vpc-0a000000000000001"
T1, T2 = "rtb-0a000000000000001", "rtb-0a000000000000002"
IGW = "igw-0a000000000000001"
EIP, FOREIGN = "eipalloc-0a000000000000001", "eipalloc-0b000000000000001"
OVERLAY, OVERLAY6 = "10.200.0.1/32", "2001:db8:ffff::1/128"
NOBODY = {"table": "rtb-0a00000000000000f", "eni": "eni-0a00000000000000f"}


def route(call, table, destination, eni, **more):
    family = "DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock"
    return call(RouteTableId=table, NetworkInterfaceId=eni, **{family: destination}, **more)


def associate(allocation, eni, **more):
    return ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni, **more)


def table(id):
    found = ec2.describe_route_tables(Filters=[{"Name": "route-table-id", "Values": [id]}])["RouteTables"]
    assert len(found) == 1, found
    return found[0]


def routes(id):
    return {
        route.get("DestinationCidrBlock", route.get("DestinationIpv6CidrBlock")): route
        for route in table(id)["Routes"]
    }


# A table at the start.
first = table(T1)
assert first == {
    "RouteTableId": T1,
    "VpcId": VPC,
    "OwnerId": "123456789012",
    "Routes": [
        {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": IGW, "Origin": "CreateRoute", "State": "active"},
        {
            "DestinationCidrBlock": "10.99.0.0/16",
            "GatewayId": "local",
            "Origin": "CreateRouteTable",
            "State": "active",
        },
        {
            "DestinationCidrBlock": "10.201.0.0/16",
            "GatewayId": "vgw-0a000000000000001",
            "Origin": "EnableVgwRoutePropagation",
            "State": "active",
        },
        {
            "DestinationIpv6CidrBlock": "2001:db8:99::/56",
            "GatewayId": "local",
            "Origin": "CreateRouteTable",
            "State": "active",
        },
    ],
    "Associations": [
        {
            "Main": True,
            "RouteTableAssociationId": "rtbassoc-0a000000000000001",
            "RouteTableId": T1,
            "AssociationState": {"State": "associated"},
        },
        {
            "Main": False,
            "RouteTableAssociationId": "rtbassoc-0a000000000000001",
            "RouteTableId": T1,
            "SubnetId": "subnet-0a000000000000001",
            "AssociationState": {"State": "associated"},
        },
    ],
    "PropagatingVgws": [{"GatewayId": "vgw-0a000000000000001"}],
    "Tags": [],
}, first

# A route is created, moves to the other zone, and reads show its target.
for destination in (OVERLAY, OVERLAY6):
    for id in (T1, T2):
        assert refused(route, ec2.replace_route, id, destination, R1) == (400, "InvalidRoute.NotFound")
        assert route(ec2.create_route, id, destination, R1)["Return"] is True
        route(ec2.replace_route, id, destination, R2)
        seen = routes(id)[destination]
        seen.pop("DestinationCidrBlock", None)
        seen.pop("DestinationIpv6CidrBlock", None)
        assert seen == {
            "InstanceId": "i-0a000000000000002",
            "InstanceOwnerId": "123456789012",
            "NetworkInterfaceId": R2,
            "Origin": "CreateRoute",
            "State": "active",
        }, seen

# A route to an unattached interface is a blackhole.
route(ec2.create_route, T2, "10.202.0.0/16", "eni-0b000000000000001")
seen = routes(T2)["10.202.0.0/16"]
assert seen == {
    "DestinationCidrBlock": "10.202.0.0/16",
    "NetworkInterfaceId": "eni-0b000000000000001",
    "Origin": "CreateRoute",
    "State": "blackhole",
}, seen

# Targets other than interfaces, and a local route that is replaced and restored.
for name, id, shown in [
    ("GatewayId", IGW, "GatewayId"),
    ("VpcEndpointId", "vpce-0a000000000000001", "GatewayId"),
    ("NatGatewayId", "nat-0a000000000000001", "NatGatewayId"),
    ("TransitGatewayId", "tgw-0a000000000000001", "TransitGatewayId"),
    ("VpcPeeringConnectionId", "pcx-0a000000000000001", "VpcPeeringConnectionId"),
    ("LocalGatewayId", "lgw-0a000000000000001", "LocalGatewayId"),
    ("CarrierGatewayId", "cagw-0a000000000000001", "CarrierGatewayId"),
    ("CoreNetworkArn", "arn:aws:networkmanager::123456789012:core-network/x", "CoreNetworkArn"),
]:
    ec2.replace_route(RouteTableId=T2, DestinationCidrBlock="10.202.0.0/16", **{name: id})
    assert routes(T2)["10.202.0.0/16"][shown] == id, routes(T2)
ec2.replace_route(
    RouteTableId=T2, DestinationIpv6CidrBlock=OVERLAY6, EgressOnlyInternetGatewayId="eigw-0a000000000000001"
)
assert routes(T2)[OVERLAY6]["EgressOnlyInternetGatewayId"] == "eigw-0a000000000000001", routes(T2)
route(ec2.replace_route, T2, "10.99.0.0/16", R2)
assert routes(T2)["10.99.0.0/16"]["NetworkInterfaceId"] == R2, routes(T2)
ec2.replace_route(RouteTableId=T2, DestinationCidrBlock="10.99.0.0/16", LocalTarget=True)
assert routes(T2)["10.99.0.0/16"]["GatewayId"] == "local", routes(T2)

# Pages and ids.
pages = list(
    ec2.get_paginator("describe_route_tables").paginate(
        Filters=[{"Name": "vpc-id", "Values": [VPC]}], PaginationConfig={"PageSize": 5}
    )
)
assert [len(page["RouteTables"]) for page in pages] == [5, 2], pages
named = ec2.describe_route_tables(RouteTableIds=[T2, T1])["RouteTables"]
assert sorted(found["RouteTableId"] for found in named) == [T1, T2], named

# An Elastic IP moves between zones.
address = ec2.describe_addresses(AllocationIds=[EIP])["Addresses"][0]
assert address == {
    "AllocationId": EIP,
    "Domain": "vpc",
    "NetworkBorderGroup": "eu-west-1",
    "PublicIp": "203.0.113.10",
    "PublicIpv4Pool": "amazon",
    "Tags": [],
}, address
before = associate(EIP, R1, PrivateIpAddress="10.99.0.11", AllowReassociation=True)["AssociationId"]
assert associate(EIP, R1)["AssociationId"] == before
assert refused(associate, EIP, R2) == (400, "Resource.AlreadyAssociated")
assert refused(associate, EIP, R2, AllowReassociation=False) == (400, "Resource.AlreadyAssociated")
after = associate(EIP, R2, AllowReassociation=True)["AssociationId"]
assert before != after
address = ec2.describe_addresses(Filters=[{"Name": "allocation-id", "Values": [EIP]}])["Addresses"][0]
assert {key: address[key] for key in address if key not in ("Tags", "PublicIpv4Pool")} == {
    "AllocationId": EIP,
    "AssociationId": after,
    "Domain": "vpc",
    "InstanceId": "i-0a000000000000002",
    "NetworkBorderGroup": "eu-west-1",
    "NetworkInterfaceId": R2,
    "NetworkInterfaceOwnerId": "123456789012",
    "PrivateIpAddress": "10.99.1.12",
    "PublicIp": "203.0.113.10",
}, address
interface = ec2.describe_network_interfaces(
    Filters=[{"Name": "addresses.private-ip-address", "Values": ["10.99.1.12"]}]
)["NetworkInterfaces"][0]
association = {
    "AllocationId": EIP,
    "AssociationId": after,
    "IpOwnerId": "123456789012",
    "PublicDnsName": "",
    "PublicIp": "203.0.113.10",
}
assert interface["PrivateIpAddresses"][0]["Association"] == association, interface
assert interface["Association"] == association, interface
for id in (before, after, after):
    ec2.disassociate_address(AssociationId=id)

# It moves along with its private address, and is disassociated when that is unassigned.
claim = ec2.assign_private_ip_addresses
claim(NetworkInterfaceId=R1, PrivateIpAddresses=["10.99.0.100"], AllowReassignment=True)
associate(EIP, R1, PrivateIpAddress="10.99.0.100")
claim(NetworkInterfaceId=THIRD_PARTY, PrivateIpAddresses=["10.99.0.100"], AllowReassignment=True)
address = ec2.describe_addresses(AllocationIds=[EIP])["Addresses"][0]
assert (address["NetworkInterfaceId"], address["PrivateIpAddress"]) == (THIRD_PARTY, "10.99.0.100"), address
ec2.unassign_private_ip_addresses(NetworkInterfaceId=THIRD_PARTY, PrivateIpAddresses=["10.99.0.100"])
assert "AssociationId" not in ec2.describe_addresses(AllocationIds=[EIP])["Addresses"][0]

# Dry runs change nothing.
dry = {"DryRun": True}
for call, arguments, more in [
    (route, (ec2.create_route, T1, "10.203.0.0/16", R1), dry),
    (route, (ec2.replace_route, T1, OVERLAY, R1), dry),
    (associate, (EIP, R1), dry),
    (ec2.disassociate_address, (), dry | {"AssociationId": after}),
    (ec2.describe_route_tables, (), dry),
    (ec2.describe_addresses, (), dry),
]:
    assert refused(call, *arguments, **more) == (412, "DryRunOperation"), (call, arguments)
assert "10.203.0.0/16" not in routes(T1) and routes(T1)[OVERLAY]["NetworkInterfaceId"] == R2

# What EC2 refuses.
for expected, call, arguments, more in [
    ((400, "RouteAlreadyExists"), route, (ec2.create_route, T1, OVERLAY, R1), {}),
    ((400, "RouteLimitExceeded"), route, (ec2.create_route, T2, "10.204.0.0/16", R1), {}),
    ((400, "InvalidRouteTableID.NotFound"), route, (ec2.replace_route, NOBODY["table"], OVERLAY, R1), {}),
    ((400, "InvalidRouteTableID.NotFound"), ec2.describe_route_tables, (), {"RouteTableIds": [NOBODY["table"]]}),
    ((400, "InvalidNetworkInterfaceID.NotFound"), route, (ec2.replace_route, T1, OVERLAY, NOBODY["eni"]), {}),
    ((400, "InvalidRoute.NotFound"), route, (ec2.replace_route, T1, "10.201.0.0/16", R1), {}),
    ((400, "InvalidParameterValue"), route, (ec2.create_route, T1, "10.99.0.100/32", R1), {}),
    ((400, "InvalidAllocationID.NotFound"), associate, ("eipalloc-0a00000000000000f", R1), {}),
    ((400, "InvalidNetworkInterfaceID.NotFound"), associate, (EIP, NOBODY["eni"]), {}),
    ((400, "AuthFailure"), associate, (FOREIGN, R1), {}),
    ((400, "InvalidParameterValue"), associate, (EIP, R1), {"PrivateIpAddress": "10.99.1.12"}),
    ((400, "InvalidAllocationID.NotFound"), ec2.describe_addresses, (), {"AllocationIds": [FOREIGN]}),
    # Injected faults.
    ((403, "UnauthorizedOperation"), route, (ec2.replace_route, T1, OVERLAY, THIRD_PARTY), dry),
    ((403, "UnauthorizedOperation"), associate, (EIP, THIRD_PARTY), dry),
    ((503, "RequestLimitExceeded"), route, (ec2.replace_route, T1, OVERLAY, THIRD_PARTY), {}),
    ((503, "RequestLimitExceeded"), associate, (EIP, THIRD_PARTY), {}),
]:
    seen = refused(call, *arguments, **more)
    assert seen == expected, (arguments, more, seen, expected)
for call, arguments in [(route, (ec2.replace_route, T1, OVERLAY, THIRD_PARTY)), (associate, (EIP, THIRD_PARTY))]:
    try:
        call(*arguments)
    except ConnectionClosedError:
        continue
    raise AssertionError(f"{arguments}: the connection was not closed")
print("done")
