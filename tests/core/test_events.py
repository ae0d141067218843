"""Event files: appended, followed, repaired, never raising."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lepton_jupyter.formats.events import EventReader, EventWriter


def test_a_torn_last_line_is_cut_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind":"metric","step":1}\n{"kind":"met')
    EventWriter(path).write("metric", step=2)
    steps = [event["step"] for _, event in EventReader(path).read()]
    assert steps == [1, 2]


def test_a_reader_goes_on_from_its_offset(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e")
    writer.write("metric", step=1)
    reader = EventReader(tmp_path / "e")
    ((offset, _),) = list(reader.read())
    writer.write("metric", step=2)
    assert [event["step"] for _, event in EventReader(tmp_path / "e", offset).read()] == [2]
    assert next(reader.read())[1]["step"] == 2


def test_a_failed_write_is_counted_and_named_and_does_not_raise(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from lepton_jupyter.formats.events import EventWriter
writer = EventWriter(Path({str(tmp_path / "e")!r}))
writer.write("note", key="a")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for _ in range(5): writer.write("note", key="b" * 50)
print(writer.n_lost, writer.last_error)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split(None, 1)[0] in {"4", "5"}
    events = [event for _, event in EventReader(tmp_path / "e").read()]
    assert events[0]["key"] == "a"
