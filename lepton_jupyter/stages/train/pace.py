"""How many threads steps take: the steps themselves show it, again and again, since neighbours come and go."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch

N_FIRST = 2  # steps of a stretch that are not looked at
N_PROBED = 10  # steps on one thread, then as many on all
N_PROBING = N_FIRST + 2 * N_PROBED
GAIN = 1.05  # how much faster all threads must be: one leaves the other cores to others
SLOWED = 1.5  # how much slower than on one thread they may become before they are given up
STUCK = 8.0  # as much for a single step: one of them has waited for a core that somebody else has
MOST_SKIPPED = 16  # probings that are left out after several were stuck


class Pace:
    """Choose between one thread and all, by the steps themselves.

    Steps come in stretches, such as an epoch's. In a stretch that probes, some go on one thread and some on all, and
    it goes on with what was faster. Threads that wait for a core which somebody else has lose far more than they gain:
    then they are given up at once.

    Parameters
    ----------
    n_all : int
        Threads that may be used; 1: nothing is chosen.
    clock : callable
        Returns seconds.

    Attributes
    ----------
    n_chosen : int
        Threads of the last step.
    n_most : int
        The most that were chosen so far.
    """

    def __init__(self, n_all: int, clock: Callable[[], float] = perf_counter) -> None:
        self.n_all = n_all
        self.n_chosen = self.n_most = 1
        self._clock = clock
        self._is_probing = False
        self._seen: dict[int, list[float]] = {}
        self._one_s = 0.0
        self._began = 0.0
        self._n_skipped = self._n_to_skip = 0

    def stretch(self, *, is_probing: bool) -> None:
        """Begin a stretch of steps."""
        self._is_probing = self.n_all > 1 and is_probing
        if self._is_probing and self._n_skipped < self._n_to_skip:
            self._n_skipped += 1
            self._is_probing = False
        if self._is_probing:
            self._n_skipped = 0
            self._seen = {1: [], self.n_all: []}

    def begin(self, place: int) -> None:
        """Begin the stretch's step at this place, counted from 0."""
        if self._is_probing and place >= N_FIRST:
            if place < N_FIRST + N_PROBED:
                self._use(1)
            elif place < N_PROBING:
                self._one_s = statistics.median(self._seen[1])
                self._use(self.n_all)
            else:
                self._choose()
        self._began = self._clock()

    def end(self, place: int) -> None:
        """End that step."""
        if self.n_all == 1:
            return
        took = self._clock() - self._began
        if self.n_chosen > 1 and took > STUCK * self._one_s:
            self._is_probing = False
            self._n_to_skip = min(2 * self._n_to_skip + 1, MOST_SKIPPED)
            self._use(1)
        elif self._is_probing:
            if place >= N_FIRST:
                self._seen[self.n_chosen].append(took)
        elif self.n_chosen > 1:
            last = self._seen[self.n_chosen] = [*self._seen[self.n_chosen], took][-N_PROBED:]
            if statistics.median(last) > SLOWED * self._one_s:
                self._use(1)

    def close(self) -> None:
        """Go on with one thread."""
        self._is_probing = False
        self._use(1)

    def _choose(self) -> None:
        self._is_probing = False
        self._n_to_skip = 0
        self._use(self.n_all if statistics.median(self._seen[self.n_all]) * GAIN < self._one_s else 1)
        self.n_most = max(self.n_most, self.n_chosen)

    def _use(self, n_threads: int) -> None:
        if n_threads != self.n_chosen:
            torch.set_num_threads(n_threads)
            self.n_chosen = n_threads
