"""`exact compare`: evaluated maps side by side, of folders of this disk and of runs and models of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from exact_core.errors import DataError
from exact_core.evaluation.run_report.comparison import Candidate, text_table, write_comparison
from exact_core.manifest import read_record
from exact_core.scratch import scratch_folder
from exact_core.tracking.lookups import Evaluations

__all__ = ["compare_maps"]

METRICS, PICTURE = "metrics.json", Path("figures/map.png")


def compare_maps(references: list[str], *, out: Path) -> tuple[str, str | None]:
    """Compare evaluated maps. If MLflow has one of them, the comparison is logged as a run.

    Args:
        references: folders of `exact run` or `exact evaluate`. Identities or names of MLflow runs (of a pipeline, or of
            any of its stages). Models as NAME@ALIAS or NAME/VERSION. The others are compared with the first.
        out: HTML file to write.

    Returns:
        The table, for a terminal, and the identity of the MLflow run that holds the page, None where all are folders.

    Raises:
        ConfigError: MLflow knows no such run or model.
        DataError: one was not evaluated, or there are fewer than two.
        ServiceError: MLflow does not answer.
    """
    evaluations: Evaluations | None = None
    candidates, runs = [], []
    for reference in references:
        if Path(reference).is_dir():
            candidates.append(_of_folder(Path(reference)))
            continue
        # Of folders alone nobody is asked.
        evaluations = evaluations or Evaluations()
        run = evaluations.find(reference)
        with scratch_folder() as scratch:
            metrics = evaluations.fetch(run, METRICS, scratch)
            picture = evaluations.fetch(run, PICTURE.as_posix(), scratch, missing_ok=True)
            content = read_record(metrics) if metrics is not None else {}
            candidates.append(
                Candidate(
                    title=evaluations.title(run, reference),
                    metrics=content,
                    facts={
                        **evaluations.facts(run),
                        "segmenter": str(content.get("segmenter", "–")),
                        "split": str(content.get("split")),
                    },
                    map_png=None if picture is None else picture.read_bytes(),
                )
            )
        runs.append(run)
    write_comparison(out, candidates)
    logged = evaluations.log_comparison(out, runs) if evaluations else None
    return text_table(candidates), logged


def _of_folder(folder: Path) -> Candidate:
    """The evaluation in a run's folder, or of an `exact evaluate`."""
    place = folder / "evaluation" if (folder / "evaluation" / METRICS).is_file() else folder
    if not (place / METRICS).is_file():
        raise DataError(f"{folder}: no evaluation there ({METRICS}). Name a folder of `exact run` or `exact evaluate`")
    metrics = read_record(place / METRICS)
    picture = place / PICTURE
    return Candidate(
        title=folder.name or str(folder),
        metrics=metrics,
        facts={**_facts(place), "split": str(metrics.get("split"))},
        map_png=picture.read_bytes() if picture.is_file() else None,
    )


def _facts(place: Path) -> dict[str, str]:
    """What a map was made of, by the files beside its evaluation."""
    config, dataset = place / "config.yaml", place.parent / "dataset" / "dataset.json"
    found: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    digest = str(read_record(dataset).get("digest", "–"))[:12] if dataset.is_file() else "–"
    return {
        "recipe": str(found.get("recipe", "–")),
        "seed": str(found.get("seed", "–")),
        "segmenter": str((found.get("segmenter") or {}).get("model", "–")),
        "dataset": digest,
    }
