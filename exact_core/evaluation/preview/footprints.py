"""Locations of the windows of a dataset: their outlines by CRS, and latitudes and longitudes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError
from rasterio.warp import transform

from exact_core.data.windows.dataset import WindowDataset
from exact_core.evaluation.preview.content import Footprint

__all__ = ["Index", "corners_of", "footprints", "read_index"]


@dataclass(frozen=True)
class Index:
    """Columns of a dataset's index, each of N."""

    scenes: list[str]
    splits: list[str]
    crs: list[str]
    transforms: list[list[float]]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]


def read_index(dataset: WindowDataset) -> Index:
    """The columns of the index, which opening the dataset has checked. Records one by one are slow."""
    table = pq.read_table(dataset.root / "index.parquet", columns=["scene", "split", "crs", "transform", "row", "col"])
    return Index(
        scenes=table["scene"].to_pylist(),
        splits=table["split"].to_pylist(),
        crs=table["crs"].to_pylist(),
        transforms=table["transform"].to_pylist(),
        rows=table["row"].to_numpy().astype(np.int64),
        cols=table["col"].to_numpy().astype(np.int64),
    )


def footprints(index: Index, window: int) -> list[Footprint]:
    """Windows by CRS. Scenes on the same ground, or without coordinates, are marked to be drawn apart."""
    unit = np.array([(0, 0), (window, 0), (window, window), (0, window)], np.float64)
    outlines = np.empty((len(index.scenes), 4, 2))
    for position, values in enumerate(index.transforms):
        if len(values) == 6:
            a, b, c, d, e, f = values
            outlines[position] = unit @ np.array([[a, d], [b, e]]) + (c, f)
        else:
            outlines[position] = (unit + np.array([index.cols[position], index.rows[position]])) * (1, -1)
    placed = np.array([len(values) == 6 for values in index.transforms])
    systems = [name if place else "" for name, place in zip(index.crs, placed, strict=True)]
    footprints = []
    for crs in dict.fromkeys(systems):
        members = [position for position, name in enumerate(systems) if name == crs]
        scenes = tuple(index.scenes[position] for position in members)
        here = outlines[members]
        footprints.append(
            Footprint(
                crs=crs,
                outlines=here,
                groups=tuple(index.splits[position] for position in members),
                scenes=scenes,
                apart=not crs or _coincide(here, scenes),
                corners=corners_of(crs, here),
            )
        )
    return footprints


def _coincide(outlines: NDArray[np.float64], scenes: Sequence[str]) -> bool:
    """Whether two scenes have one upper left corner: generated scenes do."""
    firsts: dict[str, tuple[float, float]] = {}
    for outline, scene in zip(outlines, scenes, strict=True):
        west, north = float(outline[:, 0].min()), float(outline[:, 1].max())
        known = firsts.get(scene, (west, north))
        firsts[scene] = (min(west, known[0]), max(north, known[1]))
    return len(set(firsts.values())) < len(firsts)


def corners_of(crs: str, outlines: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Latitude and longitude of the bounding box: north-west, north-east, south-west, south-east, or nothing."""
    if not crs:
        return ()
    (west, south), (east, north) = outlines.reshape(-1, 2).min(0), outlines.reshape(-1, 2).max(0)
    try:
        lon, lat = transform(crs, "EPSG:4326", [west, east, west, east], [north, north, south, south])
    except (CRSError, CPLE_BaseError, ValueError):
        # A dataset may name any CRS; a page without degrees is better than none.
        return ()
    return tuple(zip(lat, lon, strict=True)) if np.isfinite([lat, lon]).all() else ()
