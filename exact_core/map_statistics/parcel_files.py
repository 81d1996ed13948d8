"""The file of summarised parcels, written in chunks: GeoParquet 1.1.0 (WKB) or GeoPackage, as its name says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import shapely
from numpy.typing import NDArray

from exact_core.errors import ServiceError

__all__ = ["FORMATS", "ParcelFile", "parcel_file"]


class ParcelFile(Protocol):
    """A file that grows by chunks."""

    @property
    def begun(self) -> bool:
        """Whether a chunk has come."""

    def add(self, table: Any, outlines: NDArray[np.object_]) -> None:
        """Append rows (Arrow, with a column `geometry` of WKB). `outlines` are those of its rows."""

    def close(self, *, whole: bool) -> None:
        """No more follow. `whole`: all has come, so that what a reader needs is written."""


class _GeoParquet:
    """Its `geo` metadata (geoparquet.org, 1.1.0) are gathered while it is written."""

    def __init__(self, path: Path, crs: Any, layer: str) -> None:
        del layer  # A file of one.
        self._path, self._crs = path, crs.to_dict(projjson=True)
        self._types: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self._writer: Any = None

    @property
    def begun(self) -> bool:
        return self._writer is not None

    def add(self, table: Any, outlines: NDArray[np.object_]) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
        if len(outlines):
            self._types |= {outline.geom_type for outline in outlines}
            low, high = np.split(self._bounds, 2)
            found = shapely.bounds(outlines)
            self._bounds = np.concatenate([np.minimum(low, found[:, :2].min(0)), np.maximum(high, found[:, 2:].max(0))])

    def close(self, *, whole: bool) -> None:
        if self._writer is not None and self._writer.is_open:
            if whole:
                self._writer.add_key_value_metadata({"geo": self._metadata()})
            self._writer.close()

    def _metadata(self) -> str:
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(self._types), "crs": self._crs}
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})


class _GeoPackage:
    """One layer."""

    def __init__(self, path: Path, crs: Any, layer: str) -> None:
        self._path, self._crs, self._layer, self._begun = path, crs.to_wkt(), layer, False

    @property
    def begun(self) -> bool:
        return self._begun

    def add(self, table: Any, outlines: NDArray[np.object_]) -> None:
        del outlines  # They stand in the table.
        try:
            pyogrio.write_arrow(
                table,
                self._path,
                layer=self._layer,
                driver="GPKG",
                geometry_name="geometry",
                geometry_type="Unknown",
                crs=self._crs,
                append=self._begun,
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
            raise ServiceError(f"{self._path}: cannot be written: {error}. Choose another folder") from error
        self._begun = True

    def close(self, *, whole: bool) -> None:
        """Each chunk is on the disk when it has been added."""


FORMATS: dict[str, Callable[[Path, Any, str], ParcelFile]] = {".parquet": _GeoParquet, ".gpkg": _GeoPackage}
"""What the end of a name says."""


@contextlib.contextmanager
def parcel_file(out: Path, crs: Any, *, layer: str = "parcels") -> Iterator[ParcelFile]:
    """A file to add chunks to. It has its name once all is there, and of a failure nothing stays.

    Raises:
        ServiceError: it cannot be written.
    """
    suffix = out.suffix.lower()
    partial = out.with_name(f"{out.stem}.partial{suffix}")
    file = FORMATS[suffix](partial, crs, layer)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        yield file
        file.close(whole=True)
        partial.replace(out)
    except OSError as error:
        raise ServiceError(
            f"{out}: cannot be written: {error.strerror or error}. Make room, or choose another place"
        ) from error
    finally:
        file.close(whole=False)
        with contextlib.suppress(OSError):
            partial.unlink()
