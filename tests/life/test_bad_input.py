"""Nonsense, typed by a person: every message is read, and nothing has changed afterwards."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, CellError, Notebook

pytestmark = pytest.mark.slow

NONSENSE = [
    ("%lepton trian TumorNet", "trian", "Did you mean 'train'"),
    ("%lepton train TumorNet --data wdbc --epoch 3", "--epoch", "Did you mean '--epochs'"),
    ("%lepton train TumorNet --data wdbc --preprocess atuo", "atuo", "auto"),
    ("%lepton train TumorNet --data wbdc", "wbdc", "Did you mean 'wdbc'"),
    ("%lepton train TumorNet --data wdbc --lr -1", "-1", "lr"),
    ("%lepton train TumorNet --data wdbc --devices 99", "99", "can never start: this machine has"),
    ("%lepton train TumorNet --data wdbc --devices 0", "0", "wanted: auto, cpu"),
    ("%lepton train TumorNet --data wdbc --devices gpu", "gpu", "no device 'gpu'"),
    ("%lepton train TumorNet --data wdbc --priority hihg", "hihg", "high"),
    ("%lepton train TumorNet --data wdbc --optimizer adamm", "adamm", "Did you mean"),
    ("%lepton train TumorNet --data wdbc --loss CrosEntropyLoss", "CrosEntropyLoss", "Did you mean"),
    ("%lepton train TumorNet --data wdbc -p hiden=3", "hiden", "hidden"),
    ("%lepton train TumrNet --data wdbc", "TumrNet", "Did you mean 'TumorNet'"),
    ("%lepton train Needy --data wdbc", "width", "-p width="),
    ("%lepton evaluate TumorNt", "TumorNt", "Known"),
    ("%lepton evaluate TumorNet --data wdbc:tset", "tset", "Did you mean 'test'"),
    ('%lepton evaluate TumorNet --require "roc_acu > 0.9"', "roc_acu", "Did you mean 'roc_auc'"),
    ('%lepton evaluate TumorNet --require "roc_auc', "quot", ""),
    ("%lepton show ffffff", "ffffff", "No"),
    ("%lepton export TumorNet --to image --format ocy", "ocy", "Did you mean 'oci'"),
    ("%lepton export TumorNet --to image --base nowhere", "nowhere", "--base takes an OCI layout"),
    ("%lepton export TumorNet --to image --format kserve", "--image", "push it"),
    ("%lepton export TumorNet --to .", "holds what no export wrote", "Name a folder that is not there yet"),
    ("%lepton export TumorNt --to image", "TumorNt", "Known"),
    ("%lepton data x missing.csv --target y", "missing.csv", ""),
    ("%lepton data x breast_cancer.csv --target diagnos", "diagnos", "Did you mean 'diagnosis'"),
    ("%lepton data x {empty} --target y", "empty.csv", "empty"),
    ("%lepton data x {one_column} --target y", "one_column.csv", "one column"),
    ("%lepton data x {malformed} --target y", "malformed.csv", ""),
    ("%lepton data x {one_class} --target y", "y", "one class"),
    ("%lepton data x {two_rows} --target y", "two rows|2 rows", ""),
]

CLASSES = """
import threading
lock = threading.Lock()
numbers = (i for i in range(3))
class Needy(TumorNet):
    def __init__(self, n_features, n_outputs, width):
        super().__init__(n_features, n_outputs)
class Locked(TumorNet):
    def forward(self, x):
        with lock:
            return super().forward(x)
class Generates(TumorNet):
    def forward(self, x):
        return super().forward(x) + next(numbers)
class Wrong(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_features + 1, n_outputs)
    def forward(self, x):
        return self.linear(x)
