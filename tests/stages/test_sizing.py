"""What steps ask of a cluster, worked by hand, and what is refused."""

import pytest

from exact_core.errors import ConfigError
from exact_core.stages.sizing import BASE, MARGIN, in_bytes, read_resources, sized


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("2G", 2e9), ("300M", 3e8), ("1.5Gi", 1.5 * 2**30), ("7", 7.0), ("64Mi", 2**26), ("1T", 1e12)],
)
def test_quantities_of_memory(quantity, size):
    assert in_bytes(quantity) == size


def test_nothing_said_is_sized_by_the_training():
    sizes = sized(read_resources({}), training=600_000_000)
    assert sizes.memory == "3G"  # 2.0 + 1.5 x 0.6 GB, rounded up
    assert pytest.approx(2.9e9) == BASE + MARGIN * 0.6e9
    assert (sizes.gpus, sizes.node_selector, sizes.toleration) == ("", {}, {})
    assert sized(read_resources({}), training=10_000_000_000).memory == "17G"


def test_what_a_form_gives_is_taken():
    """A form's numbers are floats by the time that KFP hands them on."""
    given = {"cpu": 8.0, "gpus": 1.0, "node_selector": {"pool": "gpu"}, "toleration": {"key": "nvidia.com/gpu"}}
    sizes = sized(read_resources(given), training=10**9)
    assert (sizes.cpu, sizes.gpus, sizes.memory) == ("8", "1", "16G")
    assert sizes.node_selector == {"pool": "gpu"}
    assert sizes.toleration == {"key": "nvidia.com/gpu"}
    assert sized(read_resources({"cpu": 1.5, "memory": "5G"}), training=10**9)[:2] == ("1.5", "5G")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"memory": "1G"}, r"memory = 1G, and training takes about 2\.0 GB.*the default for this run is 5G"),
        ({"gpus": 1, "gpu_memory": "1G"}, r"gpu_memory = 1G.*larger GPU"),
    ],
)
def test_a_training_that_cannot_fit_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        sized(read_resources(given), training=2 * 10**9)


@pytest.mark.parametrize(
    "wrong",
    [{"memori": "2G"}, {"memory": "much"}, {"gpus": -1}, {"gpus": 0.5}, {"cpu": "two"}, {"memory": ""} | {"cpu": ""}],
)
def test_a_wrong_key_or_value_lists_the_keys(wrong):
    with pytest.raises(
        ConfigError, match=r"resources.*keys: cpu, memory, data_memory, gpus, gpu_memory, node_selector"
    ):
        read_resources(wrong)
