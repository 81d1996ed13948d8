"""The labels of a season: a raster of crop codes or a layer of parcels, and a legend that names the codes.

    labels/crop_type.tif    crop codes, 0 = no declared parcel, or labels/parcels.geojson with an attribute crop_code
    labels/legend.csv       what the codes mean: exact_core.data.season.legends

Codes are brought to the grid of the images, nearest (parcels: those that contain a pixel's centre), and numbered by the
legend: 0 background, 1..K crops, VOID. Axes are H W pixels, K crop classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from exact_core.cgroup import memory_free
from exact_core.config import SeasonConfig
from exact_core.data.season.class_map import ClassMap, UnlistedCodeError, is_missing
from exact_core.data.season.legends import read_class_map
from exact_core.data.season.outlines import VECTORS, outlines_on
from exact_core.data.season.parcel_raster import Parcel, burn_parcels
from exact_core.data.season.rasters import RASTERS, Grid, fit_to_grid, read_raster
from exact_core.data.season.tag_tables import crop_field, read_tag_layer, read_tag_table
from exact_core.data.season.tags import TagTable
from exact_core.data.vectors import BY_NAME, VectorLayer, open_layer, split_layer
from exact_core.data.windows.dataset import VOID
from exact_core.errors import DataError

__all__ = ["USUAL", "ClassNumbers", "LabelLayer", "find_labels", "open_labels"]

USUAL = (
    "labels/crop_type.tif",
    *(f"labels/parcels{suffix}" for suffix in VECTORS),
    "labels/tags.csv",
    *(f"labels/tags{suffix}" for suffix in VECTORS),
)
"""Where labels are, relative to the season's folder, if none are named. The first of these that is there."""
OUTSIDE = np.iinfo(np.int32).min
"""Code of a pixel that the label layer does not cover."""
UNCODED = OUTSIDE + 1
"""Code of a parcel that has none, if its truth is unknown."""
OVERLAP = OUTSIDE + 2
"""Code of pixels in parcels of different crops."""
BEYOND = 0.05
"""Share of a scene beyond the bounds of a layer that is reported: outlines seldom end at the images' edges."""
ROWS = 512
"""Rows of labels looked at together."""
BYTES_A_PIXEL = 12
"""Bytes a pixel while labels are made: the codes, those that they are resampled from, and the class numbers."""


