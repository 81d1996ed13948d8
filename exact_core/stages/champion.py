"""Stage `champion`: whether a new season is mapped with the segmenter in use, or one is trained."""

from __future__ import annotations

import logging
from pathlib import Path

from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError
from exact_core.tracking.registry import CHAMPION, Registry, check_model_name, default_name
from exact_core.tracking.runs import Tracker

__all__ = ["ALWAYS", "IF_NO_CHAMPION", "NEVER", "REUSE", "TRAIN", "champion"]

log = logging.getLogger(__name__)

TRAIN, REUSE = "train", "reuse"
ALWAYS, IF_NO_CHAMPION, NEVER = "always", "if_no_champion", "never"


def champion(*, dataset: Path | None, training: str, model: str, out: Path, tracker: Tracker) -> str:
    """Fetch the champion, if it is to be used.

    Args:
        dataset: folder of the window dataset that is to be mapped; None where there is none: a map needs no labels.
        training: always, if_no_champion, or never.
        model: name of the registered model; empty: after the dataset's name, or after a season's.
        out: model folder for the champion; not made where one is to be trained.
        tracker: gets the decision.

    Returns:
        train or reuse.

    Raises:
        ConfigError: another word for `training`; no champion where nothing is to be trained; or the champion has other
            classes, bands or windows than the dataset.
    """
    if training not in (ALWAYS, IF_NO_CHAMPION, NEVER):
        raise ConfigError(f"training = {training!r}: expected {ALWAYS}, {IF_NO_CHAMPION} or {NEVER}")
    if model:
        check_model_name(model)
    windows = None if dataset is None else WindowDataset(dataset)
    name = model or default_name("season" if windows is None else windows.manifest.name)
    registry = Registry.of(tracker)
    version = None if registry is None or training == ALWAYS else registry.alias_version(name, CHAMPION)
    if training == NEVER and (registry is None or version is None):
        where = "MLflow is off" if registry is None else f"model {name} has no champion"
        raise ConfigError(
            f"{where}: there is nothing to map with; train one first (pipeline train_exact), or name another model"
        )
    if registry is None or version is None:
        reason = "a segmenter is trained every time" if training == ALWAYS else f"model {name} has no champion"
        decision = TRAIN
    else:
        registry.download(name, version, out)
        if windows is not None:
            # Torch comes with it, and the commands that submit runs want but the words above.
            from exact_core.artifacts.model_folders import load_segmenter

            load_segmenter(out, windows)  # refuses what does not fit
        decision, reason = REUSE, f"model {name} version {version} is the champion"
    tracker.set_tags({"exact.training": decision, "exact.training_reason": reason})
    log.info("champion: %s: %s", decision, reason)
    return decision
