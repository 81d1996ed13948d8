"""Finished rows -> a crop map as cloud-optimised GeoTIFFs, with a STAC item beside them.

    class.tif           uint8, 0 background, 1..K crops, 255 nothing measured. Palette and names inside
    confidence.tif      uint8, the class's calibrated probability in percent, 255 nothing measured
    probabilities.tif   where wanted: uint8, percent, a band a class, background first
    item.json           STAC item: projection, raster, classes, all files

All on the pixels of the images, to the last digit.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from pydantic import Field
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from exact_core.config import Outside, Settings
from exact_core.data.windows.dataset import VOID
from exact_core.errors import ConfigError, ServiceError
from exact_core.files import room
from exact_core.mapping.calibration import Calibration, DatedCalibration
from exact_core.mapping.finished_rows import FinishedRows
from exact_core.mapping.generalise import merge_small_regions
from exact_core.mapping.rows import MappedRows, Seams

__all__ = ["CLASS", "CONFIDENCE", "PROBABILITIES", "MapRecord", "MapResult", "write_files"]

CLASS, CONFIDENCE, PROBABILITIES = "class.tif", "confidence.tif", "probabilities.tif"
OVERVIEWS = {CLASS: "mode", CONFIDENCE: "average", PROBABILITIES: "average"}
BLOCK = 512
CACHE = 256 * 2**20
"""Bytes of blocks that GDAL keeps. By default a twentieth of the machine's memory, which the probabilities of a whole
tile fill. A row of blocks of a tile takes 6 MB a band."""


class MapRecord(Settings):
    """What a map says of itself, however many parts it was made in."""

    schema_version: Literal[1] = 1
    source: str = Field(description="as given to the stage")
    name: str = Field(description="of the scene")
    season_start: dt.date
    season_days: int
    bands: tuple[str, ...]
    until: dt.date | None = Field(None, description="last day whose images may be used; null: the season's last")
    dates: tuple[dt.date, ...] = Field(description="of the images that were read")
    inputs: str = Field(description="SHA-256 over dates, bands, names and sizes of the images' files")
    crs: str = Field(description="WKT 2")
    transform: tuple[float, ...] = Field(description="six affine coefficients")
    height: int
    width: int
    window: int = Field(description="window side, pixels")
    stride: int | None = Field(None, description="step between windows, pixels; null: half a window, in older maps")
    classes: tuple[str, ...] = Field(description="names of crops 1..K")
    colours: tuple[str, ...] = Field(description="of background and crops, #rrggbb")
    probabilities: bool = Field(description="whether those of all classes are delivered")
    majority: int | None = Field(None, description="side of the majority filter, pixels; null: none")
    minimum_hectares: float | None = Field(None, description="minimum mapping unit; null: none")
    cropland: str | None = Field(None, description="mask outside of which nothing is mapped; null: none")
    cropland_values: tuple[int, ...] = Field((), description="values of its raster; empty: all but 0")
    outlines: str | None = Field(None, description="layer of fields that get one crop each; null: none")
    outside: Outside = Field("pixels", description="what pixels outside all outlines are")
    polygons: bool = Field(False, description="whether fields are delivered as polygons, too")
    calibration: Calibration
    by_date: tuple[DatedCalibration, ...] = Field((), description="of the model for parts of a season and all of it")
    expected_mask_oa: float | None = Field(None, description="OA expected of the masks that the model learned from")
    model_weights_sha256: str
    code_version: str
    notes: tuple[str, ...]

    @property
    def step(self) -> int:
        """Step between windows, pixels."""
        return self.stride or max(2, self.window // 4 * 2)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes, background first."""
        return ("background", *self.classes)

    @property
    def rasterio_crs(self) -> CRS:
        """The CRS, as rasterio has it."""
        return CRS.from_wkt(self.crs)

    @property
    def hectares_per_pixel(self) -> float | None:
        """None where the CRS has no metres."""
        crs = self.rasterio_crs
        if not crs.is_projected:
            return None
        metres = crs.linear_units_factor[1]
        return float(abs(Affine(*self.transform).determinant) * metres**2 / 10_000)

    @property
    def minimum_pixels(self) -> int:
        """Pixels of the smallest region that stays.

        Raises:
            ConfigError: a minimum in hectares, and a CRS without metres.
        """
        if self.minimum_hectares is None:
            return 1
        if self.hectares_per_pixel is None:
            raise ConfigError(
                f"mapping.minimum_hectares {self.minimum_hectares:g}: the pixels of this map have no size in metres. "
                f"Leave it out, or warp the images to a CRS in metres, as UTM"
            )
        # A hair less, as 0.3 hectares of pixels of 0.1 must not cost a fourth.
        return max(1, math.ceil(self.minimum_hectares / self.hectares_per_pixel - 1e-9))


