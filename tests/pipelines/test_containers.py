"""Exit codes of containers, with an engine that answers as Docker's client does: no engine is needed here."""

from __future__ import annotations

import pytest
from exact_kubeflow.pipelines import local
from exact_kubeflow.pipelines.containers import honest_exit_codes
from kfp import local as kfp_local
from kfp.local import docker_task_handler, status

from exact_core.errors import ServiceError


class Container:
    """One that says something and ends with a code; `breaks` raises where its log is read or its end awaited."""

    def __init__(self, code, breaks):
        self.code, self.breaks = code, breaks
        self.calls = []

    def logs(self, **_):
        self.calls.append("logs")
        yield b"a few words\n"
        if self.breaks == "logs":
            raise ConnectionError("the engine has gone")

    def wait(self):
        self.calls.append("wait")
        if self.breaks == "wait":
            raise ConnectionError("the engine has gone")
        return {"StatusCode": self.code, "Error": None}

    def remove(self, *, force=False):
        self.calls.append(f"remove force={force}")


class Engine:
    """A client of Docker's, as far as a step needs it."""

    def __init__(self, code=0, breaks=""):
        self.container = Container(code, breaks)
        self.options = {}
        self.containers = self.images = self

    def run(self, image, command, **options):
        self.options = {"image": image, "command": command, **options}
        return self.container

    def list(self):
        return []

    def pull(self, image):
        pass

    def info(self):
        return {}

    def close(self):
        pass


def step(monkeypatch, engine):
    """A step as KFP's local runner runs it; its status."""
    monkeypatch.setattr("docker.from_env", lambda: engine)
    # KFP keeps the last run's settings, whichever test had one: its workspace would be mounted too.
    monkeypatch.setattr("kfp.local.config.LocalExecutionConfig.instance", None)
    runner = kfp_local.DockerRunner(user="1000:1000", read_only=True)
    task = docker_task_handler.DockerTaskHandler(
        image="exact-python-train:1", full_command=["false"], pipeline_root="/root-of-run", runner=runner
    )
    with honest_exit_codes():
        return task.run()


@pytest.mark.parametrize(("code", "expected"), [(0, status.Status.SUCCESS), (7, status.Status.FAILURE)])
def test_a_step_ends_as_its_container_does(monkeypatch, capsys, code, expected):
    engine = Engine(code)
    assert step(monkeypatch, engine) == expected
    # Removed by its own end, it would take its exit code with it.
    assert "auto_remove" not in engine.options
    assert engine.options["detach"]
    assert (engine.options["user"], engine.options["read_only"]) == ("1000:1000", True)
    assert engine.options["volumes"] == {"/root-of-run": {"bind": "/root-of-run", "mode": "rw"}}
    assert engine.container.calls == ["logs", "wait", "remove force=True"]
    assert "a few words" in capsys.readouterr().out


def test_the_exit_code_is_handed_on(monkeypatch):
    engine = Engine(7)
    with honest_exit_codes():
        assert docker_task_handler.run_docker_container(engine, "image:1", ["false"], {}) == 7


@pytest.mark.parametrize("breaks", ["logs", "wait"])
def test_a_container_is_removed_whatever_happens(monkeypatch, breaks):
    engine = Engine(7, breaks)
    with pytest.raises(ConnectionError):
        step(monkeypatch, engine)
    assert engine.container.calls[-1] == "remove force=True"


@pytest.mark.parametrize("in_containers", [True, False])
def test_kfps_own_way_is_replaced_while_containers_run_and_only_then(monkeypatch, tmp_path, in_containers):
    before, during = docker_task_handler.run_docker_container, []

    def pipeline(**arguments):
        during.append(docker_task_handler.run_docker_container)
        raise RuntimeError("a step failed")

    monkeypatch.setattr(local, "_for_here", lambda _: pipeline)
    monkeypatch.setattr(local, "docker_runner", lambda *_, **__: kfp_local.DockerRunner())
    monkeypatch.setattr(local, "finish_pipeline_run", lambda *_, **__: None)
    with pytest.raises(ServiceError, match="a step failed"):
        local.run(
            tmp_path / "work",
            source="synthetic",
            recipe="demo",
            season="",
            seed=1,
            overrides=[],
            supervision="tags",
            in_containers=in_containers,
        )
    assert len(during) == 1
    assert (during[0] is before) == (not in_containers)
    assert docker_task_handler.run_docker_container is before
