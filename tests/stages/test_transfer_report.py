"""The stage that holds a season against a model's own: from files to report, with what the model folder carries."""

import datetime as dt
import json
import shutil
import sys
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from exact_core.config import SyntheticConfig, override
from exact_core.data.synthetic import BANDS, generate_scene
from exact_core.data.windows.dataset import WindowDataset
from exact_core.errors import ConfigError, CorruptError, DataError
from exact_core.evaluation.transfer.findings import Level, compare_seasons
from exact_core.manifest import publish_record
from exact_core.mapping.pixel_series import sample_training_season
from exact_core.recipes import resolve
from exact_core.stages.champion import champion
from exact_core.stages.ingest import ingest
from exact_core.stages.promote import promote
from exact_core.stages.train_segmenter import train_segmenter
from exact_core.stages.transfer_report import _calendar, transfer_report
from exact_core.tracking.registry import CHAMPION
from exact_core.tracking.runs import NoTracker
from exact_kubeflow.cli.app import main
from tests.conftest import TINY
from tests.fakes import write_raster

TRACKER = NoTracker()
SIZE = 72
SEEN = ["data.season.longest_gap=300", "data.season.offset=stated"]


def write_scene(root, seed, start, *, offset=0, cloudy=None):
    """A generated scene as a season folder; on the date number `cloudy` all is bright, and clear by SCL."""
    scene = generate_scene(SyntheticConfig(scene_size=SIZE, crops=2, dates=16), window=24, seed=seed, name="scene")
    for number, day in enumerate(scene.days.tolist()):
        folder = root / f"S2_{start + dt.timedelta(days=day):%Y%m%d}"
        for band, values in zip(BANDS, scene.pixels[number], strict=True):
            bright = 6000 if number == cloudy else 0
            write_raster(folder / f"{band}.tif", (values.astype(int) + offset + bright).astype(np.uint16))
        clear = np.ones_like(scene.clear[number]) if number == cloudy else scene.clear[number]
        write_raster(folder / "SCL.tif", np.where(clear > 0, 4, 9).astype(np.uint8), pixel=20.0)
    codes = np.where(scene.labels == 255, 0, scene.labels).astype(np.uint16)
    write_raster(root / "labels/crop_type.tif", codes)
    (root / "labels/legend.csv").write_text("code,name\n1,winter cereal\n2,maize\n", encoding="utf-8")
    (root / "season.yaml").write_text(f"start: {start}\ndays: 300\n", encoding="utf-8")
    return f"season:{root}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("transfer")
    source = write_scene(root / "source", 1, dt.date(2022, 1, 15))
    sizes = [setting for setting in TINY if not setting.startswith("data.synthetic")]
    # A generated season is seen as seldom as it happens to be, and the offset is for the report to find.
    changes = ["data.window=12", *SEEN, "transfer.windows=24", "transfer.pixels=512"]
    config = resolve("season", seed=1, overrides=[*sizes, *changes])
    ingest(config, source=source, season="", out=root / "dataset", tracker=TRACKER)
    train_segmenter(config, dataset=root / "dataset", masks=None, out=root / "segmenter", tracker=TRACKER)
    offset = write_scene(root / "offset", 2, dt.date(2023, 1, 15), offset=1000)
    return root, config, source, offset


def judged(config, out, **arguments):
    summary = transfer_report(config, out=out, tracker=TRACKER, **arguments)
    record = json.loads((out / "transfer.json").read_text())
    return summary, record, {each["name"]: each["level"] for each in record["findings"]}


