"""`exact submit` and `exact follow`: the SDK's client against a server that checks each call by the SDK's models."""

import json
import os
import re
import shlex
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from exact_kubeflow.pipelines import follow as following
from exact_kubeflow.pipelines.cluster import Cluster
from exact_kubeflow.pipelines.compile import PIPELINES
from exact_kubeflow.pipelines.package import load_package

from exact_core.errors import ConfigError, ServiceError
from tests.certificates import self_signed
from tests.commands import exact
from tests.pipelines.compiled import ROOT

STEPS = ["ingest", "train-classifier", "generate-masks", "train-segmenter", "evaluate"]


def test_a_run_is_submitted_and_followed(server, capsys):
    server.script = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    server.steps = [{}, {"ingest": "RUNNING"}, {"ingest": "SUCCEEDED", "train-classifier": "RUNNING"}]
    server.steps.append(dict.fromkeys(STEPS, "SUCCEEDED"))
    code, out, _ = exact(
        capsys, "submit", "train_exact", "-p", "seed=3", "-p", "source=season:/data/s", "--set", "data.window=12"
    )
    assert code == 0
    (run,) = server.runs.values()
    assert run["runtime_config"] == {
        "parameters": {"seed": 3, "source": "season:/data/s", "overrides": ["data.window=12"]}
    }
    version = server.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"] == load_package("train_exact").version
    assert server.experiments[run["experiment_id"]]["display_name"] == "exact"
    told = re.findall(r"^\d\d:\d\d:\d\d (.*)$", out, re.MULTILINE)
    assert told[:3] == ["ingest: running", "ingest: succeeded", "train-classifier: running"]
    assert sorted(told[3:]) == sorted(f"{step}: succeeded" for step in STEPS[1:])
    assert f"/#/runs/details/{run['run_id']} after kubectl -n kubeflow port-forward svc/ml-pipeline-ui" in out
    assert run["description"].startswith("source season:/data/s, recipe demo, by ")
    assert "Experiment details" not in out


def test_a_misspelt_choice_is_refused_before_anything_is_sent(server, capsys):
    code, _, err = exact(capsys, "submit", "new_season", "-p", "training=sometimes")
    assert code == 1
    assert "if_no_champion" in err
    assert not server.runs


@pytest.mark.parametrize(
    ("script", "code", "word"),
    [
        (["RUNNING", "SUCCEEDED"], 0, "succeeded"),
        (["RUNNING", "FAILED"], 1, "failed"),
        # As a real one has it: what was terminated is FAILED in the end.
        (["RUNNING", "CANCELING", "FAILED"], 3, "terminated"),
    ],
)
def test_the_exit_code_is_what_became_of_the_run(server, capsys, script, code, word):
    server.script = script
    server.steps = [{"ingest": "RUNNING"}] * (len(script) - 1) + [{"ingest": script[-1]}]
    got, out, err = exact(capsys, "submit", "train_dense")
    assert got == code
    assert f": {word} (followed" in out
    assert ("failed: ingest" in err) == (word == "failed")


def test_all_packages_are_put_up_once_with_a_table_of_their_parameters(server, capsys):
    code, out, _ = exact(capsys, "upload")
    assert code == 0
    assert sorted(each["display_name"] for each in server.pipelines.values()) == sorted(
        load_package(name.removesuffix(".yaml")).name for name in PIPELINES
    )
    assert out.count("uploaded") == len(PIPELINES)
    package = load_package("train_exact")
    for described in (*server.pipelines.values(), *server.versions.values()):
        if described["display_name"] in (package.name, package.version) and "description" in described:
            assert "| parameter | default | meaning |" in described["description"]
            for name, spec in package.inputs.items():
                assert f"| {name} |" in described["description"]
                assert spec["description"] in described["description"]
    assert exact(capsys, "upload")[1].count("already there") == len(PIPELINES)


