"""``python -m lepton_jupyter.serving ENDPOINT_FOLDER LOCK_PATH [NUMBER]``: an endpoint's process, or one of several."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import Lock

SWITCH_S = 5e-4  # threads that write the log or read a large body give way so soon: a request waits for them


def main(folder: Path, lock_path: Path, number: int = 1) -> int:
    """Serve what the folder's ``endpoint.json`` names; at once 0 where another process holds the lock.

    Parameters
    ----------
    folder : Path
    lock_path : Path
    number : int
        Which of the endpoint's processes this is; the first is 1.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        lock = Lock.take(lock_path.absolute())
        if lock is None:
            return 0
        root = EndpointFolder(folder.absolute())
        root.empty.mkdir(mode=0o700, exist_ok=True)
        os.chdir(root.empty)
    except OSError as error:
        logging.getLogger(__name__).warning("the endpoint cannot start: %s", error)
        return 2
    sys.setswitchinterval(SWITCH_S)
    import uvloop  # after the lock: who finds it taken leaves in milliseconds

    from lepton_jupyter.serving.endpoint import Endpoint

    async def serve() -> int:
        return await Endpoint(root, lock, number).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4])))
