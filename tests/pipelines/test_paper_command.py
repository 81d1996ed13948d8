"""The documented commands that reproduce the paper, on small folders in the layouts of PASTIS and of Germany.

Only sizes differ.
"""

import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from tests.fake_germany import write_germany
from tests.fakes import write_pastis

# Ten processes start one after the other: under a minute, but not where others compute too.
pytestmark = pytest.mark.slow

COMMANDS = {
    "pastis24": "exact run --recipe pastis24 --source pastis:ROOT",
    "germany": "exact run --recipe germany --source germany:ROOT",
}
SIZES = [
    "data.window=12",
    "data.max_dates=3",
    *(f"{model}.encoder.{size}" for model in ("classifier", "segmenter") for size in ("dim=16", "temporal_depth=1")),
    *(f"{model}.encoder.{size}" for model in ("classifier", "segmenter") for size in ("spatial_depth=1", "heads=1")),
    *(f"{model}.encoder.head_dim=8" for model in ("classifier", "segmenter")),
    *(f"{model}.training.batch=16" for model in ("classifier", "segmenter")),
    "classifier.training.epochs=2",
    "segmenter.training.epochs=2",
    "evaluation.panels=1",
]
CROPS = {"pastis24": 18, "germany": 17}
SIZE = 48


def fields():
    """Labels (48, 48) in which each of the 18 crops has a field of 12 x 8 pixels, under 4 rows of background."""
    i, j = np.ogrid[:SIZE, :SIZE]
    return np.where(i % 16 < 4, 0, 1 + j // 8 + 6 * (i // 16)).astype(np.uint8)


def crops_shine(_patch, images):
    """Each crop k shines in band k % 10, more from date to date, and the faster the higher k."""
    labels = fields().astype(np.int64)
    for date in range(len(images)):
        for band in range(images.shape[1]):
            shining = (labels > 0) & (labels % 10 == band)
            images[date, band] += np.where(shining, 300 + 20 * date * labels, 0).astype(np.int16)
    return images


def write_tiles(root):
    """Tiles of 480 m with those fields, of which the 18th is of no class; crops shine in the bands of 10 m."""
    labels = fields().astype(np.int64) % 18

    def shine(_tile, arrays):
        for date in range(len(arrays["dates/doy"]) - 2):
            for band in range(4):
                shining = (labels > 0) & (labels % 4 == band)
                arrays["x10"][date, :, :, band] += np.where(shining, 300 + 20 * date * labels, 0)
        return arrays

    classes = {number: f"crop {number}" for number in range(1, 18)}
    return write_germany(root, side=SIZE, labels=labels, classes=classes, change=shine)


@pytest.fixture(scope="module", params=COMMANDS)
def recipe(request):
    return request.param


@pytest.fixture(scope="module")
def ran(recipe, tmp_path_factory):
    """What the command said, and the folder with its results."""
    folder = tmp_path_factory.mktemp("paper")
    if recipe == "pastis24":
        root = write_pastis(folder / "PASTIS", size=SIZE, labels=fields(), change=crops_shine)
    else:
        root = write_tiles(folder / "240")
    program, *arguments = COMMANDS[recipe].replace("ROOT", str(root)).split()
    assert program == "exact"
    sizes = [part for size in SIZES for part in ("--set", size)]
    done = subprocess.run(
        [sys.executable, "-c", "from exact_kubeflow.cli.app import main; main()", *arguments, *sizes],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Its name has source and time.
    (report,) = folder.glob("*/report.html")
    return done.stdout, report.parent


def test_it_is_the_documented_command(recipe):
    root = Path(__file__).parents[2]
    for page in ("README.md", "docs/results.md") if recipe == "pastis24" else ("docs/results.md",):
        assert COMMANDS[recipe] in (root / page).read_text()


def test_everything_is_delivered(ran):
    said, results = ran
    assert {path.name for path in results.iterdir()} == {
        "classifier",
        "dataset",
        "evaluation",
        "masks",
        "promotion",
        "report.html",
        "run.log",
        "segmenter",
    }
    assert re.search(r"classifier: epoch 2/2, .* \d+ windows/s", said)
    assert re.search(r"segmenter: epoch 2/2, .* \d+ windows/s", said)
    assert f"report: {results / 'report.html'}" in said


def test_only_sizes_differ_from_the_recipe(recipe, ran):
    _, results = ran
    saved = yaml.safe_load((results / "segmenter" / "config.yaml").read_text())
    assert saved == resolve(recipe, overrides=SIZES).model_dump(mode="json")


def test_who_trains_who_chooses_who_is_scored(recipe, ran):
    _, results = ran
    dataset = WindowDataset(results / "dataset")
    assert dataset.classes == CROPS[recipe]
    assert dataset.tags.any(0).all()
    {"pastis24": pastis_splits, "germany": germany_splits}[recipe](dataset)
    metrics = json.loads((results / "evaluation" / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert not metrics["self_scored"]
    # Every pixel of the test split is scored once: no pixel of it is void, and the windows fill the patches.
    assert metrics["pixels"] == sum(record.split == "test" for record in dataset.records) * 12**2
    assert metrics["pseudo_masks"]["split"] == "train"


def germany_splits(dataset):
    tiles = {"1": "train", "2": "train", "10": "train", "3": "validation", "4": "test"}
    assert {(record.scene, record.split) for record in dataset.records} == {
        (f"2016-{tile}", split) for tile, split in tiles.items()
    }
    assert len(dataset.manifest.bands) == 13
    # Four dates, thinned to three over the season: 5 January, 10 May, 7 September.
    assert dataset.window(0).days.tolist() == [4, 129, 249]


def pastis_splits(dataset):
    assert {(record.fold, record.split) for record in dataset.records} == {
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (4, "validation"),
        (5, "test"),
    }
    # Four dates, of which the last by day of year is cut: 20 December 2018.
    assert {record.dates for record in dataset.records} == {3}
    days = dataset.window(0).days
    assert [str(dataset.manifest.season_start + dt.timedelta(days=int(day))) for day in days] == [
        "2018-11-05",
        "2019-01-02",
        "2019-02-10",
    ]


def test_figures_that_can_be_held_against_published_ones(recipe, ran):
    _, results = ran
    metrics = json.loads((results / "evaluation" / "metrics.json").read_text())
    for group in (metrics, metrics["pseudo_masks"], metrics["baselines"]["fused_cam"]):
        counts = np.array(group["confusion"]["counts"])
        assert counts.shape == (CROPS[recipe] + 1, CROPS[recipe] + 1)
        right, truth, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        assert group["oa_micro"] == pytest.approx(right.sum() / counts.sum())
        occurring = truth + predicted > 0
        iou = right[occurring] / (truth + predicted - right)[occurring]
        assert group["miou_macro"] == pytest.approx(iou.mean())
        if recipe == "pastis24":
            assert group["miou_published"] == pytest.approx(iou.sum() / (CROPS[recipe] + 1))
    masks = json.loads((results / "masks" / "masks.json").read_text())
    assert masks["rule"] == "borders"
