"""Stage `promote`: a new segmenter -> the registry, and the alias champion, if it is better."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exact_core.artifacts.folders import fresh_folder
from exact_core.artifacts.model_folders import load_segmenter
from exact_core.artifacts.stage_files import Artifact
from exact_core.config import PromotionConfig, RunConfig
from exact_core.data.sources import dataset_title
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.evaluation.paired_bootstrap import Comparison, UnitCounts, compare, over_majority, unit_counts
from exact_core.manifest import publish_record, read_record
from exact_core.mapping.predict import Predictor
from exact_core.markdown import as_markdown
from exact_core.models.precision import for_inference
from exact_core.scratch import scratch_folder
from exact_core.stages.lifecycle import open_step
from exact_core.stages.stage import Stage
from exact_core.tracking.registry import CHALLENGER, CHAMPION, Origin, Registry
from exact_core.tracking.runs import Tracker
from exact_core.training.loop import choose_device
from exact_core.undefined import defined

__all__ = ["STAGE", "decide", "decide_first", "promote", "promote_after", "read_decision"]

STAGE = Stage(
    name="promote",
    within="evaluate",
    size="train",
    minutes=240,
    settings=("promotion", "evaluation"),
    writes={"promotion": ("metrics.json",)},
)

log = logging.getLogger(__name__)

ROUNDS = 3
"""Maximal number of comparisons, if other runs change the champion in the meantime."""
FIRST = "the first version: no champion to compare with"


def promote(
    config: RunConfig,
    *,
    dataset: Path,
    segmenter: Path,
    model: str,
    out: Path,
    tracker: Tracker,
    figures: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Register a segmenter as challenger, and move the champion's alias to it if the gate holds.

    Both models map the same evaluation windows. The gate (`config.promotion`): the lower end of the confidence interval
    of the difference in mIoU, by a paired bootstrap over scenes, is above `minimum_gain`, and no class loses more than
    `largest_class_loss`. Without dense labels, the F1 of the tags of the maps replaces mIoU. Without a champion there
    is nothing to compare with, and the first model becomes champion if it is above `first_floor`. A dataset that is
    scored on itself allows no fair comparison, so only a first model is promoted on it. A run of an earlier season than
    the champion's, or of the same season that started before the champion's run, does not replace it.

    Args:
        config: `promotion`, `evaluation.batch`, `seed` and `device` apply.
        dataset: folder of the window dataset.
        segmenter: model folder of the new segmenter.
        model: name of the registered model.
        out: folder for metrics.json, which holds the decision and its reasons.
        figures: metrics of the segmenter's evaluation on this dataset, for its model in MLflow. They decide on a first
            model without dense labels (`decide_first`).
        tracker: gets the metrics and the reason. Without tracking, there is no registry and no decision.

    Returns:
        Whether it was promoted (1 or 0). With a champion also both models' metrics, their difference and its interval.
    """
    fresh_folder(out, "metrics.json")
    windows = WindowDataset(dataset)
    record: dict[str, Any] = {"model": model, "promoted": False, "version": None, "champion": None, "comparison": None}
    registry = Registry.of(tracker)
    if registry is None:
        record["reason"] = "runs are not tracked, so there is no registry"
    else:
        record |= _register(config, windows, segmenter, model, registry, figures or {})
        registry.note_decision(model, record["version"], promoted=record["promoted"], reason=record["reason"])
    tracker.set_tags({f"exact.{key}": str(record[key]) for key in ("model", "version", "promoted", "reason")})
    summary = {"promoted": float(record["promoted"])}
    if record["comparison"]:
        keys = ("champion", "challenger", "difference", "low", "high")
        summary |= {f"promotion_{key}": record["comparison"][key] for key in keys}
    tracker.log_summary(summary)
    publish_record(out / "metrics.json", record)
    tracker.log_file(out / "metrics.json", folder="promotion")
    log.info("promote: %s: %s", _titled(record), record["reason"])
    return defined(summary)


