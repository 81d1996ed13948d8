"""Stage `join_map`: the parts of a map -> its files, to the bit those of a map made at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exact_core.artifacts.folders import fresh_folder
from exact_core.config import Outside
from exact_core.data.season.outlines import open_outlines
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.map_picture import write_quicklook
from exact_core.files import copy_file, file_facts
from exact_core.manifest import publish_record
from exact_core.mapping.cogs import MapRecord, MapResult, write_files
from exact_core.mapping.cropland import CroplandMask
from exact_core.mapping.field_rows import one_crop_a_field
from exact_core.mapping.finished_rows import FinishedRows, read_rows
from exact_core.mapping.generalise import majority_rows
from exact_core.mapping.item import QUICKLOOK, TRUE_COLOUR, write_item
from exact_core.mapping.qgis_style import write_style
from exact_core.mapping.season_map import PART, PartManifest, open_part
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.undefined import defined

__all__ = ["MAP", "NO_LAYERS", "STAGE", "Layers", "deliver", "join_map"]

STAGE = Stage(name="join_map", size="data", minutes=240, settings=(), writes={"crop_map": ("map.json",)})

log = logging.getLogger(__name__)

MAP = "map.json"


@dataclass(frozen=True)
class Layers:
    """Files of the user that a finished map is brought into line with.

    outlines: layer of fields, each of which gets one crop (`exact_core.mapping.field_rows`). If None, pixels stay.
    outside: pixels outside all outlines: as they are, background beside a field, or all background.
    cropland: mask outside of which nothing is mapped (`exact_core.mapping.cropland`). If None, none. cropland_values:
    values of a raster that are cropland. If empty, all but 0.
    """

    outlines: Path | None = None
    outside: Outside = "pixels"
    cropland: Path | None = None
    cropland_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values without a mask.

        Raises:
            ConfigError: there is none.
        """
        if self.cropland_values and self.cropland is None:
            raise ConfigError(f"--cropland-value {self.cropland_values[0]}: of which raster? name it by --cropland")

    def check(self, record: MapRecord) -> None:
        """Open the files: a wrong one is refused now, and not when all is mapped.

        Raises:
            ConfigError, DataError: as `CroplandMask` and `open_outlines`.
        """
        if self.cropland is not None:
            CroplandMask(self.cropland, self.cropland_values, record)
        if self.outlines is not None:
            open_outlines(self.outlines.parent, self.outlines.name)


NO_LAYERS = Layers()


def join_map(*, parts: Sequence[Path], out: Path, tracker: Tracker, layers: Layers = NO_LAYERS) -> dict[str, float]:
    """Make the files of a map from its parts.

    Args:
        parts: folders of stage `map_season`, in any order. If None, there was nothing to map.
        out: folder for the map's files; map.json is written last.
        tracker: gets areas, quick-look and the visibility of seams.
        layers: field outlines and cropland mask.

    Returns:
        Megapixels, seconds of all parts together, the share of the area that could not be mapped, how much window
        borders show. Nothing where there is nothing to map.

    Raises:
        DataError: parts of different maps, or not all of them.
        CorruptError: a part is damaged.
        ServiceError: the map cannot be written.
    """
    if not parts:
        log.info("join_map: nothing to map")
        return {}
    fresh_folder(out, MAP)
    found = sorted(((folder, open_part(folder)) for folder in parts), key=lambda each: (each[1].first, each[1].end))
    _check(found)
    record = found[0][1].record

    def rows() -> Iterable[FinishedRows]:
        return itertools.chain.from_iterable(
            read_rows(folder / "rows", first=part.first, end=part.end) for folder, part in found
        )

    if (picture := found[0][0] / TRUE_COLOUR).is_file():
        copy_file(picture, out / TRUE_COLOUR)
    summary = {
        "megapixels": record.height * record.width / 1e6,
        "map_seconds": sum(part.seconds for _, part in found),
        **deliver(record, rows, out, tracker, layers=layers),
    }
    tracker.log_summary(summary)
    return defined(summary)


