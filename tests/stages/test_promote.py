"""A segmenter's way into MLflow's registry: challenger, champion, reuse; and that it loads without this package."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from exact_core.artifacts.model_folders import load_segmenter
from exact_core.config import PromotionConfig, override
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, ServiceError
from exact_core.evaluation.paired_bootstrap import UnitCounts
from exact_core.mapping.predict import Predictor
from exact_core.stages import promote as promoting
from exact_core.stages.champion import champion
from exact_core.stages.champions import fetch_registered
from exact_core.stages.promote import decide_first, promote, read_decision
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.registry import CHALLENGER, CHAMPION, Origin, Registry
from exact_core.tracking.runs import NoTracker, tracking_uri
from exact_core.training.loop import choose_device

NAME = "exact-synthetic"
SPLIT = {"self_scored": False, "seed": 0}


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory, config, dataset_folder):
    """A poor segmenter and a better one, on dense labels."""
    root = tmp_path_factory.mktemp("segmenters")
    for name, epochs in {"poor": 1, "good": 30}.items():
        training = {"epochs": epochs, "learning_rate": 0.01, "keep_dates": 1.0}
        # Without balance the classes of most pixels are learned first, which a better model has to beat. A regression
        # of single pixels would make the poor one good.
        alone = ["segmenter.balance=0", "segmenter.pixel_weight=0"]
        changed = override(config, [*alone, *(f"segmenter.training.{key}={value}" for key, value in training.items())])
        train_segmenter(changed, dataset=dataset_folder, masks=None, out=root / name, tracker=NoTracker())
    return root


@pytest.fixture
def place(config, dataset_folder, segmenters, tracked, tmp_path):
    """Run the stage on one of them; its summary and its record."""

    def placed(name, pipeline_run, changes=(), **arguments):
        out = tmp_path / f"{name}-{pipeline_run}"
        settings = {"dataset": dataset_folder, "segmenter": segmenters / name, "model": NAME, "out": out, **arguments}
        with tracked("promote", pipeline_run) as tracker:
            summary = promote(override(config, list(changes)), tracker=tracker, **settings)
            assert tracker.client.get_run(tracker.run_id).info.status == "RUNNING"
        return summary, json.loads((out / "metrics.json").read_text())

    return placed


def aliases():
    found = MlflowClient(tracking_uri=tracking_uri()).get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_the_better_of_two_becomes_champion_and_the_reason_is_kept(place, tmp_path):
    summary, record = place("poor", "run-1")
    assert summary == {"promoted": 1.0}
    assert record["reason"].startswith("the first version")
    assert aliases() == {CHALLENGER: "1", CHAMPION: "1"}
    summary, record = place("good", "run-2", ["promotion.largest_class_loss=1"])
    assert record["champion"] == "1"
    assert summary["promotion_challenger"] > summary["promotion_champion"]
    assert summary["promotion_low"] <= summary["promotion_difference"] <= summary["promotion_high"]
    assert record["comparison"]["unit"] == "blocks"
    assert summary["promoted"] == float(summary["promotion_low"] > 0)
    assert aliases() == {CHALLENGER: "2", CHAMPION: "2" if summary["promoted"] else "1"}
    version = MlflowClient(tracking_uri=tracking_uri()).get_model_version(NAME, aliases()[CHAMPION])
    assert version.tags["exact.champion_reason"]
    said = read_decision(tmp_path / "good-run-2")
    assert "version 2" in said
    assert "| background |" in said


def test_a_first_model_below_a_given_floor_does_not_become_champion(place, dataset, segmenters):
    """The floor is the model's own figure, so that it stands just above or at it."""
    config = load_segmenter(segmenters / "good", dataset)[2]
    figure = promoting._counts(config, dataset, segmenters / "good").figure
    _, record = place("good", "run-1", [f"promotion.first_floor={figure + 1e-6}"])
    assert not record["promoted"]
    assert record["reason"].startswith(f"the first version is below the floor (miou {100 * figure:.1f}")
    assert aliases() == {CHALLENGER: "1"}
    _, record = place("good", "run-2", [f"promotion.first_floor={figure}"])
    assert record["promoted"]
    assert aliases() == {CHALLENGER: "2", CHAMPION: "2"}
    nothing = UnitCounts("miou", "blocks", np.zeros((4, 3, 3), np.int64))
    assert not decide_first(nothing, PromotionConfig(first_floor=0.1), figures={"expected_low": 1.0}, **SPLIT)[0]


