"""Strips of images on disk: what the images are, each date of a strip read once, whatever is asked for."""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import rasterio

from exact_core.data.season.folder import SeasonImages, open_season
from exact_core.data.season.strips import Strips, strip_height
from exact_core.errors import ServiceError
from exact_core.recipes import resolve
from tests.fakes import write_season

SIZE = (58, 40)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("strips")

    def clouds(date):
        i, j = np.ogrid[: SIZE[0] // 2, : SIZE[1] // 2]
        return np.where((i + j) // 5 % 3 == date % 3, 9, 4)

    write_season(root, size=SIZE, scl=clouds)
    return open_season(root, resolve("season").data)


class Counted(SeasonImages):
    asked: ClassVar = []

    def read_counted(self, first, last):
        self.asked.append((self.acquisitions[0].name, first, last))
        return super().read_counted(first, last)


@pytest.mark.parametrize(("chunk", "first", "end"), [(8, 0, 58), (8, 16, 40), (20, 20, 58), (58, 0, 58), (100, 0, 99)])
def test_rows_are_those_of_the_images_and_read_once(images, tmp_path, monkeypatch, chunk, first, end):
    monkeypatch.setattr("exact_core.data.season.strips.TALLEST", 24)
    Counted.asked = []
    whole, seen = images.read(0, SIZE[0])
    with Strips(Counted(**vars(images)), tmp_path, chunk=chunk, spans=[(0, end)]) as strips:
        for start in range(first, min(end, SIZE[0]), chunk):
            last = min(start + chunk, SIZE[0])
            pixels, clear = strips.read(start, last)
            np.testing.assert_array_equal(pixels, whole[:, :, start:last])
            np.testing.assert_array_equal(clear, seen[:, start // 2 : last // 2])
    dates = {name for name, _, _ in Counted.asked}
    assert len(dates) == len(images.acquisitions)
    for date in dates:
        read = [row for name, start, last in Counted.asked if name == date for row in range(start, last)]
        assert read == sorted(set(read))
    assert not list(tmp_path.iterdir())


def test_heights_worked_by_hand(images, tmp_path):
    """Blocks of 16 rows at 10 m, of 32 rows at 20 m: 64 rows at 10 m; asked for 24 at a time: 72."""
    files = dict(images.acquisitions[0].files)
    for band, height, block in (("B02", 58, 16), ("B05", 29, 32)):
        files[band] = tmp_path / f"{band}.tif"
        profile = {"driver": "GTiff", "height": height, "width": height, "count": 1, "dtype": "uint16"}
        with rasterio.open(files[band], "w", **profile, tiled=True, blockxsize=16, blockysize=block):
            pass
    settings = images.settings.model_copy(update={"bands": ("B02", "B05")})
    images = replace(images, acquisitions=[replace(images.acquisitions[0], files=files)], settings=settings)
    assert strip_height(images, 24) == 72
    assert strip_height(images, 100) == 100
    assert strip_height(replace(images, settings=settings.model_copy(update={"bands": ("B02",)})), 8) == 16


def test_an_error_of_the_reading_thread_is_told(images, tmp_path, monkeypatch):
    monkeypatch.setattr("exact_core.data.season.strips.TALLEST", 8)

    class Broken(SeasonImages):
        def read_counted(self, first, last):
            if first:
                raise OSError("the disk has gone")
            return super().read_counted(first, last)

    with Strips(Broken(**vars(images)), tmp_path, chunk=8, spans=[(0, 58)]) as strips:
        strips.read(0, 8)
        with pytest.raises(OSError, match="the disk has gone"):
            strips.read(8, 16)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, which holds two strips of the images and not a third."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("a small disk takes the right to mount one: run as root")
    yield folder
    # A caught error keeps the strips, and so their files open.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_strip_has_its_room_on_disk_before_a_date_is_read(images, small_disk):
    """Too little: said at once, with bytes. Enough: the strip is kept, though others take all that is left."""
    Counted.asked = []
    filler = small_disk / "filler"
    size = 2 * len(images.acquisitions) * len(images.bands) * SIZE[0] * SIZE[1]
    filler.write_bytes(bytes(2**20 - size // 2))
    with Strips(Counted(**vars(images)), small_disk, chunk=58, spans=[(0, 58)]) as strips:
        said = rf"{small_disk}: the disk is full: {size / 1e6:.1f} MB are needed, 0\.\d MB are free\. Make room"
        with pytest.raises(ServiceError, match=said) as caught:
            strips.read(0, 58)
    assert "0.0 MB are free" not in str(caught.value)
    assert not Counted.asked
    filler.unlink()

    class Filling(SeasonImages):
        def read_counted(self, first, last):
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
            assert shutil.disk_usage(small_disk).free < 4096
            return super().read_counted(first, last)

    with Strips(Filling(**vars(images)), small_disk, chunk=58, spans=[(0, 58)]) as strips:
        np.testing.assert_array_equal(strips.read(0, 58)[0], images.read(0, 58)[0])


def test_rows_in_two_strips_and_strips_that_nobody_asks_for(images, tmp_path, monkeypatch):
    """Strips of 8 rows: 4 to 12 lie in two of them; none is read of 12 to 32, and of 32 to 40 only what is wanted."""
    monkeypatch.setattr("exact_core.data.season.strips.TALLEST", 8)
    Counted.asked = []
    whole, seen = images.read(0, SIZE[0])
    spans = [(4, 9), (6, 12), (34, 38)]
    with Strips(Counted(**vars(images)), tmp_path, chunk=8, spans=spans) as strips:
        for first, last in spans:
            pixels, clear = strips.read(first, last)
            np.testing.assert_array_equal(pixels, whole[:, :, first:last])
            np.testing.assert_array_equal(clear, seen[:, first // 2 : last // 2])
    assert {asked[1:] for asked in Counted.asked} == {(4, 8), (8, 12), (34, 38)}


def test_what_is_written_into_rows_is_not_written_to_the_file(images, tmp_path):
    """Rows are views of the strip's file, of whole chunks and of a part of two."""
    whole, _ = images.read(0, SIZE[0])
    with Strips(images, tmp_path, chunk=8, spans=[(0, SIZE[0])]) as strips:
        for first, last in ((8, 16), (8, 16), (12, 22), (14, 16)):
            pixels, _ = strips.read(first, last)
            np.testing.assert_array_equal(pixels, whole[:, :, first:last])
            pixels[:] = -1


def test_parts_have_together_the_counts_of_the_whole(tmp_path):
    """Of bands at 20 m, each part reads rows of its neighbours, too; their saturated values count once."""
    rng = np.random.default_rng(0)

    def spoil(_date, _band, values):
        values = values.astype(np.int32)
        values[rng.random(values.shape) < 0.05] = -3000
        values[rng.random(values.shape) < 0.05] = 40_000
        return values

    season = open_season(write_season(tmp_path / "s", size=SIZE, change=spoil), resolve("season").data)
    pixels, clear, whole = season.read_counted(0, SIZE[0])
    assert whole["missing"] > 1000
    assert whole["saturated"] > 1000
    with Strips(season, tmp_path, chunk=10, spans=[(0, SIZE[0])]) as strips:
        parts = [strips.read(first, min(first + 10, SIZE[0])) for first in range(0, SIZE[0], 10)]
        assert strips.changed == whole
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts], 2), pixels)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts], 1), clear)
