# A mail server that demands TLS and a login, and writes down what it gets: FOLDER starttls|smtps PORT.
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Mailbox:
    async def handle_DATA(self, server, session, envelope):
        print(envelope.mail_from, envelope.rcpt_tos, envelope.content.decode(), "END OF MAIL", flush=True)
        return "250 OK"


def log_in(server, session, envelope, mechanism, data):
    # Not handled: the server answers itself that a login has failed.
    return AuthResult(success=(data.login, data.password) == (b"gate", b"s3cret"), handled=False)


folder, mode, port = sys.argv[1:]
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(folder + "/server.pem", folder + "/server.key")
if mode == "starttls":
    encryption = {"tls_context": tls, "require_starttls": True}
else:
    encryption = {"ssl_context": tls, "auth_require_tls": False}
login = {"authenticator": log_in, "auth_required": True}
Controller(Mailbox(), hostname="127.0.0.1", port=int(port), **login, **encryption).start()
print("ready", flush=True)
threading.Event().wait()