def test_by_default_a_first_model_must_beat_its_most_frequent_class_alone(place):
    _, record = place("poor", "run-1", ["promotion.first_floor=majority"])
    assert not record["promoted"]
    assert "it stays challenger. Give more tags or train longer" in record["reason"]
    assert aliases() == {CHALLENGER: "1"}
    _, record = place("good", "run-2", ["promotion.first_floor=majority"])
    assert record["promoted"]
    assert re.search(r"; OA [\d.]+ against [\d.]+ of the most frequent class alone, 95% interval", record["reason"])
    assert aliases() == {CHALLENGER: "2", CHAMPION: "2"}


def units(*confusions):
    return UnitCounts("miou", "blocks", np.array(confusions, np.int64))


@pytest.mark.parametrize(
    ("counts", "promoted"),
    [
        (units(*[[[60, 0], [5, 35]]] * 9), True),
        # Only the most frequent class: no better than itself.
        (units(*[[[60, 0], [40, 0]]] * 9), False),
        # An mIoU above 30 is not enough where more pixels are wrong than if all were background.
        (units(*[[[31, 29], [10, 30]]] * 9), True),
        (units(*[[[28, 32], [10, 30]]] * 9), False),
        # Better in two blocks, worse in seven: by chance.
        (units(*[[[60, 0], [0, 40]]] * 2, *[[[50, 10], [35, 5]]] * 7), False),
    ],
)
def test_mean_iou_and_accuracy_are_both_above_those_of_one_class(counts, promoted):
    config = PromotionConfig()
    assert config.first_floor == "majority"
    assert decide_first(counts, config, figures={}, **SPLIT)[0] is promoted


def test_without_dense_labels_the_expectation_of_the_masks_decides():
    """Of three crops and background, one class alone has an mIoU of at most a quarter."""
    counts = UnitCounts("tag_f1", "blocks", np.ones((4, 3, 3), np.int64))
    for low, promoted in ((0.26, True), (0.25, False), (0.0, False), (None, False)):
        figures = {} if low is None else {"expected_low": low}
        decided, reason = decide_first(counts, PromotionConfig(), figures=figures, **SPLIT)
        assert decided is promoted
        assert "no dense labels" in reason
        assert low is None or "a map of one class has at most 25.0" in reason
        # Tags of left-out squares that are no better than 95 % of guesses: only where there is no test split.
        figures |= {"tag_map_held_out": 0.5, "tag_map_held_out_guess_high": 0.5}
        assert decide_first(counts, PromotionConfig(), figures=figures, **SPLIT) == (decided, reason)
        assert not decide_first(counts, PromotionConfig(), figures=figures, self_scored=True, seed=0)[0]
        figures["tag_map_held_out"] = 0.51
        assert decide_first(counts, PromotionConfig(), figures=figures, self_scored=True, seed=0)[0] is promoted


def test_a_worse_one_stays_challenger_and_says_why(place):
    place("good", "run-1")
    summary, record = place("poor", "run-2")
    assert summary["promoted"] == 0
    assert "The lower end is not above +0.0" in record["reason"]
    assert aliases() == {CHALLENGER: "2", CHAMPION: "1"}
    # Asked for less, the gate lets it pass.
    summary, _ = place("poor", "run-3", ["promotion.minimum_gain=-1", "promotion.largest_class_loss=1"])
    assert summary["promoted"] == 1
    assert aliases() == {CHALLENGER: "3", CHAMPION: "3"}


def test_a_repeated_stage_registers_nothing_twice(place, tmp_path):
    place("poor", "run-0")
    gate = ["promotion.largest_class_loss=1"]
    first = place("good", "run-1", gate)
    assert (first[1]["version"], first[1]["champion"], first[1]["promoted"]) == ("2", "1", True)
    shutil.rmtree(tmp_path / "good-run-1")
    # The first try moved the alias. The repeated one decides as it did, against the champion that it replaced.
    assert place("good", "run-1", gate) == first
    Registry.of_person().set_alias(NAME, CHAMPION, "1", reason="by hand")
    shutil.rmtree(tmp_path / "poor-run-0")
    assert place("poor", "run-0")[1]["promoted"]


def test_a_version_that_a_person_made_champion_is_not_judged_again(place, tmp_path):
    place("good", "run-1")
    assert not place("poor", "run-2")[1]["promoted"]
    Registry.of_person().set_alias(NAME, CHAMPION, "2", reason="by hand")
    shutil.rmtree(tmp_path / "poor-run-2")
    _, again = place("poor", "run-2")
    assert (again["promoted"], again["reason"]) == (True, "it is the champion already")


def test_without_dense_labels_tags_are_compared(place, tmp_path, dataset_folder, monkeypatch):
    place("poor", "run-1")

    class Unlabelled(WindowDataset):
        def __init__(self, root):
            super().__init__(root)
            self.manifest = self.manifest.model_copy(update={"has_labels": False})

    monkeypatch.setattr(promoting, "WindowDataset", Unlabelled)
    _, record = place("good", "run-2")
    assert record["comparison"]["metric"] == "tag_f1"
    assert set(record["comparison"]["per_class"]) == set(WindowDataset(dataset_folder).manifest.classes)


