"""Stage `join_map`: the parts of a map -> its files, to the bit those of a map made at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rasterio.transform import Affine

from exact_core.artifacts.folders import fresh_folder
from exact_core.environment import shown
from exact_core.errors import DataError
from exact_core.evaluation.map_picture import write_quicklook
from exact_core.files import copy_file, file_facts
from exact_core.manifest import publish_record
from exact_core.map_statistics.map_folder import CropMap
from exact_core.map_statistics.polygons import write_polygons
from exact_core.mapping.cogs import MapRecord, MapResult, write_files
from exact_core.mapping.cropland import CroplandMask
from exact_core.mapping.expected import MapQuality, expected_quality
from exact_core.mapping.field_rows import one_crop_a_field
from exact_core.mapping.finished_rows import FinishedRows, read_rows
from exact_core.mapping.generalise import majority_rows
from exact_core.mapping.item import POLYGONS, QUICKLOOK, TRUE_COLOUR, write_item
from exact_core.mapping.qgis_style import write_style
from exact_core.mapping.season_map import PART, PartManifest, open_part
from exact_core.stages.map_layers import Layers
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.undefined import defined

__all__ = ["MAP", "STAGE", "deliver", "join_map"]

STAGE = Stage(name="join_map", size="data", minutes=240, settings=(), writes={"crop_map": ("map.json",)})

log = logging.getLogger(__name__)

MAP = "map.json"


def join_map(*, parts: Sequence[Path], out: Path, tracker: Tracker, layers: Layers | None = None) -> dict[str, float]:
    """Make the files of a map from its parts.

    Args:
        parts: folders of stage `map_season`, in any order. If None, there was nothing to map.
        out: folder for the map's files; map.json is written last.
        tracker: gets areas, quick-look and the visibility of seams.
        layers: field outlines and cropland mask. If None, those that the parts were mapped with.

    Returns:
        Megapixels, seconds of all parts together, the share of the area that could not be mapped, how much window
        borders show, and the expected OA. Nothing where there is nothing to map.

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
    if layers is not None:
        record = layers.on(record)

    def rows() -> Iterable[FinishedRows]:
        return itertools.chain.from_iterable(
            read_rows(folder / "rows", first=part.first, end=part.end) for folder, part in found
        )

    if (picture := found[0][0] / TRUE_COLOUR).is_file():
        copy_file(picture, out / TRUE_COLOUR)
    summary = {
        "megapixels": record.height * record.width / 1e6,
        "map_seconds": sum(part.seconds for _, part in found),
        **deliver(record, rows, out, tracker),
    }
    tracker.log_summary(summary)
    return defined(summary)


def deliver(
    record: MapRecord,
    rows: Callable[[], Iterable[FinishedRows]],
    out: Path,
    tracker: Tracker,
) -> dict[str, float]:
    """Write all files of a map, its manifest last, and show them.

    Args:
        record: of the map.
        rows: gives all its rows, each time it is called.
        out: folder for the files.
        tracker: gets areas and quick-look.

    Returns:
        The share of the area that could not be mapped and, where they are known, how much window borders show and the
        expected OA.

    Raises:
        ConfigError, DataError: a mask or outlines that cannot be used.
    """
    outlines, cropland = Layers.of(record).here(record.season_start)
    mask = None if cropland is None else CroplandMask(cropland, record.cropland_values, record)
    side = record.majority

    def cleaned() -> Iterable[FinishedRows]:
        """Land that is no cropland has no vote in the filter, and filtered pixels have one on their field."""
        found = rows() if mask is None else mask.rows(rows())
        return found if side is None else majority_rows(found, side)

    found = cleaned()
    if outlines is not None:
        record, found = one_crop_a_field(cleaned, record, outlines, out, outside=record.outside)
    result = write_files(record, found, out)
    masked = 0 if mask is None else mask.masked
    write_quicklook(record, result.pixels, result.unmapped, out)
    if record.polygons:
        _write_polygons(record, result, out)
    write_item(record, out)
    write_style(record, out)
    files = {path.name: file_facts(path) for path in sorted(out.iterdir()) if path.name != MAP and path.is_file()}
    quality = expected_quality(result.agreed, int(result.pixels.sum()), masks=record.expected_mask_oa)
    publish_record(out / MAP, {**_described(record, result, quality, masked), "files": files})
    for name in (MAP, QUICKLOOK, TRUE_COLOUR, "item.json"):
        if (out / name).is_file():
            tracker.log_file(out / name, folder="map", whole=name == QUICKLOOK)
    _say(record, result, quality)
    return {
        "unmapped_share": (result.unmapped - masked) / (record.height * record.width),
        **({} if result.seams is None else {"seams": result.seams}),
        **({} if quality.expected_oa is None else {"expected_map_oa": quality.expected_oa}),
    }


def _say(record: MapRecord, result: MapResult, quality: MapQuality) -> None:
    log.info(
        "map of %d x %d pixels: expected OA %s, seams %s, confidence %s",
        record.height,
        record.width,
        "unknown" if quality.expected_oa is None else f"{quality.expected_oa:.2f}",
        "unknown" if result.seams is None else f"{result.seams:.2f}",
        "not calibrated"
        if record.calibration.temperature is None
        else f"at temperature {record.calibration.temperature:.2f} ({record.calibration.fitted_on})",
    )


def _write_polygons(record: MapRecord, result: MapResult, out: Path) -> None:
    """The fields of a map as polygons. A map without a crop has none."""
    (out / POLYGONS).unlink(missing_ok=True)
    if not sum(result.pixels[1:]):
        log.warning("no pixel is mapped as a crop, so there is no %s", POLYGONS)
        return
    transform = Affine(*record.transform)
    crop_map = CropMap(
        out, record.names, record.height, record.width, record.rasterio_crs, transform, record.hectares_per_pixel
    )
    write_polygons(crop_map, out / POLYGONS)


def _described(record: MapRecord, result: MapResult, quality: MapQuality, masked: int) -> dict[str, object]:
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
        "cropland": record.cropland and shown(record.cropland),
        "outlines": record.outlines and shown(record.outlines),
        "seams": result.seams,
        "quality": quality.model_dump(mode="json"),
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
