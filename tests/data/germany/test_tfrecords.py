"""TFRecords: protobuf wrote the messages, a table made bit by bit the checksums (tests/fake_germany.py)."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from exact_core.data.germany.tfrecords import read_examples
from exact_core.errors import DataError
from tests.fake_germany import crc32c, framed, masked, serialised

ARRAYS = {"x10": np.arange(-3, 21).reshape(2, 3, 4).astype("<i8"), "dates/doy": np.array([1, 366]).astype("<i8")}


def write(path: Path, *payloads: bytes) -> Path:
    data = b"".join(map(framed, payloads))
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_examples(path))
    assert str(path) in str(caught.value)
    assert "Download it again" in str(caught.value)
    return str(caught.value)


def test_the_checksum_of_the_writer_is_the_standards() -> None:
    # RFC 3720, B.4: 32 bytes of zeros, of ones, and the check value of the Castagnoli polynomial.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("name", ["1.tfrecord.gz", "1.tfrecord"])
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    first, second = read_examples(write(tmp_path / name, serialised(ARRAYS), serialised({})))
    assert first.integers == {"x10/shape": (2, 3, 4), "dates/shape": (2,)}
    assert first.texts == {"x10/data": (ARRAYS["x10"].tobytes(),), "dates/doy": (ARRAYS["dates/doy"].tobytes(),)}
    assert (second.texts, second.integers) == ({}, {})


def test_a_message_by_hand(tmp_path: Path) -> None:
    """Int64List of 5, 300 and -1: packed, and one by one; a list of floats and an unknown field are passed over."""
    packed = bytes([0x0A, 13, 5, 0xAC, 0x02, *[0xFF] * 9, 0x01])
    single = bytes([0x08, 5, 0x08, 0xAC, 0x02, 0x08, *[0xFF] * 9, 0x01])

    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def entry(name: bytes, feature: bytes) -> bytes:
        return part(1, part(1, name) + part(2, feature))

    features = entry(b"p", part(3, packed)) + entry(b"s", part(3, single)) + entry(b"f", part(2, part(1, bytes(8))))
    odd = bytes([0x7D, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x78, 9])
    (example,) = read_examples(write(tmp_path / "hand.tfrecord", part(1, features) + odd))
    assert example.integers == {"p": (5, 300, -1), "s": (5, 300, -1)}
    assert example.texts == {}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: d[:7], "ends 5 bytes before the end of a record's head"),
        (lambda d: d[:-6], "ends 6 bytes before the end of a record"),
        (lambda d: b"\x01" + d[1:], "the checksum of a record's length does not match, or this is no TFRecord"),
        (lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:], "the checksum of a record does not match its bytes"),
        (lambda _: b"<html>not found</html>", "this is no TFRecord file"),
    ],
)
def test_damage(tmp_path: Path, damage: object, expected: str) -> None:
    path = tmp_path / "7.tfrecord"
    path.write_bytes(damage(framed(serialised(ARRAYS))))  # type: ignore[operator]
    assert expected in refused(path)


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d[2:], lambda d: d[:60] + b"\0\0\0\0" + d[64:]])
def test_damage_to_the_compressed_file(tmp_path: Path, damage: object) -> None:
    path = write(tmp_path / "7.tfrecord.gz", serialised(ARRAYS))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    refused(path)


def test_missing(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "7.tfrecord.gz")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\x0a\x05abc", "a field is longer than the record"),
        (b"\x0b", "wire type 3"),
        (b"\x80" * 11, "a number in it does not end"),
    ],
)
def test_a_record_that_is_no_message(tmp_path: Path, payload: bytes, expected: str) -> None:
    assert expected in refused(write(tmp_path / "7.tfrecord", payload))


def test_a_length_that_is_not_there_takes_no_memory(tmp_path: Path) -> None:
    head = struct.pack("<Q", 2**60)
    (tmp_path / "7.tfrecord").write_bytes(head + struct.pack("<I", masked(head)) + b"abc")
    assert "says it has 1152921504606846976 bytes" in refused(tmp_path / "7.tfrecord")


@settings(deadline=None, max_examples=200)
@given(payload=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.tfrecord", payload)
    with contextlib.suppress(DataError):
        list(read_examples(path))