def test_unchanged_code_is_uploaded_once(server, capsys, tmp_path):
    assert "uploaded" in exact(capsys, "submit", "train_exact", "--no-wait")[1]
    code, out, _ = exact(capsys, "submit", "train_exact", "--no-wait")
    assert code == 0
    assert "already there" in out
    assert server.calls("POST", "/pipelines/upload_version") == 1
    assert len(server.runs) == 2
    assert len({run["display_name"] for run in server.runs.values()}) == 2
    # Other code, here another image, is another version of the same pipeline.
    package = load_package("train_exact")
    text = package.text.replace("exact-python-", "registry.example.org/exact-python-")
    other = tmp_path / "other.yaml"
    other.write_text(text)
    assert "uploaded" in exact(capsys, "submit", other, "--no-wait")[1]
    assert len(server.pipelines) == 1
    assert server.calls("POST", "/pipelines/upload_version") == 2


def test_a_run_that_is_not_waited_for_can_be_followed_later(server, capsys):
    server.script = ["RUNNING", "FAILED"]
    code, out, _ = exact(capsys, "submit", "train_exact", "--no-wait", "--name", "spring", "--experiment", "trials")
    assert code == 0
    (run,) = server.runs.values()
    assert run["display_name"].startswith("spring ")
    assert f"exact follow {run['run_id']}" in out
    assert server.calls("GET", "/runs/.*") == 0
    assert exact(capsys, "follow", run["run_id"])[0] == 1


def test_ctrl_c_ends_the_following_not_the_run(server, capsys, request):
    server.script = ["RUNNING"]

    # A shell starts what it puts in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt():
        while server.calls("GET", "/runs/.+") < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    code, _, err = exact(capsys, "submit", "train_dense")
    assert code == 130
    (run,) = server.runs.values()
    assert run["state"] == "RUNNING"
    assert f"To follow it again: exact follow {run['run_id']}" in err


