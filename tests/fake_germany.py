"""A small folder in the layout of the Germany dataset (MTLCC), by a writer of its own; values follow from a formula.

Tile n of season y (0 for 2016, 1 for 2017), array position t of the dates, band c of the 13, in the order of the arrays
    10 m:  1000 + 100 n + 500 y + 20 t + 2 c + (i + j) % 2
    20 m, 60 m:  1000 + 100 n + 500 y + 20 t + 2 c + 40 x, x the column of the coarse pixel       (`germany_pixel`)
label of a pixel: 0 in the first 8 rows, else the (1 + j // 8 % 3)-th of the classes, or what `labels` says. Two
positions at the end are padding, of -1 as an image and 0 as a day.
Tile n has the upper left corner (600000 + 240 n, 5400000) in EPSG:32632.

The Example messages are protobuf's own, built from their published definition; the checksums are computed bit by bit.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CLASSES = {1: "sugar beet", 3: "meadow", 22: "winter wheat"}
DOY = (33, 5, 130, 250)
"""Not in the order of the calendar."""
FINE = ("B04", "B03", "B02", "B08")
HALF = ("B05", "B06", "B07", "B8A", "B11", "B12")
SIXTH = ("B01", "B09", "B10")
LEFT, TOP = 600_000.0, 5_400_000.0
SPLITS = {"train_fold0": ("1", "2", "10"), "test_fold0": ("3",), "eval": ("4",)}


def germany_pixel(tile: int, season: int, position: int, band: str, side: int) -> np.ndarray[Any, Any]:
    """An array of one band as it is stored (h, w)."""
    base = 1000 + 100 * tile + 500 * season + 20 * position + 2 * (FINE + HALF + SIXTH).index(band)
    if band in FINE:
        i, j = np.ogrid[:side, :side]
        return base + (i + j) % 2
    size = side // (2 if band in HALF else 6)
    return np.broadcast_to(base + 40 * np.arange(size), (size, size))


def ids(side: int) -> np.ndarray[Any, Any]:
    """Ids of the classes (H, W) under 8 rows of unknown."""
    i, j = np.ogrid[:side, :side]
    return np.where(i < 8, 0, np.array(list(CLASSES))[j // 8 % len(CLASSES)])


def arrays_of(tile: int, season: int, *, side: int, doy: Sequence[int], labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The arrays of a record by name, with two dates of padding."""

    def padded(values: np.ndarray[Any, Any], fill: int) -> np.ndarray[Any, Any]:
        return np.concatenate([values, np.full((2, *values.shape[1:]), fill)]).astype("<i8")

    def images(bands: Sequence[str]) -> np.ndarray[Any, Any]:
        shown = [[germany_pixel(tile, season, position, band, side) for band in bands] for position in range(len(doy))]
        return padded(np.array(shown).transpose(0, 2, 3, 1), -1)

    return {
        "x10": images(FINE),
        "x20": images(HALF),
        "x60": images(SIXTH),
        # The records of both seasons say 2017.
        "dates/doy": padded(np.array(doy), 0),
        "dates/year": padded(np.full(len(doy), 2017), 0),
        "labels": padded(np.broadcast_to(labels, (len(doy), *labels.shape)), -1),
    }


def serialised(arrays: Mapping[str, Any]) -> bytes:
    """The Example message of a record."""
    example = _example_class()()
    features = example.features.feature
    for name, values in arrays.items():
        data, shape = (name, "dates/shape") if name.startswith("dates/") else (f"{name}/data", f"{name}/shape")
        features[data].bytes_list.value.append(values.tobytes())
        if not features[shape].int64_list.value:
            features[shape].int64_list.value.extend(values.shape)
    return bytes(example.SerializeToString(deterministic=True))


def framed(payload: bytes) -> bytes:
    """A TFRecord."""
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked(head)) + payload + struct.pack("<I", masked(payload))


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15) + (crc << 17) + 0xA282EAD8) % 2**32


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, reflected), byte by byte from a table made bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def write_germany(
    root: Path,
    *,
    side: int = 24,
    years: Sequence[int] = (2016, 2017),
    doy: Sequence[int] = DOY,
    splits: Mapping[str, Sequence[str]] = SPLITS,
    classes: Mapping[int, str] = CLASSES,
    labels: np.ndarray[Any, Any] | None = None,
    change: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None,
) -> Path:
    """The folder; `change` edits the arrays of (season/tile) before they are written."""
    (root / "tileids").mkdir(parents=True)
    lines = ["0|unknown", *(f"{label}|{name}" for label, name in classes.items())]
    (root / "classes.txt").write_text("\n".join(lines) + "\n")
    for name, tiles in splits.items():
        (root / "tileids" / f"{name}.tileids").write_text("".join(f"{tile}\n" for tile in tiles))
    every = [tile for tiles in splits.values() for tile in tiles]
    places = [f"{tile},{LEFT + 240 * int(tile)},10,0,{TOP},0,-10,32632\n" for tile in every]
    (root / "geotransforms.csv").write_text("".join(places))
    ground = ids(side) if labels is None else labels
    for year in years:
        folder = root / f"data{year % 100}"
        folder.mkdir()
        for tile in every:
            arrays = arrays_of(int(tile), year - 2016, side=side, doy=doy, labels=ground)
            arrays = change(f"{year}/{tile}", arrays) if change else arrays
            # No time in the head: the same folder is the same bytes.
            (folder / f"{tile}.tfrecord.gz").write_bytes(gzip.compress(framed(serialised(arrays)), mtime=0))
    return root


def _example_class() -> Any:
    """tf.train.Example, by tensorflow/core/example/example.proto and feature.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(parent: Any, name: str, *fields: tuple[str, int, Any, str, bool]) -> Any:
        made = parent.add(name=name)
        for field, number, kind, of, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            made.field.add(name=field, number=number, type=kind, type_name=of or None, label=label)
        return made

    part, dot = kinds.TYPE_MESSAGE, ".tensorflow."
    message(file.message_type, "BytesList", ("value", 1, kinds.TYPE_BYTES, "", True))
    message(file.message_type, "FloatList", ("value", 1, kinds.TYPE_FLOAT, "", True))
    message(file.message_type, "Int64List", ("value", 1, kinds.TYPE_INT64, "", True))
    feature = message(
        file.message_type,
        "Feature",
        ("bytes_list", 1, part, f"{dot}BytesList", False),
        ("float_list", 2, part, f"{dot}FloatList", False),
        ("int64_list", 3, part, f"{dot}Int64List", False),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message(file.message_type, "Features", ("feature", 1, part, f"{dot}Features.FeatureEntry", True))
    entry = message(
        features.nested_type,
        "FeatureEntry",
        ("key", 1, kinds.TYPE_STRING, "", False),
        ("value", 2, part, f"{dot}Feature", False),
    )
    entry.options.map_entry = True
    message(file.message_type, "Example", ("features", 1, part, f"{dot}Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
