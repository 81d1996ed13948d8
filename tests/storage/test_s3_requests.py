"""How an S3 server is reached and what is said of its answers: addresses, proxies, certificates, error codes."""

from __future__ import annotations

import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from exact_core.errors import ConfigError, ServiceError
from exact_core.storage import StoreOptions, open_store
from exact_core.storage.client import FailedRequestError
from tests.certificates import self_signed

QUICK = StoreOptions(attempts=2, first_pause=0.05, timeout=5.0)
STATUS = {
    "AccessDenied": 403,
    "AllAccessDisabled": 403,
    "AuthorizationHeaderMalformed": 400,
    "ExpiredToken": 400,
    "IllegalLocationConstraintException": 400,
    "InsufficientStorage": 507,
    "InvalidToken": 400,
    "KMS.DisabledException": 400,
    "NotImplemented": 501,
    "PermanentRedirect": 301,
    "QuotaExceeded": 403,
    "RequestTimeTooSkewed": 403,
    "SlowDown": 503,
    "TokenRefreshRequired": 400,
}
ADVICE = {
    "AccessDenied": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "AllAccessDisabled": "name another",
    "AuthorizationHeaderMalformed": r"its region: eu-west-1\).*set AWS_REGION",
    "ExpiredToken": "renew AWS_SESSION_TOKEN",
    "IllegalLocationConstraintException": r"its region: eu-west-1\).*set AWS_REGION",
    "InsufficientStorage": "make room",
    "InvalidToken": "renew AWS_SESSION_TOKEN",
    "KMS.DisabledException": "encryption key of the bucket",
    "NotImplemented": "server lacks what is needed",
    "PermanentRedirect": r"its region: eu-west-1\).*set AWS_REGION",
    "QuotaExceeded": "make room",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SlowDown": "that the store is up",
    "TokenRefreshRequired": "renew AWS_SESSION_TOKEN",
}


class Answering(BaseHTTPRequestHandler):
    """Answers everything with the error that the bucket's name spells, or, as a proxy, notes what it was asked for."""

    asked: list[str]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        bucket = self.path.split("://")[-1].split("/")[1].split("?")[0]
        code = next((each for each in STATUS if each.lower().replace(".", "") == bucket), "AccessDenied")
        body = (
            f"<Error><Code>{code}</Code><Message>Words about {code}.</Message><Region>eu-west-1</Region></Error>"
        ).encode()
        self.send_response(STATUS[code])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the server looks for this name


@pytest.fixture(params=["minio", "boto3"])
def server(monkeypatch, request):
    """A server; `asked` are the paths of its requests, which each library makes."""
    monkeypatch.setenv("EXACT_S3_CLIENT", request.param)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (Answering,), {"asked": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.asked, running.library = handler.asked, request.param
    running.address = f"127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{running.address}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield running
    running.shutdown()
    running.server_close()


def ask(bucket="denied"):
    return open_store(f"s3://{bucket}/p", options=QUICK).read("x")


@pytest.mark.parametrize("code", sorted(STATUS))
def test_each_code_has_its_advice(server, code):
    with pytest.raises(ServiceError, match=f"(?s){code}: Words about {code}.*{ADVICE[code]}"):
        ask(code.lower().replace(".", ""))
    # What will not pass is not asked again, but that boto3 follows to the region that an answer names.
    elsewhere = "set AWS_REGION" in ADVICE[code] and server.library == "boto3"
    assert len(server.asked) == (2 if code == "SlowDown" or elsewhere else 1)


def test_the_address_for_s3_goes_first(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{server.address}\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="AccessDenied"):
        ask()
    assert server.asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:9000",
        "http://host:70000",
        "http://mini_o:9000",
        "http://host/path",
        "http://user:geheim@host:9000",
        "http://",
        "ftp://host",
        "http://host:9000?x=1",
    ],
)
def test_addresses_that_are_none_are_refused_with_the_variable(server, monkeypatch, address):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(ConfigError, match=r"^AWS_ENDPOINT_URL = ") as refused:
        ask()
    assert "geheim" not in str(refused.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with pytest.raises(ConfigError, match=r"^AWS_ENDPOINT_URL_S3 = "):
        ask()


def test_a_proxy_is_used_unless_no_proxy_names_the_host(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.corp.example")
    monkeypatch.setenv("http_proxy", f"http://{server.address}")
    with pytest.raises(ServiceError, match=f"http://store.corp.example by the proxy http://{server.address}"):
        ask()
    assert server.asked[0].startswith("http://store.corp.example/denied")
    asked = len(server.asked)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.address}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ServiceError, match="AccessDenied"):
        ask()
    assert server.asked[asked].startswith("/denied")


def test_a_proxy_that_is_away_is_named_without_its_login(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.corp.example")
    monkeypatch.setenv("http_proxy", "http://me:geheim@127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"by the proxy http://127\.0\.0\.1:9 .*no_proxy") as error:
        ask()
    assert "geheim" not in str(error.value)


def test_a_private_authority(server, monkeypatch, tmp_path):
    key, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{server.address}")
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServiceError, match=r"after 1 attempt: .*set AWS_CA_BUNDLE"):
        ask()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with pytest.raises(ServiceError, match="AccessDenied"):
        ask()
    for content in ("hello", ""):
        (tmp_path / "bad.pem").write_text(content)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "bad.pem"))
        with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE.*bad\.pem: holds no certificates"):
            ask()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE = .*none\.pem: cannot be read"):
        ask()


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_SESSION_TOKEN"])
def test_secrets_that_end_in_a_line_break_work_and_others_are_named(server, monkeypatch, name):
    monkeypatch.setenv(name, "value\n")
    with pytest.raises(ServiceError, match="AccessDenied"):
        ask()
    monkeypatch.setenv(name, "val\nue")
    with pytest.raises(ConfigError, match=f"^{name} has the character"):
        ask()


def test_a_library_that_is_none_is_refused(server, monkeypatch):
    monkeypatch.setenv("EXACT_S3_CLIENT", "curl")
    with pytest.raises(ConfigError, match=r"^EXACT_S3_CLIENT = 'curl'. Give minio or boto3"):
        ask()


def test_both_libraries_send_the_same_signed_headers(server, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    client, noted = open_store("s3://denied/p", options=QUICK)._client, []

    def note(handler):
        noted.append({key.lower(): value for key, value in handler.headers.items()})
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        Answering.do_GET(handler)

    server.RequestHandlerClass.do_PUT = server.RequestHandlerClass.do_POST = note
    for use in (
        lambda: client.begin_upload("denied", "x", "0" * 64),
        lambda: client.put_part("denied", "x", "upload", 1, b"content"),
        lambda: client.put("denied", "x", b"content", "0" * 64),
    ):
        with pytest.raises(FailedRequestError):
            use()
    assert len(noted) == 3
    for headers in noted:
        signed = re.search("SignedHeaders=([^,]*)", headers["authorization"])[1].split(";")
        assert {each for each in headers if each.startswith("x-amz-")} <= set(signed)
        assert headers["x-amz-security-token"] == "token"
        # Over plain HTTP, the signature covers the bytes too.
        assert re.fullmatch("[0-9a-f]{64}", headers["x-amz-content-sha256"])
    assert [headers.get("x-amz-meta-sha256") for headers in noted] == ["0" * 64, None, "0" * 64]
    assert noted[1]["content-md5"] == "mgNkuembtIDdJeHwKEyFVQ=="
