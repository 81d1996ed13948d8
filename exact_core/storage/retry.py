"""Requests to an S3 server, repeated where the reason of a failure may pass, and what is said when it does not."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from exact_core.errors import DataError, ExactError, ServiceError
from exact_core.storage.base import StoreOptions
from exact_core.storage.client import FailedRequestError

__all__ = ["DENIED", "LostUploadError", "Requests"]

log = logging.getLogger(__name__)

PASSING = frozenset(
    {"BadDigest", "IncompleteBody", "InternalError", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}
)
"""Codes that may pass when a request is repeated, beside every answer of 429 or 500 and above."""
LOST = frozenset({"InvalidPart", "InvalidPartOrder", "NoSuchUpload"})
"""Codes of an upload that another process has finished or aborted, or whose parts the server has lost."""
DENIED = "AccessDenied"
RENEW = "renew AWS_SESSION_TOKEN with its two keys, which are read when a stage starts, then repeat the command"
REGION = "set AWS_REGION to the region of this bucket"
ROOM = "make room in the store, or have its quota raised, then repeat the command, which continues from here"
KMS = "check the encryption key of the bucket (KMS): that it is enabled, and that these keys may use it"
TRUST = "its certificate is not trusted here: set AWS_CA_BUNDLE to the file of its authority"
HELP = {
    DENIED: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do with this bucket",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "NoSuchBucket": "make the bucket, or name one that exists",
    "RequestTimeTooSkewed": "set this machine's clock",
    "XMinioStorageFull": ROOM,
    "QuotaExceeded": ROOM,
    "XMinioAdminBucketQuotaExceeded": ROOM,
    "InsufficientStorage": ROOM,
    "ExpiredToken": RENEW,
    "InvalidToken": RENEW,
    "TokenRefreshRequired": RENEW,
    "AuthorizationHeaderMalformed": REGION,
    "PermanentRedirect": REGION,
    "TemporaryRedirect": REGION,
    "MovedPermanently": REGION,
    "IllegalLocationConstraintException": REGION,
    "AllAccessDisabled": "its owner has closed this bucket: name another, or have it opened",
    "InvalidRequest": "the server does not take such a request: check that AWS_ENDPOINT_URL names an S3 server",
    "NotImplemented": "this server lacks what is needed: use one that takes multipart uploads and Content-MD5",
    "MethodNotAllowed": "check that AWS_ENDPOINT_URL names an S3 server",
}
Result = TypeVar("Result")


class LostUploadError(Exception):
    """An upload is no longer there."""


@dataclass(frozen=True)
class Requests:
    """Requests for the objects under one URI of a server."""

    uri: str
    bucket: str
    endpoint: str
    options: StoreOptions

    def ask(
        self, action: str, key: str, request: Callable[[], Result], *, part: int | None = None, of_upload: bool = False
    ) -> Result:
        """Make a request, and retry it after growing pauses where that may help.

        Args:
            action: what the request does, as in "cannot …".
            key: the object. Empty where the request is for the bucket.
            request: makes it. Called for each try.
            part: number of the part, for the log.
            of_upload: the request is for an upload that these keys have begun. If it is denied, the upload is gone:
                JuiceFS's gateway says so at times where another process has just finished it.

        Raises:
            ServiceError, DataError: it failed for good.
            LostUploadError: the upload it belongs to is no longer there.
        """
        options, began = self.options, time.monotonic()
        for attempt in itertools.count(1):
            try:
                return request()
            except FailedRequestError as error:
                code = error.code
                if code in LOST or (of_upload and code == DENIED):
                    raise LostUploadError(code) from error
                region = error.region if HELP.get(code) == REGION else ""
                said = f"{code}: {error.said}" if code else error.said
                said += f" (its region: {region})" if region else ""
                left = options.patience - (time.monotonic() - began)
                if not _may_pass(error) or (attempt >= options.attempts and left <= 0):
                    raise self.failure(action, key, said, code, attempt) from error
                pause = min(options.longest_pause, options.first_pause * 2 ** (attempt - 1))
                pause *= random.uniform(0.5, 1)  # noqa: S311 - parts that wait for one server should not all wake at once
                what = f"{action} {key or self.bucket}" + (f", part {part}," if part else "")
                more = f"of {options.attempts}" if attempt < options.attempts else f"within {left:.0f} s more"
                log.warning(
                    "cannot %s at %s: %s. Try %d %s in %.1f s",
                    *(what, self.endpoint, said, attempt + 1, more, pause),
                )
                time.sleep(pause)
        raise AssertionError("a store makes one attempt at least")

    def failure(self, action: str, key: str, said: str, code: str, attempts: int) -> ExactError:
        """The error for a request that failed for good: what, where, after how many tries, and what helps."""
        uri = f"{self.uri}/{key}" if key else self.uri
        if code == "NoSuchKey":
            return DataError(f"{uri} at {self.endpoint}: no such object. Check the URI, or publish it again")
        where = f"bucket {self.bucket}, key {key}" if key else f"bucket {self.bucket}"
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        helps = HELP.get(code, "check AWS_ENDPOINT_URL and that the store is up. The same command continues from here")
        if code.startswith("KMS."):
            helps = KMS
        elif "CERTIFICATE_VERIFY_FAILED" in said:
            helps = TRUST
        elif "ProxyError" in said or "ProxyConnectionError" in said:
            helps = "check the proxy's address, or name the store in no_proxy"
        return ServiceError(f"cannot {action} {uri} ({where}) at {self.endpoint} after {tries}: {said}; {helps}")


def _may_pass(error: FailedRequestError) -> bool:
    """Whether the same request may succeed later."""
    if not error.status:
        return error.passes
    # 501 and 507, no such function and no room, are answers that stay.
    return error.code in PASSING or error.status == 429 or (error.status >= 500 and error.status not in (501, 507))
