"""What is installed: two names, and every folder of code below them."""

import re
import tomllib
from pathlib import Path

import yaml

from exact_core import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_of_code_is_a_package():
    """A folder that is not listed is missing from the wheel, where only a user would notice."""
    where = {"components": "exact_kubeflow.components", "pipelines": "exact_kubeflow.pipelines"}
    found = set()
    for top in ("exact_core", "exact_kubeflow", "components", "pipelines"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.parent.relative_to(ROOT).parts
            found.add(".".join([where.get(parts[0], parts[0]), *parts[1:]]))
    assert set(PROJECT["packages"]) == found


def test_what_lies_elsewhere_than_its_name_says_is_found_there():
    assert PROJECT["package-dir"] == {
        "exact_kubeflow.components": "components",
        "exact_kubeflow.pipelines": "pipelines",
    }


def test_one_version_in_code_citation_and_changelog():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert re.search(
        rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
