"""A STAC API over the folder of a static catalogue: landing page, collections, search by GET and POST in pages, files
in ranges. It counts what it is asked, and fails where a test wants it to.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
]
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path holds `path`.

    kind: a status (500, 404, ...), or 'reset' (the connection), 'short' (half of the announced body), 'cut' (a file of
    half its length), 'breaking' (short, but for the first bytes of a file), 'html', 'slow' (one second), 'lying' (a
    page that is no JSON), 'norange', 'again' (the same page).
    """

    path: str
    kind: int | str
    times: int = 10**9
    method: str = ""


@dataclass
class StacServer:
    """Serves `folder` (with collection.json) until `close`. edit: changes an item before it is sent."""

    folder: Path
    page: int = 10
    methods: tuple[str, ...] = ("GET", "POST")
    edit: Callable[[dict[str, Any]], Any] | None = None
    token: str = ""
    files_token: str = ""
    sas_seconds: float | None = None
    """How long a SAS token is good, which files then need in their address; /sas/ACCOUNT/CONTAINER gives one."""
    delay: float = 0.0
    """Seconds before each file."""
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Authorization of each request."""

    def __post_init__(self) -> None:
        self.collection = json.loads((self.folder / "collection.json").read_text())
        served = self

        class Handler(_Handler):
            server_data = served

        self.sas_given = 0
        self._lock = threading.Lock()

        class Server(ThreadingHTTPServer):
            # Of more than these, a connection is lost and tried again a second later.
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_fault(self, method: str, path: str, byte_range: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.kind == "breaking" and (method != "GET" or byte_range == "bytes=0-1023"):
                    continue
                if fault.times and fault.path in path and fault.method in ("", method):
                    fault.times -= 1
                    return fault
        return None

    def files_asked(self) -> int:
        """Requests for files so far."""
        return sum(path.startswith("/files/") for _, path, _ in self.asked)

    def items(self) -> list[dict[str, Any]]:
        found = []
        for link in self.collection["links"]:
            if link["rel"] == "item":
                place = self.folder / link["href"]
                item = json.loads(place.read_text())
                if item.get("geometry") is None:
                    item["bbox"] = [2.9, 50.4, 3.1, 50.6]
                for asset in item["assets"].values():
                    inside = (place.parent / asset["href"]).resolve().relative_to(self.folder.resolve())
                    asset["href"] = f"{self.url}/files/{inside}"
                edited = self.edit(item) if self.edit else item
                found.append(item if edited is None else edited)
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_data: StacServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass

    def do_GET(self) -> None:
        self._answer("GET", {})

    def do_HEAD(self) -> None:
        self._answer("HEAD", {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("POST", json.loads(body or b"{}"))

    def _answer(self, method: str, body: dict[str, Any]) -> None:
        served, parts = self.server_data, urlsplit(self.path)
        given = self.headers.get("Authorization", "")
        served.asked.append((method, self.path, given))
        fault = served.take_fault(method, self.path, self.headers.get("Range", ""))
        kind = fault.kind if fault else ""
        if kind == "slow":
            time.sleep(1.0)
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        elif isinstance(kind, int):
            self._send(kind, b"trouble", "text/plain")
            return
        elif kind == "html":
            self._send(200, HTML, "text/html")
            return
        is_file = parts.path.startswith(("/files/", "/static/"))
        wanted = served.files_token if is_file else served.token
        if parts.path.startswith("/sas/"):
            served.sas_given += 1
            ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + (served.sas_seconds or 0)))
            self._json({"token": f"sv=1&sig=tok{served.sas_given}", "msft:expiry": ends}, str(kind))
        elif is_file and served.sas_seconds is not None and not _signed(parts.query, served.sas_given):
            self._send(409, b"PublicAccessNotPermitted", "text/plain")
        elif wanted and given != f"Bearer {wanted}":
            self._send(401, b"who are you", "text/plain")
        elif is_file:
            time.sleep(served.delay)
            self._file(served.folder / parts.path.split("/", 2)[2], method, str(kind))
        else:
            self._document(method, parts.path, body or _query(parts.query), str(kind))

    def _document(self, method: str, path: str, asked: dict[str, Any], kind: str) -> None:
        served = self.server_data
        name = served.collection["id"]
        plain = {key: value for key, value in served.collection.items() if key != "links"} | {"links": []}
        if path in ("", "/"):
            self._json(self._landing(), kind)
        elif path == "/collections":
            self._json({"collections": [plain], "links": []}, kind)
        elif path == f"/collections/{name}":
            self._json(plain, kind)
        elif path == "/search":
            self._json(self._search(method, asked, kind), kind)
        else:
            self._send(404, b"no such page", "text/plain")

    def _landing(self) -> dict[str, Any]:
        url = self.server_data.url
        search = [
            {"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": method}
            for method in self.server_data.methods
        ]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "test-api",
            "description": "An API of the tests",
            "conformsTo": CONFORMS,
            "links": [
                {"rel": "self", "href": f"{url}/", "type": "application/json"},
                {"rel": "root", "href": f"{url}/", "type": "application/json"},
                {"rel": "data", "href": f"{url}/collections", "type": "application/json"},
                *search,
            ],
        }

    def _search(self, method: str, asked: dict[str, Any], kind: str) -> dict[str, Any]:
        served = self.server_data
        assert served.collection["id"] in asked["collections"]
        start, end = (text[:10] for text in asked["datetime"].split("/"))
        found = [item for item in served.items() if start <= str(item["properties"].get("datetime"))[:10] <= end]
        first = int(asked.get("token", 0))
        page = found[first : first + served.page]
        links = []
        if kind == "again":
            page, first = found[: served.page], 0
        if first + served.page < len(found):
            following = {**asked, "token": first + served.page}
            link = {"rel": "next", "href": f"{served.url}/search", "method": method, "type": "application/geo+json"}
            if method == "POST":
                link["body"] = following
            else:
                link["href"] += "?" + urlencode(
                    {key: ",".join(map(str, v)) if isinstance(v, list) else v for key, v in following.items()}
                )
            links.append(link)
        return {"type": "FeatureCollection", "features": page, "links": links}

    def _file(self, path: Path, method: str, kind: str) -> None:
        if not path.is_file():
            self._send(404, b"no such file", "text/plain")
            return
        content = path.read_bytes()
        whole = len(content) // 2 if kind == "cut" else len(content)
        content = content[:whole]
        headers = {"ETag": f'"{path.stat().st_mtime_ns}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if not asked or kind == "norange":
            self._send(200, content, "image/tiff", headers, method=method)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        low, high = int(first), min(int(last or whole - 1), whole - 1)
        if low > high:
            self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{whole}"})
            return
        headers["Content-Range"] = f"bytes {low}-{high}/{whole}"
        self._send(
            206,
            content[low : high + 1],
            "image/tiff",
            headers,
            method=method,
            short=kind == "short" or kind == "breaking",
        )

    def _json(self, document: dict[str, Any], kind: str) -> None:
        text = b"{]" if kind == "lying" else json.dumps(document).encode()
        self._send(200, text, "application/json", short=kind == "short")

    def _send(
        self,
        status: int,
        content: bytes,
        media: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        short: bool = False,
    ) -> None:
        try:
            self.send_response(status)
            for key, value in {"Content-Type": media, **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if method != "HEAD":
                self.wfile.write(content[: len(content) // 2] if short else content)
            if short:
                self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _signed(query: str, given: int) -> bool:
    """Whether an address holds one of the tokens that were given."""
    return parse_qs(query).get("sig", [""])[0] in {f"tok{number + 1}" for number in range(given)}


def _query(text: str) -> dict[str, Any]:
    """Parameters of an address; those that are lists in a body are lists."""
    asked: dict[str, Any] = {key: values[0] for key, values in parse_qs(text).items()}
    for key in ("collections", "bbox"):
        if key in asked:
            asked[key] = asked[key].split(",")
    return asked
