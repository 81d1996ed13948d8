"""What outlines of fields are worth, and what imperfect ones cost (`docs/results.md` holds the figures).

    python -m benchmarks.outlines --dataset DIR --masks DIR --outlines FILE [--recipe season] [--draws 0 1 2]

Of a dataset of one scene and masks that were made without outlines (`masks.fields=false`, or none were there): the
pixel model is taught once as the stage teaches it; then the training windows' masks with outlines as they are, shifted,
merged, split and missing, by three draws, each with what lies outside of all outlines as its pixels look, and as
background. Labels are read to score alone. The column "believed" is the share of outlines that images and tags let
stand; "all believed" leaves the rule of the images out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine

from benchmarks.floors import score_split
from exact_core.clues.field_borders import border_contrast
from exact_core.clues.fields import Fields
from exact_core.clues.masks import pseudo_masks
from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import FirstMask, PixelModel, sure_pixels, without_unknown
from exact_core.clues.relearn import relearn
from exact_core.config import RunConfig
from exact_core.data.season.outlines import outlines_on
from exact_core.data.season.rasters import Grid
from exact_core.data.vectors import open_layer
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.mask_dataset import MaskSet
from exact_core.metrics import Scores
from exact_core.recipes import resolve

__all__ = ["VARIANTS", "Outlined", "main", "measure"]

Areas = list[shapely.Geometry]
Change = Callable[[Areas, np.random.Generator, float], Areas]


def shifted(areas: Areas, rng: np.random.Generator, pixel: float, *, pixels: int) -> Areas:
    """All moved in one direction, drawn."""
    angle = rng.uniform(0, 2 * np.pi)
    step = pixels * pixel * np.array([np.cos(angle), np.sin(angle)])
    return [shapely.transform(each, lambda points: points + step) for each in areas]


def merged(areas: Areas, rng: np.random.Generator, pixel: float, *, share: float) -> Areas:
    """A share of them joined with the nearest other one."""
    kept = dict(enumerate(areas))
    for place in rng.permutation(len(areas))[: round(share * len(areas))].tolist():
        others = [other for other in kept if other != place]
        if place in kept and others:
            nearest = min(others, key=lambda other: kept[place].distance(kept[other]))
            kept[place] = kept[place].union(kept.pop(nearest)).buffer(pixel).buffer(-pixel)
    return list(kept.values())


def split(areas: Areas, rng: np.random.Generator, pixel: float, *, share: float) -> Areas:  # noqa: ARG001
    """A share of them cut in two through the middle, along their longer side or across it."""
    chosen = set(rng.permutation(len(areas))[: round(share * len(areas))].tolist())
    found: Areas = []
    for place, area in enumerate(areas):
        if place not in chosen:
            found.append(area)
            continue
        left, bottom, right, top = area.bounds
        x, y = (left + right) / 2, (bottom + top) / 2
        upright = rng.random() < 0.5
        first = shapely.box(left, bottom, x, top) if upright else shapely.box(left, bottom, right, y)
        found.extend((area.intersection(first), area.difference(first)))
    return found


def missing(areas: Areas, rng: np.random.Generator, pixel: float, *, share: float) -> Areas:  # noqa: ARG001
    """A share of them left out."""
    return [areas[place] for place in sorted(rng.permutation(len(areas))[round(share * len(areas)) :].tolist())]


VARIANTS: dict[str, Change] = {
    "as they are": lambda areas, _rng, _pixel: areas,
    "shifted by 1 pixel": lambda *given: shifted(*given, pixels=1),
    "shifted by 2 pixels": lambda *given: shifted(*given, pixels=2),
    "shifted by 4 pixels": lambda *given: shifted(*given, pixels=4),
    "shifted by 8 pixels": lambda *given: shifted(*given, pixels=8),
    "a quarter merged with the next": lambda *given: merged(*given, share=0.25),
    "a quarter split in two": lambda *given: split(*given, share=0.25),
    "10 % missing": lambda *given: missing(*given, share=0.1),
    "20 % missing": lambda *given: missing(*given, share=0.2),
    "40 % missing": lambda *given: missing(*given, share=0.4),
}


class Outlined(WindowDataset):
    """A dataset whose windows lie under other outlines: numbers (H, W) of the one scene's pixels."""

    numbers: NDArray[np.int32]

    def fields(self, index: int) -> NDArray[np.int32]:
        """See `WindowDataset.fields`."""
        record, side = self.records[index], self.manifest.window
        return self.numbers[record.row : record.row + side, record.col : record.col + side]


