"""Records on disk: of a dataset's version, a run, a version's card."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from lepton_jupyter.formats.schema import Schema


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a person should know about a dataset.

    Attributes
    ----------
    check : str
        Which check found it: ``missing``, ``duplicates``, ``constant``, ``leakage``, ``imbalance``, ``mixed_types``,
        ``outliers``, ``id_like``, ``personal`` …
    column : str or None
    text : str
        One sentence with the figures.
    level : str
        ``info``, ``warning`` or ``problem``.
    """

    check: str
    text: str
    column: str | None = None
    level: str = "warning"


class DatasetRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``dataset.json``: one immutable version of a dataset.

    Attributes
    ----------
    content_hash : str
        sha256 over the table's content, in order.
    flags_hash : str
        sha256 over the flags that shape the version.
    source : str
        The path, glob or variable as typed; `source_kind` is ``file`` or ``variable``.
    folder : str
        The working folder in which a relative path was typed; empty where it is not known.
    split_how : str
        ``stratified``, ``random``, ``grouped``, ``time`` or ``none``.
    split_rows : dict
        Rows in each split.
    n_new_rows : int
        Rows that no earlier version had.
    """

    name: str
    version: int
    content_hash: str
    flags_hash: str
    source: str
    source_kind: str
    created_at: float
    n_rows: int
    schema: Schema
    split_how: str
    split_rows: dict[str, int]
    flags: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    n_new_rows: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)
    folder: str = ""


class RunRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``run.json``: what was asked. Written once by the client, before the backend hears of it.

    Attributes
    ----------
    kind : str
        ``train`` (a model by the engine), ``tune`` (many, of which the best is kept), ``cell`` (``%%lepton train``),
        ``evaluate``, ``save``, ``notebook``, ``monitor`` or ``retrain``.
    title : str
        What a list shows: the model's or the notebook's name.
    command : str
        The line that was typed, as a magic.
    spec : dict
        The verb's struct as JSON.
    parameters : dict
        What papermill puts into the notebook's parameters cell.
    model : str or None
        Name under which a version is registered when the run ends, for kinds that make one.
    model_version : str or None
        For an evaluation: the run id of the version that is judged.
    against : str or None
        For an evaluation: the run id of the version it is compared with.
    pins : dict
        Of these two: the registered sha256 of the bundle's manifest, by run id.
    dataset : str or None
        ``NAME@3`` pinned, with ``:split`` for an evaluation.
    python : str
        Interpreter of the notebook that asked.
    cwd : str
    parent : str or None
        Id of the run inside which this one was asked.
    needs_device : bool
        Whether it waits for a device and holds a lease while it runs.
    output : str or None
        Where a copy of the executed notebook goes (``--to``).
    asked_by : str
        ``kernel``, ``shell``, ``schedule``, ``alert`` …
    endpoint : str or None
        Of a monitor run: what is watched.
    schedule : str or None
        The schedule that fired; `due_at` when it was due, `attempt` how often it was tried before.
    timeout_s : float or None
        A run that takes longer is ended and has failed.
    devices : str
        Which, where it needs some: ``auto``, ``cpu``, how many, or ``0,1``.
    priority : str
        ``low``, ``normal`` or ``high``, among the runs of one user.
    resumes : str or None
        Id of the run whose last checkpoint it goes on from.
    recipe : str or None
        Of a training that repeats another one on newer data: the id of the run that was recorded first.
    git : dict
        ``commit``, ``branch`` and ``is_dirty`` of the repository of `cwd`; empty where it is in none.
    packages : dict
        Versions of Python and of what decides the result; empty where they are not known.
    """

    run_id: str
    kind: str
    title: str
    created_at: float
    python: str
    cwd: str
    command: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    model_version: str | None = None
    against: str | None = None
    pins: dict[str, str] = field(default_factory=dict)
    dataset: str | None = None
    kernel: str | None = None
    parent: str | None = None
    needs_device: bool = False
    output: str | None = None
    asked_by: str = "kernel"
    lepton_version: str = ""
    endpoint: str | None = None
    schedule: str | None = None
    due_at: float | None = None
    attempt: int = 0
    timeout_s: float | None = None
    recipe: str | None = None
    devices: str = "auto"
    priority: str = "normal"
    resumes: str | None = None
    git: dict[str, str | bool] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)


class Card(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``card.json`` in a bundle: where a version comes from and what may be done with it.

    Attributes
    ----------
    is_deployable : bool
        False where the model could not be exported or proved equal; `why_not` says why.
    trained_on : str or None
        ``NAME@3``; None where it is not known.
    trained_splits : tuple of str
        Splits whose rows the weights or the choice of epoch have seen. Empty and ``trained_on`` None: rows unknown.
    parity : dict
        ``rows``, ``worst`` (largest absolute difference), ``tolerance``; of images also ``pillow`` (its version) and
        ``pixels`` (what it made of a small file).
    license : str
        As whoever trained it said; empty where nobody did.
    """

    model: str
    run_id: str
    framework: str
    is_deployable: bool
    created_at: float
    why_not: str = ""
    trained_on: str | None = None
    trained_splits: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    stopped_at: int | None = None
    license: str = ""
    parity: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
