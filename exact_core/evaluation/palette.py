"""The colours of classes and of charts, and labels, CAMs and images painted with them.

Axes: C bands, K crop classes, H W pixels; an image is (H, W, 3) in 0..1. Label 0 is background, 1..K crops, VOID
unknown.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from exact_core.data.windows.dataset import VOID

__all__ = ["class_colours", "colours_of", "overlay_cam", "paint", "true_colour"]

Image = NDArray[np.float64]
BACKGROUND = "#ebe6dc"
# Okabe and Ito's seven, then 17 by farthest-point choice in OKLab under normal, protanopic and deuteranopic vision,
# each also far from the background and from white.
CROPS = (
    *("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#580d0d"),
    *("#0d0d8a", "#a32664", "#32580d", "#64d496", "#8a71ed", "#5832af", "#0d323f", "#fabbfa"),
    *("#8a644b", "#582664", "#64588a", "#96af8a", "#193f8a", "#fa7dd4", "#a3190d", "#4b7d7d"),
)
CONFIDENCE = "cividis"


def class_colours(count: int) -> list[str]:
    """Hex colours of background and of `count` crops, all different: (count + 1) entries."""
    colours = [BACKGROUND, *CROPS[:count]]
    turn = 0
    while len(colours) <= count:
        # Golden-ratio steps around the hue circle never repeat; three lightnesses keep neighbours apart.
        red, green, blue = colorsys.hls_to_rgb(turn * 0.618034 % 1, (0.35, 0.55, 0.72)[turn % 3], 0.6)
        colour = to_hex((red, green, blue))
        if colour not in colours:
            colours.append(colour)
        turn += 1
    return colours


def colours_of(classes: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """Hex colours of background and of the classes (K + 1): those that the class map gives, else the house's."""
    usual = class_colours(len(classes))
    return [usual[0], *(given.get(name, colour) for name, colour in zip(classes, usual[1:], strict=True))]


def true_colour(pixels_CHW: NDArray[np.int16], bands: tuple[str, ...]) -> Image:
    """A stretched picture (H, W, 3) of one acquisition.

    Red, green and blue are B04, B03, B02 where present, otherwise the first three bands, or the first one in grey. The
    2nd to 98th percentile of all three together is stretched, so that colours keep their balance; clouds saturate.

    Args:
        pixels_CHW: reflectance x 10,000.
        bands: names of the C bands.
    """
    if all(band in bands for band in ("B04", "B03", "B02")):
        chosen = [bands.index(band) for band in ("B04", "B03", "B02")]
    else:
        chosen = [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]
    image = pixels_CHW[chosen].astype(np.float64).transpose(1, 2, 0)
    low, middle, high = np.percentile(image, (2, 50, 98))
    # A few clouds would push the 98th percentile up and the land into darkness.
    high = min(high, low + 4 * (middle - low))
    stretched = np.clip((image - low) / max(high - low, 1.0), 0.0, 1.0)
    # Land is dark beside cloud and bare soil; a gamma below 1 opens the shadows.
    return np.asarray(stretched**0.8, np.float64)


def paint(labels_HW: NDArray[np.uint8], colours: Sequence[str]) -> Image:
    """Labels as an image in the colours of background and crops 1..K; VOID is white."""
    table = np.ones((VOID + 1, 3))
    table[: len(colours)] = [to_rgb(colour) for colour in colours]
    return table[labels_HW]


def overlay_cam(image: Image, cam_KHW: NDArray[np.float32], colours: Sequence[str]) -> Image:
    """The image in grey, tinted by the strongest class as far as its CAM (0..1) reaches."""
    grey = 0.35 + 0.6 * image.mean(-1, keepdims=True)
    strength = np.clip(cam_KHW.max(0), 0, 1)[..., None].astype(np.float64)
    tint = paint((cam_KHW.argmax(0) + 1).astype(np.uint8), colours)
    return np.asarray((1 - strength) * grey + strength * tint)
