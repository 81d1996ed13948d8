"""`exact fetch`: images of a STAC API to a season folder on this disk."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from exact_core.config import SeasonConfig
from exact_kubeflow.cli.options import goes_on

__all__ = ["fetch"]

BANDS = SeasonConfig.model_fields["bands"].default


def fetch(
    url: Annotated[str, typer.Argument(help="A STAC API, or the collection.json of a static catalogue (http, https).")],
    out: Annotated[Path, typer.Argument(help="Folder of the season; what an earlier run has read there is kept.")],
    start: Annotated[dt.datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")],
    end: Annotated[dt.datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day.")],
    collection: Annotated[str, typer.Option(help="Collection of the API, as sentinel-2-l2a.")] = "",
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="The area in degrees: west, south, east, north."),
    ] = None,
    area: Annotated[Path | None, typer.Option(help="The area as a GeoJSON file; its bounds are read.")] = None,
    max_cloud: Annotated[
        float | None, typer.Option(min=0, max=100, help="Percent of clouds in the whole image.")
    ] = None,
    bands: Annotated[str, typer.Option(help="Bands to read, besides SCL.")] = ",".join(BANDS),
    cell: Annotated[int | None, typer.Option(help="Cut the area into cells of so many metres, a folder each.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the images to read, as EPSG:32631; default: by the area.")
    ] = None,
    skip: Annotated[list[str], typer.Option(help="An item to leave out; may be repeated.")] = [],
    token_host: Annotated[
        list[str], typer.Option(help="A host beside the API's that gets EXACT_STAC_TOKEN; may be repeated.")
    ] = [],
    sign: Annotated[
        str, typer.Option(help="Address that gives SAS tokens; the Planetary Computer's catalogue needs no name.")
    ] = "",
    missing: Annotated[int, typer.Option(min=0, help="Images that may fail and are then left out.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Files read at once.")] = 4,
) -> None:
    """Read a season of images from a STAC API: the area's part of each file, only what is not there yet."""
    # Here, not above: other commands need none of it.
    from exact_core.data.stac.fetch import Fetch, fetch_cells, fetch_season
    from exact_core.data.stac.grid import area_of
    from exact_core.data.stac.search import Wanted, open_source
    from exact_core.data.stac.web import Web
    from exact_core.errors import ConfigError
    from exact_core.storage.presign import presigned

    if end < start:
        raise ConfigError(f"--end {end:%Y-%m-%d} is before --start {start:%Y-%m-%d}")
    names = tuple(name.strip() for name in bands.split(",") if name.strip() and name.strip() != "SCL")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--bands {bands!r}: expected names of bands, each once, as B02,B03,B04,B08")
    wanted = Wanted(area_of(bbox=bbox, file=area), start.date(), end.date(), max_cloud)
    source = open_source(Web(url, token_hosts=token_host, sign=sign, s3=presigned), url, collection)
    asked = Fetch(source, wanted, names, crs=crs, skip=frozenset(skip), workers=workers, missing=missing)
    with (
        goes_on("what was read is kept; the same command reads the rest"),
        tqdm(desc="fetch", unit="file", disable=None) as bar,
    ):

        def update(count: int) -> None:
            bar.update(count)

        done = (
            fetch_season(asked, out, progress=update)
            if cell is None
            else fetch_cells(asked, out, cell, progress=update)
        )
    for note in done.notes:
        typer.echo(f"note: {note}")
    cells = "" if cell is None else f"{done.cells} cells ({done.empty} without images), "
    typer.echo(
        f"{out}: {cells}{done.images} images; {done.files_read} files read ({done.bytes / 1e6:.1f} MB), "
        f"{done.files_kept} unchanged"
    )
    typer.echo(f"next: put labels in {out}/labels, then: exact ingest season {out} DATASET")
    if cell is not None:
        typer.echo(
            f"each folder that {out}/cells.json names is a season of its own, too, to be mapped as season:{out}/NAME"
        )
