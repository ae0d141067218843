"""Who is let in, and for what: tokens, of which only hashes are known here."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Sequence
from pathlib import Path

from lepton_jupyter.formats.endpoint import Scope, Token, hash_of
from lepton_jupyter.serving.answers import HttpError, refused
from lepton_jupyter.serving.routes import V2_MODEL

N_KNOWN = 4  # headers that are kept: so many clients may take turns without a hash

ROWS: frozenset[Scope] = frozenset(("infer",))
FIGURES: frozenset[Scope] = frozenset(("read",))
ABOUT = ROWS | FIGURES  # what a client must know before it asks
ACTS: frozenset[Scope] = frozenset(("admin",))
ANY: frozenset[Scope] = frozenset(("infer", "read", "admin"))

SCOPES: dict[str, frozenset[Scope]] = {
    "/": ABOUT,
    "/openapi.json": ABOUT,
    "/version": ABOUT,
    "/v2": ABOUT,
    "/v2/health/live": ABOUT,
    "/v2/health/ready": ABOUT,
    "/v2/repository/index": ABOUT,
    "/predict": ROWS,
    "/invocations": ROWS,
    "/metrics": FIGURES,
    "/v2/models/stats": FIGURES,
    "/admin/drain": ACTS,
    "/admin/resume": ACTS,
}


def needed(path: str) -> frozenset[Scope]:
    """Return the scopes of which a token must have one for a route; with `admin` it has them all.

    Examples
    --------
    >>> sorted(needed("/v2/models/Net")), sorted(needed("/v2/models/Net/versions/3/stats"))
    (['infer', 'read'], ['read'])
    """
    known = SCOPES.get(path)
    if known is not None:
        return known
    model = V2_MODEL.match(path)
    if model is None:
        return ANY  # nothing is there
    return {"/infer": ROWS, "/stats": FIGURES}.get(model[3] or "", ABOUT)


class Gate:
    """Hold requests to the tokens of an endpoint.

    Parameters
    ----------
    token_path : Path
        Named to who comes without a token.
    tokens : sequence of Token
    """

    def __init__(self, token_path: Path, tokens: Sequence[Token]) -> None:
        self._token_path = token_path
        self.let_in(tokens)

    def let_in(self, tokens: Sequence[Token]) -> None:
        """Let these in from now on, and no others."""
        self._tokens = list(tokens)
        self._known: list[tuple[bytes, frozenset[Scope]]] = []  # of late: most requests say the same again
        self._next_end = min([token.ends_at for token in tokens if token.ends_at is not None], default=None)

    def check(self, said: bytes | None, scopes: frozenset[Scope]) -> None:
        """Let an ``Authorization`` in that has one of these scopes, or refuse it.

        Raises
        ------
        HttpError
            401, or 403 where the token is known but has none of them.
        """
        if self._next_end is not None and time.time() >= self._next_end:
            self._drop_ended()
        if not said:
            raise self._unknown("A token is wanted.")
        for known, has in self._known:
            if hmac.compare_digest(said, known) and not scopes.isdisjoint(has):
                return
        token = self._find(said)
        has = ANY if "admin" in token.scopes else frozenset(token.scopes)
        if scopes.isdisjoint(has):
            raise _lacking(token, scopes)
        self._known = [*self._known[1 - N_KNOWN :], (said, has)]

    def _drop_ended(self) -> None:
        now = time.time()
        self.let_in([token for token in self._tokens if token.ends_at is None or token.ends_at > now])

    def _find(self, said: bytes) -> Token:
        scheme, _, word = said.partition(b" ")
        scheme = scheme.lower()
        if scheme == b"basic":  # of clients that know no other way: the token is the password
            word = _password(word)
        digest = hash_of(word.strip())
        found = [token for token in self._tokens if hmac.compare_digest(digest, token.sha256)]  # each, in equal time
        if scheme not in (b"bearer", b"basic") or not found:
            raise self._unknown("The token is wrong.")
        return found[0]

    def _unknown(self, message: str) -> HttpError:
        hint = f"Send 'Authorization: Bearer TOKEN'; the token is in {self._token_path}."
        return refused(401, message, hint, headers=[(b"www-authenticate", b"Bearer")])


def _lacking(token: Token, scopes: frozenset[Scope]) -> HttpError:
    """Return 403 (RFC 6750): the scope that is wanted, and those that are there."""
    wanted = sorted(scopes)
    said = " ".join(wanted)
    return refused(
        403,
        f"The token '{token.name}' has the scope {', '.join(token.scopes) or 'none'}; "
        f"this wants {' or '.join(wanted)}.",
        f"Its owner makes one that has it: %lepton token ENDPOINT --name NAME --scope {wanted[0]}; in a container it "
        "is a line of LEPTON_TOKEN_FILE.",
        headers=[(b"www-authenticate", f'Bearer error="insufficient_scope", scope="{said}"'.encode())],
    )


def _password(credentials: bytes) -> bytes:
    """Return the password of HTTP's Basic credentials; empty where they are none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""
