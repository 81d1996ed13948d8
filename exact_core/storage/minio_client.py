"""S3 by the SDK of MinIO: the only module that imports minio.

Its public multipart upload can neither resume an upload nor list its parts. Over plain HTTP it sends no MD5, only a
signed SHA-256, which not every server compares with the bytes (SeaweedFS 4.48). Those requests are made here, with the
SDK's public signer (`minio.signer.sign_v4_s3`) and addresses (`minio.helpers.BaseURL`). Presigned addresses do not
suffice: they sign no header, and the same server ignores an upload's metadata in their query.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlunsplit
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.datatypes import ListMultipartUploadsResult, ListPartsResult
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import BaseURL
from minio.signer import sign_v4_s3
from minio.xml import findtext

from exact_core.environment import shown
from exact_core.storage.base import ObjectInfo
from exact_core.storage.client import RECORD, Client, Connection, FailedRequestError, Found

__all__ = ["MinioClient"]


class MinioClient(Client):
    """See `Client`.

    Raises:
        ValueError: the region is none.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pool = _pool(connection)
        self._credentials = Credentials(connection.access_key, connection.secret_key, connection.token or None)
        self._address = BaseURL(connection.address, connection.region)
        self._sdk = Minio(
            connection.url.netloc,
            access_key=connection.access_key,
            secret_key=connection.secret_key,
            session_token=connection.token or None,
            secure=connection.url.scheme == "https",
            region=connection.region,
            http_client=self._pool,
        )

    def may_list(self, bucket: str, prefix: str) -> None:
        """See `Client`."""
        with _failures():
            next(iter(self._sdk.list_objects(bucket, prefix=prefix)), None)

    def has_bucket(self, bucket: str) -> bool:
        """See `Client`."""
        with _failures():
            return bool(self._sdk.bucket_exists(bucket))

    def listed(self, bucket: str, prefix: str) -> Iterator[Found]:
        """See `Client`."""
        with _failures():
            for item in self._sdk.list_objects(bucket, prefix=prefix, recursive=True):
                if not item.is_dir:
                    yield Found(str(item.object_name), item.size or 0, str(item.etag or ""))

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """See `Client`."""
        with _failures():
            found = self._sdk.stat_object(bucket, name)
        # Servers change the case of metadata keys; these headers compare without it.
        return ObjectInfo(name, found.size or 0, str((found.metadata or {}).get(f"x-amz-meta-{RECORD}", "")))

    def get(self, bucket: str, name: str, *, start: int = 0, length: int = 0) -> bytes:
        """See `Client`."""
        with _failures():
            response = self._sdk.get_object(bucket, name, offset=start, length=length)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

    def put(self, bucket: str, name: str, content: bytes, sha256: str) -> None:
        """See `Client`."""
        with _failures():
            self._request("PUT", bucket, name, {}, headers=_described(sha256), body=content)

    def delete(self, bucket: str, name: str) -> None:
        """See `Client`."""
        with _failures():
            self._sdk.remove_object(bucket, name)

    def begin_upload(self, bucket: str, name: str, sha256: str) -> str:
        """See `Client`."""
        with _failures():
            response = self._request("POST", bucket, name, {"uploads": ""}, headers=_described(sha256))
            return str(findtext(_parsed(response.data), "UploadId", True))

    def uploads(self, bucket: str, name: str) -> list[str]:
        """See `Client`."""
        with _failures():
            # With the whole name as the prefix: MinIO's own server lists nothing for a shorter one.
            query = {"uploads": "", "prefix": name, "delimiter": "", "max-uploads": "1000"}
            listed = ListMultipartUploadsResult(self._request("GET", bucket, None, query))
            return [str(upload.upload_id) for upload in listed.uploads if upload.object_name == name]

    def parts(self, bucket: str, name: str, upload: str) -> dict[int, str]:
        """See `Client`."""
        found: dict[int, str] = {}
        while True:
            query = {"uploadId": upload, "max-parts": "1000"}
            if found:
                query["part-number-marker"] = str(max(found))
            with _failures():
                page = ListPartsResult(self._request("GET", bucket, name, query))
            found |= {part.part_number: part.etag.strip('"') for part in page.parts}
            if not page.is_truncated or not page.parts:
                return found

    def put_part(self, bucket: str, name: str, upload: str, number: int, content: bytes) -> str:
        """See `Client`."""
        with _failures():
            query = {"partNumber": str(number), "uploadId": upload}
            return self._request("PUT", bucket, name, query, body=content).headers.get("etag", "").strip('"')

    def finish_upload(self, bucket: str, name: str, upload: str, tags: dict[int, str]) -> None:
        """See `Client`."""
        root = ElementTree.Element("CompleteMultipartUpload")
        for number, tag in sorted(tags.items()):
            part = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = f'"{tag}"'
        with _failures():
            response = self._request(
                "POST",
                bucket,
                name,
                {"uploadId": upload},
                headers={"Content-Type": "application/xml"},
                body=ElementTree.tostring(root),
            )
            # Amazon's server says 200 when it begins to join the parts, and may find an error afterwards.
            if _parsed(response.data).tag.endswith("Error"):
                raise S3Error.fromxml(response)

    def abort_upload(self, bucket: str, name: str, upload: str) -> None:
        """See `Client`."""
        with _failures():
            self._request("DELETE", bucket, name, {"uploadId": upload})

    def presigned(self, bucket: str, name: str, *, seconds: int, requester_pays: bool) -> str:
        """See `Client`."""
        extra: dict[str, str | list[str] | tuple[str]] = {"x-amz-request-payer": "requester"} if requester_pays else {}
        expires = dt.timedelta(seconds=seconds)
        return str(self._sdk.presigned_get_object(bucket, name, expires=expires, extra_query_params=extra))

    def _request(
        self,
        method: str,
        bucket: str,
        name: str | None,
        query: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> urllib3.BaseHTTPResponse:
        """A signed request."""
        region, now = self._connection.region, dt.datetime.now(dt.UTC)
        url = self._address.build(
            method=method, region=region, bucket_name=bucket, object_name=name, query_params={**query}
        )
        # By TLS the bytes are safe on the way, and the MD5 says whether they were whole: no second digest of them.
        digest = "UNSIGNED-PAYLOAD" if url.scheme == "https" else hashlib.sha256(body).hexdigest()
        sent = {**(headers or {}), "Host": url.netloc, "x-amz-content-sha256": digest}
        sent["x-amz-date"] = now.strftime("%Y%m%dT%H%M%SZ")
        if body:
            sent["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if self._connection.token:
            sent["X-Amz-Security-Token"] = self._connection.token
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=region,
            headers={**sent},
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        response = self._pool.urlopen(
            method, urlunsplit(url), body=body, headers={key: str(value) for key, value in signed.items()}
        )
        if response.status in (200, 204):
            return response
        if "xml" in response.headers.get("Content-Type", "") and response.data:
            raise S3Error.fromxml(response)
        text = response.data.decode(errors="replace")
        raise InvalidResponseError(response.status, response.headers.get("Content-Type"), text)


def _described(sha256: str) -> dict[str, str]:
    """Headers of an object that is made."""
    return {f"x-amz-meta-{RECORD}": sha256, "Content-Type": "application/octet-stream"}


def _parsed(data: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(data)  # noqa: S314 - the answer of the server that the keys are sent to


@contextmanager
def _failures() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except S3Error as error:
        status = error.response.status
        # Answers that say that a bucket is elsewhere name the region, which the SDK's error does not hold.
        told = re.search(rb"<Region>([\w-]+)</Region>", error.response.data or b"") if status < 500 else None
        region = told[1].decode() if told else str(error.response.headers.get("x-amz-bucket-region", ""))
        raise FailedRequestError(error.message or "", code=error.code or "", status=status, region=region) from error
    except ServerError as error:
        raise FailedRequestError(f"ServerError: {error}", status=error.status_code) from error
    except (MinioException, urllib3.exceptions.HTTPError, ElementTree.ParseError) as error:
        # No answer, half an answer, or what a proxy says in the place of a server that is starting.
        passes = isinstance(error, (InvalidResponseError, urllib3.exceptions.HTTPError, ElementTree.ParseError))
        passes = passes and not isinstance(error, urllib3.exceptions.SSLError)
        raise FailedRequestError(f"{type(error).__name__}: {shown(str(error))}", passes=passes) from error


def _pool(connection: Connection) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=connection.connect_timeout, read=connection.read_timeout)
    settings: dict[str, Any] = {
        "timeout": timeout,
        "maxsize": connection.connections,
        # Our own retries, which say what they wait for: urllib3's stay silent.
        "retries": False,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": connection.bundle,
    }
    if not connection.proxy:
        return urllib3.PoolManager(**settings)
    login = connection.proxy_login
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(connection.proxy, proxy_headers=headers, **settings)
