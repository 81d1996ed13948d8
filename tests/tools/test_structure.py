"""The structure that `make check` holds the code to, measured on trees whose answer is known."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "structure.py"


def measured(tree, *flags):
    done = subprocess.run([sys.executable, TOOL, *flags, tree], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def tree(tmp_path):
    """Two rooms and a module; low imports nothing, high imports low twice."""
    files = {
        "exact_core/__init__.py": "",
        "exact_core/errors.py": "# why\nX = 1  # noqa: E501\n",
        "exact_core/low/__init__.py": "",
        "exact_core/low/one.py": "from exact_core.errors import X\n",
        "exact_core/low/two.py": "def f() -> None:\n    from exact_core.low import one\n",
        "exact_core/stages/__init__.py": "",
        "exact_core/stages/high.py": "import exact_core.low.one\nfrom exact_core.low.two import f\n",
        ".importlinter": "[importlinter]\nroot_package = exact_core\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def lines(out):
    return {line[:28].strip(): line[28:].strip() for line in out.splitlines() if line[:1].strip()}


def test_rooms_arrows_and_imports_are_counted(tree):
    code, out, _ = measured(tree, "--check")
    found = lines(out)
    assert code == 0
    # exact_core itself, errors, low and stages; low -> errors and stages -> low.
    assert (found["modules"], found["rooms"], found["arrows between rooms"]) == ("7", "4", "2")
    # Those within a function count too.
    assert found["imports between modules"] == "4"
    assert found["circles of modules"] == found["circles of rooms"] == "0"


def test_a_circle_is_named_and_fails_the_check_however_long_the_way_round(tree):
    (tree / "exact_core/low/one.py").write_text("def g() -> None:\n    from exact_core.low.two import f\n")
    code, out, said = measured(tree, "--check")
    assert code == 1
    assert lines(out)["circles of modules"] == "1"
    assert "exact_core.low.one, exact_core.low.two" in said
    assert measured(tree)[0] == 0, "without --check it only prints"

    (tree / "exact_core/low/one.py").write_text("from exact_core.other import f\n")
    (tree / "exact_core/other.py").write_text("from exact_core.stages import high\n")
    code, out, said = measured(tree, "--check")
    assert code == 1
    assert lines(out)["circles of rooms"] == "1"
    assert "rooms import each other in a circle: exact_core.low, exact_core.other, exact_core.stages" in said


def test_what_only_annotates_is_no_import(tree):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from exact_core.low.two import f\n"
    (tree / "exact_core/low/one.py").write_text(text)
    assert measured(tree, "--check")[0] == 0


def test_an_exception_in_the_contract_fails_the_check(tree):
    contract = "[importlinter:contract:a]\nname = a\nignore_imports =\n    exact_core.low -> minio\n"
    (tree / ".importlinter").write_text(contract)
    code, _, said = measured(tree, "--check")
    assert code == 1
    assert "exact_core.low -> minio" in said


def test_a_long_function_of_a_stage_fails_the_check(tree):
    for count, expected in ((58, 0), (59, 1)):
        (tree / "exact_core/stages/high.py").write_text("def long() -> None:\n" + "    x = 1\n" * count)
        code, _, said = measured(tree, "--check")
        assert code == expected
    assert "exact_core/stages/high.py:1: long has 60 lines" in said


def test_comments_are_counted_without_directives(tree):
    (tree / "exact_core/models").mkdir()
    text = '"""# no comment"""\n# why\nx = "# text"  # a reason\ny = 1  # type: ignore\nz = 2  # noqa\n'
    (tree / "exact_core/models/sequences.py").write_text(text)
    _, out, _ = measured(tree)
    assert "comments models/sequences.py      2 of 5 lines, 40.0 in a hundred" in out


def test_a_folder_without_code_is_named(tmp_path):
    code, _, said = measured(tmp_path)
    assert code != 0
    assert str(tmp_path) in said
