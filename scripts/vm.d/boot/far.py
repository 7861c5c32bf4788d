#!/usr/bin/env python3
"""far.py worm LINK=ROUTER_MAC,SOURCE4,SOURCE6... | far.py internet

What stands at the far ends of the router that boots. `worm` sends a SYN to port 445 by each link, over and over, from
the first moment at which the link exists. `internet` accepts connections to port 25.
"""

import socket
import struct
import sys
import time

TARGET4, TARGET6 = "198.51.100.9", "2001:db8:9::9"
WORM_PORT, MAIL_PORT = 445, 25
INTERVAL_S = 0.02


def sum_words(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def make_syn(family, source, target):
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    pseudo = ends + struct.pack("!II", 20, socket.IPPROTO_TCP)
    syn = struct.pack("!HHIIBBHHH", 40000, WORM_PORT, 1, 0, 5 << 4, 2, 1024, 0, 0)
    syn = syn[:16] + struct.pack("!H", sum_words(pseudo + syn)) + syn[18:]
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, 20, socket.IPPROTO_TCP, 64) + ends + syn
    head = struct.pack("!BBHHHBB", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP)
    return head + struct.pack("!H", sum_words(head + ends)) + ends + syn


def make_frame(own_mac, router_mac, kind, packet):
    return bytes.fromhex(router_mac.replace(":", "")) + own_mac + struct.pack("!H", kind) + packet


def open_link(link, router_mac, packets):
    """A socket on the link, and the frames for it."""
    link_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link_socket.bind((link, 0))
    own_mac = link_socket.getsockname()[4]
    return link_socket, [make_frame(own_mac, router_mac, kind, packet) for kind, packet in packets]


def spread(words):
    links = []
    for word in words:
        link, rest = word.split("=")
        router_mac, source4, source6 = rest.split(",")
        packets = [
            (0x0800, make_syn(socket.AF_INET, source4, TARGET4)),
            (0x86DD, make_syn(socket.AF_INET6, source6, TARGET6)),
        ]
        links.append((link, router_mac, packets))
    sockets = {}
    while True:
        for link, router_mac, packets in links:
            try:
                if link not in sockets:
                    sockets[link] = open_link(link, router_mac, packets)
                link_socket, frames = sockets[link]
                for frame in frames:
                    link_socket.send(frame)
            except OSError:  # not there yet, down, or gone again
                sockets.pop(link, None)
        time.sleep(INTERVAL_S)


def accept():
    with socket.create_server(("", MAIL_PORT), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    if sys.argv[1] == "worm":
        spread(sys.argv[2:])
    else:
        accept()
