import numpy as np
import pytest
import torch

from exact_core.config import EncoderConfig
from exact_core.data.windows import batches
from exact_core.data.windows.batches import Augmentation, BatchLoader, days_of, make_series, seen_until
from exact_core.data.windows.dataset import VOID
from exact_core.models.classifier import TagClassifier

CPU = torch.device("cpu")
ENCODER = EncoderConfig()


def loader(dataset, indices=None, **changes):
    settings = {"batch": 3, "encoder": ENCODER, "device": CPU, "targets": dataset.labels}
    chosen = dataset.indices("train") if indices is None else indices
    return BatchLoader(dataset, chosen, **{**settings, **changes})


def test_values_by_hand(dataset):
    batch = next(iter(loader(dataset)))
    statistics = dataset.manifest.statistics
    dates = batch.series.dates.shape[1]
    assert dates == max(dataset.records[i].dates for i in batch.index)
    for row, index in enumerate(batch.index):
        window = dataset.window(index)
        count = len(window.days)
        for band in range(10):
            expected = (window.pixels[:, band] - statistics.mean[band]) / statistics.std[band]
            np.testing.assert_allclose(batch.series.pixels[row, :count, band], expected, rtol=1e-5, atol=1e-5)
        assert batch.series.pixels[row, count:].abs().sum() == 0
        np.testing.assert_array_equal(batch.series.dates[row, :count], window.days)
        np.testing.assert_array_equal(batch.tags[row], window.tags)
        np.testing.assert_array_equal(batch.target[row], dataset.labels(index))
        seen = batch.series.seen[row].t().reshape(dates, 12, 12)
        np.testing.assert_array_equal(seen[:count], window.clear.astype(bool))
        assert not seen[count:].any()


def test_day_of_year_is_the_calendars(dataset):
    batch = next(iter(loader(dataset, encoder=EncoderConfig(dates="day_of_year"))))
    window = dataset.window(batch.index[0])
    dates = np.datetime64(dataset.manifest.season_start) + window.days.astype(int)
    expected = [date.item().timetuple().tm_yday for date in dates]
    np.testing.assert_array_equal(batch.series.dates[0, : len(expected)], expected)