@pytest.mark.parametrize(
    ("path", "looked_up"),
    [
        ("/runs", "/runs"),
        ("/experiments", "/experiments"),
        ("/pipelines/upload", "/pipelines"),
        ("/pipelines/upload_version", "/pipelines/[^/]+/versions"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_server_at_fault_is_asked_again_and_nothing_is_made_twice(server, capsys, path, looked_up, after):
    server.fail(2, 500, "POST", path)
    server.fail(1, 503, "POST", path, after=after)
    server.fail(2, 502, "GET", looked_up)
    assert exact(capsys, "submit", "train_exact")[0] == 0
    assert not server.faults
    assert [len(each) for each in (server.runs, server.experiments, server.pipelines)] == [1, 1, 1]
    assert server.calls("POST", path) == 3 + (not after)
    ours = [each for each in server.versions.values() if each["display_name"] == load_package("train_exact").version]
    assert len(ours) == 1


def test_a_server_that_stays_at_fault_is_given_up(server, capsys):
    server.fail(99, 500, "GET", "/experiments")
    code, _, err = exact(capsys, "submit", "train_exact")
    assert code == 1
    assert "failed 6 times, last with 500: Internal Server Error: driver: bad connection" in err
    assert not server.runs


def test_a_server_that_goes_away_while_a_run_is_followed(server, capsys, monkeypatch):
    monkeypatch.setattr(following, "FOLLOW_ATTEMPTS", 3)
    server.fail(99, 503, "GET", "/runs/.+")
    code, _, err = exact(capsys, "submit", "train_exact")
    (run,) = server.runs
    assert code == 1
    assert f"the run may well go on: exact follow {run}" in err


def test_nobody_at_the_address(server, capsys):
    server.close()
    started = time.monotonic()
    code, _, err = exact(capsys, "submit", "train_exact")
    assert code == 1
    assert err == (
        f"exact: {server.host} cannot be reached (no connection). Check --host or KFP_HOST, and whether the "
        f"port-forward or VPN to the cluster is up\n"
    )
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("host", ["", "kubeflow.example.org"])
def test_no_address(server, monkeypatch, host):
    monkeypatch.setenv("KFP_HOST", host)
    with pytest.raises(ConfigError, match="port-forward"):
        Cluster()


def test_something_else_at_the_address(server):
    with pytest.raises(ServiceError, match=r"no KFP API \(404\).*ends before /apis"):
        Cluster(f"{server.host}/pipeline")


def test_a_private_authority(server, monkeypatch, tmp_path):
    key, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        other.socket = context.wrap_socket(other.socket, server_side=True)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        host = f"https://127.0.0.1:{other.server_port}"
        with pytest.raises(ServiceError, match=rf"^{host}: its certificate is not trusted here; set KFP_CA_CERT"):
            Cluster(host)
        monkeypatch.setenv("KFP_CA_CERT", str(certificate))
        with pytest.raises(ServiceError, match="501"):
            Cluster(host)
        other.shutdown()


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read: No such file"), ("hello", "no certificates")])
def test_a_file_of_an_authority_that_is_none(server, monkeypatch, tmp_path, content, words):
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("KFP_CA_CERT", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=rf"KFP_CA_CERT = .*ca\.pem: .*{words}"):
        Cluster()


def test_a_token_that_has_a_line_break_is_named(server, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "one\ntwo")
    with pytest.raises(ConfigError, match=r"KFP_TOKEN has the character '\\n' at position 4 of 7") as error:
        Cluster()
    assert "one" not in str(error.value)


def test_a_token_is_sent_and_a_wrong_one_explained(server, capsys, monkeypatch):
    server.token = "right"  # noqa: S105 - of a server that lives as long as this test
    code, _, err = exact(capsys, "submit", "train_exact", "--no-wait")
    assert code == 1
    assert "not logged in (401): put a valid token into KFP_TOKEN" in err
    monkeypatch.setenv("KFP_TOKEN", "right")
    assert exact(capsys, "submit", "train_exact", "--no-wait")[0] == 0


def test_a_namespace_without_rights(server, capsys):
    server.forbidden = True
    code, _, err = exact(capsys, "submit", "train_exact", "--namespace", "theirs")
    assert code == 1
    assert "not allowed (403" in err
    assert "theirs" in err


def test_several_users(server, capsys):
    server.multi_user = True
    code, _, err = exact(capsys, "submit", "train_exact", "--no-wait")
    assert code == 1
    assert "Name your namespace in --namespace or KFP_NAMESPACE" in err
    assert exact(capsys, "submit", "train_exact", "--no-wait", "--namespace", "jane")[0] == 0
    (experiment,) = server.experiments.values()
    assert experiment["namespace"] == "jane"


def test_the_service_account_of_the_steps(server, capsys, monkeypatch):
    """By option, by variable, and by neither: then the server's own."""
    assert exact(capsys, "submit", "train_exact", "--no-wait", "--service-account", "exact-runner")[0] == 0
    monkeypatch.setenv("KFP_SERVICE_ACCOUNT", "from-the-variable")
    assert exact(capsys, "submit", "train_exact", "--no-wait")[0] == 0
    monkeypatch.setenv("KFP_SERVICE_ACCOUNT", "")
    assert exact(capsys, "submit", "train_exact", "--no-wait")[0] == 0
    accounts = [run["service_account"] for run in server.runs.values()]
    assert accounts == ["exact-runner", "from-the-variable", "pipeline-runner"]


def test_the_command_that_the_readme_gives_for_a_laptop(server, capsys):
    """As written there, but for the address; what its steps ask for: tests/deploy/test_kind.py."""
    readme = (ROOT / "deploy" / "README.md").read_text()
    (line,) = re.findall(r"^\.venv/bin/exact submit .*--host http://127.*$", readme, re.MULTILINE)
    _, *words = shlex.split(line)
    words[words.index("--host") + 1] = server.host
    assert exact(capsys, *words)[0] == 0
    (run,) = server.runs.values()
    assert run["service_account"] == "exact-runner"


def test_an_old_server_gets_named_seasons_only(server, capsys):
    server.tag = "2.16.1"
    code, _, err = exact(capsys, "submit", "new_season", "--no-wait")
    assert code == 1
    assert "is KFP 2.16, which does not pass the schedule's time to a run" in err
    assert not server.pipelines
    assert exact(capsys, "submit", "new_season", "--no-wait", "-p", "season=2025")[0] == 0


def test_a_server_without_a_release(server, capsys):
    server.tag = "unknown"
    code, _, err = exact(capsys, "submit", "new_season", "--no-wait")
    assert code == 0
    assert "Season auto needs KFP 2.17 or newer" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train_maize"], "unknown pipeline 'train_maize'. Choose train_exact"),
        (["nothing.yaml"], "nothing.yaml: not a readable pipeline"),
        (["train_exact", "-p", "sed=1"], "did you mean 'seed'"),
        (["train_exact", "-p", "seed"], "expected NAME=VALUE"),
        (["train_exact", "-p", "seed=one"], "needs NUMBER_INTEGER here, not str"),
        (["train_exact", "-p", "seed=true"], "needs NUMBER_INTEGER here, not bool"),
        (["train_exact", "-p", "seed=-1"], "seed = -1: expected 0 or more"),
        (["train_exact", "-p", "seed=9007199254740993"], "at most 2^53"),
        (["train_exact", "-p", "minimum_quality=.nan"], "expected a number that is finite"),
        (["train_exact", "-p", "minimum_quality=.inf"], "expected a number that is finite"),
        (["train_exact", "-p", "minimum_quality=60"], "a share from 0 to 1"),
        (["train_exact", "-p", "recipe="], "unknown recipe ''"),
        (["train_exact", "--set", "clasifier.training.epochs=1"], "unknown key 'clasifier'"),
        (["train_exact", "-p", "source=sesaon:/data"], "unknown source 'sesaon:/data'"),
        (["train_exact", "-p", "webhook=hooks.example.org/x"], "no URL that can be called"),
        (["map_area", "-p", "season=2025", "-p", "model=exact:flanders"], "for example exact-flanders"),
        (["train_exact", "-p", "overrides=[]", "--set", "a=1"], "Use one of them"),
        (["train_exact", "-p", "season=auto"], "does not follow a schedule"),
        (["map_area", "-p", "map_parts=17"], "map_parts = 17: expected 1 to 8"),
        (["train_exact", "-p", "recipe=demoo"], "unknown recipe 'demoo'. Choose one of demo"),
        (["train_exact", "-p", "source=nowhere"], "unknown source 'nowhere', expected synthetic"),
        (["train_exact", "-p", "model=a/b"], "model = 'a/b': MLflow takes no name"),
        (["train_exact", "-p", "webhook=ftp://x"], "webhook = 'ftp://x': no URL that can be called"),
        (["train_exact", "-p", "image=exact:latest"], "'exact:latest' moves. Give it an exact tag"),
        (["train_exact", "-p", "resources={gpu: 1}"], "keys: cpu, memory"),
        (["new_season", "-p", "training=never"], "expected always or if_no_champion"),
        (["leave_one_season_out"], "two or more"),
        (["new_season", "-p", "season=last"], "expected a year"),
        (["new_season", "-p", "season=[[ScheduledTime]]"], "KFP v2 does not fill in such a placeholder"),
        (["new_season", "-p", "season={{$.scheduledTime}}"], "KFP v2 does not fill in such a placeholder"),
        (["new_season", "-p", 'overrides=["a=[[CurrentTime]]"]'], "KFP v2 does not fill in such a placeholder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(server, capsys, arguments, words):
    code, _, err = exact(capsys, "submit", *arguments)
    assert code == 1
    assert words in err
    assert server.log == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("minimum_quality=1e-2", 0.01),
        ("minimum_quality=1", 1),
        ("seed=1e3", 1000),
        ("seed=010", 10),
        ("seed=2.0", 2),
    ],
)
def test_numbers_as_people_write_them(text, value):
    package = load_package("train_exact")
    (got,) = package.arguments(package.read([text])).values()
    assert got == value
    assert type(got) is type(value)


def test_the_version_follows_code_and_image():
    package = load_package("train_exact")
    assert re.fullmatch(r"train-exact-\d+\.\d+\.\d+[a-z0-9.]*-[0-9a-f]{10}-[0-9a-f]{8}", package.version)
    assert load_package("train-exact") == package


def test_the_server_of_these_tests_is_strict(server):
    """A field that the SDK's model lacks, or another type, is an error there, so that a wrong call cannot pass."""
    for body in ({"display_nam": "x"}, {"display_name": 1}, {"display_name": "x", "created_at": "2026"}):
        request = urllib.request.Request(
            f"{server.host}/apis/v2beta1/experiments", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request)
