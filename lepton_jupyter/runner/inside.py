"""Make a run's kernel ready: the notebook's names, its paths, its cells' lines, and an ear for errors."""

from __future__ import annotations

import errno
import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner import payload, sources
from lepton_jupyter.runner.outputs import FIRST_MAX, shortened
from lepton_jupyter.runner.rank_group import RankError
from lepton_jupyter.runner.ranks import take_cell

if TYPE_CHECKING:
    from lepton_jupyter.runner.session import RunSession

OURS = str(Path(__file__).parents[1])
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def prepare(run: RunSession) -> None:
    """Make this kernel ready for a run; a user's own notebook gets nothing but what papermill puts into it."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        _listen(run, shell)
    if run.record.kind == "notebook":
        return
    index = payload.read_index(run.files.payload)
    _extend_path(run.files.payload / payload.MODULES, index)
    sources.restore(index.cells, index.labels, shell)
    if run.record.kind in ("train", "tune", "cell") and run.rank is None:
        run.reserve_room()
    if run.record.kind == "cell" and shell is not None:
        if run.rank is None and len(run.devices) > 1:
            take_cell(run, shell)
            return
        _fill(run, shell)


def _fill(run: RunSession, shell: Any) -> None:
    """Put the notebook's names, and ``lepton``, where the cell looks for them."""
    try:
        shell.user_ns.update(payload.unpack(run.files.payload, shell.user_ns))
    except LeptonError as error:
        run.tell_error({**error.to_dict(), "code": "failed"})
        raise
    except Exception as error:
        told = _failure(error, run, shell)
        run.tell_error({**told, "message": f"The notebook's names could not be read in the run: {told['message']}"})
        raise
    shell.user_ns.setdefault("lepton", importlib.import_module("lepton_jupyter"))  # as the user would: a face


def _extend_path(modules: Path, index: payload.Index) -> None:
    """Put the snapshot of local modules first, and the notebook's own paths last."""
    if modules.is_dir() and str(modules) not in sys.path:
        sys.path.insert(0, str(modules))
    sys.path += [path for path in index.sys_path if path not in sys.path]


def _listen(run: RunSession, shell: Any) -> None:
    def after(result: Any) -> None:
        error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
        if error is not None and not isinstance(error, KeyboardInterrupt):
            run.tell_error(_failure(error, run, shell))

    shell.events.register("pre_run_cell", run.interrupts.install)
    shell.events.register("post_run_cell", after)


def _failure(error: BaseException, run: RunSession, shell: Any) -> dict[str, str]:
    """Return an error as people shall read it: ours in two lines, theirs with their frames in full."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            path = cause.filename or run.folder
            hint = "Make room, or set LEPTON_HOME to another disk, and train again."
            return {"message": f"no space left in {path}", "hint": hint, "code": "failed", "detail": str(error)}
    if isinstance(error, LeptonError):
        return {**error.to_dict(), "code": "failed" if error.code == "bad_input" else error.code}
    if isinstance(error, RankError):
        return error.told
    frames = [frame for frame, _ in _frames(error) if not _is_stage(frame, run)]
    where = _place(frames, shell)
    first = (str(error).splitlines() or [""])[0][:FIRST_MAX]
    message = f"{type(error).__name__}: {first}".rstrip(": ") + (f" ({where})" if where else "")
    return {"message": message, "hint": "", "code": "failed", "detail": shortened(_traceback(error, run, shell))}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _frames(error: BaseException) -> Iterator[tuple[tuple[str, int, str], types.TracebackType]]:
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        yield (code.co_filename, step.tb_lineno, getattr(code, "co_qualname", code.co_name)), step
        step = step.tb_next


def _is_stage(frame: tuple[str, int, str], run: RunSession) -> bool:
    """Whether a frame is ours, or of a stage's own notebook: not what the user wrote."""
    name, _, function = frame
    if name.startswith(OURS) or "/IPython/core/" in name:
        return True
    is_cell = name not in payload.read_index(run.files.payload).cells and function == "<module>"
    return is_cell and run.record.kind in ("train", "tune", "evaluate")


def _place(frames: list[tuple[str, int, str]], shell: Any) -> str:
    """Return where in the user's code it happened, such as ``Cell In[5], line 9, in Net.forward``."""
    labels = getattr(getattr(shell, "compile", None), "_filename_map", {})
    for name, line, function in reversed(frames):
        if name in labels:
            inside = "" if function == "<module>" else f", in {function}"
            return f"Cell In[{labels[name]}], line {line}{inside}"
    return ""


def _traceback(error: BaseException, run: RunSession, shell: Any) -> str:
    """Return the traceback without our own frames; with them where nothing else is left."""
    kept = [step for frame, step in _frames(error) if not _is_stage(frame, run)]
    tail: types.TracebackType | None = None
    for step in reversed(kept):
        tail = types.TracebackType(tail, step.tb_frame, step.tb_lasti, step.tb_lineno)
    shown = tail if tail is not None else error.__traceback__
    try:
        lines = shell.InteractiveTB.structured_traceback(type(error), error, shown)
    except Exception:
        import traceback

        return "".join(traceback.format_exception(type(error), error, shown))
    return _ANSI.sub("", "\n".join(lines)).rstrip()
