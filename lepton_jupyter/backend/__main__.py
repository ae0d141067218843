"""``python -m lepton_jupyter.backend HOME``: the backend of a home, until it is stopped or what it holds is swept."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

from lepton_jupyter.backend.app import App
from lepton_jupyter.backend.heartbeat import check_host, wait_for_predecessor
from lepton_jupyter.backend.keeper import EXIT_REFUSED, EXIT_STOPPED, EXIT_SWEPT, failure_path, sign, write_failure
from lepton_jupyter.backend.service import Service
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.core.runtime import Runtime

LOOK_S = 1.0
CLOSE_STREAMS_S = 2
EXIT_TERMINATED = 143  # nobody asked for the end by its route: the keeper has it back


def listen(runtime: Runtime) -> socket.socket:
    """Bind the socket for this user only: uvicorn's own way would make it 0666."""
    runtime.socket.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        server.bind(str(runtime.socket))
    finally:
        os.umask(before)
    server.listen(128)
    return server


class _Server(uvicorn.Server):
    """A server that ends its streams as soon as it is told to go, and has no keeper back any more."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        super().handle_exit(sig, frame)
        threading.Thread(target=self._let_go, daemon=True).start()  # a signal may come while a lock is held

    def _let_go(self) -> None:
        self._app.service.stop_clocks()
        self._app.end_streams()


def serve(home: Home) -> int:
    """Answer until the end; return the exit status that tells the keeper why."""
    runtime = home.runtime().make()
    lock = Lock.take(runtime.backend_lock)
    if lock is None:
        return EXIT_SWEPT  # another backend lives: its keeper keeps it
    sign(lock)
    check_host(home)
    wait_for_predecessor(home)
    failure_path(runtime).unlink(missing_ok=True)
    service = Service(home)
    server: uvicorn.Server
    app = App(service, stop=lambda: setattr(server, "should_exit", True))
    config = uvicorn.Config(
        app.asgi(), lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=CLOSE_STREAMS_S
    )
    server = _Server(config, app)

    def watch() -> None:
        while not lock.is_swept() and home.state_db.exists():
            if closing.wait(LOOK_S):
                return
        app.end_streams()
        server.should_exit = True

    closing = threading.Event()
    threading.Thread(target=watch, name="lock", daemon=True).start()
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())  # uvicorn ends first, then raises the signal again
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    service.start()
    listener = listen(runtime)
    try:
        server.run(sockets=[listener])
    finally:
        closing.set()
        is_swept = lock.is_swept()
        if not is_swept:
            runtime.socket.unlink(missing_ok=True)
        try:
            service.close()  # the lock goes with the process: nobody may think that it is gone while it is not
        except Exception:
            if home.state_db.exists():
                raise
            logging.getLogger("lepton.backend").warning("the home was removed")
    if is_swept or not home.state_db.exists():
        return EXIT_SWEPT
    return EXIT_TERMINATED if terminated.is_set() else EXIT_STOPPED


def main(argv: list[str]) -> int:
    """Run the backend of the home that the first argument names."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    home = Home(Path(argv[0])).make()
    try:
        return serve(home)
    except LeptonError as error:
        write_failure(home.runtime().make(), error)
        logging.getLogger("lepton.backend").error("%s", error)  # noqa: TRY400  two lines say it all
        return EXIT_REFUSED


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    os._exit(status)  # a thread may be in the middle of importing MLflow: nobody waits for that
