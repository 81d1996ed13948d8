"""A recurring run as a person makes it in KFP's UI, whose defaults are kept."""

from __future__ import annotations

from typing import Any

import kfp
from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.compile import COMPILED
from exact_kubeflow.pipelines.package import load_package
from exact_kubeflow.pipelines.submit import upload

__all__ = ["schedule_in_the_ui"]


def schedule_in_the_ui(host: str, parameters: dict[str, Any]) -> str:
    """Schedule new_season every hour, ten at once, with catch-up; the identity of the recurring run."""
    cluster = Cluster(host)
    version = upload(cluster, load_package(str(COMPILED / "new_season.yaml")))
    made = kfp.Client(host=host).create_recurring_run(
        cluster.experiment("crops"),
        "flanders",
        cron_expression="0 0 * * * ?",
        max_concurrency=10,
        no_catchup=False,
        params=parameters,
        pipeline_id=version.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    return str(made.recurring_run_id)
