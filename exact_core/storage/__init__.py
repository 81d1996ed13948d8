"""Objects in S3 or in a folder, a verified local cache of them, and our artifact folders moved through both.

    base.py        what a store is: keys, the interface, digests, parallel work
    opening.py     from a URI to its store
    s3.py          a bucket of an S3 server
    client.py      the operations that s3.py needs of an S3 client, and the connection to the server
    clients.py     which library is the client: minio_client.py or boto_client.py
    retry.py       which requests are retried, how often, and the wording of errors
    filestore.py   a folder, for `file://` URIs and plain paths
    cache.py       verified local copies, shared by the processes of a machine, bounded in size
    download.py    filling a file from a store, by ranges, continuing where a killed process stopped
    locks.py       one process at a time on a file
    mirror.py      a folder kept equal to a prefix of a store that others write to
    presign.py     addresses of objects that carry a signature
    leases.py      claims as objects: of several processes, one does the work
    folders.py     an artifact folder as objects under their digests and one small pointer

Nothing depends on conditional writes or on the order of listings. Objects are named by their content, so writing one
twice has no effect. A pointer is written last, so no reader sees a half published folder. Claims require a listing that
shows what was written before it.
"""

from exact_core.storage.base import ObjectInfo, Progress, Store, StoreOptions, content_key
from exact_core.storage.cache import Cache, default_cache
from exact_core.storage.folders import Pointer, fetch_folder, manifest_of, publish_folder, read_pointer
from exact_core.storage.mirror import Mirrored, mirror
from exact_core.storage.opening import open_object, open_store

__all__ = [
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