class Wide(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.linear = nn.Linear(n_features, 7)
    def forward(self, x):
        return self.linear(x)
class Softmaxed(TumorNet):
    def forward(self, x):
        return super().forward(x).softmax(1)
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Tables that are none."""
    texts = {
        "empty": "",
        "one_column": "y\n" + "a\nb\n" * 20,
        "malformed": 'a,b,y\n1,2,p\n"3,4,q\n5,6,7,8,9\n',
        "one_class": "a,b,y\n" + "1,2,p\n" * 30,
        "two_rows": "a,b,y\n1,2,p\n3,4,q\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return {name: tmp_path / f"{name}.csv" for name in texts}


def _say(notebook: Notebook, cell: str) -> str:
    with pytest.raises(CellError) as error:
        notebook.run(cell)
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error.value))


def test_nonsense_is_named_with_what_is_known_in_notebook_and_shell_and_changes_nothing(
    with_data: Notebook, files: dict[str, Path], home: Home, client: Any
) -> None:
    with_data.run("%lepton train TumorNet --data wdbc --epochs 2")
    with_data.run(CLASSES)
    n_models = len(client().models())
    datasets = sorted(home.datasets.rglob("dataset.json"))
    for line, value, known in NONSENSE:
        for name, path in files.items():
            line = line.replace(f"{{{name}}}", str(path))
        said = _say(with_data, line)
        assert re.search(value, said), (line, said)
        assert known in said, (line, said)
        assert "Traceback" not in said, (line, said)
    assert len(client().models()) == n_models
    assert sorted(home.datasets.rglob("dataset.json")) == datasets
    assert [run.kind for run in client().runs()] == ["train"]
    _says_the_same_in_the_shell()


def _says_the_same_in_the_shell() -> None:
    def shell(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["jupyter-lepton", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            check=False,
        )

    assert shell("evaluate", "TumorNet", "--require", "roc_auc >= 0.5").returncode == 0
    assert shell("evaluate", "TumorNet", "--require", "roc_auc >= 0.99999").returncode in (1, 3)
    assert shell("evaluate", "TumorNet", "--require", "accuracy <= 0.2").returncode == 1
    wrong = shell("evalute", "TumorNet")
    assert wrong.returncode == 2
    assert "Did you mean 'evaluate'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "TumorNet" in shell("runs").stdout


def test_what_cannot_travel_is_named_with_its_variable_before_anything_starts(with_data: Notebook, home: Home) -> None:
    with_data.run(CLASSES)
    before = sorted(home.runs.iterdir())
    assert re.search(r"'?lock'?", _say(with_data, "%lepton train Locked --data wdbc"))
    assert "numbers" in _say(with_data, "%lepton train Generates --data wdbc")
    with_data.run("import numpy as np; huge = np.empty(2**31, dtype=np.uint8)")
    with_data.run(
        "class Huge(TumorNet):\n    def forward(self, x):\n        return super().forward(x) + float(huge[0])"
    )
    assert "huge" in _say(with_data, "%lepton train Huge --data wdbc")
    assert sorted(home.runs.iterdir()) == before


def test_a_model_that_cannot_learn_says_where_in_the_users_cell(with_data: Notebook) -> None:
    with_data.run(CLASSES)
    said = _say(with_data, "%lepton train Wrong --data wdbc --epochs 2")
    assert "return self.linear(x)" in said
    assert "Cell In[" in said
    said = _say(with_data, "%lepton train Wide --data wdbc --epochs 2")
    assert "7" in said and "2" in said
    said = _say(with_data, "%lepton train Softmaxed --data wdbc --epochs 2")
    assert "softmax" in said.lower()
    said = _say(with_data, "%lepton train TumorNet --data wdbc --loss BCELoss --epochs 2")
    assert "BCEWithLogitsLoss" in said or "CrossEntropyLoss" in said
    said = _say(with_data, "%lepton train TumorNet --data wdbc --optimizer sgd --lr 1e30 --epochs 5")
    assert re.search(r"(?i)nan|finite", said)
    assert re.search(r"(?i)step|epoch", said)


def test_a_kernel_killed_by_the_system_says_so(with_data: Notebook) -> None:
    with_data.run("""
import os, signal
class Dies(TumorNet):
    def forward(self, x):
        if self.training:
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
""")
    said = _say(with_data, "%lepton train Dies --data wdbc --epochs 2")
    assert "killed" in said


def test_a_full_disk_does_not_stop_training_and_fails_the_run_with_the_path(
    with_data: Notebook, home: Home, client: Any
) -> None:
    shutil.rmtree(home.runs)  # and a model of 2.5 MB, which the reserved room does not hold
    home.runs.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(home.runs)], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a tmpfs here")
    try:
        with_data.run("""
class Fills(TumorNet):
    def forward(self, x):
        import os
        path = os.path.join(os.environ["LEPTON_HOME"], "runs", "filler")
        if self.training and not os.path.exists(path):
            try:
                with open(path, "wb") as file:
                    while file.write(b"0" * 4096):
                        file.flush()
            except OSError:
                pass
        return super().forward(x)
""")
        said = _say(with_data, "%lepton train Fills --data wdbc --epochs 3 -p hidden=20000")
        assert "no space left" in said.lower()
        run = client().runs(kind="train")[0]
        assert run.state == "failed"
    finally:
        from lepton_jupyter.client.shutdown import shut_down

        shut_down(home)
        subprocess.run(["umount", "-l", str(home.runs)], check=True)


@pytest.fixture
def endpoint(with_data: Notebook, home: Home) -> Callable[..., tuple[int, Any]]:
    """A deployed model; returns a function that posts a body and gives status and answer."""
    with_data.run("%lepton train TumorNet --data wdbc --epochs 2")
    with_data.run("%lepton deploy TumorNet --as diagnosis")
    port = json.loads(home.endpoint("diagnosis").status.read_bytes())["port"]
    token = home.endpoint("diagnosis").token.read_text().strip()

    def post(body: bytes, *, bearer: str | None = token, path: str = "/predict") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        try:
            connection.request("POST", path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it was all sent: the answer is there to be read
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")

    return post


def test_an_endpoint_answers_bad_requests_with_the_reason_and_a_port_in_use_is_named(
    with_data: Notebook, endpoint: Callable[..., tuple[int, Any]]
) -> None:
    with (EXAMPLES / "breast_cancer.csv").open() as file:
        names = file.readline().strip().split(",")
        values = file.readline().strip().split(",")
    row = {n: float(v) for n, v in zip(names, values, strict=True) if n != "diagnosis"}
    rows = {"rows": [row]}
    assert endpoint(json.dumps(rows).encode())[0] == 200
    first = next(iter(row))
    without = {name: value for name, value in row.items() if name != first}
    status, said = endpoint(json.dumps({"rows": [row, without]}).encode())
    assert status == 422 and first in str(said)
    status, said = endpoint(json.dumps({"rows": [{**row, "mean_radus": 1.0}]}).encode())
    assert status == 422 and "mean_radus" in str(said)
    status, said = endpoint(json.dumps({"rows": [{**row, first: "wide"}]}).encode())
    assert status == 422 and "wide" in str(said) and first in str(said)
    assert endpoint(b'{"rows": [')[0] == 400
    assert endpoint(json.dumps({"rows": [{**row, first: float("nan")}]}).encode())[0] == 400
    assert endpoint(b" " * (64 * 2**20 + 1))[0] == 413
    assert endpoint(json.dumps(rows).encode(), bearer=None)[0] == 401
    assert endpoint(json.dumps(rows).encode(), bearer="wrong")[0] == 401
    many = [row] * (10 * 2**20 // len(json.dumps(row)))
    status, said = endpoint(json.dumps({"rows": many}).encode())
    assert status == 200
    assert endpoint(json.dumps({"rows": [{**row, "diagnosis": "M"}]}).encode())[0] == 200

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = _say(with_data, f"%lepton deploy TumorNet --as other --port {port}")
        assert str(port) in message and "in use" in message
