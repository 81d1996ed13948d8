"""`exact areas`, `exact sample`, `exact parcels` as a person types them."""

import csv
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from tests.mapping.maps import CLASSES, TRANSFORM, VOID, write_map


@pytest.fixture
def folder(tmp_path):
    """60 x 50 pixels: 10 % background, 60 % wheat, 20 % maize, 10 % without a class."""
    label = np.repeat([0, 1, 2, VOID], [300, 1800, 600, 300]).reshape(50, 60)
    return write_map(tmp_path / "map", label)


def test_counted_areas(exact, folder, tmp_path):
    code, said, _ = exact("areas", folder, "--out", tmp_path / "a.json")
    assert code == 0
    assert "wheat" in said
    assert "300 of 3,000 pixels are not mapped" in said
    assert "exact sample" in said
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["counted"]["wheat"] == {"pixels": 1800, "hectares": pytest.approx(18)}
    assert record["unmapped_pixels"] == 300
    assert "estimated" not in record
    assert exact("areas", folder, "--out", tmp_path / "a.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[2] == "wheat,1800,18.0"


def fill_in(path, truth):
    """What the campaign brings home: the class in truth of each row."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["reference"] = truth(number, row["map_class"])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_from_a_map_to_a_campaign_to_areas_with_errors(exact, folder, tmp_path):
    out = tmp_path / "visit.geojson"
    code, said, _ = exact("sample", folder, "--out", out, "--standard-error", "0.03", "--expected", "wheat=0.9")
    assert code == 0
    assert "wheat" in said
    assert "exact areas" in said
    # Every tenth mapped wheat pixel is maize in truth.
    rows = fill_in(out.with_suffix(".csv"), lambda n, name: "maize" if name == "wheat" and n % 10 == 0 else name)
    arguments = ["areas", folder, "--reference", out.with_suffix(".csv"), "--design", "stratified"]
    code, said, _ = exact(*arguments, "--out", tmp_path / "a.json")
    assert code == 0
    wheat = json.loads((tmp_path / "a.json").read_text())["estimated"]["classes"]["wheat"]["users_accuracy"]
    assert "overall accuracy" in said
    assert f"{100 * wheat['value']:.1f} ({100 * wheat['low']:.1f} to {100 * wheat['high']:.1f})" in said
    estimated = json.loads((tmp_path / "a.json").read_text())["estimated"]
    wheat = [row for row in rows if row["map_class"] == "wheat"]
    share = sum(row["reference"] == "maize" for row in wheat) / len(wheat)
    maize = estimated["classes"]["maize"]
    assert maize["hectares"]["value"] == pytest.approx(6 + 18 * share)
    assert maize["hectares"]["low"] < maize["hectares"]["value"] - maize["hectares"]["error"]
    assert maize["users_accuracy"]["value"] == 1
    assert estimated["design"] == "stratified"
    assert estimated["strata"]["wheat"] == {"pixels": 1800, "samples": len(wheat)}
    assert estimated["error_matrix"]["wheat"]["maize"] == pytest.approx(share * 1800 / 2700)
    assert any("maize: the map is right at all" in note for note in estimated["notes"])
    assert exact(*arguments, "--out", tmp_path / "a.csv")[0] == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    assert float(table["maize"]["hectares_error"]) == pytest.approx(maize["hectares"]["error"])
    assert float(table["wheat"]["producers_accuracy"]) == 1
    code, said, _ = exact(*arguments, "--looks", "--out", tmp_path / "looks.json")
    assert code == 0
    looks = json.loads((tmp_path / "looks.json").read_text())["estimated"]
    always, once = looks["overall_accuracy_at_every_look"], looks["overall_accuracy"]
    assert f"overall accuracy at every look: {100 * always['low']:.1f} to {100 * always['high']:.1f} %" in said
    assert always["low"] < once["low"] < once["high"] < always["high"]
    assert "overall_accuracy_at_every_look" not in estimated
    code, _, complaint = exact("sample", folder, "--out", out)
    assert code == 1
    assert f"{out}: is there already. Choose another name, or replace it by --force" in complaint
    # The table beside it holds what was filled in, too.
    assert exact("sample", folder, "--out", out.with_suffix(".gpkg"))[0] == 1


def test_half_the_error_takes_as_many_points_as_it_says(exact, folder, tmp_path):
    """The number that is printed, given as --size, halves the error that is printed."""

    def drawn(size, name):
        _, said, _ = exact("sample", folder, "--out", tmp_path / name, "--size", size, "--minimum", 2)
        return re.search(r"overall accuracy: (\S+) %\. Half of it takes about (\d+) points", said).groups()

    error, half = drawn(60, "a.csv")
    assert float(drawn(half, "b.csv")[0]) == pytest.approx(float(error) / 2, rel=0.03)


def test_hectares_follow_the_size_of_a_pixel(exact, tmp_path):
    """The same map and sample on pixels of twice the side: four times the hectares, the same shares."""
    label = np.repeat([1, 2], [200, 200]).reshape(20, 20)
    found = []
    for name, side in (("a", 10), ("b", 20)):
        folder = write_map(tmp_path / name, label, transform=TRANSFORM @ TRANSFORM.scale(side / 10))
        exact("sample", folder, "--out", tmp_path / f"{name}.csv", "--size", 40, "--minimum", 10, "--seed", 4)
        fill_in(tmp_path / f"{name}.csv", lambda n, _: CLASSES[1 + n % 2])
        reference = ["--reference", tmp_path / f"{name}.csv", "--design", "stratified"]
        assert exact("areas", folder, *reference, "--out", tmp_path / f"{name}.json")[0] == 0
        found.append(json.loads((tmp_path / f"{name}.json").read_text())["estimated"]["classes"]["wheat"])
    for part in ("value", "error", "low", "high"):
        assert found[1]["hectares"][part] == pytest.approx(4 * found[0]["hectares"][part])
        assert found[1]["share"][part] == pytest.approx(found[0]["share"][part])


def test_a_map_in_degrees_has_shares_and_no_hectares(exact, tmp_path):
    folder = write_map(
        tmp_path / "m",
        np.ones((20, 20)),
        crs="EPSG:4326",
        transform=TRANSFORM.translation(3, 50) @ TRANSFORM.scale(1e-4),
    )
    code, said, _ = exact("areas", folder, "--out", tmp_path / "a.json")
    assert code == 0
    assert "counted %" in said
    assert json.loads((tmp_path / "a.json").read_text())["counted"]["wheat"]["hectares"] is None


def test_parcels(exact, folder, tmp_path):
    parcels = [shapely.box(500_000, 5_599_700, 500_100, 5_599_800), shapely.box(0, 0, 9, 9)]
    pyogrio.raw.write(
        tmp_path / "a.gpkg",
        geometry=shapely.to_wkb(parcels),
        field_data=[np.array(["x", "y"], object)],
        fields=["owner"],
        geometry_type="Polygon",
        crs="EPSG:32631",
    )
    code, said, _ = exact(
        "parcels", folder, tmp_path / "a.gpkg", "--out", tmp_path / "p.parquet", "--attribute", "owner"
    )
    assert code == 0
    assert "note: parcels beside the map, left out: 1" in said
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["majority"] == ["wheat"]
    assert table["owner"] == ["x"]
    assert exact("parcels", folder, tmp_path / "a.gpkg", "--out", tmp_path / "p.gpkg", "--attribute", "owner")[0] == 0
    info = pyogrio.read_info(tmp_path / "p.gpkg")
    assert (info["driver"], info["layer_name"], info["features"], info["crs"]) == ("GPKG", "parcels", 1, "EPSG:32631")
    _, found = pyogrio.read_arrow(tmp_path / "p.gpkg", columns=["majority", "owner", "pixels"])
    assert found.select(["majority", "owner", "pixels"]).to_pylist() == [
        {"majority": "wheat", "owner": "x", "pixels": pytest.approx(table["pixels"][0])}
    ]


def test_nothing_is_written_over_what_is_there(exact, folder, tmp_path):
    """Neither an input, even by force; nor what another command made, but by force."""
    layer = tmp_path / "fields.gpkg"
    pyogrio.raw.write(
        layer,
        geometry=shapely.to_wkb([shapely.box(500_000, 5_599_700, 500_100, 5_599_800)]),
        field_data=[],
        fields=[],
        geometry_type="Polygon",
        crs="EPSG:32631",
    )
    before = layer.read_bytes()
    for more in ([], ["--force"]):
        code, _, complaint = exact("parcels", folder, f"{layer}|layername=fields", "--out", layer, *more)
        assert (code, complaint.strip()) == (
            1,
            f"exact: {layer}: is read by this command, and would be lost. Choose another name",
        )
        assert layer.read_bytes() == before
    code, _, complaint = exact("areas", folder, "--out", folder / "map.json", "--force")
    assert code == 1
    assert "is read by this command" in complaint
    mine = tmp_path / "mine.gpkg"
    mine.write_text("mine")
    assert "is there already" in exact("parcels", folder, layer, "--out", mine)[2]
    assert mine.read_text() == "mine"
    assert exact("parcels", folder, layer, "--out", mine, "--force")[0] == 0
    assert pyogrio.read_info(mine)["features"] == 1
    assert "ends in .parquet or .gpkg" in exact("parcels", folder, layer, "--out", tmp_path / "a.shp")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["areas", "nothing"], "nothing: no map here"),
        (["areas", "MAP", "--out", "a.txt"], "ends in .json or .csv"),
        (["areas", "MAP", "--reference", "a.csv"], "state how the points were drawn"),
        (["areas", "MAP", "--design", "simple"], "of which places?"),
        (["areas", "MAP", "--looks"], "--looks: at which places?"),
        (["areas", "MAP", "--reference", "a.csv", "--design", "purposive"], "only from places that chance chose"),
        (["areas", "MAP", "--reference", "none.csv", "--design", "simple"], "none.csv: cannot be read"),
        (["sample", "MAP", "--out", "a.shp"], "ends in .geojson, .gpkg or .csv"),
        (["sample", "MAP", "--out", "b.csv", "--expected", "rye=1"], "expected NAME=VALUE with a class of the map"),
        (["sample", "MAP", "--out", "b.csv", "--standard-error", "2"], "standard error 2.0"),
        (["parcels", "MAP", "none.gpkg"], "none.gpkg: no such file"),
    ],
)
def test_bad_input_is_one_clear_line(exact, folder, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, complaint = exact(*[folder if each == "MAP" else each for each in arguments])
    assert code == 1
    assert complaint.startswith("exact: ")
    assert words in complaint
