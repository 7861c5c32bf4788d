#!/usr/bin/env python3
"""Looks names up by glibc, and connects at once to what it was answered.

look_up.py COUNT EACH FAMILY PORT SECONDS GO_ON NAME...

COUNT lookups at least, and more while the file GO_ON is there. EACH: to how many addresses of each family of an
answer it connects. FAMILY: 0 for both, 4 or 6. A NAME may have %d in it, for the number of the lookup. Prints the
numbers of lookups and of connections. Ends with 1 at the first failure, and says which.
"""

import os
import socket
import sys

FAMILIES = {"0": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}


def connect(info, seconds):
    with socket.socket(*info[:3]) as stream:
        stream.settimeout(seconds)
        stream.connect(info[4])
        stream.sendall(b"ping")
        answer = stream.recv(4, socket.MSG_WAITALL)
        if answer != b"ping":
            raise OSError(f"answered {answer}")


def main():
    count, each, family, port, seconds, go_on, *names = sys.argv[1:]
    lookups = connections = 0
    while lookups < int(count) or os.path.exists(go_on):
        name = names[lookups % len(names)].replace("%d", f"{os.getpid()}-{lookups}")
        lookups += 1
        try:
            infos = socket.getaddrinfo(name, int(port), FAMILIES[family], socket.SOCK_STREAM)
        except OSError as error:
            sys.exit(f"lookup {lookups} of {name}: {error}")
        for kind in (socket.AF_INET, socket.AF_INET6):
            for info in [info for info in infos if info[0] == kind][: int(each)]:
                try:
                    connect(info, float(seconds))
                except OSError as error:
                    sys.exit(f"connection to {info[4]} of {name}, lookup {lookups}: {error}")
                connections += 1
    print(lookups, connections)


main()
