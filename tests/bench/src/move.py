"""Moves routes or Elastic IPs as scripts do that keepalived calls: looks at one and moves it, then the next.

Arguments: `route` or `elastic-ip`, the own interface, and for each the route table and the destination, or the
allocation and the private address, with = between them.
"""

import sys

import boto3

kind, eni, *places = sys.argv[1:]
ec2 = boto3.client("ec2")
for place in places:
    what, where = place.split("=")
    if kind == "route":
        [table] = ec2.describe_route_tables(RouteTableIds=[what])["RouteTables"]
        [route] = [r for r in table["Routes"] if r.get("DestinationCidrBlock") == where]
        if route.get("NetworkInterfaceId") != eni:
            ec2.replace_route(RouteTableId=what, DestinationCidrBlock=where, NetworkInterfaceId=eni)
    else:
        [address] = ec2.describe_addresses(AllocationIds=[what])["Addresses"]
        if address.get("NetworkInterfaceId") != eni:
            ec2.associate_address(
                AllocationId=what, NetworkInterfaceId=eni, PrivateIpAddress=where, AllowReassociation=True
            )
