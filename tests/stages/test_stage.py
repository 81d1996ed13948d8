"""The facts of stages: read from sources as they are in the modules, and what follows from them elsewhere."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exact_core.stages.stage import Stage, manifests, stage_table

ROOT = Path(__file__).parents[2]


def test_what_is_read_from_the_sources_is_what_the_modules_hold():
    found = stage_table()
    assert {"ingest", "record_status"} < set(found)
    for name, stage in found.items():
        module = importlib.import_module(f"exact_core.stages.{name}")
        assert stage == module.STAGE
        assert isinstance(module.STAGE, Stage)
        assert name in module.STAGE.name


def test_the_table_is_read_without_torch():
    code = (
        "import sys; from exact_core.stages.stage import stage_table; stage_table(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_import_contract_follows_from_the_table():
    """What runs in the image without torch imports none."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    listed = set(contracts["importlinter:contract:torchless"]["source_modules"].split())
    without = {f"exact_core.stages.{name}" for name, stage in stage_table().items() if stage.image == "data"}
    assert without <= listed
    with_torch = {f"exact_core.stages.{name}" for name, stage in stage_table().items() if stage.size == "train"}
    assert not with_torch & listed


def test_the_last_manifest_is_the_one_that_other_folders_have_too():
    assert manifests()[-1] == "metrics.json"
    assert len(set(manifests())) == len(manifests())
    documented = (ROOT / "docs/data-format.md").read_text()
    for name in manifests():
        assert name in documented, name


@pytest.mark.parametrize("image", ["data", "train"])
def test_the_table_of_images_names_the_stages_of_each(image):
    line = next(
        line
        for line in (ROOT / "docker/README.md").read_text().splitlines()
        if line.startswith(f"| `exact-python-{image}")
    )
    named = set(re.findall(r"`(\w+)`", line))
    of_data = {name for name, stage in stage_table().items() if stage.image == "data"}
    assert named == (of_data if image == "data" else set())


def test_the_table_of_steps_says_what_each_may_take():
    text = (ROOT / "docs/how-to/cluster.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    for name, stage in stage_table().items():
        if not stage.within:
            assert rows[name] == f"{stage.size} | {stage.minutes} | {stage.retries}", name


def test_every_folder_that_a_component_puts_out_is_among_those_of_its_stage():
    """With a store they are published by the manifest that the stage names; without one nobody would notice."""
    for path in sorted((Path(__file__).parents[2] / "components").glob("*.py")):
        written = set(re.findall(r"files\.write\((\w+)", path.read_text(encoding="utf-8")))
        stages = [stage for stage in stage_table().values() if path.stem in (stage.name, stage.within)]
        assert written <= {name for stage in stages for name in stage.writes}, path.name
