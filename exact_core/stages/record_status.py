"""Stage `record_status`: how a pipeline run ended, whatever happened -> MLflow, and a webhook if there is one."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request

from exact_core.errors import ConfigError
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import finish_pipeline_run

__all__ = ["STAGE", "record_status"]

STAGE = Stage(name="record_status", size="small", minutes=30, image="data")

log = logging.getLogger(__name__)

SUCCEEDED = "SUCCEEDED"
TIMEOUT = 30.0


def record_status(*, pipeline_run: str, state: str, error: str, job: str, webhook: str) -> dict[str, str]:
    """Record the end of a run.

    Args:
        pipeline_run: identity of the pipeline run, as its stages have it.
        state: of the run, in KFP's words: SUCCEEDED, FAILED, CANCELLED.
        error: what KFP says of the failure; empty if there was none.
        job: KFP's name of the run.
        webhook: http(s) URL that gets the record as JSON; empty: none.

    Returns:
        What was recorded. A webhook that does not answer is logged, and does not fail a run that has succeeded.

    Raises:
        ConfigError: the webhook is no http(s) URL.
    """
    record = {"pipeline_run": pipeline_run, "state": state, "error": error, "job": job}
    finish_pipeline_run(pipeline_run, succeeded=state == SUCCEEDED, reason=error)
    log.info("record_status: %s%s", state, f": {error}" if error else "")
    if webhook and not webhook.startswith(("http://", "https://")):
        raise ConfigError(f"webhook = {webhook!r}: expected an http:// or https:// URL")
    if webhook:
        body = json.dumps(record).encode()
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - checked above
                log.info("record_status: %s answered %d", webhook, answer.status)
        except (urllib.error.URLError, OSError) as problem:
            log.warning("record_status: %s did not take the status: %s", webhook, problem)
    return record
