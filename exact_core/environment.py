"""Environment variables as this package reads them, and addresses as it prints them."""

from __future__ import annotations

import atexit
import math
import os
import re
import shlex
import socket
import ssl
import uuid
from contextlib import ExitStack
from pathlib import Path

from exact_core.errors import ConfigError
from exact_core.scratch import scratch_folder

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "PATIENCE_VARIABLE",
    "RUNNER_VARIABLE",
    "STATE_VARIABLE",
    "TERMINAL_VARIABLE",
    "authorities_file",
    "load_environment",
    "machine_name",
    "number",
    "patience",
    "process_name",
    "shown",
    "variable",
]

RUNNER_VARIABLE = "EXACT_RUNNER_PID"
"""Process that runs the pipeline on this machine. A stage whose runner has died ends itself. May be unset."""
TERMINAL_VARIABLE = "EXACT_TERMINAL"
"""Set for the stages of a run whose screen is a terminal: they report their progress every second."""
STATE_VARIABLE = "EXACT_STATE_DIR"
"""Folder in which training keeps checkpoints, so that a killed run continues. unset: it starts again."""
PATIENCE_VARIABLE = "EXACT_PATIENCE_MINUTES"
"""Minutes that the end of a stage waits for MLflow and the store to come back. unset: 10."""
ENVIRONMENT_VARIABLE = "EXACT_ENVIRONMENT"
"""Further variables as a shell would set them: NAME=VALUE, side by side or one a line, with quotes. Lines that begin
with # are comments. A pipeline names its steps' variables when it is compiled. This one holds any others."""
AUTHORITIES_VARIABLE = "EXACT_CA_CERTIFICATES"
"""Certificates of authorities in PEM, themselves and not their file, to be trusted beside the known ones."""
BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Who reads a file of authorities: clients of S3, of MLflow and STAC, and Python's own."""
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "1"}
"""Kernels that oneDNN keeps, and that torch's layer above it keeps with their buffers. Both keep 1,024 by default, one
for each shape that was computed. Batches differ in their number of dates, so a process grew to twice the memory. oneDNN
makes a kernel in the time of several products, so it keeps those of a model. Torch's costs memory and saves no time
(docs/results.md)."""
COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
LOGIN = re.compile(r"(?<=://)([^/@\s:]*)(:[^/\s]*)?@")
SECRET = re.compile(r"(?i)([?&](?:password|passwd|pwd|token|sig|signature|secret|api_?key)=)[^&\s]*")


def variable(name: str, default: str = "") -> str:
    """A variable without white space around it, which secrets made with `echo` have. `default` where nothing is left.

    Raises:
        ConfigError: it holds a line break or another control character.
    """
    text = os.environ.get(name, "").strip()
    for place, character in enumerate(text):
        if not character.isprintable():
            raise ConfigError(
                f"{name} has the character {character!r} at position {place + 1} of {len(text)}. Make the secret anew, "
                f"with printf or `echo -n`"
            )
    return text or default


def load_environment() -> None:
    """Set the variables that EXACT_ENVIRONMENT holds, but those that are set, and trust EXACT_CA_CERTIFICATES.

    It also bounds what torch keeps of the kernels that it has used (`KERNEL_CACHES`), before it uses one.

    Raises:
        ConfigError: text that is no list of variables, or certificates that are none. No value is repeated.
    """
    try:
        # Whole lines alone are comments: a password may have a # in it.
        words = shlex.split(COMMENT.sub("", os.environ.get(ENVIRONMENT_VARIABLE, "")))
    except ValueError as error:
        raise ConfigError(
            f"{ENVIRONMENT_VARIABLE}: {error}. Write NAME=VALUE, and quote a value with spaces"
        ) from error
    for place, word in enumerate(words, start=1):
        name, mark, value = word.partition("=")
        if not mark or not NAME.fullmatch(name) or "\0" in value:
            raise ConfigError(
                f"{ENVIRONMENT_VARIABLE}: word {place} of {len(words)} is not NAME=VALUE. Write one a line, values "
                f"with spaces in quotes"
            )
        os.environ.setdefault(name, value)
    for name, capacity in KERNEL_CACHES.items():
        os.environ.setdefault(name, capacity)
    authorities = os.environ.get(AUTHORITIES_VARIABLE, "").strip()
    if authorities:
        _trust(authorities)


def _trust(authorities: str) -> None:
    """Let clients trust these authorities beside the known ones, but those clients that have a file named already."""
    try:
        ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{AUTHORITIES_VARIABLE}: holds no certificates: {error}. Give PEM, lines and all") from error
    if not (missing := [name for name in BUNDLES if not os.environ.get(name)]):
        return
    import certifi  # not needed by commands without such an authority

    held = ExitStack()
    file = held.enter_context(scratch_folder()) / "authorities.pem"
    # With this process, which its children do not outlive.
    atexit.register(held.close)
    file.write_text(f"{Path(certifi.where()).read_text(encoding='utf-8')}\n{authorities}\n", encoding="utf-8")
    os.environ.update(dict.fromkeys(missing, str(file)))


def number(name: str, default: float, *, unit: str) -> float:
    """A variable that is a number from 0 on.

    Raises:
        ConfigError: it is none.
    """
    text = variable(name)
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} = {text!r}. Give a number of {unit}, such as {default:g} or 0.5")
    return value


def machine_name() -> str:
    """HOST-ADDRESS: names this machine among those with the same host name."""
    return f"{socket.gethostname()}-{uuid.getnode():x}"


def process_name(number: int) -> str:
    """MACHINE/PID/START: names a process of this machine for as long as it lives. START is 0 once it does not.

    START is in clock ticks since the machine's start where the system says so (field 22 of /proc/PID/stat, proc(5)),
    else 1. A number that is used again then has another.
    """
    try:
        os.kill(number, 0)
        # The name of the program comes second, and may hold anything.
        start = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except ProcessLookupError:
        start = "0"
    except (OSError, IndexError):
        start = "1"
    return f"{machine_name()}/{number}/{start}"


def patience() -> float:
    """Seconds that the end of a stage waits for a service to come back. See `PATIENCE_VARIABLE`."""
    return 60 * number(PATIENCE_VARIABLE, 10.0, unit="minutes")


def authorities_file(name: str) -> str:
    """A variable that names a PEM file of authorities to trust. Empty where it is not set.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no certificates.
    """
    path = variable(name)
    if path:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
            ssl.create_default_context(cafile=path)
        except ssl.SSLError as error:
            raise ConfigError(f"{name} = {path}: holds no certificates: {error}; name a PEM file") from error
        except OSError as error:
            raise ConfigError(f"{name} = {path}: cannot be read: {error.strerror}. Name a file, or unset it") from error
    return path


def shown(text: str) -> str:
    """A text with the logins in its addresses hidden: `http://user:***@host`."""
    hidden = LOGIN.sub(lambda found: f"{found[1]}:***@" if found[2] else "***@", text)
    return SECRET.sub(r"\1***", hidden)
