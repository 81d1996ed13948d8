"""Build the images that components/images.lock names: `python docker/build.py [--push REGISTRY] [data] [train]`.

Needs nothing but Python and Docker. Tags: the version, as the lock has it, and the version with a digest of the
sources; the digest is a label too.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {"data": "exact-data", "train": "exact-train"}


def main() -> int:
    """Build, and push where asked to; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", nargs="*", choices=[*IMAGES, []], help="default: all")
    parser.add_argument("--base", help="image to build on; default: that of the Dockerfile")
    parser.add_argument("--push", metavar="REGISTRY", help="tag for this registry too, and push there")
    parser.add_argument("--network", help="network of the build, as Docker names it")
    given = parser.parse_args()
    version = re.search(r'__version__ = "(.+)"', (ROOT / "exact_core" / "__init__.py").read_text())
    if version is None:
        raise SystemExit("exact_core/__init__.py names no version")
    for name in given.images or IMAGES:
        reference = locked_reference(IMAGES[name])
        references = [reference, f"{reference}-{_revision()}"]
        command = ["docker", "build", "--file", "docker/Dockerfile", "--build-arg", f"IMAGE={name}"]
        command += [word for each in references for word in ("--tag", each)]
        arguments = {"VERSION": version[1], "REVISION": _revision(), "REFERENCE": reference, "BASE_IMAGE": given.base}
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"] if value else []
        command += ["--network", given.network] if given.network else []
        _docker([*command, "."])
        for each in references:
            if given.push:
                _docker(["docker", "tag", each, f"{given.push}/{each}"])
                _docker(["docker", "push", f"{given.push}/{each}"])
            sys.stdout.write(f"{each}\n")
    return 0


def locked_reference(name: str) -> str:
    """What components/images.lock has for an image."""
    for line in (ROOT / "components" / "images.lock").read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:1] == [name]:
            return words[1]
    raise SystemExit(f"components/images.lock has no image {name}")


def _revision() -> str:
    """What `exact_core.artifacts.folders.code_version` says of these sources."""
    digest = hashlib.sha256()
    package = ROOT / "exact_core"
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:10]


def _docker(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
