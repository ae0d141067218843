"""All families, by the framework that they are of."""

from __future__ import annotations

from tests.stages.train import zoo_boosted, zoo_keras, zoo_networks, zoo_sklearn, zoo_text

CASES = (*zoo_networks.CASES, *zoo_text.CASES, *zoo_sklearn.CASES, *zoo_boosted.CASES, *zoo_keras.CASES)
