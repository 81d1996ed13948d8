"""Tags of squares that were left out of training: what a season without a test split can be held to.

A table of few squares is not split, so no land is left to score a map on. But a model of single pixels that learns from
tags alone (`exact_core.clues.tag_pixels`) trains in seconds, once for each of a few parts of the squares, and predicts
the tags of that part. Its average precision says whether the tags of these squares carry over to other land. It is not
the accuracy of the map.

Parts are compact: squares near each other are left out together. A square that shares a pixel with one that is left out
does not train either. A square of several windows stays whole. Its crops grow somewhere in it, so its score is the
largest of its windows. The interval treats squares as independent. No constant was fitted to a scene.

Axes: N squares, n windows, K crop classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import PixelModel, PixelTable
from exact_core.clues.tag_pixels import STRONGEST, TaggedPixels, by_competition
from exact_core.config import RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.metrics import average_precision

__all__ = ["compact_parts", "cross_validate_tags", "held_out_scores", "held_out_summary", "held_out_words"]

PARTS = 5
"""Of the squares, each of which is left out once."""
FEWEST_SQUARES = 10
"""Of fewer squares a part has one or two, and a crop hardly any."""
FEWEST_OF_A_CROP = 3
"""Squares with a crop, and squares without it, from which its average precision says something."""
MOST = 200
"""Windows that are looked at. More would not narrow the interval by much, and cost time."""
PIXELS = 10_000
"""That train the model of each part."""
WIDTH = 1.96
"""Half the width of the interval, in standard errors by the jackknife over squares. In simulations of 25 and 50 squares
it covers the value of endless squares in 87 to 95 % of cases, a bootstrap's percentiles in 81 to 89 %: the average
precision of few squares is too high, by 0.02 to 0.09 there. A guess is too high alike."""
SHUFFLES, SURE = 200, 95
"""Guesses are the same scores, dealt to the squares at random. A model beats them if so many percent are worse."""


def cross_validate_tags(windows: WindowDataset, config: RunConfig) -> dict[str, Any]:
    """JSON-ready average precision of the tags of left-out training squares, with its interval.

    Args:
        windows: the dataset, without a test split.
        config: `masks.relearn`, `masks.overlaps` and `seed` apply.

    Returns:
        As of `held_out_summary`.
    """
    indices = windows.indices("train")
    if len(indices) > MOST:
        indices = indices[np.linspace(0, len(indices) - 1, MOST).astype(np.int64)]
    records = [windows.records[int(index)] for index in indices]
    scenes = {name: number for number, name in enumerate(sorted({each.scene for each in records}))}
    places = np.array([(scenes[each.scene], each.row, each.col) for each in records])
    squares: dict[tuple[bool, int], list[int]] = {}
    for place, each in enumerate(records):
        squares.setdefault((each.square is None, place if each.square is None else each.square), []).append(place)
    members = list(squares.values())

    def largest(values: NDArray[Any]) -> NDArray[Any]:
        """Of the windows (n, K) of each square: (N, K)."""
        return np.stack([values[own].max(0) for own in members])

    names, tags = windows.manifest.classes, largest(windows.tags[indices])
    known = None if windows.open is None else largest(windows.open[indices]) == 0
    if len(members) < FEWEST_SQUARES:
        return held_out_summary(None, tags, known, names, seed=config.seed)
    number = np.empty(len(indices), np.int64)
    for square, own in enumerate(members):
        number[own] = square
    parts = compact_parts(places[[own[0] for own in members]], PARTS)
    scores = held_out_scores(windows, indices, number, parts[number], places, config)
    return held_out_summary(largest(scores), tags, known, names, seed=config.seed)


def compact_parts(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The part (N,) of each place (N, 3: scene, row, col), 0 to `count` - 1, nearly equal in size.

    Places are halved across the longer side of what they cover, and so on. Scenes stay whole as long as they can.
    """
    found = np.zeros(len(places), np.int64)
    _halve(places, np.arange(len(places)), 0, count, found)
    return found


def _halve(
    places: NDArray[np.int64], members: NDArray[np.int64], first: int, count: int, found: NDArray[np.int64]
) -> None:
    if count == 1:
        found[members] = first
        return
    own = places[members]
    extent = np.ptp(own, axis=0)
    axis = 0 if extent[0] else 1 + int(extent[2] > extent[1])
    order = members[np.lexsort((own[:, 2], own[:, 1], own[:, 0], own[:, axis]))]
    left = count // 2
    cut = round(len(order) * left / count)
    _halve(places, order[:cut], first, left, found)
    _halve(places, order[cut:], first + left, count - left, found)


