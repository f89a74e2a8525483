"""Claims an address as scripts do that keepalived calls: finds the own interface, then assigns.

Arguments: the own primary address, the address to claim.
"""

import sys

import boto3

own, address = sys.argv[1:]
ec2 = boto3.client("ec2")
found = ec2.describe_instances(Filters=[{"Name": "private-ip-address", "Values": [own]}])
interfaces = found["Reservations"][0]["Instances"][0]["NetworkInterfaces"]
eni = next(i["NetworkInterfaceId"] for i in interfaces if i["PrivateIpAddress"] == own)
ec2.assign_private_ip_addresses(
    NetworkInterfaceId=eni, PrivateIpAddresses=[address], AllowReassignment=True
)
