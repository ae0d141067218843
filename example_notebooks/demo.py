"""Run the quickstart through papermill in a LEPTON_HOME of its own, and say in ten lines what happened."""

from __future__ import annotations

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

    import papermill  # slow to import: after the folder, so that a wrong folder fails at once
    from lepton_jupyter.client.shutdown import shut_down

    import lepton_jupyter as lepton
    from lepton_jupyter.core.paths import Home

    executed = DEMO / "00_quickstart.ipynb"
    print("Running example_notebooks/00_quickstart.ipynb: data, train, evaluate, predict, deploy …", flush=True)
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            EXAMPLES / "00_quickstart.ipynb", executed, cwd=EXAMPLES, kernel_name="python3", progress_bar=False
        )
        dataset, run, version, endpoint = (
            lepton.datasets()[0], lepton.runs()[-1], lepton.models()[0], lepton.endpoints()[0],
        )  # fmt: skip
        print(f"data      {dataset.ref}: {dataset.record.n_rows} rows, {len(dataset.record.schema.columns)} features")
        print(f"train     run {run.run_id}: {run.state}, val_loss {run.metrics['val_loss']:.3f}")
        print(f"evaluate  {version.ref}: {version.verdict}, roc_auc {version.evaluation['metrics']['roc_auc']:.3f}")
        print(f"deploy    {endpoint.url} served {endpoint.version} ({endpoint.state})")
    except papermill.exceptions.PapermillExecutionError as error:
        print(f"A cell failed: {error.ename}: {error.evalue}")
        print(f"Open {executed} to see it.")
        return 1
    finally:
        shut_down(Home.current())
    print(f"Took {time.monotonic() - started:.0f} s; everything it started has been stopped.")
    print(f"The executed notebook: {executed}")
    print("Next: make lab opens JupyterLab on the examples.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
