"""Products in .zip archives, as Copernicus delivers them, read without unpacking.

A file in an archive is named by a path through it: SEASON/S2A_….SAFE.zip/S2A_….SAFE/GRANULE/…/T31UDS_…_B02_10m.jp2.
Such a path sorts, compares and is printed as any other. `for_gdal` opens it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from exact_core.errors import DataError

__all__ = ["for_gdal", "list_archive", "modified", "size_of"]

SUFFIX = ".zip"
DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError)
"""What zipfile raises over damaged archives: also over versions that there are not, and names in no encoding."""


def list_archive(archive: Path) -> list[PurePosixPath]:
    """Paths of the files in an archive, sorted.

    Raises:
        DataError: it is damaged, or no archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(entry.filename for entry in opened.infolist() if not entry.is_dir())
    except DAMAGED as error:
        raise DataError(
            f"{archive}: damaged or no .zip archive: {error}. Download it again, or take it away with its date"
        ) from error
    except OSError as error:
        raise DataError(f"{archive}: not a readable file: {error.strerror or error}. Download it again") from error
    return [PurePosixPath(name) for name in names]


def for_gdal(path: Path) -> Path | str:
    """The name by which GDAL opens a file, in an archive or not."""
    found = _split(path)
    # In braces, the archive may have any name.
    return path if found is None else f"/vsizip/{{{found[0].resolve()}}}/{found[1]}"


def size_of(path: Path) -> int:
    """Bytes of a file. For a file in an archive, its unpacked size."""
    found = _split(path)
    return path.stat().st_size if found is None else _entry(*found).file_size


def modified(path: Path) -> int:
    """When a file, or the archive that it is in, was last changed, in ns."""
    found = _split(path)
    return (path if found is None else found[0]).stat().st_mtime_ns


def _split(path: Path) -> tuple[Path, PurePosixPath] | None:
    """Archive and path in it. None for an ordinary file."""
    for above in path.parents:
        # A folder may be called anything.
        if above.suffix.lower() == SUFFIX and above.is_file():
            return above, PurePosixPath(path.relative_to(above).as_posix())
    return None


def _entry(archive: Path, name: PurePosixPath) -> zipfile.ZipInfo:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.getinfo(str(name))
    except (*DAMAGED, KeyError, OSError) as error:
        raise DataError(f"{archive / name}: not a file in a readable .zip archive: {error}") from error
