"""Stage `map_season`: a season's images and a segmenter -> a georeferenced crop map, or a part of its rows."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave
from tqdm import tqdm

from exact_core.artifacts.folders import STATE_VARIABLE, code_version, fresh_folder
from exact_core.artifacts.model_folders import ModelManifest, open_segmenter
from exact_core.config import EncoderConfig, RunConfig
from exact_core.data.season.archives import modified
from exact_core.data.season.folder import SeasonImages
from exact_core.data.season.overview import overview
from exact_core.data.sources import parse_source, source_of, with_season
from exact_core.environment import variable
from exact_core.errors import ConfigError
from exact_core.evaluation.map_picture import LONGEST
from exact_core.evaluation.palette import colours_of, true_colour
from exact_core.files import publishing
from exact_core.mapping.calibration import DatedCalibration, calibration_at
from exact_core.mapping.capacity import Careful, choose_batch, window_bytes
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.finished_rows import RowFiles, read_rows
from exact_core.mapping.item import TRUE_COLOUR
from exact_core.mapping.predict import SeasonMapper, season_mapper
from exact_core.mapping.rows import usual_stride
from exact_core.mapping.season_map import PART, PartManifest, extent_of_part, map_part, map_record, parse_part
from exact_core.models.precision import choose_precision, for_inference
from exact_core.models.segmenter import AnySegmenter
from exact_core.models.threads import side_by_side
from exact_core.stages.fetch import local_place
from exact_core.stages.join_map import MAP, deliver
from exact_core.stages.map_layers import Layers
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.training.loop import choose_device
from exact_core.training.memory import available_bytes

__all__ = ["STAGE", "map_season"]

STAGE = Stage(
    name="map_season",
    size="train",
    minutes=1440,
    reads_source=True,
    in_parts=True,
    settings=("data", "mapping"),
    writes={"crop_map": ("map.json", "part.json")},
)

log = logging.getLogger(__name__)

AFTER = ("majority", "minimum_hectares", "cropland", "cropland_values", "outlines", "outside", "polygons")
"""Of a map's record, what is done to finished rows."""
ROWS = "rows"
"""Folder, in that of a part or of an unfinished map, of the finished rows."""


def map_season(
    config: RunConfig,
    *,
    source: str,
    season: str,
    segmenter: Path,
    out: Path,
    tracker: Tracker,
    part: str = "",
    origin: str = "",
) -> dict[str, float]:
    """Map all of a season's area, or a part of it. Only images are read, no label.

    Finished rows are kept, in `out` or under EXACT_STATE_DIR, until the map is there: a killed stage, run again with
    the same images, model and settings, goes on from them, and its map is to the bit the one of an unbroken run.

    Args:
        config: `mapping` and `device` apply, and `data.season`. Dates are thinned as for the segmenter's training.
        source: with images of an area. Any other has nothing to map.
        season: a year or START/DAYS. If empty, what the source says.
        segmenter: model folder.
        out: folder for the map's files and map.json. A part writes its rows and part.json. The manifest comes last.
        tracker: gets areas, quick-look, the visibility of seams and the expected OA.
        part: I/N for the I-th of N parts, which stage `join_map` makes a map of. If empty, all.
        origin: the source as it was given, where that is another. The map names it.

    Returns:
        Megapixels and seconds and, of a whole map, the share of the area that could not be mapped, how much window
        borders show, and the expected OA. Nothing where there is nothing to map.

    Raises:
        ConfigError: a model for other bands, or no such part. DataError, CorruptError: no such model, images or layers.
        ServiceError: the map cannot be written.
    """
    number, parts = parse_part(part or "1/1")
    kind, _ = parse_source(source)
    if not source_of(kind).opens:
        log.info("map_season: nothing to map: a %s source has windows, and no images of an area", kind)
        return {}
    fresh_folder(out, PART if part else MAP)
    model, manifest, trained = open_segmenter(segmenter)
    images = _images(with_season(config, season, kind=kind), source, manifest, trained)
    record = _record(config, images, manifest, trained, source=origin or source)
    Layers.of(record).here(record.season_start)
    first, end = extent_of_part(record, number, parts)
    pieces, seconds = _map(config, images, record, model, manifest, trained, out=out, rows=(first, end))
    if number == 1:
        _draw(images, out)
    summary = {"megapixels": (end - first) * record.width / 1e6, "map_seconds": seconds}
    if part:
        extent = {"part": number, "parts": parts, "first": first, "end": end}
        made = PartManifest(**extent, batch=pieces.batch, seconds=seconds, record=record)
        return _deliver_part(made, pieces.folder, out, summary, tracker)
    summary |= deliver(record, partial(read_rows, pieces.folder, first=first, end=end), out, tracker)
    shutil.rmtree(pieces.folder)
    tracker.log_summary(summary)
    return summary


def _draw(images: SeasonImages, out: Path) -> None:
    """The area in true colour, thinned, beside the map or its first part."""
    seen = overview(images, longest=LONGEST)
    out.mkdir(parents=True, exist_ok=True)
    image = np.ascontiguousarray(true_colour(seen.pixels, seen.bands))
    with publishing(out / TRUE_COLOUR, size=image.nbytes) as partial:
        imsave(partial, image, format="png")


