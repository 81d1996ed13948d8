"""Stage `champion`: whether a new season is mapped with the segmenter in use, or one is trained."""

from __future__ import annotations

import logging
from pathlib import Path

from exact_core.data.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.registry import CHAMPION, Registry, default_name
from exact_core.stages.models import load_segmenter
from exact_core.tracking import Tracker

__all__ = ["ALWAYS", "IF_NO_CHAMPION", "REUSE", "TRAIN", "champion"]

log = logging.getLogger(__name__)

TRAIN, REUSE = "train", "reuse"
ALWAYS, IF_NO_CHAMPION = "always", "if_no_champion"


def champion(*, dataset: Path, training: str, model: str, out: Path, tracker: Tracker) -> str:
    """Fetch the champion, if it is to be used.

    Args:
        dataset: folder of the window dataset that is to be mapped.
        training: always, or if_no_champion.
        model: name of the registered model; empty: after the dataset's name.
        out: model folder for the champion; not made where one is to be trained.
        tracker: gets the decision.

    Returns:
        train or reuse.

    Raises:
        ConfigError: another word for `training`; or the champion has other classes, bands or windows than the dataset.
    """
    if training not in (ALWAYS, IF_NO_CHAMPION):
        raise ConfigError(f"training = {training!r}: expected {ALWAYS} or {IF_NO_CHAMPION}")
    windows = WindowDataset(dataset)
    name = model or default_name(windows.manifest.name)
    registry = Registry.of(tracker)
    version = None if registry is None or training == ALWAYS else registry.alias_version(name, CHAMPION)
    if registry is None or version is None:
        reason = "a segmenter is trained every time" if training == ALWAYS else f"model {name} has no champion"
        decision = TRAIN
    else:
        registry.download(name, version, out)
        load_segmenter(out, windows)  # refuses what does not fit
        decision, reason = REUSE, f"model {name} version {version} is the champion"
    tracker.set_tags({"exact.training": decision, "exact.training_reason": reason})
    log.info("champion: %s: %s", decision, reason)
    return decision
