"""A week of work with one region and then another, as a person types it, and every message in answer.

In an expected text, `…` stands for what differs from machine to machine or from run to run.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from mlflow import MlflowClient

from tests.conftest import TINY
from tests.fakes import BANDS, SEASON_LEFT, SEASON_TOP, write_season

pytestmark = pytest.mark.slow

# So little training may be worse than the most frequent class, and then no champion.
CHANGED = [
    *(each for each in TINY if "synthetic" not in each and "relearn" not in each),
    # So short a training gives CAMs that nothing need confirm.
    "masks.relearn.few_windows=0",
    "promotion.first_floor=0",
]
SETTINGS = [part for setting in CHANGED for part in ("--set", setting)]
HEIGHT, WIDTH, WINDOW = 24, 96, 12
USUAL = (
    "4 of 4 dates, the first S2_20180401 (2018-04-01), state no offset that holds, and nothing dark shows whether one "
    "is in: 0 is guessed, as they are before 2022-01-25; state it by data.season.offset, 0 or 1000"
)


def images(folder: Path, year: str = "2018") -> None:
    """Two crops that are green at different dates: one in the left half, one in the right."""

    def change(date, band, values):
        right = np.arange(values.shape[1])[None] >= values.shape[1] // 2
        green = (date + 2 * right) % 4
        step = 600 * green if BANDS.index(band) >= 6 else 150 * (3 - green)
        return (values + step).astype(values.dtype)

    dates = [f"{year}{day}" for day in ("0401", "0411", "0421", "0501")]
    write_season(folder, size=(HEIGHT, WIDTH), dates=dates, labels=False, legend=None, change=change)


def tags(folder: Path, *, separator: str = ",", point: str = ".", first: str = "x", size: str = "120") -> None:
    """A square for each window. `Wheat` is spelled in two ways where cells are separated by semicolons."""
    second = "y" if first == "x" else "x"
    lines = [separator.join((first, second, "size", "crops"))]
    for row in range(WINDOW // 2, HEIGHT, WINDOW):
        for col in range(WINDOW // 2, WIDTH, WINDOW):
            place = [f"{SEASON_LEFT + 10 * col:.1f}", f"{SEASON_TOP - 10 * row:.1f}"]
            wheat = "Wheat" if separator == ";" and row < WINDOW else "wheat "
            crop = wheat if col < WIDTH // 2 else "maize"
            lines.append(separator.join([*(each.replace(".", point) for each in place), size, crop]))
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def same(said: str, expected: str) -> None:
    """Whether a text is as expected, line by line."""
    wanted = expected.strip("\n").splitlines()
    lines = said.strip("\n").splitlines()
    for line, want in zip(lines, wanted, strict=False):
        assert re.fullmatch(".*".join(map(re.escape, want.split("…"))), line), f"{line}\nexpected {want}\n\n{said}"
    assert len(lines) == len(wanted), said


def start(*arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own, which hears Ctrl-C though the tests may run in the background."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from exact_kubeflow.cli.app import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def types(exact):
    """Type a command, and compare all that it says with what is expected."""

    def typed(command: str, expected: str, *more: str, code: int = 0) -> None:
        ended, out, err = exact(*command.split(), *more)
        assert ended == code, err
        same(out + err, expected)

    return typed


def test_a_week(tmp_path, tracking_file, monkeypatch, types):
    monkeypatch.chdir(tmp_path)
    for name in ("flanders_2018", "zeeland_2018"):
        images(Path(name))
    images(Path("flanders_2019"), "2019")
    tags_are_read_in_three_spellings(types)
    the_first_region(tmp_path)
    the_map_and_what_it_says(types)
    another_season_and_the_model(types)
    the_second_region_is_killed_and_goes_on(tmp_path, types)
    what_is_wrong_is_said_in_a_line(types)


def tags_are_read_in_three_spellings(types) -> None:
    """Monday: look at the squares on the images."""
    place = Path("flanders_2018")
    shown = """
scene: 96 × 24 pixels of 10 m, 1 scene
season: 2018-04-01 to 2018-05-01 (31 days), 4 dates a scene
place: 50.5519° N, 3.0000° E to 50.5498° N, 3.0136° E (EPSG:32631)
{}tags: tags.csv: 16 squares; {} in 8, {} in 8
look: Fewer than 20 training windows are tagged with {} (8) and {} (8). Add scenes where they grow, give like crops …
preview: {}
"""
    tags(place)
    types(
        "inspect season:flanders_2018 --out comma.html",
        shown.format("", "wheat", "maize", "maize", "wheat", "comma.html"),
    )
    tags(place, separator="\t")
    types(
        "inspect season:flanders_2018 --out tab.html", shown.format("", "wheat", "maize", "maize", "wheat", "tab.html")
    )
    tags(place, separator=";", point=",")
    one = "tags: tags.csv: 'Wheat' and 'wheat' are one crop\n"
    types("inspect season:flanders_2018", shown.format(one, "Wheat", "maize", "Wheat", "maize", "preview.html"))
    types(
        "inspect season:flanders_2018",
        "exact: preview.html: is there already. Choose another name, or replace it by --force",
        code=1,
    )
    assert "maize" in Path("preview.html").read_text()


def the_first_region(tmp_path: Path) -> None:
    """Tuesday: train and map."""
    out, err = start("run", "--source", "season:flanders_2018", "--workdir", "flanders", *SETTINGS).communicate()
    assert err == ""
    few = (
        "Fewer than 20 training windows are tagged with Wheat (8) and maize (8). Add scenes where they grow, give like "
        "crops one name in the class map, or leave them out as void."
    )
    same(
        out,
        f"""
