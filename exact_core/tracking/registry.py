"""Segmenters in MLflow's registry: logged as models that load without this package, versioned, and named by alias.

A registered model has versions. The alias `champion` names the one in use, `challenger` the newest candidate. Beside
`tracking` this is the only module that imports mlflow.
"""

from __future__ import annotations

import ast
import datetime as dt
import math
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

import exact_core
from exact_core.claims import take
from exact_core.environment import patience, shown
from exact_core.errors import ConfigError, CorruptError, DataError, ServiceError
from exact_core.files import sha256_of
from exact_core.manifest import read_record
from exact_core.scratch import scratch_folder
from exact_core.tracking.errors import explained, patiently
from exact_core.tracking.kfp_plugin import PARENT_TAG
from exact_core.tracking.runs import (
    PIPELINE_TAG,
    MlflowTracker,
    Tracker,
    open_client,
    run_identity,
    tracking_uri,
)

__all__ = ["CHALLENGER", "CHAMPION", "Origin", "Registry", "Version", "check_model_name", "default_name"]

CHAMPION, CHALLENGER = "champion", "challenger"
DIGEST_TAG = "exact.weights_sha256"
SEASON_TAG = "exact.season_start"
SINCE_TAG = "exact.champion_since"
"""On a version: when it became champion, each time, ISO 8601, UTC, apart by blanks."""
REASON_TAG = "exact.champion_reason"
REPLACED_TAG = "exact.replaced"
"""On a version that a run made champion: the champion before it. Empty where there was none."""
DECISION_TAG = "exact.decision"
CLAIM_TAG = "exact.claim."
"""Prefix of the name of a run that is moving the champion's alias: a tag of the model during the move."""
CLAIM_SECONDS = 120.0
"""What that takes at most. A claim of a killed run counts no longer."""
REQUIREMENTS = ("mlflow", "numpy", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
"""What a logged model needs to be loaded, at the versions it was logged with."""
EXAMPLE_DATES = 4
DIGEST = 36
"""Characters of a data set's digest that MLflow keeps."""


def default_name(region: str) -> str:
    """The registered model of a region, where no other is given; signs become dashes, as MLflow takes few of them."""
    name = re.sub(r"[^\w.-]+", "-", region)
    return f"exact-{name}".strip("-")


def check_model_name(name: str) -> None:
    """Refuse a name that MLflow's registry does not take, before there is anything to register.

    Raises:
        ConfigError: it has / or : in it, which stand before a version and an alias, or both kinds of quotes.
    """
    if not name.strip() or any(character in name for character in "/:") or ("'" in name and '"' in name):
        raise ConfigError(
            f"model = {name!r}: MLflow takes no name of a model with / or : in it, and this project none with both "
            f"kinds of quotes. Take another, for example {re.sub('[^A-Za-z0-9._-]+', '-', name).strip('-') or 'exact'}"
        )


def _named(name: str) -> str:
    """MLflow's filter for a name. In double quotes it may have an apostrophe."""
    check_model_name(name)
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


class Origin(NamedTuple):
    """What a registered version comes from."""

    season: str
    """First day of the season it was trained on, YYYY-MM-DD. If empty, not known."""
    began: str
    """When its pipeline run began, ISO 8601, UTC. For a stage run alone, the start of the stage."""


class Version(NamedTuple):
    """A version of a registered model.

    since: when it became champion, each time. figures: metrics, data set -> name -> value.
    """

    number: str
    season: str
    aliases: tuple[str, ...]
    since: tuple[str, ...]
    reason: str
    figures: dict[str, dict[str, float]]


class Registry:
    """MLflow's registry, for a stage or for a user.

    Args:
        client: of the server.
        run_id: the stage's run, to which models are logged. For a user, any name of their own.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        import mlflow

        self.client, self.run_id = client, run_id
        # Models are logged and resolved through MLflow's one global address.
        mlflow.set_tracking_uri(tracking_uri())

    @classmethod
    def of(cls, tracker: Tracker) -> Registry | None:
        """The registry of a tracker's server. None where nothing is tracked."""
        return cls(tracker.client, tracker.run_id) if isinstance(tracker, MlflowTracker) else None

    @classmethod
    def of_person(cls) -> Registry:
        """The registry as a command uses it, outside any run.

        Raises:
            ServiceError: MLflow does not answer.
        """
        client, _ = open_client()
        return cls(client, f"person-{uuid.uuid4().hex}")

    def register(self, folder: Path, *, name: str) -> str:
        """Log a segmenter as a model of the run, and register it. A repeated call returns the same version.

        Args:
            folder: model folder of the segmenter.
            name: name of the registered model. Created if needed.

        Returns:
            The number of its version.

        Raises:
            ServiceError: MLflow refuses it.
        """
        manifest = read_record(folder / "model.json")
        for entry in (manifest["weights"], manifest.get("config")):
            if entry and sha256_of(folder / entry["name"]) != entry["sha256"]:
                raise CorruptError(f"{folder / entry['name']}: corrupt: it is not what was written. Train again")
        digest = manifest["weights"]["sha256"]

        def ask() -> str:
            for each in self.client.search_model_versions(_named(name)):
                if each.tags.get(DIGEST_TAG) == digest and each.run_id == self.run_id:
                    return str(each.version)
            with scratch_folder() as scratch:
                model_id, model_uri = self._log(folder, scratch, manifest, name=name)
            status = self.client.get_logged_model(model_id).status
            if status != "READY":
                # MLflow would register it all the same.
                raise ServiceError(f"MLflow left model {model_id} {status}. Run the stage again")
            if not self.client.search_registered_models(_named(name)):
                self.client.create_registered_model(name, description="Segmenters from crop tags (Exact)")
            maker = self.client.get_run(self.run_id).data.tags.get(PIPELINE_TAG, "")
            tags = {DIGEST_TAG: digest, SEASON_TAG: manifest.get("season_start") or "", PIPELINE_TAG: maker}
            made = self.client.create_model_version(name, model_uri, self.run_id, tags=tags, model_id=model_id)
            return str(made.version)

        return patiently(ask, seconds=patience())

    def _log(self, folder: Path, scratch: Path, manifest: dict[str, Any], *, name: str) -> tuple[str, str]:
        """Log the model to the run. Its identity and address.

        `start_run` would end the run on exit, but this run belongs to the stage and continues.
        """
        import mlflow
        from mlflow.models import Model

        run = self.client.get_run(self.run_id)
        # Made by hand, since MLflow would put it into its default experiment, where no run is active.
        made = self.client.create_logged_model(
            run.info.experiment_id,
            name=_title(name, manifest),
            source_run_id=self.run_id,
            params=self._params(run),
        )
        with warnings.catch_warnings():
            # It would rather have its own type hints; the signature is given.
            warnings.filterwarnings("ignore", r"(?s).*[Tt]ype hint", UserWarning)
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

    def _params(self, run: Any) -> dict[str, str]:
        """The settings of a stage's pipeline run and, over them, its own."""
        parent = run.data.tags.get(PARENT_TAG)
        whole = self.client.get_run(parent).data.params if parent else {}
        return {**whole, **run.data.params}

    def alias_version(self, name: str, alias: str) -> str | None:
        """The version that an alias of a registered model names. None where there is no such model or alias."""

        def ask() -> str | None:
            if not self.client.search_registered_models(_named(name)):
                return None
            # search_model_versions() leaves out the aliases.
            found = self.client.get_registered_model(name).aliases.get(alias)
            return None if found is None else str(found)

        return patiently(ask, seconds=patience())

    def champion_for(self, name: str, pipeline_run: str) -> str | None:
        """The champion that a pipeline run began with: a run that is repeated may have made the present one itself."""
        version = self.alias_version(name, CHAMPION)
        if version is None:
            return None
        tags = self._tags(name, version)
        own = REPLACED_TAG in tags and tags.get(PIPELINE_TAG) == run_identity(pipeline_run)
        return tags[REPLACED_TAG] or None if own else version

    def replaced(self, name: str, version: str) -> str | None:
        """The champion that a run replaced by this version, empty for none. None where a person moved the alias."""
        return self._tags(name, version).get(REPLACED_TAG)

    def is_decided(self, name: str, weights: str) -> bool:
        """Whether a version with these weights (SHA-256) is registered, and its promotion decided."""

        def ask() -> bool:
            found = self.client.search_model_versions(_named(name))
            return any(each.tags.get(DIGEST_TAG) == weights and DECISION_TAG in each.tags for each in found)

        return patiently(ask, seconds=patience())

    def weights(self, name: str, version: str) -> str:
        """SHA-256 of the weights of a registered version, as `register` has noted it. If empty, it has not."""
        return self._tags(name, version).get(DIGEST_TAG, "")

    def _tags(self, name: str, version: str) -> dict[str, str]:
        return dict(patiently(lambda: self.client.get_model_version(name, version), seconds=patience()).tags)

    def origin(self, name: str, version: str) -> Origin:
        """What a version comes from."""

        def ask() -> Origin:
            found = self.client.get_model_version(name, version)
            run = self.client.get_run(found.run_id)
            if parent := run.data.tags.get(PARENT_TAG):
                run = self.client.get_run(parent)
            began = dt.datetime.fromtimestamp(run.info.start_time / 1000, dt.UTC).isoformat(timespec="milliseconds")
            return Origin(season=found.tags.get(SEASON_TAG, ""), began=began)

        return patiently(ask, seconds=patience())

    def replace_champion(self, name: str, champion: str | None, version: str, *, reason: str) -> bool:
        """Point the alias to this version if it still names `champion` (None: no version). Whether it did.

        MLflow has no such atomic operation. A run that moves the alias claims the model first, so that no other run
        moves it between the check and the move.

        Raises:
            ServiceError: another run holds the claim for longer than a move takes.
        """
        board = _ModelBoard(self, name)
        deadline = time.monotonic() + 2 * CLAIM_SECONDS
        while other := take(board, self.run_id, seconds=CLAIM_SECONDS):
            if time.monotonic() > deadline:
                raise ServiceError(f"MLflow run {other} is moving the champion of model {name}. Run the stage again")
            time.sleep(1.0)
        try:
            if self.alias_version(name, CHAMPION) != champion:
                return False
            before = champion or ""
            patiently(
                lambda: self.client.set_model_version_tag(name, version, REPLACED_TAG, before), seconds=patience()
            )
            self.set_alias(name, CHAMPION, version, reason=reason)
        finally:
            board.remove(self.run_id)
        return True

    def note_decision(self, name: str, version: str, *, promoted: bool, reason: str) -> None:
        """Keep on a version what the gate decided, and why."""

        def ask() -> None:
            self.client.set_model_version_tag(name, version, "exact.promoted", str(promoted))
            self.client.set_model_version_tag(name, version, DECISION_TAG, reason[:5000])

        patiently(ask, seconds=patience())

    def set_alias(self, name: str, alias: str, version: str, *, reason: str = "") -> None:
        """Let an alias name this version, and keep on the version why."""

        def ask() -> None:
            if reason:
                self.client.set_model_version_tag(name, version, f"exact.{alias}_reason", reason[:5000])
            if alias == CHAMPION:
                before = self.client.get_model_version(name, version).tags.get(SINCE_TAG, "")
                now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
                self.client.set_model_version_tag(name, version, SINCE_TAG, f"{before} {now}".strip())
            self.client.set_registered_model_alias(name, alias, version)

        patiently(ask, seconds=patience())

    def log_figures(self, name: str, version: str, figures: Mapping[str, float], *, dataset: str, digest: str) -> None:
        """Attach metrics to the model of a version, with the data set that they belong to, for MLflow's comparison.

        Args:
            name: of the registered model.
            version: number of its version.
            figures: metrics by name.
            dataset: name of the data.
            digest: of the data.
        """

        def ask() -> None:
            model_id = _model_of(self.client.get_model_version(name, version))
            known = {(each.key, each.dataset_digest) for each in self.client.get_logged_model(model_id).metrics or ()}
            for key, value in figures.items():
                # A repeated stage finds its own.
                if math.isfinite(value) and (key, digest[:DIGEST]) not in known:
                    self.client.log_metric(
                        self.run_id,
                        key,
                        value,
                        dataset_name=dataset,
                        dataset_digest=digest[:DIGEST],
                        model_id=model_id,
                    )

        patiently(ask, seconds=patience())

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model, the newest first.

        Raises:
            ConfigError: there is no such model.
            ServiceError: MLflow does not answer.
        """

        def ask() -> list[Version]:
            if not self.client.search_registered_models(_named(name)):
                raise ConfigError(f"{name}: MLflow at {shown(tracking_uri())} has no model of this name{self._known()}")
            aliases = self.client.get_registered_model(name).aliases
            found = self.client.search_model_versions(_named(name), order_by=["version_number DESC"])
            return [self._version(each, aliases) for each in found]

        return patiently(ask, seconds=patience())

    def _known(self) -> str:
        names = [each.name for each in self.client.search_registered_models()]
        return f". It has {', '.join(names[:10])}" if names else ". It has none"

    def _version(self, found: Any, aliases: Mapping[str, str]) -> Version:
        figures: dict[str, dict[str, float]] = {}
        model_id = _model_of(found)
        for each in (self.client.get_logged_model(model_id).metrics or ()) if model_id else ():
            figures.setdefault(each.dataset_name or "", {})[each.key] = each.value
        return Version(
            str(found.version),
            found.tags.get(SEASON_TAG, ""),
            tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(found.version))),
            tuple(found.tags.get(SINCE_TAG, "").split()),
            found.tags.get(REASON_TAG, ""),
            figures,
        )

    def download(self, name: str, version: str, out: Path) -> Path:
        """The model folder of a registered version, as stage `train_segmenter` wrote it, at `out`.

        Raises:
            DataError: that version is no segmenter of ours.
            ServiceError: MLflow does not hand it out.
        """
        import mlflow

        def ask(scratch: Path) -> Path:
            source = self.client.get_model_version(name, version).source
            got = mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=str(scratch), tracking_uri=tracking_uri()
            )
            return Path(got) / "artifacts" / "segmenter"

        with scratch_folder() as scratch, explained(f"hand out model {name} version {version}"):
            folder = patiently(lambda: ask(scratch), seconds=patience())
            if not (folder / "model.json").is_file():
                raise DataError(f"model {name} version {version} in MLflow is no segmenter of this package")
            return Path(shutil.copytree(folder, out))


def _model_of(version: Any) -> str:
    """The logged model of a version, empty: none. A registry in a database states it in the source alone."""
    named = re.fullmatch(r"models:/(m-\w+)", str(version.source))
    return str(version.model_id or (named[1] if named else ""))


def _title(name: str, manifest: Mapping[str, Any]) -> str:
    """What MLflow's page of models calls it: the registered model's name and the season, without / : . % and quotes."""
    season = str(manifest.get("season_start") or "")
    return re.sub(r"[^\w-]+", "-", f"{name} {season}".strip())


class _ModelBoard:
    """Claims on a registered model, as its tags. See `exact_core.claims`."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.client, self.name = registry.client, name

    def put(self, owner: str, text: str) -> None:
        """See `Board`."""
        put = self.client.set_registered_model_tag
        patiently(lambda: put(self.name, f"{CLAIM_TAG}{owner}", text), seconds=patience())

    def claims(self) -> dict[str, str]:
        """See `Board`."""
        found = patiently(lambda: self.client.get_registered_model(self.name), seconds=patience())
        return {key.removeprefix(CLAIM_TAG): text for key, text in found.tags.items() if key.startswith(CLAIM_TAG)}

    def remove(self, owner: str) -> None:
        """See `Board`."""

        def ask() -> None:
            if owner in self.claims():
                self.client.delete_registered_model_tag(self.name, f"{CLAIM_TAG}{owner}")

        patiently(ask, seconds=patience())


def _plain_copy(folder: Path, out: Path) -> Path:
    """The folder's files, writable: those that came from a store are read-only links."""
    out.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    return out


def _inference_code(scratch: Path) -> Path:
    """A copy of the modules that `portable.py` leads to, as a package of the same name. Nothing of training."""
    root = Path(exact_core.__file__).parent
    waiting, seen = [root / "portable.py"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            if module.split(".")[0] == "exact_core":
                waiting += _files_of(root, module.split(".")[1:])
        waiting += [package / "__init__.py" for package in path.parents if root in (package, *package.parents)]
    out = scratch / "exact_core"
    for path in seen - {root / "portable.py"}:
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return out


def _imported(node: ast.AST) -> Iterator[str]:
    """Modules that code imports names from when it runs: not what only annotates (`if TYPE_CHECKING`)."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom):
        yield node.module or ""
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)


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
