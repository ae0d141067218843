"""The loop without a hand: traffic shifts, an alert fires and is delivered, a retrain decides, the endpoint follows."""

from __future__ import annotations

import csv
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, NET, Notebook
from tests.life.mailbox import Mailbox
from tests.life.webhook import Webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

N_NEW = 1500
NEW_SHARE = 0.7  # of the traffic, once a new clinic sends its patients too
SCALE = 2.2  # its microscope measures larger nuclei: the old model takes a quarter of them for what they are not
ROWS_A_REQUEST = 120
WAIT_S = 240


class Clinic:
    """Rows as two clinics send them: the old one's are wdbc with a little noise, the new one's are measured larger."""

    def __init__(self, seed: int = 0) -> None:
        with (EXAMPLES / "breast_cancer.csv").open() as file:
            self.columns, *rows = list(csv.reader(file))
        self.features = self.columns[:-1]
        self.values = np.array([[float(value) for value in row[:-1]] for row in rows])
        self.labels = [row[-1] for row in rows]
        self._random = np.random.default_rng(seed)

    def draw(self, n_rows: int, *, is_new: bool) -> tuple[np.ndarray, list[str]]:
        """Return `n_rows` rows and their labels."""
        places = self._random.integers(0, len(self.values), n_rows)
        noise = self._random.normal(1.0, 0.02, (n_rows, len(self.features)))
        values = self.values[places] * noise
        if is_new:
            values[:, :10] *= SCALE
        return values, [self.labels[place] for place in places]

    def append(self, path: Path, n_rows: int, *, is_truthful: bool) -> None:
        """Append labelled rows of the new clinic to a file."""
        values, labels = self.draw(n_rows, is_new=True)
        if not is_truthful:
            self._random.shuffle(labels)
        with path.open("a", newline="") as file:
            csv.writer(file).writerows([*row, label] for row, label in zip(values.tolist(), labels, strict=True))


class Traffic(threading.Thread):
    """Requests to an endpoint, one after the other, until it is ended."""

    def __init__(self, home: Home, name: str) -> None:
        super().__init__(daemon=True)
        self.clinic = Clinic(seed=1)
        self.new_share = 0.0
        self.n_failed = 0
        self._home, self._name = home, name
        self._url = Client(home).endpoint(name).url
        self._is_over = threading.Event()

    def run(self) -> None:
        token = self._home.endpoint(self._name).token.read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while not self._is_over.wait(0.2):
            n_new = round(ROWS_A_REQUEST * self.new_share)
            rows = np.vstack(
                [self.clinic.draw(n, is_new=new)[0] for n, new in ((n_new, True), (ROWS_A_REQUEST - n_new, False))]
            )
            self.clinic._random.shuffle(rows)
            body = {"rows": [dict(zip(self.clinic.features, row, strict=True)) for row in rows.tolist()]}
            request = urllib.request.Request(f"{self._url}/predict", json.dumps(body).encode(), headers)
            try:
                urllib.request.urlopen(request, timeout=10).read()
            except OSError:
                self.n_failed += 1

    def end(self) -> None:
        """Send no more."""
        self._is_over.set()
        self.join()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A server that takes JSON; yields it with what it was told."""
    with Webhook() as hook:
        yield hook


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """An SMTP server; yields it with the messages that it took."""
    with Mailbox() as box:
        yield box


Wait = Callable[..., Any]


def _serve_and_watch(notebook: Notebook, folder: Path) -> None:
    """Do what a person does once, in cells; everything after is done by nobody."""
    notebook.run(f"import os; os.chdir({str(folder)!r})")
    notebook.run("%lepton data clinic clinic.csv --target diagnosis")
    notebook.run(NET)
    notebook.run("%lepton train TumorNet --data clinic --epochs 25 --lr 1e-2")
    assert "PASS" in notebook.run('%lepton evaluate TumorNet --require "accuracy >= 0.8"')
    notebook.run("%lepton deploy TumorNet@champion --as diagnosis")


@pytest.mark.parametrize("is_truthful", [True, False], ids=["better", "worse"])
def test_drift_is_told_retrained_and_resolved_without_a_hand(
    new_notebook: Callable[..., Notebook],
    home: Home,
    tmp_path: Path,
    webhook: Webhook,
    mailbox: Mailbox,
    eventually: Wait,
    monkeypatch: pytest.MonkeyPatch,
    is_truthful: bool,
) -> None:
    told = webhook.told
    monkeypatch.setenv("OPS_WEBHOOK", webhook.url)
    monkeypatch.setenv("OPS_MAIL", f"mailto://127.0.0.1:{mailbox.port}?from=lepton@example.org&to=ops@example.org")
    folder = tmp_path / "work"
    folder.mkdir()
    source = folder / "clinic.csv"
    source.write_bytes((EXAMPLES / "breast_cancer.csv").read_bytes())
    notebook = new_notebook(folder)
    _serve_and_watch(notebook, folder)
    client = Client.connect(home)
    traffic = Traffic(home, "diagnosis")
    traffic.start()
    try:
        notebook.run(
            '%lepton monitor diagnosis --every 4s --alert "psi > 0.2" --notify env:OPS_WEBHOOK --notify env:OPS_MAIL '
            "--on-alert retrain"
        )
        first = eventually(lambda: _ended(client, "monitor"), timeout_s=WAIT_S, what="a first report")
        assert [run.result["verdict"] for run in first] == ["OK"] * len(first)
        assert client.alerts() == []

        Clinic(seed=2).append(source, N_NEW, is_truthful=is_truthful)
        traffic.new_share = NEW_SHARE
        notebook.kill()  # from here on nobody is there

        alert = eventually(lambda: next(iter(client.alerts()), None), timeout_s=WAIT_S, what="an alert")
        eventually(
            lambda: any(change.what == "firing" for change in client.alerts()[0].history), timeout_s=WAIT_S, what="fire"
        )
        eventually(lambda: any("FIRING" in json.dumps(each) for each in told), timeout_s=60, what="the webhook")
        mail = eventually(lambda: next((m for m in mailbox.messages if "FIRING" in m["subject"]), None), timeout_s=60)
        assert "psi" in mail["subject"]
        retrain = eventually(lambda: _ended(client, "retrain"), timeout_s=WAIT_S, what="the retrain")[0]
        assert retrain.state == "completed", retrain.error
        history = [change.what for change in client.alerts()[0].history]
        assert history[:2] == ["pending", "firing"]

        journal = "\n".join(entry.text for entry in client.journal("TumorNet"))
        if is_truthful:
            assert retrain.result["decision"] == "promote", retrain.result
            assert client.endpoint("diagnosis").version == "TumorNet@2"
            eventually(
                lambda: all(each.state == "resolved" for each in client.alerts()), timeout_s=WAIT_S, what="resolved"
            )
            eventually(lambda: any("RESOLVED" in json.dumps(each) for each in told), timeout_s=60, what="the webhook")
            assert "TumorNet@2" in journal
        else:
            assert retrain.result["decision"] == "keep", retrain.result
            assert client.endpoint("diagnosis").version == "TumorNet@1"
            assert client.alerts()[0].state == "firing"
            assert retrain.result["reason"] in journal
        assert alert.schedule == "monitor-diagnosis"
        assert traffic.n_failed == 0
    finally:
        traffic.end()


def _ended(client: Client, kind: str) -> list[Any]:
    return [run for run in client.runs(kind) if run.ended_at is not None]
