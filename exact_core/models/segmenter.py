"""The TSViT segmenter, trained on pseudo masks (TSViT: Tarasiou et al., CVPR 2023), and the choice of a segmenter."""

from __future__ import annotations

from torch import Tensor, nn

from exact_core.config import SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.models.tsvit import SpatialEncoder, TemporalEncoder, by_windows
from exact_core.models.utae import Utae

__all__ = ["AnySegmenter", "Segmenter", "build_segmenter", "class_probabilities"]


class Segmenter(nn.Module):
    """Logits of background and K crops for every pixel of a window."""

    def __init__(self, config: SegmenterConfig, *, bands: int, classes: int, window: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.patch, self.side, self.layout = encoder.patch, window // encoder.patch, config.layout
        self.temporal = TemporalEncoder(encoder, bands=bands, tokens=classes + 1)
        self.spatial = SpatialEncoder(encoder, patches=self.side**2, global_token=False)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, encoder.patch**2))

    def forward(self, series: Series) -> Tensor:
        """Logits (B, K + 1, H, W). Class 0 is background."""

        def made_of(part: Series) -> dict[str, Tensor]:
            return {"logits": self.decode(self.temporal(part, only_classes=True).classes)}

        logits: Tensor = by_windows(made_of, self, series)["logits"]
        return logits

    def decode(self, tokens_BPKD: Tensor) -> Tensor:
        """Logits (B, K + 1, H, W) from the class tokens of a window's patches, which know nothing of each other."""
        pixels: Tensor = self.head(self.spatial(tokens_BPKD.transpose(1, 2)))
        batch, classes = pixels.shape[:2]
        side, patch = self.side, self.patch
        if self.layout == "published":
            # The published code reads the list (patch, value in patch) row by row as the image.
            return pixels.reshape(batch, classes, side * patch, side * patch)
        image = pixels.view(batch, classes, side, side, patch, patch).transpose(3, 4)
        return image.reshape(batch, classes, side * patch, side * patch)


AnySegmenter = Segmenter | Utae
"""What maps and is scored: a module that turns a `Series` into logits (B, K + 1, H, W)."""


def class_probabilities(logits_BKHW: Tensor) -> Tensor:
    """Softmax over the classes, float32. A pixel's values do not depend on the batch, to the last bit."""
    # torch's softmax divides all pixels of a batch among threads, and rounds those at an end of a share differently.
    logits = logits_BKHW.float()
    found = (logits - logits.amax(1, keepdim=True)).exp_()
    return found.div_(found.sum(1, keepdim=True))


def build_segmenter(config: SegmenterConfig, *, bands: int, classes: int, window: int) -> AnySegmenter:
    """The segmenter that `config.model` names, untrained."""
    if config.model == "utae":
        return Utae(config.utae, bands=bands, classes=classes)
    return Segmenter(config, bands=bands, classes=classes, window=window)
