"""The container image of each component, read from `components/images.lock`.

`EXACT_IMAGE` sets one image for all components at compile time. `EXACT_REGISTRY` is put before the names in the lock
file, for a cluster with its own registry.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from exact_core.errors import ConfigError

LOCK = Path(__file__).parent / "images.lock"

DATA = "exact-data"
"""The image for ingestion, without torch."""
TRAIN = "exact-train"
"""The image for training and inference, with torch."""
IMAGES = {"data": DATA, "train": TRAIN}
"""Names in the lock file by the `image` of a stage."""

REFERENCE = re.compile(
    r"[a-z0-9][a-z0-9./_-]*(?::(?P<port>\d+)/[a-z0-9./_-]+)?(?::(?P<tag>[\w][\w.-]*))?(?:@sha256:[0-9a-f]{64})?"
)


def locked_images(lock: Path = LOCK) -> dict[str, str]:
    """Image references by name.

    Raises:
        ConfigError: The file does not exist, or a line is not `NAME REFERENCE` with an exact tag or digest.
    """
    if not lock.is_file():
        raise ConfigError(f"{lock} is missing: it names the images. Restore it from the repository")
    images: dict[str, str] = {}
    for number, line in enumerate(lock.read_text().splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] in images:
            raise ConfigError(f"{lock}:{number}: {line!r} is not one new NAME and its REFERENCE")
        images[words[0]] = words[1]
        check_pinned(words[1], where=f"{lock}:{number}")
    return images


def check_pinned(reference: str, *, where: str) -> None:
    """Raise ConfigError unless the reference has an exact tag or a digest."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(f"{where}: {reference!r} is not an image reference")
    if "@sha256:" not in reference and match["tag"] in (None, "latest"):
        raise ConfigError(f"{where}: {reference!r} moves. Give it an exact tag or a digest")


def image(name: str = TRAIN) -> str:
    """Full reference of a component's image. The default image can run every stage.

    Raises:
        ConfigError: The lock file has no image of that name.
    """
    override = os.environ.get("EXACT_IMAGE")
    if override:
        return override
    images = locked_images()
    if name not in images:
        raise ConfigError(f"no image {name!r} in {LOCK}; it has {', '.join(sorted(images))}")
    registry = os.environ.get("EXACT_REGISTRY", "").rstrip("/")
    return f"{registry}/{images[name]}" if registry else images[name]
