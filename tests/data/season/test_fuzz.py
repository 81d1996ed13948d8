"""Whatever lies in a season folder, what comes out is a dataset or an error of ours that says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from exact_core.config import DataConfig
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.errors import ExactError
from tests.fakes import write_raster, write_season

pytestmark = pytest.mark.slow
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SIZE = (8, 8)
CONFIG = DataConfig(window=8, validation_share=0, test_share=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "season"
    return write_season(root, size=SIZE, layout="stac", scl=lambda _: np.full((4, 4), 4))


def copy_of(whole: Path, tmp_path: Path) -> Path:
    root = tmp_path / "season"
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    shutil.copytree(whole, root)
    return root


def read(root: Path) -> None:
    try:
        ingest_season(root, CONFIG, root.parent / "out", seed=0)
    except ExactError as error:
        assert len(str(error)) > 20  # noqa: PT017 - it may also be read


VALUES = st.sampled_from([0, 1, 65535, 32767, -9999, -32768, 1e9, -1e9, np.nan, np.inf, 0.3, 5000, 255])


@FEW
@given(
    name=st.sampled_from(["B02", "B05", "SCL"]),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]),
    values=st.lists(VALUES, min_size=1, max_size=6),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    nodata=st.sampled_from([None, 0, -9999, 255, float("nan")]),
    pixel=st.sampled_from([0.001, 5.0, 10.0, 20.0, 1e6]),
)
def test_any_raster(
    whole: Path,
    tmp_path: Path,
    name: str,
    dtype: str,
    values: list[float],
    shape: tuple[int, int],
    nodata: float | None,
    pixel: float,
) -> None:
    root = copy_of(whole, tmp_path)
    with np.errstate(invalid="ignore", over="ignore"):
        content = np.resize(np.array(values), shape).astype(dtype)
    try:
        write_raster(root / f"S2_20180411/{name}.tif", content, pixel=pixel, nodata=nodata)
    except (ValueError, OverflowError, KeyError):
        return  # no such file can be written
    read(root)


@FEW
@given(data=st.data())
def test_any_damage_to_a_file(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    root = copy_of(whole, tmp_path)
    path = data.draw(st.sampled_from(["S2_20180411/B02.tif", "S2_20180411/SCL.tif", "labels/crop_type.tif"]))
    content = bytearray((root / path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (root / path).write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 0]))]))
    read(root)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10, 10**6), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


@FEW
@given(
    key=st.sampled_from(
        [
            ("properties", "s2:processing_baseline"),
            ("properties", "earthsearch:boa_offset_applied"),
            ("properties", "datetime"),
            ("properties",),
            ("assets", "B02", "raster:bands"),
            ("assets", "B02", "bands"),
            ("assets", "B02", "eo:bands"),
            ("assets", "B02", "href"),
            ("assets", "B02"),
            ("assets",),
            ("id",),
        ]
    ),
    value=JSON,
)
def test_any_metadata_of_an_item(whole: Path, tmp_path: Path, key: tuple[str, ...], value: Any) -> None:
    root = copy_of(whole, tmp_path)
    path = root / "S2_20180411/S2_20180411.json"
    item = json.loads(path.read_text())
    part = item
    for name in key[:-1]:
        part = part[name]
    part[key[-1]] = value
    path.write_text(json.dumps(item))
    try:
        open_season(root, CONFIG)
    except ExactError as error:
        assert str(root) in str(error) or "S2_20180411" in str(error)  # noqa: PT017 - it may also be read
