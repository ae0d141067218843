"""Messages on their way: to a real webhook and a real mail server that are there, away, slow, or come back."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend import delivery as sending
from lepton_jupyter.backend.alert_store import AlertStore, DeliveryRow
from lepton_jupyter.backend.delivery import Delivery
from lepton_jupyter.backend.schedule_store import ScheduleRow, ScheduleStore
from lepton_jupyter.backend.tables import open_database
from lepton_jupyter.core.paths import Home, new_run_id
from lepton_jupyter.formats.schedule import ScheduleRecord
from tests.life.mailbox import Mailbox

SECRET = "t0ken-of-ours"
TITLE = "[FIRING] diagnosis: psi > 0.2 (0.41), DRIFT"
BODY = "psi is 0.41: it meets psi > 0.2.\n\nDRIFT: age drifted\n\n- <b>age</b> & income drifted"

Wait = Callable[..., Any]


class Webhook:
    """An HTTP server that keeps what it is told; it answers with `status`, and only once `may_answer` is set."""

    def __init__(self, port: int = 0) -> None:
        self.told: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.may_answer.wait(60)
                if hook.status == 200:
                    hook.told.append(content)
                    hook.paths.append(self.path)
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens, with a secret."""
        return f"http://127.0.0.1:{self.port}/hook/{SECRET}?key=1"

    def close(self) -> None:
        """Be away."""
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()


class Post:
    """A schedule's environment, a queue, and a delivery that is driven by hand."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.engine = open_database(home.state_db)
        self.store = AlertStore(self.engine)
        self.delivery = Delivery(home, self.engine, pauses_s=(0.1, 0.1))
        self.generation = ""

    def define(self, **environment: str) -> None:
        """Define the schedule with an environment in which channels are looked up."""
        self.generation = new_run_id()
        folder = self.home.schedule("s", self.generation)
        folder.root.mkdir(parents=True)
        folder.environment.write_text(json.dumps({"PATH": os.environ["PATH"], "PYTHONPATH": "/no", **environment}))
        record = ScheduleRecord(name="s", kind="monitor", subject="e", python="p", cwd="/", created_at=0.0)
        ScheduleStore(self.engine).save(
            ScheduleRow(
                name="s", generation=self.generation, record=record, state="active", created_at=0.0, anchor_at=0.0,
                next_due_at=None,
            )
        )  # fmt: skip

    def queue(self, channel: str = "env:OPS", *, title: str = TITLE, picture: Path | None = None) -> None:
        """Queue a message."""
        with self.store.write() as connection:
            self.store.queue(
                connection, now=time.time(), alert_id=1, run_id=None, schedule="s", generation=self.generation,
                channel=channel, title=title, body=BODY, picture=str(picture) if picture else None,
            )  # fmt: skip

    def messages(self) -> list[DeliveryRow]:
        """Tick once and return every message as it stands."""
        self.delivery.tick()
        return self.store.messages()

    def close(self) -> None:
        """End what is going."""
        self.delivery.close()
        self.engine.dispose()


@pytest.fixture
def post(home: Home) -> Iterator[Post]:
    post = Post(home)
    yield post
    post.close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A real PNG of one pixel."""
    path = tmp_path / "report.png"
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def states(post: Post) -> list[str]:
    return [message.state for message in post.messages()]


def test_a_webhook_gets_title_text_and_picture(post: Post, webhook: Webhook, picture: Path, eventually: Wait) -> None:
    post.define(OPS=webhook.url)
    post.queue(picture=picture)
    eventually(lambda: states(post) == ["delivered"], timeout_s=60)
    (told,) = webhook.told
    assert (told["title"], told["message"], told["type"]) == (TITLE, BODY, "failure")
    assert [each["filename"] for each in told["attachments"]] == ["report.png"]
    assert webhook.paths == [f"/hook/{SECRET}?key=1"]
    (message,) = post.messages()
    assert (message.attempts, message.last_error, message.next_at) == (1, "", None)


