"""Write what each image is made of as CycloneDX: `python docker/sbom.py [--network NAME] [data] [train]`.

In a container of the image, which is thrown away, the Python packages are listed by CycloneDX's own program for Python,
with the licences that they state; Debian's are those that dpkg knows. build/sbom/REFERENCE.cdx.json holds both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any
from urllib.parse import quote

from build import IMAGES, ROOT, locked_reference

TOOL = "cyclonedx-bom==7.5.0"
LISTING = f"""
set -e
/usr/bin/env -u PYTHONDONTWRITEBYTECODE PATH="${{PATH#/opt/venv/bin:}}" python3 -m venv /tmp/tool
/tmp/tool/bin/pip install --quiet --disable-pip-version-check --no-cache-dir {TOOL} >&2
/tmp/tool/bin/cyclonedx-py environment --output-reproducible --output-file /tmp/sbom /opt/venv/bin/python >&2
tr -d '\\n' </tmp/sbom
echo
dpkg-query --show --showformat '${{Package}} ${{Version}} ${{Architecture}}\\n'
"""


def main() -> int:
    """Write a file an image; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", nargs="*", choices=[*IMAGES, []], help="default: all")
    parser.add_argument("--network", help="network of the container, as Docker names it")
    given = parser.parse_args()
    folder = ROOT / "build" / "sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for name in given.images or IMAGES:
        reference = locked_reference(IMAGES[name])
        path = folder / f"{reference.rpartition('/')[2].replace(':', '-')}.cdx.json"
        path.write_text(json.dumps(bill_of(reference, network=given.network), indent=1) + "\n")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


def bill_of(reference: str, *, network: str | None) -> dict[str, Any]:
    """The CycloneDX document of an image."""
    command = ["docker", "run", "--rm", *(["--network", network] if network else []), reference, "sh", "-c", LISTING]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{reference}: its packages could not be listed; make images builds it")
    python, *debian = done.stdout.splitlines()
    bill: dict[str, Any] = json.loads(python)
    name, _, version = reference.rpartition(":")
    bill.setdefault("metadata", {})["component"] = {
        "type": "container",
        "name": name,
        "version": version,
        "bom-ref": reference,
    }
    for package, version, architecture in map(str.split, debian):
        purl = f"pkg:deb/debian/{quote(package)}@{quote(version)}?arch={architecture}"
        bill["components"].append(
            {"type": "library", "name": package, "version": version, "purl": purl, "bom-ref": purl}
        )
    return bill


if __name__ == "__main__":
    sys.exit(main())
