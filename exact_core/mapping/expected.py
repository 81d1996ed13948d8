"""What to expect of a map without labels.

Its network and its regression of single pixels learned from the same masks. Where the land is unlike theirs, they part.
So no better accuracy is expected of a map than of its masks, nor than both name the same class (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from exact_core.config import Settings

__all__ = ["MapQuality", "expected_quality", "quality_words"]


class MapQuality(Settings):
    """What is expected of a map. Null where it is unknown."""

    agreement: float | None = Field(
        description="share of the mapped pixels to which network and regression, each alone, give the same class"
    )
    expected_oa: float | None = Field(description="expected OA: the lower of it and the OA expected of the masks")


def expected_quality(agreed: int | None, pixels: int, *, masks: float | None) -> MapQuality:
    """What to expect of a map.

    Args:
        agreed: mapped pixels to which both give the same class. None without a regression.
        pixels: mapped pixels.
        masks: OA expected of the masks that the segmenter learned from, if known.
    """
    agreement = None if agreed is None or not pixels else agreed / pixels
    expected = None if agreement is None or masks is None else min(agreement, masks)
    return MapQuality(agreement=agreement, expected_oa=expected)


def quality_words(quality: Mapping[str, float | None]) -> str:
    """What is expected of a map without labels."""
    expected, agreement = quality.get("expected_oa"), quality.get("agreement")
    if expected is None or agreement is None:
        return "expected OA: unknown"
    return (
        f"expected OA: {100 * expected:.0f} %, an estimate without labels (the model's network and regression agree on "
        f"{100 * agreement:.0f} % of the pixels)"
    )
