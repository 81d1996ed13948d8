"""Germany (Russwurm and Koerner, ISPRS IJGI 7(4), 2018: "MTLCC"; zenodo.org/records/5712933) as windows.

Tiles of 240 or 480 m north of Munich, two seasons, 17 crops. Sentinel-2 L1C, so reflectance at the top of the
atmosphere. `exact_core.data.germany.files` describes the files. Axes are T dates, C bands, H W pixels.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exact_core.config import DataConfig, GermanyConfig
from exact_core.data.germany.files import (
    BANDS,
    COARSER,
    Place,
    Tile,
    read_classes,
    read_places,
    read_splits,
    read_tile,
    tile_file,
)
from exact_core.data.windows.cutting import Scene, add_scene, mark_self_scored, thin_dates
from exact_core.data.windows.dataset import VOID
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import DataError

__all__ = ["enlarge", "ingest_germany", "survey_germany"]

LIMIT = np.iinfo(np.int16).max
NOTES = {
    "absent": "tiles of the lists are not in the folder and were left out",
    "unseen": "windows are measured on fewer than two dates and were left out",
    "thinned": "tiles have more than data.max_dates dates and were thinned to these",
    "small": "tiles are smaller than a window (data.window) and were left out",
    "saturated": f"values above {LIMIT} are read as {LIMIT}",
    "strange": "pixels have a label that classes.txt does not name. They are read as unknown",
}


def ingest_germany(root: Path, config: DataConfig, out: Path, *, seed: int = 0) -> None:  # noqa: ARG001
    """Cut every tile that the lists name into windows.

    Days count from 1 January of a tile's own season, so that both seasons are on one calendar. The lists of a fold are
    the training and the validation split, and `eval` is the test split. A tile has the same split in both seasons.
    Coarser bands are brought to 10 m bilinearly, as in MTLCC and TSViT. Without a tile of `eval`, the dataset is scored
    on its training tiles and says so.

    Args:
        root: the folder with classes.txt, geotransforms.csv, tileids and dataYY.
        config: window, stride, max_dates, tag_share and the `germany` part.
        out: folder of the dataset.
        seed: of no effect: the splits are the dataset's own. All sources have this signature.

    Raises:
        DataError: a file is missing, damaged or not what the layout says.
    """
    settings = config.germany
    classes, places, splits = read_classes(root), read_places(root), read_splits(root, settings.fold)
    counts: Counter[str] = Counter()
    with DatasetWriter(
        out,
        name="germany",
        source=f"germany:{root}",
        bands=settings.bands,
        classes=tuple(classes.values()),
        window=config.window,
        season_start=dt.date(min(settings.years), 1, 1),
        season_days=max(365 + calendar.isleap(year) for year in settings.years),
        shard_windows=config.shard_windows,
    ) as writer:
        for year in sorted(settings.years):
            _check_year(root, year)
            for split, tile in ((split, tile) for split, tiles in splits.items() for tile in tiles):
                path = tile_file(root, year, tile)
                if path is None:
                    counts["absent"] += 1
                    continue
                if tile not in places:
                    raise DataError(f"{root / 'geotransforms.csv'}: no line for tile {tile} ({path}). Add it")
                scene = _scene(path, year, places[tile], config, list(classes), counts, name=f"{year}-{tile}")
                counts["small"] += min(scene.pixels.shape[-2:]) < config.window
                counts["unseen"] += add_scene(writer, scene, config, split=split, skip_unseen=True).unseen
        if not writer.counts["test"]:
            mark_self_scored(writer, "no tile of eval.tileids is here")
        writer.notes.extend(f"{counts[key]} {text}" for key, text in NOTES.items() if counts[key])


def survey_germany(root: Path, config: DataConfig) -> tuple[int, int]:
    """What a folder promises, by its tables and one tile a season: numbers of dates at most, and of bands.

    Raises:
        DataError: as `ingest_germany`.
    """
    settings = config.germany
    read_classes(root)
    read_places(root)
    tiles = [tile for tiles in read_splits(root, settings.fold).values() for tile in tiles]
    dates = []
    for year in settings.years:
        _check_year(root, year)
        path = next((path for tile in tiles if (path := tile_file(root, year, tile))), None)
        if path is not None:
            dates.append(len(read_tile(path, arrays=()).doy))
    if not dates:
        raise DataError(f"{root}: no tile of the lists in tileids/ is here. Unpack the tiles (N.tfrecord.gz)")
    return max(dates), len(settings.bands)


def _check_year(root: Path, year: int) -> None:
    folder = root / f"data{year % 100:02d}"
    if not folder.is_dir():
        raise DataError(
            f"{folder}: missing. Unpack the tiles of {year}, or name the seasons that are here in data.germany.years"
        )


def _scene(
    path: Path, year: int, place: Place, config: DataConfig, classes: list[int], counts: Counter[str], *, name: str
) -> Scene:
    """One tile of one season, its dates in the order of the calendar and at most max_dates of them."""
    settings = config.germany
    wanted = tuple(array for array, bands in BANDS.items() if set(bands) & set(settings.bands))
    tile = read_tile(path, arrays=wanted)
    if tile.doy.max(initial=0) > 365 + calendar.isleap(year):
        raise DataError(f"{path}: day {tile.doy.max()} of the year {year}. Put the tile into the folder of its season")
    order = np.argsort(tile.doy, kind="stable")
    # Clouds are unknown here, so every date of a run is as good.
    kept = order[thin_dates(np.ones(len(order)), config.max_dates)]
    counts["thinned"] += len(kept) < len(order)
    return Scene(
        name=name,
        pixels=_pixels(tile, settings, kept, counts),
        days=(tile.doy[kept] - 1).astype(np.int16),
        labels=_labels(tile.labels, settings, classes, counts),
        clear=None,
        crs=place.crs,
        transform=place.transform,
        origin=str(path),
        fold=settings.fold,
    )


def _pixels(tile: Tile, settings: GermanyConfig, kept: NDArray[np.int64], counts: Counter[str]) -> NDArray[np.int16]:
    """int16 (T, C, H, W)."""
    size = tile.labels.shape
    pixels = np.empty((len(kept), len(settings.bands), *size), np.int16)
    for name, values in tile.arrays.items():
        fine = enlarge(values[kept].transpose(0, 3, 1, 2), COARSER[name])
        for place, band in enumerate(BANDS[name]):
            if band in settings.bands:
                counts["saturated"] += int((fine[:, place] > LIMIT).sum())
                pixels[:, settings.bands.index(band)] = np.minimum(fine[:, place], LIMIT)
    return pixels


def enlarge(values: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """Bilinear values of finer pixels, `factor` by `factor` in each coarse one, in whole numbers: equal everywhere.

    Centres are half a pixel from the edge, and the outermost values hold to the edge (torch's `interpolate` with
    align_corners off). A value leaves out neighbours that are 0, which says not measured.

    Args:
        values: (..., h, w), not negative.
        factor: 1 or an even number.

    Returns:
        (..., h x factor, w x factor), rounded half up.
    """
    if factor == 1:
        return values
    rows, cols = (_weights(side, factor) for side in values.shape[-2:])
    total = rows @ values @ cols.T
    weight: NDArray[np.int64] | int = (2 * factor) ** 2
    if not values.all():
        weight = rows @ (values != 0).astype(np.int64) @ cols.T
    enlarged: NDArray[np.int64] = (2 * total + weight) // np.maximum(2 * weight, 1)
    return enlarged


def _weights(side: int, factor: int) -> NDArray[np.int64]:
    """Share of each coarse pixel in each fine one (side x factor, side), in parts of 2 x factor."""
    weights = np.zeros((side * factor, side), np.int64)
    for fine in range(side * factor):
        # The fine centre, from the first coarse centre, in parts of a coarse pixel.
        low, part = divmod(2 * fine + 1 - factor, 2 * factor)
        weights[fine, min(max(low, 0), side - 1)] += 2 * factor - part
        weights[fine, min(max(low + 1, 0), side - 1)] += part
    return weights


def _labels(
    ids: NDArray[np.int64], settings: GermanyConfig, classes: list[int], counts: Counter[str]
) -> NDArray[np.uint8]:
    """0 background, 1..K in the order of classes.txt, VOID."""
    labels = np.full(ids.shape, VOID if settings.unknown == "void" else 0, np.uint8)
    known = ids == 0
    for number, identity in enumerate(classes, 1):
        here = ids == identity
        labels[here] = number
        known |= here
    counts["strange"] += int((~known).sum())
    return labels
