"""Images of a STAC API, fetched into a season folder."""

__all__ = ["MOST_WORKERS", "WORKERS"]

WORKERS = 16
"""Files read at once: one takes a tenth of a second of a core, and most of a second of a distant server."""
MOST_WORKERS = 64
"""As many connections to a host are kept open."""
