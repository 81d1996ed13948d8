"""How a pipeline run ended -> MLflow, and a webhook if there is one. Runs whatever happened before."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp import dsl


@step
def record_status(status: dsl.PipelineTaskFinalStatus, pipeline_run: str, webhook: str = "") -> dict[str, Any]:
    """Record the end of a run.

    Args:
        status: How the run ended, from KFP.
        pipeline_run: Identity of the pipeline run, for MLflow.
        webhook: http(s) URL that gets the status as JSON; empty for none.

    Returns:
        What was recorded.
    """
    from exact_core.stages.record_status import record_status as run_stage

    return run_stage(
        pipeline_run=pipeline_run,
        state=status.state,
        error=status.error_message or "",
        job=status.pipeline_job_resource_name,
        webhook=webhook,
    )
