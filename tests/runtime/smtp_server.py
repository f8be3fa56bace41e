"""A mail server that keeps what it gets: enough of SMTP for one client, at a real socket."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Mailbox:
    """What was received. `replies` to the end of the mails come first, then 250."""

    port: int = 0
    replies: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Mailbox]:
    """Run a server."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        timeout = 20

        def answer(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.answer("220 mail ready")
            while line := self.rfile.readline():
                word = line.split(b" ")[0].strip().upper()
                if word == b"EHLO":
                    self.answer("250-mail\r\n250 AUTH PLAIN")
                elif word == b"AUTH":
                    box.logins.append(line.decode().strip())
                    self.answer("235 welcome")
                elif word == b"DATA":
                    self.answer("354 go on")
                    self.take()
                elif word == b"QUIT":
                    self.answer("221 bye")
                    return
                else:
                    self.answer("250 ok")

        def take(self) -> None:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            reply = box.replies.pop(0) if box.replies else "250 taken"
            if reply.startswith("2"):
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                assert isinstance(mail, EmailMessage)
                box.mails.append(mail)
            self.answer(reply)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
