"""`exact fetch`: images of a STAC API to a season folder on this disk."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Annotated

import typer

from exact_core.config import SeasonConfig
from exact_core.data.stac import MOST_WORKERS, WORKERS
from exact_kubeflow.cli.options import goes_on

__all__ = ["fetch"]

BANDS = SeasonConfig.model_fields["bands"].default


def fetch(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="STAC API, or collection.json of a static catalogue (http, https).")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the season. Images of an earlier run are kept.")
    ],
    start: Annotated[dt.datetime, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="First day to fetch.")],
    end: Annotated[dt.datetime, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Last day to fetch.")],
    collection: Annotated[
        str, typer.Option(metavar="NAME", help="Collection of the API, for example sentinel-2-l2a.")
    ] = "",
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="W S E N", help="Area in degrees, west, south, east, north."),
    ] = None,
    area: Annotated[
        Path | None, typer.Option(metavar="FILE", help="GeoJSON file of the area. Only its bounds count.")
    ] = None,
    max_cloud: Annotated[
        float | None,
        typer.Option(min=0, max=100, metavar="PERCENT", help="Maximum cloud cover of the whole image, percent."),
    ] = None,
    bands: Annotated[str, typer.Option(metavar="BANDS", help="Bands to read, in addition to SCL.")] = ",".join(BANDS),
    cell: Annotated[
        int | None,
        typer.Option(metavar="METRES", help="Split the area into cells of this size, metres, each with its folder."),
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option(
            metavar="CRS", help="CRS of the images to read, for example EPSG:32631. Default depends on the area."
        ),
    ] = None,
    skip: Annotated[list[str], typer.Option(metavar="ITEM", help="Leave out this item. Repeatable.")] = [],
    token_host: Annotated[
        list[str], typer.Option(metavar="HOST", help="Send EXACT_STAC_TOKEN to this host too. Repeatable.")
    ] = [],
    sign: Annotated[
        str, typer.Option(metavar="URL", help="Address of SAS tokens. Not needed for the Planetary Computer.")
    ] = "",
    missing: Annotated[int, typer.Option(min=0, metavar="N", help="Maximum number of failed images to leave out.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, max=MOST_WORKERS, metavar="N", help="Number of files to read in parallel.")
    ] = WORKERS,
) -> None:
    """Fetch new images of a season from a STAC API, only the area's part of each file."""
    # Here, not above: other commands need none of it.
    from tqdm import tqdm

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
    lock = threading.Lock()
    with (
        goes_on("finished files are kept. To continue, repeat the command"),
        tqdm(desc="fetch", unit="file", disable=None) as bar,
    ):

        def update(count: int) -> None:
            # Cells side by side tell it.
            with lock:
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
        f"{out}: {cells}{done.images} images. {done.files_read} files read ({done.bytes / 1e6:.1f} MB), "
        f"{done.files_kept} unchanged"
    )
    typer.echo(f"next: put labels in {out}/labels, then: exact ingest season {out} DATASET")
    if cell is not None:
        typer.echo(
            f"each folder that {out}/cells.json names is a season of its own, too, to be mapped as season:{out}/NAME"
        )