@dataclass(frozen=True)
class LabelLayer:
    """The labels of a season, before they are numbered: a raster or parcels, and what its codes mean.

    path: its file, and `|layername=NAME` where a layer of the file is named.
    """

    path: Path
    class_map: ClassMap
    settings: SeasonConfig

    def codes(self, grid: Grid, notes: list[str]) -> NDArray[np.int32]:
        """Codes (H, W) on a grid, 0 background, OUTSIDE where the layer ends. Text codes by `ClassMap.number`.

        Raises:
            DataError: the layer cannot be read, holds what is no code, or memory has no room for the codes of the grid.
        """
        needed, free = BYTES_A_PIXEL * grid.height * grid.width, memory_free()
        if needed > free:
            raise DataError(
                f"{self.path}: the images cover {grid.width:,} x {grid.height:,} pixels like those of {grid.file}, and "
                f"their labels take {needed / 1e9:,.1f} GB where {free / 1e9:,.1f} GB of memory are free. Leave out an "
                f"image that is much larger than the others, or make a season of each part"
            )
        if self.path.suffix.lower() not in RASTERS:
            return _codes_from_parcels(self, grid, notes)
        if (text := self.class_map.text) and not self.class_map.national:
            raise DataError(
                f"{self.class_map.where}: code {text!r} is not a whole number, and {self.path} is a raster, which "
                f"holds no other. Name its numbers"
            )
        return _codes_from_raster(self, grid)

    def present(self, grid: Grid) -> set[int]:
        """Codes that occur on a grid."""
        codes = self.codes(grid, [])
        return {
            code for first in range(0, len(codes), ROWS) for code in np.unique(codes[first : first + ROWS]).tolist()
        }

    def labels(self, classes: ClassNumbers, grid: Grid, notes: list[str]) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of a scene: 0 background, 1..K, VOID."""
        codes = self.codes(grid, notes)
        if (codes == OUTSIDE).any():
            share = (codes == OUTSIDE).mean()
            notes.append(f"{self.path.name} does not cover {share:.1%} of the scene: void there")
        return classes.label(codes)

    def classes(self, present: Iterable[int], notes: list[str]) -> ClassNumbers:
        """The classes of a dataset in whose scenes these codes occur.

        Raises:
            DataError: no class, a class without its own name, a code without a name, or more classes than labels.
        """
        where, settings = self.class_map.where, self.settings
        named, void = self.class_map.numbered(settings.void_codes)
        occurring = set(present)
        if 0 in named:
            notes.append(f"{where}: code 0 is background, its name {named[0]!r} is not used")
        named = {code: name for code, name in sorted(named.items()) if code and code not in void}
        if not named:
            raise DataError(f"{where}: no class. Give a name for at least one crop code of {self.path}")
        for code, name in named.items():
            if name.strip() in ("", "background"):
                raise DataError(
                    f"{where}: crop code {self._shown(code)} has the name {name!r}, but 'background' is the name of "
                    f"label 0 and a crop needs one of its own. Rename it, or add {self._shown(code)} to "
                    f"data.season.void_codes if its truth is unknown"
                )
        if settings.classes is None:
            # A legend may be a whole country's. Classes named in the configuration stay: seasons can share them.
            absent = [code for code in named if code not in occurring]
            if absent and len(absent) < len(named):
                notes.append(f"{where}: {len(absent)} of {len(named)} crops do not occur in the scene and are left out")
                named = {code: name for code, name in named.items() if code in occurring}
        # Codes that share a name are one class; it takes the place of its lowest code.
        names = tuple(dict.fromkeys(named.values()))
        numbers = {code: names.index(name) + 1 for code, name in named.items()}
        numbers |= {0: 0, int(OUTSIDE): VOID, int(UNCODED): VOID, int(OVERLAP): VOID, **dict.fromkeys(void, VOID)}
        unknown = sorted(code for code in occurring if code not in numbers)
        if unknown:
            raise DataError(
                f"{self.path}: crop codes {', '.join(map(str, unknown))} are in neither {where} nor "
                f"data.season.void_codes. Name them there, or add them to void_codes if their truth is unknown"
            )
        if len(names) >= VOID:
            raise DataError(f"{where}: {len(names)} classes, at most {VOID - 1}. Give codes of one crop the same name")
        given = self.class_map.colours
        return ClassNumbers(names, numbers, {name: given[name] for name in names if name in given})

    def _shown(self, code: int) -> str:
        return str(list(self.class_map.names)[code - 1]) if self.class_map.by_place else str(code)


@dataclass(frozen=True)
class ClassNumbers:
    """Labels of codes.

    classes: names of crops 1..K. labels: code -> label. colours: name -> #rrggbb, of those that have one.
    """

    classes: tuple[str, ...]
    labels: dict[int, int]
    colours: dict[str, str]

    def label(self, codes: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of codes: 0 background, 1..K, VOID."""
        labels = np.empty(codes.shape, np.uint8)
        # Some rows at a time: the places of all codes would take eight times the memory of these.
        for first in range(0, len(codes), ROWS):
            part = codes[first : first + ROWS]
            present, inverse = np.unique(part, return_inverse=True)
            known = np.array([self.labels[int(code)] for code in present], np.uint8)
            labels[first : first + ROWS] = known[inverse.reshape(part.shape)]
        return labels


def open_labels(folder: Path, settings: SeasonConfig, notes: list[str]) -> LabelLayer | TagTable:
    """The labels of a source: a raster or parcels, or tags as a table or a layer of squares.

    Args:
        folder: of the season.
        settings: of the season.
        notes: gets which file it is, and the other files beside it.

    Raises:
            DataError: no labels, no readable class map (which tags do not need), or wrong tags.
    """
    path = find_labels(folder, settings.labels)
    if path is None:
        raise DataError(
            f"{folder}: no labels, looked for {settings.labels or ', '.join(USUAL)}{_seen_instead(folder)}. Name a "
            f"label raster, a parcel layer or a table of tags by data.season.labels"
        )
    notes.append(_which(folder, path))
    named = settings.classes is not None or settings.legend is not None or (folder / "labels" / "legend.csv").is_file()
    if path.suffix.lower() == ".csv":
        table = read_tag_table(path, read_class_map(folder, settings) if named else None)
    elif layer := _tag_layer(path, settings):
        table = read_tag_layer(layer, read_class_map(folder, settings) if named else None)
    else:
        return LabelLayer(path, read_class_map(folder, settings), settings)
    notes.extend((*table.notes, *table.questions))
    return table


def find_labels(folder: Path, labels: str | None) -> Path | None:
    """Path of a source's labels: the named file, with its layer, or the first usual one. If None, there are none."""
    sought = (folder / name for name in ([labels] if labels else USUAL))
    return next((path for path in sought if split_layer(path)[0].is_file()), None)


