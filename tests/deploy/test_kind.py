"""One laptop, as deploy/README.md has it: KFP, our services and any step of any pipeline within 4 CPUs and 8 GiB."""

from __future__ import annotations

import itertools

import pytest
from exact_kubeflow.pipelines.compile import PIPELINES
from exact_kubeflow.pipelines.steps import LEAST_CPU

from exact_core.recipes import resolve
from exact_core.stages.preflight import training_size
from exact_core.stages.sizing import read_resources, sized
from tests.deploy import rules
from tests.deploy.conftest import DEPLOY, deployment
from tests.pipelines.compiled import compile_with, load

SETTINGS = DEPLOY / "overlays" / "kind" / "steps.yaml"
MIB = 2**20
CORES, MEMORY = 4.0, 8 * 1024 * MIB
KFP = {
    "ml-pipeline": (0.25, 500),
    "persistence agent": (0.12, 500),
    "user interface": (0.01, 70),
    "mysql": (0.1, 800),
    "seaweedfs": (0.032, 128),
    "workflow controller": (0.1, 500),
    "driver of a step": (0.1, 64),
}
"""Requests in cores and MiB, from KFP's manifests of about 2.16 and its compiler's driver; its other pods ask for
nothing."""
KUBERNETES = {
    "kube-apiserver": (0.25, 0),
    "controller manager": (0.2, 0),
    "scheduler": (0.1, 0),
    "etcd": (0.1, 100),
    "coredns": (0.2, 140),
    "kindnet": (0.1, 50),
}
"""Requests of what kubeadm and kind put on the one node."""
SIDE_BY_SIDE = ({"evaluate", "transfer-report"}, {"map-season", "join-map"})
"""Steps of the two branches after training; everything else comes one after another."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Pipeline -> step -> cores and bytes, as compiled with the settings of the overlay."""
    folder = tmp_path_factory.mktemp("compiled")
    compile_with(SETTINGS, folder)
    found = {}
    for name in PIPELINES:
        found[name] = {}
        for step, (_, container, kubernetes) in load(folder / name).items():
            resources = container["resources"]
            assert "accelerator" not in resources, step
            assert not kubernetes.get("nodeSelector"), step
            found[name][step] = (cores(resources["resourceCpuRequest"]), size(resources["resourceMemoryLimit"]))
    return found


def cores(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text: str) -> int:
    units = {"G": 10**9, "M": 10**6, "Gi": 2**30, "Mi": MIB}
    number = text.rstrip("GMi")
    return int(number) * units[text.removeprefix(number)]


def room() -> tuple[float, int]:
    """Cores and bytes that are left for steps."""
    ours = [
        (cores(container["resources"]["requests"]["cpu"]), size(container["resources"]["requests"]["memory"]))
        for item, container in rules.containers(deployment("overlays/kind").objects)
        if item["kind"] != "Job"  # it has ended before a run
    ]
    theirs = [(number, mib * MIB) for number, mib in (*KFP.values(), *KUBERNETES.values())]
    taken = ours + theirs
    return CORES - sum(number for number, _ in taken), MEMORY - sum(taken_bytes for _, taken_bytes in taken)


def test_every_step_fits_beside_kfp_and_the_services(steps):
    free_cores, free_memory = room()
    for name, of in steps.items():
        for step, (wanted_cores, wanted_memory) in of.items():
            assert wanted_cores <= free_cores, (name, step)
            assert wanted_memory <= free_memory, (name, step)


def test_steps_that_run_side_by_side_fit_too(steps):
    free_cores, free_memory = room()
    for of in steps.values():
        for one, other in itertools.product(*SIDE_BY_SIDE):
            if one in of and other in of:
                assert of[one][0] + of[other][0] <= free_cores, (one, other)
                assert of[one][1] + of[other][1] <= free_memory, (one, other)


def test_without_the_settings_the_demo_fits_too():
    """What the first step asks for where nobody says anything, of the recipe that fits a laptop."""
    sizes = sized(read_resources({}), training=training_size(resolve("demo"), source="synthetic", season=""))
    free_cores, free_memory = room()
    assert size(sizes.memory) <= free_memory
    assert size(sizes.data_memory) <= free_memory
    assert cores(LEAST_CPU) <= free_cores
    assert not sizes.gpus
