"""Dates, windows, normalisation and tags, through the ingestion of a PASTIS folder made of the recorded arrays."""

import datetime as dt

import numpy as np
import pytest
import torch

from exact_core.data.pastis.dates import SCALE, limit_dates, read_dates
from exact_core.data.pastis.patches import ingest_pastis
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.cutting import tags_from_labels
from exact_core.data.windows.dataset import VOID, Statistics, WindowDataset
from tests.fakes import write_pastis


def days_of_year(dates):
    return [date.timetuple().tm_yday for date in dates]


def of_leap_year(days):
    """Dates of a year that has all 366 days."""
    return [dt.date(2020, 1, 1) + dt.timedelta(days=int(day) - 1) for day in days]


@pytest.fixture
def ingested(tmp_path, recorded, recipe):
    """Writes images (T, C, H, W) as a PASTIS folder of one patch and reads it with the recipe's settings."""
    arrays = recorded("data.npz")
    window, classes = arrays["window_index_map"].shape[-1], arrays["class_labels"].shape[1]

    def read(images, days, *, labels=None, max_dates=None):
        side = images.shape[-1]
        root = write_pastis(
            tmp_path / "pastis",
            patches=1,
            folds=recipe.data.pastis.train_folds[:1],
            size=side,
            classes=classes,
            dates=[int(date.strftime("%Y%m%d")) for date in of_leap_year(days)],
            labels=np.ones((side, side), np.uint8) if labels is None else labels,
            change=lambda _patch, _images: images,
        )
        changes = {"window": window, "pastis": recipe.data.pastis.model_copy(update={"classes": classes})}
        if max_dates:
            changes["max_dates"] = max_dates
        ingest_pastis(root, recipe.data.model_copy(update=changes), tmp_path / "out")
        return WindowDataset(tmp_path / "out")

    return read


@pytest.fixture
def batch_of(recorded, recipe):
    """The first window of a dataset as a model gets it, under the recorded normalisation."""
    arrays = recorded("data.npz")
    constants = Statistics(
        mean=tuple(arrays["norm_mean"].tolist()), std=tuple(arrays["norm_std"].tolist()), pixels=1, origin="recorded"
    )

    def load(dataset):
        loader = BatchLoader(
            dataset,
            np.array([0]),
            batch=1,
            encoder=recipe.classifier.encoder,
            device=torch.device("cpu"),
            statistics=constants,
        )
        (batch,) = loader
        return batch.series

    return load


def check_series(series, transformed, real):
    """`transformed` (T, ..., C + 1): normalised bands, then the scaled day; rows after `real` are padding."""
    index = np.trunc(transformed[..., -1] * SCALE).reshape(len(transformed), -1)[:, 0].astype(int)
    pixels, dates = series.pixels[0].permute(0, 2, 3, 1).numpy(), series.dates[0].numpy()
    np.testing.assert_allclose(pixels[:real], transformed[:real, ..., :-1], atol=1e-6)
    np.testing.assert_array_equal(dates[:real], index[:real])
    # How far a batch is padded is the loader's affair; what it is padded with is not.
    for padding in (pixels[real:], dates[real:], transformed[real:]):
        assert not padding.any()


@pytest.mark.parametrize("case", ["short", "exact", "long"])
def test_series(recorded, ingested, batch_of, case):
    arrays = recorded("data.npz")
    values, transformed = arrays[f"{case}_series"], arrays[f"{case}_transformed_pixel"]
    side = arrays["window_index_map"].shape[-1]
    images = np.broadcast_to(values[:, :, None, None], (*values.shape, side, side))
    dataset = ingested(images, arrays[f"{case}_doy"], max_dates=len(transformed))
    real = dataset.records[0].dates
    assert real == arrays[f"{case}_seq_length"]
    series = batch_of(dataset)
    check_series(
        series, np.broadcast_to(transformed[:, None, None], (len(transformed), side, side, transformed.shape[-1])), real
    )
    kept = arrays[f"{case}_doy"][:real] - 1
    np.testing.assert_array_equal(transformed[:real, -1], arrays["doy_scaled"][kept])
    np.testing.assert_array_equal(series.dates[0, :real], arrays["doy_embedding_index"][kept])


