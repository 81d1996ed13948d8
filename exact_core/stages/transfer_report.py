"""Stage `transfer_report`: a season's images and a segmenter -> whether its map of that season can be published."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.artifacts.folders import code_version, fresh_folder
from exact_core.artifacts.model_folders import ModelManifest, load_segmenter, open_season_samples, open_segmenter
from exact_core.config import RunConfig, TransferConfig
from exact_core.data.sources import parse_source, source_of, with_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.data.windows.day_zero import check_day_zero
from exact_core.data.windows.series_sample import DateMeans, SeasonSamples, SeriesSample
from exact_core.errors import ConfigError, DataError
from exact_core.evaluation.transfer.findings import Level, Transfer, compare_seasons, compare_statistics
from exact_core.evaluation.transfer.page import TransferPage, write_page
from exact_core.evaluation.transfer.single_dates import DateRow, Without, date_rows, suspects
from exact_core.files import copy_file
from exact_core.manifest import publish_record
from exact_core.mapping.pixel_series import label_by_tags, sample_dataset, sample_season, sample_training_season
from exact_core.mapping.predict import Predictor, season_mapper
from exact_core.models.precision import for_inference
from exact_core.models.segmenter import AnySegmenter
from exact_core.stages.fetch import local_place
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker
from exact_core.training.loop import choose_device
from exact_core.undefined import defined

__all__ = ["STAGE", "transfer_report"]

STAGE = Stage(
    name="transfer_report",
    size="train",
    minutes=120,
    reads_source=True,
    settings=("data", "transfer", "evaluation"),
    writes={"transfer": ("transfer.json",)},
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """What a season is compared with: a segmenter, the sample of its season, or both."""

    segmenter: AnySegmenter | None
    manifest: ModelManifest | None
    trained: RunConfig
    reference: SeasonSamples | None
    window: int

    @property
    def bands(self) -> tuple[str, ...]:
        if self.reference is not None:
            return self.reference.season.bands
        assert self.manifest is not None
        return self.manifest.bands

    @property
    def season(self) -> tuple[dt.date, int] | None:
        """First day and days of the season it was trained on. None where it goes by the day of the year."""
        encoder = self.trained.segmenter.reading
        if self.manifest is not None and (known := self.manifest.day_zero(encoder)):
            return known
        if self.reference is None or encoder.dates != "season_day":
            return None
        return self.reference.season.start, self.reference.season.days


@dataclass(frozen=True)
class _Season:
    """A sampled new season.

    days: the reference's calendar in days since its start. mean: of each band, clouds too. means: of each date. None:
    not known. left_out: dates that its settings leave out. notes: how its days count.
    """

    start: dt.date
    length: int
    dates: list[dt.date]
    days: NDArray[np.float64]
    sample: SeriesSample
    mean: NDArray[np.float64]
    means: DateMeans | None = None
    left_out: tuple[dt.date, ...] = ()
    notes: tuple[str, ...] = ()


def transfer_report(
    config: RunConfig,
    *,
    source: str,
    season: str = "",
    segmenter: Path | None,
    dataset: Path | None = None,
    out: Path,
    report: Path | None = None,
    tracker: Tracker,
) -> dict[str, float]:
    """Hold a new season against the one a model was trained on. Labels of the new one are neither needed nor read.

    Args:
        config: `transfer`, `evaluation.batch`, `seed` and `device` apply, and `data.season`.
        source: with images of an area, or the folder of a window dataset of the new season. Others have nothing.
        season: a year or START/DAYS of a season source. If empty, what the source says.
        segmenter: model folder. It carries a sample of its season. If None, classes come from tags.
        dataset: the training dataset, to sample it anew. If None, the segmenter's own sample.
        out: folder for report.html and transfer.json, which is written last.
        report: file that gets a copy of the report. If None, nowhere.
        tracker: gets verdict, values and report.

    Returns:
        The verdict (0 fine, 1 look, 2 do not publish), and the value of each finding that is known. Nothing where
        there is nothing to compare.

    Raises:
        ConfigError: neither a segmenter nor a dataset, or one for other bands.
        DataError, CorruptError: no such model or images, or, with `transfer.refuse`, a verdict that forbids it. The
            report is then written and tracked all the same.
    """
    kind = "dataset" if _is_dataset(source) else parse_source(source)[0]
    if kind != "dataset" and not source_of(kind).opens:
        log.info("transfer_report: nothing to compare: a %s source has windows, and no images of an area", kind)
        if report is not None:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(f"<p>Nothing to compare: a {kind} source has no images of an area.</p>", encoding="utf-8")
        return {}
    fresh_folder(out, "transfer.json")
    model = _open_model(config, segmenter, dataset)
    found = (
        _sample_dataset(config, Path(source), model)
        if kind == "dataset"
        else _sample_images(config, source, season, model)
    )
    model = _same_part(model, found)
    found = _labelled(found, model)
    transfer = _compare(config, model, found)
    rows = _date_rows(config, model, found)
    without = _without(config, source, season, model, found, transfer, rows) if rows else None
    _publish(config, source, model, found, transfer, rows, without, out=out, report=report, tracker=tracker)
    summary = {"verdict": float(transfer.verdict.rank)}
    summary |= defined({f"transfer_{each.name}": each.value for each in transfer.findings})
    tracker.log_summary(summary)
    _refuse(config.transfer, source, transfer, without)
    return summary


def _same_part(model: _Model, found: _Season) -> _Model:
    """With the part of its season that the new one has until a day."""
    if model.reference is None:
        return model
    return replace(model, reference=model.reference.first(len(found.days)))


def _date_rows(config: RunConfig, model: _Model, found: _Season) -> list[DateRow]:
    """Each date against training. None where either is not known."""
    if model.reference is None or found.means is None:
        return []
    return date_rows(model.reference, found.means, config.transfer, start=found.start, days=found.days)


def _without(
    config: RunConfig,
    source: str,
    season: str,
    model: _Model,
    known: _Season,
    transfer: Transfer,
    rows: list[DateRow],
) -> Without | None:
    """The verdict without the dates that stand out, one more at a time until it is a better one.

    The season is opened again with `data.season.leave_out`, as a person would.
    """
    left_out = list(known.left_out)
    for number, row in enumerate(suspects(rows) if transfer.verdict != Level.fine else [], 1):
        left_out.append(row.date)
        of_season = config.data.season.model_copy(update={"leave_out": tuple(left_out)})
        changed = config.model_copy(update={"data": config.data.model_copy(update={"season": of_season})})
        try:
            found = _labelled(_sample_images(changed, source, season, model), model)
        except DataError as error:
            log.info("transfer_report: without %s the season is refused: %s", row.date, error)
            return None
        verdict = _compare(config, model, found).verdict
        if verdict.rank < transfer.verdict.rank:
            return Without(tuple(each.date for each in suspects(rows)[:number]), verdict, tuple(left_out))
    return None


def _labelled(found: _Season, model: _Model) -> _Season:
    """With classes by tags where there is no segmenter: the page's curves are of these classes too."""
    if model.segmenter is not None or model.reference is None:
        return found
    return replace(found, sample=label_by_tags(found.sample, model.reference.train))


