"""Areas as a person reads them, as JSON and as a table."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact_core.manifest import read_record
from exact_core.map_statistics.areas import AreaEstimates, Estimate, ProbabilitySample
from exact_core.map_statistics.map_folder import CropMap
from exact_core.map_statistics.paired import PairedComparison
from exact_core.mapping.expected import quality_words
from exact_core.undefined import to_json

SEAMLESS = 1.1
"""Below it, borders of windows do not show: they change as often as any other line of the map."""

__all__ = ["as_csv", "as_json", "as_record", "as_text", "comparison_text", "map_summary"]


def map_summary(folder: Path) -> str:
    """What a finished map shows, for a terminal: hectares and shares by crop, the largest first, seams, expected OA.

    Raises:
        DataError: no map there.
    """
    record = read_record(folder / "map.json")
    areas = {name: (each["pixels"], each["hectares"]) for name, each in record["areas"].items()}
    mapped = sum(pixels for pixels, _ in areas.values())
    width = max(len(name) for name in areas)
    lines = []
    for name, (pixels, hectares) in sorted(areas.items(), key=lambda each: -each[1][0]):
        area = f"{pixels:14,} pixels" if hectares is None else f"{hectares:14,.1f} ha"
        lines.append(f"{name:{width}} {area} {100 * pixels / max(1, mapped):6.1f} %")
    # Maps of older versions have no mask.
    masked = record.get("masked_pixels", 0)
    total = mapped + record["unmapped_pixels"]
    if unmeasured := record["unmapped_pixels"] - masked:
        lines.append(f"not mapped: {100 * unmeasured / total:.1f} % of the area, which no two dates measured")
    if masked:
        lines.append(f"not cropland by the mask: {100 * masked / total:.1f} % of the area")
    lines.append(seam_words(record["seams"]))
    # Maps of older versions have no estimate.
    lines.append(quality_words(record.get("quality", {})))
    lines.append("pixel counts only. For standard errors: exact sample, then exact areas --reference")
    return "\n".join(lines)


def seam_words(ratio: float | None) -> str:
    """What the ratio of class changes at window borders to those elsewhere says (`exact_core.mapping.rows.Seams`)."""
    if ratio is None:
        return "seams: unknown, as the map has too few changes of class"
    if ratio < SEAMLESS:
        return f"seams: none to be seen (the class changes {ratio:.2f} times as often at window borders as elsewhere)"
    return (
        f"seams: the class changes {ratio:.2f} times as often at window borders as elsewhere. A smaller mapping.stride "
        f"blends windows more"
    )


def comparison_text(names: tuple[str, str], found: PairedComparison) -> str:
    """What a paired sample says of two maps, for a terminal."""
    count = found.first + found.second + found.neither
    better = (
        "this sample does not tell which map is better"
        if found.better is None
        else f"{names[found.better - 1]} is better"
    )
    share = 100 * found.differing / found.both
    points = [100 * each for each in (found.difference, found.low, found.high, found.always_low, found.always_high)]
    return "\n".join(
        [
            f"the maps differ at {found.differing:,} of {found.both:,} pixels ({share:.1f} %)",
            f"of {count} samples there, {names[0]} is right at {found.first}, {names[1]} at {found.second}, none at "
            f"{found.neither}",
            f"overall accuracy of {names[0]} less that of {names[1]}: {points[0]:+.2f} points, {found.confidence:.0%} "
            f"interval {points[1]:+.2f} to {points[2]:+.2f}",
            f"McNemar's exact test: p = {found.p_value:.4f}; {better}",
            f"if you look again as the sample grows: {points[3]:+.2f} to {points[4]:+.2f} holds at every look, and "
            + (
                "tells that too"
                if found.better is not None and (found.always_low > 0 or found.always_high < 0)
                else "names a map once it leaves out 0"
            ),
        ]
    )


def as_text(
    crop_map: CropMap,
    counts: NDArray[np.int64],
    found: AreaEstimates | None,
    always: tuple[float, float] | None = None,
) -> str:
    """A table for a terminal: a line a class, hectares where they are known, else shares of the mapped area.

    always: interval of overall accuracy that holds at every look. If None, not asked for.
    """
    mapped = int(counts[:-1].sum())
    unit = "ha" if crop_map.hectares else "%"
    scale = mapped * crop_map.hectares if crop_map.hectares else 100.0
    rows = [["class", f"counted {unit}"]]
    if found is not None:
        rows[0] += [f"estimated {unit} ({found.confidence:.0%})", "user's %", "producer's %"]
    for label, name in enumerate(crop_map.classes):
        row = [name, f"{scale * counts[label] / max(1, mapped):,.1f}"]
        if found is not None:
            each = found.classes[label]
            low, high = scale * each.share.low, scale * each.share.high
            row.append(f"{scale * each.share.value:,.1f} ({low:,.1f} to {high:,.1f})")
            row += [_percent(each.users), _percent(each.producers)]
        rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    if counts[-1]:
        lines.append(f"{counts[-1]:,} of {counts.sum():,} pixels are not mapped and count in none of this")
    if found is None:
        lines.append("counted areas include the errors of the map. A probability sample estimates them: exact sample")
    else:
        lines.append(f"overall accuracy {_percent(found.overall)} %, standard error {100 * found.overall.error:.1f} %")
        if always is not None:
            lines.append(
                f"overall accuracy at every look: {100 * always[0]:.1f} to {100 * always[1]:.1f} %, however often you "
                f"look at the growing sample"
            )
        lines += [f"note: {note}" for note in found.notes]
    return "\n".join(line.rstrip() for line in lines)


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def as_record(
    crop_map: CropMap,
    counts: NDArray[np.int64],
    found: AreaEstimates | None,
    sample: ProbabilitySample | None,
    *,
    design: str,
    always: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """All areas, as `counted` and, if there is a sample, as `estimated`. Shares 0..1, None where undefined."""
    record: dict[str, Any] = {
        "map": str(crop_map.folder),
        "hectares_per_pixel": crop_map.hectares,
        "unmapped_pixels": int(counts[-1]),
        "counted": {
            name: {"pixels": int(count), "hectares": _scaled(int(count), crop_map.hectares)}
            for name, count in zip(crop_map.classes, counts, strict=False)
        },
    }
    if found is None or sample is None:
        return record
    hectares = crop_map.hectares and int(counts[:-1].sum()) * crop_map.hectares
    record["estimated"] = {
        "design": design,
        "confidence": found.confidence,
        "samples": len(sample.reference),
        "strata": {
            name: {"pixels": size, "samples": count}
            for name, size, count in zip(sample.strata, sample.sizes, sample.counts().tolist(), strict=True)
        },
        "overall_accuracy": asdict(found.overall),
        **({} if always is None else {"overall_accuracy_at_every_look": {"low": always[0], "high": always[1]}}),
        "classes": {
            each.name: {
                "references": each.references,
                "share": asdict(each.share),
                "hectares": hectares and {name: value * hectares for name, value in asdict(each.share).items()},
                "users_accuracy": each.users and asdict(each.users),
                "producers_accuracy": each.producers and asdict(each.producers),
            }
            for each in found.classes
        },
        "error_matrix": {
            name: dict(zip(crop_map.classes, row, strict=True))
            for name, row in zip(crop_map.classes, found.matrix.tolist(), strict=True)
        },
        "notes": list(found.notes),
    }
    return record


def _scaled(count: int, hectares: float | None) -> float | None:
    return None if hectares is None else count * hectares


def as_json(record: dict[str, Any]) -> str:
    """The record as JSON."""
    return to_json(record)


def as_csv(record: dict[str, Any]) -> str:
    """A row a class. Estimates have the columns NAME, NAME_error, NAME_low and NAME_high, empty where undefined."""
    estimated = record.get("estimated", {}).get("classes", {})
    rows = []
    for name, counted in record["counted"].items():
        row = {"class": name, "counted_pixels": counted["pixels"], "counted_hectares": counted["hectares"]}
        if estimated:
            row["references"] = estimated[name]["references"]
            for figure in ("share", "hectares", "users_accuracy", "producers_accuracy"):
                given = estimated[name][figure] or {}
                row |= {
                    figure if part == "value" else f"{figure}_{part}": given.get(part)
                    for part in ("value", "error", "low", "high")
                }
        rows.append(row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
