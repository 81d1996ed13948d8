"""Files of the user that a finished map is brought into line with: outlines of fields, and a cropland mask."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from pathlib import Path

from exact_core.config import MappingConfig, Outside
from exact_core.data.season.outlines import open_outlines
from exact_core.mapping.cogs import MapRecord
from exact_core.mapping.cropland import open_mask
from exact_core.stages.fetch import local_file

__all__ = ["Layers"]


@dataclass(frozen=True)
class Layers:
    """What a map was asked to follow, as `mapping` names it.

    outlines: layer of fields, each of which gets one crop (`exact_core.mapping.field_rows`). If None, pixels stay.
    outside: pixels outside all outlines: as they are, background beside a field, or all background.
    cropland: mask outside of which nothing is mapped (`exact_core.mapping.cropland`). If None, none. cropland_values:
    values of a raster that are cropland. If empty, all but 0.
    """

    outlines: str | None = None
    outside: Outside = "pixels"
    cropland: str | None = None
    cropland_values: tuple[int, ...] = ()

    @classmethod
    def of(cls, settings: MappingConfig | MapRecord) -> Layers:
        """Those of a configuration, or of a map."""
        return cls(settings.outlines, settings.outside, settings.cropland, settings.cropland_values)

    def on(self, record: MapRecord) -> MapRecord:
        """The record of a map that follows these instead of its own."""
        return record.model_copy(update=asdict(self))

    def here(self, start: dt.date) -> tuple[Path | None, Path | None]:
        """Outlines and cropland mask on this disk, fetched if need be.

        Both are opened: a wrong one is refused now, and not when all is mapped.

        Args:
            start: first day of the season. Its year stands for {year}.

        Raises:
            ConfigError, DataError: a file is not there, or is refused by `CroplandMask` or `open_outlines`.
            ServiceError: a server fails.
        """
        outlines, cropland = (
            None if address is None else local_file(address.replace("{year}", str(start.year)))
            for address in (self.outlines, self.cropland)
        )
        if cropland is not None:
            open_mask(cropland, self.cropland_values)
        if outlines is not None:
            open_outlines(outlines.parent, outlines.name)
        return outlines, cropland
