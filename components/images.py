"""Which image a component runs in. `EXACT_IMAGE` names another one at compile time."""

from __future__ import annotations

import os

from exact_core import __version__

DEFAULT_IMAGE = f"exact-python:{__version__}"
"""The name holds "python" because KFP warns about images that might lack it."""


def image() -> str:
    """Full reference of the image that holds exact_core and kfp."""
    return os.environ.get("EXACT_IMAGE", DEFAULT_IMAGE)
