"""Tokens and addresses: who gets what, and what no message may show."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import pytest

from exact_core.data.stac.web import Token, Web, without_secrets
from exact_core.errors import ServiceError


def command(text: str) -> str:
    """Prints `text`."""
    return f'{sys.executable} -c "import base64; print(base64.b64decode({base64.b64encode(text.encode())!r}).decode())"'


def jwt(end: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": end}).encode()).decode().rstrip("=")
    return f"head.{claims}.sign"


def counting(tmp_path: Path, line: str) -> tuple[str, Path]:
    """A command that notes each run and prints `line`, a Python expression of the run's number n."""
    count, script = tmp_path / "count", tmp_path / "token.py"
    script.write_text(
        f"import json, pathlib\np = pathlib.Path({str(count)!r})\nn = len(p.read_text()) if p.exists() else 0\n"
        f"p.write_text('x' * (n + 1))\nprint({line})\n"
    )
    return f"{sys.executable} {script}", count


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("abc", "abc"),
        (jwt(4e9), jwt(4e9)),
        ("a.b.c", "a.b.c"),
        ('{"access_token": "abc", "expires_in": 300}', "abc"),
        ('{"access_token": "abc"}', "abc"),
    ],
)
def test_what_a_command_prints(printed: str, expected: str) -> None:
    assert Token(command=command(printed)).get() == expected


@pytest.mark.parametrize(
    "printed", ["", "two words", '{"token": "abc"}', "{", '{"access_token": "a", "expires_in": "x"}']
)
def test_what_is_no_token(printed: str) -> None:
    with pytest.raises(ServiceError, match="expected one bearer token on stdout, or JSON with access_token"):
        Token(command=command(printed)).get()


def test_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(
        ServiceError, match="EXACT_STAC_TOKEN_COMMAND: exit code 3: no such user. Run the command by hand"
    ):
        Token(command=f"{sys.executable} -c \"import sys; sys.stderr.write('no such user'); sys.exit(3)\"").get()
    with pytest.raises(ServiceError, match="Give a command that prints a bearer token"):
        Token(command=str(tmp_path / "none")).get()
    with pytest.raises(ServiceError, match="No closing quotation"):
        Token(command="echo 'a").get()


def test_a_token_is_kept_until_it_expires(tmp_path: Path) -> None:
    line, count = counting(tmp_path, "json.dumps({'access_token': f't{n}', 'expires_in': 10 if n == 0 else 3600})")
    token = Token(command=line)
    # The first ends within the half minute that is kept in hand.
    assert [token.get() for _ in range(3)] == ["t0", "t1", "t1"]
    assert count.read_text() == "xx"
    assert Token(command=command(jwt(time.time() - 1))).get()


def test_a_refused_token_is_renewed_once_by_however_many_threads(tmp_path: Path) -> None:
    line, count = counting(tmp_path, "f't{n}'")
    token = Token(command=line)
    assert token.get() == "t0"
    assert token.renew("t0")
    assert token.renew("t0")
    assert token.get() == "t1"
    assert count.read_text() == "xx"
    assert not Token("fixed").renew("fixed")


def test_text_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXACT_STAC_TOKEN", " abc\n")
    assert Token.from_environment().get() == "abc"
    monkeypatch.delenv("EXACT_STAC_TOKEN")
    assert Token.from_environment().get() == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.org/v1/search", "abc"),
        ("https://data.example.org/B02.tif", "abc"),
        ("https://api.example.org:8443/v1", ""),
        ("http://api.example.org/v1", ""),
        ("https://other.example.org/B02.tif", ""),
        ("https://api.example.org.evil.example/", ""),
        ("https://evil.example/api.example.org", ""),
        ("https://[broken", ""),
    ],
)
def test_who_gets_the_token(url: str, expected: str) -> None:
    web = Web("https://api.example.org/v1", token=Token("abc"), token_hosts=["data.example.org"])
    assert web.token_for(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@a.example/B02.tif?sig=secret#x", "https://a.example/B02.tif"),
        ("https://a.example:8080/x", "https://a.example:8080/x"),
        ("https://[broken?sig=secret", "https://[broken"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
