"""Evaluated maps in MLflow: looked up by run or by model, downloaded, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from exact_core.environment import shown
from exact_core.errors import ConfigError, DataError
from exact_core.tracking.errors import explained, refused
from exact_core.tracking.runs import PIPELINE_TAG, STAGE_TAG, open_client, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Evaluations", "stage_states"]

EVALUATE = "evaluate"
PARENT_TAG = "mlflow.parentRunId"
MODELS = "models:/"


def stage_states(pipeline_run: str) -> dict[str, str]:
    """Stage -> state of its run (running, finished, failed, killed), in the order in which they began.

    Raises:
        ServiceError: MLflow does not answer.
    """
    client, experiment = open_client()
    with explained("list the stages of a run"):
        runs = client.search_runs(
            [experiment], f"tags.`{PIPELINE_TAG}` = '{pipeline_run}'", order_by=["attributes.start_time"]
        )
    return {run.data.tags[STAGE_TAG]: run.info.status.lower() for run in runs if STAGE_TAG in run.data.tags}


class Evaluations:
    """The evaluated maps of one MLflow server."""

    def __init__(self) -> None:
        self.client, self.experiment = open_client()

    def find(self, reference: str) -> Run:
        """The run of stage `evaluate` that a reference leads to.

        Args:
            reference: identity of a run, of a pipeline or of any stage of it, or its name, of which the newest counts,
                or a model, NAME@ALIAS or NAME/VERSION.

        Raises:
            ConfigError: MLflow knows no such run or model.
            DataError: nothing was evaluated there.
        """
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(self._run_of(reference))
            if run.data.tags.get(STAGE_TAG) == EVALUATE:
                return run
            parent = run.data.tags.get(PARENT_TAG, run.info.run_id)
            for child in self.client.search_runs([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'"):
                if child.data.tags.get(STAGE_TAG) == EVALUATE and child.info.status == "FINISHED":
                    return child
        except MlflowException as error:
            if not refused(error):
                with explained(f"look up {reference}"):
                    raise
            raise ConfigError(
                f"{reference}: MLflow at {shown(tracking_uri())} knows no such run or model: {error}. Give the "
                f"identity of a run, or NAME@ALIAS or NAME/VERSION of a model"
            ) from error
        raise DataError(f"{reference}: no finished stage {EVALUATE} belongs to this run. Let its pipeline end first")

    def fetch(self, run: Run, path: str, folder: Path, *, missing_ok: bool = False) -> Path | None:
        """A file of a run, at `folder`. None where it has none and may have none.

        Raises:
            DataError: it has none.
            ServiceError: MLflow does not hand it out.
        """
        parent = path.rpartition("/")[0]
        with explained(f"hand out {path}"):
            if path not in {item.path for item in self.client.list_artifacts(run.info.run_id, parent or None)}:
                if missing_ok:
                    return None
                raise DataError(f"MLflow run {run.info.run_id} has no {path}. Evaluate the map again")
            return Path(self.client.download_artifacts(run.info.run_id, path, str(folder)))

    def title(self, run: Run, reference: str) -> str:
        """What a person would call it: a model as it was asked for. A run by its pipeline's name and its identity."""
        if "@" in reference or "/" in reference:
            return reference.removeprefix(MODELS)
        parent = run.data.tags.get(PARENT_TAG)
        name = self.client.get_run(parent).info.run_name if parent else run.info.run_name
        return f"{name} ({(parent or run.info.run_id)[:8]})"

    def facts(self, run: Run) -> dict[str, str]:
        """What the map was made of."""
        params = run.data.params
        digests = {each.dataset.digest for each in run.inputs.dataset_inputs} if run.inputs else set()
        return {
            "recipe": params.get("recipe", "–"),
            "seed": params.get("seed", "–"),
            "dataset": ", ".join(sorted(digest[:12] for digest in digests)) or "–",
            "code": params.get("code_version", "–"),
        }

    def log_comparison(self, report: Path, runs: list[Run]) -> str:
        """Save a comparison as a run of its own, which names the compared runs. Its identity."""
        names = json.dumps([run.info.run_id for run in runs])
        tags = {STAGE_TAG: "compare", "exact.compared": names}
        with explained("keep the comparison"):
            run_id = str(self.client.create_run(self.experiment, run_name="comparison", tags=tags).info.run_id)
            self.client.log_artifact(run_id, str(report))
            self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def _run_of(self, reference: str) -> str:
        reference = reference.removeprefix(MODELS)
        name, at, alias = reference.partition("@")
        if at:
            return str(self.client.get_model_version_by_alias(name, alias).run_id)
        name, slash, number = reference.partition("/")
        if slash:
            return str(self.client.get_model_version(name, number).run_id)
        # A name that a person gave, or sees on MLflow's page.
        quote = '"' if "'" in reference else "'"
        if quote not in reference and (
            named := self.client.search_runs(
                [self.experiment],
                f"attributes.run_name = {quote}{reference}{quote}",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
        ):
            return str(named[0].info.run_id)
        return reference
