"""`exact fetch` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exact_core.data.sources import parse_source
from exact_core.errors import ConfigError
from tests.commands import exact
from tests.fakes import write_season
from tests.stac_server import StacServer

DAYS = ["--start", "2018-01-01", "--end", "2018-12-31"]
BOX = ["--bbox", "2.99", "50.5", "3.01", "50.6"]


def test_fetch_twice_then_cells(tmp_path, capsys):
    server = StacServer(write_season(tmp_path / "s", layout="stac", scl=lambda _date: np.full((16, 16), 4)))
    try:
        command = [
            "fetch",
            server.url,
            str(tmp_path / "out"),
            "--collection",
            "fake",
            *BOX,
            *DAYS,
            "--bands",
            "B02,SCL",
        ]
        code, out, _ = exact(capsys, *command)
        assert code == 0
        assert "4 images. 8 files read" in out
        assert f"next: put labels in {tmp_path}/out/labels, then: exact ingest season {tmp_path}/out DATASET" in out
        assert "0 files read (0.0 MB), 8 unchanged" in exact(capsys, *command)[1]
        command[2] = str(tmp_path / "cells")
        code, out, _ = exact(capsys, *command, "--cell", "1000", "--crs", "EPSG:32631")
        assert code == 0
        assert "cells (" in out
        assert (tmp_path / "cells/32631_E0500000_N5599000/collection.json").is_file()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*BOX, "--start", "2018-05-01", "--end", "2018-04-01"], "--end 2018-04-01 is before --start 2018-05-01"),
        (DAYS, "give one of --bbox WEST SOUTH EAST NORTH and --area FILE.geojson"),
        ([*BOX, *DAYS, "--bands", "B02,B02"], "expected names of bands, each once"),
    ],
)
def test_what_is_refused_before_anything_is_asked(tmp_path, capsys, arguments, expected):
    code, _, err = exact(capsys, "fetch", "http://127.0.0.1:9", str(tmp_path / "out"), *arguments)
    assert code == 1
    assert expected in err


@pytest.mark.parametrize("source", ["season:https://a.example/v1", "season:https:/a.example/v1"])
def test_a_source_on_the_web_names_the_command(source):
    with pytest.raises(
        ConfigError, match=r"fetch them first, .*: exact fetch https://a\.example/v1 FOLDER --collection"
    ):
        parse_source(source)


def test_other_commands_do_not_import_what_only_a_fetch_needs():
    code = "import sys, exact_kubeflow.cli.app; print({'requests', 'pystac_client', 'rasterio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", Path(__file__).name
