"""The champion of a registered model: show it, fetch it and move it. No stage of a pipeline."""

from __future__ import annotations

from pathlib import Path

from exact_core.errors import ConfigError, ServiceError
from exact_core.tracking.registry import CHAMPION, Registry, Version

__all__ = ["fetch_registered", "history", "is_registered", "move_champion"]

SHOWN = ("miou_macro", "oa_micro", "tag_f1")
"""Metrics in a line of the history, if the model has them."""


def is_registered(reference: str) -> bool:
    """Whether a text names a registered model, NAME@ALIAS, rather than a folder."""
    return "@" in reference and "://" not in reference and not Path(reference).exists()


def fetch_registered(reference: str, out: Path) -> Path:
    """The model folder of NAME@ALIAS, at `out`.

    Raises:
        ConfigError: no such model or alias.
        DataError: it is no segmenter of ours.
        ServiceError: MLflow does not hand it out.
    """
    name, _, alias = reference.removeprefix("models:/").partition("@")
    registry = Registry.of_person()
    version = registry.alias_version(name, alias)
    if version is None:
        known = {alias for each in registry.versions(name) for alias in each.aliases}
        raise ConfigError(f"{reference}: no such alias. {name} has {', '.join(sorted(known)) or 'none'}")
    return registry.download(name, version, out)


def history(name: str) -> str:
    """A line a version, the newest first: what it was trained on, what it scored where, when it was champion and why.

    Raises:
        ConfigError: no such model. ServiceError: MLflow does not answer.
    """
    versions = Registry.of_person().versions(name)
    return "\n".join(_line(each) for each in versions)


def _line(version: Version) -> str:
    figures = [
        f"{key} {100 * values[key]:.1f} % on {dataset or 'data without a name'}"
        for dataset, values in version.figures.items()
        for key in SHOWN
        if key in values
    ]
    parts = [
        f"version {version.number}{f' ({chr(44).join(version.aliases)})' if version.aliases else ''}",
        f"season of {version.season}" if version.season else "",
        ", ".join(figures),
        f"champion since {', '.join(version.since)}" if version.since else "",
        version.reason,
    ]
    return "; ".join(part for part in parts if part)


def move_champion(name: str, version: str, *, reason: str) -> str | None:
    """Let the champion be a version that there is, as after a bad promotion. The one that it was before.

    Raises:
        ConfigError: no such model or version.
        ServiceError: MLflow does not answer, or a run is moving the champion.
    """
    registry = Registry.of_person()
    known = [each.number for each in registry.versions(name)]
    if version not in known:
        raise ConfigError(f"{name} has no version {version!r}. It has {', '.join(known)}")
    before = registry.alias_version(name, CHAMPION)
    if not registry.replace_champion(name, before, version, reason=reason):
        raise ServiceError(f"{name}: its champion has just changed. Check --history, and repeat the command")
    return before
