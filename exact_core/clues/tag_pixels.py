"""Single pixels learn from tags alone, as multiple instances: second opinions beside CAMs (not in the paper).

A classifier of windows needs hundreds of them, and where its CAMs are wrong, whole fields are. A regression on single
pixels has few coefficients, and tags can teach it in two ways. They err in other places than CAMs do.

**Competition.** A linear softmax over the series of single pixels is trained so that

- no pixel has a crop that the tags over it exclude, and
- the strongest pixels of a window show each of its tagged crops.

Crops compete in the softmax: in a window with two tags, each needs pixels of its own. So a crop that is never tagged
alone is separated from the one beside it. It is mi-SVM's idea (Andrews et al., "Support vector machines for
multiple-instance learning", NIPS 2002) with a softmax and more than one class. Constants were chosen on flanders_2018,
four draws of 25 squares, with its labels in view (docs/experiments.md).

**Frequency.** A regression predicts each of a window's tags from each of its pixels. A pixel of crop k lies in windows
tagged k always, any other pixel as often as chance has it: the predicted frequency tells them apart. A pixel goes to
its likeliest tagged crop, or to background where that is below a threshold (Otsu).

Rounds of self-training within the tags follow on both.

Axes: N windows, m pixels of each, D features, K crop classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from exact_core.clues.pixels import PixelTable, self_trained
from exact_core.clues.regression import PixelOdds, fit_pixels
from exact_core.clues.selection import BINS, otsu_threshold
from exact_core.config import RelearnConfig
from exact_core.models.threads import each_part

__all__ = ["TaggedPixels", "by_competition", "by_frequency", "competing_crops", "first_classes"]

LEAST = 64
"""Pixels of a window at least, so that a crop on a tenth of it is among them. If that is too many, some windows give
none."""
COMPONENTS = 24
"""Principal components that describe a pixel. All of its 200 features would be learned by heart from a few squares."""
SPREAD = 3.0
"""Standard deviation of the first of them: the unit of the penalty."""
STRONGEST = 0.1
"""Share of a window's pixels that show a tagged crop."""
PENALTY = 0.01
"""Of the squared coefficients."""
STEPS, RATE = 150, 0.1
"""Of Adam."""
ROUNDS = 3
"""Of self-training within the tags."""
STARTS, BEGIN = 3, 0.01
"""Optima depend on the first coefficients, of this standard deviation. The probabilities of several are averaged."""
RARE = 0.01
"""Inverse strength of the ridge where tags are predicted: more than later, for no pixel is sure of a tag."""
TINY = 1e-6


