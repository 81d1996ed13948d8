"""Values that JSON and YAML of others may hold, where such a text is read: an error of ours, never a raw one."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
import yaml

from exact_core.artifacts.model_folders import read_metrics
from exact_core.config import DataConfig, override
from exact_core.data.season.archives import list_archive
from exact_core.data.season.folder import ingest_season, open_season
from exact_core.data.season.radiometry import stated_offset
from exact_core.data.season.tag_tables import read_tag_layer
from exact_core.data.stac.items import finite_number
from exact_core.data.vectors import open_layer
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, CorruptError, DataError
from exact_core.json_values import read_json
from exact_core.map_statistics.map_folder import open_map
from exact_core.mapping.finished_rows import RowFiles, read_rows
from exact_core.recipes import resolve
from exact_core.storage import read_pointer
from exact_core.training.checkpoint import Checkpoints
from exact_core.yaml_values import read_yaml

DEEP = "[" * 20_000
HUGE = 10**400


def test_json_nested_too_deep_is_no_json():
    for text in (DEEP, DEEP.encode(), '{"a":' * 20_000):
        with pytest.raises(ValueError, match="too deep"):
            read_json(text)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "{a: " * 5000,
        "2018-13-01",
        "!!int x",
        "!!int ''",
        "!!float ''",
        "!!bool x",
        "!!timestamp x",
        "9" * 5000,
        "- [a",
        "a: \0",
    ],
)
def test_yaml_that_holds_no_value_is_no_yaml(text):
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "interval: 99999999999w\nstart: 2026-01-01",
        f"interval: {10**18}\nstart: 2026-01-01",
        "interval: 90d\nstart: 0001-01-01T00:00:00+14:00",
        "interval: 90d\nstart: 9999-12-31T23:59:59-14:00",
        "interval: 90d\nstart: 2018-13-01",
        "interval: 90d\nstart: 2026-01-01\nend: 0001-01-01",
        f"interval: 90d\nstart: {DEEP}",
    ],
)
def test_a_schedule(tmp_path, text):
    from exact_kubeflow.pipelines.schedule_file import load_schedule

    (tmp_path / "s.yaml").write_text(f"name: a\n{text}\n")
    with pytest.raises(ConfigError, match=r"s\.yaml"):
        load_schedule(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"cells": [{"name": 7}]}',
        '{"cells": [{"name": "../x"}]}',
        '{"cells": 3}',
        '{"cells": [{"name": "a"}, {"name": 1}]}',
    ],
)
def test_a_list_of_cells(tmp_path, text):
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(DataError, match=r"cells\.json: not a readable list of cells"):
        ingest_season(tmp_path, DataConfig(), tmp_path / "out", seed=0)


@pytest.mark.parametrize("text", [DEEP, "start: !!int x", "[" * 200])
def test_settings_of_a_season(tmp_path, text):
    (tmp_path / "season.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"season\.yaml: not valid YAML"):
        open_season(tmp_path, DataConfig())


def test_overrides_and_recipes():
    for value in (DEEP, "!!bool x"):
        with pytest.raises(ConfigError, match="not valid YAML"):
            override(resolve("demo"), [f"data.window={value}"])
    with pytest.raises(ConfigError, match="recipe"):
        resolve('{"recipe": [[]]}')
    with pytest.raises(ConfigError, match="not valid JSON"):
        resolve('{"recipe":' * 20_000)


def test_numbers_of_metadata_that_no_float_holds():
    assert finite_number(HUGE) is None
    assert stated_offset({"s2:processing_baseline": HUGE}, [{"offset": HUGE}], ["x"]).offset is None


def test_rows_of_a_map_with_a_broken_journal_begin_anew(tmp_path):
    for batch in ("[]", "null", "-1", "1e999", '"x"'):
        (tmp_path / "rows").mkdir(exist_ok=True)
        RowFiles(tmp_path / "rows", first=0, key="k", batch=4)
        journal = next(path for path in (tmp_path / "rows").iterdir())
        journal.write_text(json.dumps(json.loads(journal.read_text()) | {"batch": 0}).replace("0}", f"{batch}}}"))
        assert RowFiles(tmp_path / "rows", first=0, key="k", batch=8).batch == 8
    journal.write_text(DEEP)
    assert RowFiles(tmp_path / "rows", first=0, key="k", batch=16).batch == 16


@pytest.mark.parametrize(
    "content",
    [
        '{"history": 3}',
        "{}",
        '{"history": [1]}',
        '{"history": [{"a": "x"}]}',
        f'{{"history": [{{"a": {HUGE}}}]}}',
        DEEP,
    ],
)
def test_metrics_of_a_model(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(CorruptError, match=r"metrics\.json: corrupt"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("size", [2**63, 10**30, -1])
def test_a_pointer_to_more_than_a_file_holds(tmp_path, size):
    stored = {"name": "dataset.json", "size": size, "sha256": "0" * 64, "uri": "s3://abc/x"}
    pointer = {"schema_version": 1, "digest": "", "uri": "x", "manifest": stored, "files": []}
    (tmp_path / "p.json").write_text(json.dumps(pointer))
    with pytest.raises(DataError, match="size"):
        read_pointer(tmp_path / "p.json")


def test_an_index_of_other_shards(tmp_path, dataset_folder):
    import hashlib
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(table):
        root = tmp_path / "d"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(dataset_folder, root)
        pq.write_table(table, root / "index.parquet")
        manifest = json.loads((root / "dataset.json").read_text())
        manifest["index"]["sha256"] = hashlib.sha256((root / "index.parquet").read_bytes()).hexdigest()
        manifest["index"]["bytes"] = (root / "index.parquet").stat().st_size
        manifest.pop("checksum")
        (root / "dataset.json").write_text(json.dumps(manifest))
        return root

    table = pq.read_table(dataset_folder / "index.parquet")
    WindowDataset(write(table))
    for broken in (table.drop_columns(["tags"]), table.slice(1), pa.table({"dates": ["x"]}), table.slice(0, 0)):
        with pytest.raises(CorruptError, match="its index is not that of these shards"):
            WindowDataset(write(broken))


def test_coordinates_that_are_no_numbers(tmp_path):
    square = [[3.0, 51.0], [3.001, float("nan")], [3.001, 51.001], [3.0, 51.0]]
    outline = {"type": "Polygon", "coordinates": [square]}
    feature = {"type": "Feature", "properties": {"crops": "rye"}, "geometry": outline}
    (tmp_path / "tags.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(DataError, match=r"tags\.geojson, feature 0: a coordinate that is no finite number"):
        read_tag_layer(open_layer(tmp_path / "tags.geojson", what="layer of tags"), None)


def test_a_catalogue_without_an_interval(tmp_path):
    extent = {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[]]}}
    collection = {"type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "c", "license": "other"}
    (tmp_path / "collection.json").write_text(json.dumps({**collection, "extent": extent, "links": []}))
    with pytest.raises(DataError, match=r"collection\.json: not a readable STAC catalogue"):
        open_season(tmp_path, DataConfig())


@pytest.mark.parametrize(("place", "byte"), [(6, 255), (8, 0xFF)])
def test_archives_of_versions_and_names_that_there_are_not(tmp_path, place, byte):
    """In the central directory: the version that reads it, and the flags, of which one says that names are UTF-8."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("\u00e9.jp2", b"x")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + place] = byte
    content[directory + 46] = 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: damaged or no \.zip archive"):
        list_archive(tmp_path / "a.zip")


