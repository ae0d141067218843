"""The endpoint's life: bind, load, answer, follow ``endpoint.json``, and go when told or when its lock is swept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus
from lepton_jupyter.formats.figures import Figures
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.listener import Listener
from lepton_jupyter.serving.release import take
from lepton_jupyter.serving.trial import Trials

LOOK_PAUSE_S = 0.1
TELL_PAUSE_S = 1.0  # between two figures of a canary
LOCK_PAUSE_S = 1.0
EXIT_NO_CONFIG = 2
EXIT_NO_PORT = 3

logger = logging.getLogger(__name__)


class Endpoint:
    """One endpoint, in this process.

    Parameters
    ----------
    folder : EndpointFolder
        Absolute.
    lock : Lock
        Held for as long as the process lives.
    """

    def __init__(self, folder: EndpointFolder, lock: Lock) -> None:
        self.folder = folder
        self.lock = lock
        self._seen: tuple[int, int, int] | None = None
        self._ending = asyncio.Event()
        self._trials = Trials(folder)
        self._told: Figures | None = None

    async def run(self) -> int:
        """Serve until told to end; return the exit code: 0, 2 without a configuration, 3 without its port."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ending.set)
        try:
            config = self._read_config()
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("%s cannot be read: %s", self.folder.config, error)
            return EXIT_NO_CONFIG
        try:
            self._listener = Listener(config.host, config.port)
        except LeptonError as error:
            logger.warning("%s", error.message)
            self._write_status(config, "error", error=error.message, port=config.port)
            return EXIT_NO_PORT
        self._app = App(
            config, self.folder.token, Journal(self.folder.requests, self.folder.personal_key, config.options)
        )
        self._write_status(config, "starting")
        await self._listener.start(self._app)
        tasks = [asyncio.create_task(work) for work in (self._follow(config), self._watch_lock(), self._tell_on())]
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.stop()
        await self._tell()
        self._app.close()
        return 0

    async def _follow(self, config: EndpointConfig) -> None:
        """Take the first release, then every one that ``endpoint.json`` names."""
        await self._take(config)
        while True:
            await asyncio.sleep(LOOK_PAUSE_S)
            try:
                if self._look() == self._seen:
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
            await self._take(config)

    async def _take(self, config: EndpointConfig) -> None:
        """Load what `config` names and serve it; where that fails, say so and serve on what is there."""
        lanes = self._app.lanes
        current = lanes.live.release if lanes is not None else None
        known = [lanes.live.release, *([lanes.beside.release] if lanes.beside else [])] if lanes is not None else []
        try:
            listener = self._listener_for(config)
            try:
                await self._trials.settle(config.bundle, config.manifest_hash)
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
                self._app.config = config  # who is let in may have changed, and a next release may be right
                self._app.error = message
                self._write_status(config, "error", error=message, error_release=config.release)
            else:
                self._write_status(current.config, "ready", error=message, error_release=config.release)
            return
        self._app.serve(taken.live, taken.beside, found=self._read_figures() if lanes is None else None)
        if taken.beside is None:
            with contextlib.suppress(OSError):
                self.folder.figures.unlink(missing_ok=True)
        if current is None:
            _calm_collector()
        if listener is not None:
            before, self._listener = self._listener, listener
            await listener.start(self._app)
            await before.stop()
        reason = refused or taken.trouble
        trouble = _told_of(reason, config) if reason is not None else ""
        self._write_status(config, "ready", error=trouble, error_release=config.release if trouble else None)
        beside = f", {config.beside.kind} {config.beside.version}" if config.beside and taken.beside else ""
        logger.info("release %s: %s%s on port %s", config.release, config.version, beside, self._listener.port)

    async def _refused_beside(self, config: EndpointConfig) -> LeptonError | None:
        """Return why the version beside the live one did not pass its trial; None where it did, or there is none."""
        if config.beside is None:
            return None
        try:
            await self._trials.settle(config.beside.bundle, config.beside.manifest_hash)
        except LeptonError as error:
            return error
        return None

    def _listener_for(self, config: EndpointConfig) -> Listener | None:
        """Return a new listener where another port is wanted, else None.

        Raises
        ------
        LeptonError
            If the port cannot be had.
        """
        if config.port in (0, self._listener.port):
            return None
        return Listener(config.host, config.port)

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(TELL_PAUSE_S)
            await self._tell()

    async def _tell(self) -> None:
        """Write how the live version and the one beside it do, where there is anything new."""
        comparison = self._app.lanes.comparison if self._app.lanes is not None else None
        if comparison is None:
            return
        found = comparison.figures()
        if self._told is not None and msgspec.structs.replace(found, at=self._told.at) == self._told:
            return
        try:
            await asyncio.to_thread(write_atomic, self.folder.figures, encode(found), is_durable=False)
        except OSError as reason:
            logger.warning("%s cannot be written: %s", self.folder.figures, reason)
            return
        self._told = found

    def _read_figures(self) -> Figures | None:
        try:
            return msgspec.json.decode(self.folder.figures.read_bytes(), type=Figures)
        except (OSError, msgspec.DecodeError):
            return None

    async def _watch_lock(self) -> None:
        while not self.lock.is_swept():
            await asyncio.sleep(LOCK_PAUSE_S)
        logger.info("the lock was swept: another may serve")
        self._ending.set()

    def _look(self) -> tuple[int, int, int]:
        found = self.folder.config.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read_config(self) -> EndpointConfig:
        self._seen = self._look()
        return msgspec.json.decode(self.folder.config.read_bytes(), type=EndpointConfig)

    def _write_status(
        self,
        config: EndpointConfig,
        state: str,
        *,
        error: str = "",
        error_release: int | None = None,
        port: int | None = None,
    ) -> None:
        status = EndpointStatus(
            state=state,
            release=config.release,
            version=config.version,
            port=self._listener.port if port is None else port,
            pid=os.getpid(),
            at=time.time(),
            error=error,
            error_release=error_release,
        )
        try:
            write_atomic(self.folder.status, encode(status), is_durable=False)
        except OSError as reason:  # a full disk: what is served goes on
            logger.warning("%s cannot be written: %s", self.folder.status, reason)


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
