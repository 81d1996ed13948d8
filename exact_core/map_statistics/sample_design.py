"""A stratified random sample of a map's pixels for the next field campaign: how many, where, and a file to fill in.

How many: Olofsson et al. (2014, Remote Sensing of Environment 148:42), eq. 13 and section 5.1.1: the total from a
target standard error of overall accuracy, shared out by area, with a minimum for classes that would get too few.
Where: chance alone decides, from a seed. One seed gives one sample of a map, for any chunk size.

Axes are H strata, the map's classes that occur.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from exact_core.errors import ConfigError, DataError, ServiceError
from exact_core.files import check_output, publish_text
from exact_core.map_statistics.map_folder import BAND_PIXELS

__all__ = [
    "Allocation",
    "Drawable",
    "SamplePoint",
    "allocate",
    "check_out",
    "draw",
    "expected_accuracies",
    "expected_error",
    "fitting_minimum",
    "sample_size",
    "write_sample",
]

DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG"}
FIELDS = ("id", "map_class", "stratum", "stratum_size", "reference")


@dataclass(frozen=True)
class Allocation:
    """A stratum and its share of a sample. label: its class. pixels: its size. samples: to be drawn from it."""

    label: int
    name: str
    pixels: int
    samples: int


@dataclass(frozen=True)
class SamplePoint:
    """A pixel to be visited. Longitude and latitude of its centre, WGS84 degrees."""

    stratum: Allocation
    row: int
    col: int
    longitude: float
    latitude: float


def expected_accuracies(given: list[str], classes: tuple[str, ...], *, otherwise: float) -> dict[str, float]:
    """User's accuracy that is expected of each class, from NAME=VALUE texts.

    Raises:
        ConfigError: a text, name or value that is none.
    """
    found = dict.fromkeys(classes, otherwise)
    for text in given:
        name, equals, value = text.rpartition("=")
        if not equals or name not in found:
            raise ConfigError(f"{text!r}: expected NAME=VALUE with a class of the map: {', '.join(classes)}")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"{text!r}: {value!r} is no number, expected an accuracy as 0.8") from error
    for name, accuracy in found.items():
        if not 0 <= accuracy <= 1:
            raise ConfigError(f"expected accuracy of {name} {accuracy}: expected a share from 0 to 1, as 0.8")
    return found


def sample_size(pixels: Mapping[str, int], accuracies: Mapping[str, float], *, standard_error: float) -> int:
    """Samples that bring the standard error of overall accuracy down to a target (Olofsson et al. 2014, eq. 13).

    Args:
        pixels: of each class on the map.
        accuracies: user's accuracy that is expected of each.
        standard_error: target, as 0.01.

    Raises:
        ConfigError: a target that is none.
        DataError: an empty map.
    """
    if not 0 < standard_error < 1:
        raise ConfigError(f"standard error {standard_error}: expected a share between 0 and 1, as 0.01")
    total = sum(pixels.values())
    if not total:
        raise DataError("no pixel is mapped, so there is nothing to sample. Look at the map's unmapped_pixels")
    weights = {name: count / total for name, count in pixels.items()}
    deviations = {name: math.sqrt(accuracies[name] * (1 - accuracies[name])) for name in pixels}
    mean = sum(weights[name] * deviations[name] for name in pixels)
    squares = sum(weights[name] * deviations[name] ** 2 for name in pixels)
    # A hair less, as 0.1 + 0.2 must not cost one more sample.
    return min(total, math.ceil(mean**2 / (standard_error**2 + squares / total) - 1e-9))


def expected_error(allocations: Sequence[Allocation], accuracies: Mapping[str, float]) -> float:
    """Standard error of overall accuracy that a sample promises (Olofsson et al. 2014, eq. 6, with guessed accuracies).

    Args:
        allocations: the strata, all of the map.
        accuracies: user's accuracy that is expected of each.
    """
    total = sum(each.pixels for each in allocations)
    variance = 0.0
    for each in allocations:
        spread = accuracies[each.name] * (1 - accuracies[each.name])
        # Of a stratum that is all in the sample nothing is left to err about.
        variance += (each.pixels / total) ** 2 * (1 - each.samples / each.pixels) * spread / each.samples
    return math.sqrt(variance)


def fitting_minimum(counts: NDArray[np.int64], classes: tuple[str, ...], *, size: int, minimum: int) -> int:
    """The minimum of a class that a sample of a given size has room for: no more than the equal share.

    Raises:
        ConfigError: a size that gives some class fewer than two.
    """
    present = int((counts[: len(classes)] > 0).sum())
    fitting = min(minimum, size // max(1, present))
    if fitting < 2:
        raise ConfigError(
            f"{size} samples for {present} classes: errors need two of each, expected at least {2 * present}"
        )
    return fitting


def allocate(counts: NDArray[np.int64], classes: tuple[str, ...], *, size: int, minimum: int) -> list[Allocation]:
    """Share a sample out by area. Classes that would get fewer than the minimum get that, the rest shares what is left.

    Args:
        counts: pixels of each label 0..K, and perhaps more.
        classes: names of labels 0..K.
        size: samples in all. More are drawn if the minima require it, and never more than there are pixels.
        minimum: samples of each class, at least 2, as its error cannot be known from fewer.

    Raises:
        ConfigError: fewer than 2 as a minimum, or no sample at all.
        DataError: an empty map.
    """
    if minimum < 2 or size < 1:
        raise ConfigError(f"{size} samples, at least {minimum} a class: expected at least 1 and 2, as errors need two")
    present = [(label, name, int(counts[label])) for label, name in enumerate(classes) if counts[label]]
    if not present:
        raise DataError("no pixel is mapped, so there is nothing to sample. Look at the map's unmapped_pixels")
    fixed: dict[int, int] = {}
    while True:
        # Who falls below the minimum depends on what the others leave, so the rest is looked at again.
        rest = [(label, pixels) for label, _, pixels in present if label not in fixed]
        left = max(0, size - sum(fixed.values()))
        shares = _by_share(left, [pixels for _, pixels in rest])
        low = [label for (label, pixels), share in zip(rest, shares, strict=True) if share < min(minimum, pixels)]
        if not low:
            break
        sizes = {label: pixels for label, _, pixels in present}
        fixed |= {label: min(minimum, sizes[label]) for label in low}
    chosen = fixed | {label: min(share, pixels) for (label, pixels), share in zip(rest, shares, strict=True)}
    return [Allocation(label, name, pixels, chosen[label]) for label, name, pixels in present]


def _by_share(total: int, weights: list[int]) -> list[int]:
    """Whole numbers in proportion to weights that sum to a total: the largest remainders are rounded up."""
    whole = sum(weights)
    quotients = [divmod(total * weight, whole) for weight in weights]
    shares = [quotient for quotient, _ in quotients]
    order = sorted(range(len(weights)), key=lambda place: -quotients[place][1])
    for place in order[: total - sum(shares)]:
        shares[place] += 1
    return shares


class Drawable(Protocol):
    """What pixels are drawn from: a map, or a stand-in that shows other strata."""

    @property
    def folder(self) -> Path:
        """Its position."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def crs(self) -> Any:
        """Of its pixels."""

    @property
    def transform(self) -> Any:
        """Of its pixels."""

    def rows(self, *, pixels: int = BAND_PIXELS) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row and labels of each band."""


def draw(
    crop_map: Drawable, allocations: list[Allocation], *, seed: int, pixels: int = BAND_PIXELS
) -> list[SamplePoint]:
    """Draw pixels of each stratum at random, without replacement.

    Args:
        crop_map: the map.
        allocations: strata with their pixels and samples.
        seed: the same seed draws the same pixels.
        pixels: read at a time.

    Returns:
        The strata one after the other, each in random order: its first m points are a random sample of it, too.

    Raises:
        DataError: the map has other pixels than the allocations say.
    """
    picks = {each.label: _Picks(each, seed) for each in allocations}
    for first, label in crop_map.rows(pixels=pixels):
        flat = label.ravel()
        for number, pick in picks.items():
            pick.look(np.flatnonzero(flat == number), first * crop_map.width)
    points = []
    for pick in picks.values():
        row, col = np.divmod(pick.places(), crop_map.width)
        x, y = crop_map.transform @ (col + 0.5, row + 0.5)
        try:
            longitude, latitude = transform(crop_map.crs, "EPSG:4326", x, y)
        except (CPLE_BaseError, RasterioError) as error:
            raise DataError(
                f"{crop_map.folder}: its CRS {crop_map.crs.to_string()} has no longitude and latitude: {error}. Map "
                f"in a CRS that is tied to the earth"
            ) from error
        points += [
            SamplePoint(pick.stratum, *place)
            for place in zip(row.tolist(), col.tolist(), longitude, latitude, strict=True)
        ]
    return points


class _Picks:
    """The chosen pixels of a stratum, counted along the map's rows, and their positions once they were read."""

    def __init__(self, stratum: Allocation, seed: int) -> None:
        self.stratum = stratum
        # A generator a class: what is drawn of one does not depend on the others.
        generator = np.random.default_rng([seed, stratum.label])
        self._order = generator.choice(stratum.pixels, stratum.samples, replace=False)
        self._sorted = np.sort(self._order)
        self._passed = 0
        self._found: list[NDArray[np.int64]] = []

    def look(self, here: NDArray[np.intp], offset: int) -> None:
        """Take in the next pixels of the class, positions in a band that starts at an offset."""
        low, high = np.searchsorted(self._sorted, [self._passed, self._passed + len(here)])
        self._found.append(here[self._sorted[low:high] - self._passed] + offset)
        self._passed += len(here)

    def places(self) -> NDArray[np.int64]:
        """Positions on the map in the order of drawing."""
        if self._passed != self.stratum.pixels:
            raise DataError(
                f"class {self.stratum.name}: {self._passed} pixels, but {self.stratum.pixels} were counted; the map "
                f"has changed meanwhile, repeat"
            )
        places = np.concatenate([*self._found, np.zeros(0, np.int64)])
        return np.asarray(places[np.searchsorted(self._sorted, self._order)], np.int64)


