"""What every setting means, by the fields of `exact_core.config`: beside a configuration, and as a page of the docs."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from exact_core.config import RunConfig, Settings
from exact_core.errors import ConfigError
from exact_core.files import publish_text
from exact_core.recipes import RECIPES

__all__ = ["explained", "settings_page"]

WIDTH = 120


def explained(config: RunConfig) -> str:
    """A configuration as YAML that can be loaded again, each setting under its meaning."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(part: Settings, indent: str) -> Iterator[str]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        meaning = field.description or _first_line(type(value))
        if isinstance(value, Settings):
            yield ""
        for line in textwrap.wrap(meaning, WIDTH - 2 - len(indent)):
            yield f"{indent}# {line}"
        if isinstance(value, Settings):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
            yield ""
        else:
            yield f"{indent}{name}: {_written(part.model_dump(mode='json')[name])}"


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _written(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def settings_page() -> str:
    """The page: one table for each part, with defaults and other values of recipes (Markdown)."""
    recipes = {name: recipe().model_dump(mode="json") for name, recipe in RECIPES.items()}
    lines = [
        "# Settings",
        "",
        "`make compile` writes this page from the fields of `exact_core/config.py`. Do not edit it. The command "
        "`exact config RECIPE --explain` prints the same text beside the values of a recipe.",
        "",
        "Values apply in this order, and later ones override earlier ones.",
        "",
        "1. The recipe (`--recipe NAME` or `FILE.yaml`). A file names the `recipe` that supplies its missing keys.",
        "2. The `season.yaml` of a source (the keys of `data.season`, and `stride`).",
        "3. The parameters `--season` and `--seed`.",
        "4. `--set KEY=VALUE`.",
        "",
        "Every artifact contains the values in use as `config.yaml`.",
        "",
        "The last column lists recipes with another value than the default.",
    ]
    for path, kind in _parts(RunConfig, ()):
        rows = [name for name, field in kind.model_fields.items() if not _is_part(field.annotation)]
        if rows:
            lines += ["", f"## {'.'.join(path) or 'Run'}", "", _first_line(kind), ""]
            lines += ["| setting | default | meaning | in recipes |", "| --- | --- | --- | --- |"]
            lines += [_row(path, name, kind, recipes) for name in rows]
    return "\n".join(lines) + "\n"


def _is_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _parts(kind: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    yield path, kind
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _parts(field.annotation, (*path, name))


def _row(path: tuple[str, ...], name: str, kind: type[BaseModel], recipes: dict[str, Any]) -> str:
    plain = RunConfig(recipe="").model_dump(mode="json")
    default = _at(plain, path)[name]
    others = {recipe: _at(values, path)[name] for recipe, values in recipes.items()}
    shown = ", ".join(f"{recipe}: {_cell(value)}" for recipe, value in others.items() if value != default and path)
    meaning = " ".join((kind.model_fields[name].description or "").split())
    return f"| `{'.'.join((*path, name))}` | {_cell(default)} | {_escaped(meaning)} | {shown} |"


def _at(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for part in path:
        values = values[part]
    return values


def _cell(value: Any) -> str:
    return f"`{_escaped(json.dumps(value))}`" if value not in (None, "") else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page, or with --check say whether it is fresh."""
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        publish_text(options.page, settings_page())
    elif not options.page.is_file() or options.page.read_text(encoding="utf-8") != settings_page():
        raise ConfigError(f"{options.page} does not say what the settings are now. Run make compile")


if __name__ == "__main__":
    main()
