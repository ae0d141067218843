"""Trials where several processes serve one endpoint: one tries a bundle, the others wait for what comes of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import Lock, is_held
from lepton_jupyter.core.replicas import refused_of
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.serving.trial import LOOK_PAUSE_S, Trials


class _Refusal(msgspec.Struct, frozen=True):
    """The last bundle that was refused."""

    manifest_hash: str
    at: float
    error: dict[str, str]


class TrialsByTurns(Trials):
    """As `Trials`; who finds another at it waits, and takes the other's word.

    Parameters
    ----------
    folder : EndpointFolder
    turn : Path
        The lock of whoever tries.
    """

    def __init__(self, folder: EndpointFolder, turn: Path) -> None:
        super().__init__(folder)
        self._turn = turn
        self._refused = refused_of(folder)

    async def settle(self, bundle: str, manifest_hash: str) -> None:
        """Return when the bundle has passed, here or in another process.

        Raises
        ------
        LeptonError
            If it was refused, here or in another process since this one began to wait.
        """
        if self.has_passed(manifest_hash):
            return
        began = time.time()
        lock = await self._take_turn()
        try:
            self.read()
            if self.has_passed(manifest_hash):
                return
            self._heed(manifest_hash, began)
            try:
                await super().settle(bundle, manifest_hash)
            except LeptonError as error:
                self._note(manifest_hash, error)
                raise
        finally:
            if lock is not None:
                lock.release()

    async def _take_turn(self) -> Lock | None:
        """Return the lock once it is free; None where its folder was swept: this process is about to go."""
        while True:
            try:
                lock = None if is_held(self._turn) else Lock.take(self._turn)
            except OSError:
                return None
            if lock is not None:
                return lock
            await asyncio.sleep(LOOK_PAUSE_S)

    def _heed(self, manifest_hash: str, began: float) -> None:
        """Raise what another process found while this one waited."""
        try:
            said = msgspec.json.decode(self._refused.read_bytes(), type=_Refusal)
        except (OSError, msgspec.DecodeError):
            return
        if said.manifest_hash == manifest_hash and said.at >= began:
            raise LeptonError.from_dict(said.error)

    def _note(self, manifest_hash: str, error: LeptonError) -> None:
        said = _Refusal(manifest_hash, time.time(), error.to_dict())
        try:
            write_atomic(self._refused, encode(said), is_durable=False)
        except OSError:
            pass  # a full disk: each of them tries