def grid_of(windows: WindowDataset) -> Grid:
    """The pixels of the one scene, as far as windows reach."""
    records, side = list(windows.records), windows.manifest.window
    a, b, c, d, e, f = records[0].transform
    row, col = records[0].row, records[0].col
    onto = Affine(a, b, c - col * a - row * b, d, e, f - col * d - row * e)
    height, width = (max(getattr(each, name) for each in records) + side for name in ("row", "col"))
    return Grid(CRS.from_user_input(records[0].crs), onto, height, width, windows.root)


def taught(windows: WindowDataset, masks: MaskSet, overlaps: OverlapTags, config: RunConfig) -> PixelModel:
    """The pixel model as stage `generate_masks` teaches it, from the CAMs that it wrote."""
    settings, threshold = config.masks.relearn, masks.manifest.threshold

    def first_masks() -> Iterator[FirstMask]:
        for index in windows.indices("train").tolist():
            cams = masks.cam(index)
            mask = pseudo_masks(torch.from_numpy(cams)[None].float(), threshold)[0].numpy()
            sure = sure_pixels(cams.max(0), threshold, settings.margin)
            yield FirstMask(index, without_unknown(mask, windows, index), sure)

    share = config.data.tag_share
    return relearn(windows, first_masks(), settings, overlaps=overlaps, tag_share=share, seed=config.seed).model


def contrasts(windows: WindowDataset, indices: list[int], config: RunConfig) -> dict[int, NDArray[np.float32]]:
    """How differently neighbours look in each window (4, H, W)."""
    encoder = config.classifier.encoder
    chosen = np.array(indices, np.int64)
    loader = BatchLoader(windows, chosen, batch=config.masks.batch, encoder=encoder, device=torch.device("cpu"))
    return {
        int(index): contrast
        for batch in loader
        for index, contrast in zip(batch.index, border_contrast(batch.series, patch=encoder.patch).numpy(), strict=True)
    }


def measure(
    config: RunConfig, folder: Path, masks: Path, outlines: Path, draws: list[int]
) -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """OA, mIoU and share of believed outlines by variant and by what lies outside, a row a draw."""
    windows = Outlined(folder)
    grid, mask_set = grid_of(windows), MaskSet(masks, windows)
    indices = np.concatenate([windows.indices(name) for name in mask_set.manifest.splits]).tolist()
    overlaps = OverlapTags(windows, indices, use=config.masks.overlaps)
    model, contrast = taught(windows, mask_set, overlaps, config), contrasts(windows, indices, config)
    scores = {index: model.scores(index) for index in indices}
    layer = open_layer(outlines, what="layer of field outlines")
    areas = [each.area for each in outlines_on(layer, grid, (), Counter())]
    classes, side = np.eye(windows.classes + 1), windows.manifest.window

    def scored(masked: dict[int, NDArray[np.uint8]]) -> tuple[float, float]:
        confusion = score_split(windows, "train", lambda index: classes[masked[index]].reshape(side * side, -1))
        return Scores(confusion).oa_micro, Scores(confusion).miou_macro

    table: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    table["none", "pixels"] = [(*scored({index: mask_set.mask(index) for index in indices}), 0.0)]
    for name, change in VARIANTS.items():
        for draw in draws if name != "as they are" else draws[:1]:
            changed = change(areas, np.random.default_rng(draw), abs(grid.transform.a))
            windows.numbers = rasterize(
                [(area, place + 1) for place, area in enumerate(changed) if not area.is_empty],
                out_shape=(grid.height, grid.width),
                transform=grid.transform,
                fill=0,
                dtype="int32",
            )
            fields = Fields(windows, indices, overlaps)
            unasked, _ = fields.crops(scores.__getitem__, tag_share=config.data.tag_share)
            for index in indices:
                fields.look(index, contrast[index])
            crops, _ = fields.crops(scores.__getitem__, tag_share=config.data.tag_share)
            for rule, chosen, outside in (
                ("pixels", crops, None),
                ("pixels, all believed", unasked, None),
                ("background", crops, np.ones((side, side), bool)),
            ):
                masked = {index: fields.mask(index, mask_set.mask(index), chosen, outside=outside) for index in indices}
                table.setdefault((name, rule), []).append((*scored(masked), float((chosen >= 0).mean())))
    return table


def markdown(table: dict[tuple[str, str], list[tuple[float, float, float]]]) -> str:
    """Means over draws, percent."""
    lines = ["| outlines | outside of all | OA | mIoU | believed |", "| --- | --- | --- | --- | --- |"]
    for (name, rule), rows in table.items():
        oa, miou, believed = 100 * np.mean(rows, axis=0)
        lines.append(f"| {name} | {rule} | {oa:.1f} | {miou:.1f} | {believed:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--dataset", "--masks", "--outlines"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--recipe", default="season")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    config = resolve(options.recipe, seed=options.seed)
    found = measure(config, options.dataset, options.masks, options.outlines, options.draws)
    sys.stdout.write(markdown(found) + "\n")


if __name__ == "__main__":
    main()
