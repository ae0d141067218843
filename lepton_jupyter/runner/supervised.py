"""One run under its supervisor: kernel, notebook, end."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.bundle import MANIFEST
from lepton_jupyter.formats.events import EventWriter
from lepton_jupyter.runner import ending, report, truth
from lepton_jupyter.runner.ending import Ending
from lepton_jupyter.runner.kernel import RunKernel
from lepton_jupyter.runner.request import environment_of, read_record
from lepton_jupyter.runner.stopping import BUNDLING_S, StopControl

ENGINES = ("train", "tune")  # whose checkpoints a second kernel can make a version of
BEGIN = "from lepton_jupyter.runner import session as _session; _session.begin(); del _session"
FINISH = "from lepton_jupyter.runner import session; session.finish()"


class Supervised:
    """Everything between the lock and the last event."""

    def __init__(self, home: Home, folder: RunFolder, events: EventWriter, lease_fds: tuple[int, ...]) -> None:
        self.home = home
        self.folder = folder
        self.events = events
        self.lease_fds = lease_fds
        self.record = read_record(folder)
        self.control = StopControl(folder, events, self.record.timeout_s)

    def run(self, early_signals: Sequence[int] = ()) -> Ending:
        """Execute the run's notebook to its end, whatever that is.

        Parameters
        ----------
        early_signals : sequence of int
            SIGTERMs that came before this could be imported.

        Raises
        ------
        LeptonError
            If it cannot begin.
        """
        self.control.install(early_signals)
        kernel = self._kernel()
        try:
            end = self._execute(kernel)
        finally:
            run_sync(kernel.shut_down)()
            kernel.remove_files()
        end = self._finish_stopped(end)
        self.folder.reserve.unlink(missing_ok=True)
        self._export()
        return self._copy_out(end)

    def _kernel(self) -> RunKernel:
        """Start a kernel. It comes up while papermill is imported here."""
        kernel = RunKernel(self.record, self.folder, self.home.runtime().make().kernels)
        kernel.start(environment_of(self.folder), self.lease_fds)
        self.control.kernel = kernel
        return kernel

    def _execute(self, kernel: RunKernel) -> Ending:
        # An optional grammar of jsonschema: 1.2 of nbformat's 1.5 s. It only checks iri formats, which no notebook has.
        sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
        import papermill.execute  # noqa: F401  before ours, which papermill's entry points import

        try:
            problem = run_sync(self._connect)(kernel)
        except asyncio.CancelledError:
            return self._ended_early("before its first cell")
        except RuntimeError as error:
            reason = kernel.why_ended() if kernel.exit_code() is not None else str(error)
            told = ending.dead(f"The kernel did not start: {reason}.", self.folder)
            return Ending("failed", told, has_died=kernel.was_killed)
        if problem and kernel.was_killed:
            return Ending("failed", ending.dead(self.control.why_dead()[1], self.folder), has_died=True)
        if problem and self.record.kind != "notebook":  # a user's own kernel need not have us, nor be Python's
            return Ending("failed", ending.told(self.folder) or _could_not_begin(problem))
        assert kernel.identity is not None
        self.events.write("state", state="running", kernel=kernel.identity.to_dict())
        return self._notebook(kernel)

    async def _connect(self, kernel: RunKernel) -> str:
        await self.control.guard(kernel.connect())
        return str(await self.control.guard(kernel.execute_silently(BEGIN)))

    def _notebook(self, kernel: RunKernel) -> Ending:
        import nbformat
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
        from papermill.execute import execute_notebook

        from lepton_jupyter.runner.execution import StoppedError

        if self.record.kind != "notebook":  # our notebooks read the run's record: papermill looks for names in vain
            logging.getLogger("papermill").setLevel(logging.ERROR)
        source = nbformat.reads(self.folder.source.read_text(encoding="utf-8"), as_version=4)
        executed: dict[str, Any] = {}

        try:
            execute_notebook(
                source,
                None,
                parameters=self.record.parameters,
                engine_name="lepton",
                progress_bar=False,
                save_to=self.folder.notebook,
                control=self.control,
                km=kernel.manager,
                kc=kernel.client,
                keep=executed,
            )
        except StoppedError:
            return self._ended_early("between two cells")
        except DeadKernelError:
            state, message = self.control.why_dead()
            if state == "stopped":
                how = "its kernel did not answer and was killed" if self.control.was_killed_by_us else "its kernel died"
                return Ending("stopped", _stopped(f"; {how}"))
            has_died = kernel.was_killed and not self.control.is_late
            return Ending("failed", ending.dead(message, self.folder), has_died=has_died)
        except PapermillExecutionError as error:
            return self._failed(executed["nb"], error)
        if self.control.is_late or (self.control.is_asked and self.control.is_acknowledged):
            return self._ended_early("")
        return Ending("completed")

    def _ended_early(self, when: str, detail: str = "") -> Ending:
        """Return the end of a run that was asked to stop, or whose time was over."""
        if not self.control.is_late:
            return Ending("stopped", _stopped(when))
        hint = f"Give it more with --timeout, or see what it was at: {self.folder.notebook}"
        message = self.control.why_late()
        return Ending("failed", {"message": message, "hint": hint, "code": "failed", "detail": detail})

    def _failed(self, notebook: Any, error: Any) -> Ending:
        if self.control.is_asked:
            return self._ended_early("in the middle of a cell")
        try:
            truth.save(notebook, self.folder.notebook)  # with papermill's line that leads to the cell
        except OSError as problem:
            print(f"The notebook could not be saved: {problem}", file=sys.stderr)  # noqa: T201  the run's log
        if self.control.is_late:
            return self._ended_early("", ending.of_output(notebook, self.folder)["detail"])
        return Ending("failed", ending.told(self.folder) or ending.of_output(notebook, self.folder))

    def _finish_stopped(self, end: Ending) -> Ending:
        """Bundle the best checkpoint of a training run whose kernel had to be killed, in a second kernel."""
        has_bundle = (self.folder.bundle / MANIFEST).exists()
        has_checkpoint = self.folder.checkpoints.is_dir() and any(self.folder.checkpoints.iterdir())
        if end.state != "stopped" or self.record.kind not in ENGINES or has_bundle or not has_checkpoint:
            return end
        self.events.write("note", key="stopping", value="bundling the best checkpoint")
        kernel = RunKernel(self.record, self.folder, self.home.runtime().make().kernels)
        try:
            kernel.start(environment_of(self.folder), self.lease_fds)
            problem = run_sync(self._finish)(kernel)
        except (LeptonError, RuntimeError, TimeoutError) as error:
            problem = str(error)
        finally:
            run_sync(kernel.shut_down)()
            kernel.remove_files()
        if problem and end.error is not None:
            told = ending.told(self.folder)
            reason = told["message"] if told else problem
            return Ending("stopped", {**end.error, "detail": f"Its best checkpoint could not be bundled: {reason}"})
        return end

    async def _finish(self, kernel: RunKernel) -> str:
        async with asyncio.timeout(BUNDLING_S):
            await kernel.connect()
            return await kernel.execute_silently(FINISH)

    def _export(self) -> None:
        """Make the page of a run that nobody watches; where that fails, the run says so and ends as it would."""
        if report.is_reported(self.record) and self.folder.notebook.exists():
            problem = report.export_beside(self.folder)
            if problem:
                self.events.write("note", key="no_report", value=f"report.html could not be made: {problem}")

    def _copy_out(self, end: Ending) -> Ending:
        """Copy the executed notebook to where ``--to`` says."""
        if self.record.output is None or not self.folder.notebook.exists():
            return end
        target = Path(self.record.cwd) / self.record.output
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder.notebook, target)
        except OSError as error:
            if end.state != "completed":
                return end
            message = f"The notebook ran, but could not be copied to '{target}': {error.strerror}."
            return Ending(
                "failed", {"message": message, "hint": f"It lies in {self.folder.notebook}", "code": "failed"}
            )
        return end


def _stopped(when: str) -> dict[str, str]:
    middle = when if when.startswith(";") or not when else f" {when}"
    return {"message": f"Stopped{middle}.", "hint": "", "code": "stopped", "detail": ""}


def _could_not_begin(problem: str) -> dict[str, str]:
    is_missing = "No module named 'lepton_jupyter'" in problem
    hint = "Install lepton_jupyter in the environment of that kernel." if is_missing else ""
    return {"message": f"The run could not begin: {problem}", "hint": hint, "code": "failed", "detail": ""}
