"""Single pixels learn from tags alone, as multiple instances: a second opinion beside CAMs (not in the paper).

A classifier of windows needs hundreds of them. A table of tags often names 25 squares, but these have thousands of
pixels. A linear softmax over the series of single pixels is trained so that

- no pixel has a crop that the tags over it exclude, and
- the strongest pixels of a window show each of its tagged crops.

Crops compete in the softmax: in a window with two tags, each needs pixels of its own. So a crop that is never tagged
alone is separated from the one beside it. A regression for each tag by itself does not do that. Rounds of self-training
within the tags follow. Pixel self-training of the masks (`exact_core.clues.pixels`) then starts from the confident
pixels of the CAMs that have the same label here.

The model is mi-SVM's idea (Andrews et al., "Support vector machines for multiple-instance learning", NIPS 2002) with a
softmax and more than one class. Constants were chosen on flanders_2018, four draws of 25 squares, with its labels in
view (docs/experiments.md).

Axes: N windows, m pixels of each, D features, K crop classes, H W pixels of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from exact_core.clues.pixels import PixelOdds, fit_pixels
from exact_core.config import RelearnConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.regular_series import calendar_of, pixel_features
from exact_core.models.threads import each_part

__all__ = ["TagPixels", "competing_crops"]

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
TINY = 1e-6


class TagPixels:
    """The crop of each pixel of a window by the tags alone.

    Args:
        windows: the dataset.
        indices: positions of the windows whose tags are learned from. One that is all void is left out.
        settings: number of pixels, ridge and balance.
        allowed: for the position of a window, 1 where a pixel may be background or a crop (K + 1, H, W) or
            (K + 1, 1, 1).
        seed: draws the pixels.
    """

    def __init__(
        self,
        windows: WindowDataset,
        indices: Sequence[int],
        settings: RelearnConfig,
        *,
        allowed: Callable[[int], NDArray[np.float64]],
        seed: int,
    ) -> None:
        self._windows, self._calendar, self._allowed = windows, calendar_of(windows), allowed
        rng = np.random.default_rng((seed, 3))
        each = min(windows.manifest.window**2, max(1, settings.pixels // len(indices)))
        used, rows, may_be = [], [], []
        for index in indices:
            known = self._known(index)
            if not len(known):
                continue
            # As many of each window, some of them twice where others are void.
            chosen = np.resize(rng.permutation(known), each)
            used.append(index)
            rows.append(self._features(index)[chosen])
            may_be.append(self._may_be(index)[chosen])
        features, within = np.concatenate(rows), np.concatenate(may_be)
        self._scaler = StandardScaler().fit(features)
        scaled = self._scaler.transform(features)
        self._axes = PCA(min(COMPONENTS, *scaled.shape), svd_solver="full").fit(scaled)
        self._unit = SPREAD / max(float(np.sqrt(self._axes.explained_variance_[0])), TINY)
        parts = self._axes.transform(scaled) * self._unit
        shape = (len(used), each, -1)
        odds = competing_crops(parts.reshape(shape), windows.tags[used], within.reshape(shape))
        labels = (odds.reshape(within.shape) * within).argmax(1)
        for _ in range(ROUNDS):
            self._odds: PixelOdds = fit_pixels(
                parts, labels, classes=windows.classes + 1, ridge=settings.ridge, balance=settings.balance
            )
            labels = (self._odds(parts) * within).argmax(1)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Background or the likeliest allowed crop of each pixel (H, W)."""
        side = self._windows.manifest.window
        return np.asarray(self.odds(index).argmax(1).reshape(side, side), np.uint8)

    def odds(self, index: int) -> NDArray[np.float64]:
        """Probabilities of the pixels of a window (H * W, K + 1), 0 for what they may not be."""
        parts = self._axes.transform(self._scaler.transform(self._features(index))) * self._unit
        return self._odds(parts) * self._may_be(index)

    def _features(self, index: int) -> NDArray[np.float32]:
        return pixel_features(self._windows.window(index), self._calendar)

    def _known(self, index: int) -> NDArray[np.int64]:
        """Positions of a window's pixels that are not void."""
        unknown = self._windows.unknown(index)
        return np.arange(self._windows.manifest.window**2) if unknown is None else np.flatnonzero(~unknown)

    def _may_be(self, index: int) -> NDArray[np.float64]:
        """1 for what each pixel may be (H * W, K + 1)."""
        side, classes = self._windows.manifest.window, self._windows.classes + 1
        return np.broadcast_to(self._allowed(index), (classes, side, side)).reshape(classes, -1).T


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
