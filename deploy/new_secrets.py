"""Make the env files of a folder of secrets from its examples: `python deploy/new_secrets.py deploy/minio/secrets`.

`@random@` becomes 48 random hex digits. `@yours@` stays, to be filled in. A file that is there is left as it is, so
running it again never changes a password. Only the owner may read them, and git ignores `*.env`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

RANDOM = "@random@"
YOURS = "@yours@"


def write_env_files(folder: Path) -> list[Path]:
    """Write every missing `NAME.env` beside its `NAME.env.example`. Return those written.

    Raises:
        FileNotFoundError: the folder has no example.
    """
    examples = sorted(folder.glob("*.env.example"))  # ".env.example", of compose.yaml, too
    if not examples:
        raise FileNotFoundError(
            f"{folder} has no *.env.example; name a folder of secrets, such as deploy/minio/secrets"
        )
    written = []
    for example in examples:
        path = example.with_name(example.name.removesuffix(".example"))
        if path.exists():
            continue
        lines = [
            line if line.startswith("#") else line.replace(RANDOM, secrets.token_hex(24))
            for line in example.read_text().splitlines()
        ]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines) + "\n")
        written.append(path)
    return written


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        written = write_env_files(folder)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path in written:
        left = [line.split("=")[0] for line in path.read_text().splitlines() if line.endswith(f"={YOURS}")]
        sys.stdout.write(f"{path}: {'fill in ' + ', '.join(left) if left else 'ready'}\n")
    if not written:
        sys.stdout.write(f"{folder}: nothing to do, every env file is there\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
