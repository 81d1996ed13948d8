"""YAML as people write values: by the 1.2 core schema, where 010 is ten, NO is a text and 1e-3 a number.

PyYAML reads by YAML 1.1: 010 as eight, NO and on as booleans, 1e-3 as a text, 12:30 as a number.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["read_yaml"]

OVERLOOKED = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What PyYAML lets through of values that do not fit their tag, as 2018-13-01, !!int x or !!bool x."""


class _Loader(yaml.SafeLoader):
    """See the module."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("timestamp", r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+( *Z|[-+][0-9:]+)?)?", "0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16) if text.startswith("0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML, holds a value that is none of its kind, or is nested deeper than Python reads.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except RecursionError as error:
        raise yaml.YAMLError("brackets within brackets, too deep to be read") from error
    except OVERLOOKED as error:
        # PyYAML makes a date of anything like 2018-13-01, and does not say which line it was.
        raise yaml.YAMLError(f"no such value: {error}; dates are days of the calendar, as 2018-04-01") from error
