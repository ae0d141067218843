"""Datasets of image files in folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.refresh import refresh
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store
from lepton_jupyter.stages.data.thumbnails import strips
from tests.pictures import write_digits, write_shapes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a home without processes."""
    return Store(Home(tmp_path / "home").make())


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes")


def _add(store: Store, source: Path, **flags: Any) -> tuple[DatasetRecord, bool, Dataset]:
    record, is_new = add(store.home, Data(name="d", source=str(source), **flags))
    return record, is_new, store.open("d")


def _found(record: DatasetRecord, check: str) -> str:
    return next((finding.text for finding in record.findings if finding.check == check), "")


def test_a_subfolder_is_a_class_and_a_file_is_a_row(store: Store, tmp_path: Path) -> None:
    record, is_new, dataset = _add(store, write_digits(tmp_path / "digits"))
    assert is_new and record.n_rows == 360 and record.class_counts == {"n0": 120, "n1": 120, "n2": 120}
    schema = record.schema
    assert (schema.task, schema.targets, schema.id_column) == ("multiclass", ("class",), "path")
    assert schema.tensor_shape == (1, 8, 8) and str(schema.image) == "8x8 grey" and not schema.columns
    assert record.split_how == "stratified" and sum(record.split_rows.values()) == 360
    table = dataset.table("test")
    assert table.columns == ["path", "class", "sha256", "width", "height", "mode", "size_bytes"]
    pixels = dataset.tensors("test")
    assert pixels.shape == (table.height, 1, 8, 8) and pixels.dtype == np.uint8
    place = table["path"].to_list().index(next(path for path in table["path"] if path.endswith(".png")))
    file = Image.open(tmp_path / "digits" / table["path"][place])
    assert np.array_equal(pixels[place, 0], np.asarray(file))
    assert np.array_equal(dataset.tensors("test", np.array([2, 5])), pixels[[2, 5]])


def test_files_of_several_sizes_are_seen_at_one_and_it_is_said(store: Store, shapes: Path) -> None:
    record, _, dataset = _add(store, shapes)
    assert str(record.schema.image) == "64x64 RGB"
    assert "2 sizes, 40x30 to 60x60" in _found(record, "image_size")
    assert "--image-size" in _found(record, "image_size")
    assert dataset.tensors("train").shape[1:] == (3, 64, 64)
    record, is_new, dataset = _add(store, shapes, image_size="20x32")
    assert is_new and record.version == 2 and dataset.tensors("test").shape[1:] == (3, 20, 32)


def test_the_same_files_and_flags_make_nothing_new(store: Store, shapes: Path) -> None:
    assert _add(store, shapes)[1]
    record, is_new, _ = _add(store, shapes)
    assert not is_new and record.version == 1
    assert not refresh(store.home, record, folder=Path("/"))[1]