def _record(
    config: RunConfig, images: SeasonImages, manifest: ModelManifest, trained: RunConfig, *, source: str
) -> MapRecord:
    """What the map says of itself. Within the season, with the confidence of its date."""
    calibration, seen = manifest.calibration, images.seen_days
    # By the day of the year a model does not know where in a season it is.
    season = manifest.day_zero(trained.segmenter.reading)
    dated = (
        (*manifest.by_date, DatedCalibration(days=season[1], calibration=calibration))
        if season and manifest.by_date
        else ()
    )
    if seen is not None and dated:
        calibration = calibration_at(seen, dated)
    return map_record(
        images,
        source=source,
        side=manifest.window,
        stride=_stride(config, manifest),
        classes=manifest.classes,
        colours=colours_of(manifest.classes, manifest.colours),
        mapping=config.mapping,
        calibration=calibration,
        by_date=dated,
        expected_mask_oa=manifest.expected_mask_oa,
        weights_sha256=manifest.weights.sha256,
        code_version=code_version(),
    )


def _images(config: RunConfig, source: str, manifest: ModelManifest, trained: RunConfig) -> SeasonImages:
    """The images as the model was trained to see them."""
    images = source_of(source).open(
        local_place(config, source),
        config.data.model_copy(update={"max_dates": trained.data.max_dates}),
        trained=manifest.day_zero(trained.segmenter.reading),
    )
    if images.bands != manifest.bands:
        raise ConfigError(f"the model needs bands {manifest.bands}, but {source} has {images.bands}")
    return images


def _stride(config: RunConfig, manifest: ModelManifest) -> int:
    """Step between windows, pixels."""
    stride = config.mapping.stride or usual_stride(manifest.window)
    if stride > manifest.window:
        raise ConfigError(
            f"mapping.stride {stride}: the model's windows have {manifest.window} pixels, and land between them would "
            f"stay unmapped. Lower it"
        )
    return stride


def _map(
    config: RunConfig,
    images: SeasonImages,
    record: MapRecord,
    model: AnySegmenter,
    manifest: ModelManifest,
    trained: RunConfig,
    *,
    out: Path,
    rows: tuple[int, int],
) -> tuple[RowFiles, float]:
    """Map some rows of the area, first and one past the last. The finished rows, and the seconds that they took."""
    first, end = rows
    device = choose_device(config.device)
    encoder = trained.segmenter.reading
    model = for_inference(model, device, config.precision)
    mapper = season_mapper(model, images, statistics=manifest.statistics, encoder=encoder, device=device)
    careful = Careful(mapper)
    key = _key(config, record, images, choose_precision(config.precision, model, device), device, first, end)
    state = variable(STATE_VARIABLE)
    folder = Path(state) / f"map-{key[:16]}" if state else out / ROWS
    started = time.perf_counter()
    batch = config.mapping.batch or _fitting(mapper, images, manifest, encoder, device)
    pieces = RowFiles(folder, first=first, key=key, batch=batch)
    if pieces.end > first:
        log.info("map_season: continuing at row %d of %d to %d", pieces.end, first, end)
    with tqdm(total=end - pieces.end, desc="map", unit="row", disable=None) as bar:

        def progress(count: int) -> None:
            bar.update(count)

        with side_by_side(device, model):
            map_part(images, careful, record, pieces, end=end, chunk=config.mapping.rows, progress=progress)
    seconds = time.perf_counter() - started
    log.info(
        "map_season: rows %d to %d of %d x %d pixels, %d dates, %d windows, %d at a time, %.1f s",
        first,
        end,
        record.height,
        record.width,
        len(record.dates),
        careful.windows,
        pieces.batch,
        seconds,
    )
    return pieces, seconds


def _deliver_part(
    part: PartManifest, rows: Path, out: Path, summary: dict[str, float], tracker: Tracker
) -> dict[str, float]:
    """Put the finished rows of a part beside its manifest, wherever they were kept until now."""
    if rows != out / ROWS:
        shutil.rmtree(out / ROWS, ignore_errors=True)
        shutil.copytree(rows, out / ROWS)
    part.publish(out)
    tracker.log_summary(summary)
    # Last, and only now: until the manifest is there, a killed stage goes on from these.
    if rows != out / ROWS:
        shutil.rmtree(rows)
    return summary


def _key(
    config: RunConfig,
    record: MapRecord,
    images: SeasonImages,
    precision: str,
    device: torch.device,
    first: int,
    end: int,
) -> str:
    """Digest of all that the rows follow from: the map's own record, and the layout of these files."""
    times = [modified(path) for each in images.acquisitions for _, path in sorted(each.files.items())]
    # What is done to the finished rows may change: they stay.
    said = record.model_dump(mode="json", exclude=set(AFTER))
    content = [said, config.mapping.batch, device.type, precision, first, end, times]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fitting(
    mapper: SeasonMapper, images: SeasonImages, manifest: ModelManifest, encoder: EncoderConfig, device: torch.device
) -> int:
    """Windows a forward pass, by the free memory."""
    size = window_bytes(
        mapper,
        dates=len(images.acquisitions),
        bands=len(images.bands),
        side=manifest.window,
        clear=encoder.mask_clouds,
        device=device,
    )
    return choose_batch(size, available_bytes(device), device)