def test_a_dataset_scored_on_itself_promotes_nothing_but_the_first(place, dataset_folder, monkeypatch):
    class Alone(WindowDataset):
        def __init__(self, root):
            super().__init__(root)
            self.manifest = self.manifest.model_copy(update={"self_scored": True})

    monkeypatch.setattr(promoting, "WindowDataset", Alone)
    assert place("poor", "run-1")[0]["promoted"] == 1
    summary, record = place("good", "run-2")
    assert summary["promoted"] == 0
    assert "trained and scored on itself" in record["reason"]


def test_a_champion_of_other_classes_is_not_compared(place, config, tmp_path):
    place("good", "run-1")
    other = override(config, ["data.synthetic.crops=4"])
    ingest_synthetic(other.data, tmp_path / "other", seed=1)
    train_segmenter(other, dataset=tmp_path / "other", masks=None, out=tmp_path / "new", tracker=NoTracker())
    summary, record = place("good", "run-2", dataset=tmp_path / "other", segmenter=tmp_path / "new")
    assert summary == {"promoted": 0.0}
    assert "cannot map this dataset" in record["reason"]
    assert "classes" in record["reason"]


def test_untracked_nothing_is_registered(config, dataset_folder, segmenters, tmp_path):
    arguments = {"dataset": dataset_folder, "segmenter": segmenters / "good", "model": NAME, "out": tmp_path / "out"}
    assert promote(config, tracker=NoTracker(), **arguments) == {"promoted": 0.0}
    assert "not promoted" in read_decision(tmp_path / "out")


def test_an_older_run_does_not_cross_a_newer_one(place, tracked):
    """It began first, is better, and comes last."""
    with tracked("preflight", "run-old"):
        pass
    assert place("poor", "run-new")[0]["promoted"] == 1
    summary, record = place("good", "run-old", ["promotion.minimum_gain=-1", "promotion.largest_class_loss=1"])
    assert summary == {"promoted": 0.0}
    assert "not compared with champion 1: its run began at" in record["reason"]
    assert "an older run does not replace a newer one. Move the alias by hand" in record["reason"]
    assert aliases() == {CHALLENGER: "2", CHAMPION: "1"}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            ("2025-04-01", "2026-02"),
            ("2026-04-01", "2026-01"),
            "its season began on 2026-04-01, this one's on 2025-04-01",
        ),
        (("2026-04-01", "2026-01"), ("2025-04-01", "2026-02"), ""),
        (("2026-04-01", "2026-01"), ("2026-04-01", "2026-02"), "its run began at 2026-02, this one at 2026-01"),
        (("", "2026-02"), ("2026-04-01", "2026-01"), ""),
        (("", "2026-01"), ("", "2026-01"), ""),
    ],
)
def test_which_run_is_older(ours, theirs, said):
    assert promoting._older(Origin(*ours), Origin(*theirs)) == said


def test_of_two_that_would_replace_one_champion_at_once_one_does(place, tracked):
    place("poor", "run-1")
    client = MlflowClient(tracking_uri=tracking_uri())
    for _ in range(2):
        client.create_model_version(NAME, "x", None)
    with tracked("promote", "a") as first, tracked("promote", "b") as second:
        registries = [Registry.of(first), Registry.of(second)]
        with ThreadPoolExecutor(2) as pool:
            done = list(
                pool.map(lambda each, v: each.replace_champion(NAME, "1", v, reason=""), registries, ["2", "3"])
            )
        assert sorted(done) == [False, True]
        assert aliases()[CHAMPION] == "23"[done.index(True)]
        assert not registries[0].replace_champion(NAME, None, "1", reason="")
    assert not client.get_registered_model(NAME).tags


def test_a_champion_is_fetched_as_it_was_trained(place, segmenters, tracked, tmp_path):
    place("good", "run-1")
    with tracked("champion", "run-9") as tracker:
        champion(model=NAME, version="1", out=tmp_path / "chosen", tracker=tracker)
    wanted = (segmenters / "good" / "weights.safetensors").read_bytes()
    assert (tmp_path / "chosen" / "weights.safetensors").read_bytes() == wanted
    with pytest.raises(ServiceError, match="runs are not tracked"):
        champion(model=NAME, version="1", out=tmp_path / "x", tracker=NoTracker())