def test_known_files_are_not_decoded_again(store: Store, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lepton_jupyter.formats import pixels

    _add(store, shapes)
    seen: list[int] = []
    real = pixels.inspect

    def counted(content: bytes) -> Any:
        seen.append(len(content))
        return real(content)

    monkeypatch.setattr(pixels, "inspect", counted)
    assert not _add(store, shapes)[1] and not seen
    Image.new("RGB", (9, 9)).save(shapes / "circle" / "more.png")
    assert _add(store, shapes)[1] and len(seen) == 1


def test_a_new_version_keeps_known_files_in_their_split_wherever_they_lie(store: Store, shapes: Path) -> None:
    _, _, before = _add(store, shapes)
    split_of = dict(zip(before.table()["sha256"], before.places().tolist(), strict=True))
    (shapes / "circle" / "0.png").rename(shapes / "circle" / "moved.png")
    for place in range(10):
        Image.new("RGB", (50, 50), (place, 0, 200)).save(shapes / "square" / f"new{place}.png")
    record, _, after = _add(store, shapes)
    assert record.version == 2 and record.n_new_rows == 10
    for digest, place in zip(after.table()["sha256"], after.places().tolist(), strict=True):
        assert split_of.get(digest, place) == place


def test_a_changed_or_missing_file_is_named_when_it_is_read(store: Store, shapes: Path) -> None:
    _, _, dataset = _add(store, shapes)
    path = shapes / dataset.table("train")["path"][0]
    kept = path.read_bytes()
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(LeptonError, match=f"{path.name}' is not what it was when dataset d@1 was made"):
        store.open("d").tensors("train")
    path.unlink()
    with pytest.raises(LeptonError, match=f"{path.name}' of dataset d@1 cannot be read: No such file"):
        store.open("d").tensors("train")
    path.write_bytes(kept)
    assert len(store.open("d").tensors("train"))


def test_broken_files_are_left_out_and_named(store: Store, shapes: Path) -> None:
    (shapes / "circle" / "cut.png").write_bytes((shapes / "circle" / "0.png").read_bytes()[:60])
    (shapes / "square" / "text.jpg").write_text("no image")
    (shapes / "square" / "notes.txt").write_text("of no interest")
    (shapes / ".hidden").mkdir()
    record, _, _ = _add(store, shapes)
    assert record.n_rows == 24
    broken = _found(record, "broken_files")
    assert "2 files cannot be decoded" in broken and "circle/cut.png" in broken and "square/text.jpg" in broken
    assert "square/notes.txt" in _found(record, "other_files")
    assert record.findings[0].level == "problem"


def test_doubles_and_contradictions_are_found(store: Store, shapes: Path) -> None:
    shutil.copy(shapes / "circle" / "0.png", shapes / "square" / "wrong.png")
    shutil.copy(shapes / "circle" / "1.png", shapes / "circle" / "again.png")
    record, _, _ = _add(store, shapes)
    assert "circle/0.png and square/wrong.png" in _found(record, "contradiction")
    assert "2 files repeat another" in _found(record, "duplicates")


def test_odd_sizes_and_rare_classes_are_found(store: Store, shapes: Path) -> None:
    Image.new("RGB", (900, 20), "red").save(shapes / "circle" / "banner.png")
    for place in range(3, 12):
        (shapes / "square" / f"{place}.png").unlink()
    record, _, _ = _add(store, shapes, split="none")
    assert "circle/banner.png (900x20)" in _found(record, "odd_sizes")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"target": ("y",)}, "--target y names a column"),
        ({"id": "path"}, "--id names a column"),
        ({"group": "who"}, "--group names a column"),
        ({"image_size": "big"}, "'big' is no size"),
        ({"image_size": "0x9"}, "'0x9' is no size"),
        ({"image_size": "9999"}, "'9999' is no size"),
        ({"positive": "triangle"}, "triangle"),
    ],
)
def test_flags_that_mean_nothing_for_images_are_refused(
    store: Store, shapes: Path, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(LeptonError, match=said):
        _add(store, shapes, **flags)
    assert not store.names()


def test_a_size_of_a_table_is_refused(store: Store) -> None:
    source = Path(__file__).parents[3] / "example_notebooks" / "penguins.csv"
    with pytest.raises(LeptonError, match="--image-size is for a folder of images"):
        _add(store, source, image_size="8")


def test_folders_of_another_kind_are_refused_with_what_is_wanted(store: Store, tmp_path: Path, shapes: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeptonError, match="a folder without images"):
        _add(store, tmp_path / "empty")
    with pytest.raises(LeptonError, match=r"lie in .* itself"):
        _add(store, shapes / "circle")
    (tmp_path / "parted").mkdir()
    shapes.rename(tmp_path / "parted" / "train")
    with pytest.raises(LeptonError, match="those are splits, not classes"):
        _add(store, tmp_path / "parted")


def test_images_that_have_no_room_are_refused_with_what_would_fit(
    store: Store, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, dataset = _add(store, shapes, image_size="1000")
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "100M")
    with pytest.raises(LeptonError, match="smaller --image-size") as error:
        dataset.tensors("train")
    assert "24 images of 1000x1000 RGB" in error.value.message


def test_a_card_has_a_strip_of_small_pictures_a_class(store: Store, shapes: Path) -> None:
    _, _, dataset = _add(store, shapes)
    found = strips(dataset)
    assert list(found) == ["circle", "square"]
    assert all(content.startswith(b"\x89PNG") and len(content) < 10_000 for content in found.values())
    shutil.rmtree(shapes)
    assert strips(dataset) == {}
