"""What comes from secrets and the environment: stripped, refused with its name, and never printed with its login."""

from __future__ import annotations

import pytest

from exact_core.environment import number, patience, readable_file, shown, variable
from exact_core.errors import ConfigError


@pytest.mark.parametrize("text", ["value\n", " value", "value \r\n"])
def test_white_space_around_a_variable_is_no_part_of_it(monkeypatch, text):
    monkeypatch.setenv("EXACT_STORE", text)
    assert variable("EXACT_STORE") == "value"


def test_nothing_but_white_space_is_nothing(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "\n")
    assert variable("AWS_SESSION_TOKEN") == ""
    assert variable("AWS_SESSION_TOKEN", "default") == "default"


@pytest.mark.parametrize("text", ["a\nb", "a\x00b".replace("\x00", "\x07"), "a\u200bb", "a\tb"])
def test_control_characters_are_refused_with_the_name_and_without_the_value(monkeypatch, text):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", text)
    with pytest.raises(ConfigError, match=r"AWS_SECRET_ACCESS_KEY has the character .* at position 2 of 3; .*echo -n"):
        variable("AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("http://mlflow:S3cretPw@127.0.0.1:9/x", "http://mlflow:***@127.0.0.1:9/x"),
        (
            "postgresql+psycopg2://me:a:b@host/db does not answer",
            "postgresql+psycopg2://me:***@host/db does not answer",
        ),
        ("https://token@host", "https://***@host"),
        ("http://host/a@b", "http://host/a@b"),
        ("https://host/x?user=a&password=geheim&z=1", "https://host/x?user=a&password=***&z=1"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("two http://a:b@c and http://d:e@f", "two http://a:***@c and http://d:***@f"),
    ],
)
def test_logins_are_hidden(text, printed):
    assert shown(text) == printed


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "ten", "1e999"])
def test_numbers_are_numbers(monkeypatch, text):
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", text)
    with pytest.raises(ConfigError, match=f"EXACT_PATIENCE_MINUTES = '{text}'; give a number of minutes"):
        patience()


def test_patience_is_in_minutes(monkeypatch):
    assert patience() == 600
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", "0.5\n")
    assert patience() == 30
    assert number("EXACT_CACHE_GB", 20, unit="gigabytes") == 20


def test_a_variable_that_names_no_file_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    assert readable_file("AWS_CA_BUNDLE") == ""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=rf"AWS_CA_BUNDLE = {tmp_path}/ca\.pem: cannot be read: No such file"):
        readable_file("AWS_CA_BUNDLE")
