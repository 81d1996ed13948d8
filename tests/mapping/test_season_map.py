"""A map of a season on disk: on the images' own pixels, in files that others can read, whatever is read at a time."""

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from exact_core.config import override
from exact_core.data.season.folder import open_season
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.palette import class_colours
from exact_core.manifest import publish_record
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.polygons import write_polygons
from exact_core.mapping.calibration import NOT_FITTED
from exact_core.mapping.cogs import CACHE, MapRecord, write_files
from exact_core.mapping.finished_rows import FinishedRows, RowFiles, read_rows
from exact_core.mapping.generalise import majority_filter, without_small_regions
from exact_core.mapping.season_map import open_part, parse_part
from exact_core.recipes import resolve
from exact_core.stages.ingest import ingest
from exact_core.stages.join_map import join_map
from exact_core.stages.map_layers import Layers
from exact_core.stages.map_season import map_season
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker
from exact_kubeflow.cli.app import main
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
    config = resolve(
        "season", seed=1, overrides=[*sizes, "device=cpu", "data.window=8", "mapping.stride=4", "segmenter.balance=0"]
    )
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
    whole, clear = images.read(0, height)
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
    seen = np.array([read(each.files["B02"])[0] != 0 for each in images.acquisitions])
    expected = seen.reshape(len(seen), SIZE[0] // 2, 2, SIZE[1] // 2, 2).all((2, 4))
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
        colours = json.loads((folder / "map.json").read_text())["classes"].values()
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


def test_qgis_gets_names_and_colours(mapped):
    """The file that QGIS looks for beside class.tif, with an entry a label, in the palette of the raster itself."""
    entries = ElementTree.parse(mapped[0] / "class.qml").findall(".//paletteEntry")
    assert [(each.get("value"), each.get("label")) for each in entries] == [
        ("0", "background"),
        ("1", "wheat"),
        ("2", "maize"),
    ]
    with rasterio.open(mapped[0] / "class.tif") as file:
        palette = file.colormap(1)
    for each in entries:
        assert each.get("color") == "#" + bytes(palette[int(each.get("value"))][:3]).hex()
    assert "class.qml" in json.loads((mapped[0] / "map.json").read_text())["files"]


def test_the_item_leads_to_the_files(mapped):
    item = pystac.Item.from_file(str(mapped[0] / "item.json"))
    assert item.properties["proj:code"] == "EPSG:32631"
    assert item.properties["proj:shape"] == list(SIZE)
    assert set(item.assets) == {"class", "confidence", "thumbnail", "overview"}
    for asset in item.assets.values():
        assert (mapped[0] / asset.href).is_file()
    (band,) = item.assets["class"].extra_fields["bands"]
    described = band["classification:classes"]
    assert [each["name"] for each in described] == ["background", "wheat", "maize"]
    west, south, east, north = item.bbox
    assert 2.9 < west < east < 3.1
    assert 50 < south < north < 51
    assert Image.open(mapped[0] / "true_colour.png").size == (SIZE[1], SIZE[0])


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
    with pytest.raises(ConfigError, match="the model needs bands"):
        map_season(fewer, source=source, out=tmp_path / "c", **arguments)
    with pytest.raises(DataError, match="already holds"):
        map_season(config, source=source, out=root / "map", **arguments)


def test_the_command(season, mapped, tmp_path, monkeypatch, capsys):
    root, source, _ = season
    same = ["--set", "mapping.stride=4", "--set", "precision=fp32"]
    monkeypatch.setattr(sys, "argv", ["exact", "map", source, str(root / "segmenter"), str(tmp_path / "m"), *same])
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (read(tmp_path / "m" / "class.tif")[0] == read(mapped[0] / "class.tif")[0]).all()
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"map: {tmp_path}/m/class.tif (QGIS opens it with names and colours)"
    areas = json.loads((tmp_path / "m" / "map.json").read_text())["areas"]
    largest = max(areas, key=lambda name: areas[name]["pixels"])
    line = next(line for line in said if line.startswith(largest))
    mapped_pixels = sum(each["pixels"] for each in areas.values())
    assert line.split()[-2] == f"{100 * areas[largest]['pixels'] / mapped_pixels:.1f}"
    assert f"{areas[largest]['hectares']:,.1f} ha" in line
    assert any(line.startswith("not mapped: ") for line in said)
    assert any(line.startswith("seams: ") for line in said)
    assert "expected OA: unknown" in said
    monkeypatch.setattr(sys, "argv", ["exact", "map", "synthetic", str(root / "segmenter"), str(tmp_path / "n")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1


@pytest.fixture(scope="module")
def full(season):
    """The map with all that it can have: probabilities, and a temperature."""
    root, source, config = season
    settings = override(config, ["mapping.probabilities=true", "mapping.rows=8", "mapping.batch=64"])
    arguments = {"source": source, "season": "", "segmenter": root / "segmenter", "tracker": TRACKER}
    map_season(settings, out=root / "full", **arguments)
    return root / "full", settings, arguments


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_calibration_is_said_and_leaves_the_classes_alone(season, full, mapped, tmp_path):
    root, _, _ = season
    folder, settings, arguments = full
    manifest = json.loads((root / "segmenter" / "model.json").read_text())
    calibration = manifest["calibration"]
    assert calibration["fitted_on"].startswith("dense labels of the ")
    temperature = calibration["temperature"]
    assert temperature > 0
    assert json.loads((folder / "map.json").read_text())["calibration"] == calibration
    with rasterio.open(folder / "confidence.tif") as file:
        tags = file.tags()
        confidence = file.read(1)
    assert float(tags["CALIBRATION_TEMPERATURE"]) == temperature
    assert tags["CALIBRATION_FITTED_ON"] == calibration["fitted_on"]
    assert float(tags["CALIBRATION_ERROR_BEFORE"]) == calibration["error_before"]
    # A model without one, and one with another: the same classes, another confidence.
    for name, other in (("none", None), ("hot", {**calibration, "temperature": 5 * temperature})):
        shutil.copytree(root / "segmenter", tmp_path / name)
        changed = {key: value for key, value in manifest.items() if key != "calibration"}
        changed |= {"calibration": other, "expected_mask_oa": 0.01} if other else {}
        publish_record(tmp_path / name / "model.json", changed)
        map_season(settings, out=tmp_path / f"map-{name}", **{**arguments, "segmenter": tmp_path / name})
        assert (read(tmp_path / f"map-{name}" / "class.tif")[0] == read(folder / "class.tif")[0]).all()
    # No more is expected than of the masks that the model learned from.
    quality = json.loads((tmp_path / "map-hot" / "map.json").read_text())["quality"]
    assert (quality["expected_oa"], quality["agreement"] > 0.01) == (0.01, True)
    known = confidence != VOID
    assert read(tmp_path / "map-hot" / "confidence.tif")[0][known].mean() < confidence[known].mean()
    record = json.loads((tmp_path / "map-none" / "map.json").read_text())["calibration"]
    assert record["temperature"] is None
    assert record["fitted_on"] == "nothing: the model says nothing of a calibration"


def test_a_map_until_a_day_is_that_of_a_folder_without_later_images(season, full, mapped, tmp_path, monkeypatch):
    root, _, _ = season
    _, settings, arguments = full
    until = ["data.season.until=2018-04-25"]
    map_season(override(settings, until), out=tmp_path / "until", **arguments)
    shutil.copytree(root / "source", tmp_path / "source")
    shutil.rmtree(tmp_path / "source/S2_20180501")
    early = {**arguments, "source": f"season:{tmp_path / 'source'}"}
    map_season(override(settings, until), out=tmp_path / "early", **early)
    for name in ("class.tif", "confidence.tif", "probabilities.tif"):
        assert (tmp_path / "until" / name).read_bytes() == (tmp_path / "early" / name).read_bytes()
    assert (read(tmp_path / "until/class.tif")[0] != read(root / "full/class.tif")[0]).any()
    record = json.loads((tmp_path / "until/map.json").read_text())
    assert (record["until"], record["dates"][-1]) == ("2018-04-25", "2018-04-21")
    assert "images until 2018-04-25 are used; 1 later dates were left out" in record["notes"]
    # The confidence of its date, from the curve of the model: 25 of 31 days are beyond four fifths, and not all.
    model = json.loads((root / "segmenter/model.json").read_text())
    assert [each["days"] for each in model["by_date"]] == [12, 19, 25]
    assert record["calibration"] == model["by_date"][-1]["calibration"] != model["calibration"]
    whole = {"days": model["season_days"], "calibration": model["calibration"]}
    assert record["by_date"] == [*model["by_date"], whole]
    assert json.loads((root / "full/map.json").read_text())["until"] is None
    # Later than the last image: as the whole season.
    late = ["--until", "2018-05-01", "--no-tracking", "--set", "mapping.stride=4", "--set", "precision=fp32"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["exact", "map", arguments["source"], str(root / "segmenter"), str(tmp_path / "late"), *late],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (read(tmp_path / "late/class.tif")[0] == read(mapped[0] / "class.tif")[0]).all()
    with pytest.raises(DataError, match=r"1 date in the season of .* until 2018-04-05 \(data.season.until\)"):
        map_season(override(settings, ["data.season.until=2018-04-05"]), out=tmp_path / "too", **arguments)


def test_probabilities_of_every_class(full):
    folder, _, _ = full
    with rasterio.open(folder / "probabilities.tif") as file:
        values = file.read()
        assert file.descriptions == ("background", "wheat", "maize")
        assert file.nodata == VOID
        assert file.units == ("%",) * 3
        assert file.dtypes == ("uint8",) * 3
    label, confidence = (read(folder / name)[0] for name in ("class.tif", "confidence.tif"))
    void = label == VOID
    assert (values[:, void] == VOID).all()
    assert (values[:, ~void] <= 100).all()
    assert (np.abs(values[:, ~void].sum(0, dtype=int) - 100) <= 1).all()
    np.testing.assert_array_equal(values.max(0), confidence)
    chosen = np.take_along_axis(values, np.where(void, 0, label)[None], 0)[0]
    np.testing.assert_array_equal(chosen[~void], confidence[~void])


@pytest.mark.parametrize("name", ["class.tif", "confidence.tif", "probabilities.tif"])
def test_the_files_are_valid_cogs(full, name):
    valid, errors, warnings = cog_validate(full[0] / name, strict=True)
    assert (valid, errors, warnings) == (True, [], [])


def test_large_files_are_valid_cogs_with_overviews(tmp_path):
    """More than a block: 1,100 x 600 pixels."""
    texts = ("source", "name", "inputs", "model_weights_sha256", "code_version")
    values = {
        "season_start": "2021-04-01",
        "season_days": 200,
        "bands": ["B02"],
        "dates": ["2021-04-05"],
        "crs": rasterio.crs.CRS.from_epsg(32631).to_wkt(),
        "transform": [10, 0, 5e5, 0, -10, 56e5],
        "height": 1100,
        "width": 600,
        "window": 24,
        "classes": ["a", "b"],
        "probabilities": True,
        "colours": class_colours(2),
        "calibration": NOT_FITTED,
        "notes": [],
    }
    record = MapRecord.model_validate({**dict.fromkeys(texts, "x"), **values})
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (1100, 600)).astype(np.uint8)
    planes = rng.integers(0, 101, (3, 1100, 600)).astype(np.uint8)
    kept = []

    def rows():
        for first in (0, 550):
            part = slice(first, first + 550)
            yield FinishedRows(first, label[part], planes[0, part], planes[:, part])
            kept.append(rasterio.env.getenv()["GDAL_CACHEMAX"])

    write_files(record, rows(), tmp_path)
    # By default GDAL would keep what is written, up to a twentieth of the machine's memory.
    assert kept == [CACHE, CACHE]
    for name in ("class.tif", "confidence.tif", "probabilities.tif"):
        assert cog_validate(tmp_path / name, strict=True) == (True, [], [])
        with rasterio.open(tmp_path / name) as file:
            assert file.overviews(1)
    np.testing.assert_array_equal(read(tmp_path / "class.tif")[0], label)
    with rasterio.open(tmp_path / "probabilities.tif") as file:
        np.testing.assert_array_equal(file.read(), planes)


def test_the_item_is_stac_with_its_extensions(full):
    """By the tables of STAC 1.1 and of projection 2.0, raster 2.0 and classification 2.0: schemas want a network."""
    item = json.loads((full[0] / "item.json").read_text())
    assert item["stac_version"] == "1.1.0"
    assert item["type"] == "Feature"
    names = sorted(url.split("/")[3] + " " + url.split("/")[4] for url in item["stac_extensions"])
    assert names == ["classification v2.0.0", "file v2.1.0", "projection v2.0.0", "raster v2.0.0"]
    for asset in item["assets"].values():
        content = (full[0] / asset["href"]).read_bytes()
        # A multihash: SHA-256 is number 0x12, and has 0x20 bytes.
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["file:size"] == len(content)
    properties = item["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] < properties["end_datetime"]
    assert len(properties["proj:transform"]) == 9
    assert len(properties["proj:shape"]) == 2
    ring = item["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    turned = sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in itertools.pairwise(ring))
    assert turned < 0  # the right-hand rule of GeoJSON: counter-clockwise
    bands = {name: asset.get("bands") for name, asset in item["assets"].items()}
    assert [len(bands[name]) for name in ("class", "confidence", "probabilities")] == [1, 1, 3]
    for band in bands["class"] + bands["confidence"] + bands["probabilities"]:
        assert (band["data_type"], band["nodata"]) == ("uint8", VOID)
        assert band["raster:sampling"] == "area"
        assert band["raster:spatial_resolution"] == 10
    for band in bands["confidence"] + bands["probabilities"]:
        assert (band["unit"], band["raster:scale"], band["raster:offset"]) == ("%", 1, 0)
    for each in bands["class"][0]["classification:classes"]:
        assert set(each) == {"value", "name", "title", "color_hint"}
        assert re.fullmatch(r"[0-9A-Za-z_-]+", each["name"])
        assert re.fullmatch(r"[0-9A-F]{6}", each["color_hint"])
    media = "image/tiff; application=geotiff; profile=cloud-optimized"
    assert {item["assets"][name]["type"] for name in ("class", "confidence", "probabilities")} == {media}


@pytest.mark.parametrize("parts", [2, 5])
def test_the_map_of_parts_is_to_the_bit_the_whole(full, tmp_path, parts):
    folder, settings, arguments = full
    made = []
    for number in range(parts, 0, -1):
        made.append(tmp_path / f"part-{number}")
        # Rows read at a time, and how many are kept together, may differ.
        rows = override(settings, [f"mapping.rows={8 * number}"]) if parts == 2 else settings
        summary = map_season(rows, out=made[-1], part=f"{number}/{parts}", **arguments)
        assert summary["megapixels"] < SIZE[0] * SIZE[1] / 1e6
    summary = join_map(parts=made, out=tmp_path / "map", tracker=TRACKER)
    assert summary["megapixels"] == SIZE[0] * SIZE[1] / 1e6
    assert contents(tmp_path / "map") == contents(folder)


def test_parts_that_are_no_map_are_refused(full, tmp_path):
    _, settings, arguments = full
    parts = [tmp_path / name for name in "ab"]
    for number, out in enumerate(parts, start=1):
        map_season(settings, out=out, part=f"{number}/3", **arguments)
    other = tmp_path / "other"
    map_season(override(settings, ["mapping.probabilities=false"]), out=other, part="3/3", **arguments)
    join = {"out": tmp_path / "map", "tracker": TRACKER}
    with pytest.raises(DataError, match=r"other.part.json: of another map than .*: probabilities differ"):
        join_map(parts=[*parts, other], **join)
    with pytest.raises(DataError, match=r"the parts end at row 36 of 58; the map was made in 3 parts"):
        join_map(parts=parts, **join)
    with pytest.raises(DataError, match="rows 0 to 16 of the map are missing"):
        join_map(parts=parts[1:], **join)
    with pytest.raises(DataError, match="are there twice"):
        join_map(parts=[parts[0], *parts], **join)
    with pytest.raises(DataError, match="no part of a map here"):
        join_map(parts=[tmp_path], **join)
    assert join_map(parts=[], **join) == {}
    assert not (tmp_path / "map" / "map.json").exists()
    for text in ("", "3", "0/2", "3/2", "a/b", "1/2/3"):
        with pytest.raises(ConfigError, match="expected I/N"):
            parse_part(text)


KILLED = """
import sys, time
from pathlib import Path
import exact_core.stages.map_season as stage
from exact_core.config import load_config
from exact_core.tracking.runs import NoTracker
made = stage.season_mapper
def slow(*args, **kwargs):
    mapper = made(*args, **kwargs)
    decode = mapper.decode
    mapper.decode = lambda windows: (time.sleep(0.1), decode(windows))[1]
    return mapper
stage.season_mapper = slow
config, source, segmenter, out = sys.argv[1:]
stage.map_season(load_config(Path(config)), source=source, season="", segmenter=Path(segmenter), out=Path(out),
                 tracker=NoTracker())
"""


def test_a_killed_map_goes_on_and_is_to_the_bit_the_same(full, season, tmp_path, caplog):
    root, source, _ = season
    folder, settings, arguments = full
    settings.save(tmp_path / "config.yaml")
    out = tmp_path / "map"
    paths = [tmp_path / "config.yaml", source, root / "segmenter", out]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, paths)])
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/rows-*.npz"))) < 3:
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(out.glob("rows/rows-*.npz")))
    assert 3 <= kept < 7
    # A changed image: what was kept is of no use, and the map is that of the whole.
    shutil.copytree(out, tmp_path / "changed")
    image = next((root / "source").glob("S2_*/B02.tif"))
    stamp = image.stat()
    os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 10**9))
    with caplog.at_level("INFO"):
        map_season(settings, out=tmp_path / "changed", **arguments)
        os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert "begins anew" in caplog.text
        assert "continuing at row" not in caplog.text
        whole = int(re.search(r"(\d+) windows, 64 at a time", caplog.text)[1])
        caplog.clear()
        map_season(settings, out=out, **arguments)
        assert f"continuing at row {8 * kept} of 0 to {SIZE[0]}" in caplog.text
        assert int(re.search(r"(\d+) windows, 64 at a time", caplog.text)[1]) < whole
    for made in (out, tmp_path / "changed"):
        assert contents(made) == contents(folder)


