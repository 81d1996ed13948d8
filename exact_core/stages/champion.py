"""Stage `champion`: the segmenter in use, as the first step has chosen it, from MLflow's registry."""

from __future__ import annotations

import logging
from pathlib import Path

from exact_core.errors import ServiceError
from exact_core.stages.stage import Stage
from exact_core.tracking.registry import Registry
from exact_core.tracking.runs import Tracker

__all__ = ["STAGE", "champion"]

STAGE = Stage(name="champion", size="small", minutes=30, writes={"segmenter": ("model.json",)})

log = logging.getLogger(__name__)


def champion(*, model: str, version: str, out: Path, tracker: Tracker) -> None:
    """Fetch a registered segmenter.

    Args:
        model: name of the registered model.
        version: number of its version.
        out: model folder for it.
        tracker: says where the registry is.

    Raises:
        DataError: that version is no segmenter of ours.
        ServiceError: MLflow does not hand it out, or runs are not tracked.
    """
    registry = Registry.of(tracker)
    if registry is None:
        raise ServiceError(f"model {model} version {version}: runs are not tracked here, so there is no registry")
    registry.download(model, version, out)
    log.info("champion: model %s version %s", model, version)
