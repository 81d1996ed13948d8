"""Write the locked dependencies of the images: `python docker/lock.py [--check]`.

A lock holds what an image's own requirements (pyproject.toml) lead to, and the SHA-256 of every file that the package
index has of each. Versions are those of constraints.txt, which the tests run with; what that does not name is CUDA,
which torch pins itself. Writing asks the index, by `uv pip compile`; checking needs no network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.markers import Environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("tracking", "store", "pipelines")
WITHOUT = {"data": {"torch", "scikit-learn", "threadpoolctl", "matplotlib", "jinja2"}, "train": set()}
"""Requirements of the package that an image does without."""
PYTHON = "3.13"
"""Of the images, whatever this machine has."""
CUDA = ("cuda-", "nvidia-", "triton")
"""Beginnings of the names of what torch pins."""
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(image: str) -> list[str]:
    """What an image itself needs, as in pyproject.toml, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    return sorted(each for each in wanted if canonicalize_name(Requirement(each).name) not in WITHOUT[image])


def head(image: str) -> str:
    """The first lines of a lock: what it is made for."""
    first = f"Made by `make lock`, for Python {PYTHON}, of constraints.txt and:"
    return "".join(f"# {line}\n" for line in (first, *requirements(image)))


def constraints() -> dict[str, str]:
    """Versions that constraints.txt has for the images' Python, by name."""
    found = {}
    environment = Environment(python_version=PYTHON, python_full_version=f"{PYTHON}.0")
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if text := line.split("#")[0].strip():
            pin = Requirement(text)
            if pin.marker is None or pin.marker.evaluate(environment):
                found[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return found


def compiled(image: str) -> str:
    """The lock, from the package index."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not here, which asks the package index for hashes: make lock installs it")
    system = ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    form = ["--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet"]
    command = [uv, "pip", "compile", "-", "--constraints", "constraints.txt", *system, *form]
    own = "\n".join(requirements(image))
    done = subprocess.run(command, cwd=ROOT, input=own, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"uv pip compile: {done.stderr.strip()}")
    return head(image) + done.stdout


def is_stale(image: str, text: str) -> bool:
    """Whether a lock was made for other requirements or versions, or has a package without a hash."""
    rest = text.removeprefix(head(image))
    pins = [line.split() for line in rest.replace("\\\n", " ").splitlines()]
    split = [pin.partition("==") for pin, *_ in pins]
    versions = constraints()
    return (
        rest == text
        or not all(hashes and all(HASH.fullmatch(each) for each in hashes) for _, *hashes in pins)
        or any(not (name.startswith(CUDA) or versions.get(name) == version) for name, _, version in split)
    )


def main() -> int:
    """Write the locks, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="look at the committed files instead of writing")
    check = parser.parse_args().check
    stale = []
    for image in WITHOUT:
        path = ROOT / "docker" / image / "requirements.lock"
        if not check:
            path.write_text(compiled(image))
        elif not path.is_file() or is_stale(image, path.read_text()):
            stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make lock` and commit the result\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
