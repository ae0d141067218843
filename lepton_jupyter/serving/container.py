"""``python -m lepton_jupyter.serving.container``: the endpoint of an image, told what to do by its environment.

LEPTON_TOKEN, or LEPTON_TOKEN_FILE (a mounted file, one token a line, with its scopes behind it: ``TOKEN infer,read``; a
token alone is for all), says who is let in; that file is followed while it serves. LEPTON_TLS_CERT and LEPTON_TLS_KEY
are mounted PEM files, which are followed too. LEPTON_PORT is 8080 where nothing is said, LEPTON_HOST all addresses;
LEPTON_NAME is a second name of the model. LEPTON_STATE is the folder that the endpoint writes to, with the request log;
LEPTON_RELEASE is the file that says what is served. LEPTON_LOG_DAYS,
LEPTON_LOG_GB, LEPTON_LOG_SHARE and LEPTON_PERSONAL are deploy's flags of these names.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.names import check_name
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus, Token
from lepton_jupyter.serving.__main__ import main as serve
from lepton_jupyter.serving.environment import options_of
from lepton_jupyter.serving.tokenfile import tokens_of

RELEASE = "/opt/lepton/endpoint.json"
EXIT_REFUSED = 2
EXIT_NO_RELEASE = 4
LOOK_S = 0.05
TOKENS_S = 1.0  # between two looks at LEPTON_TOKEN_FILE
LOCK = "lock"

logger = logging.getLogger(__name__)


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Serve until told to end; return the exit code: 2 where the environment is refused, 4 where the model is."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        folder = prepare(environment)
    except LeptonError as error:
        logger.warning("the endpoint does not start: %s %s", error.message, error.hint)
        return EXIT_REFUSED
    watch = _FirstRelease(folder)
    watch.start()
    _TokenFile(folder, environment).start()
    code = serve(folder.root, folder.root / LOCK)
    return code or watch.exit_code


def prepare(environment: Mapping[str, str]) -> EndpointFolder:
    """Make the endpoint's folder as the environment says, and return it.

    Raises
    ------
    LeptonError
        If there is no token, a value is none, or no folder can be written to.
    """
    tokens, place = tokens_of(environment)
    config = _config(environment, tokens)
    folder = EndpointFolder(_state(environment))
    if is_held(folder.root / LOCK):
        raise LeptonError(
            f"Another endpoint writes to LEPTON_STATE '{folder.root}'.", "Give each replica a folder of its own."
        )
    try:
        for path in (folder.status, folder.drained):  # what is said there now is of an earlier life
            path.unlink(missing_ok=True)
        write_atomic(folder.token, f"{place}\n".encode())  # where it is: whoever comes without one is sent here
        write_atomic(folder.config, encode(config))
    except OSError as error:
        raise LeptonError(f"LEPTON_STATE '{folder.root}' cannot be written: {error.strerror}.") from error
    return folder


def _config(environment: Mapping[str, str], tokens: tuple[Token, ...]) -> EndpointConfig:
    path = Path(environment.get("LEPTON_RELEASE") or RELEASE).absolute()
    try:
        made = msgspec.json.decode(path.read_bytes(), type=EndpointConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise LeptonError(
            f"LEPTON_RELEASE '{path}' cannot be read: {error}.", "Use the image as it was made."
        ) from error
    return msgspec.structs.replace(
        made,
        name=check_name(environment.get("LEPTON_NAME") or made.name, "model"),
        bundle=str(path.parent / made.bundle),
        port=_port(environment.get("LEPTON_PORT") or str(made.port)),
        options=options_of(environment).over(made.options),
        tokens=tokens,
    )


def _port(said: str) -> int:
    port = int(said) if said.isdecimal() else 0
    if not 1 <= port <= 65535:
        raise LeptonError(f"LEPTON_PORT is '{said}'; wanted: a whole number from 1 to 65535.", "For instance 8080.")
    return port


def _state(environment: Mapping[str, str]) -> Path:
    """Return a folder that can be written to: the one that is named, else a new one that goes with the container."""
    said = environment.get("LEPTON_STATE", "")
    if said:
        folder = Path(said).absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            pass  # the next line finds out
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        logger.warning("LEPTON_STATE '%s' cannot be written to: the request log goes with the container", folder)
    try:
        return Path(tempfile.mkdtemp(prefix="lepton-"))
    except OSError as error:
        raise LeptonError(
            f"No folder can be written to: neither LEPTON_STATE '{said}' nor {tempfile.gettempprefix()}: {error}.",
            "Mount one at /tmp.",
        ) from error


class _FirstRelease(threading.Thread):
    """End the process where its one release cannot be taken: in a container nobody brings another."""

    def __init__(self, folder: EndpointFolder) -> None:
        super().__init__(name="first release", daemon=True)
        self._folder = folder
        self._pause = threading.Event()
        self.exit_code = 0

    def run(self) -> None:
        status = self._status()
        while status is None or status.state == "starting":
            self._pause.wait(LOOK_S)
            status = self._status()
        if status.error_release is not None:
            self.exit_code = EXIT_NO_RELEASE
            os.kill(os.getpid(), signal.SIGTERM)

    def _status(self) -> EndpointStatus | None:
        try:
            return msgspec.json.decode(self._folder.status.read_bytes(), type=EndpointStatus)
        except (OSError, msgspec.DecodeError):
            return None


class _TokenFile(threading.Thread):
    """Let in who stands in LEPTON_TOKEN_FILE, also after it was mounted anew."""

    def __init__(self, folder: EndpointFolder, environment: Mapping[str, str]) -> None:
        super().__init__(name="token file", daemon=True)
        self._folder, self._environment = folder, environment
        self._path = Path(environment.get("LEPTON_TOKEN_FILE", ""))
        self._pause = threading.Event()

    def run(self) -> None:
        seen = self._look()
        while self._environment.get("LEPTON_TOKEN_FILE"):
            self._pause.wait(TOKENS_S)
            now = self._look()
            if now != seen:
                seen = now
                self._follow()

    def _look(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def _follow(self) -> None:
        try:
            config = msgspec.json.decode(self._folder.config.read_bytes(), type=EndpointConfig)
            tokens, _ = tokens_of(self._environment)
            write_atomic(self._folder.config, encode(msgspec.structs.replace(config, tokens=tokens)))
            logger.info("LEPTON_TOKEN_FILE was read again: %d tokens", len(tokens))
        except (OSError, LeptonError, msgspec.DecodeError) as error:
            logger.warning("%s Who was let in before is let in.", error)


if __name__ == "__main__":
    sys.exit(main())
