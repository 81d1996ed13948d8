"""The notebook runs from top to bottom, in a kernel as a reader has it, on the results of a tiny run."""

from __future__ import annotations

from pathlib import Path

import pytest

from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker

pytestmark = pytest.mark.docs

NOTEBOOK = Path(__file__).parents[2] / "docs/notebook.ipynb"


def test_the_notebook_runs(config, dataset_folder, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    (tmp_path / "dataset").symlink_to(dataset_folder)
    train_segmenter(config, dataset=dataset_folder, masks=None, out=tmp_path / "segmenter", tracker=NoTracker())
    monkeypatch.setenv("EXACT_DEMO", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    shares = [line.split() for line in cells[-1].outputs[0].text.splitlines()]
    assert shares[0][0] == "background"
    assert sum(float(share.rstrip("%")) for *_, share in shares) == pytest.approx(100, abs=0.3)
