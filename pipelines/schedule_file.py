"""The declaration of a recurring run: a YAML file, checked before anything is sent."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import yaml
from exact_kubeflow.pipelines.cron import YEARS_AHEAD, Cron
from exact_kubeflow.pipelines.package import Package
from pydantic import Field, ValidationError, field_validator, model_validator

from exact_core.config import Settings, describe
from exact_core.errors import ConfigError
from exact_core.stages.resolve_season import AUTO, SeasonRule, season_rule
from exact_core.yaml_values import read_yaml

__all__ = ["FIXED", "RULE", "ScheduleFile", "arguments_of", "load_schedule", "rule_of", "until_of"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST = 100 * 366 * 86400
"""Seconds between slots at most: a century."""
RULE = {"season_start": "starts", "season_days": "days"}
"""Parameter of a pipeline -> field of the season rule."""
EARLIEST, LATEST = 1970, 9000
"""Years that a slot may be in."""
FIXED = {"max_concurrency": 1, "no_catchup": True}
"""One run at a time, and after a pause only the latest slot is run, not each that was missed."""


class ScheduleFile(Settings):
    """One recurring run."""

    name: str = Field(min_length=1, max_length=100, description="name of the recurring run; a file owns its name")
    pipeline: str = Field("new_season", description="pipeline of this project, or path of a compiled one")
    experiment: str = Field("exact", min_length=1, description="experiment of its runs")
    service_account: str | None = Field(
        None, min_length=1, description="Kubernetes account that its runs have; without it the server's default"
    )
    cron: str | None = Field(None, description="slots: second minute hour day month weekday, in UTC")
    interval: int | None = Field(
        None, ge=60, le=LONGEST, description="seconds between slots, or a text such as 90d; requires start"
    )
    start: dt.datetime | None = Field(None, description="no slot at or before this moment; without a time zone: UTC")
    end: dt.datetime | None = Field(None, description="no slot after this moment")
    enabled: bool = Field(True, description="False keeps the recurring run, but starts nothing")
    season: SeasonRule | None = Field(None, description="season rule; each run maps the latest season that has ended")
    parameters: dict[str, Any] = Field({}, description="parameters of the pipeline")

    @field_validator("interval", mode="before")
    @classmethod
    def _seconds(cls, interval: Any) -> Any:
        if isinstance(interval, str):
            match = re.fullmatch(r"(\d+)\s*([smhdw])", interval)
            if match is None:
                raise ValueError("expected a number with s, m, h, d or w, for example 90d")
            return int(match[1]) * UNITS[match[2]]
        return interval

    @field_validator("start", "end", mode="before")
    @classmethod
    def _moment(cls, moment: Any) -> Any:
        # YAML reads a bare date as one.
        if isinstance(moment, dt.date) and not isinstance(moment, dt.datetime):
            moment = dt.datetime(moment.year, moment.month, moment.day)
        return moment

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, moment: dt.datetime | None) -> dt.datetime | None:
        if moment is None:
            return None
        if not EARLIEST <= moment.year <= LATEST:
            raise ValueError(f"expected a year from {EARLIEST} to {LATEST}")
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).replace(microsecond=0)

    @model_validator(mode="after")
    def _one_kind_of_slot(self) -> ScheduleFile:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("give either cron or interval")
        if self.interval is not None and self.start is None:
            raise ValueError("an interval requires start, from which the slots are counted")
        if self.start and self.end and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        if twice := ({"season", *RULE} if self.season else set()) & set(self.parameters):
            raise ValueError(f"the season rule and parameters both give {', '.join(sorted(twice))}. Keep one")
        return self

    def next_slot(self, after: dt.datetime) -> dt.datetime | None:
        """The first slot after a moment, as the server will have it. None if there is none."""
        if self.interval is not None and self.start is not None:
            passed = max(0, (after - self.start) // dt.timedelta(seconds=self.interval))
            slot: dt.datetime | None = self.start + dt.timedelta(seconds=(passed + 1) * self.interval)
        else:
            slot = Cron.parse(self.cron or "").next_after(max(after, self.start) if self.start else after)
        return None if slot is None or (self.end and slot > self.end) else slot


def load_schedule(path: Path) -> ScheduleFile:
    """Read a schedule.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or a key or value is wrong.
    """
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable schedule: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping with name, cron and so on, got {type(data).__name__}")
    try:
        file = ScheduleFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe(error, where=str(path), model=ScheduleFile)) from error
    if file.cron is not None and Cron.parse(file.cron).next_after(file.start or dt.datetime.now(dt.UTC)) is None:
        # KFP takes it, and then one of its two workers looks for the slot for ever, for everybody.
        raise ConfigError(
            f"{path}: cron = {file.cron!r}: no date within {YEARS_AHEAD} years fits. Look at its day and month"
        )
    return file


def arguments_of(file: ScheduleFile, package: Package) -> dict[str, Any]:
    """The pipeline's arguments: the parameters and, with a season rule, season auto and the rule."""
    given = dict(file.parameters)
    if file.season is not None:
        given |= {"season": AUTO} | {parameter: getattr(file.season, field) for parameter, field in RULE.items()}
    return package.arguments(given)


def rule_of(package: Package, arguments: dict[str, Any]) -> SeasonRule | None:
    """The season rule that a run with these arguments follows. None where the pipeline has none.

    Raises:
        ConfigError: it is wrong.
    """
    if not set(RULE) <= set(package.inputs):
        return None
    starts, days = (arguments.get(name, package.inputs[name].get("defaultValue")) for name in RULE)
    return season_rule(str(starts), int(str(days)))


def until_of(arguments: dict[str, Any]) -> dict[str, str]:
    """What these arguments say of the last day of images, as `SeasonRule.mapped_at` takes it."""
    return {"until": str(arguments.get("until", "")), "since": str(arguments.get("until_from", ""))}
