"""PASTIS (Sainte Fare Garnot and Landrieu, ICCV 2021; zenodo.org/records/5012942) in its public layout, as windows.

    metadata.geojson            a feature a patch: ID_PATCH, Fold, dates-S2, its outline in the file's CRS
    DATA_S2/S2_<id>.npy         (T, 10, H, W) reflectance x 10,000
    ANNOTATIONS/TARGET_<id>.npy (layers, H, W). Layer 0 is 0 background, 1..K crops, void (K + 1)

Patches of any size and any number of classes up to 254 are read. Arrays are memory-mapped, one patch at a time.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry import shape

from exact_core.config import DataConfig, PastisConfig
from exact_core.data.pastis.dates import limit_dates, read_dates
from exact_core.data.windows.cutting import Scene, add_scene, mark_self_scored
from exact_core.data.windows.dataset import VOID
from exact_core.data.windows.writer import DatasetWriter
from exact_core.errors import ConfigError, DataError
from exact_core.json_values import read_json

__all__ = ["BANDS", "CLASSES", "ingest_pastis", "survey_pastis"]

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
CLASSES = (
    "Meadow",
    "Soft winter wheat",
    "Corn",
    "Winter barley",
    "Winter rapeseed",
    "Spring barley",
    "Sunflower",
    "Grapevine",
    "Beet",
    "Winter triticale",
    "Winter durum wheat",
    "Fruits vegetables flowers",
    "Potatoes",
    "Leguminous fodder",
    "Soybeans",
    "Orchard",
    "Mixed cereal",
    "Sorghum",
)


@dataclass(frozen=True)
class _Patch:
    """A feature of the metadata. Dates in the order of the array, bounds (left, bottom, right, top) in the CRS."""

    id: str
    fold: int
    dates: tuple[dt.date, ...]
    bounds: tuple[float, float, float, float]


def ingest_pastis(root: Path, config: DataConfig, out: Path, *, seed: int = 0) -> None:  # noqa: ARG001
    """Cut every patch of PASTIS into windows. Official folds become splits by `config.pastis`.

    Day 0 is the first day of the earliest month of all patches. Folds that no split names are left out. Without test
    folds, or any patch of them, the dataset is scored on its training folds and says so.

    Args:
        root: the folder with metadata.geojson, DATA_S2 and ANNOTATIONS.
        config: window, stride, max_dates, tag_share and the `pastis` part.
        out: folder of the dataset.
        seed: of no effect: the folds are the dataset's own. All sources have this signature.

    Raises:
        ConfigError: validation folds, but no test folds.
        DataError: a file is missing or is not what the layout says, a label is out of range, pixels are NaN or all 0.
    """
    settings = config.pastis
    if settings.validation_folds and not settings.test_folds:
        raise ConfigError(
            f"data.pastis.test_folds is empty but data.pastis.validation_folds is {list(settings.validation_folds)}, "
            f"so no window is left for the final metrics. Name a test fold, or empty both to train and score on the "
            f"training folds"
        )
    crs, patches = _read_metadata(root / "metadata.geojson")
    every = [date for patch in patches for date in read_dates(patch.dates, rule=settings.day_rounding)]
    start = min(every).replace(day=1)
    splits = {
        **dict.fromkeys(settings.train_folds, "train"),
        **dict.fromkeys(settings.validation_folds, "validation"),
        **dict.fromkeys(settings.test_folds, "test"),
    }
    left_out: Counter[int] = Counter()
    thinned, small = 0, 0
    with DatasetWriter(
        out,
        name="pastis",
        source=f"pastis:{root}",
        bands=BANDS,
        classes=_class_names(settings.classes),
        window=config.window,
        season_start=start,
        season_days=(max(every) - start).days + 1,
        shard_windows=config.shard_windows,
    ) as writer:
        for patch in patches:
            if patch.fold not in splits:
                left_out[patch.fold] += 1
                continue
            scene = _read_scene(root, patch, config, crs=crs, start=start)
            add_scene(writer, scene, config, split=splits[patch.fold])
            thinned += len(patch.dates) > config.max_dates
            small += min(scene.pixels.shape[-2:]) < config.window
        if not settings.test_folds:
            mark_self_scored(writer, "data.pastis names neither validation nor test folds")
        elif not writer.counts["test"]:
            mark_self_scored(writer, f"no patch here is of the test folds {list(settings.test_folds)}")
        for fold, count in sorted(left_out.items()):
            writer.notes.append(f"fold {fold} serves no split (data.pastis): {count} patches left out")
        if thinned:
            how = {"thin": "were thinned to these", "cut": "were cut to the first of these by day of year"}
            writer.notes.append(
                f"{thinned} patches have more than {config.max_dates} dates and {how[settings.date_limit]}"
            )
        if settings.day_rounding == "published":
            writer.notes.append("days that float32 scaling loses are read as the day before, as published")
        if small:
            writer.notes.append(f"{small} patches are smaller than a window of {config.window} pixels: left out")


def survey_pastis(root: Path, config: DataConfig) -> tuple[int, int]:  # noqa: ARG001 - as all sources are called
    """The content of a PASTIS folder by its table, without reading an image: maximal numbers of dates, and of bands.

    Raises:
        DataError: the table is missing or is not what the layout says.
    """
    _, patches = _read_metadata(root / "metadata.geojson")
    return max(len(patch.dates) for patch in patches), len(BANDS)


def _class_names(count: int) -> tuple[str, ...]:
    return CLASSES if count == len(CLASSES) else tuple(f"class {number}" for number in range(1, count + 1))


def _read_metadata(path: Path) -> tuple[str, list[_Patch]]:
    """The CRS and the patches, in the file's order."""
    try:
        data = read_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing. A PASTIS folder holds metadata.geojson, DATA_S2/ and ANNOTATIONS/. "
            f"Give the folder that contains them"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: not a readable file: {error.strerror}. Give the folder that holds metadata.geojson, DATA_S2/ and "
            f"ANNOTATIONS/, or download it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON in UTF-8: {error}. Download it again") from error
    features = data.get("features") if isinstance(data, dict) else None
    if not features:
        raise DataError(f"{path}: no features, so no patches, expected a GeoJSON feature collection")
    if not isinstance(features, list):
        raise DataError(f"{path}: features is a {type(features).__name__}, expected a list, a feature a patch")
    patches = [_read_feature(feature, f"{path}, feature {number}") for number, feature in enumerate(features)]
    for patch_id, count in Counter(patch.id for patch in patches).items():
        if count > 1:
            raise DataError(f"{path}: ID_PATCH {patch_id} stands {count} times. Name each patch once")
    return _read_crs(data, path), patches


