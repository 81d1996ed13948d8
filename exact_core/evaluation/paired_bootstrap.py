"""Two models on the same test windows: their difference, and its confidence interval.

Metrics come from counts that add up over units: the scenes of the evaluation split or, if there are too few, square
blocks of them. A paired bootstrap resamples units, with both models' counts of a unit together. So what makes a scene
difficult for both models does not blur their difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exact_core.config import PromotionConfig
from exact_core.data.windows.dataset import VOID, WindowDataset
from exact_core.mapping.predict import Predictor, map_scene
from exact_core.metrics import Scores, confusion_matrix

__all__ = ["Comparison", "Gain", "UnitCounts", "compare", "over_majority", "unit_counts"]

Counts = NDArray[np.int64]
FEWEST_SCENES = 8
"""Scenes below which a bootstrap over scenes would say little. Blocks are drawn then."""
BLOCK_WINDOWS = 2
"""Side of a block, in windows."""


@dataclass(frozen=True)
class UnitCounts:
    """A model's counts on a split, one row a unit.

    metric: miou where there are dense labels: counts are confusion matrices (U, K + 1, K + 1). Otherwise tag_f1:
        (U, K, 3), windows in which a crop was mapped and tagged, mapped alone, tagged alone.
    unit: what was counted by.
    """

    metric: Literal["miou", "tag_f1"]
    unit: Literal["scenes", "blocks"]
    counts: Counts

    @property
    def figure(self) -> float:
        """The metric over all units. NaN where no class occurs."""
        return _mean((_ious if self.metric == "miou" else _tag_f1s)(self.counts.sum(0)))


@dataclass(frozen=True)
class Comparison:
    """A challenger against a champion. Metrics and differences in points of 1.

    metric: miou, against dense labels, or tag_f1, against tags where there are none.
    unit, units: what the bootstrap drew, and how many there are.
    low, high: confidence interval of the difference in the metric.
    per_class: class -> difference. None where a class does not occur.
    """

    metric: str
    unit: str
    units: int
    champion: float
    challenger: float
    low: float
    high: float
    per_class: dict[str, float | None]

    @property
    def difference(self) -> float:
        """Challenger minus champion."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Gain:
    """A model against the map of one class, in one metric.

    metric: mIoU or OA. model, majority: in [0, 1]. low, high: confidence interval of their difference.
    """

    metric: str
    model: float
    majority: float
    low: float
    high: float


