"""The tutorial's commands, run as they are written, on the real scene."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"


def test_the_tutorial(flanders, tmp_path):
    """From a clean copy, as a user has it; the source folder is only read."""
    source = tmp_path / "flanders_2018"
    shutil.copytree(flanders, source)
    before = sorted(path.relative_to(source) for path in source.rglob("*"))
    commands = re.findall(r"^```bash\n(.*?)^```", TUTORIAL.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(commands) == 7
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands:
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    assert sorted(path.relative_to(source) for path in source.rglob("*")) == before
    metrics = json.loads((tmp_path / "flanders/evaluation/metrics.json").read_text())
    assert metrics["self_scored"]
    assert "Trained and scored on itself" in (tmp_path / "flanders/report.html").read_text()
    masks = metrics["pseudo_masks"]
    for name in ("oa_micro", "miou_macro"):
        assert masks[name] > masks["majority"][name] + 0.1
    assert (tmp_path / "map_again/class.tif").read_bytes() == (tmp_path / "flanders/crop_map/class.tif").read_bytes()
    for name in ("preview.html", "fields.parquet", "points.gpkg", "transfer"):
        assert (tmp_path / name).exists()
