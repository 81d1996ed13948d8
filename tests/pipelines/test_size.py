"""Pods and bytes of runs: the rule, and what the pipelines come to by it."""

import pytest
import yaml
from exact_kubeflow.pipelines import compile as compiler
from exact_kubeflow.pipelines.package import load_package
from exact_kubeflow.pipelines.size import GROUP, Fan, largest, workflow_size

from exact_core.errors import ConfigError
from exact_core.stages.plan_seasons import MOST

IN_PARTS = ("train_exact", "new_season", "map_area")


def package(name):
    return (compiler.COMPILED / f"{name}.yaml").read_text()


def test_pods_counted_by_hand():
    """Two for a step and one for a group: here the whole, the exit handler, and the parts that are passed over."""
    steps = {"preflight", "ingest", "train-classifier", "generate-masks", "train-segmenter", "evaluate", "map-season"}
    assert workflow_size(package("train_exact")).pods == 2 * len(steps | {"record-status"}) + 3 == 19
    # In parts: the loop, an iteration with its step for each further part, and the step that joins them.
    assert workflow_size(package("train_exact"), Fan(parts=3)).pods == 19 + 1 + 2 * (1 + 2) + 2


def test_a_group_and_a_step_more_cost_what_they_cost():
    sizes = [workflow_size(package("train_exact"), Fan(parts=parts)).bytes for parts in (2, 3, 4)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    assert GROUP + 40_000 < sizes[1] - sizes[0] < GROUP + 64_000


def test_the_pipelines_stay_below_what_kfp_can_show():
    # What a run should cost, not what it may: a pod takes 15 to 25 s beside its work.
    assert workflow_size(package("train_exact")).pods <= 20
    assert workflow_size(package("train_exact")).bytes < 600_000
    assert workflow_size(package("new_season"), Fan(parts=4)).bytes < 1_000_000
    for name in compiler.PIPELINES:
        widest = {"parts": 1, "seasons": MOST}
        if name.removesuffix(".yaml") in IN_PARTS:
            widest["parts"] = load_package(name.removesuffix(".yaml")).most_parts
        assert workflow_size((compiler.COMPILED / name).read_text(), Fan(**widest)).bytes < 950_000, name


@pytest.mark.parametrize("name", IN_PARTS)
def test_as_many_parts_as_fit_are_taken_and_no_more(name):
    most = load_package(name).most_parts
    assert most == largest(package(name), "parts")
    with pytest.raises(ConfigError, match=f"map_parts = {most + 1}: expected 1 to {most}"):
        load_package(name).arguments({"map_parts": most + 1})
    assert load_package(name).arguments({"map_parts": most}) == {"map_parts": most}


def test_as_many_seasons_as_fit_are_taken_and_no_more():
    assert largest(package("leave_one_season_out"), "seasons") == MOST


def test_what_a_step_carries_is_short():
    """A cluster keeps six copies of each: no source, no description, one parameter for all that was decided."""
    for name in compiler.PIPELINES:
        spec = next(yaml.safe_load_all((compiler.COMPILED / name).read_text()))
        for label, executor in spec["deploymentSpec"]["executors"].items():
            assert len(" ".join([*executor["container"]["command"], *executor["container"]["args"]])) < 100, label
        for component in spec["components"].values():
            inputs = component.get("inputDefinitions", {}).get("parameters", {})
            assert not any("description" in each for each in inputs.values())
            if "executorLabel" in component and component["executorLabel"] not in (
                "exec-preflight",
                "exec-record-status",
            ):
                assert set(inputs) <= {"run", "register", "parts"}
