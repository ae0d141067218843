"""Tokens of endpoints: made, replaced, revoked. They lie in files of their owner; ``state.db`` has their hashes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

import msgspec

from lepton_jupyter.backend.store import EndpointRow, ReleaseRow, Store, TokenRow
from lepton_jupyter.backend.watch import Watcher
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.names import check_name
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.formats.endpoint import OWNER, EndpointConfig, Scope, Token, fingerprint, hash_of
from lepton_jupyter.formats.views import TokenRequest, TokenView

TAKEN_S = 10.0  # an endpoint looks 10 times a second
SETTLED_S = 2 * TAKEN_S  # that both are let in where a kill comes between the new one and its file


def owner_hash(folder: EndpointFolder) -> str:
    """Return the hash of the owner's token, made where there is none."""
    if not folder.token.exists():
        write_atomic(folder.token, secrets.token_urlsafe(32).encode())
    return hash_of(folder.token.read_bytes().strip())


class Tokens:
    """Who is let in by the endpoints of a home.

    Parameters
    ----------
    tell : callable
        Writes what the endpoint of a row follows.
    """

    def __init__(self, home: Home, store: Store, watcher: Watcher, tell: Callable[[EndpointRow], None]) -> None:
        self.home = home
        self.store = store
        self._watcher, self._tell = watcher, tell

    def let_in(self, endpoint: str) -> tuple[Token, ...]:
        """Return the tokens that are let in beside the owner's."""
        return tuple(
            Token(name=row.name, sha256=row.sha256, scopes=_scopes(row), ends_at=row.ends_at)
            for row in self._rows(endpoint)
        )

    def views(self, row: EndpointRow) -> list[TokenView]:
        """Return every token of an endpoint: the owner's, then the newest first."""
        folder = self.home.endpoint(row.name)
        made_at = folder.token.stat().st_mtime if folder.token.exists() else row.created_at
        owner = TokenView(name=OWNER, scopes=("admin",), path=str(folder.token), made_at=made_at)
        return [owner, *(self._view(each) for each in sorted(self._rows(row.name), key=_made_at, reverse=True))]

    def make(self, row: EndpointRow, asked: TokenRequest) -> TokenView:
        """Make a token, or replace one; one that is there already with these scopes is returned.

        It is let in before it lies in its file, and the one before it until then: who reads the file is never refused.

        Raises
        ------
        LeptonError
            If there is one with other scopes, there is none to replace, or the endpoint does not take it.
        """
        name = check_name(asked.name, "token")
        if name == OWNER and set(asked.scopes) - {"admin"}:
            raise LeptonError("The owner's token is for all: it has the scope admin.", "Leave out --scope.")
        with self._watcher.of(row.name).lock:
            row = self._still(row)
            known = self._rows(row.name)
            current = next((each for each in known if each.name == name and each.ends_at is None), None)
            if not asked.is_replacing and (current is not None or name == OWNER):
                return self._again(row, asked, current)
            if asked.is_replacing and current is None and name != OWNER:
                raise self._unknown(row, name)
            return self._put(row, asked, known, _scopes(current) if current is not None else ("infer",))

    def _put(
        self, row: EndpointRow, asked: TokenRequest, known: list[TokenRow], before: tuple[Scope, ...]
    ) -> TokenView:
        name, now, word = asked.name, time.time(), secrets.token_urlsafe(32)
        scopes: tuple[Scope, ...] = ("admin",) if name == OWNER else asked.scopes or before
        made = TokenRow(
            endpoint=row.name,
            sha256=hash_of(word.encode()),
            name=name,
            scopes=" ".join(scopes),
            made_at=now,
            who=asked.who,
        )
        if name == OWNER:  # known by its file, in which the new one will lie
            old = owner_hash(self.home.endpoint(row.name))
            known = [*known, msgspec.structs.replace(made, sha256=old, ends_at=now + max(SETTLED_S, asked.grace_s))]
        grace = f"; the old one is let in for {asked.grace_s:g} s" if asked.grace_s else ""
        action, why = "token replaced" if asked.is_replacing else "token made", f"{name}: {', '.join(scopes)}{grace}"
        # for a while only, until it lies in its file: one that does not get there lapses, and nothing else has changed
        self._save(
            row, [*known, msgspec.structs.replace(made, ends_at=now + SETTLED_S)], action, who=asked.who, why=why
        )
        self._when_taken(row)
        self._write(row, name, word)
        left = _kept(known, name, now + asked.grace_s)
        self.store.save_tokens(row.name, left if name == OWNER else [*left, made])
        self._tell(row)
        self._when_taken(row)
        return self._view(made)

    def revoke(self, row: EndpointRow, name: str, *, who: str) -> list[TokenView]:
        """End a token at once, and return those that are left.

        Raises
        ------
        LeptonError
            If there is none, it is the owner's, or the endpoint does not follow.
        """
        if name == OWNER:
            raise LeptonError(
                "The owner's token cannot be revoked: nobody could ask the endpoint any more.",
                f"Replace it: %lepton token {row.name} --name {OWNER} --replace",
            )
        with self._watcher.of(row.name).lock:
            row = self._still(row)
            known = self._rows(row.name)
            left = [each for each in known if each.name != name]
            if len(left) == len(known):
                raise self._unknown(row, name)
            self._save(row, left, "token revoked", who=who, why=name)
            (self.home.endpoint(row.name).tokens / name).unlink(missing_ok=True)
            self._when_taken(row)
        return self.views(row)

    # -- what both need

    def _still(self, row: EndpointRow) -> EndpointRow:
        """Return the endpoint's row as it is now, under its lock; it may be gone."""
        current = self.store.endpoint(row.name)
        if current is None:
            raise unknown("endpoint", row.name, [each.name for each in self.store.endpoints()])
        return current

    def _again(self, row: EndpointRow, asked: TokenRequest, current: TokenRow | None) -> TokenView:
        has = _scopes(current) if current is not None else ("admin",)
        if asked.scopes and set(asked.scopes) != set(has):
            raise LeptonError(
                f"Endpoint '{row.name}' has a token '{asked.name}' already, with the scope {', '.join(has)}.",
                f"Make it anew: %lepton token {row.name} --name {asked.name} --scope {asked.scopes[0]} --replace",
                code="conflict",
            )
        return next(view for view in self.views(row) if view.name == asked.name and view.ends_at is None)

    def _unknown(self, row: EndpointRow, name: str) -> LeptonError:
        known = dict.fromkeys(view.name for view in self.views(row))
        return unknown("token", name, list(known), f"Those of {row.name}: %lepton token {row.name}")

    def _rows(self, endpoint: str) -> list[TokenRow]:
        now = time.time()
        return [row for row in self.store.tokens(endpoint) if row.ends_at is None or row.ends_at > now]

    def _view(self, row: TokenRow) -> TokenView:
        folder = self.home.endpoint(row.endpoint)
        path = folder.token if row.name == OWNER else folder.tokens / row.name
        return TokenView(
            name=row.name, scopes=_scopes(row), made_at=row.made_at, ends_at=row.ends_at, who=row.who,
            path=str(path) if row.ends_at is None else "",
        )  # fmt: skip

    def _write(self, row: EndpointRow, name: str, word: str) -> None:
        folder = self.home.endpoint(row.name)
        folder.tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(folder.token if name == OWNER else folder.tokens / name, word.encode())

    def _save(self, row: EndpointRow, rows: list[TokenRow], action: str, *, who: str, why: str) -> None:
        line = ReleaseRow(endpoint=row.name, at=time.time(), action=action, run_id=row.run_id, who=who, why=why)
        self.store.save_tokens(row.name, rows, line)
        self._tell(row)

    def _when_taken(self, row: EndpointRow) -> None:
        """Wait until the endpoint lets in those, and no others; one that is not there takes them when it starts."""
        config = msgspec.json.decode(self.home.endpoint(row.name).config.read_bytes(), type=EndpointConfig)
        wanted, deadline = fingerprint(config.let_in()), time.monotonic() + TAKEN_S
        while row.is_wanted and self._watcher.is_alive(row.name):
            statuses = [each.status for each in self._watcher.said(row) if each.is_alive]
            if all(status is not None and status.tokens == wanted for status in statuses):
                return
            if time.monotonic() > deadline:
                raise LeptonError(
                    f"Endpoint '{row.name}' has not taken its tokens within {TAKEN_S:.0f} s.",
                    f"It may be of an older lepton_jupyter: %lepton stop endpoint/{row.name}, then deploy it again.",
                    code="failed",
                )
            time.sleep(0.02)


def _kept(known: Iterable[TokenRow], name: str, until: float) -> list[TokenRow]:
    """Return the tokens as they are once one is replaced: those before it of its name end by then."""
    found = []
    for row in known:
        if row.name == name:
            row = msgspec.structs.replace(row, ends_at=min(until, row.ends_at or until))
        found.append(row)
    return [row for row in found if row.ends_at is None or row.ends_at > time.time()]


def _scopes(row: TokenRow) -> tuple[Scope, ...]:
    return msgspec.convert(row.scopes.split(), tuple[Scope, ...])


def _made_at(row: TokenRow) -> float:
    return row.made_at
