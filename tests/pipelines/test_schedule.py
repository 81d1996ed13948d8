"""`exact schedule`: the SDK's client against a server that checks each call by the SDK's models."""

import datetime as dt
import functools

import pytest
import yaml
from exact_kubeflow.pipelines import schedule
from exact_kubeflow.pipelines.package import load_package
from exact_kubeflow.pipelines.schedule_file import load_schedule

from exact_core.errors import ConfigError
from tests.commands import exact

FILE = {
    "name": "flanders",
    "pipeline": "new_season",
    "experiment": "crops",
    "cron": "0 0 3 15 11 *",
    "season": {"starts": "04-01", "days": 214},
    "parameters": {"recipe": "season", "source": "season:/data/flanders", "seed": 3},
}
NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def file(tmp_path):
    def write(**changes):
        path = tmp_path / "season.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in {**FILE, **changes}.items() if value is not None}))
        return path

    return write


def only(entries):
    (entry,) = entries.values()
    return entry


def test_a_schedule_is_created_as_the_file_says(server, capsys, file):
    code, out, _ = exact(capsys, "schedule", "apply", file())
    assert code == 0
    assert "schedule flanders: created" in out
    made = only(server.recurring)
    version = server.versions[made["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"] == load_package("new_season").version
    assert server.experiments[made["experiment_id"]]["display_name"] == "crops"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 15 11 *"}}
    assert made["runtime_config"]["parameters"] == {
        "recipe": "season",
        "source": "season:/data/flanders",
        "seed": 3,
        "season": "auto",
        "season_start": "04-01",
        "season_days": 214,
    }
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)


