"""Stage `promote`: a new segmenter -> the registry; and the champion's place, if it is the better one."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exact_core.artifacts.folders import fresh_folder
from exact_core.artifacts.model_folders import load_segmenter
from exact_core.config import PromotionConfig, RunConfig
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.evaluation.paired_bootstrap import Comparison, UnitCounts, compare, unit_counts
from exact_core.manifest import publish_record, read_record
from exact_core.mapping.predict import Predictor
from exact_core.tracking.registry import CHALLENGER, CHAMPION, Registry, default_name
from exact_core.tracking.runs import Tracker
from exact_core.training.loop import choose_device
from exact_core.undefined import defined

__all__ = ["decide", "promote", "read_decision"]

log = logging.getLogger(__name__)


def promote(
    config: RunConfig,
    *,
    dataset: Path,
    segmenter: Path,
    model: str,
    out: Path,
    tracker: Tracker,
) -> dict[str, float]:
    """Register a segmenter as challenger, and move the champion's alias to it if the gate holds.

    Both models map the same evaluation windows. The gate (`config.promotion`): the lower end of the confidence interval
    of the difference in mIoU, by a paired bootstrap over scenes, is above `minimum_gain`, and no class loses more than
    `largest_class_loss`. Without dense labels, the F1 of the tags that the maps imply stands in for mIoU. Without a
    champion there is nothing to compare with, and the first model becomes it. A dataset that is scored on itself allows
    no fair comparison, so nothing is promoted on it.

    Args:
        config: `promotion`, `evaluation.batch`, `seed` and `device` apply.
        dataset: folder of the window dataset.
        segmenter: model folder of the new segmenter.
        model: name of the registered model; empty: exact-NAME after the dataset's name.
        out: folder for metrics.json, which holds the decision and its reasons.
        tracker: gets the figures and the reason; where runs are not tracked, there is no registry and no decision.

    Returns:
        Whether it was promoted (1 or 0); with a champion also both models' figures, their difference and its interval.
    """
    fresh_folder(out, "metrics.json")
    windows = WindowDataset(dataset)
    name = model or default_name(windows.manifest.name)
    record: dict[str, Any] = {"model": name, "promoted": False, "version": None, "champion": None, "comparison": None}
    registry = Registry.of(tracker)
    if registry is None:
        record["reason"] = "runs are not tracked, so there is no registry"
    else:
        record |= _register(config, windows, segmenter, name, registry)
    tracker.set_tags({f"exact.{key}": str(record[key]) for key in ("model", "version", "promoted", "reason")})
    summary = {"promoted": float(record["promoted"])}
    if record["comparison"]:
        keys = ("champion", "challenger", "difference", "low", "high")
        summary |= {f"promotion_{key}": record["comparison"][key] for key in keys}
    tracker.log_summary(summary)
    publish_record(out / "metrics.json", record)
    tracker.log_file(out / "metrics.json", folder="promotion")
    log.info("promote: %s version %s: %s", name, record["version"], record["reason"])
    return defined(summary)


def decide(comparison: Comparison, config: PromotionConfig) -> tuple[bool, str]:
    """Whether the gate holds, and why, in a sentence."""
    points = (
        f"{comparison.metric} {100 * comparison.challenger:.1f} against {100 * comparison.champion:.1f}: "
        f"{100 * comparison.difference:+.1f} points, {config.confidence:.0%} interval {100 * comparison.low:+.1f} to "
        f"{100 * comparison.high:+.1f} over {comparison.units} {comparison.unit}"
    )
    if not comparison.low > config.minimum_gain:
        return False, f"{points}; the lower end is not above {100 * config.minimum_gain:+.1f}"
    losses = {name: value for name, value in comparison.per_class.items() if value is not None}
    worst = min(losses, key=lambda name: losses[name], default=None)
    if worst is not None and losses[worst] < -config.largest_class_loss:
        return False, (
            f"{points}; but {worst} loses {-100 * losses[worst]:.1f} points, more than "
            f"{100 * config.largest_class_loss:.1f}"
        )
    return True, points


def read_decision(folder: Path) -> str:
    """The decision of a finished stage as Markdown, for a person to read."""
    record = read_record(folder / "metrics.json")
    verdict = "promoted to champion" if record["promoted"] else "not promoted"
    lines = [f"**{record['model']}** version {record['version']}: {verdict}", "", record["reason"]]
    if record["comparison"]:
        lines += ["", "| class | difference, points |", "| --- | --- |"]
        for name, value in record["comparison"]["per_class"].items():
            lines.append(f"| {name} | {'–' if value is None else f'{100 * value:+.1f}'} |")
    return "\n".join(lines) + "\n"


def _register(
    config: RunConfig, windows: WindowDataset, segmenter: Path, name: str, registry: Registry
) -> dict[str, Any]:
    """Register, compare, and move aliases; the decision's part of the record."""
    version = registry.register(segmenter, name=name)
    registry.set_alias(name, CHALLENGER, version)
    champion = registry.alias_version(name, CHAMPION)
    record: dict[str, Any] = {"version": version, "champion": champion}
    if champion == version:
        return {**record, "promoted": True, "reason": "it is the champion already"}
    if champion is None:
        promoted, reason = True, "the first version: no champion to compare with"
    elif windows.manifest.self_scored:
        promoted = False
        reason = (
            f"not compared with champion {champion}: this dataset is trained and scored on itself, which would "
            f"flatter the new model; move the alias by hand if it looks better"
        )
    else:
        try:
            comparison = _against(config, windows, segmenter, registry, name, champion)
        except ConfigError as error:
            promoted = False
            reason = f"champion {champion} cannot map this dataset: {error}; give other classes a model of their own"
        else:
            promoted, reason = decide(comparison, config.promotion)
            if promoted and registry.alias_version(name, CHAMPION) != champion:
                promoted, reason = (
                    False,
                    f"{reason}; but another run has moved the alias meanwhile; repeat the stage",
                )
            record["comparison"] = {**asdict(comparison), "difference": comparison.difference}
    if promoted:
        registry.set_alias(name, CHAMPION, version, reason=reason)
    return {**record, "promoted": promoted, "reason": reason}


def _against(
    config: RunConfig, windows: WindowDataset, segmenter: Path, registry: Registry, name: str, champion: str
) -> Comparison:
    with tempfile.TemporaryDirectory() as scratch:
        theirs = registry.download(name, champion, Path(scratch) / "champion")
        before, after = (_counts(config, windows, folder) for folder in (theirs, segmenter))
    return compare(before, after, names=windows.manifest.classes, config=config.promotion, seed=config.seed)


def _counts(config: RunConfig, windows: WindowDataset, folder: Path) -> UnitCounts:
    """One model's counts on the evaluation split."""
    device = choose_device(config.device)
    model, manifest, trained = load_segmenter(folder, windows)
    predictor = Predictor(
        model.to(device), windows, trained.segmenter.reading, manifest.statistics, device, config.evaluation.batch
    )
    return unit_counts(predictor, windows.manifest.evaluation_split)
