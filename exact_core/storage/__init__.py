"""Objects in S3 or in a folder, a verified local cache of them, and our artifact folders moved through both.

    base.py        what a store is: URIs, keys, the interface, parallel work
    s3.py          an S3 server; the only module that imports minio
    filestore.py   a folder, for `file://` URIs and plain paths
    cache.py       verified local copies, shared by the processes of a machine, bounded in size
    download.py    filling a file from a store, by ranges, continuing where a killed process stopped
    mirror.py      a folder kept equal to a prefix of a store that others write to
    presign.py     addresses of objects that carry a signature
    folders.py     an artifact folder as objects under their digests and one small pointer

Nothing relies on conditional writes or on the order of listings: objects are named by their content, so writing one
twice writes the same, and a pointer is written last, so a half published folder is never found.
"""

from exact_core.storage.base import ObjectInfo, Progress, Store, StoreOptions, content_key, open_object, open_store
from exact_core.storage.cache import Cache, default_cache
from exact_core.storage.folders import MANIFESTS, Pointer, fetch_folder, manifest_of, publish_folder, read_pointer
from exact_core.storage.mirror import Mirrored, mirror

__all__ = [
    "MANIFESTS",
    "Cache",
    "Mirrored",
    "ObjectInfo",
    "Pointer",
    "Progress",
    "Store",
    "StoreOptions",
    "content_key",
    "default_cache",
    "fetch_folder",
    "manifest_of",
    "mirror",
    "open_object",
    "open_store",
    "publish_folder",
    "read_pointer",
]