def _read_crs(data: dict[str, Any], path: Path) -> str:
    try:
        name = data["crs"]["properties"]["name"]
        return str(CRS.from_user_input(name).to_string())
    except (KeyError, TypeError):
        raise DataError(
            f'{path}: no "crs" member, got {data.get("crs")!r}. Name the CRS of the outlines there. '
            f'PASTIS has {{"type": "name", "properties": {{"name": "urn:ogc:def:crs:EPSG::2154"}}}}'
        ) from None
    except CRSError as error:
        raise DataError(f"{path}: crs {name!r} is unknown: {error}. Give an EPSG code") from error


def _read_feature(feature: dict[str, Any], where: str) -> _Patch:
    try:
        properties = feature["properties"]
        patch_id, fold, dates = str(properties["ID_PATCH"]), _whole(properties["Fold"]), properties["dates-S2"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: {error!r}, expected the properties ID_PATCH, Fold (a whole number) and dates-S2"
        ) from error
    where = f"{where} (ID_PATCH {patch_id})"
    try:
        with np.errstate(invalid="ignore"):
            outline = shape(feature["geometry"])
        left, bottom, right, top = outline.bounds
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{where}: no usable outline: {error!r}, expected a polygon") from error
    if not np.isfinite(shapely.get_coordinates(outline)).all():
        raise DataError(f"{where}: the outline has NaN or infinite coordinates, expected a polygon")
    if not (right > left and top > bottom):
        raise DataError(f"{where}: the outline {left, bottom, right, top} has no area, expected a polygon")
    return _Patch(id=patch_id, fold=fold, dates=_read_dates(dates, where), bounds=(left, bottom, right, top))


