"""Fields found in images: regions by hand, what must not change them, and a season with two fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exact_core.config import DataConfig
from exact_core.data.season import segments
from exact_core.data.season.folder import ingest_season
from exact_core.data.season.segments import merge_regions
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from tests.fakes import write_season


def test_regions_by_hand() -> None:
    """Round 1 joins 0 and 1, and 9 to 12 to 13; for 4 pixels both join in round 2. NaN has no region."""
    row = np.array([[0.0, 1.0, 9.0, 12.0, 13.0, np.nan, 30.0]])[:, :, None]
    assert merge_regions(row, fewest=1).tolist() == [[1, 2, 3, 4, 5, 0, 6]]
    assert merge_regions(row, fewest=2).tolist() == [[1, 1, 2, 2, 2, 0, 3]]
    assert merge_regions(row, fewest=4).tolist() == [[1, 1, 1, 1, 1, 0, 2]]
    assert merge_regions(np.full((2, 2, 3), np.nan), fewest=2).tolist() == [[0, 0], [0, 0]]
    # Diagonal neighbours share no side.
    assert merge_regions(np.array([[1.0, np.nan], [np.nan, 1.0]])[:, :, None], fewest=4).tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("seed", range(3))
def test_position_orientation_and_units_do_not_change_regions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(12, 10, 4))
    found = merge_regions(pixels, fewest=6)
    sizes = np.bincount(found.ravel())
    assert sizes[0] == 0
    assert sizes[1:].min() >= 6
    assert len(sizes) > 4
    assert (merge_regions(pixels, fewest=6) == found).all()
    shifted = np.pad(pixels, ((3, 1), (2, 5), (0, 0)), constant_values=np.nan)
    assert (merge_regions(shifted, fewest=6)[3:-1, 2:-5] == found).all()
    for view in (np.flipud, np.fliplr, lambda each: np.moveaxis(each, 0, 1)):
        assert same(merge_regions(view(pixels), fewest=6), view(found))
    assert same(merge_regions(pixels * [1, 10, 100, 1000] + 7, fewest=6), found)


def same(one: NDArray[np.int32], other: NDArray[np.int32]) -> bool:
    """Whether the regions are equal, whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(one)) == len(np.unique(other))


def fields_of(root: Path, out: str = "out", **season: Any) -> WindowDataset:
    """A season as a dataset with `outlines: segments`."""
    config = DataConfig.model_validate(
        {
            "window": 8,
            "stride": 8,
            "season": {"bands": ("B03", "B04", "B08", "B11"), "outlines": "segments", **season},
            "validation_share": 0.0,
            "test_share": 0.0,
        }
    )
    ingest_season(root, config, root / out, seed=0)
    return WindowDataset(root / out)


def assembled(windows: WindowDataset) -> NDArray[np.int32]:
    """The segments of the scene, from those of its windows."""
    found = np.zeros((32, 32), np.int32)
    for index, record in enumerate(windows.records):
        found[record.row : record.row + 8, record.col : record.col + 8] = windows.fields(index)
    return found


def two_fields(date: int, band: str, values: NDArray[Any]) -> NDArray[Any]:
    """Left: green in summer; right: bare. Both with some noise that repeats."""
    noise = np.random.default_rng((date, len(band))).integers(0, 40, values.shape)
    edge = 12 * values.shape[1] // 32
    level = np.where(np.arange(values.shape[1]) < edge, 500 + 900 * (band == "B08") * date, 1500)
    return np.asarray(level + noise, values.dtype)


def test_a_season_of_two_fields_has_their_border_in_every_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    season = write_season(tmp_path, change=two_fields)
    windows = fields_of(season, segment_hectares=2)
    assert windows.manifest.has_fields
    found = assembled(windows)
    # 2 hectares are 200 pixels, and the smaller field has 384.
    assert (found[:, :12] == 1).all()
    assert (found[:, 12:] == 2).all()
    assert "2 fields of at least 200 pixels were found in the images (data.season.outlines=segments)" in (
        windows.manifest.notes
    )
    again = fields_of(season, "again", segment_hectares=2)
    assert again.manifest.digest == windows.manifest.digest
    # The edges of tiles are edges of segments too.
    monkeypatch.setattr(segments, "TILE", 16)
    tiles = fields_of(season, "tiles", segment_hectares=0.3)
    whole = assembled(tiles)
    parts = [whole[row : row + 16, col : col + 16] for row in (0, 16) for col in (0, 16)]
    assert sum(len(np.unique(part)) for part in parts) == len(np.unique(whole)) == whole.max()
    assert not set(np.unique(whole[:, :12])) & set(np.unique(whole[:, 12:]))


def test_bands_of_ndvi_must_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="outlines=segments requires bands B04 and B08, but .* lacks B08"):
        fields_of(write_season(tmp_path), bands=("B03", "B04"))
