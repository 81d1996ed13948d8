"""Whatever a file holds, its reader returns or raises an error of ours.

    python -m tests.fuzz [--inputs 1000000] [--seed 0] [--only READER [--input N]]     (make fuzz)

Each reader starts from files that are right. An input is one of them changed by chance: bytes flipped, cut, doubled or
put in; values of its JSON or YAML replaced by odd ones, nested or taken away; the text of its values changed. An input
follows from the seed, the reader's name and its number, so that `--only READER --input N` repeats one. Inputs are
shared out by what a reader costs: one that opens rasters gets a hundredth of one that parses a text.

What ends in another error is printed with its number and kept in build/fuzz; exit code 1. Places that once did are
tests of their own (tests/test_untrusted_texts.py).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio.raw
import rasterio.warp
import shapely.geometry
import torch
import yaml
from exact_kubeflow.pipelines.cron import Cron
from exact_kubeflow.pipelines.schedule_file import load_schedule
from rasterio.transform import Affine

from exact_core.artifacts.model_folders import read_manifest, read_metrics
from exact_core.config import DataConfig, SeasonConfig, load_config, override
from exact_core.data.season.archives import list_archive
from exact_core.data.season.folder import _cells, open_season
from exact_core.data.season.legends import read_class_map
from exact_core.data.season.outlines import field_numbers
from exact_core.data.season.rasters import Grid
from exact_core.data.season.tag_tables import read_tag_layer, read_tag_table
from exact_core.data.stac.address import parse_address
from exact_core.data.stac.fetch import _load
from exact_core.data.stac.grid import area_of
from exact_core.data.stac.items import parse_item
from exact_core.data.vectors import open_layer
from exact_core.data.windows.dataset import DatasetManifest, Shard
from exact_core.errors import DataError, ExactError
from exact_core.json_values import read_json
from exact_core.manifest import read_record
from exact_core.map_statistics.map_folder import open_map
from exact_core.map_statistics.reference_points import read_sample
from exact_core.mapping.cogs import CLASS
from exact_core.mapping.finished_rows import FinishedRows, RowFiles, read_rows
from exact_core.mapping.season_map import PART, open_part
from exact_core.recipes import RECIPES, resolve
from exact_core.storage import publish_folder, read_pointer
from exact_core.training.checkpoint import Checkpoints, Progress, load_weights, save_weights
from tests.fakes import write_season

FAILED = Path("build/fuzz")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "a", "\0", "é", "../x", "/", "x" * 5000, "2018-02-30", "0001-01-01", "9999-12-31T23:59:59+14:00", "NaN"),
    *("[", "{}", "1e999", "!!int x", "%", "file:///etc", "s3://", "99999999999w", "* * * * *", [], {}, [[]], [None]),
    *({"": None}, {"a": {"b": [1]}}, [0] * 7, "[" * 3000),
)
SCRAPS = (
    b"\0",
    b"\xff\xfe",
    b"{",
    b"[",
    b'"',
    b"!!int x",
    b"&a *a",
    b"2018-13-01",
    b"9" * 400,
    b"[" * 3000,
    b"\n",
    b"-",
)


@dataclass(frozen=True)
class Reader:
    """A reader, right files of it, and how often it is tried beside the others."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    share: int = 100


def changed(content: bytes, chance: random.Random) -> bytes:
    """A file with one to four things in it changed."""
    for _ in range(chance.randint(1, 4)):
        text = chance.random() < 0.7
        content = _value_changed(content, chance) if text else _bytes_changed(content, chance)
    return content


def _bytes_changed(content: bytes, chance: random.Random) -> bytes:
    place, other = sorted(chance.randint(0, len(content)) for _ in range(2))
    way = chance.randrange(6)
    if way == 0 and place < len(content):
        return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
    if way == 1:
        return content[:place]
    if way == 2:
        return content[:place] + content[other:]
    if way == 3:
        return (content[:other] + content[place:])[:200_000]
    return content[:place] + chance.choice(SCRAPS) + content[place:]