def held_out_scores(
    windows: WindowDataset,
    indices: NDArray[np.int64],
    squares: NDArray[np.int64],
    parts: NDArray[np.int64],
    places: NDArray[np.int64],
    config: RunConfig,
) -> NDArray[np.float64]:
    """How strongly each window (n, K) shows each crop to a model that its part did not train.

    The mean probability of the crop among the window's strongest pixels, as in that model's training. NaN where no
    window was left to train.

    Args:
        windows: the dataset.
        indices: positions of the windows (n,).
        squares: number of the square of each of them (n,).
        parts: of each of them (n,), the same in a square.
        places: scene, row and column of each (n, 3).
        config: as for `cross_validate_tags`.
    """
    side, scores = windows.manifest.window, np.full((len(indices), windows.classes), np.nan)
    settings = config.masks.relearn
    every = np.ones((windows.classes + 1, 1, 1))
    for part in np.unique(parts):
        out = parts == part
        apart = (places[:, None, 0] != places[out, 0]) | (np.abs(places[:, None, 1:] - places[out, 1:]) >= side).any(2)
        teachers = indices[~np.isin(squares, squares[out | ~apart.all(1)])].tolist()
        if not teachers:
            continue
        overlaps, left_out = OverlapTags(windows, teachers, use=config.masks.overlaps), set(indices[out].tolist())

        def allowed(index: int, overlaps: OverlapTags = overlaps, left_out: set[int] = left_out) -> NDArray[np.float64]:
            return every if index in left_out else overlaps.allowed(index)

        table = PixelTable(windows, allowed)
        drawn = TaggedPixels.drawn(table, teachers, pixels=min(PIXELS, settings.pixels), seed=config.seed)
        model = PixelModel(table, by_competition(drawn, settings))
        for row in np.flatnonzero(out):
            odds = model.scores(int(indices[row]))[..., 1:].reshape(side**2, -1)
            scores[row] = np.sort(odds, 0)[-max(1, int(STRONGEST * len(odds))) :].mean(0)
    return scores


def held_out_summary(
    scores: NDArray[np.float64] | None,
    tags: NDArray[np.uint8],
    known: NDArray[np.bool_] | None,
    names: tuple[str, ...],
    *,
    seed: int,
) -> dict[str, Any]:
    """JSON-ready average precision of scores, and how sure it is.

    Args:
        scores: (N, K), NaN for a square without one. If None, there are too few squares.
        tags: (N, K).
        known: (N, K), where a tag says anything. If None, everywhere.
        names: of crops 1..K.
        seed: of the guesses.

    Returns:
        squares: that were left out once. map_macro: mean average precision over the crops that have enough squares with
        and without them; null where no crop has. low, high: 95 % interval of it, by the jackknife over squares. guess:
        mean of the same scores dealt to the squares at random. guess_high: 95 % of such guesses are below it.
        beats_guess: whether map_macro is above that. per_class: the average precision, or null. reason: why it is null.
    """
    used = np.zeros(len(tags), bool) if scores is None else ~np.isnan(scores).any(1)
    result: dict[str, Any] = {
        "squares": int(used.sum()),
        "map_macro": None,
        "low": None,
        "high": None,
        "guess": None,
        "guess_high": None,
        "beats_guess": None,
        "per_class": dict.fromkeys(names),
        "reason": None,
    }
    if scores is None or used.sum() < FEWEST_SQUARES:
        result["reason"] = f"fewer than {FEWEST_SQUARES} squares can be left out"
        return result
    scores, tags = scores[used], tags[used]
    known = np.ones(tags.shape, bool) if known is None else known[used]
    present, absent = (tags > 0) & known, (tags == 0) & known
    told = (present.sum(0) >= FEWEST_OF_A_CROP) & (absent.sum(0) >= FEWEST_OF_A_CROP)
    if not told.any():
        result["reason"] = f"no crop has {FEWEST_OF_A_CROP} squares with it and {FEWEST_OF_A_CROP} without"
        return result

    def precision_of(kept: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the crops that can be told, when the tags of some squares have the scores of others."""
        return average_precision(scores[scored][:, told], tags[kept][:, told], known=known[kept][:, told])

    every = np.arange(len(tags))
    precision = precision_of(every, every)
    without = np.array([np.nanmean(precision_of(rest, rest)) for rest in (np.delete(every, each) for each in every)])
    error = np.sqrt((len(every) - 1) * without.var())
    rng = np.random.default_rng((seed, 5))
    guesses = np.array([precision_of(every, rng.permutation(every)).mean() for _ in range(SHUFFLES)])
    value, guess_high = float(precision.mean()), float(np.percentile(guesses, SURE))
    result |= {
        "map_macro": value,
        "low": max(0.0, float(value - WIDTH * error)),
        "high": min(1.0, float(value + WIDTH * error)),
        "guess": float(guesses.mean()),
        "guess_high": guess_high,
        "beats_guess": value > guess_high,
    }
    for place, own in zip(np.flatnonzero(told), precision, strict=True):
        result["per_class"][names[place]] = float(own)
    return result


def held_out_words(found: dict[str, Any]) -> str:
    """The result of `held_out_summary` as a clause."""
    if found["map_macro"] is None:
        return f"cannot tell, {found['reason']}"
    beaten = "" if found["beats_guess"] else ", not shown to be better than a guess"
    return (
        f"mean average precision {100 * found['map_macro']:.0f} % ({100 * found['low']:.0f} to "
        f"{100 * found['high']:.0f} %, a guess has {100 * found['guess']:.0f} %{beaten})"
    )
