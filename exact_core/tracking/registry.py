"""Segmenters in MLflow's registry: logged as models that load without this package, versioned, and named by alias.

A registered model has versions; the alias `champion` names the one in use, `challenger` the newest that wants its
place. Beside `tracking` the only module that imports mlflow.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import exact_core
from exact_core.environment import patience
from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.files import sha256_of
from exact_core.manifest import read_record
from exact_core.tracking.errors import explained, patiently
from exact_core.tracking.runs import MlflowTracker, Tracker, tracking_uri

__all__ = ["CHALLENGER", "CHAMPION", "Registry", "check_model_name", "default_name"]

CHAMPION, CHALLENGER = "champion", "challenger"
DIGEST_TAG = "exact.weights_sha256"
REQUIREMENTS = ("mlflow", "numpy", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
"""What a logged model needs to be loaded, at the versions it was logged with."""
EXAMPLE_DATES = 4


def default_name(dataset: str) -> str:
    """The registered model of a dataset's name, where no other is given."""
    return f"exact-{dataset}"


def check_model_name(name: str) -> None:
    """Refuse a name that MLflow's registry does not take, before there is anything to register.

    Raises:
        ConfigError: it has / or : in it, which stand before a version and an alias, or both kinds of quotes.
    """
    if not name.strip() or any(character in name for character in "/:") or ("'" in name and '"' in name):
        raise ConfigError(
            f"model = {name!r}: MLflow takes no name of a model with / or : in it, and this project none with both "
            f"kinds of quotes; take another, for example {re.sub('[^A-Za-z0-9._-]+', '-', name).strip('-') or 'exact'}"
        )


def _named(name: str) -> str:
    """MLflow's filter for a name; in double quotes it may have an apostrophe."""
    check_model_name(name)
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


class Registry:
    """MLflow's registry, as a stage uses it.

    Args:
        tracker: the stage's run; it gets the models that are logged.
    """

    def __init__(self, tracker: MlflowTracker) -> None:
        import mlflow

        self.client, self.run_id = tracker.client, tracker.run_id
        # Models are logged and resolved through MLflow's one global address.
        mlflow.set_tracking_uri(tracking_uri())

    @classmethod
    def of(cls, tracker: Tracker) -> Registry | None:
        """The registry where a tracker's run lies; None where nothing is tracked."""
        return cls(tracker) if isinstance(tracker, MlflowTracker) else None

    def register(self, folder: Path, *, name: str) -> str:
        """Log a segmenter as a model of the run, and register it; a repeated call finds it again.

        Args:
            folder: model folder of the segmenter.
            name: name of the registered model; made if need be.

        Returns:
            The number of its version.

        Raises:
            ServiceError: MLflow does not take it.
        """
        manifest = read_record(folder / "model.json")
        for entry in (manifest["weights"], manifest.get("config")):
            if entry and sha256_of(folder / entry["name"]) != entry["sha256"]:
                raise CorruptError(f"{folder / entry['name']}: corrupt: it is not what was written; train again")
        digest = manifest["weights"]["sha256"]

        def ask() -> str:
            for each in self.client.search_model_versions(_named(name)):
                if each.tags.get(DIGEST_TAG) == digest and each.run_id == self.run_id:
                    return str(each.version)
            with tempfile.TemporaryDirectory() as scratch:
                model_id, model_uri = self._log(folder, Path(scratch), manifest)
            status = self.client.get_logged_model(model_id).status
            if status != "READY":
                # MLflow would register it all the same.
                raise ServiceError(f"MLflow left model {model_id} {status}; run the stage again")
            if not self.client.search_registered_models(_named(name)):
                self.client.create_registered_model(name, description="Segmenters from crop tags (Exact)")
            made = self.client.create_model_version(
                name, model_uri, self.run_id, tags={DIGEST_TAG: digest}, model_id=model_id
            )
            return str(made.version)

        return patiently(ask, seconds=patience())

    def _log(self, folder: Path, scratch: Path, manifest: dict[str, Any]) -> tuple[str, str]:
        """Log the model to the run; its identity and address.

        Not by `start_run`, which ends the run when it is left: it is the stage's, and goes on.
        """
        import mlflow
        from mlflow.models import Model

        run = self.client.get_run(self.run_id)
        # Made by hand, since MLflow would put it into its default experiment, where no run is active.
        made = self.client.create_logged_model(
            run.info.experiment_id, name="segmenter", source_run_id=self.run_id, params=run.data.params
        )
        info = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            run_id=self.run_id,
            model_id=made.model_id,
            python_model=str(Path(exact_core.__file__).parent / "portable.py"),
            artifacts={"segmenter": str(_plain_copy(folder, scratch / "segmenter"))},
            code_paths=[str(_inference_code(scratch))],
            signature=_signature(manifest),
            input_example=_example(manifest),
            pip_requirements=[_pinned(package) for package in REQUIREMENTS],
            metadata=_metadata(manifest, folder),
        )
        return str(info.model_id), str(info.model_uri)

    def alias_version(self, name: str, alias: str) -> str | None:
        """The version that an alias of a registered model names; None where there is no such model or alias."""

        def ask() -> str | None:
            if not self.client.search_registered_models(_named(name)):
                return None
            # search_model_versions() leaves out the aliases.
            found = self.client.get_registered_model(name).aliases.get(alias)
            return None if found is None else str(found)

        return patiently(ask, seconds=patience())

    def set_alias(self, name: str, alias: str, version: str, *, reason: str = "") -> None:
        """Let an alias name this version, and keep on the version why."""

        def ask() -> None:
            if reason:
                self.client.set_model_version_tag(name, version, f"exact.{alias}_reason", reason[:5000])
            self.client.set_registered_model_alias(name, alias, version)

        patiently(ask, seconds=patience())

    def download(self, name: str, version: str, out: Path) -> Path:
        """The model folder of a registered version, as stage `train_segmenter` wrote it, at `out`.

        Raises:
            DataError: that version is no segmenter of ours.
            ServiceError: MLflow does not hand it out.
        """
        import mlflow

        def ask(scratch: str) -> Path:
            source = self.client.get_model_version(name, version).source
            got = mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=scratch, tracking_uri=tracking_uri()
            )
            return Path(got) / "artifacts" / "segmenter"

        with tempfile.TemporaryDirectory() as scratch, explained(f"hand out model {name} version {version}"):
            folder = patiently(lambda: ask(scratch), seconds=patience())
            if not (folder / "model.json").is_file():
                raise DataError(f"model {name} version {version} in MLflow is no segmenter of this package")
            return Path(shutil.copytree(folder, out))


