"""Claims on a matter as objects of a store: `leases/MATTER/OWNER.json`. `exact_core.claims` has the rule."""

from __future__ import annotations

from contextlib import suppress

from exact_core.errors import DataError
from exact_core.storage.base import Store

__all__ = ["StoreBoard", "release"]

SUFFIX = ".json"


class StoreBoard:
    """The board of one matter.

    Args:
        leases: the store of all leases.
        matter: what is claimed, names parted by slashes.
    """

    def __init__(self, leases: Store, matter: str) -> None:
        self.leases, self.matter = leases, matter

    def uri_of(self, owner: str) -> str:
        """Key of an owner's claim."""
        return self.leases.uri_of(self._key(owner))

    def put(self, owner: str, text: str) -> None:
        """See `Board`."""
        self.leases.write(self._key(owner), text.encode())

    def claims(self) -> dict[str, str]:
        """See `Board`."""
        found, base = {}, f"{self.matter}/"
        for key in self.leases.list_keys(base):
            with suppress(DataError):  # gone since it was listed
                found[key.removeprefix(base).removesuffix(SUFFIX)] = self.leases.read(key).decode(errors="replace")
        return found

    def remove(self, owner: str) -> None:
        """See `Board`."""
        self.leases.delete(self._key(owner))

    def _key(self, owner: str) -> str:
        return f"{self.matter}/{owner}{SUFFIX}"


def release(leases: Store, owner: str) -> None:
    """Release all claims of an owner."""
    for key in leases.list_keys():
        if key.endswith(f"/{owner}{SUFFIX}"):
            leases.delete(key)
