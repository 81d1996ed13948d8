"""Products in .zip archives: the same pixels as unpacked, and the same dataset."""

from __future__ import annotations

import datetime as dt
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from exact_core.config import DataConfig
from exact_core.data.season.archives import for_gdal, modified, size_of
from exact_core.data.season.files import find_acquisitions
from exact_core.data.season.folder import ingest_season
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import DataError
from tests.fakes import BANDS, COARSE, SEASON_DATES, write_season

PROCESSED = "20180601T142132"


def name_of(date: str, baseline: str = "N0207") -> str:
    return f"S2A_MSIL2A_{date}T105031_{baseline}_R051_T31UDS_{PROCESSED}.SAFE"


def write_products(root: Path, *, baseline: str = "N0207", jp2: bool = False) -> Path:
    """A season of .SAFE products, with the quality masks and the preview that are in them."""
    write_season(root, scl=lambda _: np.where(np.arange(16) < 4, 9, 4) + np.zeros((16, 1), int))
    for date in SEASON_DATES:
        granule = root / name_of(date, baseline) / "GRANULE" / f"L2A_T31UDS_A014500_{date}T105028"
        for band in (*BANDS, "SCL"):
            metres = 20 if band in COARSE or band == "SCL" else 10
            file = granule / "IMG_DATA" / f"R{metres}m" / f"T31UDS_{date}T105031_{band}_{metres}m.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            (root / f"S2_{date}" / f"{band}.tif").rename(file)
            if jp2:
                to_jp2(file)
        (root / f"S2_{date}").rmdir()
        masks = granule / "QI_DATA"
        masks.mkdir()
        some = next(granule.glob("IMG_DATA/R10m/*_B02_10m.*"))
        for kind in ("DETFOO", "QUALIT"):
            shutil.copy(some, masks / f"MSK_{kind}_B02{some.suffix}")
        shutil.copy(some, masks / f"T31UDS_{date}T105031_PVI{some.suffix}")
    return root


