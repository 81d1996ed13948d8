"""TFRecord files and the Example messages in them, read without TensorFlow.

A record is its length (uint64), a checksum of the length (uint32), its bytes, and a checksum of these (uint32), all
little-endian. The checksum is CRC-32C, rotated and shifted so that a checksum of data that hold checksums stays good.

Source: tensorflow.org/tutorials/load_data/tfrecord ("TFRecords format details"), tensorflow/core/example/feature.proto,
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import google_crc32c

from exact_core.errors import DataError

__all__ = ["Example", "read_examples"]

MASK = 0xA282EAD8
"""What is added to a rotated checksum."""
LONGEST = 2**28
"""Bytes of the longest record that is read: a tile has some millions."""
VARINT, EIGHT, DELIMITED, FOUR = 0, 1, 2, 5
"""Wire types of protobuf."""


@dataclass(frozen=True)
class Example:
    """The features of a record by name. Lists of floats are left out."""

    texts: dict[str, tuple[bytes, ...]]
    integers: dict[str, tuple[int, ...]]


def read_examples(path: Path) -> Iterator[Example]:
    """The records of a file, `.gz` or not.

    Raises:
        DataError: the file cannot be read, or is not what it was when it was written.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for payload in _records(cast(BinaryIO, file)):
                yield _example(payload)
    except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged: {error}. Download it again, or unpack it from its archive again") from error
    except OSError as error:
        raise DataError(f"{path}: not a readable file: {error.strerror or error}. Download it again") from error


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of each record. ValueError if they are not those that were written."""
    while head := file.read(12):
        if len(head) < 12:
            raise ValueError(f"it ends {12 - len(head)} bytes before the end of a record's head")
        length, expected = struct.unpack("<QI", head)
        if _checksum(head[:8]) != expected:
            raise ValueError("the checksum of a record's length does not match, or this is no TFRecord file")
        if length > LONGEST:
            raise ValueError(f"a record says it has {length} bytes, more than {LONGEST}")
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise ValueError(f"it ends {length + 4 - len(body)} bytes before the end of a record")
        if _checksum(body[:length]) != struct.unpack("<I", body[length:])[0]:
            raise ValueError("the checksum of a record does not match its bytes")
        yield body[:length]


def _checksum(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def _example(payload: bytes) -> Example:
    """Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }."""
    texts: dict[str, tuple[bytes, ...]] = {}
    integers: dict[str, tuple[int, ...]] = {}
    for features in _messages(memoryview(payload), 1):
        for entry in _messages(features, 1):
            name = b"".join(bytes(key) for key in _messages(entry, 1)).decode("utf-8")
            # Feature { oneof: BytesList bytes_list = 1, FloatList float_list = 2, Int64List int64_list = 3 }
            for feature in _messages(entry, 2):
                for values in _messages(feature, 1):
                    texts[name] = tuple(bytes(value) for value in _messages(values, 1))
                for values in _messages(feature, 3):
                    integers[name] = tuple(_integers(values))
    return Example(texts, integers)


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages, or bytes, in field `wanted`."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _integers(message: memoryview) -> Iterator[int]:
    """Int64List { repeated int64 value = 1 }, packed or not."""
    for number, value in _fields(message):
        if number != 1:
            continue
        if isinstance(value, int):
            yield _signed(value)
            continue
        at = 0
        while at < len(value):
            single, at = _varint(value, at)
            yield _signed(single)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int, or the bytes of anything that has a length."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == DELIMITED:
            size, at = _varint(message, at)
        elif wire in (EIGHT, FOUR):
            size = 8 if wire == EIGHT else 4
        else:
            raise ValueError(f"a record is no Example message: it has a field of wire type {wire}")
        if at + size > len(message):
            raise ValueError("a record is no Example message: a field is longer than the record")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where the next field begins."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise ValueError("a record is no Example message: a number in it does not end")