def _value_changed(content: bytes, chance: random.Random) -> bytes:
    """JSON or YAML with one value replaced, moved or taken away; other bytes with a byte changed."""
    loads, dumps = (json.loads, json.dumps) if content[:1] in (b"{", b"[") else (yaml.safe_load, yaml.safe_dump)
    try:
        value = loads(content)
    except (ValueError, yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError):
        return _bytes_changed(content, chance)
    places = list(_places(value))
    if not places:
        return _bytes_changed(content, chance)
    holder, key = chance.choice(places)
    way = chance.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1:
        other, at = chance.choice(places)
        holder[key] = copy.deepcopy(other[at]) if other is not holder else chance.choice(ODD)
    elif way == 2:
        holder[key] = [holder[key]]
    elif way == 3 and isinstance(holder, dict):
        holder[str(chance.choice(ODD))] = chance.choice(ODD)
    elif way == 4 and isinstance(holder[key], str):
        holder[key] = _bytes_changed(holder[key].encode(errors="replace"), chance).decode(errors="replace")
    else:
        holder[key] = chance.choice(ODD)
    try:
        return str(dumps(value)).encode(errors="replace")
    except (ValueError, RecursionError, yaml.YAMLError):
        return content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each value within a value, as what holds it and its key."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ():
            yield holder, key
            waiting.append(holder[key])


def _json(content: bytes) -> Any:
    """As a server's answer is read."""
    try:
        return read_json(content)
    except ValueError as error:
        raise DataError(f"not JSON: {error}") from error


def _item(content: bytes) -> object:
    return parse_item(_json(content), base="https://h/x.json", bands=("B02",))


def _of_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of a file, as one of its content."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def written(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return written


def _labels(folder: Path) -> list[Reader]:
    """Of what users draw and write: tables and layers."""
    place = {"type": "Point", "coordinates": [3.0, 51.0]}
    ring = [[3.0, 51.0], [3.001, 51.0], [3.001, 51.001], [3.0, 51.001], [3.0, 51.0]]
    field = {"type": "Polygon", "coordinates": [ring]}

    def layer(*geometries: dict[str, Any]) -> bytes:
        features = [
            {"type": "Feature", "properties": {"crops": "maize; rye", "size": 80}, "geometry": each}
            for each in geometries
        ]
        return json.dumps({"type": "FeatureCollection", "features": features}).encode()

    outlines = np.array([shapely.to_wkb(shapely.geometry.shape(each)) for each in (place, field)], object)
    crops = np.array(["maize", "rye"], object)
    pyogrio.raw.write(
        *(folder / "tags.gpkg", outlines[:1], [crops[:1]], ["crops"]),
        geometry_type="Point",
        crs="EPSG:4326",
        driver="GPKG",
    )
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
    table = pa.table({"crops": crops, "geometry": outlines}).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, folder / "tags.parquet")
    grid = Grid(rasterio.crs.CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_650_000), 16, 16, folder)

    def tags(path: Path) -> object:
        return read_tag_layer(open_layer(path, what="layer of tags"), None)

    def fields(path: Path) -> object:
        return field_numbers(open_layer(path, what="layer of outlines"), grid, [])

    legend = (b"code,name\n100,maize\n200,rye\n", b"original_code,HCAT3_code,HCAT3_name\n1,3301060401,maize\n")
    return [
        Reader(
            "tags.csv",
            (b"crops,lon,lat,size\nmaize;rye,3.0,51.0,80\n", b"scene;crops\na;maize;rye\nb;-\n"),
            _of_file(folder / "tags.csv", lambda path: read_tag_table(path, None)),
        ),
        Reader("layer of tags", (layer(place), layer(field)), _of_file(folder / "tags.geojson", tags), 5),
        Reader("GeoPackage of tags", ((folder / "tags.gpkg").read_bytes(),), _of_file(folder / "tags.gpkg", tags), 2),
        Reader(
            "Parquet of tags", ((folder / "tags.parquet").read_bytes(),), _of_file(folder / "tags.parquet", tags), 20
        ),
        Reader("outlines", (layer(field),), _of_file(folder / "outlines.geojson", fields), 5),
        Reader(
            "legend.csv",
            legend,
            _of_file(folder / "labels" / "legend.csv", lambda path: read_class_map(path.parent.parent, SeasonConfig())),
        ),
    ]