def _publish(
    config: RunConfig,
    source: str,
    model: _Model,
    found: _Season,
    transfer: Transfer,
    rows: list[DateRow],
    without: Without | None,
    *,
    out: Path,
    report: Path | None,
    tracker: Tracker,
) -> None:
    """Write and track report and record, and log the findings."""
    record = _record(config, source, model, found, transfer) | {
        "by_date": [{**asdict(row), "date": str(row.date)} for row in rows],
        "without": None
        if without is None
        else {
            "dates": [str(date) for date in without.dates],
            "verdict": without.verdict.value,
            "leave_out": [str(date) for date in without.leave_out],
        },
    }
    write_page(
        out / "report.html",
        TransferPage(
            transfer,
            model.reference,
            found.sample,
            config.transfer,
            record,
            found.start,
            found.dates,
            {} if model.manifest is None else model.manifest.colours,
            rows,
            without,
        ),
    )
    if report is not None:
        copy_file(out / "report.html", report)
    publish_record(out / "transfer.json", record)
    for name in ("transfer.json", "report.html"):
        tracker.log_file(out / name, folder="transfer")
    tracker.set_tags({"exact.transfer": transfer.verdict.words})
    for finding in transfer.findings:
        log.info("transfer_report: %s: %s: %s", finding.title, finding.level.words, finding.reason)
    for row in suspects(rows):
        log.info(
            "transfer_report: %s stands out: %.2f standard deviations from training, most in %s (%+.2f)",
            row.date,
            row.distance,
            row.band,
            row.shift,
        )


