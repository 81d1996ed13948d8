"""The MLflow runs that KFP's MLflow plugin makes: one a KFP run, nested below it one a task, which MLFLOW_RUN_ID names.

The plugin (KFP 2.17) begins and ends these runs itself, in the MLflow that the API server's configuration names. Steps
record into the MLflow that their secret names, which may be another.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from exact_core.environment import shown
from exact_core.errors import ServiceError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["PARENT_TAG", "RUN_VARIABLE", "given_run", "outermost"]

log = logging.getLogger(__name__)

RUN_VARIABLE = "MLFLOW_RUN_ID"
PARENT_TAG = "mlflow.parentRunId"
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers to the identity of a run that does not exist or is not in its format."""


def given_run(client: MlflowClient) -> Run | None:
    """The run that MLFLOW_RUN_ID names. None if it is not set, or if this MLflow does not have that run.

    The latter is only logged. The stage's own run then contains everything that the given run would, beside those of
    the other stages. So a pipeline does not depend on how an administrator has set up the plugin.

    Raises:
        ServiceError: MLflow does not say whether it has the run.
    """
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get(RUN_VARIABLE)
    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            return run
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise ServiceError(
                f"MLFLOW_RUN_ID = {run_id}: MLflow at MLFLOW_TRACKING_URI = {shown(client.tracking_uri)} does not hand "
                f"out this run: {error}. Give both variables of one server, or unset MLFLOW_RUN_ID"
            ) from error
    log.warning(
        "MLFLOW_RUN_ID = %s: MLflow at MLFLOW_TRACKING_URI = %s has no such run, so this stage records to a run of its "
        "own there. For one record, let KFP's MLflow plugin and the secret with MLFLOW_TRACKING_URI name the same "
        "server",
        run_id,
        shown(client.tracking_uri),
    )
    return None


def outermost(client: MlflowClient, run: Run) -> Run:
    """The outermost run that contains a run. Itself where it is not nested."""
    seen = {run.info.run_id}
    while (parent := run.data.tags.get(PARENT_TAG)) and parent not in seen:
        seen.add(parent)
        run = client.get_run(parent)
    return run
