"""Uses the simulator through boto3 as an operator's script would. Arguments: the endpoint's URL.

Ends with 0 if everything was as expected. What the simulator saw is asserted by the caller.
"""

from botocore.exceptions import ConnectionClosedError
from botocore.parsers import ResponseParserError

from client import ec2, refused

R1, R2 = "eni-0a000000000000001", "eni-0a000000000000002"
THIRD_PARTY = "eni-0a000000000000003"


def claim(eni, *addresses, **more):
    return ec2.assign_private_ip_addresses(
        NetworkInterfaceId=eni, PrivateIpAddresses=list(addresses), AllowReassignment=True, **more
    )


# A claim as scripts make it: find the instance by its address, then assign.
instance = ec2.describe_instances(
    Filters=[{"Name": "private-ip-address", "Values": ["10.99.0.11"]}]
)["Reservations"][0]["Instances"][0]
assert instance["InstanceId"] == "i-0a000000000000001", instance
interface = instance["NetworkInterfaces"][0]
assert interface["NetworkInterfaceId"] == R1 and not interface["SourceDestCheck"], interface
assert interface["Attachment"]["DeviceIndex"] == 0, interface
answer = claim(R1, "10.99.0.100", "10.99.0.101")
assert answer["NetworkInterfaceId"] == R1, answer
assert [item["PrivateIpAddress"] for item in answer["AssignedPrivateIpAddresses"]] == [
    "10.99.0.100",
    "10.99.0.101",
], answer

# A third party takes an address, and a filtered read shows it.
claim(THIRD_PARTY, "10.99.0.101")
found = ec2.describe_network_interfaces(
    Filters=[
        {"Name": "addresses.private-ip-address", "Values": ["10.99.0.100", "10.99.0.101"]},
        {"Name": "subnet-id", "Values": ["subnet-0a000000000000001"]},
    ]
)["NetworkInterfaces"]
owners = {
    address["PrivateIpAddress"]: (interface["NetworkInterfaceId"], interface["Attachment"]["InstanceId"])
    for interface in found
    for address in interface["PrivateIpAddresses"]
    if address["PrivateIpAddress"] in ("10.99.0.100", "10.99.0.101")
}
assert owners == {
    "10.99.0.100": (R1, "i-0a000000000000001"),
    "10.99.0.101": (THIRD_PARTY, "i-0a000000000000003"),
}, owners
assert found[0]["PrivateIpAddresses"][0]["Primary"], found
assert found[0]["MacAddress"] == "02:00:00:00:00:01", found

# An Elastic IP moves with its private address.
claim(R2, "10.99.0.110")
moved = ec2.describe_network_interfaces(
    Filters=[{"Name": "addresses.association.public-ip", "Values": ["203.0.113.7"]}]
)["NetworkInterfaces"]
assert [interface["NetworkInterfaceId"] for interface in moved] == [R2], moved

# Pages.
pages = list(
    ec2.get_paginator("describe_network_interfaces").paginate(
        Filters=[{"Name": "vpc-id", "Values": ["vpc-0a000000000000001"]}],
        PaginationConfig={"PageSize": 5},
    )
)
assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 5, 1], pages
assert len({i["NetworkInterfaceId"] for page in pages for i in page["NetworkInterfaces"]}) == 11

# Subnets.
subnet = ec2.describe_subnets(SubnetIds=["subnet-0a000000000000001"])["Subnets"][0]
assert subnet["CidrBlock"] == "10.99.0.0/24" and subnet["AvailabilityZone"] == "eu-west-1a", subnet

# Unassigning.
ec2.unassign_private_ip_addresses(NetworkInterfaceId=THIRD_PARTY, PrivateIpAddresses=["10.99.0.101"])

# What EC2 refuses.
read = ec2.describe_network_interfaces
for expected, call, arguments, more in [
    ((400, "InvalidParameterValue"), claim, (R1, "10.99.1.1"), {}),
    ((400, "InvalidParameterValue"), claim, (R1, "10.99.0.12"), {}),
    ((400, "InvalidNetworkInterfaceID.NotFound"), claim, ("eni-0a0000000000000ff", "10.99.0.100"), {}),
    ((400, "InvalidNetworkInterfaceID.Malformed"), claim, ("eni-x", "10.99.0.100"), {}),
    ((412, "DryRunOperation"), read, (), {"DryRun": True}),
    ((400, "InvalidPaginationToken"), read, (), {"NextToken": "?"}),
    ((400, "InvalidParameterValue"), read, (), {"Filters": [{"Name": "colour", "Values": ["red"]}]}),
    # Injected faults, each for one address.
    ((503, "RequestLimitExceeded"), claim, (R1, "10.99.0.150"), {}),
    ((403, "UnauthorizedOperation"), claim, (R1, "10.99.0.151"), {}),
    ((500, "InternalError"), claim, (R1, "10.99.0.152"), {}),
]:
    seen = refused(call, *arguments, **more)
    assert seen == expected, (arguments, more, seen, expected)
for address, exception in [
    ("10.99.0.153", ConnectionClosedError),
    ("10.99.0.154", ResponseParserError),
    ("10.99.0.155", ResponseParserError),
]:
    try:
        claim(R1, address)
    except exception:
        continue
    raise AssertionError(f"{address}: no {exception}")
print("done")
