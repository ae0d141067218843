"""The fitted preprocessing: in numpy, in ONNX, through JSON, and against scikit-learn."""

from __future__ import annotations

import msgspec
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.data.plan import (
    CodeStep,
    Features,
    LevelsStep,
    MissingStep,
    Mode,
    NumberStep,
    OneHotStep,
    OrdinalStep,
    Plan,
    apply_plan,
    fit_plan,
)
from lepton_jupyter.stages.data.plan_graph import plan_graph

NUMBERS = Schema(
    columns=(Column(name="x", kind="number"), Column(name="at", kind="datetime"), Column(name="k", kind="integer"))
)
MIXED = Schema(columns=(*NUMBERS.columns, Column(name="a", kind="string"), Column(name="b", kind="string")))
TEXT = Schema(columns=(Column(name="a", kind="string"),))


def _rows(schema: Schema, n: int, *, seed: int = 0, is_new: bool = False) -> Packed:
    """Return rows with holes; new ones have unseen categories, extremes and all-missing rows too."""
    rng = np.random.default_rng(seed)
    num = np.column_stack([rng.lognormal(0, 3, n), 1_700_000_000 + rng.integers(0, 86_400, n), rng.integers(0, 4, n)])
    num[rng.random(num.shape) < 0.1] = np.nan
    words = ["red", "Größe", "", "None", "nan", *(["unseen", "ROT", "red "] if is_new else [])]
    txt = rng.choice(np.array([*words, SENTINEL], dtype=object), (n, len(schema.txt)))
    if is_new:
        num[:3] = [[np.nan] * 3, [1e300, -1e12, 9e15], [-0.0, 0.0, 3]]
    return Packed(num[:, : len(schema.num)], txt)


def _run(plan: Plan, schema: Schema, packed: Packed) -> Features:
    model = plan_graph(plan, schema, opset=20)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"num": packed.num} if schema.num else {}
    feeds |= {"txt": packed.txt} if schema.txt else {}
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))
    return Features(found["numeric"], found.get("codes", np.empty((packed.n_rows, 0), np.int64)))


def _equal(plan: Plan, schema: Schema, packed: Packed) -> Features:
    ours, graphs = apply_plan(plan, packed), _run(plan, schema, packed)
    assert (ours.numeric.dtype, ours.codes.dtype) == (np.float32, np.int64)
    assert ours.numeric.shape == (packed.n_rows, plan.n_features)
    assert ours.codes.shape == (packed.n_rows, len(plan.cardinalities))
    np.testing.assert_allclose(graphs.numeric, ours.numeric, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(graphs.codes, ours.codes)
    assert len(plan.feature_names) == plan.n_features + len(plan.cardinalities)
    return ours


@pytest.mark.parametrize("schema", [NUMBERS, MIXED, TEXT])
@pytest.mark.parametrize("mode", ["dense", "embed", "coded"])
def test_the_graph_equals_numpy_over_missing_unseen_and_seconds(mode: Mode, schema: Schema) -> None:
    plan = fit_plan(schema, _rows(schema, 400), mode=mode)
    plan = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    for n in (1, 7, 200):
        _equal(plan, schema, _rows(schema, max(n, 3), seed=n, is_new=True))
    _equal(plan, schema, Packed(*(part[:1] for part in _rows(schema, 5, is_new=True))))
    _equal(plan, schema, Packed(*(part[:0] for part in _rows(schema, 5))))


def test_epoch_seconds_keep_their_precision() -> None:
    packed = _rows(NUMBERS, 1_000)
    numeric = apply_plan(fit_plan(NUMBERS, packed), packed).numeric
    seconds = packed.num[:, 1]
    filled = np.where(np.isnan(seconds), np.nanmedian(seconds), seconds)
    np.testing.assert_allclose(numeric[:, 1], (filled - filled.mean()) / filled.std(), atol=1e-6)


def test_missing_and_other_have_features_of_their_own() -> None:
    packed = Packed(np.empty((4, 0)), np.array([["u"], ["v"], [SENTINEL], ["u"]], dtype=object))
    plan = fit_plan(TEXT, packed)
    assert plan.feature_names == ("a=u", "a=v", "a=other", "a=missing")
    new = Packed(np.empty((3, 0)), np.array([["w"], [SENTINEL], ["v"]], dtype=object))
    assert _equal(plan, TEXT, new).numeric.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    without = fit_plan(TEXT, Packed(np.empty((2, 0)), np.array([["u"], ["v"]], dtype=object)))
    assert _equal(without, TEXT, new).numeric.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]
    codes = fit_plan(TEXT, packed, mode="embed")
    assert codes.cardinalities == (4,)
    assert _equal(codes, TEXT, new).codes.tolist() == [[3], [2], [1]]


def test_constant_and_empty_columns_give_finite_features() -> None:
    packed = Packed(np.array([[5.0, np.nan, 0.1], [5.0, np.nan, 0.1], [5.0, np.nan, 0.1]]), np.empty((3, 0), object))
    plan = fit_plan(NUMBERS, packed)
    assert _equal(plan, NUMBERS, packed).numeric.tolist() == [[0, 0, 0, 1]] * 3


def test_preprocess_none_changes_nothing_and_refuses_text() -> None:
    packed = _rows(NUMBERS, 50)
    plan = fit_plan(NUMBERS, packed, mode="none")
    np.testing.assert_array_equal(_equal(plan, NUMBERS, packed).numeric, packed.num.astype(np.float32))
    with pytest.raises(LeptonError, match="these columns are text: a, b"):
        fit_plan(MIXED, _rows(MIXED, 5), mode="none")


