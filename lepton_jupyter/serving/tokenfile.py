"""The tokens of a container: a variable, or a file that is mounted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import Scope, Token, hash_of

KNOWN = get_args(Scope)


def tokens_of(environment: Mapping[str, str]) -> tuple[tuple[Token, ...], str]:
    """Return the tokens that are let in, and in words where they are.

    Raises
    ------
    LeptonError
        If there is none, the file cannot be read, or a scope is none. No message shows a token.
    """
    said, path = environment.get("LEPTON_TOKEN", ""), environment.get("LEPTON_TOKEN_FILE", "")
    if said and path:
        raise LeptonError("LEPTON_TOKEN and LEPTON_TOKEN_FILE are both set.", "Leave one out.")
    if path:
        try:
            lines = Path(path).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LeptonError(
                f"LEPTON_TOKEN_FILE '{path}' cannot be read: {error}.", "Mount it, readable by this user."
            ) from error
        tokens = [_token(line, f"line{at}", path) for at, line in enumerate(lines, start=1) if line.strip()]
        place = f"The token is in the container's file {path}."
    else:
        tokens = [Token(name="variable", sha256=hash_of(said.strip().encode()))] if said.strip() else []
        place = "The token is in the container's variable LEPTON_TOKEN."
    if not tokens:
        raise LeptonError(
            f"There is no token{f' in {path!r}' if path else ''}: nobody could be told from anybody else.",
            "Set LEPTON_TOKEN, or LEPTON_TOKEN_FILE to a mounted file with one token a line.",
        )
    return tuple(tokens), place


def _token(line: str, name: str, path: str) -> Token:
    word, _, said = line.strip().partition(" ")
    scopes = [scope.strip() for scope in said.split(",") if scope.strip()] or ["admin"]
    if not set(scopes) <= set(KNOWN):  # not shown: it may be a part of a token
        raise LeptonError(
            f"What stands behind the token in {name.replace('line', 'line ')} of '{path}' is no scope. "
            f"Known: {', '.join(KNOWN)}.",
            "A line is a token, a blank, and its scopes: TOKEN infer,read. A token alone is for all.",
        )
    return Token(name=name, sha256=hash_of(word.encode()), scopes=msgspec.convert(scopes, tuple[Scope, ...]))