== preflight (…)
… season: that of the source (none is given)
… preflight: code: ok: exact …
… preflight: folder for temporary files: ok: {tmp_path}/flanders/… can be written, … GB free
… preflight: object store: not set: EXACT_STORE: folders pass from step to step as the runner's own artifacts
… preflight: MLflow: ok: sqlite:///{tmp_path}/mlflow.db answers
… preflight: GPU: not set: no CUDA device. torch …
… preflight: data: ok: season:{tmp_path}/flanders_2018: 4 dates, 10 bands
… preflight: tags: ok: {few}
… preflight: memory: ok: training takes about … GB, … GB are free
… preflight: a step that trains gets 4 cores, …G of memory, no GPU
== ingest (…)
… ingest: note: labels are those of labels/tags.csv
… ingest: note: tags.csv: 'Wheat' and 'wheat' are one crop
… ingest: note: tags.csv: 16 squares; Wheat in 8, maize in 8
… ingest: note: {USUAL}
… ingest: note: 16 squares apart from each other are fewer than data.fewest_squares, 100: every window is used for …
… ingest: tags: {few}
… ingest: 16 windows (train 16, validation 0, test 0), 2 crops, digest …
== train-classifier (…)
… classifier: epoch 1/3, loss …, … windows/s, about … left
… classifier: epoch 2/3, loss …, … windows/s, about … left
… classifier: epoch 3/3, loss …, … windows/s
… classifier: … windows/s (median of epochs, training alone), peak memory … GB, processes: 1
== generate-masks (…)
… masks: Wheat, maize tagged in few windows, so little can be said of them
… masks: 16 windows, threshold … (…), background …, expected OA …, mIoU …
== train-segmenter (…)
… segmenter: epoch 1/2, loss …, … windows/s, about … left
… segmenter: epoch 2/2, loss …, … windows/s
… segmenter: … windows/s (median of epochs, training alone), peak memory … GB, processes: 1
… segmenter: a regression of single pixels, fitted to 2304 pixels of 16 windows
== map-season (…)
… map_season: rows 0 to 24 of 24 x 96 pixels, 4 dates, … windows, … at a time, … s
… map of 24 x 96 pixels: expected OA …, seams …, confidence not calibrated
== evaluate (…)
… evaluate: no dense labels, so the accuracy is not known, expected OA of the masks …, mIoU …, expected OA of the map …
… promote: exact-flanders version 1: the first version: no champion to compare with
== record-status (…)
… record_status: SUCCEEDED
MLflow: http://127.0.0.1:5000/#/experiments/…/runs/… (serve it with: mlflow ui --backend-store-uri …)
report: {tmp_path}/flanders/report.html
""",
    )


def the_map_and_what_it_says(types) -> None:
    """Wednesday: the next season with the same model, its areas, points to visit, and a layer of parcels."""
    shown = """
… ha …%
… ha …%
background … ha …%
seams: …
expected OA: …
pixel counts only. For standard errors: exact sample, then exact areas --reference
map: {}/class.tif (QGIS opens it with names and colours)
"""
    types("map season:flanders_2019 flanders/segmenter map19", shown.format("map19"))
    types("map season:flanders_2019 exact-flanders@champion again", shown.format("again"))
    assert Path("again/class.tif").read_bytes() == Path("map19/class.tif").read_bytes()
    types(
        "areas map19 --out areas.csv",
        """
class       counted ha
background …
Wheat      …
maize      …
counted areas include the errors of the map. A probability sample estimates them: exact sample
""",
    )
    types(
        "sample map19 --out points.csv --size 60",
        """
Wheat … of … pixels
maize … of … pixels
expected standard error of overall accuracy: … %. Half of it takes about … points
60 points in points.csv. Fill in `reference`, then: exact areas map19 --design stratified --reference points.csv
""",
    )
    with Path("points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("visited.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"reference": row["map_class"]} for row in rows)
    types(
        "areas map19 --reference visited.csv --design stratified",
        """
