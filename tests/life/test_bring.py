"""Bring what is trained already; take what can be taken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.life.conftest import Notebook

pytestmark = pytest.mark.slow

PIPELINE = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
words = ["island", "sex"]
table = lepton.load("penguins").to_pandas()
pipeline = make_pipeline(
    ColumnTransformer([
        ("numbers", SimpleImputer(), numbers),
        ("words", make_pipeline(SimpleImputer(strategy="most_frequent"),
                                OneHotEncoder(handle_unknown="ignore")), words),
    ]),
    GradientBoostingClassifier(random_state=0, n_estimators=20),
)
train = lepton.load("penguins:train").to_pandas()
_ = pipeline.fit(train[numbers + words], train["species"])
"""


def test_a_fitted_pipeline_is_saved_judged_and_served_without_retraining(notebook: Notebook) -> None:
    notebook.run("%lepton data penguins penguins.csv --target species --ignore year")
    notebook.run(PIPELINE)
    notebook.run("version = lepton.save(pipeline, name='boosted', data='penguins')")
    assert "training rows unknown" in notebook.run(
        "evaluation = lepton.evaluate('boosted', require=['accuracy >= 0.9']); print(evaluation.remark)"
    )
    notebook.run("endpoint = lepton.deploy('boosted', as_='penguins')")
    same = notebook.run("""
test = lepton.load('penguins:test').to_pandas()
live = [str(v) for v in pipeline.predict(test[numbers + words])]
rows = test[numbers + words]
print([str(v) for v in lepton.load('model/boosted').predict(rows)['prediction']] == live,
      [str(v) for v in endpoint.predict(rows)['prediction']] == live)
""")
    assert "True True" in same


def test_a_trained_module_is_saved_judged_and_served_without_retraining(notebook: Notebook) -> None:
    notebook.run("%lepton data diabetes diabetes.csv --target progression")
    notebook.run("""
import torch
from torch import nn
module = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
version = lepton.save(module, name='raw', data='diabetes')
evaluation = lepton.evaluate('raw')
endpoint = lepton.deploy('raw', as_='raw')
names = [c.name for c in lepton.datasets()[0].record.schema.columns]
x = lepton.load('diabetes:test').select(names)
live = module(torch.tensor(x.to_numpy(), dtype=torch.float32)).detach().numpy()[:, 0]
""")
    assert "True" in notebook.run("""
import numpy as np
print(bool(np.allclose(endpoint.predict(x)['prediction'].to_numpy(), live, atol=1e-3)))
""")


def test_a_model_that_cannot_be_exported_trains_and_is_judged_and_not_deployed(notebook: Notebook, client: Any) -> None:
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run("""
from torch import nn
class Branchy(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.a, self.b = nn.Linear(n_features, n_outputs), nn.Linear(n_features, n_outputs)
    def forward(self, x):
        return self.a(x) if float(x.sum()) > 0 else self.b(x)
""")
    notebook.run("run = %lepton train Branchy --data wdbc --epochs 3")
    run = client().runs(kind="train")[0]
    assert run.state == "completed"
    assert run.notes["exportable"] is not True
    assert "roc_auc" in notebook.run("print(lepton.evaluate('Branchy').metrics)")
    with pytest.raises(Exception, match=r"cannot be deployed|not deployable"):
        notebook.run("%lepton deploy Branchy --as b")


def test_a_cell_is_a_program_that_logs_and_saves(notebook: Notebook, client: Any) -> None:
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run("""%%lepton train --name cell
import torch
from torch import nn
x = torch.randn(64, 3)
y = x @ torch.tensor([[1.0], [2.0], [3.0]])
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(50):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    lepton.log(step=step, loss=loss.item())
lepton.save(model, example=x)
""")
    run = client().runs(kind="cell")[0]
    assert run.state == "completed", run.error
    assert run.metrics["loss"] < 0.01
    answer = notebook.run("print(lepton.predict('cell', [{'x0': 1.0, 'x1': 1.0, 'x2': 1.0}])['prediction'][0])")
    assert abs(float(answer) - 6) < 0.1
