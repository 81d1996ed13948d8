"""Each way in which a season can be unlike training's is found by the finding that should find it."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from exact_core.config import SyntheticConfig, TransferConfig
from exact_core.data.synthetic import BANDS, generate_scene
from exact_core.data.windows.dataset import VOID, Statistics, Window
from exact_core.data.windows.regular_series import CALENDAR_STEPS
from exact_core.data.windows.series_sample import ReferenceSeason, SampleBuilder, SeasonSamples, SeriesSample
from exact_core.evaluation.transfer.findings import Level, compare_seasons, compare_statistics, worst

SETTINGS = TransferConfig()
CALENDAR = (np.arange(CALENDAR_STEPS) + 0.5) / CALENDAR_STEPS * 300
CROPS = ("winter cereal", "maize", "rapeseed", "sugar beet")
START = dt.date(2023, 1, 15)


def sample(seed, change=lambda window: window):
    """Pixels of a generated scene, each with its true class and a confidence of 0.8."""
    scene = generate_scene(SyntheticConfig(scene_size=72, crops=4, dates=28), window=24, seed=seed, name="scene")
    builder = SampleBuilder(CALENDAR, per_window=128, seed=seed)
    for row in range(0, 72, 24):
        for col in range(0, 72, 24):
            label = scene.labels[row : row + 24, col : col + 24]
            label = np.where(label == VOID, 0, label)
            chances = np.where(np.arange(5)[:, None, None] == label, 0.8, 0.05).astype(np.float32)
            window = Window(
                pixels=scene.pixels[:, :, row : row + 24, col : col + 24],
                days=scene.days,
                tags=np.zeros(4, np.uint8),
                labels=None,
                clear=scene.clear[:, row // 2 : row // 2 + 12, col // 2 : col // 2 + 12],
            )
            builder.add(change(window), chances)
    return builder.finish()


@pytest.fixture(scope="module")
def reference():
    season = ReferenceSeason(
        start=dt.date(2022, 1, 15),
        days=300,
        bands=BANDS,
        classes=CROPS,
        calendar=tuple(CALENDAR.tolist()),
        held_out="scenes 11 and 12",
        labelled="the truth",
    )

    def together(*seeds):
        parts = [sample(seed) for seed in seeds]
        return SeriesSample(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("series", "gap", "label", "confidence", "window")
            )
        )

    return SeasonSamples(season, together(1, 2, 3), together(11, 12))


def dated(window, chosen, days):
    return replace(window, pixels=window.pixels[chosen], days=days[chosen], clear=window.clear[chosen])


def later(window):
    days = window.days + 40
    return dated(window, days < 300, days)


def brighter(window):
    return replace(window, pixels=(window.pixels + 1000).astype(np.int16))


def without_spring(window):
    return dated(window, (window.days < 70) | (window.days > 190), window.days)


def judged(reference, change=lambda window: window, **settings):
    found = compare_seasons(
        reference, sample(21, change), SETTINGS.model_copy(update=settings), start=START, days=CALENDAR
    )
    return found, {each.name: each for each in found.findings}


def test_the_same_season_elsewhere_is_fine(reference):
    found, findings = judged(reference)
    assert found.verdict == Level.fine, findings
    assert 0.0 <= findings["series"].value < 0.12


def test_held_out_windows_are_outside_as_often_as_said(reference):
    found = compare_seasons(reference, reference.held_out, SETTINGS, start=START, days=CALENDAR)
    (series,) = [each for each in found.findings if each.name == "series"]
    assert series.value == pytest.approx(0.05, abs=0.002)
    assert all(row.beyond == 0 for row in found.bands)


def test_a_late_season_is_found_by_its_timing(reference):
    found, findings = judged(reference, later)
    assert findings["shift"].level == Level.do_not_publish
    assert 30 <= findings["shift"].value <= 50
    assert "Growth is this late" in findings["shift"].reason
    assert findings["series"].level != Level.fine
    assert findings["bands"].level == Level.fine
    shifts = {row.name: row.shift for row in found.classes}
    assert shifts["winter cereal"] == pytest.approx(40, abs=12)
    assert shifts["background"] is None


def test_a_sensor_offset_is_found_by_reflectance_and_named(reference):
    _, findings = judged(reference, brighter)
    assert findings["bands"].level == Level.do_not_publish
    assert "the offset of 1000 of processing baseline 04.00, not taken off?" in findings["bands"].reason
    assert findings["shift"].level == Level.fine
    assert findings["dates"].level == Level.fine


def test_missing_dates_at_a_key_time_are_named(reference):
    found, findings = judged(reference, without_spring)
    assert findings["dates"].level != Level.fine
    # Days 70 to 190 are 26 March to 24 July.
    assert "April" in findings["dates"].reason or "May" in findings["dates"].reason
    assert "0 % of the area has a clear look within 15 days, in training" in findings["dates"].reason
    for name in ("bands", "series", "shift"):
        assert findings[name].level == Level.fine, findings[name]
    assert found.verdict == findings["dates"].level


def test_a_class_that_the_model_is_unsure_of_is_named(reference):
    new = sample(21)
    new = replace(new, confidence=np.where(new.label == 2, np.float32(0.4), new.confidence))
    found = compare_seasons(reference, new, SETTINGS, start=START, days=CALENDAR)
    rows = {row.name: row for row in found.classes}
    assert rows["maize"].level == Level.do_not_publish
    assert "confidence 0.40 instead of 0.80" in rows["maize"].reason
    assert {name for name, row in rows.items() if row.level != Level.fine} == {"maize"}


def test_without_a_sample_only_means_are_compared():
    statistics = Statistics(mean=(1000.0, 2000.0), std=(500.0, 500.0), pixels=10, origin="training")
    found = compare_statistics(statistics, np.array([1100.0, 2000.0]), ("B02", "B03"), SETTINGS)
    assert [each.level for each in found.findings] == [Level.fine, Level.look]
    assert found.bands[0].shift == pytest.approx(0.2)
    found = compare_statistics(statistics, np.array([2000.0, 2000.0]), ("B02", "B03"), SETTINGS)
    assert found.verdict == Level.do_not_publish


def test_levels_ascend():
    assert worst([]) == Level.fine
    assert worst([Level.look, Level.do_not_publish, Level.fine]) == Level.do_not_publish
    assert Level.do_not_publish.words == "do not publish"
