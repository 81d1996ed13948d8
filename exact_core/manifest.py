"""The JSON files that say what a folder holds: written last, with their own checksum, and checked when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from exact_core.config import Settings, describe
from exact_core.errors import CorruptError, DataError
from exact_core.files import checked, checked_text, publish_checked, publish_text, with_checksum
from exact_core.json_values import read_json
from exact_core.undefined import to_json

__all__ = ["Manifest", "publish_record", "read_record"]


class Manifest(Settings):
    """A manifest whose keys are known; docs/data-format.md specifies `checksum`."""

    checksum: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of this file with 64 zeros in its place; empty in files of older versions",
    )

    def write(self, path: Path) -> None:
        """Write it, with its checksum.

        Raises:
            ServiceError: it cannot be written.
        """
        publish_text(path, self.text())

    def text(self) -> str:
        """What `write` writes."""
        return with_checksum(self.model_copy(update={"checksum": ""}).model_dump_json(indent=2))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What is in a file.

        Raises:
            CorruptError: it is not what was written.
            DataError: this version does not read it.
        """
        try:
            return cls.parse(path.read_bytes(), where=str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """What is in the bytes of a file. See `read`."""
        try:
            found = cls.model_validate_json(checked(content, where=where))
        except ValidationError as error:
            raise DataError(describe(error, where=where, model=cls)) from error
        # It is of the file, not of what the file says: two that say the same are equal.
        return found.model_copy(update={"checksum": ""})


def publish_record(path: Path, record: dict[str, Any]) -> None:
    """Write a mapping as JSON, with its checksum. A number that is not finite is null.

    Raises:
        ServiceError: it cannot be written.
    """
    publish_checked(path, to_json({**record, "checksum": ""}))


def read_record(path: Path) -> dict[str, Any]:
    """A mapping that `publish_record`, or an older version without a checksum, wrote.

    Raises:
        CorruptError: it is not what was written.
        DataError: it cannot be read.
    """
    try:
        record = read_json(checked_text(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CorruptError(f"{path}: corrupt: not JSON: {error}. Put a copy back, or make it again") from error
    if not isinstance(record, dict):
        raise CorruptError(f"{path}: corrupt: not a mapping. Put a copy back, or make it again")
    record.pop("checksum", None)
    return record
