"""The container's entry: started by its environment alone, from nothing but an image's own files."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.bundle import GRAPH, encode
from lepton_jupyter.formats.endpoint import EndpointConfig, Options
from lepton_jupyter.formats.requestlog import read_segment, segments
from lepton_jupyter.serving.container import EXIT_NO_RELEASE, EXIT_REFUSED, LOCK, prepare
from lepton_jupyter.serving.tls import trusting
from lepton_jupyter.stages.deploy.export.context import READY
from tests.serving.certificates import write_certificate
from tests.serving.graphs import ROW, make_bundle

TOKEN = "a-token-for-a-container"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """What an image says is served, with the bundle beside it."""
    made = make_bundle(tmp_path / "bundle")
    config = EndpointConfig(
        name="Net", release=1, model="Net", version="Net@3", bundle="bundle", manifest_hash=made.manifest_hash,
        port=8080, token_hashes=(), options=Options(host="127.0.0.1"),
    )  # fmt: skip
    path = tmp_path / "endpoint.json"
    path.write_bytes(encode(config))
    return path


@pytest.fixture
def environment(release: Path, tmp_path: Path) -> dict[str, str]:
    """What a container is given."""
    return {
        "LEPTON_RELEASE": str(release),
        "LEPTON_STATE": str(tmp_path / "state"),
        "LEPTON_TOKEN": TOKEN,
        "LEPTON_PORT": str(_free_port()),
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start containers' entries; those still there are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(environment: dict[str, str], argv: list[str] | None = None) -> subprocess.Popen[bytes]:
        argv = argv or [sys.executable, "-m", "lepton_jupyter.serving.container"]
        started.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ask(port: int, path: str, body: Any = None, *, token: str | None = TOKEN) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, process.communicate()[1].decode()
    try:
        return ask(port, "/readyz")[0] == 200
    except OSError:
        return False


@pytest.mark.slow
def test_it_serves_with_a_token_logs_to_stderr_and_ends_when_told(
    environment: dict[str, str], start: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    port = int(environment["LEPTON_PORT"])
    process = start({**environment, "LEPTON_NAME": "net-3"})
    eventually(lambda: is_ready(process, port), what="ready")
    status, answer = ask(port, "/predict", {"rows": [ROW]})
    assert (status, answer["version"]) == (200, "Net@3")
    assert ask(port, "/predict", {"rows": [ROW]}, token="other")[0] == 401
    status, answer = ask(port, "/predict", {"rows": [ROW]}, token=None)
    assert status == 401 and str(tmp_path / "state" / "token") in answer["error"]["hint"]
    for name in ("Net", "net-3"):
        assert ask(port, f"/v2/models/{name}")[1]["name"] == name
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"")
    assert b"Net@3 on port" in err and TOKEN.encode() not in err
    (segment,) = segments(tmp_path / "state" / "requests")
    assert sum(record.n_rows for _, record in read_segment(segment)) == 1
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert holders == []


@pytest.mark.slow
def test_one_that_is_not_what_was_exported_ends_with_the_reason(
    environment: dict[str, str], release: Path, start: Callable[..., Any]
) -> None:
    (release.parent / "bundle" / GRAPH).write_bytes(b"other")
    process = start(environment)
    _, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_NO_RELEASE
    assert b"is not what its manifest says" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LEPTON_TOKEN": ""}, "There is no token"),
        ({"LEPTON_TOKEN": " \n"}, "There is no token"),
        ({"LEPTON_TOKEN_FILE": "/nowhere/token"}, "are both set"),
        ({"LEPTON_TOKEN": "", "LEPTON_TOKEN_FILE": "/nowhere/token"}, "'/nowhere/token' cannot be read"),
        ({"LEPTON_PORT": "http"}, "LEPTON_PORT is 'http'"),
        ({"LEPTON_PORT": "0"}, "LEPTON_PORT is '0'"),
        ({"LEPTON_LOG_SHARE": "1.5"}, "LEPTON_LOG_SHARE is '1.5'; wanted: a number from 0 to 1."),
        ({"LEPTON_LOG_DAYS": "week"}, "LEPTON_LOG_DAYS is 'week'; wanted: a number of days above 0."),
        ({"LEPTON_PERSONAL": "hide"}, "LEPTON_PERSONAL is 'hide'; wanted: drop, hash or keep."),
        ({"LEPTON_NAME": "a/b"}, "'a/b' cannot be the name of a model"),
        ({"LEPTON_RELEASE": "/nowhere.json"}, "'/nowhere.json' cannot be read"),
    ],
)
def test_an_environment_that_cannot_be_is_refused_with_its_reason(
    environment: dict[str, str], start: Callable[..., Any], changes: dict[str, str], said: str
) -> None:
    process = start(environment | changes)
    _, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_REFUSED
    assert said in err.decode() and "Traceback" not in err.decode()


def test_what_is_logged_is_said_by_the_environment(environment: dict[str, str]) -> None:
    said = {"LEPTON_LOG_DAYS": "30", "LEPTON_LOG_GB": "0.5", "LEPTON_LOG_SHARE": "0", "LEPTON_PERSONAL": "hash"}
    config = json.loads(prepare(environment | said).config.read_bytes())
    wanted = {"log_days": 30.0, "log_gb": 0.5, "log_share": 0.0, "personal": "hash"}
    assert config["options"].items() >= wanted.items()


def test_a_file_holds_one_token_a_line(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"\n{TOKEN}\n second \n")
    folder = prepare(environment | {"LEPTON_TOKEN": "", "LEPTON_TOKEN_FILE": str(tmp_path / "tokens")})
    config = json.loads(folder.config.read_bytes())
    assert [token["name"] for token in config["tokens"]] == ["line2", "line3"]
    assert TOKEN not in folder.config.read_text() + folder.token.read_text()
    assert str(tmp_path / "tokens") in folder.token.read_text()
    (tmp_path / "tokens").write_text("\n")
    with pytest.raises(LeptonError, match="There is no token in"):
        prepare(environment | {"LEPTON_TOKEN": "", "LEPTON_TOKEN_FILE": str(tmp_path / "tokens")})


def test_a_line_says_scopes_behind_its_token(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    environment |= {"LEPTON_TOKEN": "", "LEPTON_TOKEN_FILE": str(path)}
    path.write_text("all\nshop infer\ngraphs infer, read\n")
    config = msgspec.json.decode(prepare(environment).config.read_bytes(), type=EndpointConfig)
    assert [token.scopes for token in config.let_in()] == [("admin",), ("infer",), ("infer", "read")]
    path.write_text("two words")
    with pytest.raises(LeptonError, match="behind the token in line 1") as refused:
        prepare(environment)
    assert "words" not in str(refused.value)


@pytest.mark.slow
def test_a_token_file_and_a_certificate_that_are_mounted_anew_are_taken(
    environment: dict[str, str], start: Callable[..., Any], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    port, path = int(environment["LEPTON_PORT"]), tmp_path / "tokens"
    pair = write_certificate(tmp_path / "tls")
    path.write_text("first infer\n")
    names = {"LEPTON_TOKEN": "", "LEPTON_TOKEN_FILE": str(path)}
    process = start({**environment, **names, "LEPTON_TLS_CERT": str(pair[0]), "LEPTON_TLS_KEY": str(pair[1])})
    certificate = tmp_path / "state" / "certificate.pem"

    def status(word: str, where: str = "/v2") -> int:
        assert process.poll() is None, process.communicate()[1].decode()
        try:
            context = trusting(certificate.read_text())
            connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
            connection.request("GET", where, headers={"Authorization": f"Bearer {word}"})
            return connection.getresponse().status
        except OSError:
            return 0

    eventually(lambda: status("first", "/readyz") == 200, what="it is ready, by TLS")
    assert (status("first", "/metrics"), status("second")) == (403, 401)
    probe = {**environment, "LEPTON_TLS_CERT": str(pair[0])}
    subprocess.run([sys.executable, "-c", READY], env=probe, check=True)  # as its own health check asks
    path.write_text("second read\n")
    eventually(lambda: status("second", "/metrics") == 200 and status("first") == 401)
    path.write_text("third nonsense\n")
    said = iter(process.stderr.readline, b"")
    assert b"third" not in next(line for line in said if b"Who was let in before is let in" in line)
    write_certificate(tmp_path / "tls")
    eventually(lambda: certificate.read_text() == pair[0].read_text() and status("second") == 200)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("variable", "said"), [("LEPTON_LOG_DAYS", "inf"), ("LEPTON_LOG_GB", "0"), ("LEPTON_LOG_SHARE", "2")]
)
def test_options_that_are_none_are_named(environment: dict[str, str], variable: str, said: str) -> None:
    with pytest.raises(LeptonError, match=f"{variable} is '{said}'; wanted: "):
        prepare(environment | {variable: said})


def test_a_certificate_comes_with_its_key(environment: dict[str, str], tmp_path: Path) -> None:
    cert, _ = write_certificate(tmp_path / "one")
    with pytest.raises(LeptonError, match="LEPTON_TLS_CERT is set without LEPTON_TLS_KEY"):
        prepare(environment | {"LEPTON_TLS_CERT": str(cert)})
    _, other = write_certificate(tmp_path / "two")
    with pytest.raises(LeptonError, match="does not belong"):
        prepare(environment | {"LEPTON_TLS_CERT": str(cert), "LEPTON_TLS_KEY": str(other)})


def test_without_a_folder_to_write_to_one_is_made_that_goes_with_the_container(
    environment: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    folder = prepare(environment | {"LEPTON_STATE": str(tmp_path / "file" / "state")})
    assert folder.root.parent == tmp_path and folder.root.name.startswith("lepton-")
    assert "the request log goes with the container" in caplog.text


def test_two_do_not_share_a_folder(environment: dict[str, str], tmp_path: Path) -> None:
    lock = Lock.take(prepare(environment).root / LOCK)
    assert lock is not None
    with pytest.raises(LeptonError, match="Another endpoint writes to LEPTON_STATE"):
        prepare(environment)
    lock.release()
    assert prepare(environment).root == tmp_path / "state"
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
