"""Versions signed by their owner's key, and endpoints that take no others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_jupyter.backend.signing import SIGN_WITH, SIGNED_BY, check_where_asked, sign, sign_where_asked, verify
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import MANIFEST, SIGNATURE, Bundle, open_bundle, write_bundle
from lepton_jupyter.formats.views import DeployRequest


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a pair of keys; return the private one and the public one."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path, "mine")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "version", {"graph.onnx": b"a graph", "card.json": b"{}"})


def test_a_signed_bundle_is_still_the_same_version(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign(bundle, keys[0])
    opened = open_bundle(bundle.root, bundle.manifest_hash)
    verify(opened, keys[1])
    assert opened.read("graph.onnx") == b"a graph"
    first = opened.signature()
    sign(bundle, keys[0])
    assert opened.signature() == first, "the same bytes each time"


def test_openssl_checks_it_without_us(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    sign(bundle, keys[0])
    asked = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin", "-in", MANIFEST]
    said = subprocess.run([*asked, "-sigfile", SIGNATURE], cwd=bundle.root, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said
    (bundle.root / MANIFEST).write_bytes(bundle.read_manifest() + b" ")
    assert subprocess.run([*asked, "-sigfile", SIGNATURE], cwd=bundle.root, capture_output=True).returncode != 0


def test_what_another_signed_or_nobody_is_refused(bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="'version' is not signed"):
        verify(bundle, keys[1])
    sign(bundle, make_keys(tmp_path, "other")[0])
    with pytest.raises(LeptonError, match=r"was not signed by the owner of 'mine\.pub\.pem'"):
        verify(bundle, keys[1])
    for content in (b"", b"?" * 64, b"?" * 2000):
        (bundle.root / SIGNATURE).write_bytes(content)
        with pytest.raises(LeptonError, match="signed"):
            verify(bundle, keys[1])


def test_a_signature_of_another_version_is_refused(bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(bundle, keys[0])
    other = write_bundle(tmp_path / "other", {"graph.onnx": b"another graph", "card.json": b"{}"})
    shutil.copyfile(bundle.root / SIGNATURE, other.root / SIGNATURE)
    with pytest.raises(LeptonError, match="was not signed by"):
        verify(open_bundle(other.root), keys[1])


def test_a_key_that_is_none_is_named_with_how_to_make_one(bundle: Bundle, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    with pytest.raises(LeptonError, match="No such file or directory"):
        sign(bundle, wrong)
    wrong.write_bytes(b"a key")
    for use in (sign, verify):
        with pytest.raises(LeptonError, match="it is no PEM key") as caught:
            use(bundle, wrong)
        assert "openssl" in caught.value.hint
    ec = generate_private_key(SECP256R1())
    wrong.write_bytes(
        ec.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(LeptonError, match="it is no ed25519 key"):
        sign(bundle, wrong)


def test_nothing_is_signed_or_wanted_where_no_key_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(SIGN_WITH, raising=False)
    sign_where_asked(bundle)
    assert bundle.signature() is None
    monkeypatch.setenv(SIGN_WITH, str(tmp_path / "nowhere.pem"))
    sign_where_asked(bundle)
    assert bundle.signature() is None and "is not signed: The key" in caplog.text


@pytest.mark.slow
def test_an_endpoint_takes_signed_versions_only_where_that_is_asked(
    home: Home, saved: Callable[..., str], keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGN_WITH, str(keys[0]))
    monkeypatch.setenv(SIGNED_BY, str(keys[1]))
    client = Client.connect(home)
    ids = [saved(slope=2.0), saved(slope=-2.0)]
    versions = [client.submit(run_id) and client.version(run_id) for run_id in ids]
    for version in versions:
        check_where_asked(version)
    assert client.deploy(DeployRequest(name="e", model=ids[0], force="not judged here")).state == "ready"
    (home.bundles / ids[1] / SIGNATURE).unlink()
    with pytest.raises(LeptonError, match="is not signed"):
        client.deploy(DeployRequest(name="e", model=ids[1], force="not judged here"))
    assert client.endpoint("e").run_id == ids[0]
