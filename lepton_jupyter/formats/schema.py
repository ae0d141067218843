"""The columns of a table, as training saw them and as a request must bring them."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct, field

from lepton_jupyter.core.states import Task

ColumnKind = Literal["number", "integer", "boolean", "datetime", "string", "text"]

ROWS_AT_ONCE = 8192  # bounds the memory of what lies between a graph's nodes
PIXELS_AT_ONCE = 2**21
TOKENS_AT_ONCE = 2**16  # attention takes memory by tokens times tokens

SENTINEL = "\u2400missing"  # what a missing string travels as; data that contains it is refused


class Column(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature column.

    Attributes
    ----------
    name : str
    kind : ColumnKind
        ``number``, ``integer``, ``boolean`` (0/1) and ``datetime`` (seconds since 1970, UTC) travel as float64 with
        null as NaN; ``string`` (a category) and ``text`` (prose, which a tokenizer reads) with null as `SENTINEL`.
    has_missing : bool
        Whether the data had missing values when the dataset was made. A request may always leave a value out.
    categories : tuple of str
        Of a string column: the values seen in the training split, sorted. Others count as unseen.
    minimum, maximum : float or None
        Range in the training split.
    """

    name: str
    kind: ColumnKind
    has_missing: bool = False
    categories: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def is_text(self) -> bool:
        """Whether it travels in `txt`; the others in `num`."""
        return self.kind in ("string", "text")


class ImageInput(Struct, frozen=True, kw_only=True):
    """How encoded images become the rows of a model: see `formats.pixels.decode`.

    Attributes
    ----------
    height, width : int
        Pixels that the model sees; an image of another size is stretched to it.
    channels : int
        1: grey; 3: red, green, blue.
    resize : str
        How it is stretched.
    """

    height: int
    width: int
    channels: int
    resize: Literal["bilinear"] = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row: [channels, height, width]."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'grey' if self.channels == 1 else 'RGB'}"


class Schema(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes into a model and what comes out.

    Attributes
    ----------
    columns : tuple of Column
        The features in the table's order. ``num`` holds the non-text ones in this order, ``txt`` the text ones.
    targets : tuple of str
        Names of the target columns; empty where none is known.
    task : Task or None
    classes : tuple of str
        Of a classification: the labels as text, in the order of the probabilities.
    class_kind : ColumnKind
        How labels are given back: ``string``, ``integer`` or ``boolean``.
    positive : str or None
        Of a binary task: the label that counts as positive.
    threshold : float
        Of a binary task: the positive class is predicted where its probability is at least this.
    id_column : str or None
        The column that names a row.
    dropped : tuple of str
        Columns that a request may bring and that are not used (target, id, ignored).
    example : dict
        One real-looking row (medians and most frequent values), for the curl line.
    tensor_shape : tuple of int or None
        For a model of tensors: the shape of one row; `columns` is then empty and the graph's input is ``tensor``.
    image : ImageInput or None
        For a model of images: how files become rows. `tensor_shape` is then theirs, and ``tensor`` uint8, 0 to 255.
    max_tokens : int or None
        Of a model that reads ``text`` columns: tokens of each; the bundle's tokenizer makes them.
    personal : tuple of str
        Columns, or the id column, whose values are personal: an endpoint's log is spared them. ``tensor`` stands for
        the rows of a model of tensors.
    """

    columns: tuple[Column, ...]
    targets: tuple[str, ...] = ()
    task: Task | None = None
    classes: tuple[str, ...] = ()
    class_kind: ColumnKind = "string"
    positive: str | None = None
    threshold: float = 0.5
    id_column: str | None = None
    dropped: tuple[str, ...] = ()
    example: dict[str, str | float | int | bool | None] = field(default_factory=dict)
    tensor_shape: tuple[int, ...] | None = None
    image: ImageInput | None = None
    max_tokens: int | None = None
    personal: tuple[str, ...] = ()

    @property
    def rows_at_once(self) -> int:
        """How many rows go through a model at once: of images and prose fewer, for a network makes much of each."""
        if self.image is not None:
            return max(1, min(ROWS_AT_ONCE, PIXELS_AT_ONCE // math.prod(self.image.shape)))
        n_tokens = len(self.prose) * (self.max_tokens or 0)
        return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // n_tokens)) if n_tokens else ROWS_AT_ONCE

    @property
    def num(self) -> tuple[Column, ...]:
        """Columns of the graph's input ``num``."""
        return tuple(column for column in self.columns if not column.is_text)

    @property
    def txt(self) -> tuple[Column, ...]:
        """Columns of packed ``txt``. Those that are categories are the graph's input ``txt``."""
        return tuple(column for column in self.columns if column.is_text)

    @property
    def categorical(self) -> tuple[Column, ...]:
        """Columns of `txt` that hold categories."""
        return tuple(column for column in self.columns if column.kind == "string")

    @property
    def prose(self) -> tuple[Column, ...]:
        """Columns of `txt` that a tokenizer reads: the graph's input ``tokens`` is int64 [N, len(prose), T]."""
        return tuple(column for column in self.columns if column.kind == "text")

    def differences(self, other: Schema) -> list[str]:
        """Return what keeps the other one from answering the same requests in the same words; nothing where it can.

        Examples
        --------
        >>> ours = Schema(columns=(Column(name="age", kind="number"), Column(name="sex", kind="string")))
        >>> ours.differences(Schema(columns=(Column(name="age", kind="string"), Column(name="bmi", kind="number"))))
        ["column 'age' is number, then string", "column 'sex' is gone", "column 'bmi' is new"]
        """
        ours, theirs = ({column.name: column.kind for column in one.columns} for one in (self, other))
        found = []
        for name, kind in ours.items():
            if name not in theirs:
                found.append(f"column '{name}' is gone")
            elif theirs[name] != kind:
                found.append(f"column '{name}' is {kind}, then {theirs[name]}")
        found += [f"column '{name}' is new" for name in theirs if name not in ours]
        known = {*theirs, *other.dropped, other.id_column, None}
        passed_over = [name for name in (*self.dropped, self.id_column) if name not in known]
        found += [f"column '{name}' is passed over, then not known" for name in dict.fromkeys(passed_over)]
        for word in ("task", "targets", "classes", "class_kind", "positive", "tensor_shape", "image"):
            before, after = getattr(self, word), getattr(other, word)
            if before != after:
                found.append(f"{word.replace('_', ' ')}: {_shown(before)}, then {_shown(after)}")
        return found

    @property
    def positive_index(self) -> int:
        """Place of the positive class among `classes`; the last one where none is named."""
        return self.classes.index(self.positive) if self.positive is not None else len(self.classes) - 1


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) and value else str(value or "none")