def test_whole_example(recorded, ingested, batch_of):
    arrays = recorded("data.npz")
    images, labels = arrays["full_img"], arrays["full_labels"]
    dataset = ingested(images, arrays["full_doy"], labels=labels)
    check_series(batch_of(dataset), arrays["full_transformed"], len(images))
    ours = dataset.labels(0)
    known = arrays["full_valid_mask"]
    np.testing.assert_array_equal(ours != VOID, known)
    np.testing.assert_array_equal(ours[known], labels[known])


def test_windows(recorded, ingested):
    arrays = recorded("data.npz")
    target, maps = arrays["target_patch"], arrays["window_index_map"]
    height, width = target.shape[1:]
    # Bands 0 and 1 tell a pixel's row and column, from 1: a pixel of 0 would be nodata.
    images = np.ones((2, len(arrays["norm_mean"]), height, width), np.int16)
    images[:, 0] += np.arange(height)[:, None].astype(np.int16)
    images[:, 1] += np.arange(width)[None].astype(np.int16)
    dataset = ingested(images, [1, 2], labels=target[0])
    assert len(dataset) == len(maps)
    void = arrays["class_labels"].shape[1] + 1
    for index, record in enumerate(dataset.records):
        np.testing.assert_array_equal((record.row, record.col), arrays["window_origin"][index])
        place = dataset.window(index).pixels[0, :2].astype(int) - 1
        np.testing.assert_array_equal(place[0] * width + place[1], maps[index])
        expected = arrays["target_windows"][index]
        np.testing.assert_array_equal(dataset.labels(index), np.where(expected == void, VOID, expected))


def test_tags(recorded, recipe):
    arrays = recorded("data.npz")
    classes = arrays["class_labels"].shape[1]
    for labels, tags in zip(arrays["label_windows"], arrays["class_labels"], strict=True):
        labels = np.where(labels == classes + 1, VOID, labels).astype(np.uint8)
        found = tags_from_labels(labels, classes=classes, share=recipe.data.tag_share)
        np.testing.assert_array_equal(found, tags)


def test_days_that_truncation_loses(recorded):
    arrays = recorded("data.npz")
    days = arrays["doy"]
    np.testing.assert_array_equal(days.astype(np.float32) / SCALE, arrays["doy_scaled"])
    dates = of_leap_year(days)
    np.testing.assert_array_equal(days_of_year(read_dates(dates, rule="published")), arrays["doy_embedding_index"])
    np.testing.assert_array_equal(days_of_year(read_dates(dates, rule="exact")), days)


def test_days_of_the_recorded_batch(recorded):
    """The day that stands behind the inputs' last channel, read as published, is the recorded index."""
    arrays = recorded("cls_eval.npz")
    index = arrays["doy_index"]
    days = np.rint(arrays["inputs"][:, :, 0, 0, -1].astype(np.float64) * float(SCALE)).astype(int)
    real = days > 0
    np.testing.assert_array_equal(days_of_year(read_dates(of_leap_year(days[real]), rule="published")), index[real])
    assert not index[~real].any()
    assert not arrays["inputs"][~real].any()


def test_order_of_dates_and_cut(recorded):
    arrays = recorded("data.npz")
    dates = [dt.datetime.strptime(str(date), "%Y%m%d").date() for date in arrays["dates"]]
    days = arrays["dates_doy"]
    np.testing.assert_array_equal(days_of_year(dates), days)
    for limit in range(1, len(dates) + 1):
        kept = limit_dates(dates, limit, rule="cut")
        # Which of two dates of one day of year comes first was never declared: the days must agree.
        np.testing.assert_array_equal(np.sort(days[kept]), days[arrays["dates_sort_order"][:limit]])
        assert sorted(dates[position] for position in kept) == [dates[position] for position in kept]