@dataclass(frozen=True)
class MapResult:
    """What became of a map.

    pixels: of each label 0..K. unmapped: pixels without a series. agreed: mapped pixels to which network and regression
    give the same class, None where there are not both. seams: see `Seams`.
    """

    pixels: NDArray[np.int64]
    unmapped: int
    agreed: int | None
    seams: float | None


def write_files(record: MapRecord, rows: Iterable[FinishedRows], out: Path) -> MapResult:
    """Write the GeoTIFFs.

    Args:
        record: of the map.
        rows: all of the map's, from top to bottom. One lot in memory at a time.
        out: folder for the files.

    Raises:
        ServiceError: the files cannot be written.
    """
    names = (CLASS, CONFIDENCE, PROBABILITIES)[: 3 if record.probabilities else 2]
    partial = {name: out / f"{name}.partial" for name in names}
    agreed: int | None = None
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE):
            with ExitStack() as stack:
                files = {name: stack.enter_context(_create(partial[name], name, record)) for name in names}
                for each in rows:
                    window = Window(0, each.first, record.width, len(each.label))
                    files[CLASS].write(each.label, 1, window=window)
                    files[CONFIDENCE].write(each.confidence, 1, window=window)
                    if each.probabilities is not None:
                        files[PROBABILITIES].write(each.probabilities, window=window)
                    if each.agree is not None:
                        agreed = (agreed or 0) + int(each.agree[each.label != VOID].sum())
            if record.minimum_pixels > 1:
                merge_small_regions(partial[CLASS], record.minimum_pixels)
            pixels, seams = _surveyed(partial[CLASS], record)
            for name in names:
                _optimise(partial[name], out / name, overviews=OVERVIEWS[name])
                partial[name].unlink()
    except (RasterioError, OSError) as error:
        for name in names:
            for left in (partial[name], out / f"{name}.cog"):
                left.unlink(missing_ok=True)
        # GDAL gives no number of a full disk, and rasterio's own words name no reason.
        blocks = -(-record.height // BLOCK) * -(-record.width // BLOCK)
        needed = blocks * BLOCK**2 * (2 + len(record.names) * (PROBABILITIES in names))
        raise ServiceError(
            f"{out}: the map cannot be written: {error.__cause__ or error}. {room(out, size=needed)}. Make room, then "
            f"repeat"
        ) from error
    return MapResult(pixels[: len(record.names)], int(pixels[VOID]), agreed, seams)


def _surveyed(path: Path, record: MapRecord) -> tuple[NDArray[np.int64], float | None]:
    """Pixels of each value of the finished classes (256,), and their seams."""
    seams, pixels = Seams(record.window, record.step), np.zeros(VOID + 1, np.int64)
    with rasterio.open(path) as file:
        for first in range(0, record.height, BLOCK):
            label = file.read(1, window=Window(0, first, record.width, min(BLOCK, record.height - first)))
            seams.add(MappedRows(first, label, np.empty((0, 0, 0), np.float32)))
            pixels += np.bincount(label.ravel(), minlength=VOID + 1)
    return pixels, seams.ratio()


def _create(path: Path, name: str, record: MapRecord) -> Any:
    """A plain GeoTIFF to be filled, with all that its bands say of themselves."""
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=record.height,
        width=record.width,
        count=len(record.names) if name == PROBABILITIES else 1,
        dtype="uint8",
        crs=record.rasterio_crs,
        transform=Affine(*record.transform),
        nodata=VOID,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        bigtiff="if_safer",
        interleave="band",
    )
    if name == CLASS:
        file.write_colormap(1, _palette(record.colours))
        file.update_tags(1, **{f"CLASS_{number}": each for number, each in enumerate(record.names)})
        return file
    calibration = record.calibration
    file.update_tags(
        **{f"CALIBRATION_{key.upper()}": "none" if value is None else value for key, value in calibration},
    )
    for number in range(1, file.count + 1):
        file.update_tags(number, unit="percent")
        file.set_band_unit(number, "%")
        if name == PROBABILITIES:
            file.set_band_description(number, record.names[number - 1])
    return file


def _palette(colours: tuple[str, ...]) -> dict[int, tuple[int, int, int, int]]:
    found = {}
    for number, colour in enumerate(colours):
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        found[number] = (red, green, blue, 255)
    return {**found, VOID: (0, 0, 0, 0)}


def _optimise(source: Path, target: Path, *, overviews: str) -> None:
    """Copy to a cloud-optimised GeoTIFF: tiles, overviews, the directory first."""
    unfinished = target.with_name(f"{target.name}.cog")
    rasterio.shutil.copy(
        source, unfinished, driver="COG", compress="deflate", overview_resampling=overviews, blocksize=BLOCK
    )
    unfinished.replace(target)
