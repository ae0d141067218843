"""Run the quickstart by papermill, in a kernel and a LEPTON_HOME of its own, and say in ten lines what happened."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
DEMO = EXAMPLES.parent / ".demo"


def main() -> int:
    """Execute, report, and leave no process behind. Returns 0, or 1 where a cell failed."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    os.environ["LEPTON_HOME"] = str(DEMO / "home")

    import lepton_jupyter as lepton
    from lepton_jupyter.client.shutdown import shut_down
    from lepton_jupyter.core.paths import Home

    executed = DEMO / "00_quickstart.ipynb"
    print("Running example_notebooks/00_quickstart.ipynb: data, train, evaluate, predict, deploy …", flush=True)
    started = time.monotonic()
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # its progress: the ten lines below say it shorter
            lepton.run(str(EXAMPLES / "00_quickstart.ipynb"), to=str(executed))
        dataset, version, endpoint = lepton.datasets()[0], lepton.models()[0], lepton.endpoints()[0]
        run = next(run for run in lepton.runs() if run.kind == "train")
        print(f"data      {dataset.ref}: {dataset.record.n_rows} rows, {len(dataset.record.schema.columns)} features")
        print(f"train     run {run.run_id}: {run.state}, val_loss {run.metrics['val_loss']:.3f}")
        print(f"evaluate  {version.ref}: {version.verdict}, roc_auc {version.evaluation['metrics']['roc_auc']:.3f}")
        print(f"deploy    {endpoint.url} served {endpoint.version} ({endpoint.state})")
    except lepton.LeptonError as error:
        print(f"It failed:\n{error}")
        return 1
    finally:
        shut_down(Home.current())
    print(f"Took {time.monotonic() - started:.0f} s; everything it started has been stopped.")
    print(f"The executed notebook: {executed}")
    print("Next: make lab opens JupyterLab on the examples.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
