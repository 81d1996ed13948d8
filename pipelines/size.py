"""Pods and bytes of a run on a cluster, from its package: `python -m exact_kubeflow.pipelines.size [PACKAGE ...]`.

KFP 2.17 runs a pipeline as one Workflow of Argo and keeps its nodes in it. Above 1 MB Argo compresses them, KFP does
not unpack them, and its API shows the run's tasks frozen for ever. So a run must stay below, at its end.

The rule comes from counting the nodes of runs on KFP 2.17.0 with Argo 4.0.5: a step is six nodes, each with a copy of
the pod's patch (the launcher's arguments with the component, KFP's executor input, the command, the environment), and
the step's driver is two with what it was given (component, task, container, Kubernetes' part). A group or an iteration
has a driver of its own. With this rule the package of version 0.1.0 of train_exact has 0.90 MB, as that run had.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["LIMIT", "Fan", "Size", "largest", "workflow_size"]

LIMIT = 950_000
"""Bytes of a run: KFP's API shows tasks frozen from 1 MB on, and the rule is good to some percent."""
NODES, NODE = 6, 1_900
"""Nodes of a step, and bytes of one beside its copy of the patch."""
DRIVER_COPIES = 2
LAUNCHER = 1_250
"""Bytes of the launcher's own arguments."""
GROUP = 10_000
"""Bytes of a group, of an iteration, and of a group that was passed over."""
RUN = 45_000
"""Bytes of a run beside all that is counted here."""
OVERHEAD = 1.8
"""The Workflow's bytes for one of the package: each component stands in it escaped, as an argument of its templates."""
URI = "minio://mlpipeline/v2/artifacts/" + "x" * 110
PASSED = {
    "run": {
        "recipe": "season",
        "overrides": ["x" * 40] * 4,
        "source": "x" * 80,
        "season": "x" * 14,
        "id": "x" * 36,
        "model": "x" * 16,
        "map_place": "x" * 40,
        "inputs": "x" * 32,
    }
}
"""What the first step hands on: a run with a few settings."""
IMAGE = "x" * 80


class Fan(NamedTuple):
    """How wide a run's loops are."""

    parts: int = 1
    seasons: int = 2


class Size(NamedTuple):
    """Size of a run at its end."""

    pods: int
    bytes: int

    def __add__(self, other: object) -> Size:
        """Both."""
        assert isinstance(other, Size)
        return Size(self.pods + other.pods, self.bytes + other.bytes)


def workflow_size(text: str, fan: Fan = Fan()) -> Size:  # noqa: B008 - immutable
    """Pods and bytes of the Workflow of a compiled pipeline, where every step that a run may have is run."""
    return _size(*_read(text), fan)


def largest(text: str, name: str, most: int = 64) -> int:
    """The widest fan of that name (a field of `Fan`) with which a run stays below LIMIT. 0: none does."""
    spec, platform = _read(text)
    fits = [width for width in range(1, most + 1) if _size(spec, platform, Fan(**{name: width})).bytes < LIMIT]
    return max(fits, default=0)


def _read(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline, and what Kubernetes is asked for by each executor."""
    spec, *rest = yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return spec, rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if rest else {}


def _size(spec: Mapping[str, Any], platform: Mapping[str, Any], fan: Fan) -> Size:
    whole = Size(0, RUN + round(OVERHEAD * (len(_json(spec)) + len(_json(platform)))))
    return whole + _group(spec["root"], spec, platform, fan)


def _group(component: Mapping[str, Any], spec: Mapping[str, Any], platform: Mapping[str, Any], fan: Fan) -> Size:
    """A group with its driver, and everything in it."""
    total, branches = Size(1, GROUP), dict[str, list[Size]]()
    for task in component["dag"]["tasks"].values():
        inner = spec["components"][task["componentRef"]["name"]]
        if "dag" not in inner:
            total += _step(task, inner, spec, platform)
            continue
        size = _group(inner, spec, platform, fan)
        if "parameterIterator" in task:
            # The loop itself, and each iteration as a group.
            items = str(task["parameterIterator"]["items"])
            width = fan.parts - 1 if "-parts" in items else fan.seasons
            total += Size(1 + width * size.pods, GROUP + width * size.bytes)
        elif "triggerPolicy" in task:
            # Groups that ask for the same are taken one at a time.
            asked = task["triggerPolicy"].get("condition", "").partition("'pipelinechannel--")[2].partition("'")[0]
            branches.setdefault(asked, []).append(Size(1, GROUP) if asked == "map_parts" and fan.parts == 1 else size)
        else:
            total += size
    for taken in branches.values():
        # Of several, one is taken, at worst the largest; of the others there is the driver that said no.
        total += max(taken, key=lambda size: size.bytes)
        total += Size(len(taken) - 1, GROUP * (len(taken) - 1))
    return total


def _step(
    task: Mapping[str, Any], component: Mapping[str, Any], spec: Mapping[str, Any], platform: Mapping[str, Any]
) -> Size:
    label = component["executorLabel"]
    container = spec["deploymentSpec"]["executors"][label]["container"]
    kubernetes = platform.get(label, {})
    command = [*container.get("command", []), *container.get("args", [])]
    environment = [kubernetes.get("secretAsEnv", []), container.get("env", []), container.get("resources", {})]
    patch = LAUNCHER + sum(len(json.dumps(_json(each))) for each in (component, _given(task, component)))
    patch += len(_json(command)) + len(_json(environment))
    driver = sum(len(_json(each)) for each in (component, task, container, kubernetes))
    return Size(2, NODES * (NODE + patch) + DRIVER_COPIES * driver)


def _given(task: Mapping[str, Any], component: Mapping[str, Any]) -> dict[str, Any]:
    """About what KFP gives a step as its executor input."""
    values = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        values[name] = source.get("runtimeValue", {}).get(
            "constant", PASSED.get(name, IMAGE if "image" in name else "4G")
        )
    inputs = component.get("inputDefinitions", {}).get("artifacts", {})
    outputs = component.get("outputDefinitions", {})
    stored = {"digest": "x" * 64, "store_uri": "x" * 100}
    return {
        "inputs": {"parameterValues": values, "artifacts": {name: _artifact(name, stored) for name in inputs}},
        "outputs": {
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in outputs.get("parameters", {})},  # noqa: S108
            "artifacts": {name: _artifact(name, {}) for name in outputs.get("artifacts", {})},
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",  # noqa: S108
        },
    }


def _artifact(name: str, metadata: dict[str, str]) -> dict[str, Any]:
    kind = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
    return {"artifacts": [{"name": name, "type": kind, "uri": f"{URI}/{name}", "metadata": metadata}]}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> int:
    """Print each pipeline's pods and bytes, as it is by default and at its widest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    folder = Path(__file__).parent / "compiled"
    parser.add_argument("packages", nargs="*", type=Path, default=sorted(folder.glob("*.yaml")))
    for path in parser.parse_args().packages:
        text = path.read_text(encoding="utf-8")
        inputs = _read(text)[0]["root"]["inputDefinitions"]["parameters"]
        fans = {Fan(): ""}
        for parameter, name in {"map_parts": "parts", "seasons": "seasons"}.items():
            if parameter in inputs:
                widest = largest(text, name)
                fans[Fan(**{name: widest})] = f"{parameter} {widest}"
        for fan, width in fans.items():
            size = workflow_size(text, fan)
            sys.stdout.write(f"{path.stem:<22} {width:<12} {size.pods:>4} pods {size.bytes / 1e6:>6.2f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
