"""What may stand behind --search, and where its values go."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.tune.space import parse_space, settled

SPEC = Train(model="Net", data="d")


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, hidden: int = 8, drop: float = 0.0) -> None:
        super().__init__()


def test_values_go_to_flags_to_the_model_and_to_its_optimizer() -> None:
    texts = ("lr=loguniform(1e-4,1e-1)", "hidden=logint(4,64)", "beta1=uniform(.8,.99)", "augment=choice(none,flip)")
    space = parse_space(texts, Net, SPEC)
    assert [one.place for one in space] == ["flag", "param", "optimizer", "flag"]
    assert [one.is_log for one in space] == [True, True, False, False]
    values = {"lr": 0.01, "hidden": 16, "beta1": 0.9, "augment": "flip"}
    found = settled(SPEC, space, values)
    assert (found.lr, found.params, found.augment) == (0.01, {"hidden": 16}, ("flip",))
    assert found.optimizer_args == {"betas": [0.9, 0.999]}


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("batch_size=choice(16, 32)", "choice", (16, 32)),
        ("optimizer=choice(adam,'sgd')", "choice", ("adam", "sgd")),
        ("drop=uniform(0,0.5)", "uniform", (0.0, 0.5)),
        ("epochs = int(2, 9)", "int", (2, 9)),
    ],
)
def test_what_is_typed_is_read(text: str, kind: str, values: tuple[Any, ...]) -> None:
    (found,) = parse_space((text,), Net, SPEC)
    assert (found.kind, found.ends()) == (kind, values)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "nothing to search"),
        (("lr",), "is not NAME=KIND"),
        (("lr=gauss(0,1)",), "Known: uniform"),
        (("lr=choice()",), "empty"),
        (("lr=uniform(1,1)",), "empty"),
        (("lr=uniform(1)",), "two numbers"),
        (("lr=loguniform(0,1)",), "no logarithm"),
        (("epochs=int(1.5,3)",), "whole numbers"),
        (("lr=uniform(-1,1)",), "does not take"),
        (("lr=uniform(nan,1)",), "empty"),
        (("optimizer=choice(1,2)",), "does not take"),
        (("hiden=int(4,8)",), "Did you mean 'hidden'"),
        (("n_features=int(4,8)",), "no flag of train"),
        (("lr=uniform(0.1,1)", "lr=uniform(0.1,1)"), "twice"),
    ],
)
def test_what_makes_no_sense_is_refused(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(LeptonError) as caught:
        parse_space(texts, Net, SPEC)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_an_estimator_has_its_own_arguments() -> None:
    assert parse_space(("C=loguniform(1e-3,10)",), LogisticRegression, SPEC)[0].place == "param"
    with pytest.raises(LeptonError, match="'lr'"):
        parse_space(("lr=uniform(0.1,1)",), LogisticRegression, SPEC)
