"""What passes from step to step, and the parameters that are refused before anything is done."""

import json
import math

import pytest

from exact_core.errors import ConfigError
from exact_core.stages.parameters import check_parameters
from exact_core.stages.run import Run, read_run
from exact_core.stages.sizing import Resources


def test_a_run_comes_back_as_it_was_given_numbers_being_floats_by_then():
    run = Run(recipe="demo", seed=3, overrides=("device=cpu",), source="synthetic", part="2/3", pipeline_run="abc")
    given = json.loads(json.dumps(run.given()), parse_int=float)
    assert given["seed"] == 3.0
    assert read_run(given) == run
    assert read_run(given).config().seed == 3
    assert set(Run(recipe="demo").given()) == {"recipe"}


@pytest.mark.parametrize("wrong", [{}, {"recipe": "demo", "sourse": "x"}, {"recipe": "demo", "seed": 0.5}])
def test_what_is_no_run_is_refused(wrong):
    with pytest.raises(ConfigError, match="run"):
        read_run(wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": "demoo"}, "unknown recipe 'demoo'. Choose one of demo, "),
        ({"recipe": "demo", "overrides": ["no.such=1"]}, "no.such"),
        ({"source": "nowhere:x"}, "expected synthetic"),
        ({"season": "[[ScheduledTime]]"}, "KFP v2 does not fill in"),
        ({"season": "spring"}, "expected a year"),
        ({"season_start": "4/1", "season_days": 214}, "MM-DD"),
        ({"season_start": "04-01", "season_days": 0}, "days"),
        ({"season_start": "04-01", "season_days": 214, "until": "June"}, "expected YYYY-MM-DD, or auto"),
        ({"season_start": "04-01", "season_days": 9, "until": "auto", "until_from": "05-01"}, "not a day of a season"),
        ({"seed": math.nan}, "seed = nan: expected a number that is finite"),
        ({"seed": math.inf}, "seed = inf"),
        ({"seed": 1e-2}, "seed = 0.01"),
        ({"seed": -1}, "seed = -1"),
        ({"minimum_quality": math.nan}, "minimum_quality = nan: expected a number that is finite"),
        ({"minimum_quality": math.inf}, "minimum_quality = inf"),
        ({"minimum_quality": 60}, "minimum_quality = 60"),
        ({"training": "sometimes"}, "expected always or if_no_champion"),
        ({"supervision": "none"}, "expected tags or dense"),
        ({"model": "a/b"}, "model = 'a/b': MLflow takes no name"),
        ({"model": "models:/x"}, "model = "),
        ({"map_name": "a/b", "source": "season:/data/x"}, "map_name = 'a/b': expected at most 63 letters"),
        ({"map_name": "", "source": "season:s3://b/0.json"}, "gives no name to the region of its maps"),
        ({"webhook": "ftp://x"}, "webhook = 'ftp://x': no URL that can be called: expected http://"),
        ({"webhook": "https://"}, "webhook"),
        ({"resources": {"gpu": 1}}, "keys: cpu, memory"),
        ({"map_parts": 7, "most_parts": 6}, "map_parts = 7: expected 1 to 6"),
        ({"map_parts": 0, "most_parts": 6}, "map_parts = 0"),
        ({"map_parts": 1.5, "most_parts": 6}, "map_parts = 1.5"),
        ({"map_parts": math.nan, "most_parts": 6}, "map_parts = nan"),
    ],
)
def test_a_wrong_parameter_is_refused_with_the_choices(given, said):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.").replace("[[", r"\[\[") if "[[" in said else said):
        check_parameters(given)


def test_what_is_right_is_accepted():
    check_parameters(
        {
            "recipe": "season",
            "source": "season:/data/x",
            "season": "2024",
            "season_start": "04-01",
            "season_days": 214.0,
            "seed": 1.0,
            "overrides": ["device=cpu"],
            "minimum_quality": 0.6,
            "training": "if_no_champion",
            "supervision": "dense",
            "model": "exact-flanders",
            "map_name": "flanders",
            "map_parts": 3.0,
            "most_parts": 6.0,
            "webhook": "https://chat.example/hook",
            "resources": {key: field.default for key, field in Resources.model_fields.items()},
        }
    )
