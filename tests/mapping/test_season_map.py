"""A map of a season on disk: on the images' own pixels, in files that others can read, whatever is read at a time."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image

from exact_core.cli import main
from exact_core.config import override
from exact_core.data.dataset import VOID
from exact_core.data.season import open_season
from exact_core.data.season_files import choose_dates, read_images
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.figures import class_colours
from exact_core.recipes import resolve
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking import NoTracker
from tests.conftest import TINY
from tests.fakes import write_season

TRACKER = NoTracker()
SIZE = (58, 74)


def clouds(date):
    """Classes of the scene classification: a cloud that wanders."""
    i, j = np.ogrid[: SIZE[0] // 2, : SIZE[1] // 2]
    return np.where((i + j) // 6 % 4 == date % 4, 9, 4)


def without_a_corner(_date, _band, values):
    """The first columns lie beyond the swath, on every date."""
    values = values.copy()
    values[:, : values.shape[1] // 8] = 0
    return values


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """A source, a segmenter trained on it, and the configuration."""
    root = tmp_path_factory.mktemp("season")
    write_season(root / "source", size=SIZE, scl=clouds, change=without_a_corner)
    sizes = [setting for setting in TINY if not setting.startswith(("data.synthetic", "device"))]
    config = resolve("season", seed=1, overrides=[*sizes, "device=cpu", "data.window=8"])
    source = f"season:{root / 'source'}"
    ingest(config, source=source, season="", out=root / "dataset", tracker=TRACKER)
    train_segmenter(config, dataset=root / "dataset", masks=None, out=root / "segmenter", tracker=TRACKER)
    return root, source, config


@pytest.fixture(scope="module")
def mapped(season):
    root, source, config = season
    arguments = {"source": source, "season": "", "segmenter": root / "segmenter"}
    summary = map_season(config, out=root / "map", tracker=TRACKER, **arguments)
    return root / "map", summary


def read(path):
    with rasterio.open(path) as file:
        return file.read(1), file.profile, file


def test_rows_are_what_the_whole_is(season):
    """Fine bands, coarse bands by bilinear interpolation, and clouds, read in strips of any height."""
    _, source, config = season
    images = open_season(Path(source.partition(":")[2]), config.data)
    height = images.grid.height
    whole = read_images(images.acquisitions, images.bands, images.grid, [])
    _, clear = images.read(0, height)
    for edges in ([0, 2, 16, 40, height], [0, 10, height]):
        parts = [images.read(first, last) for first, last in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in parts], 2), whole)
        np.testing.assert_array_equal(np.concatenate([seen for _, seen in parts], 1), clear)


def test_what_was_not_measured_is_as_little_clear_as_for_windows(tmp_path):
    """A swath that ends in the middle on one date, without a word of clouds: as `ingest` has it."""

    def half(date, _band, values):
        values = values.copy()
        if date == 1:
            values[:, values.shape[1] // 2 :] = 0
        return values

    write_season(tmp_path / "source", size=SIZE, change=half)
    config = resolve("season").data
    images = open_season(tmp_path / "source", config)
    _, clear = images.read(0, SIZE[0])
    _, expected = choose_dates(images.acquisitions, images.bands, images.grid, 30, tmp_path, [])
    # Coarse bands reach half a pixel of theirs into what was not measured.
    edge = SIZE[1] // 4
    for part in (slice(0, edge - 2), slice(edge + 2, None)):
        np.testing.assert_array_equal(clear[:, :, part], expected[:, :, part].astype(bool))
    assert not clear[1, :, edge + 2 :].any()
    assert clear[0].all()


def test_the_map_lies_on_the_pixels_of_the_images(season, mapped):
    root, _, _ = season
    with rasterio.open(next((root / "source").glob("S2_*/B02.tif"))) as image:
        for name in ("class.tif", "confidence.tif"):
            with rasterio.open(mapped[0] / name) as file:
                assert file.crs == image.crs
                assert file.transform == image.transform
                assert (file.height, file.width) == (image.height, image.width)


def test_the_files_are_cloud_optimised_and_say_what_they_hold(mapped, season):
    folder, _ = mapped
    with rasterio.open(folder / "class.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.nodata == VOID
        assert file.dtypes == ("uint8",)
        label = file.read(1)
        palette = file.colormap(1)
        colours = class_colours(2)
        for number, colour in enumerate(colours):
            assert "#{:02x}{:02x}{:02x}".format(*palette[number][:3]) == colour
        assert file.tags(1)["CLASS_1"] == "wheat"
    with rasterio.open(folder / "confidence.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        percent = file.read(1)
    swath = SIZE[1] // 8
    assert (label[:, : swath - 2] == VOID).all()
    assert (label[:, swath + 2 :] <= 2).all()
    assert ((percent == VOID) == (label == VOID)).all()
    assert (percent[label != VOID] >= 33).all()
    assert (percent[label != VOID] <= 100).all()
    record = json.loads((folder / "map.json").read_text())
    for number, name in enumerate(("background", "wheat", "maize")):
        assert record["areas"][name]["pixels"] == (label == number).sum()
        assert record["areas"][name]["hectares"] == pytest.approx(0.01 * (label == number).sum())
    assert record["unmapped_pixels"] == (label == VOID).sum()
    assert not list(folder.glob("*.partial")) + list(folder.glob("*.cog")) + list(folder.glob("*.aux.xml"))


def test_the_item_leads_to_the_files(mapped):
    item = pystac.Item.from_file(str(mapped[0] / "item.json"))
    assert item.properties["proj:code"] == "EPSG:32631"
    assert item.properties["proj:shape"] == list(SIZE)
    assert set(item.assets) == {"class", "confidence", "thumbnail"}
    for asset in item.assets.values():
        assert (mapped[0] / asset.href).is_file()
    (band,) = item.assets["class"].extra_fields["bands"]
    described = band["classification:classes"]
    assert [each["name"] for each in described] == ["background", "wheat", "maize"]
    west, south, east, north = item.bbox
    assert 2.9 < west < east < 3.1
    assert 50 < south < north < 51
    assert Image.open(mapped[0] / "quicklook.png").size == (SIZE[1], SIZE[0])


@pytest.mark.parametrize(
    "changes", [["mapping.rows=8", "mapping.batch=5"], ["mapping.rows=1000", "mapping.batch=1000"]]
)
def test_the_map_does_not_depend_on_what_is_done_at_a_time(season, mapped, tmp_path, changes):
    root, source, config = season
    arguments = {"source": source, "season": "", "segmenter": root / "segmenter"}
    map_season(override(config, changes), out=tmp_path / "again", tracker=TRACKER, **arguments)
    one, other = (read(folder / "class.tif")[0] for folder in (mapped[0], tmp_path / "again"))
    # Sums in another order may tip a pixel on the edge between two classes.
    assert (one != other).mean() < 0.001
    assert ((one == VOID) == (other == VOID)).all()


def test_what_cannot_be_mapped_is_refused(season, tmp_path):
    root, source, config = season
    arguments = {"season": "", "segmenter": root / "segmenter", "tracker": TRACKER}
    assert map_season(config, source="synthetic", out=tmp_path / "a", **arguments) == {}
    assert not (tmp_path / "a").exists()
    write_season(tmp_path / "small", size=(6, 32))
    with pytest.raises(DataError, match="smaller than the model's window of 8"):
        map_season(config, source=f"season:{tmp_path}/small", out=tmp_path / "b", **arguments)
    fewer = override(config, ["data.season.bands=[B02,B03]"])
    with pytest.raises(ConfigError, match="the model wants bands"):
        map_season(fewer, source=source, out=tmp_path / "c", **arguments)
    with pytest.raises(DataError, match="already holds"):
        map_season(config, source=source, out=root / "map", **arguments)


def test_the_command(season, mapped, tmp_path, monkeypatch):
    root, source, _ = season
    monkeypatch.setattr(sys, "argv", ["exact", "map", source, str(root / "segmenter"), str(tmp_path / "m")])
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (read(tmp_path / "m" / "class.tif")[0] == read(mapped[0] / "class.tif")[0]).all()
    monkeypatch.setattr(sys, "argv", ["exact", "map", "synthetic", str(root / "segmenter"), str(tmp_path / "n")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
