"""``python -m lepton_jupyter.serving.container``: the endpoint of an image, told what to do by its environment.

LEPTON_TOKEN, or LEPTON_TOKEN_FILE (a mounted file, one token a line), says who is let in. LEPTON_PORT is 8080 where
nothing is said, LEPTON_HOST all addresses; LEPTON_NAME is a second name of the model. LEPTON_STATE is the folder that
the endpoint writes to, with the request log; LEPTON_RELEASE is the file that says what is served. LEPTON_LOG_DAYS,
LEPTON_LOG_GB, LEPTON_LOG_SHARE and LEPTON_PERSONAL are deploy's flags of these names.
"""

from __future__ import annotations

import hashlib
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
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus
from lepton_jupyter.serving.__main__ import main as serve
from lepton_jupyter.serving.environment import options_of

RELEASE = "/opt/lepton/endpoint.json"
EXIT_REFUSED = 2
EXIT_NO_RELEASE = 4
LOOK_S = 0.05
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
    code = serve(folder.root, folder.root / LOCK)
    return code or watch.exit_code


def prepare(environment: Mapping[str, str]) -> EndpointFolder:
    """Make the endpoint's folder as the environment says, and return it.

    Raises
    ------
    LeptonError
        If there is no token, a value is none, or no folder can be written to.
    """
    tokens, place = _tokens(environment)
    config = _config(environment, tokens)
    folder = EndpointFolder(_state(environment))
    if is_held(folder.root / LOCK):
        raise LeptonError(
            f"Another endpoint writes to LEPTON_STATE '{folder.root}'.", "Give each replica a folder of its own."
        )
    try:
        folder.status.unlink(missing_ok=True)  # what is said there now is of an earlier life
        write_atomic(folder.token, f"{place}\n".encode())  # where it is: whoever comes without one is sent here
        write_atomic(folder.config, encode(config))
    except OSError as error:
        raise LeptonError(f"LEPTON_STATE '{folder.root}' cannot be written: {error.strerror}.") from error
    return folder


def _tokens(environment: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the tokens that are let in, and in words where they are."""
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
        place = f"The token is in the container's file {path}."
    else:
        lines = [said]
        place = "The token is in the container's variable LEPTON_TOKEN."
    tokens = [line.strip() for line in lines if line.strip()]
    if not tokens:
        raise LeptonError(
            f"There is no token{f' in {path!r}' if path else ''}: nobody could be told from anybody else.",
            "Set LEPTON_TOKEN, or LEPTON_TOKEN_FILE to a mounted file with one token a line.",
        )
    return tokens, place


def _config(environment: Mapping[str, str], tokens: list[str]) -> EndpointConfig:
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
        token_hashes=tuple(hashlib.sha256(token.encode()).hexdigest() for token in tokens),
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


if __name__ == "__main__":
    sys.exit(main())
