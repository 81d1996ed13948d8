"""Stage `map_season`: a season's images and a segmenter -> a georeferenced crop map."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from tqdm import tqdm

from exact_core.config import RunConfig, load_config
from exact_core.data.season import open_season
from exact_core.errors import ConfigError
from exact_core.evaluation.figures import class_colours
from exact_core.files import publish_text
from exact_core.mapping.season_map import map_season as write_map, season_predictor
from exact_core.stages.frame import code_version, fresh_folder
from exact_core.stages.ingest import parse_source, with_season
from exact_core.stages.models import open_segmenter
from exact_core.tracking import Tracker
from exact_core.training.loop import choose_device

__all__ = ["map_season"]

log = logging.getLogger(__name__)


def map_season(
    config: RunConfig, *, source: str, season: str, segmenter: Path, out: Path, tracker: Tracker
) -> dict[str, float]:
    """Map all of a season's area; only images are read, no label.

    Args:
        config: `mapping` and `device` apply, and `data.season`; dates are thinned as for the segmenter's training.
        source: season:PATH; any other has no images of an area, so there is nothing to map.
        season: a year or START/DAYS; empty: what the source says.
        segmenter: model folder.
        out: folder for class.tif, confidence.tif, item.json, quicklook.png and map.json, which is written last.
        tracker: gets areas, quick-look and the seams' figure.

    Returns:
        Megapixels and seconds, the share of the area that could not be mapped, how much window borders show;
        nothing where there is nothing to map.

    Raises:
        ConfigError: a model for other bands.
        DataError, CorruptError: no such model or images.
        ServiceError: the map cannot be written.
    """
    kind, place = parse_source(source)
    if kind != "season":
        log.info("map_season: nothing to map: a %s source has windows, and no images of an area", kind)
        return {}
    fresh_folder(out, "map.json")
    model, manifest = open_segmenter(segmenter)
    trained = load_config(segmenter / "config.yaml")
    asked = with_season(config, season, kind=kind).data
    images = open_season(Path(place), asked.model_copy(update={"max_dates": trained.data.max_dates}))
    if images.bands != manifest.bands:
        raise ConfigError(f"{segmenter}: the model wants bands {manifest.bands}, {source} has {images.bands}")
    device = choose_device(config.device)
    predict = season_predictor(
        model.to(device), images, statistics=manifest.statistics, encoder=trained.segmenter.reading, device=device
    )
    colours = class_colours(len(manifest.classes))
    started = time.perf_counter()
    with tqdm(total=images.grid.height, desc="map", unit="row", disable=None) as bar:

        def progress(count: int) -> None:
            bar.update(count)

        result = write_map(
            images,
            predict,
            out,
            side=manifest.window,
            classes=manifest.classes,
            colours=colours,
            batch=config.mapping.batch,
            chunk=config.mapping.rows,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    size = images.grid.height * images.grid.width
    names = ("background", *manifest.classes)
    areas = {
        name: {
            "pixels": int(count),
            "hectares": None if result.hectares_per_pixel is None else float(count * result.hectares_per_pixel),
        }
        for name, count in zip(names, result.pixels, strict=True)
    }
    record = {
        "source": source,
        "season_start": str(images.start),
        "season_days": images.length,
        "dates": [str(acquisition.date) for acquisition in images.acquisitions],
        "classes": dict(zip(names, colours, strict=True)),
        "areas": areas,
        "unmapped_pixels": result.unmapped,
        "seams": result.seams,
        "model_weights_sha256": manifest.weights.sha256,
        "code_version": code_version(),
        "notes": images.notes,
    }
    publish_text(out / "map.json", json.dumps(record, indent=2))
    for name in ("map.json", "quicklook.png", "item.json"):
        tracker.log_file(out / name, folder="map")
    summary = {
        "megapixels": size / 1e6,
        "map_seconds": seconds,
        "unmapped_share": result.unmapped / size,
        **({} if result.seams is None else {"seams": result.seams}),
    }
    tracker.log_summary(summary)
    log.info(
        "map_season: %d x %d pixels, %d dates, %.1f s, seams %s",
        images.grid.height,
        images.grid.width,
        len(images.acquisitions),
        seconds,
        "unknown" if result.seams is None else f"{result.seams:.2f}",
    )
    return summary
