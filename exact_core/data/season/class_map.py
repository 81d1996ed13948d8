"""Which crop codes make which class: names, groups and colours.

    labels/legend.csv    code,name[,group][,colour]
                         1200,grain maize,maize,#e0a030
                         1210,fodder maize,maize,

A code is what stands in a label raster (a whole number) or in the attribute of parcels (a whole number or text). Codes
of one name are one class; with `data.season.level: group`, codes of one group are, and a code without a group keeps its
name.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exact_core.config import SeasonConfig
from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["ClassMap", "Code", "meant", "read_class_map"]

Code = int | str
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
LARGEST = -int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class ClassMap:
    """Names of codes.

    names: code -> class, the codes whole numbers or all text. colours: class -> #rrggbb, of those that have one. where:
    what messages call it.
    """

    names: Mapping[Code, str]
    colours: Mapping[str, str]
    where: str

    @property
    def is_text(self) -> bool:
        """Whether codes are text."""
        return any(isinstance(code, str) for code in self.names)

    def number(self, value: Any, *, where: str, void: Sequence[Code] = ()) -> int:
        """The whole number that stands for a parcel's code: itself, or the place of a text code, from 1.

        Args:
            value: as the attribute has it.
            where: named in messages.
            void: codes whose truth is unknown; text among them gets numbers below 0.

        Raises:
            DataError: neither a whole number nor a text code of the map.
        """
        if not self.is_text:
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = float("nan")
            if not number.is_integer() or abs(number) >= LARGEST:
                raise DataError(
                    f"{where} is {value}; expected a whole number, as {self.where} has them; name text codes there, or "
                    f"give such parcels a code of their own"
                )
            return int(number)
        text = "" if value is None else str(value).strip()
        known = [str(code) for code in self.names]
        if text in known:
            return known.index(text) + 1
        unknown = [str(code) for code in void]
        if text in unknown:
            return -1 - unknown.index(text)
        raise DataError(
            f"{where} is {value!r}, which is in neither {self.where} nor data.season.void_codes{meant(text, known)}; "
            f"name it there"
        )

    def numbered(self, void: Sequence[Code] = ()) -> tuple[dict[int, str], list[int]]:
        """Names by the numbers that `number` gives, and the numbers of the void codes.

        Raises:
            DataError: text among the void codes of a map of numbers, or the reverse.
        """
        if self.is_text:
            return dict(enumerate(self.names.values(), 1)), [-1 - place for place in range(len(void))]
        wrong = [code for code in void if isinstance(code, str)]
        if wrong:
            raise DataError(f"data.season.void_codes: {wrong[0]!r} is text, but the codes of {self.where} are numbers")
        return {int(code): name for code, name in self.names.items()}, [int(code) for code in void]


def meant(text: str, known: Iterable[str]) -> str:
    """' (did you mean …?)' if something alike is known, whatever the case of its letters."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


def read_class_map(folder: Path, settings: SeasonConfig) -> ClassMap:
    """The class map of a source: `data.season.classes`, or else labels/legend.csv.

    Raises:
        DataError: no such file, or a wrong line in it.
    """
    if settings.classes is not None:
        return ClassMap(_alike(settings.classes), {}, "data.season.classes")
    path = folder / "labels" / "legend.csv"
    rows = _rows(path)
    names: dict[str, str] = {}
    colours: dict[str, str] = {}
    for where, row in rows:
        code, name = row["code"], row["name"]
        if not code:
            raise DataError(f"{where}: no code; expected for example 1200,maize")
        if not name:
            raise DataError(f"{where}: code {code} has no name; expected for example 1200,maize")
        if code in names:
            raise DataError(f"{where}: code {code} stands here a second time; name each code once")
        names[code] = (row.get("group") or name) if settings.level == "group" else name
        colour = row.get("colour") or row.get("color") or ""
        if colour and not _COLOUR.fullmatch(colour):
            raise DataError(f"{where}: colour {colour!r}; expected #rrggbb, for example #e0a030")
        # Of a class of several codes, the first colour counts.
        if colour:
            colours.setdefault(names[code], colour.lower())
    return ClassMap(_alike(names), colours, str(path))


def _alike(names: Mapping[Any, str]) -> dict[Code, str]:
    """Whole numbers where all codes are, else all text."""
    whole = all(re.fullmatch(r"[+-]?\d+", str(code), re.ASCII) for code in names)
    return {(int(code) if whole else str(code)): name for code, name in names.items()}


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Lines of a legend, each with its place."""
    if not path.is_file():
        raise DataError(f"{path}: missing; write code,name lines there, or name the classes by data.season.classes")
    text = read_table_text(path)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"code", "name"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path}, line 1: columns {rows.fieldnames}; expected the header code,name")
        return [
            (
                f"{path}, line {rows.line_num}",
                {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
            )
            for row in rows
        ]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}; write code,name lines there") from error
