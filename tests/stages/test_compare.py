"""`exact compare` of folders: the table by hand, without MLflow being asked."""

import sys

import pytest

from exact_core.errors import DataError
from exact_core.manifest import publish_record
from exact_core.stages.compare import compare_maps
from exact_kubeflow.cli.app import main


def write_evaluation(folder, miou, wheat):
    (folder / "evaluation").mkdir(parents=True)
    publish_record(
        folder / "evaluation" / "metrics.json",
        {
            "split": "test",
            "oa_micro": 0.9,
            "miou_macro": miou,
            "f1_macro": None,
            "per_class": {"background": {"iou": 0.5}, "wheat": {"iou": wheat}},
        },
    )
    (folder / "evaluation" / "config.yaml").write_text("recipe: season\nseed: 3\n")
    return folder


def test_folders_side_by_side(tmp_path, monkeypatch, capsys):
    write_evaluation(tmp_path / "week1", 0.5, 0.4)
    write_evaluation(tmp_path / "week2", 0.525, None)
    # An address at which nobody answers.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["exact", "compare", "week1", "week2/"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.splitlines() == [
        "%                 week1        week2",
        "Overall accuracy   90.0  90.0 (+0.0)",
        "mIoU               50.0  52.5 (+2.5)",
        "IoU background     50.0  50.0 (+0.0)",
        "IoU wheat          40.0            –",
        "comparison: comparison.html",
    ]
    page = (tmp_path / "comparison.html").read_text()
    assert "week1" in page
    assert "season" in page


def test_maps_without_dense_labels_are_compared_by_what_is_expected_of_them(tmp_path):
    for name, expected in (("north", 0.4), ("south", 0.55)):
        (tmp_path / name).mkdir()
        unknown = {"background": {"iou": None}, "wheat": {"iou": None}}
        quality = {"expected_miou": expected}
        record = {"split": "train", "oa_micro": None, "per_class": unknown, "mask_quality": quality, "tags": None}
        publish_record(tmp_path / name / "metrics.json", record)
    table, _ = compare_maps([str(tmp_path / "north"), str(tmp_path / "south")], out=tmp_path / "c.html")
    assert [line.split() for line in table.splitlines()] == [
        ["%", "north", "south"],
        ["Expected", "mIoU", "of", "the", "masks", "40.0", "55.0", "(+15.0)"],
    ]
    assert "IoU by class" not in (tmp_path / "c.html").read_text()


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    write_evaluation(tmp_path / "a", 0.5, 0.4)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b: no evaluation there \(metrics.json\). Name a folder of `exact run`"):
        compare_maps([str(tmp_path / "a"), str(tmp_path / "b")], out=tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()