def _artifacts(folder: Path) -> list[Reader]:
    """Of what the project writes itself, and others may have copied."""
    profile = {"driver": "GTiff", "count": 1, "height": 4, "width": 4, "dtype": "uint8", "nodata": 255}
    (left,), (top,) = rasterio.warp.transform("EPSG:4326", "EPSG:32631", [3.0], [51.0])
    placed = {"crs": "EPSG:32631", "transform": Affine(10, 0, left - 15, 0, -10, top + 15)}
    crop_map = folder / "map"
    crop_map.mkdir()
    with rasterio.open(crop_map / CLASS, "w", **profile, **placed) as file:
        file.write(np.arange(16, dtype=np.uint8).reshape(1, 4, 4) % 3)
    record = {"classes": {"background": "#000000", "maize": "#ffff00", "rye": "#00ff00"}, "files": {}}
    (crop_map / "map.json").write_text(json.dumps(record))
    opened = open_map(crop_map)
    points = b"longitude,latitude,reference\n3.0,51.0,maize\n"

    def sample(path: Path) -> object:
        return read_sample(path, opened, opened.count(), design="simple")

    def arrays(content: bytes) -> object:
        (folder / "arrays").mkdir(exist_ok=True)
        (folder / "arrays" / "rows-00000000.npz").write_bytes(content)
        return list(read_rows(folder / "arrays", first=0, end=2))

    shutil.rmtree(folder / "whole", ignore_errors=True)
    label = np.zeros((2, 4), np.uint8)
    RowFiles(folder / "whole", first=0, key="k", batch=4).add(FinishedRows(0, label, label, None))
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(folder / "state")
    checkpoints.save(layer, optimizer, Progress(1, 1, 0.5, 1, [{"loss": 1.0}]), best=True)
    state = json.loads((folder / "state" / "state.json").read_text()) | {"checksum": ""}
    save_weights(layer, folder / "w.safetensors")
    shutil.make_archive(str(folder / "product"), "zip", crop_map)
    fetched = {"url": "https://h", "collection": "c", "files": [], "notes": []}
    entry = {"name": "w.safetensors", "sha256": "0" * 64, "bytes": 1, "windows": 1}
    model = {
        "kind": "segmenter",
        "bands": ["B02"],
        "classes": ["maize"],
        "window": 8,
        "statistics": {"mean": [1.0], "std": [1.0], "pixels": 1, "origin": "x"},
        "dataset_digest": "d",
        "season_start": "2018-01-01",
        "season_days": 365,
        "supervision": "tags",
        "code_version": "x",
        "weights": entry,
        "calibration": {"temperature": 1.0, "fitted_on": "x"},
    }
    part = {
        "part": 1,
        "parts": 2,
        "first": 0,
        "end": 4,
        "batch": 4,
        "seconds": 1.0,
        "record": {
            "source": "season:x",
            "name": "x",
            "season_start": "2018-01-01",
            "season_days": 365,
            "bands": ["B02"],
            "dates": ["2018-04-01"],
            "inputs": "d",
            "crs": "EPSG:32631",
            "transform": [1, 0, 0, 0, -1, 0],
            "height": 4,
            "width": 4,
            "window": 8,
            "classes": ["maize"],
            "colours": ["#000000", "#ffff00"],
            "probabilities": False,
            "calibration": model["calibration"],
            "model_weights_sha256": "d",
            "code_version": "x",
            "notes": [],
        },
    }
    return [
        Reader("map.json", (json.dumps(record).encode(),), _of_file(crop_map / "map.json", _parent(open_map)), 20),
        Reader(
            "classes of a map",
            ((crop_map / CLASS).read_bytes(),),
            _of_file(folder / "other" / CLASS, _as_map(record)),
            5,
        ),
        Reader("references", (points,), _of_file(folder / "points.csv", sample), 20),
        Reader("arrays of a map", ((folder / "whole" / "rows-00000000.npz").read_bytes(),), arrays, 20),
        Reader(
            "state.json",
            (json.dumps(state).encode(),),
            _of_file(folder / "state" / "state.json", lambda path: Checkpoints(path.parent).resume(layer, optimizer)),
            20,
        ),
        Reader(
            "weights",
            ((folder / "w.safetensors").read_bytes(),),
            _of_file(folder / "w.safetensors", lambda path: load_weights(layer, path)),
            50,
        ),
        Reader("archive", ((folder / "product.zip").read_bytes(),), _of_file(folder / "product.zip", list_archive), 50),
        Reader("cells.json", (b'{"cells": [{"name": "a", "crs": "EPSG:32631"}]}',), _cells_of(folder / "cells")),
        Reader("fetched.json", (json.dumps(fetched).encode(),), _of_file(folder / "fetched.json", _load)),
        Reader(
            "model.json",
            (json.dumps(model).encode(),),
            _of_file(folder / "model.json", lambda path: read_manifest(path.parent, "segmenter")),
            50,
        ),
        Reader("part.json", (json.dumps(part).encode(),), _of_file(folder / PART, _parent(open_part)), 50),
    ]