@dataclass(frozen=True)
class TaggedPixels:
    """Pixels of tagged windows, as many of each.

    features: standardised (N, m, D). may_be: 1 for what each pixel may be (N, m, K + 1). tags: of the windows (N, K), 1
    where a crop is known to grow. told: (N, K), where a tag says anything. scaler: what standardised.
    """

    features: NDArray[np.float32]
    may_be: NDArray[np.float64]
    tags: NDArray[np.uint8]
    told: NDArray[np.bool_]
    scaler: StandardScaler

    @classmethod
    def drawn(cls, table: PixelTable, indices: Sequence[int], *, pixels: int, seed: int) -> TaggedPixels:
        """About so many pixels of the windows at these positions. A window that is all void has none.

        Of more windows than can have enough of them, those with rare crops are likelier to be drawn.
        """
        windows, rng = table.windows, np.random.default_rng((seed, 3))
        known = {index: table.known(index) for index in indices}
        used = [index for index in indices if len(known[index])]
        most = max(1, pixels // LEAST)
        if len(used) > most:
            tags = windows.tags[used]
            rarest = np.where(tags > 0, tags.sum(0), len(used)).min(1)
            share = 1 / rarest
            used = [used[place] for place in np.sort(rng.choice(len(used), most, replace=False, p=share / share.sum()))]
        each = min(windows.manifest.window**2, max(1, pixels // len(used)))
        rows, may_be = [], []
        for index in used:
            # As many of each window, some of them twice where others are void.
            chosen = np.resize(rng.permutation(known[index]), each)
            rows.append(table.features(index)[chosen])
            may_be.append(table.may_be(index)[chosen])
        features = np.concatenate(rows)
        scaler = StandardScaler().fit(features)
        tags = windows.tags[used]
        told = np.ones(tags.shape, bool) if windows.open is None else windows.open[used] == 0
        return cls(
            scaler.transform(features).reshape(len(used), each, -1), np.stack(may_be), tags, told | (tags > 0), scaler
        )

    def in_a_row(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Features (N * m, D) and what each pixel may be (N * m, K + 1), window after window."""
        return self.features.reshape(-1, self.features.shape[-1]), self.may_be.reshape(-1, self.may_be.shape[-1])


def by_competition(pixels: TaggedPixels, settings: RelearnConfig) -> PixelOdds:
    """What tags teach where the crops of a window compete for its pixels. settings: ridge and balance."""
    rows, may_be = pixels.in_a_row()
    axes = PCA(min(COMPONENTS, *rows.shape), svd_solver="full").fit(rows)
    unit = SPREAD / max(float(np.sqrt(axes.explained_variance_[0])), TINY)
    parts = axes.transform(rows) * unit
    odds = competing_crops(parts.reshape(*pixels.features.shape[:2], -1), pixels.tags, pixels.may_be)
    labels = (odds.reshape(may_be.shape) * may_be).argmax(1)
    found = self_trained(parts, labels, may_be, settings, rounds=ROUNDS)
    slopes = axes.components_.T @ (unit * found.coefficients[:-1])
    intercepts = found.coefficients[-1:] - axes.mean_ @ slopes
    return PixelOdds(found.known, np.concatenate([slopes, intercepts]), found.classes).of_unscaled(pixels.scaler)


def by_frequency(pixels: TaggedPixels, settings: RelearnConfig) -> PixelOdds:
    """What tags teach by how often pixels like one lie in windows with each of them. settings: ridge and balance."""
    rows, may_be = pixels.in_a_row()
    tags, told = (np.repeat(values, pixels.features.shape[1], 0) for values in (pixels.tags, pixels.told))
    frequencies = np.zeros(tags.shape)
    for crop in range(tags.shape[1]):
        own = told[:, crop]
        if own.any():
            odds = fit_pixels(rows[own], tags[own, crop], classes=2, ridge=RARE)
            frequencies[:, crop] = odds(rows)[:, 1]
    labels, _ = first_classes(frequencies, may_be[:, 1:])
    return self_trained(rows, labels, may_be, settings, rounds=ROUNDS).of_unscaled(pixels.scaler)


def first_classes(
    frequencies: NDArray[np.float64], allowed: NDArray[np.number[Any]]
) -> tuple[NDArray[np.int64], float]:
    """The likeliest allowed crop of each pixel, or background below the threshold, which is returned too.

    Args:
        frequencies: (n, K), how often windows around such a pixel carry each tag.
        allowed: (n, K), 1 for the crops that each pixel may be.
    """
    tagged = frequencies * allowed
    strongest = tagged.max(1)
    threshold = otsu_threshold(np.histogram(strongest[allowed.any(1)], BINS, (0, 1))[0])
    return np.where(strongest > threshold, tagged.argmax(1) + 1, 0), threshold


def competing_crops(
    features: NDArray[np.floating[Any]], tags: NDArray[np.uint8], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities (N, m, K + 1) of the pixels of windows, learned from tags alone.

    The loss is the mean negative logarithm of the probability that a pixel is something it may be. The mean over tagged
    crops, and within it over windows, of that of the mean probability of a crop among its strongest pixels in a tagged
    window is added.

    Args:
        features: of pixels (N, m, D).
        tags: of windows (N, K), 1 where a crop is known to grow.
        allowed: 1 for what a pixel may be (N, m, K + 1).
    """
    x, may_be = (torch.from_numpy(np.ascontiguousarray(each, np.float64)) for each in (features, allowed))
    present = tags.any(0)
    tagged, classes = torch.from_numpy(tags[:, present].astype(np.float64)), np.flatnonzero(present) + 1
    strongest = max(1, int(STRONGEST * x.shape[1]))

    @torch.enable_grad()
    def learned(start: int) -> Tensor:
        draw = torch.Generator().manual_seed(start)
        slopes = (BEGIN * torch.randn(x.shape[2], may_be.shape[2], generator=draw, dtype=x.dtype)).requires_grad_()
        level = torch.zeros(may_be.shape[2], dtype=x.dtype, requires_grad=True)
        optimiser: Any = torch.optim.Adam([slopes, level], lr=RATE)
        for _ in range(STEPS):
            odds = torch.softmax(x @ slopes + level, -1)
            loss: Any = -(odds * may_be).sum(-1).clamp(min=TINY).log().mean() + PENALTY * slopes.square().sum()
            if len(classes):
                shown = odds[..., classes].topk(strongest, dim=1).values.mean(1).clamp(min=TINY)
                loss = loss - ((shown.log() * tagged).sum(0) / tagged.sum(0)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return torch.softmax(x @ slopes + level, -1).detach()

    # Its products are small: a second thread for one costs more than it helps, and rounds otherwise.
    with torch.no_grad():
        every = torch.stack(each_part(learned, range(STARTS), torch.device("cpu")))
    return np.asarray(every.mean(0).numpy())
