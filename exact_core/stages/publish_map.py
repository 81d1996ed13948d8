"""A finished map -> its stable address in the store, EXACT_STORE/maps/REGION/SEASON/, and the catalogue around it.

Links are written last: files, item, collection, catalogue. So no link is ever broken, and the same call repeats a
killed one. Files are named by their content. Those of the previous map stay until the next one, for its readers.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exact_core.artifacts.folders import code_version
from exact_core.artifacts.stage_files import STORE_VARIABLE
from exact_core.config import RunConfig
from exact_core.data.sources import parse_season, region_name
from exact_core.environment import patience, shown, variable
from exact_core.errors import ConfigError, DataError
from exact_core.json_values import read_json
from exact_core.manifest import read_record
from exact_core.mapping.publication import (
    CATALOG,
    COLLECTION,
    ITEM,
    catalog_of,
    check_map_name,
    collection_of,
    published_item,
    season_name,
)
from exact_core.stages.run import Run
from exact_core.storage import Store, StoreOptions, open_store
from exact_core.storage.base import digest_file
from exact_core.tracking.runs import Tracker, run_identity
from exact_core.undefined import to_json

__all__ = [
    "INPUTS",
    "MADE_BY",
    "PIPELINE_RUN",
    "WEIGHTS",
    "map_region",
    "maps_store",
    "planned_season",
    "publish_map",
    "published_facts",
]

log = logging.getLogger(__name__)

MAPS = "maps"
INPUTS, MADE_BY, WEIGHTS = "exact:inputs", "exact:made_by", "exact:model_weights_sha256"
PIPELINE_RUN = "exact:pipeline_run"
"""Properties of an item by which a run knows that it is done."""
STAMPS = ("created", "updated")
"""Properties that say when, and not what."""


def maps_store() -> Store | None:
    """Where maps are published. None where EXACT_STORE is not set."""
    uri = variable(STORE_VARIABLE)
    # Published at the end of a stage, when all that it did is at stake.
    return open_store(uri, options=StoreOptions(patience=patience())).below(MAPS) if uri else None


def map_region(name: str, source: str) -> str:
    """The region of a run's maps: as named, else from its source.

    Args:
        name: parameter `map_name`. May be empty.
        source: the run's.

    Raises:
        ConfigError: a name that is not valid in an address, or a source without a name.
    """
    if not name:
        name = region_name(source)
        try:
            check_map_name(name)
        except ConfigError as error:
            raise ConfigError(
                f"source = {shown(source)!r} gives no name to the region of its maps: {error}. Name it by map_name"
            ) from error
    check_map_name(name)
    return name


def published_facts(store: Store, region: str, season: str) -> dict[str, Any]:
    """The properties of a season's published map. None where there is none."""
    key = f"{region}/{season}/{ITEM}"
    if store.head(key) is None:
        return {}
    properties: dict[str, Any] = _json(store, key).get("properties", {})
    return properties


def publish_map(run: Run, folder: Path, tracker: Tracker) -> str:
    """Publish a finished map of a run that publishes, at `run.map_place`.

    Args:
        run: what the pipeline's first step decided.
        folder: of the map. A part of a map, or none, is not published.
        tracker: gets the address.

    Returns:
        The address of the item. Empty where nothing is published.

    Raises:
        ServiceError: the store cannot be used.
    """
    if not run.map_place or not (folder / "map.json").is_file():
        return ""
    store = maps_store()
    if store is None:
        log.info("publish_map: %s is not set, so the map is an artifact of this run only", STORE_VARIABLE)
        return ""
    record = read_record(folder / "map.json")
    region, _, season = run.map_place.partition("/")
    until = record.get("until")
    if not season:
        start = dt.date.fromisoformat(record["season_start"])
        season = season_name(start, record["season_days"], until=until and dt.date.fromisoformat(until))
    made = {
        INPUTS: run.inputs,
        MADE_BY: "champion" if run.champion else "training",
        "exact:model": run.champion and f"{run.model}/{run.champion}",
        WEIGHTS: record["model_weights_sha256"],
        "exact:until": until,
        "exact:calibration_oa": record.get("calibration", {}).get("oa"),
        "exact:expected_oa": record.get("quality", {}).get("expected_oa"),
        "exact:source": shown(run.named_source),
        PIPELINE_RUN: run_identity(run.pipeline_run),
        "exact:code_version": code_version(),
    }
    facts = {key: value for key, value in made.items() if value not in (None, "")}
    item, files = published_item(folder, region=region, season=season, facts=facts)
    _put(store, item, files, base=f"{region}/{season}")
    _link_item(store, region)
    uri = store.uri_of(f"{region}/{season}/{ITEM}")
    tracker.set_tags({"exact.map": uri})
    log.info("publish_map: %s", uri)
    return uri


