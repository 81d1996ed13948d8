"""The TSViT segmenter, trained on pseudo masks (TSViT: Tarasiou et al., CVPR 2023), and the choice of a segmenter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from exact_core.config import SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.pixel_regression import PixelRegression, WithPixels
from exact_core.models.tsvit import SpatialEncoder, TemporalEncoder, by_windows, from_patches
from exact_core.models.utae import Utae

__all__ = ["AnySegmenter", "Segmenter", "build_segmenter"]


class Segmenter(WithPixels):
    """Logits of background and K crops for every pixel of a window."""

    def __init__(self, config: SegmenterConfig, *, bands: int, classes: int, window: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.patch, self.side, self.layout = encoder.patch, window // encoder.patch, config.layout
        self.temporal = TemporalEncoder(encoder, bands=bands, tokens=classes + 1)
        self.spatial = SpatialEncoder(encoder, patches=self.side**2, global_token=False)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, encoder.patch**2))

    def network(self, series: Series) -> Tensor:
        """See `WithPixels`."""

        def made_of(part: Series) -> dict[str, Tensor]:
            return {"logits": self.decode(self.temporal(part, only_classes=True).classes)}

        logits: Tensor = by_windows(made_of, self, series)["logits"]
        return logits

    def decode(self, tokens_BPKD: Tensor) -> Tensor:
        """The network's logits (B, K + 1, H, W) from the class tokens of a window's patches.

        These know nothing of each other.
        """
        pixels: Tensor = self.head(self.spatial(tokens_BPKD.transpose(1, 2)))
        if self.layout == "published":
            # The published code reads the list (patch, value in patch) row by row as the image.
            return pixels.reshape(*pixels.shape[:2], self.side * self.patch, self.side * self.patch)
        return from_patches(pixels)


AnySegmenter = Segmenter | Utae
"""What maps and is scored: a module that turns a `Series` into logits (B, K + 1, H, W)."""


def build_segmenter(
    config: SegmenterConfig, *, bands: int, classes: int, window: int, pixel_days: Sequence[int] = ()
) -> AnySegmenter:
    """The segmenter that `config.model` names, untrained.

    Args:
        config: model, its layers, and the weight of single pixels apply.
        bands: C.
        classes: K.
        window: S, pixels.
        pixel_days: parts of the season, days, that a regression of single pixels was fitted to. If empty, there is
            none.
    """
    model: AnySegmenter
    if config.model == "utae":
        model = Utae(config.utae, bands=bands, classes=classes)
    else:
        model = Segmenter(config, bands=bands, classes=classes, window=window)
    if pixel_days:
        model.pixels = PixelRegression(
            bands=bands, classes=classes, patch=config.reading.patch, days=pixel_days, weight=config.pixel_weight
        )
    return model
