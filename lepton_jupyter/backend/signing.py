"""Signatures of bundles: ed25519 over the manifest, by the user's own key.

The manifest holds the sha256 of every file, so its signature is that of the whole bundle. OpenSSL makes the keys, and
checks a signature without us.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.formats.bundle import SIGNATURE, Bundle, open_bundle
from lepton_jupyter.formats.views import VersionView

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGN_WITH = "LEPTON_SIGNING_KEY"  # a private key: what is registered is signed with it
SIGNED_BY = "LEPTON_SIGNED_BY"  # a public key: what it did not sign is not deployed

log = logging.getLogger("lepton.backend")


def sign_where_asked(bundle: Bundle) -> None:
    """Sign a bundle where `SIGN_WITH` names a key. Where that fails, the log says why and it stays unsigned."""
    path = os.environ.get(SIGN_WITH)
    if not path or bundle.signature() is not None:
        return
    try:
        sign(bundle, Path(path))
    except (LeptonError, OSError) as error:
        log.warning("bundle %s is not signed: %s", bundle.root.name, error)


def check_where_asked(version: VersionView) -> None:
    """Refuse a version that the key named by `SIGNED_BY`, where it names one, has not signed.

    Raises
    ------
    LeptonError
        If it is not signed, signed by another key, or was changed; or the key cannot be read.
    """
    path = os.environ.get(SIGNED_BY)
    if path:
        verify(open_bundle(Path(version.bundle), version.manifest_hash), Path(path))


def sign(bundle: Bundle, key: Path) -> None:
    """Sign a bundle with a private key (ed25519, PEM, without a password): 64 bytes in ``manifest.sig``.

    Raises
    ------
    LeptonError
        If the key cannot be read, or the bundle was changed.
    """
    write_atomic(bundle.root / SIGNATURE, _private(key).sign(bundle.read_manifest()))


def verify(bundle: Bundle, key: Path) -> None:
    """See that a bundle was signed by the owner of a public key (ed25519, PEM).

    Raises
    ------
    LeptonError
        If it is not signed, signed by another key, or was changed; or the key cannot be read.
    """
    from cryptography.exceptions import InvalidSignature

    public = _public(key)
    signature = bundle.signature()
    hint = f"Sign it with its owner's key, or take {SIGNED_BY} out of the backend's environment."
    if signature is None:
        raise LeptonError(f"The bundle '{bundle.root.name}' is not signed.", hint, code="refused")
    try:
        public.verify(signature, bundle.read_manifest())
    except InvalidSignature as error:
        raise LeptonError(
            f"The bundle '{bundle.root.name}' was not signed by the owner of '{key.name}'.", hint, code="refused"
        ) from error


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _load(path, lambda content: load_pem_private_key(content, None), SIGN_WITH)
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "it is no ed25519 key", SIGN_WITH)
    return key


def _public(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _load(path, load_pem_public_key, SIGNED_BY)
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "it is no ed25519 key", SIGNED_BY)
    return key


def _load(path: Path, read: Any, setting: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return read(path.read_bytes())
    except OSError as error:
        raise _no_key(path, str(error.strerror), setting) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a TypeError: it wants a password
        raise _no_key(path, "it is no PEM key without a password", setting) from error


def _no_key(path: Path, reason: str, setting: str) -> LeptonError:
    make = "openssl genpkey -algorithm ed25519 -out KEY.pem"
    if setting == SIGNED_BY:
        make = "openssl pkey -in KEY.pem -pubout -out PUBLIC.pem"
    return LeptonError(f"The key '{path}' of {setting} cannot be used: {reason}.", f"Make one: {make}", code="refused")
