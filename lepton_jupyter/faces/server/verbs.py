"""``POST verbs/VERB``: what the rows' menus and forms do, by the same struct and flow as a typed line."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tornado.web
from jupyter_server.auth.decorator import authorized

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.faces.arguments import build, fields_of, render
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.server.api import Handler
from lepton_jupyter.faces.verbs import VERBS, Command
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.verbs import Verb

CHANGES = ("stop", "promote", "rollback", "delete", "alerts")
STARTS = ("schedule", "tick", "deploy", "monitor", "retrain")  # what makes code run
ANSWER_S = 20.0  # what takes longer goes on, and is seen on the board


@dataclass
class WebAsker(Asker):
    """A browser: it has no variables and no terminal; what a flow says becomes part of the answer."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep a line."""
        self.said.append(text)

    warn = say

    def type_next(self, line: str) -> str:
        """Return a line to type next: in a cell."""
        return f"%lepton {line}"


class Unseen:
    """What shows a run that is followed to nobody: the board shows it."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    def add(self, event: dict[str, Any]) -> None:
        """Show nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def remark(self, text: str) -> None:
        """Show nothing."""

    def end(self, view: RunView) -> None:
        """Show nothing."""


class _VerbHandler(Handler):
    async def _do(self, verb: str) -> None:
        try:
            spec = read(verb, self.request.body, self.lepton.root)
        except LeptonError as error:
            self.refuse(error)
            return
        asker = WebAsker("shell", command=f"%lepton {render(spec)}", home=self.lepton.home, progress=Unseen)
        work = asyncio.get_running_loop().run_in_executor(self.lepton.threads, _work, VERBS[verb], asker, spec)
        try:
            text, ref = await asyncio.wait_for(asyncio.shield(work), ANSWER_S)
        except TimeoutError:
            work.add_done_callback(self._note_failure)
            self.set_status(202)
            self.finish(json.dumps({"text": f"{asker.command} goes on.", "ref": ""}))
        except LeptonError as error:
            self.refuse(error)
        else:
            self.finish(json.dumps({"text": text, "ref": ref}))

    def _note_failure(self, work: asyncio.Future[Any]) -> None:
        """Log what went wrong after the answer was given."""
        if not work.cancelled() and work.exception() is not None:
            self.log.warning("lepton_jupyter: %s", work.exception())


class ChangeHandler(_VerbHandler):
    """Verbs that change what is there."""

    @tornado.web.authenticated
    @authorized("write")
    async def post(self, verb: str) -> None:
        """Do it."""
        await self._do(verb)


class StartHandler(_VerbHandler):
    """Verbs that make code run."""

    @tornado.web.authenticated
    @authorized("execute")
    async def post(self, verb: str) -> None:
        """Do it."""
        await self._do(verb)


class OtherHandler(Handler):
    """Verbs that are not for browsers, and words that are none."""

    @tornado.web.authenticated
    @authorized
    async def post(self, verb: str) -> None:
        """Say which there are."""
        known = [name for name in (*CHANGES, *STARTS) if name in VERBS]
        self.refuse(unknown("verb of the browser", verb, known))


def _work(command: Command, asker: WebAsker, spec: Verb) -> tuple[str, str]:
    """Do a verb; runs in a thread. Returns what it said, and what to type for what came of it."""
    asker.home.make()
    notebook = getattr(spec, "notebook", None)
    asker.kernel = kernel_of(Path(notebook)) if notebook else None
    result = command.load()(asker, spec, {})
    line = getattr(result, "_line", None)
    asker.said.append(line() if line is not None else str(result))
    return "\n".join(asker.said), str(getattr(result, "ref", ""))


def kernel_of(path: Path) -> str | None:
    """Return the kernelspec that a notebook was written for; None where that is this server's own interpreter."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        name = json.loads(path.read_bytes())["metadata"]["kernelspec"]["name"]
        program = KernelSpecManager().get_kernel_spec(name).argv[0]
    except (OSError, ValueError, LookupError, TypeError, NoSuchKernel):
        return None
    is_ours = program == sys.executable or Path(program).name == program  # `python`: whoever starts it
    return None if is_ours else str(name)


def read(verb: str, body: bytes, root: Path | None) -> Verb:
    """Make a verb's struct from the body: fields by name.

    Parameters
    ----------
    root : Path or None
        Folder of Jupyter's file browser: what its paths are relative to.

    Raises
    ------
    LeptonError
        If the verb is not built, the body is no object, a field is unknown, or a value is wrong.
    """
    if verb not in VERBS:
        raise unknown("verb", verb, [name for name in (*CHANGES, *STARTS) if name in VERBS])
    spec = VERBS[verb].spec
    try:
        said = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise LeptonError(f"The body of '{verb}' is no JSON object: {error}.") from error
    fields = fields_of(spec)
    values: dict[str, Any] = {}
    for key, value in said.items():
        name = key if key in fields else f"{key}_"  # `as` is a word of Python
        if name not in fields:
            raise unknown(f"field of {verb}", key, [known.strip("_") for known in fields])
        values[name] = value
    if "detach" in fields:
        values["detach"] = True
    if root is not None and isinstance(values.get("notebook"), str):
        values["notebook"] = str(root / values["notebook"].removeprefix("RTC:").lstrip("/"))
    return build(spec, values)
