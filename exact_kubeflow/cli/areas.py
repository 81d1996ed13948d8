"""Commands on a finished map: what it says, how sure that is, and how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exact_core.errors import ConfigError
from exact_core.files import check_output
from exact_kubeflow.cli.options import Force, need_together

__all__ = ["areas", "compare_maps", "parcels", "polygons", "sample", "view"]

Map = Annotated[Path, typer.Argument(metavar="MAP", help="Folder that `exact map` wrote.")]


def areas(
    folder: Map,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Points with their true class, as a .csv file or a point layer like those of `exact sample`.",
        ),
    ] = None,
    design: Annotated[
        str, typer.Option(metavar="DESIGN", help="Sampling design of the points, simple or stratified.")
    ] = "",
    confidence: Annotated[float, typer.Option(metavar="SHARE", help="Confidence level of the intervals.")] = 0.95,
    looks: Annotated[
        bool,
        typer.Option("--looks", help="Add an interval of overall accuracy that holds however often you look."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, .json or .csv with one row for each class.")
    ] = None,
    force: Force = False,
) -> None:
    """Compute class areas by pixel counts, and estimate them with errors from a probability sample."""
    import numpy as np

    from exact_core.data.vectors import split_layer
    from exact_core.files import publish_text
    from exact_core.map_statistics import area_table
    from exact_core.map_statistics.areas import estimate_areas
    from exact_core.map_statistics.every_look import share_at_every_look
    from exact_core.map_statistics.map_folder import open_map
    from exact_core.map_statistics.reference_points import DESIGNS, read_sample

    if out is not None:
        inputs = [folder] if reference is None else [folder, split_layer(reference)[0]]
        check_output(out, suffixes=(".json", ".csv"), inputs=inputs, force=force)
    if reference is not None and not design:
        raise ConfigError(
            f"--reference {reference}: state how the points were drawn, --design {' or --design '.join(DESIGNS)}. "
            f"Only random points give standard errors"
        )
    if looks and reference is None:
        raise ConfigError("--looks: at which places? name their file by --reference")
    if design and reference is None:
        raise ConfigError(f"--design {design}: of which places? name their file by --reference")
    need_together(map=folder, reference=reference)
    crop_map = open_map(folder)
    counts = crop_map.count()
    found = taken = always = None
    if reference is not None:
        taken = read_sample(reference, crop_map, counts, design=design)
        found = estimate_areas(taken, crop_map.classes, confidence=confidence)
        if looks:
            right = taken.right()
            always = share_at_every_look(np.array(taken.sizes), taken.counts(), right, confidence=confidence)
    typer.echo(area_table.as_text(crop_map, counts, found, always))
    if out is not None:
        record = area_table.as_record(crop_map, counts, found, taken, design=design, always=always)
        publish_text(out, area_table.as_csv(record) if out.suffix.lower() == ".csv" else area_table.as_json(record))


def sample(
    folder: Map,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write, .csv, or .geojson or .gpkg with a .csv beside it.")
    ],
    standard_error: Annotated[
        float, typer.Option(metavar="SHARE", help="Target standard error of overall accuracy. Sets the sample size.")
    ] = 0.01,
    accuracy: Annotated[float, typer.Option(metavar="SHARE", help="Expected user's accuracy of a class.")] = 0.8,
    expected: Annotated[
        list[str], typer.Option(metavar="CLASS=VALUE", help="Expected user's accuracy of one class. Repeatable.")
    ] = [],
    minimum: Annotated[int, typer.Option(metavar="N", help="Minimum number of samples for each class.")] = 50,
    size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of samples. Overrides --standard-error, and --minimum if needed."),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            metavar="MAP", help="Second map. Draw where both maps differ, to find the better one. Requires --size."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the draw. The same seed draws the same points.")
    ] = 0,
    force: Force = False,
) -> None:
    """Draw points to visit, as a random sample of a map stratified by its classes, or of where two maps differ."""
    from exact_core.map_statistics.map_folder import open_map
    from exact_core.map_statistics.paired import Differences
    from exact_core.map_statistics.sample_design import (
        allocate,
        check_out,
        draw,
        expected_accuracies,
        expected_error,
        fitting_minimum,
        sample_size,
        write_sample,
    )

    check_out(out, force=force)
    need_together(map=folder, other=other)
    crop_map = open_map(folder)
    if other is not None:
        if size is None:
            raise ConfigError("--other: how many places? give --size, for example 100")
        differences = Differences(crop_map, open_map(other))
        strata = differences.stratum(size)
        files = write_sample(draw(differences, strata, seed=seed), out, force=force)
        typer.echo(
            f"{strata[0].samples} of {strata[0].pixels:,} pixels that differ, in {', '.join(map(str, files))}; fill in "
            f"`reference` in the order of `id`, then: exact compare-maps {folder} {other} --reference {out}"
        )
        return
    counts = crop_map.count()
    pixels = {name: int(count) for name, count in zip(crop_map.classes, counts, strict=False)}
    guesses = expected_accuracies(expected, crop_map.classes, otherwise=accuracy)
    if size is None:
        size = sample_size(pixels, guesses, standard_error=standard_error)
    else:
        minimum = fitting_minimum(counts, crop_map.classes, size=size, minimum=minimum)
    allocations = allocate(counts, crop_map.classes, size=size, minimum=minimum)
    files = write_sample(draw(crop_map, allocations, seed=seed), out, force=force)
    width = max(len(each.name) for each in allocations)
    for each in allocations:
        typer.echo(f"{each.name:{width}}  {each.samples:7} of {each.pixels} pixels")
    total = sum(each.samples for each in allocations)
    error = expected_error(allocations, guesses)
    if error > 0:
        half = sample_size(pixels, guesses, standard_error=error / 2)
        typer.echo(
            f"expected standard error of overall accuracy: {100 * error:.2f} %. Half of it takes about {half:,} points"
        )
    typer.echo(
        f"{total} points in {', '.join(map(str, files))}. Fill in `reference`, then: exact areas {folder} --design "
        f"stratified --reference {out}"
    )


def compare_maps(
    folder: Map,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Folder of the second map, of the same images.")],
    reference: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Places of `exact sample MAP --other OTHER` with their true class."),
    ],
    confidence: Annotated[
        float, typer.Option(metavar="SHARE", help="Confidence level of the intervals and the test.")
    ] = 0.95,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write, .json.")] = None,
    force: Force = False,
) -> None:
    """Report which of two maps is better, from a random sample of the pixels where they differ."""
    from dataclasses import asdict

    from exact_core.data.vectors import split_layer
    from exact_core.files import publish_text
    from exact_core.map_statistics import area_table, paired
    from exact_core.map_statistics.map_folder import open_map
    from exact_core.map_statistics.reference_points import read_pairs

    if out is not None:
        check_output(out, suffixes=(".json",), inputs=(folder, other, split_layer(reference)[0]), force=force)
    need_together(map=folder, other=other, reference=reference)
    differences = paired.Differences(open_map(folder), open_map(other))
    first, second, truth = zip(*read_pairs(reference, differences), strict=True)
    found = paired.compare_maps(differences, first, second, truth, confidence=confidence)
    typer.echo(area_table.comparison_text((str(folder), str(other)), found))
    if out is not None:
        better = found.better and str((folder, other)[found.better - 1])
        publish_text(out, area_table.as_json({"maps": [str(folder), str(other)], "better": better, **asdict(found)}))


def polygons(
    folder: Map,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, .gpkg or .parquet (GeoParquet).")] = Path(
        "fields.gpkg"
    ),
    minimum_hectares: Annotated[float, typer.Option(min=0, metavar="HA", help="Leave out smaller polygons.")] = 0.0,
    force: Force = False,
) -> None:
    """Write each region of one crop as a polygon with crop, hectares and mean confidence."""
    from exact_core.map_statistics.map_folder import open_map
    from exact_core.map_statistics.polygons import write_polygons

    summary = write_polygons(open_map(folder), out, minimum_hectares=minimum_hectares, force=force)
    for name, count in summary.polygons.most_common():
        typer.echo(f"{count:9} {name}")
    if summary.small:
        typer.echo(f"note: smaller regions left out: {summary.small:,}, of {summary.small_pixels:,} pixels")
    typer.echo(f"{summary.polygons.total():,} polygons in {out}")


def view(
    folder: Map,
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("map.html"),
    outlines: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Vector file of outlines to draw, for example of `exact polygons`."),
    ] = None,
    tags: Annotated[Path | None, typer.Option(metavar="FILE", help="Table or layer of tagged squares to draw.")] = None,
    force: Force = False,
) -> None:
    """Write the map as one interactive HTML page that needs no network."""
    from exact_core.data.vectors import split_layer
    from exact_core.evaluation.map_page import write_map_page

    inputs = [split_layer(each)[0] for each in (folder, outlines, tags) if each is not None]
    check_output(out, suffixes=(".html",), inputs=inputs, force=force)
    need_together(map=folder, outlines=outlines, tags=tags)
    for note in write_map_page(folder, out, outlines=outlines, tags=tags):
        typer.echo(f"note: {note}")
    typer.echo(f"page: {out} ({max(1, round(out.stat().st_size / 1000)):,} kB)")


def parcels(
    folder: Map,
    layer: Annotated[Path, typer.Argument(metavar="LAYER", help="Parcels, as any vector file that GDAL reads.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, .parquet (GeoParquet) or .gpkg.")] = Path(
        "parcels.parquet"
    ),
    attribute: Annotated[
        list[str], typer.Option(metavar="NAME", help="Copy this attribute of the parcels. Repeatable.")
    ] = [],
    force: Force = False,
) -> None:
    """Write the majority class, its share, coverage and confidence of each parcel."""
    from exact_core.map_statistics.map_folder import open_map
    from exact_core.map_statistics.parcels import summarise_parcels

    need_together(map=folder, layer=layer)
    summary = summarise_parcels(open_map(folder), layer, out, attributes=tuple(attribute), force=force)
    for name, count in summary.majority.most_common():
        typer.echo(f"{count:9} {name}")
    for note in summary.notes():
        typer.echo(f"note: {note}")
    typer.echo(f"{summary.written} parcels in {out}")
