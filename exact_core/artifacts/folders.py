"""What the folders of all artifacts share: each is written once, by a known version of the code."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import exact_core
from exact_core.environment import STATE_VARIABLE
from exact_core.errors import DataError

__all__ = ["STATE_VARIABLE", "code_version", "fresh_folder"]


@functools.cache
def code_version() -> str:
    """Package version and a digest of its sources: two runs with one code version ran the same code."""
    package = Path(exact_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{exact_core.__version__}+{digest.hexdigest()[:10]}"


def fresh_folder(out: Path, manifest: str) -> Path:
    """An output folder ready to be written.

    Raises:
        DataError: it holds a finished result, which is not overwritten.
    """
    if (out / manifest).exists():
        raise DataError(f"{out} already holds a finished result ({manifest}). Choose another folder or delete this one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot write there: {error}. Choose another folder") from error
    return out
