"""``result.json`` of a search: every trial, the best one, and what mattered."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class TrialRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trial.

    Attributes
    ----------
    state : str
        ``complete``, ``pruned`` or ``failed``; `reason` says why it failed.
    value : float or None
        Of the metric, at its best epoch; of a pruned trial at its last one.
    epochs : int
        That it was trained for.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None = None
    epochs: int = 0
    took_s: float = 0.0
    reason: str = ""


class TuningRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A search.

    Attributes
    ----------
    direction : str
        ``minimize`` or ``maximize`` the metric.
    space : dict
        What was searched, by name, as typed: ``loguniform(1e-4,1e-1)``.
    log_names : tuple of str
        Those that were drawn evenly over orders of magnitude.
    trials : tuple of TrialRecord
        In the order of their numbers.
    best : int or None
        Number of the best trial.
    importance : dict
        Share of the metric's variation that each name explains, the largest first; empty where there is too little.
    how : str
        How trials were trained: one by one, several at once, or as one program, and why.
    """

    run_id: str
    model: str
    dataset: str
    metric: str
    direction: str
    space: dict[str, str]
    trials: tuple[TrialRecord, ...] = ()
    log_names: tuple[str, ...] = ()
    best: int | None = None
    importance: dict[str, float] = field(default_factory=dict)
    how: str = ""
    took_s: float = 0.0

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best trial, where one was completed."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    def count(self, state: str) -> int:
        """Return how many trials ended so."""
        return sum(trial.state == state for trial in self.trials)
