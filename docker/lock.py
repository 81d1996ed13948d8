"""Write the locked dependencies of the images: `python docker/lock.py [--check]`.

A lock holds what an image's own requirements (pyproject.toml) lead to, at the versions of constraints.txt, which are
those that the tests ran with, and the SHA-256 of every file that the package index has of each. What constraints.txt
does not name is CUDA, which the GPU build of torch pins itself: it has a lock of its own. Writing asks the index, by
`uv pip compile`; checking needs no network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("tracking", "store", "pipelines")
WITHOUT = {"data": {"torch", "scikit-learn", "threadpoolctl", "matplotlib", "jinja2"}, "train": set()}
"""Requirements of the package that an image does without."""
PLATFORM = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.9",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""What the images are, whatever this machine is."""
CPU_BUILDS = {
    "torch==2.13.0": ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",),
}
"""SHA-256 of torch-VERSION+cpu-cp311-cp311-manylinux_2_28_x86_64.whl, which the package index does not have. Where pip
has it at hand, it takes that instead of the GPU build. A new version of torch needs a new line."""
CUDA = "cuda.lock"
HEAD = "# Made by `make lock` from pyproject.toml and constraints.txt.\n"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(image: str) -> list[str]:
    """Lines `name==version`, sorted, for an image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    versions = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equals, version = line.split("#")[0].partition("==")
        if equals:
            versions[canonicalize_name(name.strip())] = version.strip()
    queue = [each for each in map(Requirement, wanted) if canonicalize_name(each.name) not in WITHOUT[image]]
    found: dict[str, set[str]] = {}
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name not in versions or extras <= found.get(name, set()):
            continue
        found[name] = found.get(name, set()) | extras
        try:
            further = [Requirement(each) for each in requires(name) or []]
        except PackageNotFoundError:
            continue
        queue += [
            each
            for each in further
            if each.marker is None or any(each.marker.evaluate({**PLATFORM, "extra": extra}) for extra in extras)
        ]
    return [f"{name}=={versions[name]}" for name in sorted(found)]


def with_hashes(pins: list[str]) -> dict[str, list[str]]:
    """Hashes of these and of what they need beside them, by `name==version`, from the package index."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not here, which asks the package index for hashes: make lock installs it")
    system = ["--python-version", PLATFORM["python_version"], "--python-platform", "x86_64-manylinux_2_28"]
    form = ["--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet"]
    done = subprocess.run(  # noqa: S603
        [uv, "pip", "compile", "-", *system, *form], input="\n".join(pins), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"uv pip compile: {done.stderr.strip()}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.replace("\\\n", " ").splitlines():
        pin, *hashes = line.split()
        found[pin] = hashes
    return found


def text_of(pins: list[str], hashes: dict[str, list[str]]) -> str:
    """A lock file."""
    lines = []
    for pin in pins:
        own = [f"--hash=sha256:{each}" for each in CPU_BUILDS.get(pin, ())]
        lines.append(" \\\n    ".join([pin, *hashes[pin], *own]))
    return HEAD + "\n".join(lines) + "\n"


def pinned(path: Path) -> list[str]:
    """The lines `name==version` of a lock file, none if one lacks its hashes."""
    if not path.is_file():
        return []
    lines = path.read_text().removeprefix(HEAD).replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines]
    whole = all(rest and all(HASH.fullmatch(each) for each in rest) for _, *rest in words)
    return [pin for pin, *_ in words] if whole else []


def main() -> int:
    """Write the locks, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    check = parser.parse_args().check
    paths = {image: ROOT / "docker" / image / "requirements.lock" for image in WITHOUT}
    wanted = {image: locked(image) for image in WITHOUT}
    if missing := [pin for pin in wanted["train"] if pin.startswith("torch==") and pin not in CPU_BUILDS]:
        raise SystemExit(f"docker/lock.py: CPU_BUILDS has no line for {missing[0]}")
    if check:
        stale = [path.relative_to(ROOT) for image, path in paths.items() if pinned(path) != wanted[image]]
        if not pinned(ROOT / "docker" / "train" / CUDA):
            stale.append(Path("docker", "train", CUDA))
        if stale:
            sys.stderr.write(f"stale: {', '.join(map(str, stale))}; run `make lock` and commit the result\n")
        return 1 if stale else 0
    hashes = with_hashes(sorted({pin for pins in wanted.values() for pin in pins}))
    for image, path in paths.items():
        path.write_text(text_of(wanted[image], hashes))
    cuda = sorted(set(hashes) - set(wanted["train"]) - set(wanted["data"]))
    (ROOT / "docker" / "train" / CUDA).write_text(text_of(cuda, hashes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
