"""Sends a VRRP version 2 advertisement (RFC 3768, 5.1), as a unicast router does, for each priority on standard input.

usage: advertise.py SOURCE DESTINATION VRID ADDRESS
"""

import socket
import struct
import sys

source, destination, vrid, address = sys.argv[1:]


def advertisement(priority, checksum):
    # Version 2 and type 1; one address; no authentication, whose eight bytes are there all the same; every second.
    header = struct.pack("!BBBBBBH", 0x21, int(vrid), priority, 1, 0, 1, checksum)
    return header + socket.inet_aton(address) + bytes(8)


def internet_checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as raw:
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
    raw.bind((source, 0))
    for line in sys.stdin:
        priority = int(line)
        checksum = internet_checksum(advertisement(priority, 0))
        raw.sendto(advertisement(priority, checksum), (destination, 0))
