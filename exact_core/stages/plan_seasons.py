"""Stage `plan_seasons`: seasons as a person lists them -> the source and the season of each, for a step each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from exact_core.data import sources
from exact_core.data.sources import parse_season, parse_source, source_of
from exact_core.errors import ConfigError
from exact_core.stages.parameters import check_parameters
from exact_core.stages.resolve_season import refuse_placeholders

__all__ = ["plan_seasons"]

log = logging.getLogger(__name__)

MOST = 5
"""Seasons of a run. A test holds it to the size that a run may have (`exact_kubeflow.pipelines.size`)."""


def plan_seasons(*, source: str, seasons: Sequence[str | float], supervision: str) -> list[dict[str, str]]:
    """Source and season of each of several seasons.

    Args:
        source: the source of those that are no more than a season: season:PATH.
        seasons: each a year (text or number) or START/DAYS of `source`, or a source with its own season, as
            season:PATH, or both, as season:PATH@2022 or season:PATH@2022-04-01/214.
        supervision: tags or dense.

    Returns:
        For each season `source` and `season`, as stage `ingest` takes them.

    Raises:
        ConfigError: fewer than two seasons, more than a run can have, one of them twice, or one of another form.
    """
    check_parameters({"supervision": supervision})
    if len(seasons) < 2:
        raise ConfigError(
            f"seasons = {list(seasons)}: give two or more, one to be left out in turn, for example "
            f'["2022", "2023", "2024"] or ["season:/data/2022", "season:/data/2023"]'
        )
    if len(seasons) > MOST:
        raise ConfigError(
            f"seasons: {len(seasons)} of them, but a run can have at most {MOST}. Leave some out, or use the "
            f"command exact leave-one-season-out, which takes any number"
        )
    refuse_placeholders("seasons", list(seasons))
    planned = [_parsed(entry, source) for entry in seasons]
    for number, each in enumerate(planned):
        if each in planned[:number]:
            raise ConfigError(
                f"seasons: {seasons[number]!r} is there twice, so it would be in training and in the test. Give it once"
            )
    for each in planned:
        log.info("plan_seasons: %s, season %s", each["source"], each["season"] or "its own")
    return planned


def _parsed(entry: str | float, source: str) -> dict[str, str]:
    # A list of numbers is one of floats by the time that KFP hands it on.
    number = isinstance(entry, int | float) and not isinstance(entry, bool) and entry == int(entry)
    text = str(int(entry)) if number else str(entry).strip()
    place, season = source, text
    # Also where a season follows the name at once, as synthetic@2022.
    if text.partition(":")[0].partition("@")[0] in {each.name for each in sources.SOURCES}:
        place, season = text, ""
        before, _, after = text.rpartition("@")
        # A path may have this sign, too.
        with suppress(ConfigError):
            parse_season(after)
            place, season = before, after
    elif not text:
        raise ConfigError("seasons: one of them is empty. Give a year, START/DAYS, or season:PATH")
    else:
        parse_season(season)
    kind, _ = parse_source(place)
    if season and not source_of(kind).opens:
        raise ConfigError(f"seasons: {text!r}: a {kind} source has its own season. Give season:PATH as source")
    return {"source": place, "season": season}
