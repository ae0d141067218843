"""TLS by files: what is shown, what is refused, certificates renewed and listeners moved under load."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.serving.tls import load, trusting
from tests.serving.certificates import write_certificate
from tests.serving.graphs import ROW, TOKEN, Server, make_bundle

Wait = Callable[..., Any]


def options(paths: tuple[Path, Path], **more: Any) -> Options:
    return Options(tls_cert=str(paths[0]), tls_key=str(paths[1]), **more)


# -- the files


def test_a_pair_tells_until_when_and_for_whom_it_is(tmp_path: Path) -> None:
    loaded = load(*write_certificate(tmp_path, names=("model.example.org", "127.0.0.1"), days=3, authority=True))
    assert loaded.about.names == ("model.example.org", "127.0.0.1")
    assert loaded.leaf.count("BEGIN CERTIFICATE") == 1  # without the authority, which could vouch for others
    ended = load(*write_certificate(tmp_path / "ended", days=-1))
    assert ended.about.ends_at < loaded.about.ends_at


def test_files_that_are_no_pair_are_refused_by_name(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path / "one")
    other, _ = write_certificate(tmp_path / "two")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no PEM")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    for pair, said in (
        ((other, key), "does not belong"),
        ((rubbish, key), "rubbish.pem' holds no certificate"),
        ((cert, rubbish), "rubbish.pem' holds no key"),
        ((cert, tmp_path / "nowhere"), "nowhere' cannot be read"),
        ((tmp_path / "absent", key), "absent' cannot be read"),
        ((cert, locked), "encrypted"),
        ((key, key), "holds no certificate"),
    ):
        with pytest.raises(LeptonError) as refused:
            load(*pair)
        assert said in refused.value.message and "--tls-cert" in refused.value.hint


# -- a real endpoint


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path / "tls")


@pytest.fixture
def running(new_server: Callable[[], Server], tmp_path: Path, pair: tuple[Path, Path]) -> Server:
    """A ready endpoint with TLS."""
    server = new_server()
    server.bundle = make_bundle(tmp_path / "bundle")  # type: ignore[attr-defined]
    server.configure(server.bundle, options=options(pair))  # type: ignore[attr-defined]
    server.start()
    server.wait()
    return server


def connect(server: Server, port: int, *, is_plain: bool = False, host: str = "127.0.0.1") -> HTTPConnection:
    if is_plain:
        return HTTPConnection(host, port, timeout=30)
    return HTTPSConnection(host, port, timeout=30, context=trusting(server.folder.certificate.read_text()))


def ask(connection: HTTPConnection) -> int:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    connection.request("POST", "/predict", json.dumps(ROW), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def shown_to(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(True) or b"")


@contextmanager
def asking(ask_once: Callable[[], Any], n_threads: int = 3) -> Iterator[tuple[list[Any], list[Any]]]:
    """Ask again and again meanwhile; yield what was answered and what failed."""
    answered: list[Any] = []
    failures: list[Any] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                answered.append(ask_once())
            except (OSError, HTTPException) as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        yield answered, failures
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_who_trusts_the_certificate_is_answered_and_plain_http_is_not(running: Server) -> None:
    status = running.status()
    assert status is not None and status.tls is not None and "127.0.0.1" in status.tls.names
    connection = connect(running, status.port)
    assert [ask(connection), ask(connection)] == [200, 200]  # the short way, kept alive
    connection.request("GET", "/v2", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("x-content-type-options")) == (200, "nosniff")
    answer.read()
    connection.close()
    with pytest.raises((OSError, HTTPException)):
        ask(connect(running, status.port, is_plain=True))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError):
        ask(HTTPSConnection("127.0.0.1", status.port, timeout=30, context=old))
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(HTTPSConnection("127.0.0.1", status.port, timeout=30))
    by_curl = ["curl", "-s", "--cacert", str(running.folder.certificate), f"https://localhost:{status.port}/readyz"]
    assert json.loads(subprocess.run(by_curl, check=True, capture_output=True).stdout) == {"ready": True}
    assert "Traceback" not in running.folder.log.read_text()


@pytest.mark.slow
def test_a_certificate_is_renewed_under_load_and_a_broken_one_is_not_taken(
    running: Server, pair: tuple[Path, Path], eventually: Wait
) -> None:
    status = running.status()
    assert status is not None
    port, key = status.port, pair[1].read_bytes()
    either = ssl.create_default_context()
    either.check_hostname, either.verify_mode = False, ssl.CERT_NONE

    def ask_once() -> int:
        connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=either)
        try:
            return ask(connection)
        finally:
            connection.close()

    kept = connect(running, port)
    assert ask(kept) == 200
    with asking(ask_once) as (answered, failures):
        for _ in range(3):
            before = shown_to(port)
            write_certificate(pair[0].parent)
            fresh = load(*pair).leaf
            eventually(lambda w=fresh: shown_to(port) == w, timeout_s=10)
            assert before != fresh
            eventually(lambda w=fresh: running.folder.certificate.read_text() == w, timeout_s=10)
        pair[1].write_bytes(key)  # the first key: no longer that of the certificate
        broken = eventually(lambda: (s := running.status()) and s.tls and s.tls.error and s, timeout_s=10)
        assert "does not belong" in broken.tls.error and broken.state == "ready"
        assert shown_to(port) == fresh
        write_certificate(pair[0].parent)
        eventually(lambda: shown_to(port) == load(*pair).leaf, timeout_s=10)
        assert not eventually(lambda: (s := running.status()) and s.tls and not s.tls.error and s).tls.error
    assert failures == [] and set(answered) == {200} and len(answered) > 20
    assert ask(kept) == 200  # a connection of before the first renewal
    assert ask(connect(running, port)) == 200
    log = running.folder.log.read_text()
    assert "was renewed" in log and "does not belong" in log and "Traceback" not in log


@pytest.mark.slow
def test_a_release_with_a_broken_certificate_is_refused_and_the_old_one_shown_on(
    running: Server, tmp_path: Path, eventually: Wait
) -> None:
    status = running.status()
    assert status is not None
    before = shown_to(status.port)
    cert, _ = write_certificate(tmp_path / "other")
    _, key = write_certificate(tmp_path / "third")
    running.configure(running.bundle, release=2, options=options((cert, key)))  # type: ignore[attr-defined]
    refused = eventually(lambda: (s := running.status()) and s.error_release == 2 and s, timeout_s=10)
    assert "does not belong" in refused.error and shown_to(status.port) == before
    running.configure(running.bundle, release=3, options=options(write_certificate(tmp_path / "other")))  # type: ignore[attr-defined]
    running.wait(release=3)
    assert shown_to(status.port) != before


@pytest.mark.slow
@pytest.mark.parametrize("is_kept_alive", [False, True])
def test_the_address_changes_on_one_port_without_a_lost_request(
    running: Server, pair: tuple[Path, Path], is_kept_alive: bool
) -> None:
    """From 127.0.0.1 to all addresses and back, as often as requests find the moment between them."""
    status = running.status()
    assert status is not None
    mine = threading.local()

    def ask_once() -> int:
        connection = getattr(mine, "connection", None) or connect(running, status.port)
        mine.connection = connection if is_kept_alive else None
        found = ask(connection)
        if not is_kept_alive:
            connection.close()
        return found

    with asking(ask_once) as (answered, failures):
        for release in range(2, 10):
            host = "0.0.0.0" if release % 2 == 0 else "127.0.0.1"
            running.configure(running.bundle, release=release, port=status.port, options=options(pair, host=host))  # type: ignore[attr-defined]
            running.wait(release=release)
    assert failures == [] and set(answered) == {200}, running.folder.log.read_text()[-3000:]
    assert len(answered) > 50


@pytest.mark.slow
def test_tls_begins_and_ends_on_one_port_and_each_client_is_answered_as_it_asks(
    running: Server, pair: tuple[Path, Path]
) -> None:
    status = running.status()
    assert status is not None
    port = status.port

    def ask_either() -> int:
        """Ask as the endpoint's own clients do: by what it says of itself, again where that has just changed."""
        for _ in range(100):
            said = running.status()
            assert said is not None
            connection = connect(running, port, is_plain=said.tls is None)
            try:
                return ask(connection)
            except (OSError, HTTPException):
                if running.status() == said:
                    continue  # the listener is new, the status is not yet
            finally:
                connection.close()
        raise OSError("it does not answer")

    with asking(ask_either) as (answered, failures):
        for release in range(2, 8):
            has_tls = release % 2 == 1
            running.configure(
                running.bundle, release=release, port=port, options=options(pair) if has_tls else Options()
            )  # type: ignore[attr-defined]
            assert (running.wait(release=release).tls is not None) == has_tls
            assert ask(connect(running, port, is_plain=not has_tls)) == 200
    assert failures == [] and set(answered) == {200}
    assert "Traceback" not in running.folder.log.read_text()