def _which(folder: Path, path: Path) -> str:
    """A note of the file that is used, and of the usual ones beside it that are not."""
    file, _ = split_layer(path)
    unused = [name for name in USUAL if (folder / name).is_file() and folder / name != file]
    beside = f". {', '.join(unused)} beside it {'is' if len(unused) == 1 else 'are'} not used" if unused else ""
    named = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"labels are those of {named}{beside}"


def _tag_layer(path: Path, settings: SeasonConfig) -> VectorLayer | None:
    """The layer, if it holds squares or points with lists of crops, rather than parcels with a code each."""
    file, _ = split_layer(path)
    if file.suffix.lower() not in VECTORS:
        return None
    if file.stem == "tags":
        return open_layer(path, what="layer of tags")
    if settings.attribute is not None or file.stem == "parcels":
        return None
    layer = open_layer(path, what="parcel layer")
    return layer if crop_field(layer.fields) and "crop_code" not in layer.fields else None


def _seen_instead(folder: Path) -> str:
    """Files in the folder of labels under other names."""
    names = sorted(path.name for path in (folder / "labels").glob("*") if path.name != "legend.csv")
    return f" (labels/ holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


def _codes_from_raster(layer: LabelLayer, grid: Grid) -> NDArray[np.int32]:
    """Codes int32 (H, W) on the grid, nearest. OUTSIDE where the raster has nodata (other than 0) or ends."""
    path = layer.path
    values, crs, transform, nodata = read_raster(path)
    if crs is None:
        raise DataError(f"{path}: no CRS. Georeference it, for example with gdal_edit -a_srs EPSG:32631")
    # NaN is no code: it counts as nodata whatever the header says.
    outside = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if nodata is not None and nodata != 0:
        outside |= values == nodata
    values = np.where(outside, values.dtype.type(0), values)
    if layer.class_map.by_place:
        present, places = np.unique(values, return_inverse=True)
        void = layer.settings.void_codes
        known = [
            layer.class_map.number(value, where=f"{path}: a code", void=void) if value else 0
            for value in present.tolist()
        ]
        values = np.array(known, np.int32)[places.reshape(values.shape)]
    wrong = values[(values != np.rint(values)) | (values <= OVERLAP) | (values > np.iinfo(np.int32).max)]
    if wrong.size:
        raise DataError(
            f"{path}: code {wrong[0]} is not a whole number of 32 bits. Store crop codes as integers, or name all of "
            f"its larger codes in {layer.class_map.where}"
        )
    codes = values.astype(np.int32)
    codes[outside] = OUTSIDE
    fitted: NDArray[np.int32] = fit_to_grid(codes, crs, transform, grid, nearest=True, fill=int(OUTSIDE))
    return fitted


def _codes_from_parcels(layer: LabelLayer, grid: Grid, notes: list[str]) -> NDArray[np.int32]:
    """Codes (H, W) of the parcels that contain a pixel's centre. 0 where there is none, OVERLAP where crops do."""
    names, void = layer.class_map.numbered(layer.settings.void_codes)
    unknown = ("void",)
    crops: dict[int, Hashable] = {**names, 0: ("background",), int(UNCODED): unknown, **dict.fromkeys(void, unknown)}
    parcels = list(_parcels(layer, grid, notes))
    burnt = burn_parcels(parcels, grid, crops=crops, overlap=int(OVERLAP))
    if burnt.overlaps:
        area = burnt.overlaps * abs(grid.transform.determinant) / 10_000
        ordered = "of one rank " if layer.settings.overlap_order else ""
        message = (
            f"{burnt.parcels} parcels of different crops {ordered}overlap on {burnt.overlaps} pixels"
            f"{f' ({area:,.1f} ha)' if grid.crs.is_projected else ''}: void there. Name an attribute that puts them in "
            f"order, the lowest value first, by data.season.overlap_order"
        )
        if not np.isin(burnt.codes, [int(OVERLAP), int(UNCODED), 0, *void]).all():
            notes.append(message)
        else:
            raise DataError(f"{layer.path}: {message}. No pixel of a single crop is left")
    return burnt.codes


