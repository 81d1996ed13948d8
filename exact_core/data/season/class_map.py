"""Which crop codes make which class: names, groups and colours.

    labels/legend.csv    code,name[,group][,colour]
                         1200,grain maize,maize,#e0a030
                         1210,fodder maize,maize,

A code is the value in a label raster (a whole number) or in the attribute of parcels (a whole number or text), of any
length. Codes that are text, or do not fit in 32 bits, are numbered by their position in the map. Codes with the same
name are one class. With `data.season.level: group`, codes of one group are one class, and a code without a group keeps
its name.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from exact_core.config import SeasonConfig
from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["ClassMap", "Code", "is_missing", "meant", "misread", "read_class_map"]

Code = int | str
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LEGENDS = Path(__file__).parent / "legends"
"""Built-in legends. hcat: codes of HCAT 3 (EuroCrops; Schneider et al. 2023, doi 10.1038/s41597-023-02517-0), checked
against github.com/maja601/EuroCrops at b4331ad; their choice, names and groups are this package's own."""
LARGEST = -int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class ClassMap:
    """Names of codes.

    names: code -> class, the codes whole numbers or all text. colours: class -> #rrggbb, of those that have one. where:
    its name in messages. nested: a code without a name counts as the nearest above it, whose last digits are 0.
    """

    names: Mapping[Code, str]
    colours: Mapping[str, str]
    where: str
    nested: bool = False

    @cached_property
    def text(self) -> str | None:
        """The first code that is no number, if there is one: then all are text."""
        return next((str(code) for code in self.names if not _WHOLE.fullmatch(str(code))), None)

    @cached_property
    def by_place(self) -> bool:
        """Whether codes are numbered by their position in the map, as text and numbers beyond 32 bits are."""
        return self.text is not None or any(abs(int(code)) >= LARGEST for code in self.names)

    @cached_property
    def _places(self) -> dict[Code, int]:
        return {code: place for place, code in enumerate(self.names, 1)}

    def number(self, value: Any, *, where: str, void: Sequence[Code] = ()) -> int:
        """The whole number of a parcel's code: itself, or its position in the map, from 1.

        Args:
            value: as the attribute has it.
            where: named in messages.
            void: codes whose truth is unknown; in a map by positions they get numbers below 0.

        Raises:
            DataError: neither a whole number nor a code of a map by positions.
        """
        if is_missing(value):
            raise DataError(
                f"{where} is empty. Give the parcel a code, or say by data.season.missing_code what such parcels are"
            )
        code: Code = str(value).strip() if self.text is not None else self._whole(value, where)
        if not self.by_place or code == 0:
            return int(code)
        unknown = self._alike(void)
        for digits in (0, 2, 4, 6, 8) if self.nested else (0,):
            above = int(code) // 10**digits * 10**digits if digits else code
            if above in unknown:
                return -1 - unknown.index(above)
            if above in self._places:
                return self._places[above]
        known = [str(each) for each in self.names]
        raise DataError(
            f"{where} is {code!r}, which is in neither {self.where} nor data.season.void_codes"
            f"{misread(str(code), known) or meant(str(code), known)}. Name it there"
        )

    def _whole(self, value: Any, where: str) -> int:
        """A whole number, however it is written: digits are not sent through a float, which rounds long ones."""
        if isinstance(value, str):
            text = value.strip()
            value = int(text) if _WHOLE.fullmatch(text) else _float(text)
        whole = int(value) if isinstance(value, int) or math.isfinite(value) else LARGEST
        fits = whole == value and (self.by_place or abs(whole) < LARGEST - 2)
        if not fits:
            raise DataError(
                f"{where} is {value}, expected a whole number, as {self.where} has them (up to {LARGEST - 3:,} unless "
                f"one of those is larger). Name text codes there, or give such parcels a code of their own"
            )
        return whole

    def numbered(self, void: Sequence[Code] = ()) -> tuple[dict[int, str], list[int]]:
        """Names by the numbers that `number` gives, and the numbers of the void codes.

        Raises:
            DataError: text among the void codes of a map of numbers, or the reverse.
        """
        codes = self._alike(void)
        if self.by_place:
            places = {place if code else 0: self.names[code] for code, place in self._places.items()}
            return places, [-1 - place for place in range(len(codes))]
        return {int(code): name for code, name in self.names.items()}, [int(code) for code in codes]

    def _alike(self, codes: Sequence[Code]) -> list[Code]:
        """Codes of the settings in the form of the map's; '' is no code, and `missing_code` covers it."""
        codes = [code for code in codes if str(code).strip()]
        if self.text is not None:
            return [str(code) for code in codes]
        wrong = [code for code in codes if not _WHOLE.fullmatch(str(code))]
        if wrong:
            raise DataError(f"data.season.void_codes: {wrong[0]!r} is text, but the codes of {self.where} are numbers")
        return [int(code) for code in codes]


def _float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return math.nan


def is_missing(value: Any) -> bool:
    """Whether an attribute says nothing: null, not a number, or empty text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def misread(text: str, known: Iterable[str]) -> str:
    """A hint if something that is known is what the text is when its bytes are read as UTF-8; else nothing."""
    for encoding in ("cp1252", "latin-1"):
        try:
            true = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if true != text and true in known:
            return f", but {true!r} is: the file is in UTF-8 and says otherwise. Write UTF-8 into the .cpg beside it"
    return ""


def meant(text: str, known: Iterable[str]) -> str:
    """' (did you mean …?)' if a similar name is known, ignoring case."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


def read_class_map(folder: Path, settings: SeasonConfig) -> ClassMap:
    """The class map of a source: `data.season.classes`, or else `data.season.legend`, or labels/legend.csv.

    Raises:
        DataError: no such file, or a wrong line in it.
    """
    if settings.classes is not None:
        return ClassMap(_alike(settings.classes), {}, "data.season.classes")
    path = folder / "labels" / "legend.csv" if settings.legend is None else LEGENDS / f"{settings.legend}.csv"
    rows = _rows(path)
    names: dict[str, str] = {}
    colours: dict[str, str] = {}
    for where, row in rows:
        code, name = row["code"], row["name"]
        if not code:
            raise DataError(f"{where}: no code, expected for example 1200,maize")
        if not name:
            raise DataError(f"{where}: code {code} has no name, expected for example 1200,maize")
        if code in names:
            raise DataError(f"{where}: code {code} stands here a second time. Name each code once")
        names[code] = (row.get("group") or name) if settings.level == "group" else name
        colour = row.get("colour") or row.get("color") or ""
        if colour and not _COLOUR.fullmatch(colour):
            raise DataError(f"{where}: colour {colour!r}, expected #rrggbb, for example #e0a030")
        # Of a class of several codes, the first colour counts.
        if colour:
            colours.setdefault(names[code], colour.lower())
    where = str(path) if settings.legend is None else f"the legend {settings.legend}"
    return ClassMap(_alike(names), colours, where, nested=settings.legend is not None)


def _alike(names: Mapping[Any, str]) -> dict[Code, str]:
    """Whole numbers where all codes are, else all text."""
    whole = all(_WHOLE.fullmatch(str(code)) for code in names)
    return {(int(code) if whole else str(code)): name for code, name in names.items()}


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Lines of a legend, each with its position for messages."""
    if not path.is_file():
        raise DataError(f"{path}: missing. Write code,name lines there, or name the classes by data.season.classes")
    text = read_table_text(path)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"code", "name"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path}, line 1: columns {rows.fieldnames}, expected the header code,name")
        return [
            (
                f"{path}, line {rows.line_num}",
                {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
            )
            for row in rows
        ]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}. Write code,name lines there") from error
