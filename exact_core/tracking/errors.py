"""MLflow's address looked at before MLflow is, and its errors as one line that names the variable and the way out.

MLflow's own errors come with the traces of SQLAlchemy, requests and Alembic, and a database that it cannot open, it
tries again for minutes.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

from exact_core.environment import authorities_file, shown, variable
from exact_core.errors import ConfigError, ExactError, ServiceError

__all__ = ["AwayError", "check_address", "database_file", "explained", "patiently", "refused", "tracking_uri"]

log = logging.getLogger(__name__)

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
LOCKED_SECONDS = 10.0
"""How long another process may hold a database file."""
NEEDED = 2**20
"""Bytes that must be free beside a database file: its journal and some rows."""
REFUSED = frozenset(
    {
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
"""MLflow's codes for what it will never take."""
CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
LONGEST_PAUSE = 10.0

Result = TypeVar("Result")


class AwayError(ServiceError):
    """MLflow does not answer, or cannot take anything, at the moment."""


def tracking_uri() -> str:
    """Where runs go: `MLFLOW_TRACKING_URI`, or a sqlite file in the current folder.

    Raises:
        ConfigError: the variable holds a control character.
    """
    return variable(VARIABLE) or f"{SQLITE}{Path('mlflow.db').resolve()}"


def database_file(uri: str) -> Path | None:
    """The file that a sqlite address names. None where a server has the runs."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def check_address(uri: str) -> None:
    """Find what is wrong with an address before MLflow is asked to use it.

    Raises:
        ConfigError, ServiceError: it cannot be used.
    """
    scheme, parted, rest = uri.partition("://")
    said = f"{VARIABLE} = {shown(uri)}"
    if not parted and re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise ConfigError(f"{said}: it has no scheme. Give http://{uri}")
    if (not parted and not uri.startswith("databricks") and ":" not in uri) or scheme == "file":
        folder = Path(rest if parted else uri).absolute()
        raise ConfigError(
            f"{said}: MLflow does not keep up runs in plain folders any more. Give {SQLITE}{folder}/mlflow.db "
            f"(`mlflow migrate-filestore` moves runs there)"
        )
    if scheme in ("http", "https"):
        _check_server(uri, said)
    elif (path := database_file(uri)) is not None:
        _check_file(path, f"{said}:" if variable(VARIABLE) else f"{path}: {VARIABLE} is not set, so runs go there:")
    elif parted and scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        _check_database(uri, said)


def _check_server(uri: str, said: str) -> None:
    try:
        url = urlsplit(uri)
        valid = bool(url.hostname) and (url.port or 80) > 0 and " " not in uri
    except ValueError:  # a port that is none
        valid = False
    if not valid:
        raise ConfigError(f"{said}: no address of a server. Give http://host:port or https://host")
    for name in ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"):
        authorities_file(name)


def _check_file(path: Path, said: str) -> None:
    way_out = f"set {VARIABLE} to another place, or run in another folder"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        disk = os.statvfs(path.parent)
    except OSError as error:
        raise ServiceError(f"{said} the folder {path.parent} cannot be written: {error.strerror}; {way_out}") from error
    if (free := disk.f_bavail * disk.f_frsize) < NEEDED:
        raise AwayError(f"{said} the disk of {path.parent} is full, {free:,} bytes are free. Make room, or {way_out}")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            head = file.read(32)
        # Pages of the file by its own word (https://www.sqlite.org/fileformat.html#the_database_header).
        page = int.from_bytes(head[16:18], "big")
        wanted = int.from_bytes(head[28:32], "big") * (2**16 if page == 1 else page)
        if head.startswith(b"SQLite format 3") and path.stat().st_size < wanted:
            raise ServiceError(
                f"{said} truncated: {path.stat().st_size:,} bytes of {wanted:,}. Put a copy back, or {way_out}"
            )
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            if tables and "alembic_version" not in tables:
                raise ServiceError(
                    f"{said} a database of another program, with tables such as {min(tables)}; {way_out}"
                )
            database.execute("begin immediate")
            database.rollback()
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text:
            raise AwayError(
                f"{said} locked by another process for more than {LOCKED_SECONDS:.0f} s. End it, or {way_out}"
            ) from error
        raise ServiceError(f"{said} {text}. Give it back to this user, put a copy back, or {way_out}") from error
    except OSError as error:
        raise ServiceError(f"{said} cannot be read: {error.strerror}; {way_out}") from error


def _check_database(uri: str, said: str) -> None:
    """Ask a database once: MLflow asks ten times, with growing pauses and a trace each."""
    import sqlalchemy

    with explained():
        try:
            engine = sqlalchemy.create_engine(uri)
            engine.connect().close()
            engine.dispose()
        except sqlalchemy.exc.OperationalError as error:
            raise AwayError(
                f"{said}: the database does not answer: {_first_line(error.orig)}. Check the address, and that it is up"
            ) from error


@contextmanager
def explained(action: str = "") -> Iterator[None]:
    """Turn the errors of MLflow, its database and its network into one line.

    Args:
        action: what was asked for, as in "cannot …". If empty, MLflow itself.

    Raises:
        AwayError: the same may be taken later.
        ServiceError: it will not.
    """
    try:
        yield
    except ExactError:
        raise
    except Exception as error:
        if not _is_of_service(error):
            raise
        raise _translated(error, action) from error


def patiently(function: Callable[[], Result], *, seconds: float) -> Result:
    """The result of a function that calls MLflow. While MLflow is away, it is repeated for this many seconds.

    Raises:
        AwayError: MLflow is still away.
        ServiceError: MLflow refused the request.
    """
    end, pause = time.monotonic() + seconds, 1.0
    while True:
        try:
            with explained():
                return function()
        except AwayError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            log.warning("%s; trying again for %.0f s", error, left)
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)


def refused(error: BaseException) -> bool:
    """Whether MLflow has read what it was given and will never take it."""
    return getattr(error, "error_code", None) in REFUSED


def _is_of_service(error: Exception) -> bool:
    """Errors of packages that are loaded only where they are used."""
    names = (
        ("mlflow.exceptions", "MlflowException"),
        ("sqlalchemy.exc", "SQLAlchemyError"),
        ("alembic.util.exc", "CommandError"),
        ("requests.exceptions", "RequestException"),
    )
    kinds = [getattr(sys.modules[module], name) for module, name in names if module in sys.modules]
    return isinstance(error, (*kinds, sqlite3.Error, ImportError, OSError))


def _translated(error: Exception, action: str) -> ServiceError:
    said, text = f"MLflow at {shown(tracking_uri())}", shown(str(error))
    if isinstance(error, ImportError):
        driver = error.name or text
        return ServiceError(
            f"{said} needs the driver {driver}, which is not installed: pip install {driver}, or name an installed one "
            f"in {VARIABLE}, as postgresql+psycopg2://"
        )
    if CERTIFICATE in text:
        return ServiceError(
            f"{said}: its certificate is not trusted here. Set MLFLOW_TRACKING_SERVER_CERT_PATH (or "
            f"REQUESTS_CA_BUNDLE) to the file of its authority"
        )
    if found := re.search(
        r"found version (\w+), but expected (\w+)|[Cc]an't locate revision identified by '(\w+)'", text
    ):
        import mlflow

        return ServiceError(
            f"{said}: its database has the schema of another MLflow ({found[1] or found[3]}; MLflow "
            f"{mlflow.__version__} here has {found[2] or 'not got it'}). Install the MLflow that wrote it, or, if that "
            f"is older, run `mlflow db upgrade {shown(tracking_uri())}`"
        )
    what = f"cannot {action}: " if action else ""
    if refused(error):
        return ServiceError(f"{said}: {what}{_first_line(text)}. Check {VARIABLE}")
    reason = getattr(error, "error_code", "")
    if reason in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return ServiceError(
            f"{said}: {what}{_first_line(text)}. Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            f"MLFLOW_TRACKING_TOKEN"
        )
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "disk is full" in text:
        return AwayError(f"{said}: {what}the disk is full. Make room there")
    return AwayError(
        f"{said} does not answer: {what}{_first_line(text)}. Check {VARIABLE} and that it is up, or run the stage with "
        f"--no-tracking"
    )


def _first_line(text: object) -> str:
    """What an error says, without the addresses of objects, SQL and links that follow."""
    line = re.sub(r"\s*\[SQL: .*|\s*\(Background on this error.*", "", " ".join(str(text).split()))
    cause = re.search(r"Caused by (\w+)\(.*?(?:>: |: )?((?:Failed|\[Errno|Read timed)[^'\")]*)", line)
    return (cause[2].strip() if cause else line)[:400]
