"""Stage `record_status`: the end of a pipeline run, successful or not -> MLflow, and a webhook if there is one."""

from __future__ import annotations

import http.client
import json
import logging
import re
import urllib.parse
import urllib.request
from typing import Any

from exact_core.errors import ConfigError, ExactError
from exact_core.stages.season_lease import give_back
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import finish_pipeline_run, run_facts

__all__ = ["STAGE", "check_webhook", "record_status"]

STAGE = Stage(name="record_status", size="small", minutes=30, image="data")

log = logging.getLogger(__name__)

STATES = {
    **dict.fromkeys(("COMPLETE", "SUCCEEDED", "CACHED"), "SUCCEEDED"),
    **dict.fromkeys(("CANCELED", "CANCELLED", "CANCELING"), "CANCELED"),
}
"""KFP's word for the end -> ours. Every other is FAILED. Up to 2.17 the driver gives MLMD's words (COMPLETE, CACHED,
CANCELED), KFP's local runner and later releases the API's."""
NOT_ENDED = (
    "a step was killed: it was out of memory or of time, lost its node, or its driver failed. The pods of the run "
    "state the cause (exact follow RUN)"
)
"""What KFP 2.17 calls RUNNING in an exit task."""
TERMINATED = "the run was terminated"
MLFLOW = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELED": "KILLED"}
TIMEOUT = 30.0


def record_status(*, pipeline_run: str, state: str, error: str, job: str, webhook: str) -> dict[str, Any]:
    """Record the end of a run.

    Args:
        pipeline_run: identity of the pipeline run, as its stages have it.
        state: of the run, as KFP names it. See STATES.
        error: what KFP says of the failure. Empty if nothing, as KFP 2.17 does of every failure.
        job: KFP's name of the run.
        webhook: http(s) URL that gets the record as JSON. If empty, none.

    Returns:
        What was recorded: the state as SUCCEEDED, FAILED or CANCELED, as error what KFP or else the stages say, and as
        facts what the run did and made, as its stages have it in MLflow. A webhook that does not answer, or is no URL,
        is logged: it was checked before the run, and fails no run now.
    """
    ours = STATES.get(state, "FAILED")
    if ours == "CANCELED":
        error = error or TERMINATED
    said = finish_pipeline_run(pipeline_run, succeeded=ours == "SUCCEEDED", reason=error, status=MLFLOW[ours])
    error = said or (NOT_ENDED if state == "RUNNING" else "")
    facts = run_facts(pipeline_run)
    record = {"pipeline_run": pipeline_run, "state": ours, "error": error, "job": job, "facts": facts}
    try:
        give_back(pipeline_run)
    except ExactError as problem:
        log.warning("record_status: the run's leases are not released, and will expire: %s", problem)
    log.info("record_status: %s%s", ours, f": {error}" if error else "")
    if webhook:
        _send(webhook, json.dumps(record).encode())
    return record


def _send(webhook: str, body: bytes) -> None:
    try:
        check_webhook(webhook)
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - checked above
            log.info("record_status: %s answered %d", _shown(webhook), answer.status)
    except (ConfigError, OSError, http.client.HTTPException, ValueError) as problem:
        # URLError is an OSError; what is no HTTP at all, and an address that cannot be sent, are the last two.
        log.warning("record_status: %s did not accept the status: %s", _shown(webhook), problem)


def check_webhook(webhook: str) -> None:
    """Refuse what is no http(s) URL.

    Raises:
        ConfigError: it is none.
    """
    try:
        url = urllib.parse.urlsplit(webhook)
        if url.scheme not in ("http", "https") or not url.hostname or not webhook.isascii() or " " in webhook:
            raise ValueError("expected http://HOST/... or https://HOST/..., in ASCII and without spaces")
        # Read, because it is checked only then.
        _ = url.port
    except ValueError as error:
        raise ConfigError(f"webhook = {_shown(webhook)!r}: no URL that can be called: {error}") from error


def _shown(webhook: str) -> str:
    """A webhook without what is secret of it: login, path and query."""
    scheme, apart, rest = webhook.partition("://") if "://" in webhook else ("", "", webhook)
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    return f"{scheme}{apart}{host.rpartition('@')[2]}{'/…' if rest != host else ''}"
