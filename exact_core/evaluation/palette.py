"""The colours of classes and of charts, and labels, CAMs and images painted with them.

Axes are C bands, K crop classes, H W pixels. An image is (H, W, 3) in 0..1. Label 0 is background, 1..K crops, VOID
unknown.
"""

from __future__ import annotations

import colorsys
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

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
KINDS = {
    "sunflower": "#f0a000",
    "silage maize|fodder maize|green maize": "#c46a00",
    "maize|corn(?!flower)|mais|ma\u00efs": "#e68a1e",
    "potato": "#8a5a2b",
    "sugar ?beet|beetroot|fodder beet|beet": "#b5479b",
    "rape|canola|colza": "#d8e000",
    "buckwheat": "#d9b8a0",
    "wheat|spelt|weizen|bl\u00e9": "#f2d34f",
    "barley|gerste|orge": "#dcb43c",
    r"\brye\b|roggen|triticale": "#c79a3a",
    r"\boats?\b|hafer": "#e8dca0",
    r"\brice\b": "#6fc7c0",
    "millet|sorghum": "#b8863b",
    "cereal": "#ead06a",
    "soy": "#5f8f6b",
    r"\bpeas?\b|bean|groundnut|peanut|legume|pulse|lentil|lupin|chickpea": "#78a060",
    "alfalfa|lucerne|clover|fodder": "#2f8f5b",
    "temporary grass|fodder grass": "#8fd05f",
    "grass|meadow|pasture|grazing": "#5cb531",
    "flax|linseed|hemp|cotton|tobacco|hops?\\b|industrial": "#6f8fcf",
    "vineyard|grape|vine": "#7b2d6b",
    "olive": "#7a7f2f",
    "orchard|apple|pear|cherr|citrus|nuts?\\b|fruit(?!.*veg)": "#d9534f",
    "berr": "#c2185b",
    "vegetable|carrot|onion|leek|cabbage|tomato|asparagus": "#e07b9a",
    "flower|ornamental|nurser": "#e39be8",
    "fallow|bare": "#b9a58a",
    "wood|forest|tree": "#1d5e2a",
    "water": "#2f6fb5",
    "urban|built|greenhouse": "#8c8c8c",
}
"""What crops are, by words in their names, the first that fits, and their colours: grass green, cereals yellow, ..."""


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
    """Hex colours of background and of the classes (K + 1): those of the class map, else by the kind of crop.

    The name of a crop determines its colour, the same in every picture. If two classes of one map would look the same,
    the later one takes the next shade.
    """
    taken = {BACKGROUND, *(given[name] for name in classes if name in given)}
    colours = [BACKGROUND]
    for name in classes:
        colour = given.get(name) or next(each for each in _shades(name) if each not in taken)
        taken.add(colour)
        colours.append(colour)
    return colours


def _shades(name: str) -> Iterator[str]:
    """Colours of a crop, the best first: that of its kind, then lighter and darker ones, then any."""
    text = name.lower()
    number = zlib.crc32(text.encode())
    kind = next((colour for words, colour in KINDS.items() if re.search(words, text)), None)
    if kind is not None:
        hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(kind))
        first = -0.12 if "winter" in text else 0.12 if re.search("spring|summer", text) else 0.0
        for step in (first, 0.0, -0.12, 0.12, 0.2, -0.2):
            yield to_hex(colorsys.hls_to_rgb(hue, min(0.9, max(0.15, lightness + step)), saturation))
    usual = class_colours(254)[1:]
    yield from (usual[(number + step) % len(CROPS)] for step in range(len(CROPS)))
    yield from usual


def true_colour(pixels_CHW: NDArray[np.int16] | NDArray[np.float32], bands: tuple[str, ...]) -> Image:
    """A stretched picture (H, W, 3) of one acquisition.

    Red, green and blue are B04, B03, B02 where present, otherwise the first three bands, or the first one in grey. The
    2nd to 98th percentile of all three together, where something was measured, is stretched, so that colours keep their
    balance. Clouds saturate. What was not measured is white.

    Args:
        pixels_CHW: reflectance x 10,000.
        bands: names of the C bands.
    """
    if all(band in bands for band in ("B04", "B03", "B02")):
        chosen = [bands.index(band) for band in ("B04", "B03", "B02")]
    else:
        chosen = [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]
    image = pixels_CHW[chosen].astype(np.float64).transpose(1, 2, 0)
    measured = (image != 0).any(-1) & np.isfinite(image).all(-1)
    if not measured.any():
        return np.ones(image.shape)
    low, middle, high = np.percentile(image[measured], (2, 50, 98))
    # A few clouds would push the 98th percentile up and the land into darkness.
    high = min(high, low + 4 * (middle - low))
    stretched = np.clip((image - low) / max(high - low, 1.0), 0.0, 1.0)
    # Land is dark beside cloud and bare soil; a gamma below 1 opens the shadows.
    return np.asarray(np.where(measured[..., None], stretched**0.8, 1.0), np.float64)


def paint(labels_HW: NDArray[np.uint8], colours: Sequence[str]) -> Image:
    """Labels as an image in the colours of background and crops 1..K. VOID is white."""
    table = np.ones((VOID + 1, 3))
    table[: len(colours)] = [to_rgb(colour) for colour in colours]
    return table[labels_HW]


def overlay_cam(image: Image, cam_KHW: NDArray[np.float32], colours: Sequence[str]) -> Image:
    """The image in grey, tinted by the strongest class as far as its CAM (0..1) reaches."""
    grey = 0.35 + 0.6 * image.mean(-1, keepdims=True)
    strength = np.clip(cam_KHW.max(0), 0, 1)[..., None].astype(np.float64)
    tint = paint((cam_KHW.argmax(0) + 1).astype(np.uint8), colours)
    return np.asarray((1 - strength) * grey + strength * tint)
