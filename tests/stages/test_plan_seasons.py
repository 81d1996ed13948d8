"""Seasons as a person lists them."""

import pytest

from exact_core.errors import ConfigError
from exact_core.stages.plan_seasons import plan_seasons

SOURCE = "season:/data/x"


def planned(*seasons, source=SOURCE, supervision="tags"):
    found = plan_seasons(source=source, seasons=seasons, supervision=supervision)
    return [(each["source"], each["season"]) for each in found]


def test_seasons_of_one_source_and_sources_worked_by_hand():
    assert planned("2022", "2023-04-01/214") == [(SOURCE, "2022"), (SOURCE, "2023-04-01/214")]
    # Numbers arrive as floats in a pipeline.
    assert planned(2022, 2023.0) == [(SOURCE, "2022"), (SOURCE, "2023")]
    assert planned("season:/a", "season:/b@2023", "season:/mail@b@2023-04-01/214", "season:/c@home", "2024") == [
        ("season:/a", ""),
        ("season:/b", "2023"),
        ("season:/mail@b", "2023-04-01/214"),
        ("season:/c@home", ""),
        (SOURCE, "2024"),
    ]


@pytest.mark.parametrize(
    ("seasons", "said"),
    [
        ([], "two or more"),
        (["2022"], "two or more"),
        ([2022, "2022"], "there twice"),
        (["2022", f"{SOURCE}@2022"], "there twice"),
        ([str(2000 + year) for year in range(9)], "9 of them, but a run can have at most 5.*the command"),
        (["2022", "spring"], "expected a year"),
        (["2022", ""], "one of them is empty"),
        (["2022", True], "expected a year"),
        (["2022", "[[ScheduledTime]]"], "KFP v2 does not fill in such a placeholder"),
        (["season:/a", "synthetic@2022"], "a synthetic source has its own season"),
    ],
)
def test_what_cannot_be_left_out_in_turn(seasons, said):
    with pytest.raises(ConfigError, match=said):
        planned(*seasons)


def test_no_such_supervision():
    with pytest.raises(ConfigError, match="supervision = 'masks': expected tags or dense"):
        planned("2022", "2023", supervision="masks")