def test_the_date_that_condemns_a_season_is_named_with_the_verdict_without_it(trained, tmp_path, monkeypatch, capsys):
    """The training season itself, but for a cloud on one date that SCL calls clear."""
    root, config, _, _ = trained
    source = write_scene(tmp_path / "cloud", 1, dt.date(2022, 1, 15), cloudy=8)
    date = sorted(path.name for path in (tmp_path / "cloud").glob("S2_*"))[8].removeprefix("S2_")
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    config.save(tmp_path / "recipe.yaml")
    command = ["exact", "transfer", source, "--segmenter", str(root / "segmenter"), "--out", str(tmp_path / "out")]
    options = ["--no-tracking", "--recipe", str(tmp_path / "recipe.yaml")]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    record = json.loads((tmp_path / "out/transfer.json").read_text())
    assert [row["date"] for row in record["by_date"] if row["suspect"]] == [day]
    assert record["verdict"] == "do_not_publish"
    assert record["without"]["dates"] == [day]
    better = Level(record["without"]["verdict"])
    assert better != Level.do_not_publish
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [
        "verdict: do not publish. Mend the images, leave out the dates that spoil them (data.season.leave_out), or "
        "train on this season.",
        f"without {day} it would be: {better.words} (--set data.season.leave_out=[{day}])",
        f"report: {tmp_path}/out/report.html",
    ]
    page = (tmp_path / "out/report.html").read_text()
    assert f"Without {day} the verdict would be: {better.words}." in page
    # What the report foretells is what the setting gives.
    left = override(config, [f"data.season.leave_out=[{day}]"])
    _, again, _ = judged(left, tmp_path / "left", source=source, segmenter=root / "segmenter")
    assert (again["verdict"], again["without"]) == (better.value, None)
    with pytest.raises(DataError, match=rf"Without {day} \(data.season.leave_out\) the verdict would be: "):
        strict = override(config, ["transfer.refuse=do_not_publish"])
        transfer_report(strict, source=source, segmenter=root / "segmenter", out=tmp_path / "strict", tracker=TRACKER)


def test_the_model_folder_is_enough(trained, tmp_path):
    root, config, source, offset = trained
    summary, record, levels = judged(config, tmp_path / "same", source=source, segmenter=root / "segmenter")
    # Its own season; the classes of a model of two epochs may be anything.
    assert {levels[name] for name in ("bands", "parts", "series", "shift", "dates")} == {"fine"}
    assert record["training"]["held_out"] == "the validation and test splits"
    assert record["season_start"] == "2022-01-15"
    assert summary["transfer_series"] < 0.15
    page = tmp_path / "copy.html"
    summary, record, levels = judged(
        config, tmp_path / "offset", source=offset, segmenter=root / "segmenter", report=page
    )
    assert levels["bands"] == record["verdict"] == "do_not_publish"
    assert summary["verdict"] == 2
    text = page.read_text()
    assert text == (tmp_path / "offset" / "report.html").read_text()
    assert "offset of 1000" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    # Once more, and asked for a season that begins earlier: its days count as in the model.
    asked = "2022-12-26/320"
    again, record, _ = judged(config, tmp_path / "again", source=offset, season=asked, segmenter=root / "segmenter")
    assert again == summary
    assert record["season_start"] == "2023-01-15"
    assert any("days count from 2023-01-15, as in the model's season (2022-01-15)" in note for note in record["notes"])


def test_a_season_until_a_day_is_held_against_the_same_part_of_training(trained, tmp_path):
    root, config, source, _ = trained
    until = override(config, ["data.season.until=2022-06-15"])
    _, record, levels = judged(until, tmp_path / "until", source=source, segmenter=root / "segmenter")
    assert {levels[name] for name in ("bands", "parts", "series", "shift", "dates")} == {"fine"}
    # 15 January to 15 June are days 0 to 151.
    assert 140 < record["days"][-1]["day"] <= 151
    assert record["dates"][-1] <= "2022-06-15"
    assert any(note.startswith("images until 2022-06-15 are used") for note in record["notes"])
    assert "confidence" not in " ".join(each["reason"] for each in record["classes"])


def test_held_out_series_are_of_half_their_dates_and_set_the_limit(trained):
    root, config, _, _ = trained
    windows = WindowDataset(root / "dataset")
    references = {
        share: sample_training_season(
            windows, None, override(config, [f"transfer.held_out_dates={share}"]).transfer, seed=1
        )
        for share in (0.5, 1)
    }
    half, whole = references[0.5], references[1]
    for each in fields(half.train):
        np.testing.assert_array_equal(getattr(half.train, each.name), getattr(whole.train, each.name))
    assert half.held_out.gap.mean() > 1.3 * whole.held_out.gap.mean()
    assert half.season.held_out_dates == 0.5
    start, days = half.season.start, half.calendar
    # Outside as often as said, by construction, whatever the dates.
    for reference in (half, whole):
        found = compare_seasons(reference, reference.held_out, config.transfer, start=start, days=days)
        (series,) = [each for each in found.findings if each.name == "series"]
        assert series.value == pytest.approx(0.05, abs=0.005)