def unit_counts(predictor: Predictor, split: str) -> UnitCounts:
    """Map a split and count by scene. By block where there are fewer than FEWEST_SCENES scenes."""
    windows = predictor.windows
    scenes = list(windows.scenes(split))
    by_scene = len(scenes) >= FEWEST_SCENES
    found: list[Counts] = []
    for _, indices in scenes:
        scene = map_scene(predictor, indices)
        places = {index: scene.mosaic.place(windows.records[index]) for index in indices}
        if windows.manifest.has_labels:
            truth = np.full(scene.mosaic.shape, VOID, np.uint8)
            for index, place in places.items():
                truth[place] = windows.labels(index)
            side = max(truth.shape) if by_scene else BLOCK_WINDOWS * windows.manifest.window
            found += _by_block(truth, scene.label, side=side, classes=windows.classes)
        else:
            groups: dict[tuple[int, int], Counts] = {}
            for index, (rows, cols) in places.items():
                side = BLOCK_WINDOWS * windows.manifest.window
                block = (0, 0) if by_scene else (rows.start // side, cols.start // side)
                counts = _tag_counts(scene.label[rows, cols], windows, index)
                groups[block] = groups[block] + counts if block in groups else counts
            found += groups.values()
    metric: Literal["miou", "tag_f1"] = "miou" if windows.manifest.has_labels else "tag_f1"
    return UnitCounts(metric, "scenes" if by_scene else "blocks", np.stack(found))


def compare(
    champion: UnitCounts, challenger: UnitCounts, *, names: tuple[str, ...], config: PromotionConfig, seed: int
) -> Comparison:
    """A paired bootstrap of the difference between two models.

    Args:
        champion: counts of the model in use.
        challenger: counts of the new one, of the same units.
        names: of crops 1..K.
        config: `samples` and `confidence` apply.
        seed: of the draw.
    """
    if champion.counts.shape != challenger.counts.shape or champion.metric != challenger.metric:
        raise ValueError(f"counts {champion.counts.shape} and {challenger.counts.shape} are not of the same units")
    figures = _ious if champion.metric == "miou" else _tag_f1s
    low, high = _interval(champion.counts, challenger.counts, lambda counts: _mean(figures(counts)), config, seed)
    each = [figures(model.counts.sum(0)) for model in (champion, challenger)]
    labels = ("background", *names) if champion.metric == "miou" else names
    return Comparison(
        metric=champion.metric,
        unit=champion.unit,
        units=len(champion.counts),
        champion=_mean(each[0]),
        challenger=_mean(each[1]),
        low=low,
        high=high,
        per_class={
            name: None if np.isnan(before) or np.isnan(after) else float(after - before)
            for name, before, after in zip(labels, *each, strict=True)
        },
    )


def over_majority(model: UnitCounts, *, config: PromotionConfig, seed: int) -> list[Gain]:
    """A map against the one that gives every pixel the class that the split has most of: in mIoU and in OA.

    The OA of that map is the no-information rate of the split.

    Args:
        model: its counts, with dense labels.
        config: `samples` and `confidence` apply.
        seed: of the draw.
    """
    if model.metric != "miou":
        raise ValueError("counts of tags: they hold no pixel of the most frequent class")
    truth = model.counts.sum(2)
    constant = np.zeros_like(model.counts)
    winner = int(truth.sum(0).argmax())
    constant[:, :, winner] = truth

    def miou(counts: Counts) -> float:
        return _mean(_ious(counts))

    def oa(counts: Counts) -> float:
        return Scores(counts).oa_micro

    found = []
    for name, metric in (("mIoU", miou), ("OA", oa)):
        ours, theirs = metric(model.counts.sum(0)), metric(constant.sum(0))
        low, high = _interval(constant, model.counts, metric, config, seed)
        found.append(Gain(name, ours, theirs, low, high))
    return found


def _interval(
    before: Counts, after: Counts, metric: Callable[[Counts], float], config: PromotionConfig, seed: int
) -> tuple[float, float]:
    """Confidence interval of the gain in a metric, by draws of units (U, ...) with replacement."""
    units = len(before)
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=config.samples)
    means = [np.array([metric(np.tensordot(weights, counts, 1)) for weights in drawn]) for counts in (before, after)]
    tail = (1 - config.confidence) / 2
    low, high = np.nanquantile(means[1] - means[0], [tail, 1 - tail])
    return float(low), float(high)


def _by_block(truth: NDArray[np.uint8], label: NDArray[np.uint8], *, side: int, classes: int) -> list[Counts]:
    """A confusion matrix for each block with a pixel that is not void. The blocks are the same for every map."""
    found = []
    for row in range(0, truth.shape[0], side):
        for col in range(0, truth.shape[1], side):
            cut = np.s_[row : row + side, col : col + side]
            if (truth[cut] != VOID).any():
                found.append(confusion_matrix(truth[cut], label[cut], classes=classes))
    return found


def _tag_counts(label: NDArray[np.uint8], windows: WindowDataset, index: int) -> Counts:
    mapped = np.bincount(label.ravel(), minlength=windows.classes + 1)[1 : windows.classes + 1] > 0
    tagged = windows.tags[index].astype(bool)
    return np.stack([mapped & tagged, mapped & ~tagged, ~mapped & tagged], 1).astype(np.int64)


def _ious(counts: Counts) -> NDArray[np.float64]:
    return Scores(counts).iou


def _tag_f1s(counts: Counts) -> NDArray[np.float64]:
    """F1 of each crop's presence in windows. NaN where it is neither mapped nor tagged."""
    both, mapped, tagged = counts.T.astype(float)
    whole = 2 * both + mapped + tagged
    return np.asarray(np.divide(2 * both, whole, out=np.full(len(both), np.nan), where=whole > 0))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
