"""Pseudo masks and CAMs on disk (docs/data-format.md specifies the files).

masks.json               MaskManifest, written last
NNNNN.safetensors        one file a shard of the dataset
index   int64 (n,)             positions in the dataset
masks   uint8 (n, H, W)        0 background, 1..K crops
cams    float16 (n, K, H, W)   the CAMs that the masks were made from, 0 where a class is not tagged
fused   float16, as cams       the fused CAMs of the same forward passes, for comparison
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from safetensors import safe_open

from exact_core.config import Settings
from exact_core.data.windows.dataset import FileEntry, WindowDataset, verify, write_shard
from exact_core.errors import DataError
from exact_core.manifest import Manifest

__all__ = ["FieldsUsed", "MaskManifest", "MaskQuality", "MaskSet", "write_mask_shard"]


class MaskQuality(Settings):
    """What can be said of pseudo masks without any truth (`exact_core.clues.quality`). Null where it is unknown."""

    # Masks of earlier versions say more than that.
    model_config = ConfigDict(extra="ignore")

    border_contrast: float | None = Field(
        description="mean contrast, natural logarithm above the window's mean, of the images along the masks' outlines"
    )
    relearn_agreement: float | None = Field(
        description="share of pixels that kept their label in pixel self-training; null where it did not run"
    )
    tag_agreement: float = Field(
        description="share of the tags whose crop is in the mask that the CAMs give, macro over crops"
    )
    tag_agreement_by_class: dict[str, float | None] = Field(description="the same, crop by crop; null without tags")
    shown_by_class: dict[str, float | None] = Field(
        {}, description="share of a crop's training windows whose final mask contains it; null without tags"
    )
    lost: tuple[str, ...] = Field((), description="crops that fewer than half of those masks show")
    rare: tuple[str, ...] = Field((), description="crops tagged in few training windows, of which little can be said")
    expected_oa: float | None = Field(
        None, description="expected OA: share of pixels with the same label by two of the regressions, mean over pairs"
    )
    expected_miou: float | None = Field(None, description="expected mIoU: that of their labels; null without them")
    expected_by_class: dict[str, float | None] = Field(
        {}, description="the same, class by class, background among them; null without tags"
    )
    expected_low: float | None = Field(None, description="lower end of the interval of the expected mIoU")
    expected_high: float | None = Field(None, description="upper end")


class FieldsUsed(Settings):
    """What became of field outlines (`exact_core.clues.fields`)."""

    fields: int = Field(description="outlines over the windows")
    not_shown: int = Field(description="left out: the images do not show them")
    contradicted: int = Field(description="left out: the tags of the windows over them leave no crop, or all is void")
    outside: str = Field(description="what pixels outside of all outlines are (masks.outside)")


class MaskManifest(Manifest):
    """`masks.json`."""

    schema_version: Literal[1] = 1
    dataset_digest: str
    classes: tuple[str, ...]
    cam: str = Field(description="which CAM the masks were made from")
    threshold: float = Field(description="background plane, CAM units in [0, 1]")
    rule: str = Field(description="how the threshold was chosen; 'given' when it was set by hand")
    fused_threshold: float = Field(description="threshold of the fused CAM by the same rule, for comparison")
    splits: tuple[str, ...]
    windows: int
    coverage: dict[str, float] = Field(description="share of pixels given to background and to each crop")
    histogram: tuple[int, ...] = Field(description="pixels by strongest CAM, equal bins over [0, 1]")
    quality: MaskQuality = Field(description="what is known of the masks without any truth")
    fields: FieldsUsed | None = Field(None, description="use of field outlines; null: none were used")
    code_version: str
    shards: tuple[FileEntry, ...]

    def publish(self, folder: Path) -> None:
        """Write the manifest. With it the folder is complete."""
        self.write(folder / "masks.json")


def write_mask_shard(folder: Path, number: int, arrays: dict[str, NDArray[np.generic]]) -> FileEntry:
    """Write the arrays of one shard."""
    return write_shard(folder, f"{number:05d}.safetensors", arrays, windows=len(arrays["index"]))


class MaskSet:
    """Read access to the masks made for a dataset. Shards are checked against their SHA-256 when first read.

    Raises:
        DataError: no mask set there, or one made for another dataset.
    """

    def __init__(self, folder: Path, dataset: WindowDataset) -> None:
        path = folder / "masks.json"
        if not path.is_file():
            raise DataError(f"{path}: no masks here. Make them with `exact generate-masks`")
        self.manifest = MaskManifest.read(path)
        if self.manifest.dataset_digest != dataset.manifest.digest:
            raise DataError(
                f"{path}: these masks were made for dataset {self.manifest.dataset_digest[:12]}…, "
                f"not for {dataset.manifest.digest[:12]}… in {dataset.root}. Generate masks for this dataset"
            )
        self._places: dict[int, tuple[int, int]] = {}
        self._shards: list[Any] = []
        for number, entry in enumerate(self.manifest.shards):
            verify(folder, entry)
            shard: Any = safe_open(str(folder / entry.name), framework="numpy")
            self._shards.append(shard)
            self._places |= {int(i): (number, row) for row, i in enumerate(shard.get_tensor("index"))}

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Pseudo mask (H, W) of the window at a position in the dataset."""
        mask: NDArray[np.uint8] = self._read("masks", index)
        return mask

    def cam(self, index: int, *, fused: bool = False) -> NDArray[np.float16]:
        """The window's CAMs (K, H, W)."""
        cam: NDArray[np.float16] = self._read("fused" if fused else "cams", index)
        return cam

    def _read(self, name: str, index: int) -> Any:
        if index not in self._places:
            raise DataError(f"there is no mask for window {index}. Masks cover the splits {self.manifest.splits}")
        shard, row = self._places[index]
        return self._shards[shard].get_slice(name)[row]
