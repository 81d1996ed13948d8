"""The regression of single pixels is fitted to what the segmenter learned from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from exact_core.artifacts.model_folders import ModelManifest, load_segmenter
from exact_core.config import override
from exact_core.data.windows.dataset import VOID
from exact_core.mapping.predict import Predictor
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.tracking.runs import NoTracker
from exact_core.training import pixel_regression
from exact_core.training.pixel_regression import fit_pixel_regression

CPU = torch.device("cpu")


def rows_of(model, dataset, settings, targets):
    """Features and labels of all known pixels of the training split."""
    features, labels = [], []
    loader = pixel_regression.BatchLoader(
        dataset, dataset.indices("train"), batch=3, encoder=settings.reading, device=CPU
    )
    side = dataset.manifest.window
    for batch in loader:
        found, seen = model.features(batch.series, len(model.days) - 1)
        for index, each, known in zip(batch.index.tolist(), found, seen, strict=True):
            target = targets(index).reshape(side // 2, 2, side // 2, 2).swapaxes(1, 2).reshape(-1, 4)
            keep = (target != VOID) & known.numpy()[:, None]
            features.append(each.numpy()[keep])
            labels.append(target[keep])
    return np.concatenate(features), np.concatenate(labels)


def test_of_all_pixels_it_is_the_library_regression(config, dataset, monkeypatch):
    monkeypatch.setattr(pixel_regression, "PIXELS", 10**9)
    model = fit_pixel_regression(dataset, dataset.labels, config.segmenter, batch=4, seed=0)
    features, labels = rows_of(model, dataset, config.segmenter, dataset.labels)
    scaler = StandardScaler().fit(features)
    # A class counts as its share of the targets ** -0.5, and the mean pixel as 1.
    targets = np.concatenate([dataset.labels(index).ravel() for index in dataset.indices("train").tolist()])
    counts = np.bincount(targets[targets != VOID])
    weights = (counts / counts.sum())[labels] ** -0.5
    library = LogisticRegression(C=pixel_regression.RIDGE, max_iter=5000, tol=1e-7).fit(
        scaler.transform(features).astype(np.float64), labels, weights / weights.mean()
    )
    part = len(model.days) - 1
    found = (
        torch.from_numpy(features).double() @ model.coefficients[part].T.double() + model.intercepts[part]
    ).softmax(1)
    expected = library.predict_proba(scaler.transform(features))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    assert (expected.argmax(1) == labels).mean() > 0.7


def test_pixels_that_were_drawn_count_for_those_that_were_not(config, dataset, monkeypatch):
    """A draw of a third gives nearly the same regression."""
    monkeypatch.setattr(pixel_regression, "PIXELS", 10**9)
    whole = fit_pixel_regression(dataset, dataset.labels, config.segmenter, batch=4, seed=0)
    features, labels = rows_of(whole, dataset, config.segmenter, dataset.labels)
    monkeypatch.setattr(pixel_regression, "PIXELS", len(labels) // 3)
    drawn = fit_pixel_regression(dataset, dataset.labels, config.segmenter, batch=4, seed=0)
    mean = [
        (torch.from_numpy(features) @ each.coefficients[-1].T + each.intercepts[-1]).softmax(1).mean(0).numpy()
        for each in (whole, drawn)
    ]
    np.testing.assert_allclose(mean[1], mean[0], atol=0.03)
    assert np.bincount(labels).min() < len(labels) / 8


def test_a_class_without_a_target_is_never_named_and_void_teaches_nothing(config, dataset):
    def targets(index):
        labels = dataset.labels(index).copy()
        labels[labels == 2] = VOID
        return labels

    model = fit_pixel_regression(dataset, targets, config.segmenter, batch=4, seed=0)
    loader = pixel_regression.BatchLoader(
        dataset, dataset.indices("train"), batch=4, encoder=config.segmenter.reading, device=CPU
    )
    for batch in loader:
        found = model(batch.series)
        assert not found[:, 2].any()
        assert found.isfinite().all()
    assert (
        fit_pixel_regression(
            dataset, lambda index: np.full_like(dataset.labels(index), VOID), config.segmenter, batch=4, seed=0
        )
        is None
    )


def test_a_part_of_the_season_without_an_image_has_no_regression(config, dataset, monkeypatch):
    season, whole = dataset.manifest.season_days, dataset.window

    def late(index):
        window = whole(index)
        kept = window.days >= 0.35 * season
        clear = None if window.clear is None else window.clear[kept]
        return replace(window, pixels=window.pixels[kept], days=window.days[kept], clear=clear)

    monkeypatch.setattr(dataset, "window", late)
    model = fit_pixel_regression(dataset, dataset.labels, config.segmenter, batch=4, seed=0)
    assert model.days == tuple(round(share * season) for share in pixel_regression.PARTS[-len(model.days) :])
    assert 0.35 * season < model.days[0] < season
    assert model.part_seen(round(0.35 * season)) is None


@pytest.mark.parametrize("model", ["tsvit", "utae"])
def test_it_travels_with_the_segmenter_and_repeats_to_the_bit(config, dataset, dataset_folder, tmp_path, model):
    changed = override(config, [f"segmenter.model={model}", "segmenter.utae.groups=2"])
    for name in ("one", "two"):
        train_segmenter(changed, dataset=dataset_folder, masks=None, out=tmp_path / name, tracker=NoTracker())
    one, two = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("one", "two"))
    assert one["weights"]["sha256"] == two["weights"]["sha256"]
    season = dataset.manifest.season_days
    assert one["pixel_days"] == [round(share * season) for share in pixel_regression.PARTS]
    both, manifest, trained = load_segmenter(tmp_path / "one", dataset)
    predictor = Predictor(both, dataset, trained.segmenter.reading, manifest.statistics, CPU, 4)
    indices = dataset.indices("test").tolist()
    # Half of the mean comes from each.
    mixed, early = predictor.probabilities(indices), replace(predictor, until=1).probabilities(indices)
    single = both.pixels
    both.pixels = None
    alone, early_alone = predictor.probabilities(indices), replace(predictor, until=1).probabilities(indices)
    batches = pixel_regression.BatchLoader(
        dataset, np.array(indices), batch=4, encoder=trained.segmenter.reading, device=CPU
    )
    expected = (alone + np.concatenate([single(batch.series).numpy() for batch in batches])) / 2
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    # Nobody was fitted to a single day.
    np.testing.assert_allclose(early, early_alone, atol=1e-6)


def test_a_segmenter_without_it_is_the_network_alone(config, dataset, dataset_folder, tmp_path):
    """As those that were trained before it existed."""
    changed = override(config, ["segmenter.pixel_weight=0"])
    train_segmenter(changed, dataset=dataset_folder, masks=None, out=tmp_path / "alone", tracker=NoTracker())
    model, manifest, _ = load_segmenter(tmp_path / "alone", dataset)
    assert model.pixels is None
    assert manifest.pixel_days == ModelManifest.model_fields["pixel_days"].default == ()