def _whole(value: Any) -> int:
    """`value` as an int. ValueError if that would change it."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value} is not a whole number")
    return number


def _read_dates(value: Any, where: str) -> tuple[dt.date, ...]:
    """Dates from {"0": 20180917, ...} or [20180917, ...], or from either as a JSON string, in the array's order."""
    try:
        table = read_json(value) if isinstance(value, str) else value
        listed = table if isinstance(table, list) else [table[key] for key in sorted(table, key=int)]
        dates = tuple(dt.datetime.strptime(str(_whole(date)), "%Y%m%d").date() for date in listed)
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(
            f'{where}: dates-S2 is not readable: {error}, expected {{"0": 20180917, ...}} or [20180917, ...], '
            f"a date YYYYMMDD an image"
        ) from error
    if not dates:
        raise DataError(f"{where}: dates-S2 is empty, expected a date for each image")
    return dates


def _read_scene(root: Path, patch: _Patch, config: DataConfig, *, crs: str, start: dt.date) -> Scene:
    """One patch: dates in the order of the calendar and at most max_dates of them, labels 0..K and VOID."""
    path = root / "DATA_S2" / f"S2_{patch.id}.npy"
    images = _load(path)
    if images.ndim != 4 or images.shape[1] != len(BANDS):
        raise DataError(f"{path}: shape {images.shape}, expected (T, {len(BANDS)}, H, W)")
    if len(images) != len(patch.dates):
        raise DataError(
            f"{path}: {len(images)} images but {len(patch.dates)} dates in dates-S2 of metadata.geojson. "
            f"The numbers must be equal. Repair the metadata or the array"
        )
    kept = limit_dates(patch.dates, config.max_dates, rule=config.pastis.date_limit)
    dates = read_dates(patch.dates, rule=config.pastis.day_rounding)
    height, width = images.shape[-2:]
    left, bottom, right, top = patch.bounds
    return Scene(
        name=patch.id,
        pixels=_to_int16(images[kept], path),
        days=np.array([(dates[position] - start).days for position in kept], np.int16),
        labels=_read_labels(root / "ANNOTATIONS" / f"TARGET_{patch.id}.npy", config.pastis, size=(height, width)),
        clear=None,
        crs=crs,
        transform=((right - left) / width, 0.0, left, 0.0, -(top - bottom) / height, top),
        origin=str(path),
        fold=patch.fold,
    )


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing, though metadata.geojson names this patch. Download it, or take its feature out"
        ) from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable array: {error}. Download it again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected one array of numbers, got {getattr(array, 'dtype', type(array).__name__)}")
    return array


def _to_int16(images: NDArray[Any], path: Path) -> NDArray[np.int16]:
    """Reflectance x 10,000 as int16. Floats are rounded.

    Raises:
        DataError: NaN, infinity or a value that int16 does not hold.
    """
    if images.dtype == np.int16:
        return np.asarray(images, np.int16)
    if images.dtype.kind == "f":
        unusable = ~np.isfinite(images)
        if unusable.any():
            raise DataError(
                f"{path}: {int(unusable.sum())} of {images.size} values are NaN or infinite. "
                f"Set missing pixels to 0 (nodata) or leave this patch out of metadata.geojson"
            )
        images = np.rint(images)
    low, high = images.min(), images.max()
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        raise DataError(
            f"{path}: values from {low} to {high} do not fit int16 ({limits.min}..{limits.max}). "
            f"Store reflectance x 10,000"
        )
    return images.astype(np.int16)


def _read_labels(path: Path, settings: PastisConfig, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Semantic labels (H, W): 0 background, 1..K crops, VOID."""
    target = _load(path)
    layer = np.asarray(target[0] if target.ndim == 3 and len(target) else target)
    if layer.shape != size:
        raise DataError(f"{path}: labels have shape {target.shape}, expected (layers, {size[0]}, {size[1]})")
    void = settings.classes + 1 if settings.void_label is None else settings.void_label
    # Written so that NaN is out of range too.
    wrong = layer[~((layer >= 0) & (layer <= settings.classes)) & (layer != void)]
    if wrong.size:
        raise DataError(
            f"{path}: label value {wrong[0]} is out of range, expected 0 (background), 1..{settings.classes} (crops) "
            f"or {void} (void). Set data.pastis.classes or data.pastis.void_label"
        )
    return np.where(layer == void, VOID, layer).astype(np.uint8)
