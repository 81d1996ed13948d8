"""Record the final status of a pipeline run. This step runs after success and after failure."""

from typing import Any

from exact_kubeflow.components.step import step
from kfp import dsl


@step
def record_status(status: dsl.PipelineTaskFinalStatus, pipeline_run: str, webhook: str = "") -> dict[str, Any]:
    """Record the final status of a run in MLflow, and send it to the webhook if there is one.

    Args:
        status: Final status of the run, from KFP.
        pipeline_run: ID of the pipeline run, for MLflow.
        webhook: http(s) URL that receives the status as JSON. If empty, none.

    Returns:
        The recorded status.
    """
    from exact_core.stages.record_status import record_status as run_stage

    return run_stage(
        pipeline_run=pipeline_run,
        state=status.state,
        error=status.error_message or "",
        job=status.pipeline_job_resource_name,
        webhook=webhook,
    )
