#!/usr/bin/env python3
"""generate.py policy SERVERS TESTS | capture-policy | capture PACKETS: writes to standard output.

A policy of many servers with tests, and a capture of a day at a DMZ, made small: visits, questions to a name
server, log lines, and a worm. Nothing is random, so that two runs measure the same.
"""

import ipaddress
import struct
import sys

PEERS = "2001:db8:2::/64"
ROUTER_MAC, SERVER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000010")
SYN, ACK, PSH, FIN = 2, 16, 8, 1


def write_policy(servers, tests):
    out = [
        '[policy]\nmanagement = ["tcp/22 from 203.0.113.7"]',
        f'[sets]\nlogs = ["198.51.100.0/24", "{PEERS}"]',
        '[roles.managed]\nout = ["udp/514 to @logs", "udp/123 to 2001:db8:3::30"]',
    ]
    for role in range(16):
        port = 8000 + role
        out.append(f'[roles.r{role}]\nin = ["tcp/{port}"]\nout = ["tcp/{port} to 2001:db8:4::{role:x}"]')
    for server in range(servers):
        out.append(
            f'[servers.s{server}]\naddresses = ["2001:db8:1::{server:x}"]\nroles = ["managed", "r{server % 16}"]'
        )
    for test in range(tests):
        server = test * servers // tests
        role, port = server % 16, 8000 + server % 16
        out.append("[[tests]]")
        if test % 3 == 0:
            out.append(f'from = "s{server}"\naccept = ["udp/514 to 2001:db8:2::9"]\ndeny = ["tcp/80", "udp/53"]')
        elif test % 3 == 1:
            out.append(f'from = "2001:db8:2::9"\nto = "s{server}"\naccept = ["tcp/{port}"]\nonly = true')
        else:
            out.append(
                f'from = "s{server}"\naccept = ["udp/514 to @logs", "udp/123 to 2001:db8:3::30", '
                f'"tcp/{port} to 2001:db8:4::{role:x}"]\nonly = true'
            )
    print("\n".join(out))


def write_capture_policy():
    out = [
        '[roles.web]\nin = ["tcp/80", "tcp/443"]\nout = ["udp/53 to 198.51.100.53", "udp/514 to 198.51.100.20"]',
    ]
    for server in range(200):
        out.append(f'[servers.w{server}]\naddresses = ["192.0.2.{server + 10}"]\nroles = ["web"]')
    print("\n".join(out))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(source, target, protocol, segment, from_server):
    macs = ROUTER_MAC + SERVER_MAC if from_server else SERVER_MAC + ROUTER_MAC
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0, source, target)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return macs + b"\x08\x00" + head + segment


def tcp(ports, flags, sequence, acknowledged, data=b""):
    return struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 0x50, flags, 65535, 0, 0) + data


def udp(ports, data):
    return struct.pack(">HHHH", *ports, 8 + len(data), 0) + data


def packets():
    """Without end: 16 packets a visit, two of a question, one of a log line, four of a worm."""
    number = 0
    address = lambda text: ipaddress.IPv4Address(text).packed
    resolver, loghost = address("198.51.100.53"), address("198.51.100.20")
    while True:
        server = address(f"192.0.2.{number % 200 + 10}")
        peer = address(f"203.0.113.{number % 250 + 1}")
        port = 1024 + number // 250 % 60000
        there, back = (port, 80), (80, port)
        sent = lambda flags, sequence, acknowledged, data=b"": frame(
            peer, server, 6, tcp(there, flags, sequence, acknowledged, data), False
        )
        answered = lambda flags, sequence, acknowledged, data=b"": frame(
            server, peer, 6, tcp(back, flags, sequence, acknowledged, data), True
        )
        yield sent(SYN, 1, 0)
        yield answered(SYN | ACK, 7, 2)
        yield sent(ACK, 2, 8)
        yield sent(PSH | ACK, 2, 8, b"G" * 100)
        for part in range(8):
            yield answered(PSH | ACK, 8 + part * 400, 102, b"A" * 400)
        yield sent(ACK, 102, 3208)
        yield sent(FIN | ACK, 102, 3208)
        yield answered(FIN | ACK, 3208, 103)
        yield sent(ACK, 103, 3209)
        query = (1024 + number % 60000, 53)
        yield frame(server, resolver, 17, udp(query, b"q" * 40), True)
        yield frame(resolver, server, 17, udp(query[::-1], b"r" * 90), False)
        yield frame(server, loghost, 17, udp((514, 514), b"l" * 120), True)
        for step in range(4):
            victim = address(f"198.51.100.{(number * 4 + step) % 250 + 1}")
            yield frame(address("192.0.2.10"), victim, 6, tcp((1024 + number % 60000, 445), SYN, 1, 0), True)
        number += 1


def write_capture(count):
    out = sys.stdout.buffer
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for number, packet in zip(range(count), packets()):
        # ten thousand a second
        second, part = divmod(number, 10000)
        out.write(struct.pack("<IIII", 1_790_000_000 + second, part * 100, len(packet), len(packet)) + packet)


def main():
    match sys.argv[1:]:
        case ["policy", servers, tests]:
            write_policy(int(servers), int(tests))
        case ["capture-policy"]:
            write_capture_policy()
        case ["capture", count]:
            write_capture(int(count))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
