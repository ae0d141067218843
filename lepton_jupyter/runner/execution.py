"""What papermill does for a run, with cell statuses that stay true whatever dies, and a save that costs little.

Imported lazily: papermill takes half a second.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from lepton_jupyter.runner import truth
from lepton_jupyter.runner.outputs import KeptOutput

AUTOSAVE_S = 2  # papermill backs off by itself where saving is slow
IOPUB_TIMEOUT_S = 20  # for what a cell has printed, once it is over


class StoppedError(Exception):
    """The run was asked to stop before this cell began."""


class Control(Protocol):
    """Who follows the execution and may end it."""

    def must_end(self) -> bool:
        """Whether the next cell must not begin."""

    async def watch(self) -> None:
        """Run beside each cell: interrupts the kernel once the run shall stop."""

    def cell(self, index: int, n_cells: int, status: str) -> None:
        """Hear of a cell."""

    def why_dead(self) -> tuple[str, str]:
        """Return state and message for a kernel that is gone."""


class _Alone:
    """The control of a notebook that somebody executes by ``papermill --engine lepton``."""

    def must_end(self) -> bool:
        return False

    async def watch(self) -> None:
        return

    def cell(self, index: int, n_cells: int, status: str) -> None:
        return

    def why_dead(self) -> tuple[str, str]:
        return "failed", "The kernel died."


class Manager(NotebookExecutionManager):
    """papermill's record of an execution, saved by rename, without optimism about cells that never ran."""

    def __init__(self, nb: Any, *, save_to: Path | None, **kwargs: Any) -> None:
        super().__init__(nb, **kwargs)
        self.save_to = save_to
        self.save_error: OSError | None = None

    def save(self, **kwargs: Any) -> None:
        """Write the notebook; a full disk does not end a run."""
        if self.save_to is None:
            super().save(**kwargs)
            return
        if kwargs.get("nb"):
            self.nb = kwargs["nb"]
        try:
            truth.save(self.nb, self.save_to)
            self.save_error = None
        except OSError as error:
            self.save_error = error
        self.last_save_time = self.now()

    def notebook_complete(self, **kwargs: Any) -> None:
        """Close the record. Cells that never ran stay ``pending``: papermill would call them completed."""
        self.end_time = self.now()
        about = self.nb.metadata.papermill
        about["end_time"] = self.end_time.isoformat()
        about["duration"] = (self.end_time - self.start_time).total_seconds()
        self.cleanup_pbar()
        self.save()


class Client(PapermillNotebookClient):
    """papermill's client with a watcher beside each cell, and a limit to what a cell may print."""

    clear_before_next_output: bool

    def __init__(self, manager: Manager, control: Control, **kwargs: Any) -> None:
        # A cell that prints faster than anybody can read loses messages, perhaps its last: that ends no run.
        super().__init__(manager, raise_on_iopub_timeout=False, **kwargs)
        self.control = control
        self.kept: KeptOutput | None = None

    async def async_execute_cell(self, cell: Any, cell_index: int, **kwargs: Any) -> Any:
        """Execute a cell; the watcher may interrupt it."""
        if cell.cell_type == "code" and self.control.must_end():
            raise StoppedError
        watcher = asyncio.ensure_future(self.control.watch())
        try:
            return await super().async_execute_cell(cell, cell_index, **kwargs)
        finally:
            watcher.cancel()
            if self.kept is not None:
                self.kept.close()
                self.kept = None

    execute_cell = run_sync(async_execute_cell)

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Keep an output, or what there is room for."""
        super_output = super().output
        if self.output_hook_stack[msg["parent_header"].get("msg_id")]:  # an output widget takes it
            return super_output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            outs[:] = []
            self.clear_display_id_mapping(cell_index)
            self.clear_before_next_output = False
        if self.kept is None or self.kept.outputs is not outs:
            self.kept = KeptOutput(outs)
        elif not outs:
            self.kept.reset()
        return self.kept.take(msg, lambda kept: super_output(outs, kept, display_id, cell_index))

    def papermill_execute_cells(self) -> None:
        """Execute the cells in order, up to the first that fails."""
        n_cells = len(self.nb.cells)
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                cell.metadata.papermill["status"] = self.nb_man.COMPLETED
                continue
            if self.control.must_end():
                raise StoppedError
            self.nb_man.cell_start(cell, index)
            self.control.cell(index, n_cells, "running")
            try:
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                self._failed(index, error)
                return
            except BaseException as error:
                self._broke(index, error)
                raise
            self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
            self.control.cell(index, n_cells, "completed")

    def _failed(self, index: int, error: BaseException) -> None:
        cell = self.nb.cells[index]
        self.nb_man.cell_exception(cell, cell_index=index, exception=error)
        self.nb_man.cell_complete(cell, cell_index=index)
        self.control.cell(index, len(self.nb.cells), "failed")

    def _broke(self, index: int, error: BaseException) -> None:
        """The kernel is gone, or we are ending: the cell in whose middle it happened says so."""
        cell = self.nb.cells[index]
        state, message = self.control.why_dead() if isinstance(error, DeadKernelError) else ("failed", str(error))
        from nbformat import from_dict

        cell.outputs.append(from_dict(truth.error_output(state, message)))
        self._failed(index, error)
        if state == "stopped":
            cell.metadata.papermill["status"] = "stopped"


def execute(
    nb: Any,
    *,
    kernel_name: str | None,
    save_to: Path | None = None,
    output_path: str | None = None,
    control: Control | None = None,
    km: Any = None,
    kc: Any = None,
    keep: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Execute a notebook node in place, and return it.

    Parameters
    ----------
    nb : NotebookNode
        As papermill loads it.
    kernel_name : str or None
        Of the kernel to start, where `km` is None.
    save_to : Path, optional
        File that is written before and after each cell.
    output_path : str, optional
        The same by papermill's own means, for whoever uses the engine without a supervisor.
    control : Control, optional
    km, kc : optional
        A running kernel's manager and client. They are not shut down here.
    keep : dict, optional
        Gets the notebook under ``nb``: papermill raises, and returns nothing, where a cell failed.
    """
    if keep is not None:
        keep["nb"] = nb
    manager = Manager(nb, save_to=save_to, output_path=output_path, progress_bar=False, autosave_cell_every=AUTOSAVE_S)
    options = {} if km is not None else {"kernel_name": kernel_name, "startup_timeout": kwargs.get("start_timeout", 60)}
    client = Client(manager, control or _Alone(), km=km, timeout=None, iopub_timeout=IOPUB_TIMEOUT_S, **options)
    client.kc = kc
    manager.notebook_start()
    try:
        client.execute()
    finally:
        manager.notebook_complete()
    return nb
