"""The images as they are: small rights, no tools, the very dependencies that the tests ran with."""

import json
import os
import re
import urllib.parse
from pathlib import Path

import pytest
from exact_kubeflow.components.images import DATA, TRAIN, image

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [DATA, TRAIN])
def test_an_image_runs_as_a_numeric_user_and_says_what_it_is(images, name):
    config = images[name].attrs["Config"]
    assert config["User"] == "1000:1000"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    version, revision = (labels[f"org.opencontainers.image.{key}"] for key in ("version", "revision"))
    tags = {tag.rpartition(":")[2] for tag in images[name].tags}
    assert {version, f"{version}-{revision}"} <= tags


@pytest.mark.parametrize("name", [DATA, TRAIN])
def test_the_doctor_finds_it_healthy_on_a_read_only_disk(in_image, name):
    code, said = in_image(name, "exact", "doctor", "--require", "object store", "--require", "MLflow")
    assert code == 0, said
    assert "failed" not in said
    assert re.search(r"ok +object store: s3://exact/artifacts can be written", said)
    assert ("no torch here" in said) == (name == DATA)


def test_the_doctor_says_what_is_wrong(in_image):
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    code, said = in_image(DATA, "exact", "doctor", environment=wrong)
    assert code == 1
    assert re.search(r"failed +object store: .*AWS_SECRET_ACCESS_KEY", said)
    assert re.search(r"failed +MLflow: .*127\.0\.0\.1:1", said)


def locked(folder: str) -> dict[str, str]:
    """Versions of the packages in an image's lock."""
    lock = (ROOT / "docker" / folder / "requirements.lock").read_text()
    found = {key.replace(".", "-"): version for key, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)}
    assert len(found) > 50
    return found


@pytest.mark.parametrize(("name", "folder"), [(DATA, "data"), (TRAIN, "train")])
def test_the_bill_of_materials_names_what_an_image_is_made_of(images, in_image, name, folder):
    """As `make sbom` has written it."""
    (path,) = (ROOT / "build" / "sbom").glob(f"*-{folder}-*.cdx.json")
    bill = json.loads(path.read_text())
    assert f"{bill['metadata']['component']['name']}:{bill['metadata']['component']['version']}" in images[name].tags
    purls = {urllib.parse.unquote(each.get("purl", "").partition("?")[0]) for each in bill["components"]}
    python = {purl.rpartition("/")[2].rpartition("@")[0] for purl in purls if purl.startswith("pkg:pypi/")}
    assert set(locked(folder)) <= python
    assert "cyclonedx-bom" not in python
    code, said = in_image(name, "dpkg-query", "--show", "--showformat", "${Package}\n")
    assert code == 0
    debian = {purl.rpartition("/")[2].rpartition("@")[0] for purl in purls if purl.startswith("pkg:deb/debian/")}
    assert debian == set(said.split()) != set()


@pytest.mark.parametrize(("name", "folder"), [(DATA, "data"), (TRAIN, "train")])
def test_the_dependencies_are_the_locked_ones(in_image, name, folder):
    listing = (
        "from importlib.metadata import distributions\n"
        "for each in distributions():\n    print(each.name.lower().replace('_', '-').replace('.', '-'), each.version)"
    )
    code, said = in_image(name, "python3", "-c", listing)
    assert code == 0
    installed = {line.split()[0]: line.split()[1].partition("+")[0] for line in said.splitlines()}
    wanted = locked(folder)
    assert {key: installed.get(key) for key in wanted} == wanted
    assert set(installed) - set(wanted) == {"exact-kubeflow"}


def test_numerics_are_right_with_the_libraries_of_the_image(engine, images):
    """Recorded arrays and oracles, in its own Python, which is not that of this machine."""
    tests = "tests/parity tests/test_losses.py tests/test_metrics.py tests/clues/test_prototypes.py"
    pip = 'PATH="${PATH#/opt/venv/bin:}" python3 -m pip'
    tools = f"{pip} install -q --target /tmp/tools pytest hypothesis >/tmp/pip 2>&1"
    folders = {str(ROOT / "tests"): "/src/exact/tests", str(ROOT / "pyproject.toml"): "/src/exact/pyproject.toml"}
    if (shared := ROOT.parent / "shared").is_dir():
        folders[str(shared)] = "/src/shared"
    said = engine.containers.run(
        image(TRAIN),
        ["sh", "-c", f"{tools} && exec python -m pytest -p no:cacheprovider {tests}"],
        network_mode="host",
        working_dir="/src/exact",
        environment={"PYTHONPATH": "/tmp/tools:/src/exact", "EXACT_NO_SKIP": os.environ.get("EXACT_NO_SKIP", "")},
        volumes={path: {"bind": place, "mode": "ro"} for path, place in folders.items()},
        remove=True,
    ).decode()
    assert re.search(r"\b\d{2,} passed", said.splitlines()[-1]), said


@pytest.mark.parametrize("name", [DATA, TRAIN])
def test_no_tools_to_build_with_are_left(in_image, name):
    code, said = in_image(name, "sh", "-c", "ls /opt/venv/bin; command -v gcc cc make || true")
    assert code == 0
    assert not {"pip", "pip3", "gcc", "cc", "make"} & {Path(line).name for line in said.split()}
