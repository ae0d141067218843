"""How an endpoint stands, by what its processes say."""

from __future__ import annotations

from lepton_jupyter.backend.store import EndpointRow
from lepton_jupyter.backend.watch import Said, Watcher, replicas_of
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.states import EndpointState
from lepton_jupyter.formats.views import Failure


def state_of(watcher: Watcher, row: EndpointRow) -> tuple[EndpointState, Failure | None]:
    """Return an endpoint's state, and what is wrong with it.

    It is ready when all of its processes that answer requests serve its last release; those that are being started
    again do not count.
    """
    if not row.is_wanted:
        return "stopped", None
    folder, said = watcher.home.endpoint(row.name), watcher.said(row)
    serving = [each for each in said if each.is_serving]
    statuses = [each.status for each in said if each.status is not None]
    wrong = [status for status in statuses if status.error_release == row.release]
    wrong += [status for status in statuses if status.state == "error"]
    if wrong:
        return ("ready" if serving else "error"), failure(row, wrong[0].error, folder)
    processes = [watcher.of(row.name).process(each.number) for each in said]
    if serving:
        for each in serving:
            watcher.of(row.name).process(each.number).last_error = ""
        return ("ready" if is_served(serving, row) else "updating"), None
    last_error = next((process.last_error for process in processes if process.last_error), "")
    if last_error:
        return "error", failure(row, last_error, folder)
    n_starts = max(process.n_starts for process in processes)
    is_up = any(each.is_alive for each in said)
    if not is_up and n_starts > 1 and all(process.has_ended for process in processes):
        return "error", failure(row, f"its process ended {n_starts} times", folder)
    return "starting", None


def is_served(said: list[Said], row: EndpointRow) -> bool:
    """Whether all of these processes serve the endpoint's last release."""
    return all(each.status is not None and each.status.release >= row.release for each in said)


def is_enough(watcher: Watcher, row: EndpointRow, old: EndpointRow | None) -> bool:
    """Whether enough of its processes serve a release: all where some are new, else those that are there."""
    serving = [each for each in watcher.said(row) if each.is_serving]
    before = replicas_of(old) if old is not None and old.is_wanted else 0
    n_needed = replicas_of(row) if replicas_of(row) > before else 1
    return len(serving) >= n_needed and is_served(serving, row)


def n_ready(watcher: Watcher, row: EndpointRow) -> int:
    """Return how many of an endpoint's processes answer requests."""
    return sum(each.is_serving for each in watcher.said(row)) if row.is_wanted else 0


def failure(row: EndpointRow, said: str, folder: EndpointFolder) -> Failure:
    """Return what is wrong with an endpoint, as it is shown."""
    return Failure(
        message=f"Endpoint '{row.name}' on port {row.port} is in trouble: {said}.",
        hint=f"Its log is {folder.log}; try again with %lepton deploy {row.model} --as {row.name}.",
        code="failed",
        detail=tail(folder.log, 10),
    )
