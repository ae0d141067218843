from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.construct import construct, facts_of, is_free_factory

FACTS = facts_of(n_features=30, n_outputs=2, input_shape=(30,), cardinalities=(3, 4))


def make(model: Any, **params: Any) -> Any:
    return construct(model, FACTS, params, name="Net", data="wdbc")


@pytest.mark.parametrize("inside", ["n_features", "in_features", "input_size", "input_dim"])
@pytest.mark.parametrize(
    "outside", ["n_outputs", "out_features", "output_size", "output_dim", "num_classes", "n_classes"]
)
def test_every_usual_name_of_a_size_is_filled(inside: str, outside: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def factory({inside}, *, {outside}=7): return ({inside}, {outside})", scope)
    assert make(scope["factory"]) == (30, 2)


def test_shape_and_cardinalities_are_filled_and_params_go_before_facts() -> None:
    assert make(
        lambda input_shape, cardinalities, n_features: (input_shape, cardinalities, n_features), n_features=5
    ) == (
        (30,),
        (3, 4),
        5,
    )


def test_an_unknown_required_argument_prints_the_line_to_paste() -> None:
    class Net(nn.Module):
        def __init__(self, n_features: int, hidden: int, *, rate: float, kind: str) -> None:
            super().__init__()

    with pytest.raises(LeptonError) as caught:
        make(Net)
    assert "'Net' needs 'hidden' and 'rate' and 'kind'" in caught.value.message
    assert "%lepton train Net --data wdbc -p hidden=32 -p rate=0.1 -p kind=VALUE" in caught.value.hint


def test_a_param_that_the_model_does_not_name_is_refused_with_a_guess() -> None:
    with pytest.raises(
        LeptonError, match=r"'Net' takes no 'hiden'\. It takes: n_features, hidden\. Did you mean 'hidden'\?"
    ):
        make(lambda n_features, hidden=3: None, hiden=4)


def test_a_module_without_a_constructor_takes_no_params() -> None:
    class Net(nn.Module):
        pass

    assert isinstance(make(Net), Net)
    with pytest.raises(LeptonError, match="takes no 'hidden'"):
        make(Net, hidden=3)


def test_an_instance_passes_as_it_is_and_takes_no_params() -> None:
    net = nn.Linear(1, 1)
    assert make(net) is net
    with pytest.raises(LeptonError, match="is an instance, so -p hidden cannot reach"):
        make(net, hidden=3)


def test_only_a_factory_that_asks_for_no_size_is_called_to_see_what_it_makes() -> None:
    assert is_free_factory(lambda depth=3: None)
    assert not is_free_factory(lambda n_features: None)
    assert not is_free_factory(nn.Linear)
    assert not is_free_factory(nn.Linear(1, 1))
