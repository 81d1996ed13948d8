"""One laptop, as deploy/README.md has it: KFP, our services and any step of any pipeline within 4 CPUs and 8 GiB."""

from __future__ import annotations

from exact_kubeflow.pipelines.steps import LEAST_CPU, SMALL_MEMORY

from exact_core.recipes import resolve
from exact_core.stages.preflight import survey, training_size
from exact_core.stages.sizing import read_resources, sized
from tests.deploy import rules
from tests.deploy.conftest import deployment

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


def test_every_step_of_the_demo_fits_beside_kfp_and_the_services():
    """What steps ask for where nobody says anything, of the recipe that fits a laptop."""
    config = resolve("demo")
    sizes = sized(read_resources({}), training=training_size(config, survey(config, "synthetic", "")))
    free_cores, free_memory = room()
    for memory in (sizes.memory, sizes.data_memory, SMALL_MEMORY):
        assert size(memory) <= free_memory
    assert cores(LEAST_CPU) <= free_cores
    assert not sizes.gpus