def _refuse(settings: TransferConfig, source: str, transfer: Transfer, without: Without | None) -> None:
    """Raise DataError where the verdict is one that forbids the map."""
    if settings.refuse != "never" and transfer.verdict.rank >= Level(settings.refuse).rank:
        bad = [each for each in transfer.findings if each.level != Level.fine]
        found = "; ".join(f"{each.title}: {each.reason}" for each in bad)
        raise DataError(
            f"{source}: {transfer.verdict.words}: {found}. {transfer.verdict.way_out}{_said(without)} "
            f"transfer.refuse=never maps it anyway"
        )


def _said(without: Without | None) -> str:
    """The verdict without the dates that spoil the season, in a sentence. If empty, no dates do."""
    if without is None:
        return ""
    dates = ", ".join(str(date) for date in without.dates)
    return f" Without {dates} (data.season.leave_out) the verdict would be: {without.verdict.words}."


def _is_dataset(source: str) -> bool:
    return (Path(source) / "dataset.json").is_file()


def _open_model(config: RunConfig, segmenter: Path | None, dataset: Path | None) -> _Model:
    if segmenter is None and dataset is None:
        raise ConfigError("give a segmenter, which carries a sample of its season, or its training dataset")
    windows = None if dataset is None else WindowDataset(dataset)
    if segmenter is None:
        assert windows is not None
        reference = sample_training_season(windows, None, config.transfer, seed=config.seed)
        return _Model(None, None, config, reference, windows.manifest.window)
    device = choose_device(config.device)
    model, manifest, trained = open_segmenter(segmenter) if windows is None else load_segmenter(segmenter, windows)
    model = for_inference(model, device, config.precision)
    if windows is None:
        return _Model(model, manifest, trained, open_season_samples(segmenter, manifest), manifest.window)
    predictor = _predictor(config, model, manifest, trained, windows)
    reference = sample_training_season(windows, predictor, config.transfer, seed=config.seed)
    return _Model(model, manifest, trained, reference, manifest.window)


def _predictor(
    config: RunConfig, model: AnySegmenter, manifest: ModelManifest, trained: RunConfig, windows: WindowDataset
) -> Predictor:
    device = choose_device(config.device)
    return Predictor(model, windows, trained.segmenter.reading, manifest.statistics, device, config.evaluation.batch)


def _calendar(model: _Model, start: dt.date, length: int) -> NDArray[np.float64]:
    """The days that are compared, since the new season's start: those that the model takes for the same."""
    if model.reference is None:
        return np.array([length / 2])
    days = model.reference.calendar
    if model.manifest is not None and model.trained.segmenter.reading.dates == "day_of_year":
        ahead = model.reference.season.start.timetuple().tm_yday - start.timetuple().tm_yday
        # The nearer way round the year.
        return np.asarray(days + (ahead + 182) % 365 - 182)
    return days