def deliver(
    record: MapRecord,
    rows: Callable[[], Iterable[FinishedRows]],
    out: Path,
    tracker: Tracker,
    *,
    layers: Layers,
) -> dict[str, float]:
    """Write all files of a map, its manifest last, and show them.

    Args:
        record: of the map.
        rows: gives all its rows, each time it is called.
        out: folder for the files.
        tracker: gets areas and quick-look.
        layers: field outlines and cropland mask.

    Returns:
        The share of the area that could not be mapped and, where it is known, how much window borders show.
    """
    mask = None if layers.cropland is None else CroplandMask(layers.cropland, layers.cropland_values, record)
    side = record.majority

    def cleaned() -> Iterable[FinishedRows]:
        """Land that is no cropland has no vote in the filter, and filtered pixels have one on their field."""
        found = rows() if mask is None else mask.rows(rows())
        return found if side is None else majority_rows(found, side)

    found = cleaned()
    if layers.outlines is not None:
        record, found = one_crop_a_field(cleaned, record, layers.outlines, out, outside=layers.outside)
    result = write_files(record, found, out)
    masked = 0 if mask is None else mask.masked
    write_quicklook(record, result.pixels, result.unmapped, out)
    write_item(record, out)
    write_style(record, out)
    files = {path.name: file_facts(path) for path in sorted(out.iterdir()) if path.name != MAP and path.is_file()}
    publish_record(out / MAP, {**_described(record, result, masked), "files": files})
    for name in (MAP, QUICKLOOK, TRUE_COLOUR, "item.json"):
        if (out / name).is_file():
            tracker.log_file(out / name, folder="map", whole=name == QUICKLOOK)
    log.info(
        "map of %d x %d pixels: seams %s, confidence %s",
        record.height,
        record.width,
        "unknown" if result.seams is None else f"{result.seams:.2f}",
        "not calibrated"
        if record.calibration.temperature is None
        else f"at temperature {record.calibration.temperature:.2f} ({record.calibration.fitted_on})",
    )
    return {
        "unmapped_share": (result.unmapped - masked) / (record.height * record.width),
        **({} if result.seams is None else {"seams": result.seams}),
    }


def _described(record: MapRecord, result: MapResult, masked: int) -> dict[str, object]:
    """The content of map.json. masked: mapped pixels that are no cropland."""
    hectares = record.hectares_per_pixel
    return {
        "source": record.source,
        "season_start": str(record.season_start),
        "season_days": record.season_days,
        "until": None if record.until is None else str(record.until),
        "dates": [str(date) for date in record.dates],
        "classes": dict(zip(record.names, record.colours, strict=True)),
        "areas": {
            name: {"pixels": int(count), "hectares": None if hectares is None else float(count * hectares)}
            for name, count in zip(record.names, result.pixels, strict=True)
        },
        "unmapped_pixels": result.unmapped,
        "masked_pixels": masked,
        "majority": record.majority,
        "minimum_hectares": record.minimum_hectares,
        "seams": result.seams,
        "calibration": record.calibration.model_dump(mode="json"),
        "by_date": [each.model_dump(mode="json") for each in record.by_date],
        "inputs_sha256": record.inputs,
        "model_weights_sha256": record.model_weights_sha256,
        "code_version": record.code_version,
        "notes": list(record.notes),
    }


def _check(found: list[tuple[Path, PartManifest]]) -> None:
    """Raise DataError unless these parts are one map, each of them once."""
    (folder, first), rest = found[0], found[1:]
    known = first.record.model_dump()
    for other, part in rest:
        differing = [key for key, value in part.record.model_dump().items() if value != known[key]]
        if differing:
            raise DataError(
                f"{other / PART}: of another map than {folder / PART}: {', '.join(differing)} differ. Map all parts of "
                f"the same images with the same model, code and settings"
            )
    end = 0
    for other, part in found:
        if part.first != end:
            what = "are missing" if part.first > end else "are there twice"
            rows = sorted((part.first, end))
            raise DataError(f"{other / PART}: rows {rows[0]} to {rows[1]} of the map {what}. Give each part once")
        end = part.end
    if end != first.record.height:
        raise DataError(
            f"{found[-1][0] / PART}: the parts end at row {end} of {first.record.height}; the map was made in "
            f"{first.parts} parts, give all of them"
        )
    if len({part.batch for _, part in found}) > 1:
        batches = ", ".join(str(part.batch) for _, part in found)
        log.warning(
            "the parts were mapped with %s windows at a time, so their last bits are rounded otherwise", batches
        )
