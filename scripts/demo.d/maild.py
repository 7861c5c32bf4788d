#!/usr/bin/python3
"""A mail server on aiosmtpd: receives on tcp/25 and relays on tcp/25. It needs no service and no
account of the machine.

maild.py DOMAIN SPOOL RESOLVER [ADDRESS]
                                 mail for DOMAIN goes into the file SPOOL; for any other domain it
                                 goes to the MX that RESOLVER names; with RESOLVER `none` it is refused

A packaged mail server would replace the one that the machine has, and use its queue.
"""

import asyncio
import smtplib
import subprocess
import sys

from aiosmtpd.smtp import SMTP


class Mailer:
    def __init__(self, domain, spool, resolver):
        self.domain, self.spool, self.resolver = domain, spool, resolver

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if self.resolver == "none" and not address.endswith("@" + self.domain):
            return "550 relaying denied"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, session, envelope):
        loop = asyncio.get_running_loop()
        for address in envelope.rcpt_tos:
            try:
                await loop.run_in_executor(None, self.deliver, session.peer[0], envelope, address)
            except (OSError, smtplib.SMTPException, subprocess.SubprocessError) as error:
                print(f"{address}: {error!r}", flush=True)
                return f"451 {type(error).__name__}"
        return "250 OK"

    def deliver(self, peer, envelope, address):
        domain = address.rpartition("@")[2]
        if domain == self.domain:
            with open(self.spool, "ab") as spool:
                spool.write(f"From {envelope.mail_from} by {peer}\n".encode() + envelope.content + b"\n")
            return
        with smtplib.SMTP(self.find_exchanger(domain), 25, f"mail.{self.domain}", 5) as relay:
            relay.sendmail(envelope.mail_from, [address], envelope.content)

    def find_exchanger(self, domain):
        name = self.ask(domain, "MX").split()[1]
        return self.ask(name, "A").strip()

    def ask(self, name, kind):
        command = ["dig", f"@{self.resolver}", "+short", "+time=2", "+tries=1", name, kind]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if not answer.strip():
            raise OSError(f"{name} has no {kind}")
        return answer.splitlines()[0]


async def main(domain, spool, resolver, address="0.0.0.0"):
    mailer = Mailer(domain, spool, resolver)
    await asyncio.get_running_loop().create_server(
        # Without a name of its own it would ask the machine's resolver, which is not reachable here.
        lambda: SMTP(mailer, hostname=f"mail.{domain}", enable_SMTPUTF8=False),
        address,
        25,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
