"""Tags of left-out squares: parts, scores that their own tags do not reach, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

from exact_core.config import RunConfig, override
from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.evaluation import cross_validation
from exact_core.evaluation.cross_validation import (
    FEWEST_SQUARES,
    compact_parts,
    cross_validate_tags,
    held_out_scores,
    held_out_summary,
    held_out_words,
)

NAMES = ("maize", "wheat")


def summary(scores, tags, known=None):
    return held_out_summary(np.asarray(scores), np.asarray(tags, np.uint8), known, NAMES, seed=0)


def test_parts_are_neighbours_and_equal():
    """Ten squares in a row make five pairs, and each scene of two a part of its own."""
    row = np.array([(0, 0, 12 * place) for place in range(10)])
    np.testing.assert_array_equal(compact_parts(row, 5), np.repeat(np.arange(5), 2))
    shuffled = np.random.default_rng(0).permutation(10)
    np.testing.assert_array_equal(compact_parts(row[shuffled], 5), np.repeat(np.arange(5), 2)[shuffled])
    scenes = np.array([(place % 2, 0, 5 * place) for place in range(8)])
    np.testing.assert_array_equal(compact_parts(scenes, 2), np.arange(8) % 2)
    many = compact_parts(np.random.default_rng(1).integers(0, 99, (25, 3)) * [0, 1, 1], 5)
    assert np.bincount(many).tolist() == [5] * 5


@pytest.fixture(scope="module")
def small(config):
    return override(config, ["masks.relearn.pixels=600", "data.window=12", "data.synthetic.scene_size=48"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("squares")
    ingest_synthetic(small.data, folder / "dataset", seed=0)
    return folder / "dataset"


@pytest.fixture
def dataset(folder):
    return WindowDataset(folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Less of what only makes the numbers steadier."""
    for name, value in (("tag_pixels.STARTS", 1), ("tag_pixels.STEPS", 60), ("tag_pixels.ROUNDS", 1)):
        monkeypatch.setattr(f"exact_core.clues.{name}", value)
    monkeypatch.setattr(cross_validation, "PARTS", 2)


def scored(windows: WindowDataset, config: RunConfig, indices, places):
    numbers = np.arange(len(indices))
    return held_out_scores(windows, indices, numbers, numbers % 2, places, config)


def test_tags_that_are_left_out_do_not_teach_their_scores(dataset, small, monkeypatch):
    """Nor do those of a square that shares pixels with one that is left out."""
    indices = dataset.indices("train")[:10]
    places = np.array([(0, 100 * place, 0) for place in range(10)])
    before = scored(dataset, small, indices, places)
    real = dataset.tags.copy()
    dataset.tags[indices[::2]] = 1 - real[indices[::2]]
    after = scored(dataset, small, indices, places)
    np.testing.assert_array_equal(before[::2], after[::2])
    assert (before[1::2] != after[1::2]).any()

    # Square 1 now overlaps square 0, so it does not train the model that scores the even ones.
    places[1] = places[0] + [0, 1, 0]
    dataset.tags[:] = real
    before = scored(dataset, small, indices, places)
    dataset.tags[indices[1]] = 1 - real[indices[1]]
    np.testing.assert_array_equal(before[::2], scored(dataset, small, indices, places)[::2])


def square_of(monkeypatch, dataset, numbers):
    """Give windows the numbers of their squares."""
    records = list(dataset.records)
    for index, number in numbers.items():
        records[index] = replace(records[index], square=number)
    monkeypatch.setattr(dataset, "records", records)


