"""What comes from secrets and the environment: stripped, refused with its name, and never printed with its login."""

from __future__ import annotations

import os
import ssl
import threading
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest
import requests
from exact_kubeflow.components.__main__ import main as step

from exact_core.environment import authorities_file, load_environment, number, patience, shown, variable
from exact_core.errors import ConfigError
from exact_kubeflow.cli.app import main as command
from tests.certificates import self_signed


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
    with pytest.raises(ConfigError, match=r"AWS_SECRET_ACCESS_KEY has the character .* at position 2 of 3. .*echo -n"):
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
    with pytest.raises(ConfigError, match=f"EXACT_PATIENCE_MINUTES = '{text}'. Give a number of minutes"):
        patience()


def test_patience_is_in_minutes(monkeypatch):
    assert patience() == 600
    monkeypatch.setenv("EXACT_PATIENCE_MINUTES", "0.5\n")
    assert patience() == 30
    assert number("EXACT_CACHE_GB", 20, unit="gigabytes") == 20


def test_a_variable_that_names_no_file_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    assert authorities_file("AWS_CA_BUNDLE") == ""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=rf"AWS_CA_BUNDLE = {tmp_path}/ca\.pem: cannot be read: No such file"):
        authorities_file("AWS_CA_BUNDLE")
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(ConfigError, match=rf"AWS_CA_BUNDLE = {tmp_path}/ca\.pem: holds no certificates"):
        authorities_file("AWS_CA_BUNDLE")


@pytest.fixture
def kept(monkeypatch):
    """The environment as it was, afterwards."""
    before = dict(os.environ)
    yield monkeypatch
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def test_further_variables_come_in_one_as_a_shell_would_set_them(kept):
    kept.setenv("no_proxy", "kept")
    kept.delenv("https_proxy", raising=False)
    text = "# of this cluster\nAWS_ENDPOINT_URL_S3=https://s3.example  https_proxy='http://me:p#ss w@proxy:3128'\n"
    kept.setenv("EXACT_ENVIRONMENT", f"{text}\n  # a=b\nno_proxy=.svc,10.0.0.0/8\nEXACT_STAC_TOKEN=a=b\n")
    load_environment()
    names = ("AWS_ENDPOINT_URL_S3", "https_proxy", "no_proxy", "EXACT_STAC_TOKEN")
    assert [os.environ[name] for name in names] == ["https://s3.example", "http://me:p#ss w@proxy:3128", "kept", "a=b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1 geheim", "word 2 of 2 is not NAME=VALUE"),
        ("A=1\n2B=geheim", "word 2 of 2 is not NAME=VALUE"),
        ("A='geheim", "No closing quotation. Write NAME=VALUE"),
    ],
)
def test_what_is_no_list_of_variables_is_refused_without_its_values(kept, text, said):
    kept.setenv("EXACT_ENVIRONMENT", text)
    with pytest.raises(ConfigError, match=f"EXACT_ENVIRONMENT: {said}") as refused:
        load_environment()
    assert "geheim" not in str(refused.value)


def test_a_step_refuses_it_in_one_line(kept, capsys, caplog):
    kept.setenv("EXACT_ENVIRONMENT", "proxy")
    kept.setattr("sys.argv", ["components", "preflight", "{}"])
    with pytest.raises(SystemExit, match="1"):
        step()
    assert "preflight: EXACT_ENVIRONMENT: word 1 of 1 is not NAME=VALUE" in caplog.text
    kept.setattr("sys.argv", ["exact", "doctor"])
    with pytest.raises(SystemExit, match="1"):
        command()
    assert capsys.readouterr().err.startswith("exact: EXACT_ENVIRONMENT: word 1 of 1")


def test_an_authority_is_trusted_by_every_client(kept, tmp_path):
    """A server whose certificate only EXACT_CA_CERTIFICATES vouches for, given as it would be in a secret."""
    key, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            kept.delenv(name, raising=False)
        with pytest.raises(requests.exceptions.SSLError):
            requests.head(url, timeout=10)
        kept.setenv("EXACT_ENVIRONMENT", f'EXACT_CA_CERTIFICATES="{certificate.read_text()}"')
        load_environment()
        assert requests.head(url, timeout=10).ok
        # Not urlopen, whose opener keeps the authorities of its first use in this process, from Python 3.12 on.
        with urllib.request.build_opener().open(url, timeout=10) as answer:
            assert answer.status == 200
        # The known authorities are still there, and the store's client has the same file.
        bundle = Path(os.environ["AWS_CA_BUNDLE"]).read_text()
        assert bundle.startswith(Path(certifi.where()).read_text())
        server.shutdown()
    kept.setenv("EXACT_CA_CERTIFICATES", "-----BEGIN geheim")
    with pytest.raises(ConfigError, match="EXACT_CA_CERTIFICATES: holds no certificates: .*Give PEM") as refused:
        load_environment()
    assert "geheim" not in str(refused.value)