def test_steps_of_every_kind_in_any_order_equal_numpy() -> None:
    steps = (
        CodeStep(column="b", categories=("red",)),
        OneHotStep(column="a", categories=("red", "None", "nan"), places=(0, 9, 1), width=2, missing=9, other=9),
        NumberStep(column="k", fill=2.0, center=1.0, scale=3.0),
        NumberStep(column="x"),
        MissingStep(column="x", center=0.1, scale=0.3),
        MissingStep(column="k"),
        OrdinalStep(column="b", categories=("red", ""), values=(0.0, None), missing=None, other=-1.0),
        OrdinalStep(column="a", categories=("red",), values=(7.0,), fill=3.5, center=2.0, scale=0.5),
        LevelsStep(column="k", levels=(0.0, 2.0, None)),
        LevelsStep(column="k", levels=(1.0,), fill=1.0),
        NumberStep(column="at", center=1.7e9, scale=86_400.0),
    )
    plan = Plan(steps=steps, num=("x", "at", "k"), txt=("a", "b"), mode="lifted")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    features = _equal(plan, MIXED, _rows(MIXED, 300, is_new=True))
    assert plan.n_features == features.numeric.shape[1] == 13
    assert plan.feature_names[:2] == ("a=red", "a=nan")


def test_what_scikit_learn_fits_can_be_said_as_a_plan() -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    packed = _rows(MIXED, 300)
    frame = _pandas(packed)
    number = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    word = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="red"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    theirs = ColumnTransformer([("w", word, ["a"]), ("n", number, ["x"]), ("o", ordinal, ["b"])]).fit(frame)
    imputer, scaler = theirs.named_transformers_["n"]
    seen = tuple(theirs.named_transformers_["w"][-1].categories_[0])
    known = tuple(value for value in theirs.named_transformers_["o"].categories_[0] if isinstance(value, str))
    plan = Plan(
        steps=(
            OneHotStep(
                column="a", categories=seen, places=tuple(range(len(seen))), width=len(seen),
                missing=seen.index("red"), other=len(seen),
            ),
            NumberStep(
                column="x", fill=float(imputer.statistics_[0]),
                center=float(scaler.mean_[0]), scale=float(scaler.scale_[0]),
            ),
            MissingStep(column="x", center=float(scaler.mean_[1]), scale=float(scaler.scale_[1])),
            OrdinalStep(
                column="b", categories=known, values=tuple(map(float, range(len(known)))), missing=-2.0, other=-1.0
            ),
        ),
        num=("x", "at", "k"),
        txt=("a", "b"),
        mode="lifted",
    )  # fmt: skip
    new = _rows(MIXED, 100, seed=5, is_new=True)
    new.num[1, 0] = 1e30
    features = _equal(plan, MIXED, new)
    np.testing.assert_allclose(
        features.numeric, theirs.transform(_pandas(new)).astype(np.float32), rtol=1e-6, atol=1e-6
    )


def _pandas(packed: Packed) -> pd.DataFrame:
    texts: NDArray[np.object_] = np.where(packed.txt == SENTINEL, np.nan, packed.txt)
    columns = dict(zip(("x", "at", "k"), packed.num.T, strict=True)) | dict(zip(("a", "b"), texts.T, strict=True))
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


def test_coded_text_is_the_number_of_its_category_and_numbers_stay_as_they_are() -> None:
    schema = Schema(columns=(Column(name="x", kind="number"), Column(name="a", kind="string")))
    seen = Packed(np.array([[1.5], [np.nan], [3.0]]), np.array([["red"], ["blue"], [SENTINEL]], object))
    plan = fit_plan(schema, seen, mode="coded")
    new = Packed(np.array([[np.nan], [2.5], [7.0], [8.0]]), np.array([["red"], ["blue"], [SENTINEL], ["new"]], object))
    wanted = [[np.nan, 1.0], [2.5, 0.0], [7.0, np.nan], [8.0, np.nan]]
    np.testing.assert_array_equal(_equal(plan, schema, new).numeric, wanted)


def test_a_graph_in_double_keeps_what_float32_would_round() -> None:
    plan = Plan(
        steps=(
            NumberStep(column="x", factor=1 / 3, shift=0.1),
            MissingStep(column="x"),
            NumberStep(column="at"),
            LevelsStep(column="k", levels=(1.0, None)),
            OneHotStep(column="a", categories=("red",), places=(0,), width=2, missing=1, other=1),
            OrdinalStep(column="b", categories=("red",), values=(0.1,), missing=None, other=7.0, scale=3.0),
        ),
        num=("x", "at", "k"),
        txt=("a", "b"),
    )
    rows = _rows(MIXED, 50)
    session = ort.InferenceSession(plan_graph(plan, MIXED, opset=20, is_double=True).SerializeToString())
    found = session.run(None, {"num": rows.num, "txt": rows.txt})[0]
    x, at = rows.num[:, 0], rows.num[:, 1]
    assert found.dtype == np.float64 and found.shape == (50, 8)
    np.testing.assert_array_equal(found[:, 0], x * (1 / 3) + 0.1)
    np.testing.assert_array_equal(found[:, 2], at)
    np.testing.assert_allclose(found, apply_plan(plan, rows).numeric, rtol=1e-6)
