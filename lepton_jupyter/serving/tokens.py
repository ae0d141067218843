"""Who is let in: tokens, of which only hashes are known here."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from lepton_jupyter.serving.answers import refused


class Gate:
    """Hold requests to the tokens of an endpoint.

    Parameters
    ----------
    token_path : Path
        Named to who comes without a token.
    """

    def __init__(self, token_path: Path) -> None:
        self._token_path = token_path
        self._hashes: Sequence[str] = ()
        self._accepted = b""  # what was last let in with these hashes: most requests say the same again

    def check(self, said: bytes | None, hashes: Sequence[str]) -> None:
        """Let an ``Authorization`` in, or refuse it.

        Raises
        ------
        HttpError
            401.
        """
        if hashes is not self._hashes:
            self._hashes, self._accepted = hashes, b""
        if said and self._accepted and hmac.compare_digest(said, self._accepted):
            return
        scheme, _, token = (said or b"").partition(b" ")
        scheme = scheme.lower()
        if scheme == b"basic":  # of clients that know no other way: the token is the password
            token = _password(token)
        digest = hashlib.sha256(token.strip()).hexdigest()
        is_known = any([hmac.compare_digest(digest, known) for known in hashes])  # noqa: C419  each is compared, in equal time
        if scheme not in (b"bearer", b"basic") or not is_known:
            raise refused(
                401,
                "The token is wrong." if said else "A token is wanted.",
                f"Send 'Authorization: Bearer TOKEN'; the token is in {self._token_path}.",
                headers=[(b"www-authenticate", b"Bearer")],
            )
        self._accepted = said or b""


def _password(credentials: bytes) -> bytes:
    """Return the password of HTTP's Basic credentials; empty where they are none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""