def _put(store: Store, item: dict[str, Any], files: Mapping[str, Path], *, base: str) -> None:
    """Write the files, then their item, over the previous one."""
    before = _json(store, f"{base}/{ITEM}") if store.head(f"{base}/{ITEM}") is not None else None
    for name, path in files.items():
        store.upload(path, f"{base}/{name}", digest=digest_file(path, store.options.part_bytes))
    if before is not None and _timeless(before) == _timeless(item):
        return
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item["properties"] |= {"created": before["properties"].get("created", now) if before else now, "updated": now}
    store.write(f"{base}/{ITEM}", to_json(item).encode())
    if before is not None:
        kept = {ITEM, *files, *(asset["href"].removeprefix("./") for asset in before["assets"].values())}
        for key in store.list_keys(f"{base}/"):
            if key.removeprefix(f"{base}/") not in kept:
                store.delete(key)


def _timeless(item: dict[str, Any]) -> dict[str, Any]:
    properties = {key: value for key, value in item["properties"].items() if key not in STAMPS}
    return json.loads(to_json({**item, "properties": properties}))  # type: ignore[no-any-return]


def _link_item(store: Store, region: str) -> None:
    """Write collection and catalogue from the items in the store.

    Their links come from the items, not from earlier links. So the next call repairs one that was killed between its
    item and its collection. Two simultaneous calls each list again after writing, so that the last one has all.
    """
    while True:
        seen = [each for each in store.listed(f"{region}/") if each.key.endswith(f"/{ITEM}")]
        items = {each.key.split("/")[1]: _json(store, each.key) for each in seen}
        _write_changed(store, f"{region}/{COLLECTION}", collection_of(region, items))
        if seen == [each for each in store.listed(f"{region}/") if each.key.endswith(f"/{ITEM}")]:
            break
    regions: list[str] | None = None
    while regions != (there := _regions(store)):
        regions = there
        _write_changed(store, CATALOG, catalog_of(regions))


def _regions(store: Store) -> list[str]:
    """Regions that have a collection."""
    return [key.split("/")[0] for key in store.list_keys() if key.count("/") == 1 and key.endswith(f"/{COLLECTION}")]


def _write_changed(store: Store, key: str, content: dict[str, Any]) -> None:
    text = to_json(content).encode()
    if store.head(key) is None or store.read(key) != text:
        store.write(key, text)


def _json(store: Store, key: str) -> dict[str, Any]:
    try:
        found = read_json(store.read(key))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise DataError(
            f"{store.uri_of(key)}: not JSON: {error}. Delete it, and publish the map again by repeating its run"
        ) from error
    return found


def planned_season(config: RunConfig, season: str) -> str:
    """The name of a season in addresses of maps, before its images are read. If empty, they decide.

    Args:
        config: single keys take precedence over the parameter, as in `with_season`.
        season: a year or START/DAYS. If empty, the source's own.
    """
    start, days = parse_season(season) if season else (None, None)
    by_key = config.data.season
    start = by_key.start if "start" in by_key.model_fields_set else start
    days = by_key.days if "days" in by_key.model_fields_set else days
    return season_name(start, days, until=by_key.until) if start and days else ""
