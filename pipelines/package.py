"""A pipeline ready to be uploaded: its compiled text, the name of its version, and the parameters that it takes."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from exact_kubeflow.components.images import check_pinned
from exact_kubeflow.pipelines.compile import PIPELINES
from kfp import compiler, dsl

from exact_core.artifacts.folders import code_version
from exact_core.errors import ConfigError
from exact_core.scratch import scratch_folder
from exact_core.stages.parameters import check_parameters
from exact_core.stages.plan_seasons import plan_seasons
from exact_core.stages.resolve_season import AUTO, refuse_placeholders
from exact_core.stages.run import ALWAYS, IF_NO_CHAMPION, NEVER
from exact_core.yaml_values import read_yaml

__all__ = ["Package", "load_package"]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader in C, where it has been built: compiled pipelines are long."""
TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclass(frozen=True)
class Package:
    """A compiled pipeline."""

    name: str
    """The pipeline's own name, under which the server keeps its versions."""
    version: str
    """Equal code, components and images have equal names. Made for Kubernetes' rules for names too."""
    text: str
    """The compiled YAML."""
    inputs: dict[str, dict[str, Any]]
    """Parameter -> its type, default and description, as compiled."""

    @property
    def description(self) -> str:
        """What the UI shows of an uploaded package, only what was given with it: its parameters, as a table."""
        rows = [
            f"| {name} | {_default(spec)} | {spec.get('description', '').strip()} |"
            for name, spec in sorted(self.inputs.items())
        ]
        head = [self.version, "", "| parameter | default | meaning |", "| --- | --- | --- |"]
        return "\n".join([*head, *rows])

    @property
    def resolves_seasons(self) -> bool:
        """Whether the server is to fill in the schedule's time."""
        return dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER in self.text

    @property
    def most_parts(self) -> int:
        """Largest number of parts of a map in a run, a parameter of its first step."""
        for component in next(yaml.load_all(self.text, LOADER))["components"].values():
            for task in component.get("dag", {}).get("tasks", {}).values():
                if "most_parts" in (given := task.get("inputs", {}).get("parameters", {})):
                    return int(given["most_parts"]["runtimeValue"]["constant"])
        return 1

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Values for the pipeline's parameters, checked as the server would, and more strictly.

        Raises:
            ConfigError: an unknown or missing parameter, a value of another type, a placeholder, no such season.
        """
        checked = {name: self._value(name, value) for name, value in given.items()}
        for name, spec in self.inputs.items():
            if name not in given and "defaultValue" not in spec and not spec.get("isOptional"):
                raise ConfigError(f"pipeline {self.name}: parameter {name} has no default. Give it a value")
        if checked.get("training") == NEVER:
            raise ConfigError(f"training = {NEVER!r}: expected {ALWAYS} or {IF_NO_CHAMPION}")
        complete: dict[str, Any] = {
            name: checked.get(name, spec.get("defaultValue")) for name, spec in self.inputs.items()
        }
        check_parameters({**complete, "most_parts": self.most_parts})
        if "image" in checked:
            check_pinned(checked["image"], where="image")
        if "seasons" in complete:
            plan_seasons(source=complete["source"], seasons=complete["seasons"], supervision=complete["supervision"])
        if "season" in self.inputs:
            season = self.season(checked)
            if season == AUTO and not self.resolves_seasons:
                raise ConfigError(
                    f"season = {season!r}: pipeline {self.name} does not follow a schedule. Give a year or START/DAYS, "
                    f"or use pipeline new_season"
                )
        return checked

    def season(self, arguments: dict[str, Any]) -> str:
        """The season that a run with these arguments asks for. Empty where the pipeline knows none."""
        return str(arguments.get("season", self.inputs.get("season", {}).get("defaultValue", "")))

    def read(self, assignments: list[str]) -> dict[str, Any]:
        """Arguments written as NAME=VALUE. The value of a text parameter as it stands, any other in YAML."""
        arguments: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"parameter {assignment!r}: expected NAME=VALUE, for example seed=1")
            try:
                arguments[name] = text if self._spec(name)["parameterType"] == "STRING" else read_yaml(text)
            except yaml.YAMLError as error:
                raise ConfigError(f"parameter {assignment!r}: the value is not valid YAML: {error}") from error
        return arguments

    def _spec(self, name: str) -> dict[str, Any]:
        if name not in self.inputs:
            close = difflib.get_close_matches(name, self.inputs, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.inputs)}"
            raise ConfigError(f"pipeline {self.name} has no parameter {name!r}; {hint}")
        return self.inputs[name]

    def _value(self, name: str, value: Any) -> Any:
        kind = self._spec(name)["parameterType"]
        refuse_placeholders(name, value)
        if kind == "STRING" and isinstance(value, int) and not isinstance(value, bool):
            # YAML reads season: 2025 as a number.
            return str(value)
        if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
            # 1e3 and 2.0 are whole numbers.
            return int(value)
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise ConfigError(f"{name} = {value!r}: pipeline {self.name} needs {kind} here, not {type(value).__name__}")
        return value


def _default(spec: dict[str, Any]) -> str:
    if "defaultValue" not in spec:
        return "needed"
    return json.dumps(spec["defaultValue"])


def load_package(pipeline: str) -> Package:
    """A pipeline of this project by name, compiled now, or a compiled one by its path.

    Compiled now, because EXACT_IMAGE names the image that the cluster is to run.

    Raises:
        ConfigError: there is none, or the file is no compiled pipeline.
    """
    if pipeline.endswith((".yaml", ".yml")):
        path = Path(pipeline)
        try:
            return _package(path.read_text(encoding="utf-8"), where=pipeline)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{pipeline}: not a readable pipeline: {error}") from error
    chosen = PIPELINES.get(f"{pipeline.replace('-', '_')}.yaml")
    if chosen is None:
        known = ", ".join(name.removesuffix(".yaml") for name in PIPELINES)
        raise ConfigError(f"unknown pipeline {pipeline!r}. Choose {known}, or a compiled pipeline (.yaml)")
    with scratch_folder() as folder:
        path = folder / "pipeline.yaml"
        compiler.Compiler().compile(chosen, str(path))
        return _package(path.read_text(encoding="utf-8"), where=pipeline)


def _package(text: str, *, where: str) -> Package:
    try:
        spec = next(yaml.load_all(text, LOADER))
        name, root = spec["pipelineInfo"]["name"], spec["root"]
    except (yaml.YAMLError, StopIteration, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: not a compiled KFP pipeline. Make one with `make compile`") from error
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    version = re.sub(r"[^a-z0-9.-]", "-", f"{name}-{code_version()}-{digest}".lower())
    return Package(name=name, version=version, text=text, inputs=root.get("inputDefinitions", {}).get("parameters", {}))