def test_a_verdict_can_forbid_the_map(trained, tmp_path, monkeypatch, capsys):
    root, _, _, offset = trained
    out = tmp_path / "offset"
    settings = [*SEEN, "transfer.windows=24", "transfer.pixels=512"]
    settings.append("transfer.refuse=do_not_publish")
    changes = [word for setting in settings for word in ("--set", setting)]
    command = ["exact", "transfer", offset, "--segmenter", str(root / "segmenter"), "--out", str(out), "--no-tracking"]
    monkeypatch.setattr(sys, "argv", [*command, *changes])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "do not publish: Reflectance: " in said
    assert "transfer.refuse=never maps it anyway" in said
    assert json.loads((out / "transfer.json").read_text())["findings"]
    assert (out / "report.html").is_file()


def test_the_training_dataset_serves_without_a_model(trained, tmp_path):
    root, config, _, offset = trained
    _, record, levels = judged(config, tmp_path / "a", source=offset, segmenter=None, dataset=root / "dataset")
    assert levels["bands"] == "do_not_publish"
    assert record["training"]["labelled"] == "windows with a single tag"
    _, _, levels = judged(config, tmp_path / "b", source=str(root / "dataset"), segmenter=root / "segmenter")
    assert levels["bands"] == levels["series"] == "fine"


def test_an_older_model_is_judged_by_its_statistics(trained, tmp_path):
    root, config, source, _ = trained
    old = shutil.copytree(root / "segmenter", tmp_path / "old")
    manifest = json.loads((old / "model.json").read_text())
    del manifest["reference"]
    publish_record(old / "model.json", manifest)
    _, record, levels = judged(config, tmp_path / "same", source=source, segmenter=old)
    assert levels == {"bands": "fine", "reference": "look"}
    assert "Train it again" in record["findings"][1]["reason"]
    assert (tmp_path / "same" / "report.html").is_file()


def test_what_cannot_be_compared_is_refused(trained, tmp_path):
    root, config, source, _ = trained
    segmenter = root / "segmenter"
    arguments = {"tracker": TRACKER, "out": tmp_path / "out"}
    page = tmp_path / "page.html"
    assert transfer_report(config, source="synthetic", segmenter=segmenter, report=page, **arguments) == {}
    assert "Nothing to compare" in page.read_text()
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="give a segmenter"):
        transfer_report(config, source=source, segmenter=None, **arguments)
    fewer = override(config, ["data.season.bands=[B02,B03]"])
    with pytest.raises(ConfigError, match="the model needs bands"):
        transfer_report(fewer, source=source, segmenter=segmenter, **arguments)
    with pytest.raises(ConfigError, match="the smaller first"):
        override(config, ["transfer.bands=[2, 1]"])
    spoiled = shutil.copytree(segmenter, tmp_path / "spoiled")
    (spoiled / "reference.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError, match="corrupt"):
        transfer_report(config, source=source, segmenter=spoiled, tracker=TRACKER, out=tmp_path / "other")


def test_the_sample_travels_with_the_champion(trained, tracked, tmp_path):
    root, config, source, _ = trained
    dataset = root / "dataset"
    with tracked("promote") as tracker:
        promote(
            config,
            dataset=dataset,
            segmenter=root / "segmenter",
            model="exact-season",
            out=tmp_path / "promotion",
            tracker=tracker,
        )
    with tracked("champion", "run-2") as tracker:
        fetched = tmp_path / CHAMPION
        champion(model="exact-season", version="1", out=fetched, tracker=tracker)
    ours, theirs = (folder / "reference.safetensors" for folder in (root / "segmenter", fetched))
    assert ours.read_bytes() == theirs.read_bytes()
    _, _, levels = judged(config, tmp_path / "out", source=source, segmenter=fetched)
    assert levels["series"] == "fine"


def test_days_of_the_year_are_compared_by_the_nearer_way_round():
    """A model by day of year, trained from 1 October, and a season from 1 January: 92 days on, not 273 back."""
    reference = SimpleNamespace(calendar=np.arange(5.0, 300, 10), season=SimpleNamespace(start=dt.date(2021, 10, 1)))
    reading = SimpleNamespace(segmenter=SimpleNamespace(reading=SimpleNamespace(dates="day_of_year")))
    model = SimpleNamespace(reference=reference, manifest=object(), trained=reading)
    assert (_calendar(model, dt.date(2022, 1, 1), 300) - reference.calendar).tolist() == [-92.0] * 30
    assert (_calendar(model, dt.date(2022, 9, 1), 300) - reference.calendar).tolist() == [30.0] * 30
