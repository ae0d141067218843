"""``token`` and ``deploy --tls-…`` as typed, in a real shell with a real backend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from tests.backend.conftest import prepare as prepare  # fixtures
from tests.backend.conftest import saved as saved
from tests.backend.test_endpoints import deploy
from tests.backend.test_tokens import status_of
from tests.faces.test_flows import Typing
from tests.faces.test_flows import person as person  # a fixture
from tests.serving.certificates import write_certificate

pytestmark = pytest.mark.slow


@pytest.fixture
def client(person: Typing, home: Home, saved: Callable[..., str]) -> Client:
    """A client of a backend with an endpoint 'diagnosis'."""
    made = Client.connect(home)
    run_id = saved()
    made.submit(run_id)
    deploy(made, run_id, name="diagnosis")
    return made


def test_tokens_are_made_shown_replaced_and_revoked_and_never_printed(
    person: Typing, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(person("%lepton token diagnosis")) == 1
    shop = person("shop = %lepton token diagnosis --name shop --scope infer\nshop")
    said = capsys.readouterr().out
    assert (shop.name, shop.scopes) == ("shop", ("infer",)) and str(shop.path) in said and "$(cat " in said
    word, view = shop.path.read_text(), client.endpoint("diagnosis")
    assert [status_of(view, word, path) for path in ("/predict", "/metrics")] == [200, 403]
    by_shell = subprocess.run(["sh", "-c", shop.curl], check=True, capture_output=True, text=True).stdout
    assert '"openapi"' in by_shell
    assert person("%lepton token diagnosis --name shop").path == shop.path  # Run All, twice
    graphs = person("lepton.token('diagnosis', name='graphs', scope=['read', 'infer'])")
    assert set(graphs.scopes) == {"read", "infer"}
    table = person("%lepton token diagnosis")
    assert [each.name for each in table] == ["owner", "graphs", "shop"] and "infer" in repr(table)
    person("%lepton token diagnosis --name shop --replace --grace 60")
    assert [status_of(view, each) for each in (word, shop.path.read_text())] == [200, 200]
    assert len(person("%lepton token diagnosis")) == 4  # the old one, until it ends
    left = person("%lepton token diagnosis --name shop --revoke")
    assert [each.name for each in left] == ["owner", "graphs"] and not shop.path.exists()
    shown = person("%lepton show endpoint/diagnosis")
    assert "token revoked" in shown._repr_mimebundle_()["text/html"]
    printed = said + capsys.readouterr().out + repr(table) + repr(shop) + repr(vars(shop))
    assert word not in printed and graphs.path.read_text() not in printed
    for line, hint in (
        ("--scope read", "token needs --name"),
        ("--name graphs --scope admin", "--replace"),
        ("--name nobody --revoke", "Known: owner, graphs"),
        ("--name owner --revoke", "--name owner --replace"),
        ("--name graphs --grace 5", "--replace"),
        ("--name x --scope write", "infer"),
    ):
        assert hint in person.refused(f"%lepton token diagnosis {line}"), line


def test_an_endpoint_is_served_by_tls_and_everything_of_ours_follows(
    person: Typing, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_certificate(tmp_path / "tls", names=("model.example.org",), authority=True)
    flags = "--tls-cert tls/cert.pem --tls-key tls/key.pem --force 'not judged here'"
    endpoint = person(f"e = %lepton deploy Net@1 --as diagnosis {flags}\ne")
    assert endpoint.url.startswith("https://127.0.0.1:")
    said = capsys.readouterr().out
    assert "--cacert" in said and "--connect-to" in said and "certificate: until" in said
    assert person("e.predict([{'a': 1.0, 'b': 2.0}])")["prediction"].to_list() == ["yes"]
    Path("rows.csv").write_text("a,b\n1,2\n")
    assert person("%lepton predict diagnosis rows.csv").height == 1
    by_shell = subprocess.run(["sh", "-c", endpoint.curl], check=True, capture_output=True, text=True).stdout
    assert '"prediction":"yes"' in by_shell
    assert "https" in repr(person("%lepton endpoints"))

    Path("tls/key.pem").chmod(0o604)
    deploying = "%lepton deploy Net@1 --as diagnosis --force x "
    write_certificate(tmp_path / "old", days=-2)
    for flags, hint in (
        ("--tls-cert tls/cert.pem --tls-key tls/key.pem", "chmod 600"),
        ("--tls-cert tls/cert.pem", "--tls-cert is there without --tls-key"),
        ("--tls-cert old/cert.pem --tls-key old/key.pem", "has ended"),
        ("--tls-cert old/cert.pem --tls-key tls/key.pem", "does not belong"),
        ("--tls-cert nowhere.pem --tls-key tls/key.pem", "nowhere.pem' cannot be read"),
        ("--host everywhere", "--host 0.0.0.0"),
    ):
        assert hint in person.refused(deploying + flags), flags
    plain = person(f"{deploying} --tls-cert none --host 0.0.0.0")
    assert plain.url.startswith("http://127.0.0.1:") and "without TLS" in repr(plain)
