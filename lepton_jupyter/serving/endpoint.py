"""The endpoint's life: bind, load, answer, follow ``endpoint.json``, and go when told or when its lock is swept."""

from __future__ import annotations

import asyncio
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
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.listener import Listener
from lepton_jupyter.serving.release import load
from lepton_jupyter.serving.trial import Trials

LOOK_PAUSE_S = 0.1
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
        self._app = App(config, self.folder.token, Journal(self.folder.requests))
        self._write_status(config, "starting")
        await self._listener.start(self._app)
        tasks = [asyncio.create_task(self._follow(config)), asyncio.create_task(self._watch_lock())]
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.stop()
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
        current = self._app.release
        try:
            listener = self._listener_for(config)
            try:
                await self._trials.settle(config.bundle, config.manifest_hash)
                follow = current.follow if current is not None else load
                release = await asyncio.to_thread(follow, config)
            except BaseException:
                if listener is not None:
                    await listener.stop()
                raise
        except Exception as error:  # a release may fail in any way; what is served must not
            message = error.message if isinstance(error, LeptonError) else f"{type(error).__name__}: {error}"
            defect = None if isinstance(error, LeptonError) else error
            logger.warning("release %s cannot be taken: %s", config.release, message, exc_info=defect)
            if current is None:
                self._app.config = config  # who is let in may have changed, and a next release may be right
                self._app.error = message
                self._write_status(config, "error", error=message, error_release=config.release)
            else:
                self._write_status(current.config, "ready", error=message, error_release=config.release)
            return
        self._app.serve(release)
        if current is None:
            _calm_collector()
        if listener is not None:
            before, self._listener = self._listener, listener
            await listener.start(self._app)
            await before.stop()
        self._write_status(config, "ready")
        logger.info("release %s: %s on port %s", config.release, config.version, self._listener.port)

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
