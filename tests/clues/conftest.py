import pytest

from exact_core.data.synthetic import ingest_synthetic
from exact_core.data.windows.dataset import WindowDataset
from exact_core.recipes import resolve
from tests.conftest import TINY


@pytest.fixture(scope="session")
def windows(tmp_path_factory):
    """Enough of them for tags to differ."""
    changes = [*TINY, "data.synthetic.scenes=8", "data.synthetic.scene_size=72", "data.synthetic.dates=16"]
    out = tmp_path_factory.mktemp("pixels") / "dataset"
    ingest_synthetic(resolve("demo", seed=3, overrides=changes).data, out, seed=3)
    return WindowDataset(out)
