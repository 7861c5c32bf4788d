#!/usr/bin/python3
"""The log host and time server: syslog on udp/514 and SNTP on udp/123.

loghost.py serve FILE     writes every syslog message to FILE, one a line
loghost.py ask ADDRESS    asks for the time once; status 0 if there is an answer

A real ntpd would set the clock of the machine.
"""

import asyncio
import socket
import struct
import sys
import time

UNIX_TO_NTP_S = 2_208_988_800


class Syslog(asyncio.DatagramProtocol):
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8", buffering=1)

    def datagram_received(self, data, peer):
        self.file.write(f"{peer[0]} {data.decode('utf-8', 'backslashreplace').strip()}\n")


class TimeServer(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        if len(data) < 48:
            return
        now = struct.pack("!II", int(time.time()) + UNIX_TO_NTP_S, 0)
        # Version 4, mode server, stratum 1; the client's transmit time comes back as originate.
        head = struct.pack("!BBbbII4s", 0x24, 1, 0, -20, 0, 0, b"DEMO")
        self.transport.sendto(head + now + data[40:48] + now + now, peer)


async def serve(path):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Syslog(path), local_addr=("0.0.0.0", 514))
    await loop.create_datagram_endpoint(TimeServer, local_addr=("0.0.0.0", 123))
    await asyncio.Event().wait()


def ask(address):
    cookie = b"askedfor"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(b"\x23" + bytes(39) + cookie, (address, 123))
        answer = sock.recv(128)
    if answer[24:32] != cookie:
        sys.exit("the answer is to another question")
    print(time.ctime(struct.unpack("!I", answer[40:44])[0] - UNIX_TO_NTP_S))


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    asyncio.run(serve(argument)) if verb == "serve" else ask(argument)
