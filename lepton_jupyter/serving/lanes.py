"""Who answers a request: the live version or the one beside it, each with its own batches and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from lepton_jupyter.serving.batching import Batcher
from lepton_jupyter.serving.predict import Asked
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.tally import Comparison, Tally

KEY_HEADER = b"x-lepton-key"
_ALL = 2**64


@dataclass(frozen=True, eq=False)
class Lane:
    """A release, what scores its rows, and what counts its requests while it is compared with another."""

    release: Release
    batcher: Batcher
    tally: Tally | None = None

    @property
    def version(self) -> str:
        """Such as ``NAME@3``."""
        return self.release.config.version


class Chosen(NamedTuple):
    """Who answers a request, and what it asks for.

    Attributes
    ----------
    key : int or None
        Hash of its sticky key; None where it is not to be counted: nothing is compared, or it asked for a version.
    """

    lane: Lane
    asked: Asked
    key: int | None


class Lanes:
    """What an endpoint serves at a moment. A request holds on to the lane that was chosen for it.

    Parameters
    ----------
    live : Lane
    beside : Lane, optional
        A canary, or a shadow; then there is a `comparison` of both.
    comparison : Comparison, optional
    """

    def __init__(self, live: Lane, beside: Lane | None = None, comparison: Comparison | None = None) -> None:
        self.live, self.beside, self.comparison = live, beside, comparison
        self._salt, self._n_beside = b"", 0
        if comparison is not None:
            about = comparison.about
            self._salt = f"{about.version} {about.since}".encode()[-64:]
            self._n_beside = int(about.share * _ALL) if about.kind == "canary" else 0

    @property
    def canary(self) -> Lane | None:
        """What answers a share of the requests."""
        return self.beside if self._n_beside else None

    @property
    def answering(self) -> list[Lane]:
        """Those that answer requests, the live one first."""
        return [self.live, *([self.canary] if self.canary is not None else [])]

    def named(self, version: str) -> Lane | None:
        """Return what answers as this version, by its name or its number alone; None where none does."""
        return next((one for one in self.answering if version in (one.version, one.version.rpartition("@")[2])), None)

    def choose(
        self,
        read: Callable[[Release, bytes], Asked],
        body: bytes,
        *,
        headers: Mapping[bytes, bytes],
        request_id: str,
        pinned: Lane | None = None,
    ) -> Chosen:
        """Choose who answers a request, and read its rows.

        While there is a canary it answers those whose sticky key falls into its share: the header ``X-Lepton-Key``,
        else what the id column holds in the first row, else the request's id. A key stays with its version for as long
        as the canary lasts.

        Parameters
        ----------
        read : callable
            Reads a body as a release wants it.
        body : bytes
        headers : mapping
            Names in lower case.
        request_id : str
        pinned : Lane, optional
            Who was asked for by name.

        Raises
        ------
        HttpError
            As `read`.
        """
        if pinned is not None or self.comparison is None:
            lane = pinned or self.live
            return Chosen(lane, read(lane.release, body), None)
        said = headers.get(KEY_HEADER)
        if said:
            key = self._hash(said)
            lane = self._of(key)
            return Chosen(lane, read(lane.release, body), key)
        asked = read(self.live.release, body)
        first = asked.ids[0] if asked.ids else None
        key = self._hash((request_id if first is None else str(first)).encode("utf-8", "surrogatepass"))
        lane = self._of(key)
        return Chosen(lane, asked if lane is self.live else read(lane.release, body), key)

    def _of(self, key: int) -> Lane:
        return self.beside if self.beside is not None and key < self._n_beside else self.live

    def _hash(self, key: bytes) -> int:
        return int.from_bytes(blake2b(key, digest_size=8, key=self._salt).digest(), "big")
