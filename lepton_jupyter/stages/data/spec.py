"""The verbs of data: ``data``, ``datasets``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from lepton_jupyter.stages.verbs import Help, Verb


class DataFlags(Verb, kw_only=True, frozen=True):
    """What shapes a version of a dataset; ``train`` takes these too where its data is a variable."""

    target: Annotated[tuple[str, ...], Help("column to predict; repeat it for several")] = ()
    positive: Annotated[str | None, Help("the label that counts as positive in a binary task")] = None
    id: Annotated[str | None, Help("column that names a row; never a feature")] = None
    split: Annotated[str, Help("shares of train, validation and test, or 'none'")] = "0.6,0.2,0.2"
    group: Annotated[str | None, Help("column whose equal values stay in one split")] = None
    time: Annotated[str | None, Help("column by which the rows are split in order")] = None
    text: Annotated[tuple[str, ...], Help("column of prose, for a model whose forward names tokens; repeat it")] = ()
    ignore: Annotated[tuple[str, ...], Help("column that is no feature; repeat it for several")] = ()
    personal: Annotated[
        tuple[str, ...], Help("column of personal data: endpoints' logs are spared its values; repeat it for several")
    ] = ()
    seed: Annotated[int, Help("seed of the split", ge=0)] = 0


class Data(DataFlags, kw_only=True, frozen=True):
    """Make a version of a dataset: read, profile, check, split."""

    verb: ClassVar[str] = "data"
    does: ClassVar[str] = (
        "Make a version of a dataset from a file, a folder of images or a variable: profile, findings, recorded splits."
    )
    positional: ClassVar[tuple[str, ...]] = ("name", "source")
    examples: ClassVar[tuple[str, ...]] = (
        "data wdbc breast_cancer.csv --target diagnosis",
        "data churn 'exports/*.parquet' --target left --id customer --split 0.7,0.1,0.2",
        "data leaves photos/ --image-size 96",
    )

    name: Annotated[str, Help("name of the dataset")]
    source: Annotated[
        str,
        Help(
            "path or glob (CSV, Parquet, Arrow, JSONL), a folder with a subfolder of JPEG or PNG files for each class, "
            "or a variable of the notebook"
        ),
    ]
    image_size: Annotated[
        str | None,
        Help("of a folder: pixels that the model sees, H or HxW; else the files' own where equal and small, or 64"),
    ] = None


class Datasets(Verb, kw_only=True, frozen=True):
    """List datasets, newest first."""

    verb: ClassVar[str] = "datasets"
    does: ClassVar[str] = "List datasets with their versions, rows and findings."
    examples: ClassVar[tuple[str, ...]] = ("datasets",)
