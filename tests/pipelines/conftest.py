"""A KFP server for each test."""

from __future__ import annotations

import kfp
import pytest
from exact_kubeflow.pipelines import connection, follow

from tests.services.kfp_server import KfpServer


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(connection, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    for name in ("KFP_TOKEN", "KFP_NAMESPACE", "KFP_CA_CERT", "KFP_SERVICE_ACCOUNT", "KFP_UI"):
        monkeypatch.delenv(name, raising=False)
    # A person's own saved context is not part of a test.
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    kfp_server = KfpServer()
    monkeypatch.setenv("KFP_HOST", kfp_server.host)
    yield kfp_server
    kfp_server.close()
