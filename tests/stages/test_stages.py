"""The stages one after another on the tiny dataset: contracts, bitwise repeat, bad input."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from exact_core.clues.masks import pseudo_masks
from exact_core.clues.pixels import PixelModel
from exact_core.clues.selection import BINS
from exact_core.config import override
from exact_core.data.sources import known_sources, with_season
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import VOID, WindowDataset, sha256_of
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.errors import ConfigError, CorruptError, DataError, ExactError, TrainingError
from exact_core.evaluation import cross_validation
from exact_core.evaluation.cross_validation import held_out_words
from exact_core.evaluation.score import HEADLINE
from exact_core.metrics import Scores, confusion_matrix
from exact_core.recipes import resolve
from exact_core.stages.evaluate import _map_split, _predictor, evaluate
from exact_core.stages.generate_masks import _gate, generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.map_season import map_season
from exact_core.stages.promote import promote
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker
from tests.conftest import TINY
from tests.fakes import SEASON_LEFT, SEASON_TOP, write_parcels, write_season

TRACKER = NoTracker()


def run_all(config, dataset, root):
    train_classifier(config, dataset=dataset, out=root / "classifier", tracker=TRACKER)
    generate_masks(config, dataset=dataset, classifier=root / "classifier", out=root / "masks", tracker=TRACKER)
    train_segmenter(config, dataset=dataset, masks=root / "masks", out=root / "segmenter", tracker=TRACKER)
    return evaluate(
        config,
        dataset=dataset,
        segmenter=root / "segmenter",
        classifier=root / "classifier",
        masks=root / "masks",
        out=root / "evaluation",
        report=root / "report.html",
        tracker=TRACKER,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config, dataset_folder):
    root = tmp_path_factory.mktemp("finished")
    run_all(config, dataset_folder, root)
    return root


def write_table(season, wheat, crops="wheat") -> None:
    """Tags of 5 x 5 squares of 80 m: `crops` where `wheat` says so of column and row, else maize."""
    (season / "labels").mkdir(exist_ok=True)
    rows = [
        f"{SEASON_LEFT + 40 + 80 * col},{SEASON_TOP - 40 - 80 * row},{crops if wheat(col, row) else 'maize'}\n"
        for row in range(5)
        for col in range(5)
    ]
    (season / "labels/tags.csv").write_text(f"x,y,crops\n{''.join(rows)}")


def test_a_table_of_tags_is_enough(tmp_path, caplog, monkeypatch, tracked):
    """No dense label anywhere: from squares and their crops to a map, a report and metrics of left-out tags.

    The last decide on the first model, as no land is left to score it on.
    """
    write_season(tmp_path / "season", size=(40, 40), labels=False, legend=None)
    write_table(tmp_path / "season", lambda col, _row: col < 2)
    sizes = [setting for setting in TINY if not setting.startswith("data.")]
    config = resolve(
        "season",
        seed=1,
        overrides=[
            *sizes,
            "data.window=8",
            "masks.relearn.pixels=600",
            "masks.relearn.tags=true",
            "masks.relearn.few_windows=0",
        ],
    )
    source = f"season:{tmp_path / 'season'}"
    ingest(config, source=source, season="", out=tmp_path / "dataset", tracker=TRACKER)
    caplog.set_level("INFO")
    monkeypatch.setattr(cross_validation, "PARTS", 2)
    summary = run_all(config, tmp_path / "dataset", tmp_path)
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert metrics["tags"]["split"] == "train"
    # There is no land to score on, but tags that a part of the squares was not taught.
    held_out = metrics["cross_validation"]
    assert held_out["squares"] == 25
    assert summary["tag_map_held_out"] == held_out["map_macro"]
    assert summary["tag_map_held_out_low"] == held_out["low"]
    assert summary["tag_map_held_out_guess_high"] == held_out["guess_high"]
    assert f"tags of left-out squares: {held_out_words(held_out)}" in caplog.messages[-1]
    assert f"by the model of single pixels: {held_out_words(held_out)}" in (
        tmp_path / "report.html"
    ).read_text().replace("\n", " ")
    assert metrics["pseudo_masks"] is None
    assert metrics["mask_quality"]["expected_miou"] is not None
    assert summary["expected_map_oa"] == metrics["map_quality"]["expected_oa"]
    assert f"expected OA of the map {summary['expected_map_oa']:.2f}" in caplog.messages[-1]
    assert "Expected OA of the map" in (tmp_path / "report.html").read_text()
    # Nor is anything known within the season but what to expect.
    by_date = metrics["by_date"]
    assert len(by_date) == 4
    assert all(row["oa_micro"] is None and 0 < row["expected_oa"] <= 1 for row in by_date)
    assert by_date[-1]["expected_oa"] == metrics["map_quality"]["expected_oa"]
    assert "Accuracy within the season" in (tmp_path / "report.html").read_text()
    assert "Dense labels" in (tmp_path / "report.html").read_text()
    mapped = map_season(
        config, source=source, season="", segmenter=tmp_path / "segmenter", out=tmp_path / "map", tracker=TRACKER
    )
    assert mapped["megapixels"] == 40 * 40 / 1e6

    # Tags that have nothing to do with what grows there, and too few to tell.
    write_table(tmp_path / "season", lambda col, row: (col + row) % 2)
    ingest(config, source=source, season="", out=tmp_path / "nonsense", tracker=TRACKER)
    guessed = cross_validation.cross_validate_tags(WindowDataset(tmp_path / "nonsense"), config)
    ends = {"": "map_macro", "_guess_high": "guess_high"}
    # What is expected of the masks is another condition, and holds here: one class of three has at most a third.
    summary["expected_low"] = 0.4
    nonsense = {**summary, **{f"tag_map_held_out{end}": guessed[key] for end, key in ends.items()}}
    few = {name: value for name, value in summary.items() if "held_out" not in name}
    decided = {}
    for name, figures in {"told": summary, "nonsense": nonsense, "few": few}.items():
        strict = override(config, ["promotion.first_floor=majority"])
        folders = {"dataset": tmp_path / "dataset", "segmenter": tmp_path / "segmenter", "out": tmp_path / name}
        with tracked("promote", name) as tracker:
            promote(strict, **folders, model=name, figures=figures, tracker=tracker)
        record = json.loads((tmp_path / name / "metrics.json").read_text())
        decided[name] = record["promoted"]
        assert "the masks' expected mIoU is at least 40.0, a map of one class has at most 33.3" in record["reason"]
        if name == "few":
            assert "the squares are too few, or too alike, to predict the tags of left-out ones" in record["reason"]
        else:
            value, guess = (100 * figures[f"tag_map_held_out{end}"] for end in ends)
            assert f"precision of {value:.1f}, 95 % of guesses are below {guess:.1f}" in record["reason"]
    assert decided == {"told": True, "nonsense": False, "few": False}


def test_every_stage_repeats_to_the_last_bit(finished, tmp_path, config, dataset_folder):
    run_all(config, dataset_folder, tmp_path)
    compared = 0
    for pattern in ("*/*.safetensors", "masks/masks.json", "evaluation/metrics.json", "*/config.yaml", "*/model.json"):
        for path in finished.glob(pattern):
            other = tmp_path / path.relative_to(finished)
            assert sha256_of(path) == sha256_of(other), path
            compared += 1
    assert compared >= 10


def test_metrics_hold_what_is_promised(finished, dataset):
    metrics = json.loads((finished / "evaluation" / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert not metrics["self_scored"]
    assert metrics["cross_validation"] is None
    names = ["background", *dataset.manifest.classes]
    for part in (metrics, metrics["pseudo_masks"], metrics["baselines"]["fused_cam"]):
        for name in ("oa_micro", "miou_macro", "f1_macro"):
            assert 0 <= part[name] <= 1
        # Only PASTIS has published figures to be held against.
        assert "miou_published" not in part
        assert list(part["per_class"]) == names
        counts = np.array(part["confusion"]["counts"])
        assert part["oa_micro"] == pytest.approx(np.trace(counts) / counts.sum())
    test_pixels = sum((dataset.labels(int(i)) != VOID).sum() for i in dataset.indices("test"))
    assert metrics["pixels"] == test_pixels
    assert metrics["pseudo_masks"]["split"] == "train"
    # Within the season, and last for all of it.
    by_date = metrics["by_date"]
    length = dataset.manifest.season_days
    assert [row["days"] for row in by_date] == [round(share * length) for share in (0.4, 0.6, 0.8, 1)]
    assert {name: by_date[-1][name] for name in HEADLINE} == {name: metrics[name] for name in HEADLINE}
    assert len({row["oa_micro"] for row in by_date}) > 1
    assert "Accuracy within the season" in (finished / "report.html").read_text()
    majority = metrics["baselines"]["majority"]
    assert majority["oa_micro"] == pytest.approx(max(c["pixels"] for c in metrics["per_class"].values()) / test_pixels)


def test_of_the_map_no_more_is_expected_than_of_its_masks_and_than_its_parts_agree(finished, config, dataset):
    """Network and regression asked one after the other, and compared pixel by pixel. These windows do not overlap."""
    metrics = json.loads((finished / "evaluation/metrics.json").read_text())
    indices = dataset.indices(metrics["split"]).tolist()
    predictor, _, _ = _predictor(finished / "segmenter", dataset, config, torch.device("cpu"))
    regression = predictor.model.pixels
    both = predictor.probabilities(indices)
    loader = BatchLoader(
        dataset,
        np.array(indices),
        batch=1,
        encoder=config.segmenter.reading,
        device=torch.device("cpu"),
        statistics=predictor.statistics,
    )
    single = torch.cat([regression(batch.series) for batch in loader]).numpy()
    predictor.model.pixels = None
    network = predictor.probabilities(indices)
    known = single.any(1)
    np.testing.assert_allclose(both[:, 0][known], ((single + network) / 2)[:, 0][known], atol=1e-5)
    # With a pixel that the regression never sees it does not agree.
    agreement = ((network.argmax(1) == single.argmax(1)) & known).mean()
    assert 0 < agreement < 1
    # These masks have no estimate (masks.relearn.tags=false).
    assert metrics["map_quality"] == {"agreement": pytest.approx(agreement), "expected_oa": None}
    assert [each["agreement"] for each in metrics["by_date"]][-1] == pytest.approx(agreement)
    assert _map_split(predictor, metrics["split"], masks=0.9).quality.agreement is None
    predictor.model.pixels = regression
    assert _map_split(predictor, metrics["split"], masks=0.0).quality.expected_oa == 0
    # A part of the season before the first regression's has the network alone.
    early = replace(predictor, until=regression.days[0] - 1)
    assert _map_split(early, metrics["split"], masks=0.9).quality.agreement is None


@pytest.fixture(scope="module")
def outlined(tmp_path_factory):
    """A season of 5 x 5 squares with tags of both crops, each of two fields in stripes that its images show.

    Its dataset and classifier, in a folder, and its settings.
    """
    root = tmp_path_factory.mktemp("outlined")

    def stripes(_date, _band, values):
        column = np.arange(values.shape[1]) * 40 // values.shape[1]
        return np.where(column // 4 % 2 == 0, values, values + 800).astype(values.dtype)

    season = write_season(root / "season", size=(40, 40), labels=False, legend=None, change=stripes)
    write_table(season, lambda _col, _row: True, crops="wheat;maize")
    left, top = SEASON_LEFT, SEASON_TOP
    corners = [(left + 40 * col, top - 80 * row) for row in range(5) for col in range(10)]
    areas = [(0, (x, y - 80, x + 40, y)) for x, y in corners]
    write_parcels(season / "labels/outlines.geojson", areas)
    sizes = [setting for setting in TINY if not setting.startswith(("data.", "masks."))]
    small = ["data.window=8", "masks.relearn.pixels=600", "masks.relearn.few_windows=0"]
    config = resolve("season", seed=1, overrides=[*sizes, *small])
    ingest(config, source=f"season:{season}", season="", out=root / "dataset", tracker=TRACKER)
    train_classifier(config, dataset=root / "dataset", out=root / "classifier", tracker=TRACKER)
    return root, config


def test_masks_with_outlines_have_one_crop_a_field_and_show_their_tags(outlined, tmp_path, caplog):
    """Nobody can tell the crops apart. But each square has both, so that its two fields have one each."""
    root, config = outlined
    caplog.set_level("INFO")

    def made(name, *changes):
        generate_masks(
            override(config, changes),
            dataset=root / "dataset",
            classifier=root / "classifier",
            out=tmp_path / name,
            tracker=TRACKER,
        )
        windows = WindowDataset(root / "dataset")
        found = MaskSet(tmp_path / name, windows)
        return found.manifest, np.stack([found.mask(index) for index in windows.indices("train").tolist()])

    with_fields, masks = made("fields")
    assert with_fields.fields.model_dump() == {"fields": 50, "not_shown": 0, "contradicted": 0, "outside": "pixels"}
    assert "one crop each for 50 of 50 fields" in caplog.text
    stripes = masks[:, 0, ::4]
    np.testing.assert_array_equal(masks, np.repeat(stripes, 4, 1)[:, None].repeat(8, 1))
    assert (np.sort(stripes, 1) == [1, 2]).all()
    # Where outlines are found in the images, or are not used, no tag is forced on anything.
    for changed in ("data.season.outlines=segments", "masks.fields=false"):
        manifest, others = made(changed, changed)
        shown = np.stack([(others == crop).any((1, 2)) for crop in (1, 2)])
        assert not shown.all()
        assert (manifest.fields is None) == (changed == "masks.fields=false")
        # What is expected is how far the teachers agree on the same fields.
        assert manifest.quality.expected_by_class != with_fields.quality.expected_by_class


@pytest.fixture
def relearned(finished, tmp_path, config, dataset_folder, dataset):
    """Masks of the training windows by other settings of pixel self-training."""

    def masks(name, *changes):
        settings = ["masks.relearn.tags=true", "masks.relearn.pixels=4000", "masks.relearn.few_windows=0"]
        changed = override(config, [*settings, *changes])
        folders = {"dataset": dataset_folder, "classifier": finished / "classifier", "out": tmp_path / name}
        generate_masks(changed, **folders, tracker=TRACKER)
        found = MaskSet(tmp_path / name, dataset)
        return np.stack([found.mask(int(index)) for index in dataset.indices("train")])

    return masks


def test_of_few_windows_the_tags_alone_confirm_what_teaches_the_masks(relearned, dataset, monkeypatch):
    """Below the number of training windows only, and where nothing is confirmed nothing is taught."""
    count = len(dataset.indices("train"))
    at, above = relearned("at", f"masks.relearn.few_windows={count}"), f"masks.relearn.few_windows={count + 1}"
    np.testing.assert_array_equal(at, relearned("never"))
    assert (at != relearned("above", above)).any()
    real = PixelModel.opinions

    def disagreeing(self, index):
        mask, (cams, competition, frequency) = real(self, index)
        return mask, [cams, np.full_like(competition, VOID), frequency]

    monkeypatch.setattr(PixelModel, "opinions", disagreeing)
    with pytest.raises(TrainingError, match="by the tags alone and those of the CAMs agree on no pixel"):
        relearned("none", above)


def test_what_learns_from_tags_alone_takes_part_in_the_masks(relearned, dataset):
    """Masks of barely trained CAMs become better, and repeat to the bit."""

    truth = np.stack([dataset.labels(int(index)) for index in dataset.indices("train")])
    known = truth != VOID
    cams_alone, with_tags = relearned("cams", "masks.relearn.tags=false"), relearned("tags")
    assert (with_tags == truth)[known].mean() > (cams_alone == truth)[known].mean() + 0.02
    np.testing.assert_array_equal(with_tags, relearned("again"))


def test_masks_follow_from_cams_tags_and_threshold(finished, tmp_path, config, dataset_folder, dataset):
    """Without the pixel model; with it, from the same CAMs and threshold, within the same tags."""
    generate_masks(
        override(config, ["masks.relearn.rounds=0"]),
        dataset=dataset_folder,
        classifier=finished / "classifier",
        out=tmp_path / "m",
        tracker=TRACKER,
    )
    masks, learned = MaskSet(tmp_path / "m", dataset), MaskSet(finished / "masks", dataset)
    assert masks.manifest.threshold == learned.manifest.threshold
    assert masks.manifest.quality.relearn_agreement is None
    assert 0 < learned.manifest.quality.relearn_agreement < 1
    covered = [*dataset.indices("train"), *dataset.indices("validation")]
    assert masks.manifest.windows == len(covered)
    assert sum(masks.manifest.coverage.values()) == pytest.approx(1)
    for index in covered:
        mask, cam, tags = masks.mask(int(index)), masks.cam(int(index)), dataset.tags[index]
        assert cam[tags == 0].max(initial=0) == 0
        np.testing.assert_array_equal(cam, learned.cam(int(index)))
        # What is not known of the ground is void in the masks, and nothing else is.
        known = dataset.labels(int(index)) != VOID
        for labels in (mask, learned.mask(int(index))):
            assert set(np.unique(labels[known])) <= {0, *(np.flatnonzero(tags) + 1)}
            assert (labels[~known] == VOID).all()
        assert cam.shape[1:] == mask.shape
        assert ((cam.max(0) > np.float32(masks.manifest.threshold)) == (mask > 0))[known].all()
    test_index = int(dataset.indices("test")[0])
    assert test_index not in masks
    with pytest.raises(DataError, match="no mask for window"):
        masks.mask(test_index)


def test_masks_never_see_dense_labels(finished, tmp_path, config, dataset_folder, monkeypatch):
    """The chain up to the segmenter gives the same bytes when reading a label is an error."""

    def refuse(self, index):
        raise AssertionError("a dense label was read")

    monkeypatch.setattr(WindowDataset, "labels", refuse)
    train_classifier(config, dataset=dataset_folder, out=tmp_path / "classifier", tracker=TRACKER)
    generate_masks(
        config, dataset=dataset_folder, classifier=tmp_path / "classifier", out=tmp_path / "masks", tracker=TRACKER
    )
    train_segmenter(
        config, dataset=dataset_folder, masks=tmp_path / "masks", out=tmp_path / "segmenter", tracker=TRACKER
    )
    for name in ("classifier", "segmenter"):
        path = f"{name}/weights.safetensors"
        assert sha256_of(tmp_path / path) == sha256_of(finished / path)


def test_masks_and_scores_are_computed_in_the_precision_asked_for(finished, tmp_path, config, dataset_folder, dataset):
    lower = override(config, ["precision=bf16"])
    folders = {"dataset": dataset_folder, "classifier": finished / "classifier"}
    generate_masks(lower, **folders, out=tmp_path / "masks", tracker=TRACKER)
    index = int(dataset.indices("train")[0])
    one, other = (MaskSet(root / "masks", dataset).cam(index).astype(float) for root in (finished, tmp_path))
    # Without products of bfloat16, as on older processors, both are of float32.
    assert (one != other).any() == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    np.testing.assert_allclose(one, other, atol=0.03)
    folders |= {"segmenter": finished / "segmenter", "masks": tmp_path / "masks"}
    evaluate(lower, **folders, out=tmp_path / "e", tracker=TRACKER)
    for root, precision in ((finished / "evaluation", "fp32"), (tmp_path / "e", "bf16")):
        text = (root / "report.html").read_text()
        assert f"precision of the map</dt><dd>{precision}</dd>" in text


def test_fused_cams_and_a_given_threshold(finished, tmp_path, config, dataset_folder, dataset):
    changed = override(config, ["masks.cam=fused", "masks.threshold=0.25"])
    generate_masks(
        changed, dataset=dataset_folder, classifier=finished / "classifier", out=tmp_path / "m", tracker=TRACKER
    )
    masks = MaskSet(tmp_path / "m", dataset)
    assert (masks.manifest.threshold, masks.manifest.rule, masks.manifest.cam) == (0.25, "given", "fused")
    index = int(dataset.indices("train")[0])
    np.testing.assert_array_equal(masks.cam(index), masks.cam(index, fused=True))


@pytest.mark.parametrize("cam", ["clue", "fused"])
def test_the_quality_is_that_of_the_cams_that_the_masks_are_made_of(
    cam, finished, tmp_path, config, dataset_folder, dataset
):
    """Of both kinds: the share of the tags found, counted once more from the CAMs on disk."""
    changed = override(config, [f"masks.cam={cam}", "masks.shifts=false", "masks.threshold=0.6"])
    generate_masks(
        changed, dataset=dataset_folder, classifier=finished / "classifier", out=tmp_path / "m", tracker=TRACKER
    )
    masks = MaskSet(tmp_path / "m", dataset)
    for number, name in enumerate(dataset.manifest.classes):
        tagged = [int(index) for index in dataset.indices("train") if dataset.tags[index, number]]
        cams = [torch.from_numpy(masks.cam(index))[None].float() for index in tagged]
        area = [(pseudo_masks(each, 0.6) == number + 1).float().mean() for each in cams]
        found = np.mean([share > config.data.tag_share for share in area])
        assert masks.manifest.quality.tag_agreement_by_class[name] == pytest.approx(found), name


def test_masks_of_the_validation_split_choose_the_threshold_where_they_are_given(
    finished, tmp_path, config, dataset_folder, dataset
):
    """The chosen threshold is the one of all that gives the validation windows the best mIoU."""
    changed = override(config, ["masks.validation_masks=true"])
    generate_masks(
        changed, dataset=dataset_folder, classifier=finished / "classifier", out=tmp_path / "m", tracker=TRACKER
    )
    masks = MaskSet(tmp_path / "m", dataset)
    assert masks.manifest.rule == "validation masks"
    indices = [int(index) for index in dataset.indices("validation")]
    cams = torch.from_numpy(np.stack([masks.cam(index) for index in indices])).float()
    truth = np.stack([dataset.labels(index) for index in indices])
    scores = [
        Scores(confusion_matrix(truth, pseudo_masks(cams, step / BINS).numpy(), classes=dataset.classes)).miou_macro
        for step in range(BINS)
    ]
    assert masks.manifest.threshold == int(np.argmax(scores)) / BINS


def test_a_threshold_near_1_does_not_make_background_of_everything(finished, tmp_path, config, dataset_folder, dataset):
    changed = override(config, ["masks.threshold=0.85"])
    generate_masks(
        changed, dataset=dataset_folder, classifier=finished / "classifier", out=tmp_path / "m", tracker=NoTracker()
    )
    assert MaskSet(tmp_path / "m", dataset).manifest.coverage["background"] < 0.95


def test_crops_that_the_masks_lose_are_named_and_expected_to_count_for_nothing(
    finished, tmp_path, config, dataset_folder, dataset
):
    """Of masks by a threshold of 1 every crop is lost; without learning again nothing brings them back."""
    changed = override(config, ["masks.threshold=1", "masks.relearn.rounds=0"])
    made = {"dataset": dataset_folder, "classifier": finished / "classifier", "tracker": NoTracker()}
    generate_masks(changed, out=tmp_path / "m", **made)
    quality = MaskSet(tmp_path / "m", dataset).manifest.quality
    assert quality.lost == dataset.manifest.classes
    assert set(quality.shown_by_class.values()) == {0.0}
    assert MaskSet(finished / "masks", dataset).manifest.quality.lost != dataset.manifest.classes
    with pytest.raises(TrainingError, match=f"lost crops: {', '.join(dataset.manifest.classes)}"):
        generate_masks(override(changed, ["masks.minimum_quality=0.5"]), out=tmp_path / "gated", **made)


def test_the_gate_fails_a_run_whose_masks_are_not_good_enough(finished, tmp_path, config, dataset_folder, dataset):
    made = {"dataset": dataset_folder, "classifier": finished / "classifier", "tracker": TRACKER}
    with pytest.raises(TrainingError, match=r"does not pass masks\.minimum_quality 1 .*lower the minimum"):
        generate_masks(override(config, ["masks.minimum_quality=1"]), out=tmp_path / "m", **made)
    # They can be looked at, and are those that the open gate lets through.
    looked_at, passed = MaskSet(tmp_path / "m", dataset).manifest, MaskSet(finished / "masks", dataset).manifest
    assert looked_at.quality == passed.quality
    # What nobody can tell passes an open gate, and no other.
    assert passed.quality.expected_miou is None
    _gate(passed.quality, config.masks, tmp_path)
    strict = override(config, ["masks.minimum_quality=0.1"]).masks
    with pytest.raises(TrainingError, match=r"expected mIoU unknown \(masks.relearn.tags .*does not pass masks"):
        _gate(passed.quality, strict, tmp_path)
    known = passed.quality.model_copy(update={"expected_oa": 0.5, "expected_miou": 0.3, "expected_low": 0.2})
    _gate(known, strict, tmp_path)


def test_prototypes_that_never_moved_make_no_masks(tmp_path, config, dataset_folder):
    late = override(config, ["classifier.loss.contrast_start=0.99", "classifier.training.epochs=1"])
    train_classifier(late, dataset=dataset_folder, out=tmp_path / "c", tracker=TRACKER)
    made = {"dataset": dataset_folder, "classifier": tmp_path / "c", "tracker": TRACKER}
    with pytest.raises(TrainingError, match="prototypes of this classifier never moved"):
        generate_masks(late, out=tmp_path / "m", **made)
    generate_masks(override(late, ["masks.cam=fused"]), out=tmp_path / "f", **made)


def test_weights_that_were_altered_are_refused(finished, tmp_path, config, dataset_folder):
    shutil.copytree(finished / "classifier", tmp_path / "c")
    path = tmp_path / "c" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CorruptError, match=r"weights.safetensors: corrupt"):
        generate_masks(config, dataset=dataset_folder, classifier=tmp_path / "c", out=tmp_path / "m", tracker=TRACKER)


def test_the_second_segmenter_trains_repeats_and_says_what_it_is(tmp_path, config, dataset_folder):
    utae = override(config, ["segmenter.model=utae"])
    for name in ("one", "two"):
        train_segmenter(utae, dataset=dataset_folder, masks=None, out=tmp_path / name, tracker=TRACKER)
    for file in ("weights.safetensors", "model.json", "config.yaml"):
        assert sha256_of(tmp_path / "one" / file) == sha256_of(tmp_path / "two" / file)
    # The stage's own recipe says TSViT: what was trained is what the model folder says.
    evaluate(
        config,
        dataset=dataset_folder,
        segmenter=tmp_path / "one",
        classifier=None,
        masks=None,
        out=tmp_path / "e",
        report=tmp_path / "report.html",
        tracker=TRACKER,
    )
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["segmenter"] == "utae"
    report = (tmp_path / "report.html").read_text()
    assert "U-TAE segmenter" in report
    assert "TSViT" not in report


def test_dense_supervision(tmp_path, config, dataset_folder):
    train_segmenter(config, dataset=dataset_folder, masks=None, out=tmp_path / "s", tracker=TRACKER)
    figures = evaluate(
        config,
        dataset=dataset_folder,
        segmenter=tmp_path / "s",
        classifier=None,
        masks=None,
        out=tmp_path / "e",
        report=tmp_path / "report.html",
        tracker=TRACKER,
    )
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["supervision"] == "dense"
    assert metrics["pseudo_masks"] is None
    assert set(figures) == {"oa_micro", "miou_macro", "f1_macro"}
    assert "<html" in (tmp_path / "report.html").read_text()


def test_a_finished_result_is_not_overwritten(finished, config, dataset_folder):
    with pytest.raises(DataError, match="already holds a finished result"):
        train_classifier(config, dataset=dataset_folder, out=finished / "classifier", tracker=TRACKER)


def test_what_does_not_fit_together_is_refused(finished, tmp_path, config, dataset_folder):
    other = override(config, ["seed=9"])
    ingest(other, source="synthetic", season="", out=tmp_path / "other", tracker=TRACKER)
    with pytest.raises(DataError, match="made for dataset"):
        train_segmenter(
            other, dataset=tmp_path / "other", masks=finished / "masks", out=tmp_path / "s", tracker=TRACKER
        )
    more = override(config, ["data.synthetic.crops=4"])
    ingest(more, source="synthetic", season="", out=tmp_path / "more", tracker=TRACKER)
    with pytest.raises(ConfigError, match="the model needs classes"):
        generate_masks(
            more, dataset=tmp_path / "more", classifier=finished / "classifier", out=tmp_path / "m", tracker=TRACKER
        )
    with pytest.raises(DataError, match="this is a segmenter, expected a classifier"):
        generate_masks(
            config, dataset=dataset_folder, classifier=finished / "segmenter", out=tmp_path / "m", tracker=TRACKER
        )
    with pytest.raises(DataError, match="no classifier here"):
        generate_masks(
            config, dataset=dataset_folder, classifier=tmp_path / "none", out=tmp_path / "m", tracker=TRACKER
        )
    with pytest.raises(DataError, match="no dataset here"):
        train_classifier(config, dataset=tmp_path / "none", out=tmp_path / "c", tracker=TRACKER)


def test_a_corrupt_mask_shard_is_named(finished, tmp_path, config, dataset):
    shutil.copytree(finished / "masks", tmp_path / "masks")
    path = next((tmp_path / "masks").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=path.name):
        MaskSet(tmp_path / "masks", dataset)


@pytest.mark.parametrize("source", ["", "synthetic:here", "pastis", "germany", "season:", "ftp:somewhere"])
def test_an_unknown_source_names_the_known_ones(source, tmp_path, config):
    with pytest.raises(ExactError, match=re.escape(known_sources())):
        ingest(config, source=source, season="", out=tmp_path / "d", tracker=TRACKER)


def test_seasons(config):
    year = with_season(config, "2024", kind="season").data.season
    assert (str(year.start), year.days) == ("2024-01-01", 366)
    autumn = with_season(config, "2021-09-01/300", kind="season").data.season
    assert (str(autumn.start), autumn.days) == ("2021-09-01", 300)
    assert with_season(config, "", kind="synthetic") is config
    for text in ("24", "2021-13-01/10", "[[ScheduledTime]]", "{{season}}"):
        with pytest.raises(ConfigError, match="season = "):
            with_season(config, text, kind="season")
    with pytest.raises(ConfigError, match="has its own season"):
        with_season(config, "2021", kind="pastis")
    with pytest.raises(ConfigError, match="a germany source has its own season"):
        with_season(config, "2017", kind="germany")