def test_applied_twice_nothing_changes(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    before, seen = dict(server.recurring), len(server.log)
    code, out, _ = exact(capsys, "schedule", "apply", file())
    assert code == 0
    assert f"schedule flanders: unchanged ({next(iter(before))})" in out
    assert server.recurring == before
    assert {method for method, _ in server.log[seen:]} == {"GET"}


def test_a_changed_file_replaces_it_and_says_what_changed(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    (old,) = server.recurring
    season = {"starts": "04-01", "days": 240}
    parameters = {"recipe": "season", "source": "season:/data/all"}
    changed = file(cron="0 0 4 1 12 *", season=season, parameters=parameters, enabled=False, experiment="trials")
    code, out, _ = exact(capsys, "schedule", "apply", changed)
    assert code == 0
    (new,) = server.recurring
    assert new != old
    assert f"schedule flanders: replaced ({new})" in out
    assert sorted(line.strip() for line in out.splitlines() if "->" in line) == [
        "cron: '0 0 3 15 11 *' -> '0 0 4 1 12 *'",
        "enabled: True -> False",
        "experiment: 'crops' -> 'trials'",
        "parameters.season_days: 214 -> 240",
        "parameters.seed: 3 -> none",
        "parameters.source: 'season:/data/flanders' -> 'season:/data/all'",
    ]
    assert f"removed {old}" in out
    assert server.recurring[new]["mode"] == "DISABLE"
    assert "not enabled: it starts nothing" in out
    assert "unchanged" in exact(capsys, "schedule", "apply", changed)[1]


def test_other_code_is_another_version(server, capsys, file, tmp_path):
    """The version is pinned; what is uploaded later changes a schedule only when it is applied."""
    package = load_package("new_season")
    mine = tmp_path / "mine.yaml"
    mine.write_text(package.text)
    exact(capsys, "schedule", "apply", file(pipeline=str(mine)))
    mine.write_text(package.text.replace("exact-python-", "registry.example.org/exact-python-"))
    out = exact(capsys, "schedule", "apply", file(pipeline=str(mine)))[1]
    assert [line.strip() for line in out.splitlines() if "->" in line] == [
        f"version: '{package.version}' -> '{load_package(str(mine)).version}'"
    ]
    assert len(server.recurring) == 1
    assert len(server.pipelines) == 1


def test_what_was_changed_or_deleted_elsewhere_is_put_right(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    only(server.recurring)["mode"] = "DISABLE"
    assert "enabled: False -> True" in exact(capsys, "schedule", "apply", file())[1]
    only(server.recurring)["max_concurrency"] = "4"
    assert "max_concurrency: 4 -> 1" in exact(capsys, "schedule", "apply", file())[1]
    server.recurring.clear()
    assert "schedule flanders: created" in exact(capsys, "schedule", "apply", file())[1]
    server.versions.clear()
    out = exact(capsys, "schedule", "apply", file())[1]
    assert "version: " in out
    assert only(server.recurring)["pipeline_version_reference"]["pipeline_version_id"] in server.versions


def test_a_run_at_work_outlives_its_schedule(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    old = only(server.recurring)
    run = server.add_run(run_of(old), script=["RUNNING"])
    exact(capsys, "schedule", "apply", file(enabled=False))
    assert old["recurring_run_id"] not in server.recurring
    assert server.runs[run["run_id"]]["state"] == "RUNNING"
    exact(capsys, "schedule", "delete", "flanders")
    assert server.runs[run["run_id"]]["state"] == "RUNNING"


def run_of(recurring, **extra):
    """What the server starts at a slot."""
    names = ("display_name", "experiment_id", "pipeline_version_reference", "runtime_config", "recurring_run_id")
    return {**{name: recurring[name] for name in names}, **extra}


def test_an_interrupted_replacement_leaves_two_and_the_next_apply_one(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    server.fail(99, 500, "DELETE", "/recurringruns/.*")
    assert exact(capsys, "schedule", "apply", file(enabled=False))[0] == 1
    assert len(server.recurring) == 2
    server.faults.clear()
    code, out, _ = exact(capsys, "schedule", "apply", file(enabled=False))
    assert code == 0
    assert "unchanged" in out
    assert "removed" in out
    assert only(server.recurring)["mode"] == "DISABLE"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_server_at_fault_makes_no_second_schedule(server, capsys, file, after):
    server.fail(2, 500, "GET", "/recurringruns")
    server.fail(1, 502, "POST", "/recurringruns", after=after)
    assert exact(capsys, "schedule", "apply", file())[0] == 0
    assert not server.faults
    assert len(server.recurring) == 1
    server.fail(1, 500, "DELETE", "/recurringruns/.*", after=after)
    server.fail(1, 500, "POST", "/recurringruns", after=after)
    code, out, _ = exact(capsys, "schedule", "apply", file(enabled=False))
    assert code == 0
    assert "replaced" in out
    assert only(server.recurring)["mode"] == "DISABLE"


def test_lists_come_in_pages(server, capsys, file):
    server.page_limit = 2
    for name in ("a", "b", "c", "d", "e"):
        exact(capsys, "schedule", "apply", file(name=name))
    code, out, _ = exact(capsys, "schedule", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "e", "d", "c", "b", "a"]
    assert "unchanged" in exact(capsys, "schedule", "apply", file(name="a"))[1]


def test_an_empty_list(server, capsys):
    assert exact(capsys, "schedule", "list")[1] == "no schedules\n"


def test_show_prints_the_file_that_would_declare_it(server, capsys, file, tmp_path):
    applied = file(end="2030-01-01T00:00:00Z")
    exact(capsys, "schedule", "apply", applied)
    out = exact(capsys, "schedule", "show", "flanders")[1]
    assert load_package("new_season").version in out
    again = tmp_path / "again.yaml"
    again.write_text(out.replace("pipeline: new-season", "pipeline: new_season"))
    assert load_schedule(again) == load_schedule(applied)
    assert "unchanged" in exact(capsys, "schedule", "apply", again)[1]


def test_show_of_a_pipeline_that_was_put_up_under_another_name(server, capsys, file, tmp_path):
    """As in the UI, where its user names it: what is printed can be applied."""
    exact(capsys, "schedule", "apply", file())
    for pipeline in server.pipelines.values():
        pipeline["display_name"] = "mine-from-the-ui"
    out = exact(capsys, "schedule", "show", "flanders")[1]
    assert "# uploaded as mine-from-the-ui" in out
    again = tmp_path / "again.yaml"
    again.write_text(out)
    code, out, _ = exact(capsys, "schedule", "apply", again)
    assert code == 0
    assert "pipeline: 'mine-from-the-ui' -> 'new-season'" in out


def test_the_service_account_of_its_runs(server, capsys, file):
    """Without one the server fills in its own, which is not taken for a change."""
    exact(capsys, "schedule", "apply", file())
    assert only(server.recurring)["service_account"] == "pipeline-runner"
    assert "unchanged" in exact(capsys, "schedule", "apply", file())[1]
    assert "service_account" not in exact(capsys, "schedule", "show", "flanders")[1]
    mine = file(service_account="exact-runner")
    assert "service_account: 'pipeline-runner' -> 'exact-runner'" in exact(capsys, "schedule", "apply", mine)[1]
    assert only(server.recurring)["service_account"] == "exact-runner"
    assert "unchanged" in exact(capsys, "schedule", "apply", mine)[1]
    assert "service_account: exact-runner" in exact(capsys, "schedule", "show", "flanders")[1]
    assert "service_account: 'exact-runner' -> none" in exact(capsys, "schedule", "apply", file())[1]
    assert only(server.recurring)["service_account"] == "pipeline-runner"


def test_a_default_account_that_is_named_must_be_that_one(server, capsys, file):
    server.multi_user = True
    named = ("--namespace", "jane")
    exact(capsys, "schedule", "apply", file(), *named)
    assert "unchanged" in exact(capsys, "schedule", "apply", file(), *named)[1]
    out = exact(capsys, "schedule", "apply", file(service_account="pipeline-runner"), *named)[1]
    assert "service_account: 'default-editor' -> 'pipeline-runner'" in out


def test_delete(server, capsys, file):
    exact(capsys, "schedule", "apply", file())
    code, _, err = exact(capsys, "schedule", "delete", "flander")
    assert code == 1
    assert "did you mean 'flanders'?" in err
    assert "deleted" in exact(capsys, "schedule", "delete", "flanders")[1]
    assert server.recurring == {}
    for command in ("delete", "show"):
        code, _, err = exact(capsys, "schedule", command, "flanders")
        assert code == 1
        assert "no schedule 'flanders'" in err


def test_deleted_by_somebody_else_in_between(server, capsys, file):
    """The server forgets it between our list and our delete: that is what was wanted."""
    exact(capsys, "schedule", "apply", file())
    server.fail(1, 404, "DELETE", "/recurringruns/.*", after=True)
    assert exact(capsys, "schedule", "delete", "flanders")[0] == 0


def test_an_old_server_is_refused_before_anything_is_changed(server, capsys, file):
    server.tag = "2.16.0"
    code, _, err = exact(capsys, "schedule", "apply", file())
    assert code == 1
    assert "needs KFP 2.17 or newer" in err
    assert {method for method, _ in server.log} == {"GET"}


def apply(file, **settings):
    schedule.apply(file, now=NOW, **settings)


def test_a_start_that_has_passed_is_not_sent(server, capsys, file):
    """With it KFP would run the latest slot at once, and again at every replacement."""
    apply(file(start="2026-01-01"))
    assert "start_time" not in only(server.recurring)["trigger"]["cron_schedule"]
    assert "next: 2027-11-15 03:00:00 UTC, season 2027-04-01/214" in capsys.readouterr().out
    apply(file(start="2026-01-01"))
    assert "unchanged" in capsys.readouterr().out
    apply(file(start="2027-01-01"))
    assert "start: none -> 2027-01-01 00:00:00+00:00" in capsys.readouterr().out
    assert only(server.recurring)["trigger"]["cron_schedule"]["start_time"] == "2027-01-01T00:00:00+00:00"
    apply(file(start="2027-01-01"))
    assert "unchanged" in capsys.readouterr().out


def test_an_interval_keeps_its_beat(server, capsys, file):
    """Every ten days from 1 October: the slots before now are 11, 21, 31 October, 10 and 20 November."""
    beat = {"cron": None, "interval": "10d", "start": "2026-10-01"}
    apply(file(**beat))
    sent = only(server.recurring)["trigger"]["periodic_schedule"]
    assert sent == {"interval_second": "864000", "start_time": "2026-11-20T00:00:00+00:00"}
    assert "next: 2026-11-30 00:00:00 UTC" in capsys.readouterr().out
    schedule.apply(file(**beat), now=NOW + dt.timedelta(days=25))
    assert "unchanged" in capsys.readouterr().out
    apply(file(**{**beat, "start": "2026-10-02"}))
    assert "start: 2026-11-20 00:00:00+00:00 -> 2026-11-21 00:00:00+00:00" in capsys.readouterr().out


FORTNIGHT = {
    "name": "flanders",
    "cron": None,
    "interval": "14d",
    "start": "2027-06-02T04:00:00Z",
    "parameters": {"source": "season:/data/flanders", "until": "auto", "until_from": "06-01"},
}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ("2026-11-22", "next: 2027-06-16 04:00:00 UTC, season 2027-04-01/214 until 2027-06-15"),
        ("2027-10-19", "next: 2027-10-20 04:00:00 UTC, season 2027-04-01/214 until 2027-10-19"),
        ("2027-10-30", "next: 2027-11-03 04:00:00 UTC, season 2027-04-01/214"),
        ("2028-05-20", "next: 2028-05-31 04:00:00 UTC, season 2027-04-01/214"),
    ],
)
def test_a_map_every_two_weeks_from_a_stated_day(server, capsys, file, now, said):
    schedule.apply(file(**FORTNIGHT), now=dt.datetime.fromisoformat(f"{now}T00:00:00Z"))
    assert capsys.readouterr().out.splitlines()[-1].strip() == said
    given = only(server.recurring)["runtime_config"]["parameters"]
    assert (given["season"], given["until"], given["until_from"]) == ("auto", "auto", "06-01")


@pytest.mark.parametrize(
    ("slot", "said"), [("2025-06-16", "submitted as run"), ("2025-11-04", "not submitted, run 'flanders' is succeeded")]
)
def test_a_run_within_the_season_is_none_of_all_of_it(server, capsys, file, slot, said):
    file = functools.partial(file, **FORTNIGHT)
    apply(file())
    server.add_run(run_of(only(server.recurring), scheduled_at=f"{slot}T04:00:00Z"), script=["SUCCEEDED"])
    apply(file(), backfill="2025")
    assert f"season 2025-04-01/214: {said}" in capsys.readouterr().out


def test_past_seasons_are_run_once_each(server, capsys, file):
    server.script = ["RUNNING", "SUCCEEDED"]
    file = functools.partial(file, service_account="exact-runner")
    apply(file(), backfill="2022..2024")
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if ": submitted as run" in line] == [
        "2022-04-01/214:",
        "2023-04-01/214:",
        "2024-04-01/214:",
    ]
    runs = list(server.runs.values())
    assert [run["runtime_config"]["parameters"]["season"] for run in runs] == [
        "2022-04-01/214",
        "2023-04-01/214",
        "2024-04-01/214",
    ]
    assert all(run["runtime_config"]["parameters"]["source"] == "season:/data/flanders" for run in runs)
    assert {run["service_account"] for run in runs} == {"exact-runner"}
    runs[0]["state"], runs[1]["state"] = "SUCCEEDED", "FAILED"
    apply(file(), backfill="2021..2024")
    out = capsys.readouterr().out
    assert f"season 2022-04-01/214: not submitted, run '{runs[0]['display_name']}' is succeeded" in out
    assert f"season 2024-04-01/214: not submitted, run '{runs[2]['display_name']}' is running" in out
    assert len(server.runs) == 5
    # Another source, another season rule and other code are other runs.
    apply(file(parameters={"source": "season:/data/other"}), backfill="2022")
    assert len(server.runs) == 6
    apply(file(season={"starts": "05-01", "days": 100}), backfill="2022")
    assert len(server.runs) == 7


def test_a_season_that_the_schedule_has_run_is_not_run_again(server, capsys, file):
    """The run's own parameter says auto; its slot, 15 November 2025, says which season that was."""
    server.page_limit = 1
    apply(file())
    slot = run_of(only(server.recurring), scheduled_at="2025-11-15T03:00:00Z")
    server.add_run(slot, script=["SUCCEEDED"])
    apply(file(), backfill="2024..2025")
    out = capsys.readouterr().out
    assert "season 2024-04-01/214: submitted" in out
    assert "season 2025-04-01/214: not submitted, run 'flanders' is succeeded" in out


@pytest.mark.parametrize(
    ("years", "words"),
    [
        ("2024..2022", "expected FIRST..LAST"),
        ("last", "expected FIRST..LAST"),
        ("2025..2027", "season 2027-04-01/214 ends on 2027-11-01, after today"),
    ],
)
def test_years_that_cannot_be_run(server, file, years, words):
    with pytest.raises(ConfigError, match=words):
        apply(file(), backfill=years)
    assert server.log == []


def test_a_pipeline_without_seasons_has_none_to_run(server, file):
    with pytest.raises(ConfigError, match="no season rule"):
        apply(file(pipeline="train_exact", season=None), backfill="2024")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cron": "0 3 1 9 *"}, "Put a 0 in front: '0 0 3 1 9 *'"),
        ({"cron": "0 0 3 1 13 *"}, "month '13': outside 1-12"),
        ({"cron": None}, "give either cron or interval"),
        ({"interval": 86400}, "give either cron or interval"),
        ({"cron": None, "interval": "90d"}, "an interval requires start"),
        ({"cron": None, "interval": "soon", "start": "2026-01-01"}, "for example 90d"),
        ({"start": "2027-01-01", "end": "2026-01-01"}, "is not after start"),
        ({"crone": "0 0 3 1 9 *"}, "did you mean 'cron'"),
        ({"season": {"starts": "02-29", "days": 90}}, "only leap years"),
        ({"season": {"starts": "13-01", "days": 90}}, "month must be in 1..12"),
        ({"season": {"starts": "04-01", "days": 0}}, "season.days"),
        ({"parameters": {"season": "2024"}}, "Keep one"),
        ({"parameters": {"sourc": "x"}}, "did you mean 'source'"),
        ({"season": None, "parameters": {"season": "[[ScheduledTime.2006]]"}}, "does not fill in such a placeholder"),
        ({"season": None, "parameters": {"season": "{{$.scheduledTime}}"}}, "does not fill in such a placeholder"),
        ({"season": None, "parameters": {"season_days": 0}}, "season rule"),
        ({"cron": "0 0 3 30 2 *"}, "no date within 5 years fits"),
        ({"parameters": {"recipe": "seasn"}}, "unknown recipe 'seasn'"),
        ({"parameters": {"minimum_quality": float("nan")}}, "minimum_quality = nan: expected a number that is finite"),
        ({"parameters": {"webhook": "hooks.example.org/x"}}, "no URL that can be called"),
        ({"parameters": {"model": "exact/flanders"}}, "MLflow takes no name of a model with / or :"),
        ({"pipeline": "train_exact"}, "pipeline train-exact has no parameter 'season_start'"),
    ],
)
def test_a_wrong_file_is_explained_and_nothing_is_sent(server, capsys, file, changes, words):
    code, _, err = exact(capsys, "schedule", "apply", file(**changes))
    assert code == 1
    assert words in err
    assert server.log == []


def test_no_file_and_no_mapping(tmp_path):
    with pytest.raises(ConfigError, match="not a readable schedule"):
        load_schedule(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_schedule(tmp_path / "list.yaml")
