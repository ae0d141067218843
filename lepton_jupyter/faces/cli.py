"""``jupyter lepton VERB …``: the same verbs in a shell, with exit codes for scripts."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces import help as helping
from lepton_jupyter.faces.arguments import parse
from lepton_jupyter.faces.asker import PROGS, Asker
from lepton_jupyter.faces.verbs import VERBS, find

PROG = PROGS["shell"]
HELP_WORDS = ("--help", "-h", "help")
VERDICT_CODES = {"PASS": 0, "NONE": 0, "FAIL": 1, "INCONCLUSIVE": 3}
OURS, INTERRUPTED = 2, 130
BACKEND_HELP = """jupyter lepton backend status    what the backend is doing
jupyter lepton backend stop      stop backend and keeper; endpoints and runs go on
jupyter lepton backend stop --all    stop endpoints and runs too"""


def main(argv: list[str] | None = None) -> int:
    """Do one verb. Returns 0; 1 and 3 are the verdicts FAIL and INCONCLUSIVE, 2 an error of ours."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _main(words)
    except LeptonError as error:
        print("\n".join(f"{line}" for line in error._render_traceback_()), file=sys.stderr)
        return OURS
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as `| head` does
        return 128 + signal.SIGPIPE


def _main(words: list[str]) -> int:
    if not words or words[0] in HELP_WORDS:
        topic = words[1] if words[1:] and words[0] == "help" else None
        print(helping.page(find(topic).spec, PROG) if topic else f"{helping.overview(PROG)}\n\n{BACKEND_HELP}")
        return 0
    verb, *rest = words
    if verb == "backend":
        return _backend(rest)
    if verb not in VERBS:
        raise unknown("verb", verb, [*VERBS, "backend"], f"Type '{PROG} --help' for the list.")
    command = find(verb)
    if any(word in HELP_WORDS[:2] for word in rest):
        print(helping.page(command.spec, PROG))
        return 0
    asker = Asker("shell", command=f"%lepton {shlex.join(words)}")
    result = command.load()(asker, parse(command.spec, rest, prog=PROG), {})
    print(_text(result))
    return _code(result)


def _text(result: Any) -> str:
    return str(result) if isinstance(result, str) else repr(result) if hasattr(result, "_repr_html_") else str(result)


def _code(result: Any) -> int:
    verdict = getattr(result, "verdict", None) if type(result).__name__ == "Evaluation" else None
    return VERDICT_CODES.get(str(verdict), 0)


def _backend(words: list[str]) -> int:
    actions: dict[str, Callable[[list[str]], int]] = {"stop": _stop, "status": _status}
    if not words or words[0] in HELP_WORDS:
        print(BACKEND_HELP)
        return 0
    if words[0] not in actions:
        raise unknown("action of backend", words[0], actions)
    return actions[words[0]](words[1:])


def _stop(flags: list[str]) -> int:
    if flags not in ([], ["--all"]):
        raise LeptonError(f"backend stop has no '{' '.join(flags)}'. Known: --all.", BACKEND_HELP.splitlines()[-1])
    home = Home.current()
    if flags:
        from lepton_jupyter.client.shutdown import shut_down

        shut_down(home)
        print("Runs, endpoints, backend and keeper have ended.")
        return 0
    if not home.runtime().socket.exists():
        print("No backend is running.")
        return 0
    from lepton_jupyter.client.client import Client

    Client.connect(home).stop_backend()
    print("Backend and keeper have ended; endpoints and runs go on. Any verb starts the backend again.")
    return 0


def _status(flags: list[str]) -> int:
    from lepton_jupyter.core.processes import is_held

    home = Home.current()
    if not is_held(home.runtime().backend_lock):
        print(f"No backend is running for {home.root}. Any verb starts it.")
        return 0
    from lepton_jupyter.client.client import Client

    health = Client.connect(home).health()
    tracking = "up" if health.is_tracking_up else "does not answer"
    print(f"backend {health.version}, process {health.pid}, {health.python}")
    print(f"home {health.home}, {health.n_active} active runs, MLflow {health.tracking} ({tracking})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