class       counted ha   estimated ha (95%) …user's % …producer's %
background …
Wheat … (… to …) …100.0 (… to 100.0) …100.0 (… to 100.0)
maize … (… to …) …100.0 (… to 100.0) …100.0 (… to 100.0)
overall accuracy 100.0 (… to 100.0) %, standard error 0.0 %
note: stratum Wheat: the map is right at all 30 samples, so its standard error counts as 0. Up to 10.0% may still …
note: stratum maize: the map is right at all 30 samples, so its standard error counts as 0. Up to 10.0% may still …
note: background: at no sample, so the area is estimated as 0 without a usable error. It is small, but not zero
""",
    )
    middle = SEASON_LEFT + 5 * WIDTH
    right, bottom = SEASON_LEFT + 10 * WIDTH, SEASON_TOP - 10 * HEIGHT
    halves = [(SEASON_LEFT, bottom, middle, SEASON_TOP), (middle, bottom, right, SEASON_TOP)]
    pyogrio.raw.write(
        "lpis.gpkg",
        geometry=shapely.to_wkb([shapely.box(*each) for each in halves]),
        field_data=[np.array([1, 2])],
        fields=["crop_code"],
        geometry_type="Polygon",
        crs="EPSG:32631",
    )
    types("parcels map19 lpis.gpkg --attribute crop_code", "        1 …\n        1 …\n2 parcels in parcels.parquet")
    types("polygons map19 --out fields.gpkg", "… …\n… …\n… polygons in fields.gpkg")
    types("view map19 --outlines fields.gpkg", "page: map.html (… kB)")


def another_season_and_the_model(types) -> None:
    """Thursday: whether the model holds there, and the champion."""
    types(
        "transfer season:flanders_2019 --segmenter exact-flanders@champion",
        """
verdict: fine. Map this season with the model.
report: transfer/report.html
""",
    )
    line = (
        "version 1 (challenger,champion); season of 2018-04-01; champion since …; the first version: no champion to "
        "compare with"
    )
    types("champion exact-flanders", line)
    types("champion exact-flanders --history", line)


def the_second_region_is_killed_and_goes_on(tmp_path: Path, types) -> None:
    """Friday: another region. Its run is stopped in the middle, and the same command ends it."""
    tags(Path("zeeland_2018"), separator="\t")
    types(
        "run --source season:zeeland_2018 --workdir flanders",
        f"exact: --workdir {tmp_path}/flanders: holds the results of a run (segmenter). Choose another folder, or "
        f"replace them by --force",
        code=1,
    )
    command = ["run", "--source", "season:zeeland_2018", *SETTINGS, "--set", "classifier.training.epochs=15"]
    process = start(*command)
    try:
        (folder,) = re.findall(r"^results: (zeeland_2018-\S+)$", process.stdout.readline())
        assert any("epoch 1/15" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    same(
        said,
        f"stopped: finished epochs are kept in {folder}. To continue, repeat the command with --workdir {folder}",
    )
    assert (tmp_path / folder / ".state/run.json").is_file()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("exact").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags and run.info.status == "KILLED"]
    assert "zeeland" in parent.info.run_name
    assert not [run for run in runs if run.info.status in ("RUNNING", "FAILED")]
    process = start(*command, "--workdir", folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert re.search(r" classifier: continuing after epoch \d+ of 15\n", out), out
    assert "exact-zeeland version 1: the first version: no champion to compare with\n" in out
    assert out.endswith(f"report: {tmp_path}/{folder}/report.html\n")
    types(
        f"compare flanders {folder}",
        f"""
… flanders … {folder}
Expected OA of the map …
Expected OA of the masks …
Expected mIoU of the masks …
Tags, mAP …
note: These maps were scored on different datasets, so their metrics are not comparable.
note: They do not have the same classes. The table shows the common ones.
comparison: comparison.html…
""",
    )


def what_is_wrong_is_said_in_a_line(types) -> None:
    """And what went wrong meanwhile."""
    for command, expected in (
        (
            "run --source flanders_2018",
            "exact: unknown source 'flanders_2018', expected …. Did you mean season:flanders_2018?",
        ),
        ("areas map19 --out areas.csv", "exact: areas.csv: is there already. Choose another name, or replace it …"),
        (
            "parcels map19 lpis.geojson --out lpis.geojson --force",
            "exact: lpis.geojson: expected a name that ends in …",
        ),
        ("areas mop19", "exact: mop19: no map here, map.json is missing. Make one with `exact map`"),
        (
            "evaluate d s e --classifier c",
            "exact: not there: DATASET d, SEGMENTER s, CLASSIFIER c. Name what an earlier command wrote",
        ),
        ("areas map19 --design stratified", "exact: --design stratified: of which places? name their file …"),
        ("champion exact-flanders --to 7", "exact: exact-flanders has no version '7'. It has 1"),
    ):
        types(command, expected, code=1)
    tags(Path("zeeland_2018"), size="0.12")
    types("ingest season zeeland_2018 d", "exact: …write 120 if kilometres were meant", code=1)
    tags(Path("zeeland_2018"), first="y")
    types("ingest season zeeland_2018 d", "exact: …with x and y exchanged they would: …", code=1)
    path = Path("zeeland_2018/labels/tags.csv")
    path.write_text(f"x;y;crops\n{SEASON_LEFT + 100};{SEASON_TOP - 100};maize,wheat\n")
    types("ingest season zeeland_2018 d", "exact: …crop 'maize,wheat' has a comma. Separate several crops by ;", code=1)
