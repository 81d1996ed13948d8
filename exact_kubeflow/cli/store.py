"""`exact store`: our artifact folders to a store and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exact_core.files import check_output
from exact_kubeflow.cli.options import Force

if TYPE_CHECKING:
    from exact_core.storage import Progress

__all__ = ["store_app"]

store_app = typer.Typer(
    help="Copy dataset, model, mask and evaluation folders to and from an object store (AWS_* variables).",
    no_args_is_help=True,
)


@contextmanager
def _bar(action: str, total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(total=total, desc=action, unit="B", unit_scale=True, disable=None) as bar:

        def update(count: int) -> None:
            bar.update(count)

        yield update


@store_app.command()
def put(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Finished folder to publish.")],
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="Destination, as s3://bucket/prefix, file:///folder or a path.")
    ],
    manifest: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="File that marks the folder as complete. Default is the manifest of its artifact type."
        ),
    ] = "",
    pointer: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the pointer to this file too.")] = None,
    force: Force = False,
) -> None:
    """Publish a folder and print the URI of its pointer, without sending stored files again."""
    from exact_core.stages.stage import manifests
    from exact_core.storage import manifest_of, publish_folder

    if pointer is not None:
        check_output(pointer, inputs=[folder], force=force)
    name = manifest or manifest_of(folder, manifests())
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with _bar("put", total) as progress:
        published = publish_folder(folder, name, uri, progress=progress)
    if pointer is not None:
        published.save(pointer)
    typer.echo(published.uri)


@store_app.command()
def get(
    uri: Annotated[
        str,
        typer.Argument(metavar="POINTER", help="Pointer that `exact store put` printed, or a file that contains it."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the read-only files.")],
) -> None:
    """Fetch a published folder through the local cache."""
    from exact_core.storage import fetch_folder, read_pointer

    pointer = read_pointer(uri)
    with _bar("get", pointer.size) as progress:
        fetch_folder(pointer, folder, progress=progress)
    typer.echo(str(folder))
