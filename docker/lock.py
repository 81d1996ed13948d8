"""Write the locked dependencies of the images: `python docker/lock.py [--check]`.

A lock holds what an image's own requirements (pyproject.toml) lead to, at the versions of constraints.txt, which are
those that the tests ran with. What constraints.txt does not name is CUDA, which the GPU build of torch pins itself.
"""

from __future__ import annotations

import argparse
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


def main() -> int:
    """Write the locks, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    check = parser.parse_args().check
    stale = []
    for image in WITHOUT:
        path = ROOT / "docker" / image / "requirements.lock"
        head = "# Made by `make lock` from pyproject.toml and constraints.txt.\n"
        text = head + "\n".join(locked(image)) + "\n"
        if not check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make lock` and commit the result\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