def _parcels(layer: LabelLayer, grid: Grid, notes: list[str]) -> Iterator[Parcel]:
    """The parcels on a grid, in its CRS, in the order of the layer."""
    attribute, settings = layer.settings.attribute or "crop_code", layer.settings
    order = settings.overlap_order
    file = open_layer(layer.path, what="parcel layer")
    path = file.path
    if file.name is not None:
        notes.append(f"labels are the layer {file.name!r} of {path.name}")
    if file.crs is None:
        raise DataError(f"{path}: no CRS. Name one in the file")
    if file.is_empty:
        raise DataError(
            f"{path}: the layer is empty. Add parcels, or name another file, or layer (FILE{BY_NAME}NAME), by "
            f"data.season.labels"
        )
    if attribute not in file.fields:
        raise DataError(
            f"{path}: no attribute {attribute!r}, it has {', '.join(file.fields) or 'none'}. "
            f"Name the one with the crop code by data.season.attribute"
        )
    if order is not None and order not in file.fields:
        raise DataError(
            f"{path}: no attribute {order!r}, it has {', '.join(file.fields)}. Name the one that puts overlapping "
            f"parcels in order by data.season.overlap_order, or none"
        )
    unknown, unlisted = set(layer.class_map.numbered()[1]), Counter[str]()
    uncoded = found = void = 0
    wrong: DataError | None = None
    left_out = Counter[str]()
    for each in outlines_on(file, grid, [attribute, *([order] if order else [])], left_out):
        value, rank = each.values[0], each.values[1] if order else 0.0
        if is_missing(value) and settings.missing_code != "refuse":
            uncoded += 1
            number = int(UNCODED) if settings.missing_code == "void" else 0
        else:
            try:
                number = layer.class_map.number(value, where=f"{each.where}: {attribute}", void=settings.void_codes)
            except UnlistedCodeError as error:
                # Countries add codes every year.
                if not layer.class_map.national:
                    raise
                wrong = wrong or error
                unlisted[str(value).strip()] += 1
                number = int(UNCODED)
        found += 1
        void += number in unknown
        yield Parcel(each.area, number, _rank(rank, where=f"{each.where}: {order}"))
    unplaced, flat = left_out["unplaced"], left_out["flat"]
    if unplaced:
        notes.append(f"{unplaced} parcels of {path.name} have NaN or infinite coordinates and were left out")
    if flat:
        notes.append(f"{flat} outlines of {path.name} are points or lines, or enclose nothing: no parcels, left out")
        if not found:
            raise DataError(
                f"{path}: {flat} points or lines over the images and not one polygon. Give the outlines of parcels, or "
                f"name another file or layer by data.season.labels"
            )
    if 0 not in layer.class_map.numbered(settings.void_codes)[1]:
        _note_extent(file, grid, found, notes)
    if uncoded:
        meaning = "their truth is unknown (void)" if settings.missing_code == "void" else "they are background"
        notes.append(f"{uncoded} parcels of {path.name} have no {attribute}: {meaning} (data.season.missing_code)")
    if wrong and found == uncoded + unlisted.total():
        raise wrong
    if unlisted:
        first = ", ".join(list(unlisted)[:5])
        notes.append(
            f"{unlisted.total()} parcels of {path.name} have a code that {layer.class_map.where} does not list ({first}"
            f"{', ...' if len(unlisted) > 5 else ''}): their truth is unknown (void); a table of your own can name them"
        )
    if void:
        notes.append(f"{void} parcels of {path.name} have a code that {layer.class_map.where} calls void")


def _rank(value: Any, *, where: str) -> float:
    """Position of a parcel in the order of overlapping ones. Without a value, last."""
    if is_missing(value):
        return math.inf
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{where} is {value!r}, expected a number, the lowest of which holds where parcels overlap"
        ) from error


def _note_extent(file: VectorLayer, grid: Grid, found: int, notes: list[str]) -> None:
    """Say that land beyond the layer, of which it knows nothing, is background."""
    if not found:
        notes.append(f"no parcel of {file.path.name} is in the images, so all of them is background")
        return
    extent = file.extent()
    if extent is None:
        return
    frame = shapely.Polygon(
        [grid.transform @ corner for corner in ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))]
    )
    edges = extent if file.crs == grid.crs else transform_bounds(file.crs, grid.crs, *extent)
    share = 1 - shapely.intersection(frame, shapely.box(*edges)).area / frame.area
    if np.isfinite(share) and share >= BEYOND:
        notes.append(
            f"{share:.0%} of the scene is beyond the extent of {file.path.name} and counts as background, though its "
            f"land cover is unknown. Cut the images to the layer, add a parcel there with one of "
            f"data.season.void_codes, or make all land without a parcel void (data.season.void_codes=[0])"
        )