def _sample_images(config: RunConfig, source: str, season: str, model: _Model) -> _Season:
    kind, _ = parse_source(source)
    config = with_season(config, season, kind=kind)
    asked = config.data
    asked = asked.model_copy(update={"max_dates": model.trained.data.max_dates})
    images = source_of(kind).open(local_place(config, source), asked, trained=model.season)
    if images.bands != model.bands:
        raise ConfigError(f"the model needs bands {model.bands}, but {source} has {images.bands}")
    predict = None
    if model.segmenter is not None and model.manifest is not None:
        predict = season_mapper(
            model.segmenter,
            images,
            statistics=model.manifest.statistics,
            encoder=model.trained.segmenter.reading,
            device=choose_device(config.device),
        )
    days = _calendar(model, images.start, images.length)
    if images.seen_days is not None:
        days = days[: max(1, int(np.searchsorted(days, images.seen_days - 1, "right")))]
    sample, mean, means = sample_season(
        images,
        predict,
        config.transfer,
        calendar=days,
        side=model.window,
        batch=config.evaluation.batch,
        seed=config.seed,
    )
    dates = [acquisition.date for acquisition in images.acquisitions]
    notes = tuple(note for note in images.notes if note.startswith(("days count", "images until")))
    return _Season(images.start, images.length, dates, days, sample, mean, means, images.settings.leave_out, notes)


def _sample_dataset(config: RunConfig, folder: Path, model: _Model) -> _Season:
    windows = WindowDataset(folder)
    manifest = windows.manifest
    if manifest.bands != model.bands:
        raise ConfigError(f"the model needs bands {model.bands}, but {folder} has {manifest.bands}")
    if model.segmenter is not None and model.season is not None:
        check_day_zero(manifest.season_start, model.season[0], what=str(folder), other="the model")
    predictor = None
    if model.segmenter is not None and model.manifest is not None:
        predictor = _predictor(config, model.segmenter, model.manifest, model.trained, windows)
    days = _calendar(model, manifest.season_start, manifest.season_days)
    indices = np.arange(len(windows))
    sample, mean = sample_dataset(windows, indices, predictor, config.transfer, calendar=days, seed=config.seed)
    if not len(sample):
        raise DataError(f"{folder}: no sampled window has a pixel with two clear looks. Add acquisitions")
    seen = {int(day) for index in indices[:: max(1, len(indices) // 32)] for day in windows.window(int(index)).days}
    dates = [manifest.season_start + dt.timedelta(days=day) for day in sorted(seen)]
    return _Season(manifest.season_start, manifest.season_days, dates, days, sample, mean)


def _compare(config: RunConfig, model: _Model, found: _Season) -> Transfer:
    reference = model.reference
    if reference is None:
        assert model.manifest is not None
        return compare_statistics(model.manifest.statistics, found.mean, model.bands, config.transfer)
    if not len(reference.train) or not len(reference.held_out):
        raise DataError(
            "the training season's sample is empty: no pixel had two clear looks. Check its dataset's clouds"
        )
    return compare_seasons(reference, found.sample, config.transfer, start=found.start, days=found.days)


def _record(config: RunConfig, source: str, model: _Model, found: _Season, transfer: Transfer) -> dict[str, Any]:
    """Content of transfer.json."""
    season = None if model.reference is None else model.reference.season
    notes = list(found.notes)
    if season is not None and (season.start.month, season.start.day) != (found.start.month, found.start.day):
        notes.append(f"the new season starts on {found.start:%m-%d}, training's on {season.start:%m-%d}")
    if season is not None and season.days != found.length:
        notes.append(f"the new season has {found.length} days, training's {season.days}")
    return {
        "source": source,
        "season_start": str(found.start),
        "season_days": found.length,
        "dates": [str(date) for date in found.dates],
        "verdict": transfer.verdict.value,
        "findings": [{**asdict(each), "level": each.level.value} for each in transfer.findings],
        "bands": [asdict(each) for each in transfer.bands],
        "classes": [{**asdict(each), "level": each.level.value} for each in transfer.classes],
        "days": [
            {"day": float(day), "importance": float(weight), "seen_in_training": float(ours), "seen": float(theirs)}
            for day, weight, ours, theirs in zip(transfer.days, transfer.importance, *transfer.seen, strict=True)
        ],
        "training": None if season is None else season.model_dump(mode="json"),
        "pixels": len(found.sample),
        "windows": len(np.unique(found.sample.window)),
        "model_weights_sha256": None if model.manifest is None else model.manifest.weights.sha256,
        "settings": config.transfer.model_dump(mode="json"),
        "code_version": code_version(),
        "notes": notes,
    }
