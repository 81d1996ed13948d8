"""The committed packages themselves, parameters filled in and no more, in our images, on a real scene.

KFP's DockerRunner fills in neither an image that is a parameter nor the time of a schedule; both are put there first,
as `exact run --containers` does.
"""

from __future__ import annotations

import os

import docker
import pytest
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.compile import COMPILED
from kfp import components, local as kfp_local

from exact_core.files import sha256_of
from tests.docker.conftest import USER, run_in
from tests.docker.test_runs import EXACT

pytestmark = pytest.mark.docker

SHORT = ["device=cpu"] + [
    f"{model}.{key}"
    for model in ("classifier", "segmenter")
    for key in ("training.epochs=1", "encoder.dim=16", "encoder.temporal_depth=1")
]
"""Settings of a run that takes minutes; what is compared is the way, not the map."""
FILES = ("class.tif", "confidence.tif")


@pytest.fixture(scope="module")
def by_folder(images, servers, flanders, tmp_path_factory):
    """The map that `exact run` makes of the folder, by processes of this machine."""
    folder = tmp_path_factory.mktemp("folder")
    settings = [word for setting in SHORT for word in ("--set", setting)]
    command = [*EXACT, "run", "--source", f"season:{flanders}", "--seed", "1", "--workdir", "work", *settings]
    done = run_in(command, folder, servers)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "work" / "crop_map"


@pytest.fixture
def run_package(images, servers, flanders, tmp_path, monkeypatch):
    """Run a committed package with these parameters; the folder of its tasks' outputs."""
    # The store hands folders on by reference; without one the runner's own folders pass, and can be looked at here.
    variables = {name: value for name, value in servers.items() if name != "EXACT_STORE"}
    root = tmp_path / "root"
    root.mkdir()
    user = os.getuid() or USER
    if os.getuid() == 0:
        os.chown(root, USER, USER)

    def run(name: str, **parameters):
        runner = kfp_local.DockerRunner(
            user=f"{user}:{os.getgid() or USER}",
            environment={**variables, "HOME": "/tmp", "EXACT_CACHE_DIR": "/tmp/cache", "OMP_NUM_THREADS": "2"},
            network_mode="host",
            mounts=[docker.types.Mount(str(flanders), str(flanders.resolve()), type="bind", read_only=True)],
            read_only=True,
            tmpfs={"/tmp": "rw,mode=1777"},
        )
        package = components.load_component_from_text((COMPILED / f"{name}.yaml").read_text())
        kfp_local.init(runner, pipeline_root=str(root), raise_on_error=True)
        with local.honest_exit_codes():
            local._for_here(package)(
                source=f"season:{flanders}", recipe="season", seed=1, overrides=SHORT, **parameters
            )
        return next(root.glob("*"))

    return run


def maps(run, task):
    (folder,) = run.glob(f"**/{task}/crop_map")
    return {name: sha256_of(folder / name) for name in FILES}


@pytest.mark.parametrize("name", ["train_exact", "new_season"])
def test_a_package_trains_and_maps_to_the_bit_as_exact_run_does(by_folder, run_package, name):
    expected = {file: sha256_of(by_folder / file) for file in FILES}
    season = {"season": ""} if name == "new_season" else {}
    run = run_package(name, model=f"package-{name.replace('_', '-')}", **season)
    assert maps(run, "map-season") == expected


def test_an_area_is_mapped_by_the_champion_in_parts_to_the_bit_as_by_exact_run(by_folder, run_package, servers):
    """The champion is that of `exact run`: the first model of its name."""
    run = run_package("map_area", season="", map_parts=2)
    assert maps(run, "join-map") == {file: sha256_of(by_folder / file) for file in FILES}
