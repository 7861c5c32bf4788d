#!/usr/bin/python3
"""Looks for web servers at random addresses, as Code Red did in 2001.

worm.py HOSTS NETWORK...   tries HOSTS different addresses of each NETWORK on tcp/80, all at once
"""

import asyncio
import ipaddress
import random
import sys

PATIENCE_S = 2.5  # the first SYN and one more
REQUEST = b"GET /default.ida?" + 32 * b"N" + b" HTTP/1.0\r\n\r\n"


async def try_address(address):
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 80), PATIENCE_S)
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.close()
        return answer.startswith(b"HTTP/")
    except (OSError, asyncio.TimeoutError):
        return False


def pick_addresses(network, count):
    network = ipaddress.ip_network(network)
    first, last = int(network[1]), int(network[-2])
    # Not random.sample(range(...)): an IPv6 network is longer than a range may be.
    picked = set()
    while len(picked) < min(count, last - first + 1):
        picked.add(random.randint(first, last))
    return [str(ipaddress.ip_address(number)) for number in picked]


async def main(count, networks):
    targets = [a for network in networks for a in pick_addresses(network, count)]
    answers = await asyncio.gather(*map(try_address, targets))
    print(f"{sum(answers)} of {len(targets)}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
