"""The interactive page of a map: all it needs is inside, bounded in size, and a browser shows it."""

import base64
import json
import re
import shutil
import subprocess
import warnings

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.io import MemoryFile

from exact_core.errors import CorruptError, DataError
from exact_core.evaluation import map_page
from exact_core.evaluation.html_page import data_uri
from exact_core.evaluation.map_page import write_map_page
from tests.mapping.maps import VOID, write_map


def finished(folder, label, confidence=None):
    """A map folder with all that a page reads of map.json."""
    write_map(folder, label, confidence=confidence)
    label = np.asarray(label)
    names, colours = ("background", "wheat", "maize </script>"), ("#d9d9d9", "#e0b000", "#2a7a2a")
    pixels = [int((label == number).sum()) for number in range(3)]
    record = {
        "source": "season:flanders",
        "season_start": "2018-01-01",
        "dates": ["2018-05-01", "2018-06-01"],
        "classes": dict(zip(names, colours, strict=True)),
        "areas": {name: {"pixels": count, "hectares": count / 100} for name, count in zip(names, pixels, strict=True)},
        "unmapped_pixels": int((label == VOID).sum()),
        "masked_pixels": 0,
    }
    (folder / "map.json").write_text(json.dumps(record))
    return folder


def layer(path, boxes, **columns):
    geometry = shapely.to_wkb([shapely.box(*box) for box in boxes])
    values = [np.array(value, object) for value in columns.values()]
    pyogrio.raw.write(
        path, geometry=geometry, field_data=values, fields=list(columns), geometry_type="Polygon", crs="EPSG:32631"
    )
    return path


def grey(uri):
    with MemoryFile(base64.b64decode(uri.partition(",")[2])) as memory, memory.open() as file:
        return file.read(1)


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture
def folder(tmp_path):
    label = np.repeat([0, 1, 2, VOID], [300, 1500, 900, 300]).reshape(50, 60)
    return finished(tmp_path / "map", label)


def test_all_that_the_page_shows_is_inside(folder, tmp_path):
    outlines = layer(tmp_path / "fields.gpkg", [(500_000, 5_599_800, 500_100, 5_600_000), (0, 0, 9, 9)])
    (tmp_path / "tags.csv").write_text("x,y,size,crops\n500300,5599800,120,wheat\n9,9,120,maize\n")
    out = tmp_path / "map.html"
    with warnings.catch_warnings(action="error"):
        notes = write_map_page(folder, out, outlines=outlines, tags=tmp_path / "tags.csv")
    assert notes == ["1 of 2 rows of tags.csv lie beside the map"]
    page = out.read_text()
    assert not re.search(r'(src|href)="|url\(|@import|https?://(?!www\.w3\.org)', page)
    data = content(page)
    with rasterio.open(folder / "class.tif") as file:
        np.testing.assert_array_equal(grey(data["label"]), file.read(1))
    assert data["outlines"] == ["M10.0,20.0L10.0,0.0L0.0,0.0L0.0,20.0Z"] or len(data["outlines"]) == 1
    assert data["squares"] == [{"box": [24.0, 14.0, 12.0, 12.0], "crops": ["wheat"]}]
    assert data["metres"] == pytest.approx(10)
    assert [each["name"] for each in data["classes"]] == ["background", "wheat", "maize </script>"]
    assert data["classes"][1]["share"] == pytest.approx(1500 / 2700)
    assert "only the largest" not in page


def test_a_large_map_is_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(map_page, "PAGE", 25)
    monkeypatch.setattr(map_page, "MOST_OUTLINES", 1)
    label = np.kron([[1, 2], [2, 1]], np.ones((30, 45), int))
    folder = finished(tmp_path / "map", label)
    outlines = layer(
        tmp_path / "fields.gpkg", [(500_000, 5_599_990, 500_010, 5_600_000), (500_000, 5_599_400, 500_900, 5_600_000)]
    )
    notes = write_map_page(folder, tmp_path / "map.html", outlines=outlines)
    assert notes == ["only the largest 1 outlines of fields.gpkg are drawn"]
    data = content((tmp_path / "map.html").read_text())
    assert (data["height"], data["width"]) == (15, 22)
    assert data["metres"] == pytest.approx(10 * 90 / 22)
    assert grey(data["label"])[0, 0] == 1
    assert grey(data["label"])[0, -1] == 2


def test_the_images_are_a_layer_where_the_map_has_them(folder, tmp_path):
    write_map_page(folder, tmp_path / "without.html")
    assert '<img id="images"' not in (tmp_path / "without.html").read_text()
    (folder / "true_colour.png").write_bytes(b"a picture")
    write_map_page(folder, tmp_path / "with.html")
    assert f'src="{data_uri(b"a picture")}"' in (tmp_path / "with.html").read_text()


def test_layers_of_other_land_are_refused(folder, tmp_path):
    away = layer(tmp_path / "away.gpkg", [(0, 0, 9, 9)])
    with pytest.raises(DataError, match="away.gpkg: none of its outlines lies on the map"):
        write_map_page(folder, tmp_path / "map.html", outlines=away)
    write_map(tmp_path / "bare", np.ones((9, 9)))
    with pytest.raises(CorruptError, match="holds no source, season_start, dates, areas. Make the map again"):
        write_map_page(tmp_path / "bare", tmp_path / "map.html")
    with pytest.raises(DataError, match="no map here"):
        write_map_page(tmp_path, tmp_path / "map.html")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_it(folder, tmp_path):
    """The script runs: the legend, the layers and the scale are of its making."""
    write_map_page(folder, tmp_path / "map.html")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tmp_path}/map.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "15.0 ha" in shown
    assert "maize &lt;/script&gt;" in shown
    assert shown.count('type="range"') == 2
    assert re.search(r'id="scale"[^>]*>\d+ m<', shown)