def _parent(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


def _as_map(record: dict[str, Any]) -> Callable[[Path], object]:
    """Reads all of a map whose classes are a file."""

    def read(path: Path) -> object:
        (path.parent / "map.json").write_text(json.dumps(record))
        return open_map(path.parent).count()

    return read


def _cells_of(folder: Path) -> Callable[[bytes], object]:
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "collection.json").write_text("{}")
    return _of_file(folder / "cells.json", _parent(_cells))


def readers(folder: Path) -> list[Reader]:
    """All of them, with their files below a folder."""
    season = write_season(folder / "season", size=(8, 8), layout="stac", scl=lambda _: np.full((4, 4), 4))
    collection = (season / "collection.json").read_bytes()
    item = (season / "S2_20180411/S2_20180411.json").read_bytes()
    config = yaml.safe_dump(resolve("demo").model_dump(mode="json")).encode()

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        return _of_file(folder / name, read)

    def in_season(name: str) -> Callable[[bytes], object]:
        def written(content: bytes) -> object:
            path = season / name
            whole = path.read_bytes() if path.exists() else None
            try:
                path.write_bytes(content)
                return open_season(season, DataConfig(window=8))
            finally:
                path.unlink()
                if whole is not None:
                    path.write_bytes(whole)

        return written

    def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
        return lambda content: read(content.decode(errors="replace"))

    def rows(content: bytes) -> object:
        (folder / "rows").mkdir(exist_ok=True)
        RowFiles(folder / "rows", first=0, key="k", batch=4)
        journal = next(path for path in (folder / "rows").iterdir() if path.suffix == ".json")
        journal.write_bytes(content)
        return RowFiles(folder / "rows", first=0, key="k", batch=4)

    header = json.dumps({"a": {"dtype": "U8", "shape": [2, 3], "data_offsets": [0, 6]}}).encode()
    shard = len(header).to_bytes(8, "little") + header + bytes(6)
    (folder / "published").mkdir()
    (folder / "published" / "dataset.json").write_text("{}")
    there = publish_folder(folder / "published", "dataset.json", (folder / "store").as_uri())
    pointer = json.dumps({**json.loads(there.text()), "checksum": ""}).encode()
    entry = {"name": "index.parquet", "sha256": "0" * 64, "bytes": 1, "windows": 1}
    manifest = {
        "schema_version": 1,
        "name": "n",
        "source": "s",
        "bands": ["B02"],
        "classes": ["a"],
        "colours": {"a": "#000000"},
        "window": 8,
        "season_start": "2018-01-01",
        "season_days": 365,
        "has_labels": True,
        "has_clear": False,
        "self_scored": False,
        "splits": {"train": 1},
        "tag_counts": {"a": 1},
        "index": entry,
        "shards": [entry],
        "statistics": {"mean": [1.0], "std": [1.0], "pixels": 1, "origin": "x"},
        "notes": [],
        "digest": "d",
    }
    placed = {"bbox": [3.0, 51.0, 3.1, 51.1], "geometry": None}
    remote = json.dumps({**json.loads(item), **placed}).encode()
    ring = [[3.0, 51.0], [3.1, 51.0], [3.1, 51.1], [3.0, 51.0]]
    area = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}],
    }
    return [
        Reader(
            "schedule",
            (
                b"name: a\ninterval: 90d\nstart: 2026-01-01\n",
                b"name: a\ncron: 0 0 3 1 * *\nseason: {starts: 10-01, days: 365}\nparameters: {seed: 1}\n",
            ),
            of_file("s.yaml", load_schedule),
            5,
        ),
        Reader("cron", (b"0 0 3 1 * *", b"*/5 0-30/2 1,2 * 1-12 MON-FRI"), text(Cron.parse)),
        Reader("configuration", (config, b"recipe: demo\ndata: {window: 24}\n"), of_file("c.yaml", load_config), 5),
        Reader(
            "override",
            (b"data.window=24", b"data.season.start=2018-10-01", b"seed=1"),
            text(lambda each: override(RECIPES["demo"](), [each])),
            20,
        ),
        Reader("recipe", (b'{"recipe": "demo", "seed": 1, "data": {"window": 24}}',), text(resolve), 20),
        Reader("dataset.json", (json.dumps(manifest).encode(),), of_file("dataset.json", DatasetManifest.read)),
        Reader("shard", (shard,), of_file("shard.safetensors", Shard)),
        Reader("record", (b'{"history": [{"loss": 1.0}]}',), of_file("record.json", read_record)),
        Reader(
            "metrics.json",
            (b'{"history": [{"loss": 1.0, "epoch": 1}]}',),
            of_file("metrics.json", lambda path: read_metrics(path.parent)),
        ),
        Reader("pointer", (pointer,), of_file("pointer.json", read_pointer)),
        Reader("rows of a map", (b'{"key": "k", "first": 0, "batch": 4}',), rows),
        Reader("area", (json.dumps(area).encode(),), of_file("area.geojson", lambda path: area_of(file=path)), 20),
        Reader("STAC address", (b"https://h/v1?collection=c&bbox=3,51,4,52&cloud=80",), text(parse_address)),
        Reader("STAC item", (remote,), _item),
        Reader("item of a season", (item,), in_season("S2_20180411/S2_20180411.json"), 2),
        Reader("collection of a season", (collection,), in_season("collection.json"), 2),
        Reader("season.yaml", (b"start: 2018-04-01\nlabels: labels/a.tif\n",), in_season("season.yaml"), 2),
        Reader(
            "image of a season", ((season / "S2_20180411/B02.tif").read_bytes(),), in_season("S2_20180411/B02.tif"), 2
        ),
        *_labels(folder),
        *_artifacts(folder),
    ]


