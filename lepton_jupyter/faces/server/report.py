"""``GET runs/ID/report``: the executed notebook as one page, in a sandbox of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import tornado.web
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler

from lepton_jupyter.core.paths import RunFolder

EXPORT_S = 120.0
_exports: dict[str, asyncio.Task[str]] = {}  # one at a time for a run, however many ask


class ReportHandler(JupyterHandler):
    """Serve ``report.html``; made now where it is not there, or older than the notebook."""

    auth_resource = "lepton"

    @property
    def content_security_policy(self) -> str:
        """Scripts of the page run, with no right to anything of this server: no cookie, no request in its name."""
        return "sandbox allow-scripts; frame-ancestors 'self'"

    @tornado.web.authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Answer with the page."""
        folder = self.settings["lepton_jupyter"].home.run(run_id)
        if not folder.notebook.exists():
            raise tornado.web.HTTPError(404, f"Run {run_id} has no executed notebook yet.")
        if not _is_fresh(folder):
            why = await _export(folder)
            if not folder.report.exists():
                raise tornado.web.HTTPError(500, f"The report of run {run_id} cannot be made: {why}")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")
        content: bytes = await asyncio.to_thread(folder.report.read_bytes)
        self.finish(content)


def _is_fresh(folder: RunFolder) -> bool:
    try:
        return folder.report.stat().st_mtime_ns >= folder.notebook.stat().st_mtime_ns
    except OSError:
        return False


async def _export(folder: RunFolder) -> str:
    """Make the report; return what was printed. Whoever asks meanwhile waits for the same one."""
    task = _exports.get(folder.run_id)
    if task is None:
        task = _exports[folder.run_id] = asyncio.ensure_future(_run_export(folder))
        task.add_done_callback(lambda _: _exports.pop(folder.run_id, None))
    return await asyncio.shield(task)


async def _run_export(folder: RunFolder) -> str:
    argv = (sys.executable, "-P", "-m", "lepton_jupyter.runner.report", str(folder.root))
    streams: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*argv, **streams)
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), EXPORT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"it took more than {EXPORT_S:.0f} s"
    return printed.decode("utf-8", "replace")[-500:]
