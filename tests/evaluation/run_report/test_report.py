"""The report and its figures, on small generated scenes whose predictions are the truth with flipped labels."""

from __future__ import annotations

import base64
import colorsys
import datetime as dt
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from exact_core.config import RunConfig, SyntheticConfig, override
from exact_core.data.synthetic import BANDS, CROPS, generate_scene
from exact_core.data.windows.dataset import VOID, DatasetManifest, FileEntry, Statistics
from exact_core.evaluation.chart_style import abbreviate
from exact_core.evaluation.html_page import data_uri, png_of
from exact_core.evaluation.palette import class_colours, colours_of, overlay_cam, paint, true_colour
from exact_core.evaluation.run_report.figures import confusion_figure, curves_figure, dates_figure
from exact_core.evaluation.run_report.report import (
    FinishedMap,
    Panel,
    ReportData,
    SceneMap,
    figure_files,
    write_report,
)
from exact_core.metrics import Scores, confusion_matrix

WINDOW = 24


def make_manifest(names: tuple[str, ...], *, labels: bool) -> DatasetManifest:
    return DatasetManifest(
        name="synthetic",
        source="synthetic",
        bands=BANDS,
        classes=names,
        window=WINDOW,
        season_start=dt.date(2022, 1, 15),
        season_days=300,
        has_labels=labels,
        has_clear=True,
        self_scored=False,
        statistics=Statistics(mean=(2000.0,) * 10, std=(900.0,) * 10, pixels=1, origin="training split: 225 windows"),
        splits={"train": 225, "validation": 50, "test": 75},
        tag_counts={name: 120 - 5 * number for number, name in enumerate(names)},
        index=FileEntry(name="index.parquet", sha256="0", bytes=1, windows=350),
        shards=(),
        notes=("the last rows were dropped",),
        digest="ab12cd34",
    )


