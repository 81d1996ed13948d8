"""S3 by Amazon's own library: the only module that imports boto3."""

from __future__ import annotations

import base64
import functools
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import urllib3
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as NoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    ParamValidationError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from exact_core.environment import shown
from exact_core.storage.base import ObjectInfo
from exact_core.storage.client import RECORD, Client, Connection, FailedRequestError, Found

__all__ = ["BotoClient"]

LOCK = threading.Lock()
TYPE = "application/octet-stream"
WORDS = {403: "AccessDenied", 404: "NoSuchKey", 405: "MethodNotAllowed"}
"""Codes of answers without a text, those to HEAD, which boto3 gives as their numbers."""


class BotoClient(Client):
    """See `Client`.

    Raises:
        ValueError: the region is none.
    """

    def __init__(self, connection: Connection) -> None:
        amazon = (connection.url.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        scheme, _, host = connection.proxy.partition("://")
        login = f"{quote(connection.proxy_login, safe=':')}@" if connection.proxy_login else ""
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "auto" if amazon else "path"},
            # Our own retries, which say what they wait for.
            retries={"total_max_attempts": 1},
            connect_timeout=connection.connect_timeout,
            read_timeout=connection.read_timeout,
            max_pool_connections=connection.connections,
            proxies={connection.url.scheme: f"{scheme}://{login}{host}"} if connection.proxy else {},
            # The MD5 that each request carries does this, and every server knows it.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # One session for all, which reads its tables of services once; it makes one client at a time.
            with LOCK:
                self._s3 = _session().client(
                    "s3",
                    region_name=connection.region,
                    aws_access_key_id=connection.access_key,
                    aws_secret_access_key=connection.secret_key,
                    aws_session_token=connection.token or None,
                    # The address for all regions is none that a bucket of another region answers at.
                    endpoint_url=None if connection.url.hostname == "s3.amazonaws.com" else connection.address,
                    config=config,
                    verify=connection.bundle,
                )
        except InvalidRegionError as error:
            raise ValueError(str(error)) from error

    def may_list(self, bucket: str, prefix: str) -> None:
        """See `Client`."""
        with _failures():
            self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")

    def has_bucket(self, bucket: str) -> bool:
        """See `Client`."""
        try:
            with _failures():
                self._s3.head_bucket(Bucket=bucket)
        except FailedRequestError as error:
            if error.status == 404:
                return False
            raise
        return True

    def listed(self, bucket: str, prefix: str) -> Iterator[Found]:
        """See `Client`."""
        with _failures():
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):
                        yield Found(item["Key"], item["Size"], item["ETag"].strip('"'))

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """See `Client`."""
        with _failures():
            found = self._s3.head_object(Bucket=bucket, Key=name)
        # Servers change the case of metadata keys.
        metadata = {key.lower(): value for key, value in found["Metadata"].items()}
        return ObjectInfo(name, found["ContentLength"], metadata.get(RECORD, ""))

    def get(self, bucket: str, name: str, *, start: int = 0, length: int = 0) -> bytes:
        """See `Client`."""
        part = {"Range": f"bytes={start}-{start + length - 1}"} if length else {}
        with _failures(), self._s3.get_object(Bucket=bucket, Key=name, **part)["Body"] as body:
            return bytes(body.read())

    def put(self, bucket: str, name: str, content: bytes, sha256: str) -> None:
        """See `Client`."""
        with _failures():
            self._s3.put_object(
                Bucket=bucket,
                Key=name,
                Body=content,
                ContentMD5=_md5(content),
                ContentType=TYPE,
                Metadata={RECORD: sha256},
            )

    def delete(self, bucket: str, name: str) -> None:
        """See `Client`."""
        with _failures():
            self._s3.delete_object(Bucket=bucket, Key=name)

    def begin_upload(self, bucket: str, name: str, sha256: str) -> str:
        """See `Client`."""
        with _failures():
            begun = self._s3.create_multipart_upload(
                Bucket=bucket, Key=name, ContentType=TYPE, Metadata={RECORD: sha256}
            )
        return str(begun["UploadId"])

    def uploads(self, bucket: str, name: str) -> list[str]:
        """See `Client`."""
        with _failures():
            # With the whole name as the prefix: MinIO's own server lists nothing for a shorter one.
            listed = self._s3.list_multipart_uploads(Bucket=bucket, Prefix=name)
        return [each["UploadId"] for each in listed.get("Uploads", []) if each["Key"] == name]

    def parts(self, bucket: str, name: str, upload: str) -> dict[int, str]:
        """See `Client`."""
        with _failures():
            pages = self._s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=name, UploadId=upload)
            return {part["PartNumber"]: part["ETag"].strip('"') for page in pages for part in page.get("Parts", [])}

    def put_part(self, bucket: str, name: str, upload: str, number: int, content: bytes) -> str:
        """See `Client`."""
        with _failures():
            sent = self._s3.upload_part(
                Bucket=bucket, Key=name, UploadId=upload, PartNumber=number, Body=content, ContentMD5=_md5(content)
            )
        return str(sent["ETag"]).strip('"')

    def finish_upload(self, bucket: str, name: str, upload: str, tags: dict[int, str]) -> None:
        """See `Client`."""
        parts = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in sorted(tags.items())]
        with _failures():
            self._s3.complete_multipart_upload(
                Bucket=bucket, Key=name, UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def abort_upload(self, bucket: str, name: str, upload: str) -> None:
        """See `Client`."""
        with _failures():
            self._s3.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=upload)

    def presigned(self, bucket: str, name: str, *, seconds: int, requester_pays: bool) -> str:
        """See `Client`."""
        asked: dict[str, Any] = {"Bucket": bucket, "Key": name}
        if requester_pays:
            asked["RequestPayer"] = "requester"
        return str(self._s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=seconds))


@functools.cache
def _session() -> Session:
    return Session()


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


@contextmanager
def _failures() -> Iterator[None]:
    """The library's errors as ours."""
    try:
        yield
    except ClientError as error:
        answer = error.response
        said, about = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        status, code = int(about.get("HTTPStatusCode", 0)), str(said.get("Code", ""))
        region = said.get("Region") or about.get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
        if code == str(status):
            code = WORDS.get(status, "")
        raise FailedRequestError(str(said.get("Message", "")), code=code, status=status, region=str(region)) from error
    except ParamValidationError:
        raise  # ours to mend
    except (BotoCoreError, ResponseParserError, urllib3.exceptions.HTTPError) as error:
        passing = (
            HTTPClientError,
            NoConnectionError,
            IncompleteReadError,
            ResponseParserError,
            urllib3.exceptions.HTTPError,
        )
        passes = isinstance(error, passing) and not isinstance(error, SSLError)
        raise FailedRequestError(f"{type(error).__name__}: {shown(str(error))}", passes=passes) from error
