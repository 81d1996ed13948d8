"""Several datasets as one, for training on several seasons or regions at once. Shards are linked, not copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exact_core.data.windows.dataset import DatasetManifest, FileEntry, Statistics, WindowDataset, sha256_of
from exact_core.data.windows.day_zero import check_day_zero
from exact_core.data.windows.writer import manifest_digest
from exact_core.errors import ConfigError, DataError
from exact_core.files import link_or_copy, publishing

__all__ = ["check_alike", "join_datasets"]

ALIKE = ("bands", "classes", "window", "has_labels", "has_clear", "has_fields")


def check_alike(datasets: Sequence[WindowDataset]) -> None:
    """Raise ConfigError unless the datasets have the same bands, classes, window and kinds of arrays."""
    first = datasets[0]
    for other in datasets[1:]:
        check_day_zero(
            other.manifest.season_start, first.manifest.season_start, what=str(other.root), other=str(first.root)
        )
        for name in ALIKE:
            ours, theirs = getattr(first.manifest, name), getattr(other.manifest, name)
            if ours != theirs:
                raise ConfigError(
                    f"{first.root} has {name} {ours}, {other.root} has {theirs}. Ingest both with the same settings"
                )


def join_datasets(folders: Sequence[Path], out: Path) -> None:
    """Write a dataset that holds the windows of all, each in its split.

    Statistics are those of all training windows. `days` of a window count from its own season's start. The manifest's
    season is that of the first dataset, with the length of the longest. So days since season start are right for a
    model, and days of the year are not.

    Args:
        folders: of the datasets, one or more.
        out: folder of the joint dataset.

    Raises:
        ConfigError: they differ in bands, classes, window, or one has labels or clouds where another has none.
        DataError: `out` holds a dataset already.
    """
    datasets = [WindowDataset(folder) for folder in folders]
    check_alike(datasets)
    if (out / "dataset.json").exists():
        raise DataError(f"{out} already holds a dataset. Choose another folder or delete this one first")
    (out / "shards").mkdir(parents=True, exist_ok=True)
    shards: list[FileEntry] = []
    tables = []
    open_tags, squares = False, 0
    for number, dataset in enumerate(datasets):
        table = pq.read_table(dataset.root / "index.parquet")
        for name in ("id", "scene"):
            # Scenes of two seasons may have one name, and are never blended.
            values = pa.array([f"{number}:{value}" for value in table[name].to_pylist()])
            table = table.set_column(table.schema.get_field_index(name), name, values)
        if "square" in table.column_names:
            # Squares of two datasets are two.
            moved = pc.add(table["square"], pa.scalar(squares, pa.int32()))
            squares = pc.max(moved).as_py() + 1
            table = table.set_column(table.schema.get_field_index("square"), "square", moved)
        tables.append(table)
        open_tags |= dataset.open is not None
        for entry in dataset.manifest.shards:
            name = f"shards/{len(shards):05d}.safetensors"
            link_or_copy(dataset.root / entry.name, out / name)
            shards.append(entry.model_copy(update={"name": name}))
    if open_tags:
        tables = [_with_open(table, len(datasets[0].manifest.classes)) for table in tables]
    index = out / "index.parquet"
    # A dataset without squares of several windows has no column of them.
    table = pa.concat_tables(tables, promote_options="default")
    with publishing(index, size=table.nbytes) as partial:
        pq.write_table(table, partial)
    manifests = [dataset.manifest for dataset in datasets]
    first = manifests[0]
    content = {
        **first.model_dump(exclude={"digest", "notes", "checksum"}),
        "source": f"joined:{','.join(str(folder) for folder in folders)}",
        "season_days": max(each.season_days for each in manifests),
        "self_scored": not any(each.splits["test"] for each in manifests),
        "statistics": _pooled([each.statistics for each in manifests]),
        "splits": {name: sum(each.splits[name] for each in manifests) for name in first.splits},
        "tag_counts": {name: sum(each.tag_counts[name] for each in manifests) for name in first.classes},
        "index": FileEntry(
            name="index.parquet",
            sha256=sha256_of(index),
            bytes=index.stat().st_size,
            windows=sum(map(len, tables)),
        ),
        "shards": tuple(shards),
    }
    notes = tuple(f"{folder}: {note}" for folder, each in zip(folders, manifests, strict=True) for note in each.notes)
    manifest = DatasetManifest.model_validate({**content, "notes": notes, "digest": manifest_digest(content)})
    manifest.write(out / "dataset.json")


def _with_open(table: pa.Table, classes: int) -> pa.Table:
    """An index that says which tags are open, as others do that it is joined with."""
    if "open" in table.column_names:
        return table
    return table.append_column("open", pa.array([[0] * classes] * len(table), pa.list_(pa.uint8())))


def _pooled(parts: Sequence[Statistics]) -> Statistics:
    """Mean and standard deviation of all pixel-dates of the parts together."""
    weight = np.array([part.pixels for part in parts], np.float64)[:, None] / sum(part.pixels for part in parts)
    means, stds = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "std"))
    mean = (weight * means).sum(0)
    std = np.sqrt((weight * (stds**2 + (means - mean) ** 2)).sum(0))
    return Statistics(
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        pixels=sum(part.pixels for part in parts),
        origin=f"training splits of {len(parts)} datasets: {'; '.join(part.origin for part in parts)}",
    )
