"""The endpoint's life: bind, load, answer, follow ``endpoint.json``, and go when told or when its lock is swept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import signature, write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus
from lepton_jupyter.formats.figures import Figures
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.doors import Doors
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.listener import LEAVE_S, Listener
from lepton_jupyter.serving.release import take
from lepton_jupyter.serving.replica import Replica

LOOK_PAUSE_S = 0.1
TELL_PAUSE_S = 1.0  # between two figures of a canary, and counts of one of several processes
LOCK_PAUSE_S = 1.0
EXIT_NO_CONFIG = 2
EXIT_NO_PORT = 3
EXIT_BROKEN = 5

logger = logging.getLogger(__name__)


class Endpoint:
    """One endpoint, in this process.

    Parameters
    ----------
    folder : EndpointFolder
        Absolute.
    lock : Lock
        Held for as long as the process lives.
    number : int
        Which of the endpoint's processes this is; the first is 1.
    """

    def __init__(self, folder: EndpointFolder, lock: Lock, number: int = 1) -> None:
        self.folder = folder
        self.lock = lock
        self.replica = Replica(folder, lock.path, number)
        self._seen: tuple[int, int, int] | None = None
        self._ending = asyncio.Event()
        self._told: Figures | None = None
        self._exit_code = 0
        self._leaving: list[asyncio.Task[None]] = []  # listeners of before

    async def run(self) -> int:
        """Serve until told to end; return its exit code: 0, 2 without a configuration, 3 without a port, 5 broken."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ending.set)
        try:
            config = self._read_config()
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("%s cannot be read: %s", self.folder.config, error)
            return EXIT_NO_CONFIG
        if not self.replica.is_wanted(config):
            return 0
        try:
            self._listener = await self.replica.bind(config)
        except LeptonError as error:
            logger.warning("%s", error.message)
            self._save(_status(config, "error", config.port, error=error.message))
            return EXIT_NO_PORT
        journal = Journal(self.folder.requests, self.folder.personal_key, config.options)
        self._app = App(config, self.folder, journal)
        self._doors = Doors(self.folder, self._app, config)
        self._doors.publish(self._listener.tls)
        self.replica.follow(config, self._app.metrics)
        self._write_status(config, "starting")
        if config.replicas == 1:
            await self._listener.start(self._app)
        works = (self._follow(config), self._keep_doors(), self._watch_lock(), self._tell_on())
        tasks = [asyncio.create_task(self._work(each)) for each in works]
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(self._listener.stop(), *self._leaving, return_exceptions=True)
        await self._tell()
        self.replica.tell()
        self._app.close()
        return self._exit_code

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Do one of the works for as long as the process lives; one that cannot go on ends it, and it is started again.

        Half an endpoint, which follows no release or lets in who was sent away, would be worse than none.
        """
        try:
            await work
        except LeptonError as error:
            logger.warning("%s", error.message)
            self._write_status(self._app.config, "error", error=error.message)
            self._exit_code = EXIT_NO_PORT
            self._ending.set()
        except Exception:
            logger.exception("the endpoint cannot go on")
            self._exit_code = EXIT_BROKEN
            self._ending.set()

    async def _follow(self, config: EndpointConfig) -> None:
        """Take the first release, then every one that ``endpoint.json`` names."""
        await self._take(config)
        while True:
            await asyncio.sleep(LOOK_PAUSE_S)
            try:
                if signature(self.folder.config) == self._seen:
                    continue
                config = self._read_config()
            except FileNotFoundError:
                if not self.folder.root.exists():
                    logger.info("the endpoint's folder is gone")
                    self._ending.set()
                continue
            except (OSError, msgspec.DecodeError) as error:
                logger.warning("%s cannot be read: %s; serving on", self.folder.config, error)
                continue
            if not self.replica.is_wanted(config):
                self._write_status(config, "leaving")
                logger.info("leaving: %s are enough", config.replicas)
                await self._listener.leave()
                self._ending.set()
                return
            await self._take(config)

    async def _take(self, config: EndpointConfig) -> None:
        """Load what `config` names and serve it; where that fails, say so and serve on what is there."""
        lanes = self._app.lanes
        current = lanes.live.release if lanes is not None else None
        known = [lanes.live.release, *([lanes.beside.release] if lanes.beside else [])] if lanes is not None else []
        self.replica.follow(config, self._app.metrics)
        self.replica.share(config, self._listener)
        if config.replicas == 1 and not self._listener.is_open:  # nobody else says why nothing is served
            await self._listener.start(self._app)
        try:
            is_moved = self._listener.is_moved(config)
            self._doors.publish(self._listener.tls)  # another certificate is shown from now on
            listener = await self.replica.bind(config, before=self._listener) if is_moved else None
            try:
                await self.replica.trials.settle(config.bundle, config.manifest_hash)
                refused = await self._refused_beside(config)
                if refused is not None and known:
                    raise refused
                asked = config if refused is None else msgspec.structs.replace(config, beside=None)
                taken = await asyncio.to_thread(take, asked, known)
            except BaseException:
                if listener is not None:
                    await listener.stop()
                raise
        except Exception as error:  # a release may fail in any way; what is served must not
            message = _told_of(error, config)
            if current is None:
                self._app.config = config  # its names and limits; a next release may be right
                self._app.error = message
                self._write_status(config, "error", error=message, error_release=config.release)
            else:
                self._write_status(current.config, "ready", error=message, error_release=config.release)
            return
        self._app.serve(taken.live, taken.beside, found=self._read_figures() if lanes is None else None)
        if taken.beside is None:
            with contextlib.suppress(OSError):
                self.replica.own.figures.unlink(missing_ok=True)
        self.replica.compare(config, self._app.lanes.comparison if self._app.lanes is not None else None)
        if current is None:
            _calm_collector()
        if listener is not None:
            await self._move_to(listener)
        elif not self._listener.is_open:
            await self._listener.start(self._app)
        self._doors.publish(self._listener.tls)
        reason = refused or taken.trouble
        trouble = _told_of(reason, config) if reason is not None else ""
        beside = f", {config.beside.kind} {config.beside.version}" if config.beside and taken.beside else ""
        logger.info("release %s: %s%s on port %s", config.release, config.version, beside, self._listener.port)
        self._write_status(config, "ready", error=trouble, error_release=config.release if trouble else None)

    async def _move_to(self, listener: Listener) -> None:
        """Answer there from now on; who is connected to the one before may ask it once more."""
        await listener.start(self._app)
        before, self._listener = self._listener, listener
        before.retire()
        self._leaving.append(asyncio.create_task(before.stop(leave_s=LEAVE_S)))

    async def _refused_beside(self, config: EndpointConfig) -> LeptonError | None:
        """Return why the version beside the live one did not pass its trial; None where it did, or there is none."""
        if config.beside is None:
            return None
        try:
            await self.replica.trials.settle(config.beside.bundle, config.beside.manifest_hash)
        except LeptonError as error:
            return error
        return None

    async def _keep_doors(self) -> None:
        """Follow who is let in, what is shown to new connections, and whether it is drained; no release waits."""
        while True:
            await asyncio.sleep(LOOK_PAUSE_S)
            if await self._doors.look(self._listener.tls):
                self._tell_status()

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(TELL_PAUSE_S)
            await self._tell()
            self.replica.tell()

    async def _tell(self) -> None:
        """Write how the live version and the one beside it do, where there is anything new."""
        comparison = self._app.lanes.comparison if self._app.lanes is not None else None
        if comparison is None:
            return
        found = comparison.figures()
        if self._told is not None and msgspec.structs.replace(found, at=self._told.at) == self._told:
            return
        try:
            await asyncio.to_thread(write_atomic, self.replica.own.figures, encode(found), is_durable=False)
        except OSError as reason:
            logger.warning("%s cannot be written: %s", self.replica.own.figures, reason)
            return
        self._told = found

    def _read_figures(self) -> Figures | None:
        try:
            return msgspec.json.decode(self.replica.own.figures.read_bytes(), type=Figures)
        except (OSError, msgspec.DecodeError):
            return None

    async def _watch_lock(self) -> None:
        while not self.lock.is_swept():
            await asyncio.sleep(LOCK_PAUSE_S)
        logger.info("the lock was swept: another may serve")
        self._ending.set()

    def _read_config(self) -> EndpointConfig:
        self._seen = signature(self.folder.config)
        return msgspec.json.decode(self.folder.config.read_bytes(), type=EndpointConfig)

    def _write_status(
        self, config: EndpointConfig, state: str, *, error: str = "", error_release: int | None = None
    ) -> None:
        self._status = _status(config, state, self._listener.port, error=error, error_release=error_release)
        self._tell_status()

    def _tell_status(self) -> None:
        """Write the status, with the doors as they are at this moment."""
        self._save(self._doors.told(self._status, self._listener.tls))

    def _save(self, status: EndpointStatus) -> None:
        try:
            write_atomic(self.replica.own.status, encode(status), is_durable=False)
        except OSError as reason:  # a full disk: what is served goes on
            logger.warning("%s cannot be written: %s", self.replica.own.status, reason)


def _status(
    config: EndpointConfig, state: str, port: int, *, error: str = "", error_release: int | None = None
) -> EndpointStatus:
    return EndpointStatus(
        state=state,
        release=config.release,
        version=config.version,
        port=port,
        pid=os.getpid(),
        at=time.time(),
        error=error,
        error_release=error_release,
    )


def _calm_collector() -> None:
    """Leave what was loaded out of each collection of garbage: a full one would take longer than many requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _told_of(error: Exception, config: EndpointConfig) -> str:
    """Log why a release cannot be taken, and return it."""
    is_ours = isinstance(error, LeptonError)
    message = error.message if isinstance(error, LeptonError) else f"{type(error).__name__}: {error}"
    logger.warning("release %s cannot be taken: %s", config.release, message, exc_info=None if is_ours else error)
    return message