def input_of(reader: Reader, seed: int, number: int) -> bytes:
    """One input."""
    chance = random.Random(f"{seed} {reader.name} {number}")  # noqa: S311 - to be repeated
    return changed(chance.choice(reader.seeds), chance)


def main() -> int:
    """Print a table; 1 where an error was none of ours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--input", type=int, help="one input of it")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.environ["CPL_LOG"] = os.devnull
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [each for each in readers(Path(folder)) if asked.only in (None, each.name)]
        shares = sum(each.share for each in chosen)
        print("| reader | inputs | refused | read | raw | s |\n| --- | --- | --- | --- | --- | --- |", flush=True)
        for reader in chosen:
            for seed in reader.seeds:
                reader.read(seed)  # right as it is, or its changes would all be refused for the same reason
            count = -(-asked.inputs * reader.share // shares)
            numbers = range(count) if asked.input is None else [asked.input]
            refused, raw, began = 0, 0, time.monotonic()
            for number in numbers:
                content = input_of(reader, asked.seed, number)
                try:
                    with contextlib.redirect_stderr(None):
                        reader.read(content)
                except ExactError as error:
                    refused += 1
                    assert str(error), (reader.name, number)  # noqa: PT017 - it must say something
                except Exception:  # noqa: BLE001 - the kind of error is what is looked for
                    raw += 1
                    FAILED.mkdir(parents=True, exist_ok=True)
                    (FAILED / f"{reader.name.replace(' ', '-')}-{asked.seed}-{number}").write_bytes(content)
                    if raw <= 3:
                        last = traceback.format_exc().strip().splitlines()
                        print(f"{reader.name} {number}: {last[-1][:200]}\n" + "\n".join(last[-9:-1]), file=sys.stderr)
            failed += raw
            read = len(numbers) - refused - raw
            took = time.monotonic() - began
            print(f"| {reader.name} | {len(numbers):,} | {refused:,} | {read:,} | {raw} | {took:.0f} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
