"""Which crop codes make which class.

A code is the value in a label raster (a whole number) or in the attribute of parcels (a whole number or text), of any
length. Codes that are text, or do not fit in 32 bits, are numbered by their position in the map. Codes with the same
name are one class. `exact_core.data.season.legends` reads maps.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exact_core.errors import DataError

__all__ = ["ClassMap", "Code", "UnlistedCodeError", "alike", "is_missing", "meant", "misread"]

Code = int | str
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LARGEST = -int(np.iinfo(np.int32).min)


class UnlistedCodeError(DataError):
    """A code that a class map does not name."""


@dataclass(frozen=True)
class ClassMap:
    """Names of codes.

    names: code -> class, the codes whole numbers or all text. colours: class -> #rrggbb, of those that have one. where:
    its name in messages. void: codes whose truth is unknown, as the map itself says. levels: a code without a name
    counts as the nearest above it, whose last digits (this many) are 0. national: a country's table, whose codes are
    all text, numbers or names.
    """

    names: Mapping[Code, str]
    colours: Mapping[str, str]
    where: str
    void: tuple[Code, ...] = ()
    levels: tuple[int, ...] = ()
    national: bool = False

    @cached_property
    def text(self) -> str | None:
        """A code that is text, if all are: the first that is no number, if there is one."""
        texts = [code for code in self.names if isinstance(code, str)]
        return next((code for code in texts if not _WHOLE.fullmatch(code)), texts[0] if texts else None)

    @cached_property
    def by_place(self) -> bool:
        """Whether codes stand for their place in the map, as text and numbers beyond 32 bits do."""
        return self.text is not None or any(abs(int(code)) >= LARGEST for code in self.names)

    @cached_property
    def _places(self) -> dict[Code, int]:
        return {code: place for place, code in enumerate(self.names, 1)}

    @cached_property
    def _written(self) -> dict[str, str]:
        """Text codes of digits by their value: a layer may write 014, or 14.0, where a table has 14."""
        return {str(int(code)): str(code) for code in (*self.void, *self.names) if _WHOLE.fullmatch(str(code))}

    def number(self, value: Any, *, where: str, void: Sequence[Code] = ()) -> int:
        """The whole number of a parcel's code: itself, or its position in the map, from 1.

        Args:
            value: as the attribute has it.
            where: named in messages.
            void: codes whose truth is unknown besides those of the map. In a map by positions they get numbers below 0.

        Raises:
            DataError: no whole number.
            UnlistedCodeError: no code of a map by positions.
        """
        if is_missing(value):
            raise DataError(
                f"{where} is empty. Give the parcel a code, or say by data.season.missing_code what such parcels are"
            )
        unknown = self._unknown(void)
        code: Code = self._text(value, unknown) if self.text is not None else self._whole(value, where)
        if not self.by_place or code == 0:
            return int(code)
        for digits in (0, *self.levels):
            above = int(code) // 10**digits * 10**digits if digits else code
            if above in unknown:
                return -1 - unknown.index(above)
            if above in self._places:
                return self._places[above]
        known = [str(each) for each in self.names]
        raise UnlistedCodeError(
            f"{where} is {code!r}, which is in neither {self.where} nor data.season.void_codes"
            f"{misread(str(code), known) or meant(str(code), known)}. Name it there"
        )

    def _text(self, value: Any, unknown: Sequence[Code]) -> str:
        """A code as the map writes it."""
        text = str(value).strip()
        whole = re.fullmatch(r"([+-]?\d+)(\.0+)?", text, re.ASCII)
        if text in self.names or text in unknown or whole is None:
            return text
        return self._written.get(str(int(whole[1])), text)

    def _whole(self, value: Any, where: str) -> int:
        """A whole number, however it is written: digits are not sent through a float, which rounds long ones."""
        given = value
        if isinstance(value, str):
            # WorldCereal writes its codes with and without dashes: 11-01-01-001-1.
            text = value.strip().replace("-", "") if self.levels else value.strip()
            value = int(text) if _WHOLE.fullmatch(text) else _float(text)
        elif not isinstance(value, int):
            # A date, for one, is no number.
            value = _float(value)
        whole = int(value) if isinstance(value, int) or math.isfinite(value) else LARGEST
        fits = whole == value and (self.by_place or abs(whole) < LARGEST - 2)
        if not fits:
            raise DataError(
                f"{where} is {given}, expected a whole number, as {self.where} has them (up to {LARGEST - 3:,} unless "
                f"one of those is larger). Name text codes there, or give such parcels a code of their own"
            )
        return whole

    def numbered(self, void: Sequence[Code] = ()) -> tuple[dict[int, str], list[int]]:
        """Names by the numbers that `number` gives, and the numbers of the void codes. 0 is land in no parcel.

        Raises:
            DataError: text among the void codes of a map of numbers, or the reverse.
        """
        codes = self._unknown(void)
        if self.by_place:
            places = {place if code else 0: self.names[code] for code, place in self._places.items()}
            # Land in no parcel has the number 0 in these maps too.
            return places, [-1 - place for place in range(len(codes))] + [0] * any(str(code) == "0" for code in void)
        return {int(code): name for code, name in self.names.items()}, [int(code) for code in codes]

    def _unknown(self, codes: Sequence[Code]) -> list[Code]:
        """Void codes of map and settings, as those of the map are; '' is none, but what `missing_code` speaks of."""
        codes = [*self.void, *(code for code in codes if str(code).strip())]
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
    """A hint if something that is known is what the text is when its bytes are read as UTF-8. Else nothing."""
    for encoding in ("cp1252", "latin-1"):
        try:
            true = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if true != text and true in known:
            return f", but {true!r} is: the file is in UTF-8 and says otherwise. Write UTF-8 into the .cpg beside it"
    return ""


def meant(text: str, known: Iterable[str]) -> str:
    """' (did you mean …?)' if something alike is known, whatever the case of its letters."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


def alike(codes: Iterable[Any]) -> dict[Any, Code]:
    """Codes as a map has them, by what they were: whole numbers where all are, else all text."""
    found = list(codes)
    whole = all(_WHOLE.fullmatch(str(code)) for code in found)
    return {code: int(code) if whole else str(code) for code in found}