def test_files_of_a_map_that_are_none(tmp_path):
    (tmp_path / "map.json").write_text('{"classes": {"background": "#000000"}, "files": "x"}')
    with pytest.raises(CorruptError, match=r"map\.json: files 'x', expected names and facts"):
        open_map(tmp_path)


def test_arrays_of_a_map_of_any_size(tmp_path):
    """A header of more than memory, and a file that ends early."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    for content in (header.getvalue(), b""):
        with zipfile.ZipFile(tmp_path / "rows-00000000.npz", "w") as file:
            file.writestr("label.npy", content)
        with pytest.raises(CorruptError, match=r"rows-00000000\.npz: no whole rows of a map"):
            list(read_rows(tmp_path, first=0, end=2))


def test_names_that_no_file_system_takes(tmp_path):
    name = "x" * 5000
    (tmp_path / "cells.json").write_text(json.dumps({"cells": [{"name": name}]}))
    with pytest.raises(DataError, match=r"cells\.json: not a readable list of cells"):
        open_season(tmp_path, DataConfig())
    state = {"checksum": "", "files": {"last": {"name": name, "sha256": ""}}, "epoch": 1}
    (tmp_path / "state.json").write_text(json.dumps(state))
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(CorruptError, match="this checkpoint is damaged"):
        Checkpoints(tmp_path).resume(layer, torch.optim.SGD(layer.parameters()))
