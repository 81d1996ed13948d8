"""A tracked stage over a file of MLflow's."""

from __future__ import annotations

import pytest

from exact_core.stages.lifecycle import open_stage


@pytest.fixture
def tracked(config, tracking_file):
    """Open a stage of a pipeline run."""

    def opened(stage: str, pipeline_run: str = "run-1"):
        return open_stage(stage, config, pipeline_run=pipeline_run)

    return opened
