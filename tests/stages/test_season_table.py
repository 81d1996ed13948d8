"""One table of all seasons, worked by hand."""

import json

import pytest

from exact_core.errors import DataError
from exact_core.stages.season_table import season_table, table
from exact_core.tracking.runs import NoTracker


def rows(folder, *figures, **changes):
    """Folders of seasons of 2020, 2021, …, each left out with these mIoU, (new, seen)."""
    digests = [f"{number}" * 64 for number in range(len(figures))]
    made = []
    for number, (new, seen) in enumerate(figures):
        made.append(folder / f"row{number}")
        made[-1].mkdir(parents=True)
        row = {
            "season_start": f"{2020 + number}-04-01",
            "source": "season:/data/<x>",
            "digest": digests[number],
            "self_scored": False,
            "learned_from": [digest for digest in digests if digest != digests[number]],
            "supervision": "tags",
            "settings": "s",
        }
        for name, miou in (("new", new), ("seen", seen)):
            row[name] = {"oa_micro": 0.9, "miou_macro": miou, "f1_macro": 0.5, "iou": {"wheat": miou, "maize": None}}
        row |= changes if number == 0 else {}
        (made[-1] / "season_row.json").write_text(json.dumps(row))
    return made


def test_mean_worst_and_seen(tmp_path):
    found = rows(tmp_path, (0.6, 0.8), (0.2, 0.7), (0.7, 0.6))
    # A loop's results may come in any order.
    summary = season_table(rows=found[::-1], out=tmp_path / "out", report=tmp_path / "page.html", tracker=NoTracker())
    assert summary["mean_miou_macro"] == pytest.approx(0.5)
    assert summary["worst_miou_macro"] == 0.2
    assert summary["seen_mean_miou_macro"] == pytest.approx(0.7)
    assert summary["mean_oa_micro"] == pytest.approx(0.9)
    assert table(tmp_path / "out").splitlines()[2:] == [
        "| 2020-04-01 | 90.0 | 60.0 | 50.0 | 80.0 |",
        "| 2021-04-01 | 90.0 | 20.0 | 50.0 | 70.0 |",
        "| 2022-04-01 | 90.0 | 70.0 | 50.0 | 60.0 |",
        "| **mean** | 90.0 | 50.0 | 50.0 | 70.0 |",
        "| **worst** | 90.0 | 20.0 | 50.0 | – |",
    ]
    page = (tmp_path / "page.html").read_text()
    assert page == (tmp_path / "out/report.html").read_text()
    assert page.count('class="worst">20.0') == 2
    for text in ("3 seasons, each left out once", "−50.0", "+10.0", "season:/data/&lt;x&gt;"):
        assert text in page
    assert "src=" not in page


def test_what_is_not_known_of_all_is_not_averaged(tmp_path):
    summary = season_table(rows=rows(tmp_path, (None, 0.8), (0.2, 0.7)), out=tmp_path / "out", tracker=NoTracker())
    assert not {"mean_miou_macro", "worst_miou_macro"} & set(summary)
    assert summary["seen_mean_miou_macro"] == pytest.approx(0.75)
    assert "no dense labels" in (tmp_path / "out/report.html").read_text()


def test_rows_of_another_run_or_too_few_are_refused(tmp_path):
    found = rows(tmp_path / "a", (0.6, 0.8), (0.2, 0.7), (0.7, 0.6))
    with pytest.raises(DataError, match="scored by a model of 2 seasons, which are not the 1 others"):
        season_table(rows=found[:2], out=tmp_path / "out", tracker=NoTracker())
    mixed = rows(tmp_path / "b", (0.6, 0.8), (0.2, 0.7), supervision="dense")
    with pytest.raises(DataError, match="supervision dense and tags"):
        season_table(rows=mixed, out=tmp_path / "out", tracker=NoTracker())
