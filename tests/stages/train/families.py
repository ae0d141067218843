"""Every family of models that has been tried: is the bundle the model, on real rows and on planted ones?

``python -m tests.stages.train.families > docs/parity.md`` tries all of them and writes the table of the documents.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.schema import SENTINEL, Schema
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.bundling import bundle_of
from lepton_jupyter.stages.train.engine import make_card
from lepton_jupyter.stages.train.frameworks.forests import forest_of
from lepton_jupyter.stages.train.frameworks.linear import linear_of
from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.job import Fitted, Job, settle_task
from lepton_jupyter.stages.train.parity import rows_of
from lepton_jupyter.stages.train.spec import Train
from tests.stages.train.conftest import Recorder

TOLERANCE = 1e-5  # what docs/parity.md states
N_ROWS = 400
N_PLANTED = 64
N_EDGES = 40
WORDS = (SENTINEL, "a word never seen", "None", "nan", "", "\t ", "[PAD]", "🎈" * 500, "endless" * 3_000)

Answers = Any


@dataclass(frozen=True)
class Case:
    """One model, and what is expected of it.

    Attributes
    ----------
    name : str
        As the table names it.
    data : str
        One of `zoo_data.DATA`.
    model : callable
        Makes what is trained; where `is_saved`, from the dataset what was trained elsewhere.
    flags : dict
        Of ``train``.
    refused : str
        Words of the reason for which it is not deployable; empty where it is.
    needs : str
        A package that may not be installed.
    """

    name: str
    data: str
    model: Callable[..., Any]
    flags: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    needs: str = ""
    is_saved: bool = False

    @property
    def is_here(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


@dataclass(frozen=True)
class Found:
    """What trying a case gave.

    Attributes
    ----------
    gate : float
        Largest difference that the parity gate saw.
    worst : float
        Largest difference that was measured here, without the gate, through the endpoint's own scorer; in units of
        the target's deviation, or of a tenth of the answer where that is more.
    n_rows : int
        Compared here.
    """

    card: Card
    task: str
    how: str
    gate: float = 0.0
    worst: float = 0.0
    n_rows: int = 0


def attempt(case: Case, dataset: Dataset, folder: Path) -> Found:
    """Train or take over a model, bundle it, and compare it with its bundle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that are cut short, and words never seen
        return _attempt(case, dataset, folder)


def _attempt(case: Case, dataset: Dataset, folder: Path) -> Found:
    folder.mkdir(parents=True)
    session = Recorder(folder)
    model = case.model(dataset) if case.is_saved else case.model()
    spec = Train(model="model", data=dataset.ref, **case.flags)
    dataset = settle_task(dataset, spec.task)
    job = Job(session, spec, dataset, "model")
    framework = framework_of(model, "model")
    fitted: Fitted = framework.adopt(model, job) if case.is_saved else framework.fit(model, job)
    try:
        card = make_card(fitted, model="model", run_id=session.run_id, spec=spec, dataset=dataset)
        bundle, card = bundle_of(fitted, card, folder=folder / "bundle", dataset=dataset)
    finally:
        fitted.close()
    how = _how(fitted)
    if not card.is_deployable:
        return Found(card, str(dataset.schema.task), how)
    scorer = Scorer(bundle)
    worst, n_rows = 0.0, 0
    for rows in probes(fitted, dataset):
        try:
            live = fitted.predict(rows)
        except ValueError:  # the model itself does not take such rows: there is nothing to be equal to
            continue
        for found, wanted in _pairs(scorer, rows, live):
            worst = max(worst, float(_apart(found, wanted, _unit(dataset)).max(initial=0.0)))
            n_rows += len(wanted)
    return Found(card, str(dataset.schema.task), how, card.parity["worst"], worst, n_rows)


def _how(fitted: Fitted) -> str:
    if fitted.framework in ("torch", "keras"):
        return "torch.onnx"
    try:
        rest = fitted.lifted().rest  # type: ignore[attr-defined]
        return "trees of ours" if forest_of(rest) else "weights of ours" if linear_of(rest) else "skl2onnx"
    except LeptonError:
        return "–"


def probes(fitted: Fitted, dataset: Dataset) -> list[Any]:
    """Return real rows, and rows with holes, words never seen, nothing at all, and values that lie on edges."""
    rows = rows_of(fitted.schema, dataset, dataset.splits()[-1])
    if not isinstance(rows, Packed):
        return [rows[:N_ROWS], np.zeros_like(rows[:3]), 100 * rows[:3]]
    rows = Packed(rows.num[:N_ROWS], rows.txt[:N_ROWS])
    made = [rows]
    for place in range(len(fitted.schema.num)):
        made.append(_with(rows, num={place: np.nan}))
    for place in range(len(fitted.schema.txt)):
        made += [_with(rows, txt={place: word}) for word in WORDS]
    made.append(
        _with(
            rows,
            num=dict.fromkeys(range(len(fitted.schema.num)), np.nan),
            txt=dict.fromkeys(range(len(fitted.schema.txt)), SENTINEL),
        )
    )
    return [*made, *_on_edges(fitted.schema, rows, fitted.thresholds())]


def _with(rows: Packed, *, num: dict[int, float] | None = None, txt: dict[int, str] | None = None) -> Packed:
    numbers, texts = rows.num[:N_PLANTED].copy(), rows.txt[:N_PLANTED].copy()
    for place, value in (num or {}).items():
        numbers[:, place] = value
    for place, word in (txt or {}).items():
        texts[:, place] = word
    return Packed(numbers, texts)