def test_a_square_of_several_windows_is_left_out_whole(dataset, small, monkeypatch):
    """Its list teaches no model that scores one of its windows, and others stay as they are."""
    train = dataset.indices("train").tolist()
    own = train[:3] + train[-1:]
    square_of(monkeypatch, dataset, dict.fromkeys(own, 7))
    asked = []

    def seen(windows, indices, squares, parts, places, config):
        asked.append((indices, parts, held_out_scores(windows, indices, squares, parts, places, config)))
        return asked[-1][-1]

    monkeypatch.setattr(cross_validation, "held_out_scores", seen)
    assert cross_validate_tags(dataset, small)["squares"] == len(train) - 3
    dataset.tags[own] = 1 - dataset.tags[own]
    cross_validate_tags(dataset, small)
    (indices, parts, before), (_, _, after) = asked
    assert indices.tolist() == train
    places = np.flatnonzero(np.isin(indices, own))
    (part,) = set(parts[places].tolist())
    np.testing.assert_array_equal(before[parts == part], after[parts == part])
    assert (before[parts != part] != after[parts != part]).any()


def test_a_square_that_shares_pixels_with_one_left_out_teaches_in_none_of_its_windows(dataset, small):
    """Windows 0 and 1 are one square, and window 1 overlaps window 2, which is left out."""
    indices = dataset.indices("train")[:10]
    squares, parts = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), np.array([0, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    places = np.array([(0, 100 * place, 0) for place in range(10)])

    def changed():
        before = held_out_scores(dataset, indices, squares, parts, places, small)
        dataset.tags[indices[0]] = 1 - dataset.tags[indices[0]]
        after = held_out_scores(dataset, indices, squares, parts, places, small)
        np.testing.assert_array_equal(before[parts == 0], after[parts == 0])
        return (before[parts == 1] != after[parts == 1]).any()

    assert changed()
    places[1] = places[2] + [0, 1, 0]
    assert not changed()


def test_a_square_has_the_largest_score_of_its_windows_and_one_list(dataset, small, monkeypatch):
    """Twelve squares, by hand: of one, two and one windows in turn."""
    train = dataset.indices("train")[:16]
    sizes = [1, 2, 1] * 4
    numbers = np.repeat(np.arange(12), sizes)
    several = {int(index): int(n) for index, n in zip(train, numbers, strict=True) if sizes[n] > 1}
    square_of(monkeypatch, dataset, several)
    scores = np.random.default_rng(0).random((16, dataset.classes))
    found = []

    def kept(*given, **_):
        found.append(given)

    monkeypatch.setattr(dataset, "indices", lambda _: train)
    monkeypatch.setattr(cross_validation, "held_out_scores", lambda *_: scores)
    monkeypatch.setattr(cross_validation, "held_out_summary", kept)
    cross_validate_tags(dataset, small)
    ((largest, tags, *_),) = found
    assert len(largest) == len(tags) == 12
    for square in range(12):
        own = numbers == square
        np.testing.assert_array_equal(largest[square], scores[own].max(0))
        np.testing.assert_array_equal(tags[square], dataset.tags[train[own]].max(0))
    # A square of one window is that window, with a number or without.
    square_of(monkeypatch, dataset, {int(index): 100 - place for place, index in enumerate(train)})
    cross_validate_tags(dataset, small)
    np.testing.assert_array_equal(found[1][0], scores)
    np.testing.assert_array_equal(found[1][1], dataset.tags[train])


def test_other_land_with_the_same_crops_is_recognised(dataset, small):
    """The crops of a generated season look alike everywhere."""
    found = cross_validate_tags(dataset, override(small, ["masks.relearn.pixels=3000"]))
    assert found["squares"] == len(dataset.indices("train"))
    assert found["low"] <= found["map_macro"] <= found["high"]
    assert found["map_macro"] > found["guess"] + 0.1
    assert found["beats_guess"]
    assert "a guess has" in held_out_words(found)


def test_average_precision_by_hand():
    """Maize ranked right but for one. Wheat has the same score everywhere, so its precision is its share."""
    tags = np.array([[1, 1]] * 4 + [[1, 0]] + [[0, 0]] * 5)
    scores = np.array([[9.0, 1], [8, 1], [7, 1], [6, 1], [4, 1], [5, 1], [3, 1], [2, 1], [1, 1], [0, 1]])
    found = summary(scores, tags)
    maize = (1 + 1 + 1 + 1 + 5 / 6) / 5
    assert found["per_class"] == pytest.approx({"maize": maize, "wheat": 0.4})
    assert found["map_macro"] == pytest.approx((maize + 0.4) / 2)
    assert found["squares"] == 10

    same = summary(np.ones((10, 2)), tags)
    assert same["map_macro"] == pytest.approx(0.45)
    assert same["guess"] == pytest.approx(0.45)
    assert not same["beats_guess"]
    # Whatever the order, scores that are all alike have the same.
    assert same["guess_high"] == pytest.approx(0.45)
    assert "not shown to be better than a guess" in held_out_words(same)


def test_a_guess_and_the_interval_against_formulas(monkeypatch):
    """Of n squares in random order, P with the crop: the expected precision at a hit of rank k, mean over ranks."""
    rng, ranks = np.random.default_rng(0), np.arange(1, 26)
    tags = (rng.permuted(np.tile(ranks[:, None], 2), axis=0) <= [5, 12]).astype(np.uint8)
    expected = [np.mean((1 + (ranks - 1) * (count - 1) / 24) / ranks) for count in (5, 12)]
    found = summary(rng.normal(size=(25, 2)) + 2 * tags, tags)
    assert found["guess"] == pytest.approx(np.mean(expected), abs=0.02)
    assert found["guess"] > tags.mean() + 0.03
    assert found["beats_guess"]
    assert found["guess"] < found["guess_high"] < found["map_macro"]
    assert found["low"] < found["map_macro"] < found["high"]
    # Without skill one guess in twenty is better than 95 % of guesses.
    monkeypatch.setattr(cross_validation, "SHUFFLES", 40)
    assert sum(summary(rng.normal(size=(25, 2)), tags)["beats_guess"] for _ in range(12)) <= 3
    monkeypatch.setattr(cross_validation, "SHUFFLES", 1)
    scores = rng.normal(size=(25, 2)) + tags
    rest = [summary(np.delete(scores, each, 0), np.delete(tags, each, 0))["map_macro"] for each in range(25)]
    found = summary(scores, tags)
    # The standard error by the jackknife: with 24 of 25 others left out the spread is that of one square.
    error = np.sqrt(24 / 25 * np.sum((rest - np.mean(rest)) ** 2))
    assert found["low"] == pytest.approx(found["map_macro"] - 1.96 * error)


def test_where_squares_are_too_few_nobody_can_tell():
    tags = np.array([[1, 1], [0, 1]] * 5)
    found = summary(tags + 0.0, tags)
    # Every square has wheat.
    assert found["per_class"] == {"maize": 1.0, "wheat": None}
    assert summary(np.zeros((10, 2)), tags * [0, 1])["reason"] == "no crop has 3 squares with it and 3 without"
    few = summary(tags[:9] + 0.0, tags[:9])
    assert few["map_macro"] is None
    assert held_out_words(few) == f"cannot tell, fewer than {FEWEST_SQUARES} squares can be left out"
    # Squares whose part left nothing to train on count for nothing, and open tags are neither with nor without.
    gone = np.where(np.arange(10)[:, None] == 0, np.nan, tags)
    assert summary(gone, tags)["squares"] == 9
    unknown = np.ones((10, 2), bool)
    unknown[::2][:3, 0] = False
    assert summary(tags + 0.0, tags, unknown)["per_class"]["maize"] is None


def test_more_squares_than_that_are_thinned(dataset, small, monkeypatch):
    monkeypatch.setattr(cross_validation, "MOST", 12)
    assert cross_validate_tags(dataset, small)["squares"] == 12
    monkeypatch.setattr(cross_validation, "MOST", 9)
    assert cross_validate_tags(dataset, small)["map_macro"] is None
