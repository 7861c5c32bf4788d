#!/usr/bin/python3
"""The hosts beyond the router: any web server that a worm finds, the host with the rootkit (FTP and
TFTP), and the host that a reverse shell calls.

attacker.py ADDRESS JOURNAL   writes a line to JOURNAL for each success
"""

import asyncio
import sys

ROOTKIT = b"a rootkit would be here\n"
ADDRESS, JOURNAL = sys.argv[1:]


def note(text):
    with open(JOURNAL, "a", encoding="utf-8") as journal:
        print(text, file=journal)


async def web(reader, writer):
    """tcp/80 of every address there is."""
    await reader.readline()
    writer.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    writer.close()
    note("worm")


async def ftp(reader, writer):
    """Just enough for a client that fetches one file in passive mode."""
    sent = asyncio.Event()

    async def send_file(_reader, data):
        data.write(ROOTKIT)
        data.close()
        sent.set()

    passive = await asyncio.start_server(send_file, ADDRESS, 0)
    port = passive.sockets[0].getsockname()[1]
    answers = {
        "USER": "331 password", "PASS": "230 welcome", "PWD": '257 "/"', "TYPE": "200 ok",
        "EPSV": f"229 passive (|||{port}|)", "QUIT": "221 bye",
    }
    writer.write(b"220 ready\r\n")
    while line := await reader.readline():
        verb = line.split()[0].decode(errors="replace").upper() if line.split() else ""
        if verb == "RETR":
            writer.write(b"150 here it is\r\n")
            await asyncio.wait_for(sent.wait(), 5)
            writer.write(b"226 done\r\n")
            note("ftp")
        else:
            writer.write(answers.get(verb, "502 no").encode() + b"\r\n")
    passive.close()
    writer.close()


class Tftp(asyncio.DatagramProtocol):
    """The first and last block goes out at once, from a port of its own as TFTP wants it."""

    def datagram_received(self, data, peer):
        if data[:2] == b"\0\1":
            asyncio.ensure_future(self.send_block(peer))

    async def send_block(self, peer):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(TftpBlock, local_addr=(ADDRESS, 0))
        transport.sendto(b"\0\3\0\1" + ROOTKIT, peer)
        loop.call_later(5, transport.close)


class TftpBlock(asyncio.DatagramProtocol):
    def datagram_received(self, data, _peer):
        if data[:4] == b"\0\4\0\1":
            note("tftp")


async def shell(reader, writer):
    """tcp/4444: types one command into the shell that called."""
    writer.write(b"id -un; exit\n")
    try:
        who = await asyncio.wait_for(reader.readline(), 5)
    except (OSError, asyncio.TimeoutError):
        who = b""
    if who.strip():
        note(f"shell {who.decode(errors='replace').strip()}")
    writer.close()


async def main():
    await asyncio.start_server(web, None, 80, backlog=512)
    await asyncio.start_server(ftp, ADDRESS, 21)
    await asyncio.start_server(shell, ADDRESS, 4444)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Tftp, local_addr=(ADDRESS, 69))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