ALONE = """
import json, sys
import numpy as np

# The package itself is not to be found here.
sys.meta_path = [finder for finder in sys.meta_path if "ditable" not in str(finder)]
sys.path = [path for path in sys.path if path not in ("", sys.argv[3])]
try:
    import exact_core
    sys.exit("the package is there: this shows nothing")
except ImportError:
    pass
import mlflow

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/exact-synthetic@champion")
arrays = dict(np.load(sys.argv[2]))
np.save(sys.argv[2] + ".out.npy", model.predict(arrays))
import exact_core
assert "exact_core.training" not in sys.modules
try:
    import exact_core.training
    sys.exit("training code travels with the model")
except ImportError:
    pass
print(json.dumps(model.metadata.metadata))
"""


def test_a_logged_model_loads_without_this_package_and_predicts_the_same(
    place, config, dataset_folder, segmenters, tmp_path
):
    """Weights in safetensors, no pickle; the same probabilities as ours, whatever the padding."""
    place("good", "run-1")
    client = MlflowClient(tracking_uri=tracking_uri())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        files = [path.name for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert "weights.safetensors" in files
    assert "input_example.json" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]
    windows = WindowDataset(dataset_folder)
    indices = windows.indices("test").tolist()
    model, manifest, trained = load_segmenter(segmenters / "good", windows)
    device = choose_device("cpu")
    encoder = trained.segmenter.reading.model_copy(update={"mask_clouds": False})
    expected = Predictor(model, windows, encoder, manifest.statistics, device, 8).probabilities(indices)
    longest = max(len(windows.window(index).days) for index in indices) + 3
    pixels = np.zeros((len(indices), longest, *windows.window(indices[0]).pixels.shape[1:]), np.int16)
    days = np.full((len(indices), longest), -1, np.int64)
    for row, index in enumerate(indices):
        window = windows.window(index)
        pixels[row, : len(window.days)], days[row, : len(window.days)] = window.pixels, window.days
    np.savez(tmp_path / "in.npz", pixels=pixels, days=days)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tracking_uri(), str(tmp_path / "in.npz"), root],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "in.npz.out.npy"), expected, atol=2e-5)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["classes"] == ["background", *windows.manifest.classes]
    assert told["bands"] == list(windows.manifest.bands)
    version = client.get_model_version(NAME, "1")
    assert Registry.of(NoTracker()) is None
    assert version.tags["exact.weights_sha256"] == manifest.weights.sha256


def test_the_model_carries_its_figures_and_the_champion_has_a_history(place, exact, tmp_path):
    """What MLflow's own pages compare; and back to the first version by hand, with both times it was champion."""
    figures = {"miou_macro": 0.5, "oa_micro": 0.75, "nothing": float("nan")}
    place("poor", "run-1", figures=figures)
    place("good", "run-2", figures={"miou_macro": 0.8})
    client = MlflowClient(tracking_uri=tracking_uri())
    first, _ = sorted(client.search_model_versions(f"name = '{NAME}'"), key=lambda each: int(each.version))
    model = client.get_logged_model(first.source.removeprefix("models:/"))
    assert model.name.startswith(f"{NAME}-2")
    (name,) = {each.dataset_name for each in model.metrics}
    # By source and first day, which tells regions and seasons apart.
    assert re.fullmatch(r"synthetic \d{4}-\d\d-\d\d", name)
    assert {(each.key, each.value) for each in model.metrics} == {("miou_macro", 0.5), ("oa_micro", 0.75)}
    assert first.tags["exact.promoted"] == "True"
    assert first.tags["exact.decision"].startswith("the first version")

    current = aliases()[CHAMPION]
    other = {"1": "2", "2": "1"}[current]
    code, said, _ = exact("champion", NAME)
    assert code == 0
    assert said.startswith(f"version {current} (")
    code, said, _ = exact("champion", NAME, "--to", other, "--reason", "the map was wrong in the east")
    assert (code, said) == (0, f"champion of {NAME}: version {other} (before: {current})\n")
    assert aliases()[CHAMPION] == other
    code, said, _ = exact("champion", NAME, "--history")
    lines = {line.split()[1]: line for line in said.splitlines()}
    assert list(lines) == ["2", "1"]
    assert "miou_macro 50.0 % on synthetic" in lines["1"]
    assert "the map was wrong in the east" in lines[other]
    assert "champion since 2" in lines[other]
    assert exact("champion", NAME, "--to", "9")[2] == f"exact: {NAME} has no version '9'. It has 2, 1\n"
    assert f"has no model of this name. It has {NAME}" in exact("champion", "exact-none")[2]
    folder = fetch_registered(f"{NAME}@champion", tmp_path / "fetched")
    assert (folder / "model.json").is_file()
    with pytest.raises(ConfigError, match="no such alias. exact-synthetic has challenger, champion"):
        fetch_registered(f"{NAME}@best", tmp_path / "none")
