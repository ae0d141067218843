"""A request on the short way: what waits for its rows' outputs, in the place of a task."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from lepton_jupyter.serving.answers import Answer
from lepton_jupyter.serving.lanes import Chosen
from lepton_jupyter.serving.scorer import Outputs

Respond = Callable[["Quick", Answer], None]


class Quick:
    """One request whose rows are being scored.

    To the batcher it is the future of its outputs; to uvicorn the cycle of the request that a connection is at.

    Parameters
    ----------
    respond : callable
        Called by whoever `on_end` is, with this and the answer.
    on_end : callable
        Called once, with outputs, with what was raised, or with None where nobody waits any more.
    """

    __slots__ = (
        "_is_over", "chosen", "disconnected", "keep_alive", "on_end", "request_id", "respond", "response_complete",
        "route", "started",
    )  # fmt: skip

    def __init__(
        self,
        chosen: Chosen,
        respond: Respond,
        on_end: Callable[[Quick, Outputs | BaseException | None], None],
        *,
        route: str,
        request_id: str,
        started: float,
    ) -> None:
        self.chosen = chosen
        self.route, self.request_id, self.started = route, request_id, started
        self.respond, self.on_end = respond, on_end
        self._is_over = False
        self.disconnected = self.response_complete = False  # uvicorn sets the first, the protocol the second
        self.keep_alive = True

    # -- as a future

    def done(self) -> bool:
        """Whether its outputs are there, or nobody waits for them."""
        return self._is_over

    def cancel(self) -> None:
        """Nobody waits."""
        self._end(None)

    def set_result(self, outputs: Outputs) -> None:
        """Answer with these outputs."""
        self._end(outputs)

    def set_exception(self, error: BaseException) -> None:
        """Answer with this error."""
        self._end(error)

    def _end(self, found: Outputs | BaseException | None) -> None:
        if not self._is_over:
            self._is_over = True
            self.on_end(self, found)

    # -- as a cycle

    @property
    def message_event(self) -> Quick:
        """What uvicorn wakes when the connection is lost."""
        return self

    def set(self) -> None:
        """Nobody sleeps on it."""

    @property
    def age_s(self) -> float:
        """Seconds since it came."""
        return perf_counter() - self.started