def _plain_copy(folder: Path, out: Path) -> Path:
    """The folder's files, writable: those that came from a store are read-only links."""
    out.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    return out


def _inference_code(scratch: Path) -> Path:
    """A copy of the modules that `portable.py` leads to, as a package of the same name; nothing of training."""
    root = Path(exact_core.__file__).parent
    waiting, seen = [root / "portable.py"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "exact_core":
                waiting += _files_of(root, str(node.module).split(".")[1:])
        waiting += [package / "__init__.py" for package in path.parents if root in (package, *package.parents)]
    out = scratch / "exact_core"
    for path in seen - {root / "portable.py"}:
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return out


def _files_of(root: Path, parts: list[str]) -> list[Path]:
    path = root.joinpath(*parts)
    return [path / "__init__.py"] if path.is_dir() else [path.with_suffix(".py")]


def _example(manifest: dict[str, Any]) -> dict[str, Any]:
    side, bands = manifest["window"], len(manifest["bands"])
    mean = np.array(manifest["statistics"]["mean"]).round().astype(np.int16)[:, None, None]
    pixels = np.broadcast_to(mean, (1, EXAMPLE_DATES, bands, side, side)).copy()
    return {"pixels": pixels, "days": np.arange(0, 30 * EXAMPLE_DATES, 30, dtype=np.int64)[None]}


def _signature(manifest: dict[str, Any]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    side, bands, classes = manifest["window"], len(manifest["bands"]), len(manifest["classes"])
    inputs = [
        TensorSpec(np.dtype(np.int16), (-1, -1, bands, side, side), "pixels"),
        TensorSpec(np.dtype(np.int64), (-1, -1), "days"),
    ]
    output = TensorSpec(np.dtype(np.float32), (-1, classes + 1, side, side))
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([output]))


def _metadata(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a person who loads the model has to know."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["segmenter"]
    return {
        "bands": manifest["bands"],
        "classes": ["background", *manifest["classes"]],
        "days": settings["encoder"]["dates"] if settings["model"] == "tsvit" else "season_day",
        "dataset_digest": manifest["dataset_digest"],
        "code_version": manifest["code_version"],
        "temperature": (manifest.get("calibration") or {}).get("temperature"),
    }


def _pinned(package: str) -> str:
    # A build such as 2.13.0+cpu is found by its plain version everywhere; skinny and full MLflow have one version.
    found = version("mlflow-skinny" if package == "mlflow" else package)
    return f"{package}=={found.split('+')[0]}"
