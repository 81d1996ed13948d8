"""What .ci/run says of its time: its own lines, around parts that do nothing."""

import re
import subprocess
from pathlib import Path

SCRIPT = (Path(__file__).parents[1] / ".ci" / "run").read_text()


def run(parts: str) -> subprocess.CompletedProcess:
    """The script with its clock and end, and `parts` in the place of what lies between them."""
    start = SCRIPT[SCRIPT.index("limit=") : SCRIPT.index("\n}\n") + 3]
    end = SCRIPT[SCRIPT.index('say "done"') :]
    code = f"set -euo pipefail\n{start}{parts}\n{end}"
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)


def test_every_part_and_the_whole_are_timed():
    done = run("say first\nSECONDS=$((SECONDS + 70))\nsay second\nSECONDS=$((SECONDS + 5))")
    times = {name: int(seconds) for seconds, name in re.findall(r"^ *(\d+) s  (.*)$", done.stdout, re.MULTILINE)}
    assert list(times) == ["first", "second", "in all"]
    assert 70 <= times["first"] <= 72
    assert 5 <= times["second"] <= 7
    assert times["in all"] >= 75
    assert "WARNING" not in done.stderr


def test_more_than_forty_minutes_warn_and_do_not_fail():
    """Other work on the machine slows a run down, so the time alone is no reason to fail."""
    assert "WARNING: that is more than 40 minutes" in run("say long\nSECONDS=2401").stderr