def check_out(out: Path, *, force: bool = False) -> None:
    """Refuse a file to which no sample can be written, as `check_output` does. A sample has a table beside it.

    Raises:
        ConfigError: another kind of file, or one that is there: what was filled in must not be lost.
    """
    check_output(out, suffixes=(*DRIVERS, ".csv"), force=force)
    check_output(out.with_suffix(".csv"), force=force)


def write_sample(points: list[SamplePoint], out: Path, *, force: bool = False) -> list[Path]:
    """Write a sample to be filled in: a point layer, and a table of the same name beside it.

    Args:
        points: the sample.
        out: .geojson, .gpkg, or .csv for the table alone.
        force: replace a sample that is there.

    Returns:
        The files.

    Raises:
        ConfigError: see `check_out`.
        ServiceError: they cannot be written.
    """
    check_out(out, force=force)
    suffix = out.suffix.lower()
    rows = [
        (number, point.stratum.name, point.stratum.name, point.stratum.pixels, "")
        for number, point in enumerate(points, 1)
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIELDS[:-1], "longitude", "latitude", FIELDS[-1]])
    for row, point in zip(rows, points, strict=True):
        # Eight decimals are a millimetre.
        writer.writerow([*row[:-1], f"{point.longitude:.8f}", f"{point.latitude:.8f}", row[-1]])
    table = out.with_suffix(".csv")
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        if suffix in DRIVERS:
            _write_layer(rows, points, out)
        publish_text(table, text.getvalue())
    except OSError as error:
        raise ServiceError(f"{out}: cannot be written: {error.strerror or error}. Choose another place") from error
    return [table] if suffix == ".csv" else [out, table]


def _write_layer(rows: list[tuple[int, str, str, int, str]], points: list[SamplePoint], out: Path) -> None:
    partial = out.with_name(f"{out.stem}.partial{out.suffix}")
    partial.unlink(missing_ok=True)
    places = shapely.points([[round(point.longitude, 8), round(point.latitude, 8)] for point in points])
    kinds = (np.int64, object, object, np.int64, object)
    try:
        pyogrio.raw.write(
            partial,
            geometry=shapely.to_wkb(places),
            field_data=[np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)],
            fields=FIELDS,
            geometry_type="Point",
            crs="EPSG:4326",
            driver=DRIVERS[out.suffix.lower()],
            layer="sample",
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        partial.unlink(missing_ok=True)
        raise ServiceError(f"{out}: cannot be written: {error}. Choose another place") from error
    os.replace(partial, out)