def promote_after(
    run: Mapping[str, Any],
    *,
    register: bool,
    dataset: Artifact,
    segmenter: Artifact,
    promotion: Artifact,
    decision: Artifact,
    figures: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The stage as the second half of a step: one that has the dataset and the segmenter, and a GPU, already.

    Args:
        run: what the pipeline's first step decided.
        register: False: only writes to `decision` that nothing was decided.
        dataset: the window dataset.
        segmenter: the new segmenter.
        promotion: folder for metrics.json.
        decision: Markdown for the user.
        figures: metrics of the evaluation.
    """
    with open_step(STAGE, run, tracking=register) as step:
        page, out = step.files.file(decision), step.files.write(promotion, optional=True)
        if not register:
            page.write_text("This run registers no model: there is nothing to decide.\n", encoding="utf-8")
            return {}
        folders = {"dataset": step.files.read(dataset), "segmenter": step.files.read(segmenter), "out": out}
        summary = promote(step.config, model=step.run.model, tracker=step.tracker, figures=figures, **folders)
        page.write_text(read_decision(out), encoding="utf-8")
        return summary


def decide(comparison: Comparison, config: PromotionConfig) -> tuple[bool, str]:
    """Whether the gate holds, and why, in a sentence."""
    points = (
        f"{comparison.metric} {100 * comparison.challenger:.1f} against {100 * comparison.champion:.1f}: "
        f"{100 * comparison.difference:+.1f} points, {config.confidence:.0%} interval {100 * comparison.low:+.1f} to "
        f"{100 * comparison.high:+.1f} over {comparison.units} {comparison.unit}"
    )
    if not comparison.low > config.minimum_gain:
        return False, f"{points}. The lower end is not above {100 * config.minimum_gain:+.1f}"
    losses = {name: value for name, value in comparison.per_class.items() if value is not None}
    worst = min(losses, key=lambda name: losses[name], default=None)
    if worst is not None and losses[worst] < -config.largest_class_loss:
        return False, (
            f"{points}. But {worst} loses {-100 * losses[worst]:.1f} points, more than "
            f"{100 * config.largest_class_loss:.1f}"
        )
    return True, points


def _titled(record: Mapping[str, Any]) -> str:
    """The model and, where it was registered, its version."""
    return f"{record['model']} version {record['version']}" if record["version"] else str(record["model"])


def read_decision(folder: Path) -> str:
    """The decision of a finished stage as Markdown, for a person to read."""
    record = read_record(folder / "metrics.json")
    verdict = "promoted to champion" if record["promoted"] else "not promoted"
    lines = [
        f"**{as_markdown(_titled(record))}**: {verdict}",
        "",
        as_markdown(record["reason"]),
    ]
    if record["comparison"]:
        lines += ["", "| class | difference, points |", "| --- | --- |"]
        for name, value in record["comparison"]["per_class"].items():
            lines.append(f"| {as_markdown(name)} | {'–' if value is None else f'{100 * value:+.1f}'} |")
    return "\n".join(lines) + "\n"


def _register(
    config: RunConfig,
    windows: WindowDataset,
    segmenter: Path,
    name: str,
    registry: Registry,
    figures: Mapping[str, float],
) -> dict[str, Any]:
    """Register, compare, and move aliases. The decision's part of the record."""
    version = registry.register(segmenter, name=name)
    data = windows.manifest
    registry.log_figures(name, version, figures, dataset=dataset_title(data), digest=data.digest)
    registry.set_alias(name, CHALLENGER, version)
    record: dict[str, Any] = {"version": version, "champion": None}
    for _ in range(ROUNDS):
        champion = registry.alias_version(name, CHAMPION)
        if again := champion == version:
            # An earlier try of this stage moved the alias. It is judged as it was then.
            before = registry.replaced(name, version)
            if before is None:
                return {**record, "champion": version, "promoted": True, "reason": "it is the champion already"}
            champion = before or None
        record["champion"] = champion
        promoted, reason, comparison = _judge(config, windows, segmenter, name, registry, version, champion, figures)
        if comparison is not None:
            record["comparison"] = {**asdict(comparison), "difference": comparison.difference}
        if again or not promoted or registry.replace_champion(name, champion, version, reason=reason):
            return {**record, "promoted": again or promoted, "reason": reason}
        log.info("promote: the champion is no longer %s: once more", champion or "missing")
    return {**record, "promoted": False, "reason": f"{reason}. But the champion changed {ROUNDS} times since"}


def _judge(
    config: RunConfig,
    windows: WindowDataset,
    segmenter: Path,
    name: str,
    registry: Registry,
    version: str,
    champion: str | None,
    figures: Mapping[str, float],
) -> tuple[bool, str, Comparison | None]:
    """Whether a version should replace this champion, why, and by what comparison."""
    if champion is None:
        return *_first(config, windows, segmenter, figures), None
    if older := _older(registry.origin(name, version), registry.origin(name, champion)):
        return (
            False,
            f"not compared with champion {champion}: {older}; an older run does not replace a newer one. Move the "
            f"alias by hand if it should",
            None,
        )
    if windows.manifest.self_scored:
        reason = (
            f"not compared with champion {champion}: this dataset is trained and scored on itself, which would "
            f"flatter the new model. Move the alias by hand if it looks better"
        )
        return False, reason, None
    try:
        comparison = _against(config, windows, segmenter, registry, name, champion)
    except ConfigError as error:
        reason = f"champion {champion} cannot map this dataset: {error}. Give other classes a model of their own"
        return False, reason, None
    return *decide(comparison, config.promotion), comparison


def decide_first(
    counts: UnitCounts, config: PromotionConfig, *, figures: Mapping[str, float], self_scored: bool, seed: int
) -> tuple[bool, str]:
    """Whether a model without a champion to compare with is good enough to be one, and why.

    Args:
        counts: of the model on the evaluation windows.
        config: `first_floor`, `samples` and `confidence` apply.
        figures: of its evaluation. Used without dense labels: `expected_low`, the lower end of the expected mIoU of the
            masks that taught it, in [0, 1], and of a dataset without a test split also `tag_map_held_out`, the mean
            average precision of the tags of left-out squares, with what 95 % of guesses stay below.
        self_scored: whether the dataset has no test split.
        seed: of the bootstrap.
    """
    floor = config.first_floor
    if floor == 0:
        return True, FIRST
    if floor == "majority":
        enough, facts = (
            _over_majority(counts, config, seed) if counts.metric == "miou" else _hoped(counts, figures, self_scored)
        )
    else:
        # NaN, where no class occurs, is not enough.
        enough = counts.figure >= floor
        facts = f"{counts.metric} {100 * counts.figure:.1f}, promotion.first_floor {100 * floor:.1f}"
    if enough:
        return True, f"{FIRST} ({facts})"
    return False, (
        f"the first version is below the floor ({facts}): it stays challenger. Give more tags or train longer, or move "
        f"the alias by hand if the map is good enough"
    )


def _over_majority(counts: UnitCounts, config: PromotionConfig, seed: int) -> tuple[bool, str]:
    """Whether a map is better than its most frequent class alone, with the interval, in every metric."""
    gains = over_majority(counts, config=config, seed=seed)
    facts = "; ".join(
        f"{each.metric} {100 * each.model:.1f} against {100 * each.majority:.1f} of the most frequent class alone, "
        f"{config.confidence:.0%} interval of the difference {100 * each.low:+.1f} to {100 * each.high:+.1f}"
        for each in gains
    )
    return all(each.low > 0 for each in gains), facts


def _hoped(counts: UnitCounts, figures: Mapping[str, float], self_scored: bool) -> tuple[bool, str]:
    """The same without dense labels: from what is expected of the masks and, without a test split, left-out tags."""
    most, low = 1 / (counts.counts.shape[1] + 1), figures.get("expected_low", math.nan)
    if math.isnan(low):
        return False, "no dense labels, and nothing is expected of the masks"
    facts = (
        f"no dense labels; the masks' expected mIoU is at least {100 * low:.1f}, a map of one class has at most "
        f"{100 * most:.1f}"
    )
    if not self_scored:
        return low > most, facts
    value, guess = (figures.get(f"tag_map_held_out{end}", math.nan) for end in ("", "_guess_high"))
    if math.isnan(value):
        return False, f"{facts}; the squares are too few, or too alike, to predict the tags of left-out ones"
    return low > most and value > guess, (
        f"{facts}; the tags of left-out squares have a mean average precision of {100 * value:.1f}, 95 % of guesses "
        f"are below {100 * guess:.1f}"
    )


def _first(
    config: RunConfig, windows: WindowDataset, segmenter: Path, figures: Mapping[str, float]
) -> tuple[bool, str]:
    if config.promotion.first_floor == 0:
        return True, FIRST
    counts = _counts(config, windows, segmenter)
    alone = windows.manifest.self_scored
    return decide_first(counts, config.promotion, figures=figures, self_scored=alone, seed=config.seed)


def _older(ours: Origin, theirs: Origin) -> str:
    """Why our run is older than the champion's. If empty, it is not. The season counts before the start of the run.

    Seasons may be unknown: of models of older versions, and of sources without one.
    """
    if ours.season and theirs.season and ours.season != theirs.season:
        return f"its season began on {theirs.season}, this one's on {ours.season}" * (ours.season < theirs.season)
    return f"its run began at {theirs.began}, this one at {ours.began}" * (ours.began < theirs.began)


def _against(
    config: RunConfig, windows: WindowDataset, segmenter: Path, registry: Registry, name: str, champion: str
) -> Comparison:
    with scratch_folder() as scratch:
        theirs = registry.download(name, champion, scratch / "champion")
        before, after = (_counts(config, windows, folder) for folder in (theirs, segmenter))
    return compare(before, after, names=windows.manifest.classes, config=config.promotion, seed=config.seed)


def _counts(config: RunConfig, windows: WindowDataset, folder: Path) -> UnitCounts:
    """One model's counts on the evaluation split."""
    device = choose_device(config.device)
    model, manifest, trained = load_segmenter(folder, windows)
    model = for_inference(model, device, config.precision)
    predictor = Predictor(
        model, windows, trained.segmenter.reading, manifest.statistics, device, config.evaluation.batch
    )
    return unit_counts(predictor, windows.manifest.evaluation_split)
