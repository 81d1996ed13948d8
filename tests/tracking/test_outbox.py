"""Records wait on disk while nobody takes them, in order, over kills, and never keep a stage waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException, RestException

from exact_core.tracking import outbox
from exact_core.tracking.errors import AwayError
from exact_core.tracking.outbox import Outbox


class Service:
    """Takes records, or is away, or refuses those of a kind."""

    def __init__(self):
        self.away, self.got, self.files = False, [], {}

    def __call__(self, record):
        if self.away:
            raise MlflowException("API request to http://x failed with exception Connection refused")
        if record["kind"] == "wrong":
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "wrong"})
        if "path" in record:
            self.files[record["kind"]] = Path(record["path"]).read_text()
        self.got.append(record["kind"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "HURRIED_PAUSE"):
        monkeypatch.setattr(outbox, name, 0.02)


def test_what_waits_is_sent_in_order_when_the_service_is_back(tmp_path, caplog):
    service = Service()
    service.away = True
    box = Outbox(tmp_path / "box", service)
    began = time.monotonic()
    for number in range(20):
        box.add({"kind": f"k{number}"})
    (tmp_path / "figure.txt").write_text("drawn")
    box.add({"kind": "file"}, file=tmp_path / "figure.txt")
    (tmp_path / "figure.txt").unlink()
    assert time.monotonic() - began < 10
    with pytest.raises(AwayError, match=r"does not answer: .*Connection refused.*\. 21 records are not sent yet"):
        box.drain(0.2)
    assert len((tmp_path / "box" / "records.jsonl").read_text().splitlines()) == 21
    service.away = False
    box.drain(10)
    assert service.got == [*(f"k{number}" for number in range(20)), "file"]
    assert service.files == {"file": "drawn"}
    assert not (tmp_path / "box").exists()
    assert caplog.text.count("metrics are stored in") == 1
    box.close()


def test_another_process_sends_what_a_killed_one_left(tmp_path):
    service = Service()
    service.away = True
    killed = Outbox(tmp_path / "box", service)
    for kind in ("first", "end"):
        killed.add({"kind": kind})
    killed.close()
    with (tmp_path / "box" / "records.jsonl").open("a") as lines:
        lines.write('{"kind": "half')
    service.away = False
    after = Outbox(tmp_path / "box", service)
    after.add({"kind": "second"})
    after.drain(10)
    assert service.got[-2:] == ["first", "second"]
    assert "end" not in service.got
    after.close()


def test_what_is_refused_does_not_keep_back_the_rest(tmp_path, caplog):
    service = Service()
    box = Outbox(tmp_path / "box", service)
    for kind in ("a", "wrong", "b"):
        box.add({"kind": kind})
    box.drain(10)
    assert service.got == ["a", "b"]
    assert "not recorded (wrong)" in caplog.text
    box.close()


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    service = Service()
    box = Outbox(tmp_path / "file" / "box", service)
    box.add({"kind": "a"})
    box.add({"kind": "b"}, file=tmp_path / "file")
    box.drain(10)
    assert service.got == ["a", "b"]
    assert "cannot save records" in caplog.text
    box.close()
    assert "mlflow-outbox" not in [thread.name for thread in threading.enumerate() if not thread.is_alive()]


def test_processes_that_share_a_folder_do_not_take_each_others_records(tmp_path):
    """Two steps of a loop: the one that is done deletes its own records alone."""
    services = Service(), Service()
    services[1].away = True
    first, second = (Outbox(tmp_path / "box", service) for service in services)
    (tmp_path / "figure.txt").write_text("drawn")
    second.add({"kind": "second"}, file=tmp_path / "figure.txt")
    first.add({"kind": "first"})
    first.drain(10)
    services[1].away = False
    second.drain(10)
    assert [service.got for service in services] == [["first"], ["second"]]
    assert services[1].files == {"second": "drawn"}
    first.close()
    second.close()
    assert [path.name for path in tmp_path.iterdir()] == ["figure.txt"]


def test_one_process_sends_what_several_killed_ones_left(tmp_path):
    """And leaves what a living one still has to send."""
    service, living = Service(), Service()
    service.away = living.away = True
    (tmp_path / "figure.txt").write_text("drawn")
    boxes = [Outbox(tmp_path / "box", each) for each in (service, living, service)]
    for number, box in enumerate(boxes):
        box.add({"kind": f"k{number}"})
    boxes[2].add({"kind": "file"}, file=tmp_path / "figure.txt")
    boxes[0].close()
    boxes[2].close()
    # One that ends before it has sent anything leaves them as they were.
    again = Outbox(tmp_path / "box", service)
    again.add({"kind": "k3"})
    again.close()
    service.away = False
    after = Outbox(tmp_path / "box", service)
    after.drain(10)
    assert service.got == ["k0", "k3", "k2", "file"]
    assert service.files == {"file": "drawn"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["box-2"]
    living.away = False
    boxes[1].drain(10)
    assert living.got == ["k1"]
    for box in (after, boxes[1]):
        box.close()
    assert [path.name for path in tmp_path.iterdir()] == ["figure.txt"]


def test_a_file_that_is_gone_does_not_keep_back_the_rest(tmp_path, caplog):
    service = Service()
    service.away = True
    box = Outbox(tmp_path / "box", service)
    (tmp_path / "figure.txt").write_text("drawn")
    box.add({"kind": "file"}, file=tmp_path / "figure.txt")
    (tmp_path / "box" / "0001" / "figure.txt").unlink()
    box.add({"kind": "end"})
    service.away = False
    box.drain(10)
    assert service.got == ["end"]
    assert "figure.txt is gone" in caplog.text
    box.close()
