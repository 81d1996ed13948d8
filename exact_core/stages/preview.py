"""A preview of data before training: a dataset or a source -> a page. No stage of a pipeline, and not tracked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exact_core.artifacts.model_folders import ModelManifest, read_manifest
from exact_core.config import RunConfig
from exact_core.data.season.tags import TagTable
from exact_core.data.sources import Source, parse_source, source_of, with_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.preview.content import Preview
from exact_core.evaluation.preview.from_dataset import NamedStatistics, preview_dataset
from exact_core.evaluation.preview.from_season import preview_season
from exact_core.evaluation.preview.page import write_preview
from exact_core.scratch import scratch_folder
from exact_core.stages.fetch import local_place

__all__ = ["inspect"]

EVERY_DAY = 3660
"""The longest season there is."""
EVERY_DATE = 1_000_000
"""More dates than a season has: none is thinned out."""


def inspect(config: RunConfig, what: Path | str, *, season: str, model: Path | None, out: Path) -> Preview:
    """Write the preview of a dataset or source to `out`.

    Args:
        config: of a source, `config.data`. The seed draws the samples.
        what: a dataset's folder, or a source with images of an area, or one that is ingested in seconds.
        season: for a season, a year or START/DAYS. If empty, the source's own.
        model: segmenter whose training is the reference of the bands. If None, the dataset's own training split, or
            nothing.
        out: HTML file.

    Returns:
        The content of the page.

    Raises:
        ConfigError: a source that must be ingested first. A model for other bands. A season for a dataset.
        DataError, CorruptError: no such data or model.
    """
    manifest = None if model is None else read_manifest(model, "segmenter")
    if isinstance(what, Path):
        preview = _of_dataset(what, config, season, model, manifest)
    else:
        preview = _of_source(what, config, season, model, manifest)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_preview(out, preview)
    except OSError as error:
        raise DataError(f"{out}: cannot write there: {error}. Choose another file by --out") from error
    return preview


def _of_dataset(
    folder: Path, config: RunConfig, season: str, model: Path | None, manifest: ModelManifest | None
) -> Preview:
    if season:
        raise ConfigError(f"season = {season!r}: {folder} is a dataset, which has its own season. Leave it out")
    if folder.is_dir() and not (folder / "dataset.json").is_file():
        raise DataError(
            f"{folder}: no dataset here (dataset.json). Name the folder that `exact ingest` wrote, or season:{folder} "
            f"for a folder of images"
        )
    dataset = WindowDataset(folder)
    reference = _reference(model, manifest, dataset.manifest.bands, str(folder))
    return preview_dataset(dataset, seed=config.seed, reference=reference)


def _of_source(
    source: str, config: RunConfig, season: str, model: Path | None, manifest: ModelManifest | None
) -> Preview:
    kind, place = parse_source(source)
    config = with_season(config, season, kind=kind)
    found = source_of(kind)
    if not (found.opens or found.quick):
        raise ConfigError(
            f"{source}: ingest this source first: `exact ingest {kind} {place} DATASET`, then `exact inspect DATASET`"
        )
    if not found.opens:
        with scratch_folder() as folder:
            found.ingest(place, config.data, folder / "dataset", seed=config.seed, origin=source)
            dataset = WindowDataset(folder / "dataset")
            reference = _reference(model, manifest, dataset.manifest.bands, source)
            return preview_dataset(dataset, seed=config.seed, reference=reference)
    # A season that ingest refuses for its gaps is looked at all the same.
    seen = config.data.season.model_copy(update={"longest_gap": EVERY_DAY})
    images = found.open(
        local_place(config, source), config.data.model_copy(update={"max_dates": EVERY_DATE, "season": seen})
    )
    reference = _reference(model, manifest, images.bands, source)
    tags, notes, trouble = _tags(found, local_place(config, source), config)
    preview = preview_season(
        images,
        source=source,
        limit=config.data.max_dates,
        seed=config.seed,
        reference=reference,
        tags=tags,
        window=config.data.window,
    )
    return replace(preview, notes=(*preview.notes, *notes), remarks=(*trouble, *preview.remarks))


def _tags(source: Source, place: str | Path, config: RunConfig) -> tuple[TagTable | None, list[str], list[str]]:
    """Tags of squares, notes on the labels, and what ingest would refuse them for: images are shown without, too."""
    try:
        return *source.tagged(place, config.data), []
    except DataError as error:
        return None, [], [str(error)]


def _reference(
    model: Path | None, manifest: ModelManifest | None, bands: tuple[str, ...], what: str
) -> NamedStatistics | None:
    if manifest is None:
        return None
    if manifest.bands != bands:
        raise ConfigError(
            f"{model}: the model needs bands {manifest.bands}, but {what} has {bands}. Name another with --model"
        )
    return NamedStatistics(manifest.statistics, f"the training of {model}")
