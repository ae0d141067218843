"""Sessions and datasets as training's own tests have them."""

from __future__ import annotations

from tests.stages.train.conftest import make_dataset as make_dataset
from tests.stages.train.conftest import new_session as new_session
from tests.stages.train.conftest import session as session
from tests.stages.train.conftest import two_blobs as two_blobs
from tests.stages.train.conftest import wdbc as wdbc