def flip(labels: np.ndarray, *, share: float, classes: int, seed: int) -> np.ndarray:
    """Labels of which about `share` are drawn anew in 3 x 3 blobs; void becomes background."""
    rng = np.random.default_rng(seed)
    height, width = labels.shape
    grid = (-(-height // 3), -(-width // 3))
    drawn = np.kron(rng.integers(0, classes + 1, grid), np.ones((3, 3), int))[:height, :width]
    where = np.kron(rng.random(grid) < share, np.ones((3, 3), bool))[:height, :width]
    return np.where(where, drawn, np.where(labels == VOID, 0, labels)).astype(np.uint8)


def make_metrics(
    truths: list[np.ndarray], predictions: list[np.ndarray], names: tuple[str, ...], *, labels: bool, dense: bool
) -> dict[str, Any]:
    classes = len(names)

    def scores(predicted: list[np.ndarray]) -> dict[str, Any]:
        pairs = zip(truths, predicted, strict=True)
        matrix = sum((confusion_matrix(t, p, classes=classes) for t, p in pairs), np.zeros(1, np.int64))
        result = {
            **Scores(matrix).summary(names),
            "confusion": {"classes": ["background", *names], "counts": matrix.tolist()},
        }
        if labels:
            return result
        none = {"iou": None, "f1": None, "precision": None, "recall": None, "pixels": 0, "predicted_pixels": 0}
        empty = {"oa_micro": None, "miou_macro": None, "f1_macro": None, "pixels": 0}
        return {
            **empty,
            "per_class": dict.fromkeys(("background", *names), none),
            "confusion": {"classes": ["background", *names], "counts": np.zeros_like(matrix).tolist()},
        }

    def worse(share: float, seed: int) -> dict[str, Any]:
        return scores([flip(t, share=share, classes=classes, seed=seed) for t in truths])

    main = scores(predictions)
    majority = {"class": "background", "split": "test", "oa_micro": 0.31, "miou_macro": 0.05, "f1_macro": 0.07}
    return {
        "split": "test",
        "self_scored": False,
        "supervision": "dense" if dense else "tags",
        **main,
        "pseudo_masks": None if dense else {"split": "train", **worse(0.3, 5)},
        "baselines": {
            "fused_cam": None if dense else {"split": "train", **worse(0.5, 6)},
            "majority": majority if labels else None,
        },
        "tags": None if dense else {"map_macro": 0.913, "per_class": dict.fromkeys(names, 0.9)},
        "threshold": None if dense else 0.487,
        "threshold_rule": None if dense else "otsu",
    }


def make_masks(names: tuple[str, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    strongest = np.concatenate([rng.beta(2, 9, 4000), rng.beta(9, 3, 9000)])
    share = 0.7 / len(names)
    return {
        "threshold": 0.487,
        "rule": "otsu",
        "cam": "clue",
        "coverage": {"background": 0.3, **dict.fromkeys(names, share)},
        "histogram": np.histogram(strongest, 100, (0, 1))[0].tolist(),
        "windows": 275,
        "splits": ["train", "validation"],
        "quality": {
            "expected_oa": 0.87,
            "expected_miou": 0.8,
            "expected_low": 0.65,
            "expected_high": 0.95,
            "expected_by_class": {names[0]: 0.77},
            "tag_agreement": 0.97,
            "relearn_agreement": 0.88,
            "lost": names[-1:],
            "rare": names[:2],
        },
    }


def make_histories(epochs: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    classifier, segmenter = [], []
    for epoch in range(epochs):
        fall = float(np.exp(-epoch / 6))
        row = {"loss": 0.12 + 0.9 * fall, "loss_tags": 0.05 + 0.5 * fall, "loss_auxiliary": 0.06 + 0.5 * fall}
        row |= {"loss_affinity": 0.3 + 0.2 * fall, "validation_tag_map": 0.95 - 0.4 * fall}
        if epoch >= epochs // 3:
            row["loss_contrast"] = 0.4 + fall
        row |= {"validation_loss_tags": 0.08 + 0.5 * fall, "learning_rate": 1e-3, "windows_per_second": 80.0}
        classifier.append(row)
        segmenter.append({"loss": 0.2 + fall, "validation_miou": 0.8 - 0.5 * fall, "validation_oa": 0.9 - 0.4 * fall})
    return classifier, segmenter


def make_panel(
    image: np.ndarray, truth: np.ndarray, names: tuple[str, ...], *, dense: bool, labels: bool, title: str
) -> Panel:
    classes = len(names)
    tagged = [k for k in range(1, classes + 1) if (truth == k).mean() > 0.01]
    noise = np.random.default_rng(1).random(truth.shape)
    cam = np.stack([(truth == k) * (0.5 + 0.5 * noise) + 0.25 * (k in tagged) * noise for k in range(1, classes + 1)])
    return Panel(
        title=title,
        tags=tuple(names[k - 1] for k in tagged),
        image=image,
        cam=None if dense else cam.clip(0, 1).astype(np.float32),
        mask=None if dense else flip(truth, share=0.3, classes=classes, seed=2),
        prediction=flip(truth, share=0.12, classes=classes, seed=3),
        truth=truth if labels else None,
    )


def make_data(
    names: tuple[str, ...],
    *,
    scenes: int = 2,
    size: int = 48,
    panels: int = 2,
    epochs: int = 5,
    labels: bool = True,
    dense: bool = False,
) -> ReportData:
    """A report's content; `labels` says whether the truth is known, `dense` whether it was trained on."""
    settings = SyntheticConfig(scene_size=size, crops=min(len(names), len(CROPS)), dates=4)
    maps, truths, shown = [], [], []
    for number in range(scenes):
        scene = generate_scene(settings, window=WINDOW, seed=number + 3, name=f"scene{number:03d}")
        assert scene.labels is not None
        clearest = int(np.asarray(scene.clear).mean((1, 2)).argmax())
        image = true_colour(scene.pixels[clearest], BANDS)
        truth, predicted = scene.labels, flip(scene.labels, share=0.15, classes=len(names), seed=number)
        doubt = 0.3 * np.random.default_rng(number).random(truth.shape)
        confidence = (np.where(predicted == truth, 0.95, 0.55) - doubt).astype(np.float32)
        covered = predicted.copy()
        covered[-4:] = VOID
        truths.append(truth)
        maps.append(SceneMap(scene.name, image, covered, confidence, truth if labels else None))
        corners = [(r, c) for r in range(0, size - WINDOW + 1, WINDOW) for c in range(0, size - WINDOW + 1, WINDOW)]
        for r, c in corners:
            part = (slice(r, r + WINDOW), slice(c, c + WINDOW))
            shown.append(
                make_panel(
                    image[part], truth[part], names, dense=dense, labels=labels, title=f"{scene.name}, row {r}, col {c}"
                )
            )
    classifier, segmenter = make_histories(epochs)
    return ReportData(
        config=RunConfig(recipe="demo"),
        manifest=make_manifest(names, labels=labels),
        metrics=make_metrics(truths, [scene.prediction for scene in maps], names, labels=labels, dense=dense),
        masks=None if dense else make_masks(names),
        classifier_history=[] if dense else classifier,
        segmenter_history=segmenter,
        panels=shown[:panels],
        maps=maps,
        provenance={"recipe": "demo", "code version": "0.1.0", "dataset digest": "ab12cd34", "device": "cpu"},
        title="north",
    )


SIX = tuple(crop.name for crop in CROPS[:6])


def written(tmp_path: Path, data: ReportData) -> str:
    path = tmp_path / "report.html"
    write_report(path, data)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8").replace("\u00a0", " ")


def assert_self_contained(text: str) -> None:
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)\)", text)
    assert references
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    for reference in references:
        assert base64.b64decode(reference.partition(",")[2]).startswith(b"\x89PNG")


def test_report_tells_the_whole_story(tmp_path: Path) -> None:
    data = make_data(SIX)
    text = written(tmp_path, data)
    assert_self_contained(text)
    assert all(name in text for name in SIX)
    for key in ("oa_micro", "miou_macro", "f1_macro"):
        assert f"<b>{100 * data.metrics[key]:.1f} %</b>" in text
    assert f"<b>{100 * data.metrics['pseudo_masks']['miou_macro']:.1f} %</b>" in text
    assert f"OA {100 * data.metrics['baselines']['fused_cam']['oa_micro']:.1f} % · train split" in text
    maize = data.metrics["per_class"]["maize"]
    assert f"<td>{100 * maize['iou']:.1f} %</td><td>{100 * maize['f1']:.1f} %</td>" in text
    for caption, times in (("Pseudo mask", 2), ("CAM", 2), ("Prediction", 2), ("Confidence", 2), ("Reference", 4)):
        assert text.count(f"<figcaption>{caption}</figcaption>") == times
    assert "2022-01-15 to 2022-11-10" in text
    assert "0.487" in text
    assert f"Lost: {SIX[-1]}." in text
    assert f"Rare: {SIX[0]}, {SIX[1]}." in text
    assert "training split: 225 windows" in text
    assert "the last rows were dropped" in text
    assert "momentum_warmup: true" in text
    assert "Trained and scored on itself" not in text
    assert len(text) < 5_000_000


@pytest.mark.parametrize("count", [1, 18])
def test_any_number_of_classes(tmp_path: Path, count: int) -> None:
    names = tuple(crop.name for crop in CROPS[:count])
    text = written(tmp_path, make_data(names, scenes=1, panels=1))
    assert_self_contained(text)
    rows = re.findall(r"<td><i class=\"swatch\"[^>]*></i>([^<]*)</td>", text)
    assert rows == ["background", *names]


def test_without_truth_the_report_says_that_nothing_is_scored(tmp_path: Path) -> None:
    text = written(tmp_path, make_data(SIX, labels=False))
    assert_self_contained(text)
    assert "The accuracy of this map is not known" in text
    assert "What to expect of each crop" in text
    assert text.index(f"Lost: {SIX[-1]}.") < text.index("The crop map</h2>")
    assert "Confusion matrix" not in text
    assert "<figcaption>Reference</figcaption>" not in text
    # No tile without a value.
    assert "<b>–</b>" not in text
    assert "Accuracy by class" not in text
    assert "Upper row" not in text
    assert all(name in text for name in SIX)
    assert "<b>91.3 %</b>" in text  # tags are known, so their accuracy is
    assert "left-out" not in text
    assert "<th>Left out</th>" not in text


def test_tags_of_left_out_squares_are_shown_where_nothing_else_is_held_out(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1, labels=False)
    found = {"squares": 25, "map_macro": 0.623, "low": 0.5, "high": 0.75, "guess": 0.4, "beats_guess": True}
    found |= {"per_class": {**dict.fromkeys(SIX), "maize": 0.654}, "reason": None}

    def text(found: dict[str, Any]) -> str:
        metrics = {**data.metrics, "self_scored": True, "cross_validation": found}
        return written(tmp_path, replace(data, metrics=metrics)).replace("\n", " ")

    shown = text(found)
    assert "<b>62.3 %</b>" in shown
    assert "50.0 % to 75.0 %, a guess 40.0 %; pixel model" in shown
    assert "classifier, on the windows that trained it" in shown
    assert re.search(r"maize</td>\s*<td>\d+</td><td>90.0 %</td>\s*<td>65.4 %</td>", shown)
    unknown = text({**found, "map_macro": None, "per_class": dict.fromkeys(SIX), "reason": "too few"})
    assert "by the model of single pixels: cannot tell, too few" in unknown
    assert "left-out squares, mAP" not in unknown


def test_the_finished_map_is_shown_instead_of_windows_that_nothing_scores(tmp_path: Path) -> None:
    data = make_data(SIX, labels=False)
    picture = png_of(confusion_figure(("a",), np.ones((1, 1), np.int64)))
    areas = {**dict.fromkeys(SIX, (0, 0.0)), "maize": (300, 3.0), "background": (100, 1.0)}
    finished = FinishedMap(
        picture, picture, np.zeros((4, 4, 3)), areas, unmapped=100, seams="seams: 2.7 times. A smaller stride helps"
    )
    text = written(tmp_path, replace(data, finished=finished))
    assert_self_contained(text)
    assert text.count(data_uri(picture)) == 2
    rows = re.findall(r"</i>([^<]*)</td>\s*<td>([\d.]+)</td><td>(\d+)</td>\s*<td>([\d.]+) %", text)
    assert rows[:2] == [("maize", "3.0", "300", "75.0"), ("background", "1.0", "100", "25.0")]
    assert "20.0 % of the area is not" in text
    assert "Seams: 2.7 times. A smaller stride helps." in text
    assert "scene000" not in text.partition("From tags to masks")[0]


def test_a_generated_season_says_so_wherever_it_is_shown(tmp_path: Path) -> None:
    """Page, captions and the files of the figures: those say it in the pixels, above or below what they show."""
    real = make_data(SIX, scenes=1)
    generated = replace(real, generated=True)
    text = written(tmp_path, generated)
    assert "<title>Generated season: north</title>" in text
    assert "Crop map of a generated season: north</h1>" in text
    assert "<figcaption>Generated season, true colour</figcaption>" in text
    assert "Sentinel-2" not in text
    drawn = [figure_files(data, tmp_path / f"figures{number}") for number, data in enumerate((real, generated))]
    for one, other in zip(*drawn, strict=True):
        assert one.read_bytes() != other.read_bytes(), one.name


def test_curves_are_drawn_of_what_was_recorded(tmp_path: Path) -> None:
    """Without a validation split there is no empty chart for it."""
    with_validation, without = make_histories(3)[0], [{"loss": 1.0}, {"loss": 0.5}]
    titles = [axes.get_title(loc="left") for axes in curves_figure({"A": with_validation, "B": without}).axes]
    assert titles == ["A: losses", "A: validation", "B: losses"]


def test_dense_supervision_has_no_masks(tmp_path: Path) -> None:
    text = written(tmp_path, make_data(SIX, dense=True))
    assert "trained from dense labels" in text
    assert "Threshold of the pseudo masks" not in text
    assert "<figcaption>CAM</figcaption>" not in text


def test_who_made_the_map_is_said(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    assert re.search(r"a TSViT segmenter\s+trained from image-level", written(tmp_path, data))
    both = replace(data, config=override(data.config, ["segmenter.pixel_weight=0.5"]))
    found = r"a TSViT segmenter and a regression of single pixels\s+trained from image-level"
    assert re.search(found, written(tmp_path, both))


def test_self_scored_is_said(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    text = written(tmp_path, replace(data, metrics={**data.metrics, "self_scored": True, "split": "train"}))
    assert "Trained and scored on itself" in text


def test_what_nobody_can_tell_is_not_promised(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    masks = make_masks(SIX)
    assert "Estimates without ground truth: expected OA" in written(tmp_path, replace(data, masks=masks))
    unknown = {**masks, "quality": {**masks["quality"], "expected_oa": None, "expected_miou": None}}
    text = written(tmp_path, replace(data, masks=unknown))
    assert "Quality unknown." in text
    assert "Estimates without ground truth: expected OA" not in text


def test_accuracy_within_the_season_is_drawn_and_listed(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    assert "Accuracy within the season" not in written(tmp_path, data)
    rows = [
        {"days": days, "until": until, "oa_micro": oa, "miou_macro": None, "f1_macro": 0.5}
        for days, until, oa in ((120, "2018-07-29", 0.123), (300, "2019-01-25", 0.8))
    ]
    data = replace(data, metrics={**data.metrics, "by_date": rows})
    text = written(tmp_path, data)
    assert "Accuracy within the season" in text
    assert "2018-07-29" in text
    assert "12.3" in text
    assert ">–<" in text
    # Without labels, what is expected is drawn alone.
    rows = [{**row, "oa_micro": None, "f1_macro": None, "expected_oa": 0.777} for row in rows]
    assert [line.get_label() for line in dates_figure(rows).axes[0].lines] == ["Expected OA"]
    assert "77.7" in written(tmp_path, replace(data, metrics={**data.metrics, "by_date": rows}))
    paths = {path.name: path for path in figure_files(data, tmp_path / "figures")}
    assert "dates.png" in paths
    for name in ("dates", "confusion", "per_class", "curves"):
        assert data_uri(paths[f"{name}.png"].read_bytes()) in text


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    names = ("<b>Mais & Co</b>", "$\\frac{1$", "_hidden", 'quoted "beet"', "a" * 80, "Rüben")
    data = make_data(names, scenes=1)
    data = replace(data, provenance={"<script>": "</pre><script>alert(1)</script>"})
    text = written(tmp_path, data)
    assert "<b>Mais" not in text
    assert "<script" not in text
    assert all(name in html.unescape(text) for name in names)
    assert len(figure_files(data, tmp_path / "figures")) == 5


def test_nothing_recorded(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    masks = {**make_masks(SIX), "histogram": [0] * 100, "coverage": {}}
    bare = replace(data, classifier_history=[], segmenter_history=[], panels=[], maps=[], masks=masks)
    text = written(tmp_path, bare)
    assert "No epochs were recorded" in text
    assert "No scene was mapped" in text
    names = {path.name for path in figure_files(bare, tmp_path / "figures")}
    assert names == {"confusion.png", "per_class.png"}


def test_figure_files_are_readable(tmp_path: Path) -> None:
    paths = figure_files(make_data(SIX), tmp_path / "new" / "figures")
    assert {path.name for path in paths} == {"map.png", "panels.png", "confusion.png", "per_class.png", "curves.png"}
    assert sorted(paths) == sorted((tmp_path / "new" / "figures").iterdir())
    for path in paths:
        image = imread(path)
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.01


def test_large_scenes_are_thinned(tmp_path: Path) -> None:
    labels = np.zeros((900, 1000), np.uint8)
    noise = np.random.default_rng(0).random((900, 1000, 3))
    scene = SceneMap("wide", noise, labels, noise[..., 0].astype(np.float32), labels)
    text = written(tmp_path, replace(make_data(SIX, scenes=1), maps=[scene]))
    assert "1000 × 900 pixels" in text
    assert "thinned for display" in text
    assert len(text) < 5_000_000


def test_of_many_scenes_some_are_shown(tmp_path: Path) -> None:
    data = make_data(SIX, scenes=1)
    data = replace(data, maps=[replace(data.maps[0], name=f"tile {number}") for number in range(9)])
    text = written(tmp_path, data)
    assert "tile 5 <" in text
    assert "tile 6 <" not in text
    assert "6 of 9 scenes are shown" in text


def test_true_colour_is_not_darkened_by_a_cloud() -> None:
    ground = np.random.default_rng(0).integers(400, 900, (3, 40, 40)).astype(np.int16)
    cloudy = ground.copy()
    cloudy[:, :10, :10] = 6000
    clear, clouded = (true_colour(pixels, ("B04", "B03", "B02")) for pixels in (ground, cloudy))
    assert clouded[20:].mean() > 0.5 * clear[20:].mean()
    np.testing.assert_array_equal(clouded[:10, :10], 1.0)


@pytest.mark.parametrize("count", [1, 6, 20, 24, 25, 60, 254])
def test_colours_are_distinct(count: int) -> None:
    colours = class_colours(count)
    assert len(colours) == count + 1
    assert len(set(colours)) == count + 1
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours)
    assert colours == class_colours(254)[: count + 1]
    if count <= 20:
        rgb = np.array([to_rgb(colour) for colour in [*colours, "#ffffff"]])
        gaps = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 9 * np.eye(len(rgb))
        assert gaps.min() > 0.1


def test_paint_gives_the_exact_colours() -> None:
    labels = np.array([[0, 1, 2], [VOID, 2, 0]], np.uint8)
    colours = [to_rgb(colour) for colour in class_colours(2)]
    expected = [[colours[0], colours[1], colours[2]], [(1, 1, 1), colours[2], colours[0]]]
    np.testing.assert_array_equal(paint(labels, class_colours(2)), expected)
    np.testing.assert_array_equal(
        paint(np.array([[254]], np.uint8), class_colours(254))[0, 0], to_rgb(class_colours(254)[254])
    )


def test_colours_of_a_class_map_go_before_the_houses() -> None:
    own = colours_of(("wheat", "maize"), {"maize": "#112233", "rye": "#445566"})
    assert own == [class_colours(0)[0], colours_of(("wheat",), {})[1], "#112233"]


def test_a_crop_has_its_colour_wherever_it_stands() -> None:
    names = ("grassland", "maize", "winter wheat", "triticale", "zinnia")
    alone = {name: colours_of((name,), {})[1] for name in names}
    assert dict(zip(names, colours_of(names, {})[1:], strict=True)) == alone
    assert dict(zip(names[::-1], colours_of(names[::-1], {})[1:], strict=True)) == alone


def test_crops_look_like_what_they_are() -> None:
    """Hues in degrees: cereals yellow, maize orange, grass green, grapes purple."""
    for low, high, names in (
        (35, 60, ("winter wheat", "spring barley", "rye", "cereals", "oats")),
        (20, 38, ("grain maize", "maize", "silage maize")),
        (80, 150, ("grassland", "permanent grassland", "pasture", "temporary grass", "alfalfa", "woodland")),
        (290, 330, ("vineyards",)),
    ):
        for name in names:
            hue = 360 * colorsys.rgb_to_hls(*to_rgb(colours_of((name,), {})[1]))[0]
            assert low <= hue <= high, (name, hue)


def test_no_two_classes_of_a_map_look_the_same() -> None:
    names = [f"{season} {crop}" for season in ("winter", "spring", "") for crop in ("wheat", "durum wheat", "spelt")]
    names += [f"maize {number}" for number in range(40)] + [f"crop {number}" for number in range(200)]
    colours = colours_of(names, {})
    assert len(set(colours)) == len(names) + 1


def test_overlay_blends_by_the_strongest_class() -> None:
    image = np.zeros((1, 2, 3))
    cam = np.array([[[0.25, 0.0]], [[1.0, 0.0]]], np.float32)
    shown = overlay_cam(image, cam, class_colours(2))
    np.testing.assert_allclose(shown[0, 0], to_rgb(class_colours(2)[2]))
    np.testing.assert_allclose(shown[0, 1], 0.35)  # no activation: the grey image alone


def test_true_colour_picks_red_green_blue() -> None:
    pixels = np.zeros((4, 10, 10), np.int16)
    pixels[3] = 3000  # B04
    image = true_colour(pixels, ("B02", "B03", "B08", "B04"))
    np.testing.assert_array_equal(image[0, 0], [1, 0, 0])
    single = true_colour(np.arange(100, dtype=np.int16).reshape(1, 10, 10), ("VV",))
    assert single.shape == (10, 10, 3)
    assert np.ptp(single, axis=-1).max() == 0
    assert single.min() == 0
    assert single.max() == 1
    constant = true_colour(np.full((3, 4, 4), 700, np.int16), ("a", "b", "c"))
    assert np.isfinite(constant).all()


def test_counts_are_short() -> None:
    assert [abbreviate(n) for n in (0, 999, 1000, 12_345, 123_456, 4_500_000)] == [
        *("0", "999", "1.0k", "12.3k", "123k"),
        "4.5M",
    ]
