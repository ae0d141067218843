"""A small SMTP server for tests: it takes what it is given and keeps it as messages."""

from __future__ import annotations

import email
import socketserver
import threading
from email.message import EmailMessage
from email.policy import default


class Mailbox:
    """An SMTP server on a free port of 127.0.0.1, while its ``with`` block lasts.

    Attributes
    ----------
    messages : list of EmailMessage
        What came, oldest first.
    """

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        box = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 mailbox")
                while line := self.rfile.readline().decode("utf-8", "replace").strip():
                    verb = line.split(" ")[0].upper()
                    if verb == "DATA":
                        self._say("354 go on")
                        box.messages.append(self._message())
                        self._say("250 kept")
                    elif verb == "QUIT":
                        self._say("221 bye")
                        return
                    else:
                        self._say("250 mailbox")

            def _message(self) -> EmailMessage:
                lines: list[bytes] = []
                while (line := self.rfile.readline()).rstrip(b"\r\n") != b".":
                    lines.append(line[1:] if line.startswith(b"..") else line)
                return email.message_from_bytes(b"".join(lines), policy=default)

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Mailbox:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