def test_finished_rows_are_kept_where_the_state_of_a_run_is(full, tmp_path, monkeypatch):
    """Where a run's outputs are another folder at each try; a part's rows then go to its output."""
    folder, settings, arguments = full
    monkeypatch.setenv("EXACT_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(RowFiles, "add", _stop_after(3, RowFiles.add))
        map_season(settings, out=tmp_path / "lost", part="1/1", **arguments)
    assert len(list((tmp_path / "state").glob("map-*/rows-*.npz"))) == 3
    map_season(settings, out=tmp_path / "part", part="1/1", **arguments)
    join_map(parts=[tmp_path / "part"], out=tmp_path / "map", tracker=TRACKER)
    assert contents(tmp_path / "map") == contents(folder)
    assert not list((tmp_path / "state").iterdir())


def _stop_after(count, add):
    calls = []

    def stopping(self, rows):
        calls.append(rows)
        if len(calls) > count:
            raise KeyboardInterrupt
        add(self, rows)

    return stopping


def test_the_commands_of_parts(full, season, tmp_path, monkeypatch, capsys):
    """Filtered and masked as a whole, though mapped in parts."""
    root, source, _ = season
    monkeypatch.setenv("EXACT_CACHE_DIR", str(tmp_path / "cache"))
    changes = ("rows=8", "batch=64", "stride=4", "majority=3", "minimum_hectares=0.04")
    settings = [part for each in changes for part in ("--set", f"mapping.{each}")]
    label, profile, _ = read(full[0] / "class.tif")
    cropland = np.ones(label.shape, np.uint8)
    cropland[:, -9:] = 0
    with rasterio.open(tmp_path / "cropland.tif", "w", **{**profile, "driver": "GTiff", "nodata": None}) as file:
        file.write(cropland, 1)
    settings += ["--cropland", tmp_path / "cropland.tif", "--set", "mapping.polygons=true", "--set", "precision=fp32"]
    commands = [
        ["map", source, root / "segmenter", tmp_path / f"p{part}", "--part", f"{part}/2", *settings] for part in (1, 2)
    ]
    commands.append(["join-map", tmp_path / "p1", tmp_path / "p2", tmp_path / "map"])
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["exact", *map(str, command), "--no-tracking"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    filtered = majority_filter(np.where(cropland, label, np.uint8(VOID)), 3)
    while (merged := without_small_regions(filtered, 4)).tolist() != filtered.tolist():
        filtered = merged
    found = read(tmp_path / "map" / "class.tif")[0]
    np.testing.assert_array_equal(found, filtered)
    assert (found != label)[cropland > 0].any()
    confidence = np.where(cropland, read(full[0] / "confidence.tif")[0], VOID)
    np.testing.assert_array_equal(read(tmp_path / "map" / "confidence.tif")[0], confidence)
    record = json.loads((tmp_path / "map" / "map.json").read_text())
    # Agreement is that of the pixels that are left, whatever the filters made of them.
    parts = [(tmp_path / name / "rows", open_part(tmp_path / name)) for name in ("p1", "p2")]
    rows = [each for folder, part in parts for each in read_rows(folder, first=part.first, end=part.end)]
    agreement = np.concatenate([each.agree for each in rows])[found != VOID].mean()
    assert record["quality"] == {"agreement": pytest.approx(agreement), "expected_oa": None}
    assert 0 < agreement < 1
    masked = int(((cropland == 0) & (label != VOID)).sum())
    assert (record["masked_pixels"], record["unmapped_pixels"]) == (masked, int((found == VOID).sum()))
    assert f"not cropland by the mask: {100 * masked / label.size:.1f} % of the area" in capsys.readouterr().out
    assert not (tmp_path / "map" / "probabilities.tif").exists()
    assert record["cropland"] == str(tmp_path / "cropland.tif")
    # Fields as polygons, as `exact polygons` makes them of the finished map, and delivered with it.
    write_polygons(open_map(tmp_path / "map"), tmp_path / "later.gpkg")
    fields = [pyogrio.read_arrow(path)[1] for path in (tmp_path / "map/polygons.gpkg", tmp_path / "later.gpkg")]
    assert fields[0].equals(fields[1])
    assert "polygons.gpkg" in record["files"]
    item = json.loads((tmp_path / "map/item.json").read_text())
    assert item["assets"]["polygons"]["href"] == "./polygons.gpkg"
    # Layers that are given to join them replace those of the parts.
    join_map(parts=[tmp_path / "p1", tmp_path / "p2"], out=tmp_path / "whole", tracker=TRACKER, layers=Layers())
    assert json.loads((tmp_path / "whole/map.json").read_text())["masked_pixels"] == 0
