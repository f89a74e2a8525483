"""Answers the clients' datagrams with the router's name: `echo.py NAME PORT`."""

import socket
import struct
import sys

# From linux/in.h; Python's module has it since 3.14.
IP_PKTINFO = 8


def main(name, port):
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    service.bind(('', int(port)))
    while True:
        data, control, _, peer = service.recvmsg(64, 64)
        # The answer has to come from the address that was asked, which is seldom the interface's first.
        asked = next(value[4:8] for level, kind, value in control if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO))
        if data.startswith(b'probe '):
            source = [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack('4x4s4x', asked))]
            try:
                service.sendmsg([data, b' ', name.encode()], source, 0, peer)
            except OSError as error:
                # The address may have left in between.
                print(f'no answer to {peer[0]}: {error}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
