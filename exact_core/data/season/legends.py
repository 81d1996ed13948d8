"""Legends: tables that give crop codes names, groups and colours.

    labels/legend.csv    code,name[,group][,colour]
                         1200,grain maize,maize,#e0a030
                         1210,fodder maize,maize,
                         9999,void,

With `data.season.level: group`, codes of one group are one class, and a code without a group keeps its name. The name
`void` says that the truth is unknown. A table in the layout of EuroCrops' country mappings (columns original_code or
original_name, and HCAT3_code) is a legend too: its codes have the names and groups of HCAT.

`data.season.legend` names another table: a file, or one of those in legends/, whose README has sources and licences.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exact_core.config import SeasonConfig
from exact_core.data.season.class_map import ClassMap, Code, alike
from exact_core.errors import DataError
from exact_core.files import read_table_text

__all__ = ["SHIPPED", "national_codes", "read_class_map", "read_lines"]

SHIPPED = Path(__file__).parent / "legends"
LEVELS = {"hcat": (2, 4, 6, 8), "worldcereal": (1, 4, 6, 8)}
"""Last digits that are 0 in the codes above a code: HCAT has five levels of two digits (and EuroCrops' zeros at the
end), WorldCereal's ewoc_code has 2 + 2 + 2 + 3 + 1."""
NATIONAL = "eurocrops"
VOID_NAME = "void"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class _Line:
    """A line of a legend. where: file and line, for messages."""

    where: str
    cells: dict[str, str]


def read_class_map(folder: Path, settings: SeasonConfig) -> ClassMap:
    """The class map of a source: `data.season.classes`, or else `data.season.legend`, or labels/legend.csv.

    Raises:
        DataError: no such file or legend, or a wrong line in it.
    """
    if settings.classes is not None:
        codes = alike(settings.classes)
        return ClassMap({codes[code]: name for code, name in settings.classes.items()}, {}, "data.season.classes")
    legend = settings.legend
    if legend in LEVELS:
        return _own(read_lines(SHIPPED / f"{legend}.csv"), settings, f"the legend {legend}", levels=LEVELS[legend])
    if legend is not None and legend.partition(":")[0] == NATIONAL:
        return _national(_table(legend), settings, f"the legend {legend}")
    path = folder / (legend or "labels/legend.csv")
    if not path.is_file():
        if legend is None:
            raise DataError(f"{path}: missing. Write code,name lines there, or name the classes by data.season.classes")
        raise DataError(
            f"data.season.legend is {legend!r}, and {path} is not there. Name a file, {', '.join(LEVELS)}, or "
            f"{NATIONAL}:TABLE ({', '.join(_tables())})"
        )
    lines = read_lines(path)
    if lines and "HCAT3_code" in lines[0].cells:
        return _national(lines, settings, str(path))
    return _own(lines, settings, str(path))


def _own(lines: Sequence[_Line], settings: SeasonConfig, where: str, levels: tuple[int, ...] = ()) -> ClassMap:
    """The map of a table of code,name."""
    names: dict[str, str] = {}
    colours: dict[str, str] = {}
    for line in lines:
        code, name = line.cells["code"], line.cells["name"]
        if not code:
            raise DataError(f"{line.where}: no code, expected for example 1200,maize")
        if not name:
            raise DataError(f"{line.where}: code {code} has no name, expected for example 1200,maize")
        if code in names:
            raise DataError(f"{line.where}: code {code} stands here a second time. Name each code once")
        names[code] = (line.cells.get("group") or name) if settings.level == "group" and name != VOID_NAME else name
        colour = line.cells.get("colour") or line.cells.get("color") or ""
        if colour and not _COLOUR.fullmatch(colour):
            raise DataError(f"{line.where}: colour {colour!r}, expected #rrggbb, for example #e0a030")
        # Of a class of several codes, the first colour counts.
        if colour:
            colours.setdefault(names[code], colour.lower())
    codes = alike(names)
    void = tuple(codes[code] for code, name in names.items() if name == VOID_NAME)
    return ClassMap(
        {codes[code]: name for code, name in names.items() if name != VOID_NAME}, colours, where, void, levels
    )


def _national(lines: Sequence[_Line], settings: SeasonConfig, where: str) -> ClassMap:
    """The map of a table of national codes and what they are in HCAT. Codes are text: 0 is one of them in some."""
    hcat = _own(read_lines(SHIPPED / "hcat.csv"), settings, "the legend hcat", levels=LEVELS["hcat"])
    listed = list(hcat.names.values())
    void: list[Code] = []
    names: dict[Code, str] = {}
    for code, meaning, line in national_codes(lines):
        number = hcat.number(meaning, where=f"{line}: HCAT3_code")
        if number > 0:
            names[code] = listed[number - 1]
        else:
            void.append(code)
    return ClassMap(names, {}, where, tuple(void), national=True)


def national_codes(lines: Sequence[_Line]) -> list[tuple[str, str, str]]:
    """Code, HCAT code, and file and line, of a table in the layout of EuroCrops' country mappings.

    The names are codes too where a row has no code of its own. A row with neither repeats a mixture's for its second
    crop and is left out.

    Raises:
        DataError: one code with two meanings, or a code without one.
    """
    coded = all(line.cells.get("original_code") for line in lines if line.cells.get("original_name"))
    found: dict[str, tuple[str, str, str]] = {}
    for line in lines:
        meaning = line.cells.get("HCAT3_code", "")
        name = "" if coded else line.cells.get("original_name", "")
        for code in filter(None, dict.fromkeys((line.cells.get("original_code", ""), name))):
            if not meaning:
                raise DataError(f"{line.where}: code {code} has no HCAT3_code. Write one, for example 3301010101")
            if found.setdefault(code, (code, meaning, line.where))[1] != meaning:
                raise DataError(
                    f"{line.where}: code {code} is {meaning} here and {found[code][1]} before. Name each code once"
                )
    return list(found.values())


def _tables() -> list[str]:
    return list(dict.fromkeys(line.cells["table"] for line in read_lines(SHIPPED / f"{NATIONAL}.csv")))


def _table(legend: str) -> list[_Line]:
    """The lines of a national table of those that are shipped."""
    name = legend.partition(":")[2].lower()
    lines = [line for line in read_lines(SHIPPED / f"{NATIONAL}.csv") if line.cells["table"] == name]
    if not lines:
        raise DataError(f"data.season.legend is {legend!r}, expected {NATIONAL}:TABLE, one of {', '.join(_tables())}")
    return lines


def read_lines(path: Path) -> list[_Line]:
    """The lines of a legend.

    Raises:
        DataError: no table, or columns of none of the layouts.
    """
    text = read_table_text(path)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        columns = set(rows.fieldnames or ())
        national = "HCAT3_code" in columns and {"original_code", "original_name"} & columns
        if not national and not {"code", "name"} <= columns:
            raise DataError(
                f"{path}, line 1: columns {rows.fieldnames}, expected the header code,name, or that of EuroCrops' "
                f"country mappings (original_code, HCAT3_code)"
            )
        return [
            _Line(
                f"{path}, line {rows.line_num}",
                {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
            )
            for row in rows
        ]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table: {error}. Write code,name lines there") from error
