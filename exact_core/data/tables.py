"""Tables as spreadsheets of any country write them: apart by comma, semicolon or tab, with decimal point or comma."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["Table", "number_of", "read_table"]


@dataclass(frozen=True)
class Table:
    """A table.

    separator: between cells. header: names, lower case. rows: position of a row for messages, and as many cells as it
    has, without blanks around them.
    """

    path: Path
    separator: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def read_table(path: Path) -> Table:
    """Read a table of text cells. Empty lines are passed over.

    Raises:
        DataError: it cannot be read.
    """
    try:
        text = read_table_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}. Give a table (.csv)") from error
    first = text.partition("\n")[0]
    separator = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
    with _readable(path):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = tuple(name.strip().lower() for name in next(lines, []))
        rows = [
            (f"{path}, line {lines.line_num}", tuple(cell.strip() for cell in cells))
            for cells in lines
            if any(cell.strip() for cell in cells)
        ]
    return Table(path, separator, header, tuple(rows))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}. Save it as CSV again") from error


def number_of(text: str, where: str) -> float:
    """A number with a decimal point or a decimal comma.

    Raises:
        DataError: text of another form, or one that is not finite.
    """
    plain = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        value = float(plain)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where} {text!r} is not a number. Write one, as 3.0214")
    return value
