"""A mail server for tests: takes letters on loopback and prints each as a line of JSON, as Python's own library of mail
reads it. A line of standard input says from here on what it does, and is printed when it is done:
{"mode": "take" | "refuse" | "grey" | "drop" | "wait"}."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Handler:
    mode = "take"
    refused = "nobody@example.org"
    login = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.mode == "refuse" or address == self.refused:
            return "550 5.1.1 no such mailbox"
        if self.mode == "grey":
            return "451 4.7.1 greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.mode == "drop":
            # The letter is here whole, and its sender never hears so.
            server.transport.abort()
            return "421 gone"
        say(letter(envelope, session, server) | {"login": self.login})
        if self.mode == "wait":
            # It has the letter, and its answer is never heard.
            await asyncio.sleep(3600)
        return "250 queued"


def letter(envelope, session, server):
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    parts = [p for p in message.walk() if not p.is_multipart()]
    return {
        "from": envelope.mail_from,
        "rcpt": envelope.rcpt_tos,
        "tls": session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None,
        "headers": {k.lower(): str(v) for k, v in message.items()},
        "type": message.get_content_type(),
        "parts": [part(p) for p in parts],
        "defects": [str(d) for p in message.walk() for d in p.defects],
        "raw_lines": max(len(l) for l in envelope.content.split(b"\r\n")),
    }


def part(found):
    content = found.get_content()
    if isinstance(content, str):
        return [found.get_content_type(), content.replace("\r\n", "\n")]
    # A file: how it begins, what it is called and how long it is.
    return [found.get_content_type(), content[:5].decode("latin-1"), found.get_filename(), len(content)]


def say(value):
    print(json.dumps(value), flush=True)


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.password == b"open sesame"
    server.event_handler.login = data.login.decode() if good else None
    return AuthResult(success=good, handled=good)


async def main():
    kind, cert, key = sys.argv[1:4]
    handler = Handler()
    context = None
    if cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
    options = {"hostname": "mail.test", "enable_SMTPUTF8": True}
    if kind == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if kind != "plain":
        options |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": kind == "starttls"}
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: SMTP(handler, loop=loop, **options), "127.0.0.1", 0, ssl=context if kind == "tls" else None
    )
    say({"port": listener.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        handler.mode = json.loads(line)["mode"]
        say({"mode": handler.mode})


asyncio.run(main())
