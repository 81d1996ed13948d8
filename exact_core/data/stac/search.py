"""Items of a STAC API, or of a static catalogue on a web server, by area and dates.

An API is asked page by page. A static catalogue is walked once and its items are kept, for it has no search. What comes
out is checked again here: some servers leave a filter out without a word.
"""

from __future__ import annotations

import datetime as dt
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import shapely
from pystac.errors import STACError
from pystac_client import Client
from pystac_client.exceptions import APIError

from exact_core.data.stac.web import Web, without_secrets
from exact_core.errors import ConfigError, DataError, ExactError, ServiceError
from exact_core.json_values import read_json

__all__ = ["Source", "Wanted", "open_source"]

PAGE = 100
"""Items asked for at a time."""
DEEPEST = 100_000
"""Documents of a static catalogue after which it is taken for an endless one."""
UNREADABLE = (APIError, STACError, AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What clients raise over an answer that is not what it should be."""


@dataclass(frozen=True)
class Wanted:
    """Which items. geometry: longitude and latitude. start, end: first and last day. max_cloud: percent."""

    geometry: shapely.Geometry
    start: dt.date
    end: dt.date
    max_cloud: float | None = None


class Source:
    """Where items come from.

    url: as given. collection: the document of the collection, or of the static catalogue.
    """

    def __init__(self, web: Web, url: str, collection: dict[str, Any], client: Client | None) -> None:
        self.web, self.url, self.collection, self._client = web, url, collection, client
        self._static: list[tuple[dict[str, Any], str]] | None = None
        self._walking = threading.Lock()

    @property
    def name(self) -> str:
        """Identity of the collection."""
        return str(self.collection["id"])

    def items(self, wanted: Wanted) -> Iterator[tuple[dict[str, Any], str]]:
        """Items as they came, each once, with the address that their links are relative to.

        Raises:
            ServiceError: the API failed, or its pages do not end. DataError: a document is no STAC.
        """
        if self._client is None:
            # Cells side by side: one walks, the others wait for what it finds.
            with self._walking:
                if self._static is None:
                    self._static = list(_walk(self.web, self.url))
            yield from self._static
        else:
            yield from self._search(self._client, wanted)

    def _search(self, client: Client, wanted: Wanted) -> Iterator[tuple[dict[str, Any], str]]:
        simple = shapely.equals(wanted.geometry, shapely.box(*wanted.geometry.bounds))
        where = {"bbox": list(wanted.geometry.bounds)} if simple else {"intersects": wanted.geometry.__geo_interface__}
        clouds = wanted.max_cloud is not None and client.conforms_to("QUERY")
        search = client.search(
            method=_method(client),
            collections=[self.name],
            datetime=f"{wanted.start}T00:00:00Z/{wanted.end}T23:59:59Z",
            limit=PAGE,
            query={"eo:cloud_cover": {"lte": wanted.max_cloud}} if clouds else None,
            **where,
        )
        seen: set[str] = set()
        try:
            for page in search.pages_as_dicts():
                items = [item for item in page["features"] if isinstance(item, dict)]
                new = [item for item in items if str(item.get("id")) not in seen]
                if not new:
                    raise ServiceError(
                        f"{without_secrets(self.url)}: a page of the search holds only items of earlier pages, so "
                        f"its paging does not end. Report it to the API's operator, or search a smaller area"
                    )
                for item in new:
                    seen.add(str(item.get("id")))
                    yield item, _self_of(item, self.url)
        except ExactError:
            raise
        except UNREADABLE as error:
            raise ServiceError(
                f"{without_secrets(self.url)}: a page of the search is not valid: {type(error).__name__}: "
                f"{str(error)[:200]}. Check that the address is that of a STAC API"
            ) from error


def open_source(web: Web, url: str, collection: str) -> Source:
    """An API with its collection, or a static catalogue.

    Raises:
        ConfigError: an API without the collection, or none named. ServiceError: no answer. DataError: no STAC there.
    """
    root = _read(web, url)
    kind = root.get("type")
    if kind == "Collection" or (kind == "Catalog" and not root.get("conformsTo")):
        if kind == "Collection" and collection not in ("", root.get("id")):
            raise ConfigError(f"{without_secrets(url)} is the collection {root.get('id')!r}, not {collection!r}")
        if not isinstance(root.get("id"), str):
            raise DataError(f"{without_secrets(url)}: a catalogue without an id. Report it to its operator")
        return Source(web, url, root, None)
    if kind != "Catalog":
        raise DataError(
            f"{without_secrets(url)}: neither a STAC API nor a static catalogue (type {kind!r}). Give the address of "
            f"the API's landing page, or of a collection.json"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Client.from_dict(root, href=url, root=None, preserve_dict=True)
            client._stac_io = web
            client.set_self_href(url)
            known = {} if collection else _collections(web, root, url)
    except UNREADABLE as error:
        raise DataError(f"{without_secrets(url)}: not a readable landing page of a STAC API: {error}") from error
    if not collection:
        names = ", ".join(sorted(known)) or "none that it lists"
        raise ConfigError(f"{without_secrets(url)} is a STAC API: name a collection by --collection. It has {names}")
    place = urljoin(_slashed(url), f"collections/{collection}")
    try:
        found = _read(web, place)
    except ServiceError as error:
        if "HTTP 404" not in str(error):
            raise
        names = ", ".join(sorted(_collections(web, root, url))) or "none that it lists"
        raise ConfigError(f"{without_secrets(url)}: no collection {collection!r}. It has {names}") from error
    return Source(web, url, {**found, "id": collection}, client)


def _read(web: Web, url: str) -> dict[str, Any]:
    try:
        document = read_json(web.request(url))
    except ValueError as error:
        raise DataError(f"{without_secrets(url)}: not JSON: {str(error)[:100]}. Check the address") from error
    if not isinstance(document, dict):
        raise DataError(f"{without_secrets(url)}: JSON, but no STAC document. Check the address")
    return document


def _collections(web: Web, root: dict[str, Any], url: str) -> dict[str, Any]:
    place = next((urljoin(url, link["href"]) for link in _links(root) if link["rel"] == "data"), None)
    listed = _read(web, place).get("collections") if place else []
    entries = listed if isinstance(listed, list) else []
    return {str(entry.get("id")): entry for entry in entries if isinstance(entry, dict)}


def _method(client: Client) -> str:
    """POST where the API offers it: a long outline fits into no address."""
    methods = {str(link.extra_fields.get("method", "GET")).upper() for link in client.get_links("search")}
    return "POST" if "POST" in methods or not methods else "GET"


def _walk(web: Web, url: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Items of a static catalogue and of those below it."""
    waiting, seen = [url], {url}
    while waiting:
        place = waiting.pop()
        document = _read(web, place)
        if document.get("type") == "Feature":
            yield document, place
            continue
        below = [urljoin(place, link["href"]) for link in _links(document) if link["rel"] in ("child", "item")]
        for link in reversed(below):
            if link not in seen:
                seen.add(link)
                waiting.append(link)
        if len(seen) > DEEPEST:
            raise DataError(f"{without_secrets(url)}: more than {DEEPEST} documents. Name a smaller catalogue in it")


def _links(document: dict[str, Any]) -> list[dict[str, str]]:
    links = document.get("links")
    return [
        link
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and isinstance(link.get("rel"), str) and isinstance(link.get("href"), str)
    ]


def _self_of(item: dict[str, Any], url: str) -> str:
    own = next((link["href"] for link in _links(item) if link["rel"] == "self"), "")
    return urljoin(_slashed(url), own)


def _slashed(url: str) -> str:
    return url if url.endswith("/") else url + "/"