def test_padding_alone_is_masked_where_clouds_are_not(dataset):
    """A batch of all training windows, whose scenes have different numbers of dates."""
    batch = next(iter(loader(dataset, batch=8, encoder=EncoderConfig(mask_clouds=False))))
    counts = [dataset.records[i].dates for i in batch.index]
    assert min(counts) < max(counts)
    np.testing.assert_array_equal(batch.series.seen[:, 0].sum(1), counts)
    for row, count in enumerate(counts):
        assert batch.series.pixels[row, count:].abs().sum() == 0
    assert batch.series.padding is None


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_patch_that_a_date_did_not_measure_is_not_seen_on_it(dataset, patch):
    """Whether or not clouds are masked; but with attended padding, as published, everything is looked at."""
    pixels = torch.ones(2, 3, 10, 8, 8, dtype=torch.int16)
    pixels[0, 1, :, :4, :4] = 0
    pixels[0, 2, :, 7, 7] = 0
    valid = torch.tensor([[True, True, True], [True, True, False]])
    dates, ones = torch.tensor([[0, 9, 20], [0, 9, 0]]), torch.ones(10)

    def seen(valid, pixels=pixels, **encoder):
        encoder = EncoderConfig(patch=patch, mask_clouds=False, **encoder)
        return make_series(pixels, dates, valid, mean=ones, std=ones, encoder=encoder).seen

    grid = seen(valid).transpose(1, 2).unflatten(2, (8 // patch, 8 // patch))
    expected = torch.ones(2, 3, 8, 8, dtype=torch.bool)
    expected[0, 1, :4, :4] = expected[1, 2] = False
    # A patch of which a part was measured was seen.
    expected[0, 2, 7, 7] = patch > 1
    assert torch.equal(grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3), expected)
    assert seen(None, torch.ones_like(pixels)) is None
    assert torch.equal(seen(valid, mask_padding=False), valid[:, None])


def test_attended_padding_is_counted_up_to_the_published_length(dataset):
    """The rows that follow a series are not stored; how many there are is said, and clouds do not touch them."""
    for clouds in (False, True):
        encoder = EncoderConfig(mask_clouds=clouds, mask_padding=False, pad_dates=12)
        series = next(iter(loader(dataset, batch=8, encoder=encoder))).series
        counts = np.array([dataset.records[i].dates for i in dataset.indices("train")[:8]])
        np.testing.assert_array_equal(series.padding, 12 - counts)
        assert series.dates.shape[1] == counts.max()
        assert not any(series.seen[row, :, count:].any() for row, count in enumerate(counts))
    short = EncoderConfig(mask_padding=False, pad_dates=3)
    assert not next(iter(loader(dataset, batch=8, encoder=short))).series.padding.any()


def test_a_windows_results_do_not_depend_on_its_batch(dataset, config):
    """Padded with longer series or alone: the same logits."""
    torch.manual_seed(0)
    model = TagClassifier(config.classifier, bands=10, classes=dataset.classes, window=24).eval()
    encoder = config.classifier.encoder
    with torch.no_grad():
        together = torch.cat([model(b.series).logits for b in loader(dataset, batch=8, encoder=encoder)])
        alone = torch.cat([model(b.series).logits for b in loader(dataset, batch=1, encoder=encoder)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_larger_patches_are_clear_where_all_of_them_is(dataset):
    fine = next(iter(loader(dataset)))
    coarse = next(iter(loader(dataset, encoder=EncoderConfig(patch=4))))
    single = next(iter(loader(dataset, encoder=EncoderConfig(patch=1))))
    tokens = fine.series.seen.transpose(1, 2).unflatten(2, (12, 12))
    expected = -torch.nn.functional.max_pool2d(-tokens.float(), 2)
    np.testing.assert_array_equal(coarse.series.seen.transpose(1, 2).unflatten(2, (6, 6)), expected.bool())
    np.testing.assert_array_equal(single.series.seen.transpose(1, 2).unflatten(2, (24, 24))[..., ::2, ::2], tokens)


def test_an_epoch_depends_on_seed_and_number_alone(dataset):
    augmentation = Augmentation(flips=True, keep_dates=0.5)

    def epoch(number, seed=0):
        return list(loader(dataset).epoch(number, seed=seed, augmentation=augmentation))

    one, again, other, reseeded = epoch(2), epoch(2), epoch(3), epoch(2, seed=1)
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a.series.pixels, b.series.pixels)
        np.testing.assert_array_equal(a.index, b.index)
    order = np.concatenate([batch.index for batch in one])
    assert sorted(order) == sorted(dataset.indices("train"))
    for different in (other, reseeded):
        assert order.tolist() != np.concatenate([batch.index for batch in different]).tolist()


def test_an_epoch_of_a_share_draws_other_windows_each_time(dataset):
    train = dataset.indices("train")
    shared = loader(dataset, share=0.5)
    epochs = [list(shared.epoch(number, seed=0, augmentation=Augmentation())) for number in range(8)]
    drawn = [np.concatenate([batch.index for batch in batches]) for batches in epochs]
    assert all(len(batches) == len(shared) for batches in epochs)
    assert all(len(set(each.tolist())) == len(each) == -(-len(train) // 2) for each in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(train.tolist())
    # What is validated or mapped is all of it.
    assert [index for batch in shared for index in batch.index.tolist()] == train.tolist()


def test_windows_of_a_crop_that_few_have_are_in_every_epoch(dataset, monkeypatch):
    train, tags = dataset.indices("train"), dataset.tags.copy()
    tags[train, 0] = 1
    tags[train, 1:] = 0
    tags[train[2:4], 1] = 1
    monkeypatch.setattr(dataset, "tags", tags)
    monkeypatch.setattr(batches, "FEW_WINDOWS", 3)
    shared = loader(dataset, share=0.5)
    epochs = [list(shared.epoch(number, seed=0, augmentation=Augmentation())) for number in range(6)]
    drawn = [np.concatenate([batch.index for batch in each]).tolist() for each in epochs]
    assert all(set(train[2:4].tolist()) < set(each) and len(each) == shared.drawn for each in drawn)
    assert len({tuple(sorted(each)) for each in drawn}) > 1


def test_augmentation_keeps_pixels_labels_and_clouds_together(dataset):
    """Whatever the turn, the pairs (pixel values on all kept dates, label) are pairs of the window as it was."""
    for batch in loader(dataset, batch=1).epoch(0, seed=5, augmentation=Augmentation(flips=True, keep_dates=0.6)):
        window = dataset.window(batch.index[0])
        kept = np.isin(window.days, batch.series.dates[0])
        assert 2 <= kept.sum() <= len(window.days)
        statistics = dataset.manifest.statistics
        mean, std = (np.array(v)[:, None, None] for v in (statistics.mean, statistics.std))
        pixels = np.rint(batch.series.pixels[0].numpy() * std + mean).astype(int)

        def pairs(images, labels):
            values = images.transpose(2, 3, 0, 1).reshape(labels.size, -1)
            return sorted(map(tuple, np.column_stack([values, labels.reshape(-1)]).tolist()))

        assert pairs(pixels, batch.target[0].numpy()) == pairs(
            window.pixels[kept].astype(int), dataset.labels(batch.index[0])
        )
        seen = batch.series.seen[0].sum().item()
        assert seen == window.clear[kept].sum()


def test_a_part_of_the_season_has_its_dates_and_no_later_one(dataset):
    until = 150
    for batch in loader(dataset, batch=1, until=until):
        window = dataset.window(batch.index[0])
        wanted = window.days[window.days < until]
        assert 2 <= len(wanted) < len(window.days)
        np.testing.assert_array_equal(batch.series.dates[0], wanted)
        whole = next(iter(loader(dataset, indices=batch.index, batch=1))).series
        assert torch.equal(batch.series.pixels[0], whole.pixels[0, : len(wanted)])
    # Two dates make a series, however early the day.
    assert {batch.series.dates.shape[1] for batch in loader(dataset, batch=1, until=1)} == {2}
    assert [seen_until(np.array([0, 10, 20, 30]), day) for day in (0, 20, 21, 31, 99)] == [2, 2, 3, 4, 4]
    assert days_of((0.8, 0.4, 0.4), 300) == (120, 240)


def test_prefixes_are_drawn_between_their_shortest_and_the_season(dataset):
    length = dataset.manifest.season_days

    def lengths(augmentation):
        found = []
        for number in range(8):
            for batch in loader(dataset, batch=1).epoch(number, seed=3, augmentation=augmentation):
                days = dataset.window(batch.index[0]).days
                seen = batch.series.dates.shape[1]
                # The first dates, none left out.
                np.testing.assert_array_equal(batch.series.dates[0], days[:seen])
                found.append((len(days), seen, days[min(seen, len(days) - 1)] / length))
        return found

    assert all(seen == dates for dates, seen, _ in lengths(Augmentation()))
    every = lengths(Augmentation(prefixes=1.0, shortest=0.5))
    cut = [ends for dates, seen, ends in every if seen < dates]
    assert len(cut) > len(every) / 2
    assert min(cut) >= 0.5  # the first date that is not seen lies behind half of the season
    some = lengths(Augmentation(prefixes=0.5, shortest=0.5))
    assert 0 < sum(seen < dates for dates, seen, _ in some) < len(cut)


def test_void_is_in_batches_as_patches_that_do_not_teach(dataset):
    """Fields without a known truth: the patches that they touch, turned as the windows are."""
    assert dataset.open is not None
    every = np.arange(len(dataset))
    plain = torch.cat([batch.teaching for batch in loader(dataset, indices=every)])
    for row, index in enumerate(every):
        void = (dataset.labels(index) == VOID).reshape(12, 2, 12, 2).any(axis=(1, 3))
        np.testing.assert_array_equal(plain[row], ~void.reshape(-1))
    turned = list(loader(dataset, indices=every).epoch(1, seed=0, augmentation=Augmentation(flips=True)))
    for batch in turned:
        void = (batch.target == VOID).reshape(-1, 12, 2, 12, 2).any(4).any(2)
        torch.testing.assert_close(batch.teaching, ~void.flatten(1))
        expected = 1 - torch.from_numpy(dataset.open[batch.index]).float()
        torch.testing.assert_close(batch.known, expected)
    assert not torch.cat([batch.teaching for batch in turned]).all()
