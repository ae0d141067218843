"""``mlflow models serve`` of a model of torch: ``python mlflow_torch.py PORT``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import mlflow.pytorch
from net import Net

if __name__ == "__main__":
    place = str(Path(tempfile.mkdtemp(prefix="mlflow-model-")) / "net")
    mlflow.pytorch.save_model(Net().eval(), place, code_paths=["net.py"], serialization_format="pickle")
    serve = ["mlflow", "models", "serve", "-m", place, "-p", sys.argv[1], "--env-manager", "local", "-w", "1"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.execv(sys.executable, [sys.executable, "-m", *serve])
