"""Claims: of many that want the same, one goes on, on every kind of board; a claim that has ended blocks nobody."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from exact_core import claims
from exact_core.claims import take
from exact_core.storage import open_store
from exact_core.storage.leases import StoreBoard, release


@pytest.fixture
def leases(tmp_path):
    return open_store((tmp_path / "store").as_uri()).below("leases")


@pytest.fixture
def board(leases):
    return StoreBoard(leases, "flanders/2026")


def test_one_has_it_and_the_others_are_told_who(board, leases):
    assert take(board, "a", seconds=60) == ""
    assert take(board, "b", seconds=60) == "a"
    assert take(StoreBoard(leases, "flanders/2027"), "b", seconds=60) == ""
    # Renewed, given back, and free.
    assert take(board, "a", seconds=60) == ""
    release(leases, "a")
    assert take(board, "b", seconds=60) == ""
    assert leases.list_keys() == ["flanders/2026/b.json", "flanders/2027/b.json"]
    release(leases, "nobody")


def test_a_claim_that_has_ended_counts_no_longer(board):
    assert take(board, "killed", seconds=0.05) == ""
    time.sleep(0.1)
    assert take(board, "b", seconds=60) == ""


def test_what_is_no_claim_blocks_nobody(board):
    for name, text in {"x": "{", "y": "[]", "z": "{}"}.items():
        board.put(name, text)
    assert take(board, "a", seconds=60) == ""


def test_two_that_see_each_other_both_give_way_and_one_comes_back(board):
    """Whoever has not made sure yet may give way: then it is worth another try."""
    board.put("b", json.dumps({"until": time.time() + 0.3, "sure": False}))
    assert take(board, "a", seconds=60) == ""


def test_who_has_it_renews_it_whoever_tries_at_that_moment(board):
    assert take(board, "a", seconds=60) == ""
    board.put("b", json.dumps({"until": time.time() + 60, "sure": False}))
    assert take(board, "a", seconds=90) == ""
    assert json.loads(board.claims()["a"])["until"] > time.time() + 80
    assert take(board, "b", seconds=60) == "a"


def test_never_two_at_once(board, monkeypatch):
    """Many threads, each in a loop; the matter itself counts who is in it."""
    monkeypatch.setattr(claims, "FIRST_PAUSE", 0.002)
    inside, most, done, lock = 0, 0, 0, threading.Lock()

    def work(name: str) -> None:
        nonlocal inside, most, done
        for _ in range(6):
            if take(board, name, seconds=60):
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= 1
                done += 1
            board.remove(name)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, "abcdef"))
    assert most == 1
    assert done > 0