def to_jp2(file: Path) -> None:
    with rasterio.open(file) as source:
        profile = {**source.profile, "driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
        for key in ("nodata", "tiled", "interleave", "compress", "blockxsize", "blockysize"):
            profile.pop(key, None)
        with rasterio.open(file.with_suffix(".jp2"), "w", **profile) as target:
            target.write(source.read())
    file.unlink()


def pack(root: Path, *, keep: bool = False, ending: str = ".SAFE.zip", how: int = zipfile.ZIP_DEFLATED) -> Path:
    """Each product in an archive with its folder in it, as the Copernicus browser delivers it."""
    for product in sorted(root.glob("*.SAFE")):
        with zipfile.ZipFile(root / (product.name.removesuffix(".SAFE") + ending), "w", how) as archive:
            archive.write(product, product.name)
            for path in sorted(product.rglob("*")):
                archive.write(path, path.relative_to(root))
        if not keep:
            shutil.rmtree(product)
    return root


def digest(root: Path, tmp_path: Path, config: DataConfig | None = None) -> str:
    out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
    ingest_season(root, config or DataConfig(), out, seed=0)
    manifest = WindowDataset(out).manifest
    # Notes are of what was done to the images: they too are the same.
    return f"{manifest.digest} {manifest.notes}"


@pytest.mark.parametrize(
    ("ending", "how"),
    [(".SAFE.zip", zipfile.ZIP_DEFLATED), (".zip", zipfile.ZIP_STORED), (".ZIP", zipfile.ZIP_DEFLATED)],
)
def test_the_same_dataset_as_unpacked(tmp_path: Path, ending: str, how: int) -> None:
    root = write_products(tmp_path / "a season {1}")
    unpacked = digest(root, tmp_path)
    pack(root, ending=ending, how=how)
    assert not list(root.glob("*.SAFE"))
    assert digest(root, tmp_path) == unpacked


def test_jpeg_2000_as_it_is_delivered(tmp_path: Path) -> None:
    root = write_products(tmp_path / "s", jp2=True)
    unpacked = digest(root, tmp_path)
    assert digest(pack(root), tmp_path) == unpacked


def test_bands_and_dates_by_name(tmp_path: Path) -> None:
    root = pack(write_products(tmp_path / "s"))
    _, found = find_acquisitions(root, BANDS)
    assert [each.date for each in found] == [dt.datetime.strptime(date, "%Y%m%d").date() for date in SEASON_DATES]
    assert [each.name for each in found] == [name_of(date) for date in SEASON_DATES]
    for each in found:
        assert set(each.files) == {*BANDS, "SCL"}
        assert not any("QI_DATA" in str(path) for path in each.files.values())


def test_the_baseline_in_the_name_of_an_archive(tmp_path: Path) -> None:
    root = pack(write_products(tmp_path / "s", baseline="N0400"))
    _, found = find_acquisitions(root, BANDS)
    assert {each.stated.offset for each in found} == {1000}
    assert found[0].stated.by.startswith("N0400 in S2A_MSIL2A_20180401T")


def test_a_product_that_lies_unpacked_beside_its_archive_is_read_once(tmp_path: Path) -> None:
    root = write_products(tmp_path / "s")
    unpacked = digest(root, tmp_path)
    pack(root, keep=True)
    assert digest(root, tmp_path) == unpacked
    _, found = find_acquisitions(root, BANDS)
    assert not any(".zip" in str(path) for each in found for path in each.files.values())


def test_some_dates_unpacked_some_not(tmp_path: Path) -> None:
    root = write_products(tmp_path / "s")
    unpacked = digest(root, tmp_path)
    pack(root, keep=True)
    for date in SEASON_DATES[:2]:
        shutil.rmtree(root / name_of(date))
    assert digest(root, tmp_path) == unpacked


@pytest.mark.parametrize("layout", ["folders", "flat"])
def test_other_layouts_in_an_archive(tmp_path: Path, layout: str) -> None:
    root = write_season(tmp_path / "s", layout=layout)
    unpacked = digest(root, tmp_path)
    if layout == "folders":
        # Without the folder in it: the archive's own name says the date.
        for date in SEASON_DATES:
            shutil.make_archive(str(root / f"S2_{date}"), "zip", root / f"S2_{date}")
            shutil.rmtree(root / f"S2_{date}")
    else:
        with zipfile.ZipFile(root / "images.zip", "w") as archive:
            for path in sorted(root.glob("*.tif")):
                archive.write(path, path.name)
                path.unlink()
    assert digest(root, tmp_path) == unpacked


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    root = pack(write_products(tmp_path / "s"))
    path = root / f"{name_of(SEASON_DATES[1])}.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"20180411T.*SAFE.zip: damaged or no .zip archive: .*. Download it again, or"):
        ingest_season(root, DataConfig(), tmp_path / "out", seed=0)


def test_damage_within_an_archive_is_named(tmp_path: Path) -> None:
    root = pack(write_products(tmp_path / "s"))
    path = root / f"{name_of(SEASON_DATES[1])}.zip"
    with zipfile.ZipFile(path) as archive:
        entry = next(each for each in archive.infolist() if each.filename.endswith("_B03_10m.tif"))
    data = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    data[start : start + entry.compress_size] = bytes(entry.compress_size)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"20180411T.*SAFE.zip/.*_B03_10m.tif: .*Download it again or leave"):
        ingest_season(root, DataConfig(), tmp_path / "out", seed=0)


def test_an_archive_of_something_else_is_no_acquisition(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with zipfile.ZipFile(tmp_path / "s/readme.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(DataError, match=r"no acquisition with bands, .* or .zip archives of them"):
        find_acquisitions(tmp_path / "s", BANDS)


def test_files_and_folders_named_as_archives(tmp_path: Path) -> None:
    plain = tmp_path / "folder.zip" / "B02.tif"
    plain.parent.mkdir()
    plain.write_bytes(b"12345")
    assert for_gdal(plain) == plain
    assert size_of(plain) == 5
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/B02.tif", bytes(1000))
    packed = tmp_path / "a.zip" / "x" / "B02.tif"
    assert for_gdal(packed) == f"/vsizip/{{{tmp_path / 'a.zip'}}}/x/B02.tif"
    assert size_of(packed) == 1000
    assert modified(packed) == (tmp_path / "a.zip").stat().st_mtime_ns
    with pytest.raises(DataError, match="not a file in a readable"):
        size_of(tmp_path / "a.zip" / "B03.tif")
