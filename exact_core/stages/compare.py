"""`exact compare`: runs and models of MLflow, side by side."""

from __future__ import annotations

import tempfile
from pathlib import Path

from exact_core.evaluation.run_report.comparison import Candidate, write_comparison
from exact_core.manifest import read_record
from exact_core.tracking.lookups import Evaluations

__all__ = ["compare_runs"]


def compare_runs(references: list[str], *, out: Path) -> str:
    """Compare evaluated maps, and log the comparison as a run of its own.

    Args:
        references: identities of MLflow runs (of a pipeline, or of any of its stages), or models as NAME@ALIAS or
            NAME/VERSION.
        out: HTML file to write.

    Returns:
        Identity of the MLflow run that holds it.

    Raises:
        ConfigError: MLflow knows no such run or model.
        DataError: a run was not evaluated, or there are fewer than two.
        ServiceError: MLflow does not answer.
    """
    evaluations = Evaluations()
    candidates, runs = [], []
    for reference in references:
        run = evaluations.find(reference)
        with tempfile.TemporaryDirectory() as scratch:
            metrics = evaluations.fetch(run, "metrics.json", Path(scratch))
            picture = evaluations.fetch(run, "figures/map.png", Path(scratch), missing_ok=True)
            content = read_record(metrics) if metrics is not None else {}
            candidates.append(
                Candidate(
                    title=evaluations.title(run, reference),
                    metrics=content,
                    facts={**evaluations.facts(run), "split": str(content.get("split"))},
                    map_png=None if picture is None else picture.read_bytes(),
                )
            )
        runs.append(run)
    write_comparison(out, candidates)
    return evaluations.log_comparison(out, runs)