def test_a_mail_has_the_verdict_in_its_subject_text_and_one_picture(
    post: Post, picture: Path, eventually: Wait
) -> None:
    with Mailbox() as mailbox:
        post.define(MAIL=f"mailto://127.0.0.1:{mailbox.port}?from=lepton@example.org&to=ops@example.org")
        post.queue("env:MAIL", picture=picture)
        eventually(lambda: states(post) == ["delivered"], timeout_s=60, what=str(post.store.messages()))
        (mail,) = mailbox.messages
    assert (mail["subject"], mail["to"]) == (TITLE, "ops@example.org")
    parts = [part for part in mail.walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["text/plain", "image/png"]
    text, image = parts
    assert isinstance(text, EmailMessage) and text.get_content().replace("\r\n", "\n").strip() == BODY
    assert image.get_payload(decode=True) == picture.read_bytes()
    assert image.get_filename() == "report.png"
    raw = mail.as_string().lower()
    assert "<script" not in raw and "text/html" not in raw and "lepton.check" not in raw


def test_a_mail_goes_without_a_picture_where_there_is_none(post: Post, tmp_path: Path, eventually: Wait) -> None:
    with Mailbox() as mailbox:
        post.define(MAIL=f"mailto://127.0.0.1:{mailbox.port}?from=lepton@example.org&to=ops@example.org")
        post.queue("env:MAIL", picture=tmp_path / "gone.png")
        eventually(lambda: states(post) == ["delivered"], timeout_s=60)
        assert [part.get_content_type() for part in mailbox.messages[0].walk()] == ["text/plain"]


def test_a_webhook_that_was_away_gets_it_when_it_is_back_and_in_order(post: Post, eventually: Wait) -> None:
    webhook = Webhook()
    port = webhook.port
    post.define(OPS=webhook.url)
    webhook.close()
    post.delivery._pauses_s = (0.1,) * 99
    post.queue()
    eventually(lambda: post.messages()[0].attempts >= 2, timeout_s=60)
    post.queue(title="[RESOLVED] diagnosis: psi > 0.2 (0)")
    assert states(post) == ["waiting", "waiting"]
    assert "127.0.0.1" in post.messages()[0].last_error and SECRET not in post.messages()[0].last_error
    back = Webhook(port)
    try:
        eventually(lambda: states(post) == ["delivered", "delivered"], timeout_s=60)
        assert [(each["title"][:6], each["type"]) for each in back.told] == [
            ("[FIRIN", "failure"),
            ("[RESOL", "success"),
        ]
    finally:
        back.close()


def test_a_channel_that_takes_nothing_is_given_up_and_the_reason_shows_no_secret(
    post: Post, webhook: Webhook, eventually: Wait
) -> None:
    webhook.status = 500
    post.define(OPS=webhook.url)
    post.queue()
    eventually(lambda: states(post) == ["gave up"], timeout_s=90)
    (message,) = post.messages()
    assert message.attempts == 3 and "500" in message.last_error and SECRET not in message.last_error


def test_a_channel_that_hangs_holds_up_no_other(
    post: Post, webhook: Webhook, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Webhook()
    slow.may_answer.clear()
    post.define(SLOW=slow.url, OPS=webhook.url)
    post.queue("env:SLOW")
    post.queue()
    try:
        eventually(lambda: states(post)[1] == "delivered", timeout_s=60)
        assert states(post)[0] == "waiting"
        monkeypatch.setattr(sending, "LIMIT_S", 0.0)
        eventually(lambda: "no answer within" in post.messages()[0].last_error, timeout_s=60)
    finally:
        slow.close()


def test_a_name_that_means_nothing_any_more_is_the_reason(post: Post, webhook: Webhook, eventually: Wait) -> None:
    post.define(OTHER="x")
    post.queue()
    eventually(lambda: "'OPS' is not set" in post.messages()[0].last_error, timeout_s=60)
    post.delivery._pauses_s = (0.1,) * 99
    post.define(OPS=webhook.url)  # defined again, with the variable: what waits goes there
    eventually(lambda: states(post) == ["delivered"], timeout_s=60)


def test_a_backend_that_is_killed_in_a_try_tries_again(post: Post, webhook: Webhook, eventually: Wait) -> None:
    post.define(OPS=webhook.url)
    webhook.may_answer.clear()
    post.queue()
    post.delivery.tick()
    assert post.store.messages()[0].attempts == 1
    post.delivery.close()
    later = Delivery(post.home, post.engine, now=lambda: time.time() + 1000)
    webhook.may_answer.set()
    try:
        eventually(lambda: (later.tick(), post.store.messages()[0].state)[1] == "delivered", timeout_s=60)
    finally:
        later.close()


def test_what_was_taken_back_in_mid_try_stays_forgotten(post: Post, webhook: Webhook, eventually: Wait) -> None:
    post.define(OPS=webhook.url)
    post.queue()
    post.delivery.tick()
    with post.store.write() as connection:
        post.store.take_back(connection, 1)
    eventually(lambda: (post.delivery.tick(), bool(webhook.told))[1], timeout_s=60)
    eventually(lambda: post.delivery.tick() > 1, timeout_s=60)
    assert post.store.messages() == []


def test_nobody_waits_busily(post: Post) -> None:
    assert post.delivery.tick() == sending.IDLE_S


def test_the_backend_loads_no_apprise() -> None:
    code = (
        "import sys, lepton_jupyter.backend.delivery, lepton_jupyter.backend.alerts;"
        "print([name for name in ('apprise', 'requests', 'keyring', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