def _on_edges(schema: Schema, rows: Packed, thresholds: dict[str, list[float]]) -> list[Packed]:
    """Return rows with a value on a threshold, or beside it; of a model without thresholds, with values of others."""
    made = []
    for place, column in enumerate(schema.num):
        seen = rows.num[:, place]
        values = np.unique(thresholds.get(column.name) or seen[~np.isnan(seen)])
        values = (
            values[np.linspace(0, len(values) - 1, min(len(values), N_EDGES)).astype(int)] if len(values) else values
        )
        near = [np.nextafter(values, way) for way in (-np.inf, np.inf)]
        single = [np.nextafter(values.astype(np.float32), np.float32(way)).astype(float) for way in (-np.inf, np.inf)]
        edges = np.unique(np.concatenate([values, values.astype(np.float32).astype(float), *near, *single]))
        index = np.arange(len(edges)) % rows.n_rows
        numbers = rows.num[index]
        numbers[:, place] = edges
        made.append(Packed(numbers, rows.txt[index]))
    return made


def _pairs(scorer: Scorer, rows: Any, live: Answers) -> list[tuple[Answers, Answers]]:
    """Return the scorer's answers and the live ones: all at once, one alone, and each 64 times with a row of others."""
    pick = len(live) // 2
    few = np.arange(64) % len(live)
    few[0] = pick
    alone, batch = _score(scorer, _take(rows, np.array([pick]))), _score(scorer, _take(rows, few))
    return [(_score(scorer, rows), live), (alone, live[[pick]]), (batch, live[few])]


def _take(rows: Any, index: Any) -> Any:
    return Packed(rows.num[index], rows.txt[index]) if isinstance(rows, Packed) else rows[index]


def _score(scorer: Scorer, rows: Any) -> Answers:
    outputs = scorer.score(rows)
    return outputs.prediction if outputs.probability is None else outputs.probability.astype(np.float64)


def _unit(dataset: Dataset) -> Answers:
    if dataset.schema.task != "regression":
        return 1.0
    return np.nanstd(np.concatenate([dataset.targets(split) for split in dataset.splits()]), axis=0)


def _apart(found: Answers, wanted: Answers, unit: Answers) -> Answers:
    """Return the difference of each row. NaN against NaN, and an infinity against itself, is none."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - wanted) / np.fmax(unit, np.abs(wanted) / 10)
    is_same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return np.where(is_same, 0.0, np.where(np.isnan(apart), np.inf, apart)).max(axis=1, initial=0.0)


def table(found: dict[str, tuple[Case, Found | None]]) -> str:
    """Return the document: what was tried, how it is exported, and how far bundle and model are apart."""
    lines = [HEAD.strip(), ""]
    for title, is_deployable in (("## Equal", True), ("## Refused, with the reason", False)):
        lines += [title, "", *_columns(is_deployable)]
        for case, one in found.values():
            if one is not None and one.card.is_deployable == is_deployable:
                lines.append(_line(case, one))
        lines.append("")
    return "\n".join(lines)


def _columns(is_deployable: bool) -> list[str]:
    names = ["model", "data", "task", "exported by", "largest difference", "rows"]
    names = names if is_deployable else ["model", "data", "task", "reason"]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _line(case: Case, one: Found) -> str:
    cells = [case.name, case.data, one.task]
    if one.card.is_deployable:
        cells += [one.how, f"{max(one.worst, one.gate):.0e}", str(one.n_rows + one.card.parity["rows"])]
    else:
        cells += [one.card.why_not.replace("|", "\\|").replace("\n", " ")]
    return "| " + " | ".join(cells) + " |"


HEAD = f"""
# Is the bundle the model?

A version is a graph, and an endpoint runs the graph. So before a version can be deployed, the live model and its graph
answer the same rows: up to 2,000 of each split, and planted ones: each column missing, a word never seen, nothing known
at all, values on a tree's thresholds and one float32 beside them, prose that is empty, endless or odd, a row alone
against the same row in a batch of 64. Where a column is prose, the comparison begins at the text. Of images the graph
gets what an endpoint makes of the files' bytes, and planted ones are files of one pixel, of extreme shapes, grey,
transparent, of a palette, of 16 bits, in CMYK, progressive, and turned by Exif. They may differ by
{TOLERANCE:g}: of a probability; of a number, in units of the target's standard deviation, or of a tenth of the answer
where that is more (a float32 answer is no finer). What differs by more is not deployable; its message shows the worst
row; what the live model itself refuses (a hole, for an estimator that takes none) is passed over.

The families below were trained on real data and compared twice: by that gate, and through the endpoint's own scorer on
rows planted by the test. `python -m tests.stages.train.families > docs/parity.md` writes this page again;
`tests/stages/train/test_families.py` holds every line of it.

- **trees of ours**: `stages/train/frameworks/tree_graph.py` writes a forest's graph, in float64 and with the way that a
  missing value takes, because converters round thresholds to float32 and forget where missing values go.
- **weights of ours**: a linear model, likewise in float64.
- **skl2onnx**: its graph, behind our own preprocessing.
- **torch.onnx**: torch's exporter, proved at batches of 1, 7 and 64 rows.
"""


def main() -> None:
    """Try every case and print the document."""
    from tests.stages.train.zoo import CASES
    from tests.stages.train.zoo_data import make

    root = Path(tempfile.mkdtemp(prefix="lepton-families-"))
    home = Home(root / "home").make()
    found: dict[str, tuple[Case, Found | None]] = {}
    try:
        for place, case in enumerate(CASES):
            if not case.is_here:
                raise SystemExit(f"'{case.name}' needs {case.needs}: pip install 'lepton_jupyter[test]'")
            print(case.name, file=sys.stderr)
            found[case.name] = (case, attempt(case, make(home, case.data), root / f"run{place}"))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table(found))


if __name__ == "__main__":
    main()
