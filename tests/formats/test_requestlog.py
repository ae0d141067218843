"""The request log keeps whole frames and passes over the rest."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from lepton_jupyter.formats.packing import Packed, pack_rows
from lepton_jupyter.formats.requestlog import (
    LoggedRequest,
    SegmentWriter,
    is_closed,
    is_sampled,
    logged_pixels,
    read_segment,
    segments,
)
from lepton_jupyter.formats.retention import RECORD, Keep, count_segment, remove, removed, surplus
from lepton_jupyter.formats.schema import Column, Schema

SCHEMA = Schema(columns=(Column(name="a", kind="number"), Column(name="b", kind="string")))


def record(number: int) -> LoggedRequest:
    rows = pack_rows(SCHEMA, [{"a": number, "b": None}, {"a": None, "b": "LPRQ"}])
    return LoggedRequest.of_rows(rows, request_id=f"r{number}", at=1.0, version="Net@1", latency_ms=0.5, ids=["x", 2])


def read_all(folder: Path) -> list[str]:
    return [found.request_id for path in segments(folder) for _, found in read_segment(path)]


def write(folder: Path, count: int) -> SegmentWriter:
    writer = SegmentWriter(folder)
    assert all(writer.write(record(number)) for number in range(count))
    writer.close()
    return writer


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, 1)
    ((_, found),) = read_segment(segments(tmp_path)[0])
    assert found == record(0)
    np.testing.assert_array_equal(np.frombuffer(found.num, "<f8"), [0.0, np.nan])
    assert found.txt == [[None], ["LPRQ"]]
    assert segments(tmp_path)[0].stat().st_mode & 0o777 == 0o600


def test_of_images_those_of_one_size_are_kept_or_not_however_many_they_are() -> None:
    for n_rows in (0, 1, 3):
        assert logged_pixels(np.zeros((n_rows, 3, 8, 8), np.uint8)).shape == (n_rows, 3, 8, 8)
        assert logged_pixels(np.zeros((n_rows, 3, 200, 200), np.uint8)).shape == (n_rows, 0)


def test_a_reader_goes_on_at_its_offset(tmp_path: Path) -> None:
    write(tmp_path, 3)
    offsets = [offset for offset, _ in read_segment(segments(tmp_path)[0])]
    assert [found.request_id for _, found in read_segment(segments(tmp_path)[0], offsets[1])] == ["r2"]


def test_a_torn_tail_is_passed_over_and_a_new_writer_begins_behind_it(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    write(tmp_path, 1)
    assert read_all(tmp_path) == ["r0", "r1", "r0"]


@pytest.mark.parametrize("place", [2, 6, 20])
def test_damage_in_the_middle_costs_one_frame(tmp_path: Path, place: int) -> None:
    write(tmp_path, 3)
    (path,) = segments(tmp_path)
    first, _, _ = (offset for offset, _ in read_segment(path))
    content = bytearray(path.read_bytes())
    content[first + place] ^= 0xFF
    path.write_bytes(content)
    assert read_all(tmp_path) == ["r0", "r2"]


def test_segments_turn_by_size_and_by_age(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=400)
    for number in range(30):
        assert writer.write(record(number))
    writer.close_old()
    assert not is_closed(segments(tmp_path)[-1])
    writer.close()
    assert all(path.stat().st_size <= 400 for path in segments(tmp_path))
    assert read_all(tmp_path) == [f"r{number}" for number in range(30)]
    quick = SegmentWriter(tmp_path, segment_s=0.0)
    assert quick.write(record(30))
    quick.close_old()
    assert is_closed(segments(tmp_path)[-1])


def test_what_is_too_much_or_too_old_is_removed_and_counted_unless_somebody_writes_it(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, number + 1)
        os.utime(segments(tmp_path)[-1], (1e9 + number, 1e9 + number))
    sizes = [path.stat().st_size for path in segments(tmp_path)]
    keep = Keep(age_s=1e12, size_bytes=sum(sizes[2:]) + 10)
    gone = surplus(segments(tmp_path), keep, room=10)
    assert gone == segments(tmp_path)[:2]
    assert surplus(segments(tmp_path), Keep(age_s=10.0), now=1e9 + 11.5) == gone
    remove(gone, tmp_path / RECORD, count_segment)
    assert (removed(tmp_path).n_requests, removed(tmp_path).n_rows) == (3, 6)
    assert removed(tmp_path).size_bytes == sum(sizes[:2]) and removed(tmp_path).until == 1e9 + 1
    writer = SegmentWriter(tmp_path)
    assert writer.write(record(0))
    assert len(surplus(segments(tmp_path), Keep(age_s=-1e9))) == 2  # not the one that is written
    writer.close()


def test_a_share_is_of_requests_and_the_same_everywhere() -> None:
    ids = [f"{number:08x}" for number in range(20_000)]
    few, more = ({each for each in ids if is_sampled(each, share)} for share in (0.1, 0.3))
    assert few < more
    assert len(few) == pytest.approx(2_000, abs=200) and len(more) == pytest.approx(6_000, abs=300)


def test_a_full_disk_loses_frames_and_says_so(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write ends short in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = SegmentWriter(tmp_path)
    try:
        assert writer.write(record(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (segments(tmp_path)[0].stat().st_size + 10, before[1]))
        assert not writer.write(record(1))
        assert writer.n_lost == 1 and writer.last_error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert writer.write(record(2))
    writer.close()
    assert read_all(tmp_path) == ["r0", "r2"]


def test_rows_of_a_model_of_tensors_are_kept_as_float32() -> None:
    found = LoggedRequest.of_rows(np.ones((2, 3), np.float32), request_id="r", at=0.0, version="v", latency_ms=0.0)
    assert found.n_rows == 2 and np.frombuffer(found.tensor, "<f4").tolist() == [1.0] * 6
    empty = Packed(np.empty((0, 1)), np.empty((0, 1), object))
    assert LoggedRequest.of_rows(empty, request_id="r", at=0.0, version="v", latency_ms=0.0).n_rows == 0
