"""Names of registered models, against a real registry (sqlite): what it does not take is refused first."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from exact_core.errors import ConfigError
from exact_core.stages.lifecycle import open_stage
from exact_core.stages.parameters import check_parameters
from exact_core.tracking.registry import CHAMPION, Registry, check_model_name
from exact_core.tracking.runs import tracking_uri


@pytest.mark.parametrize("name", ["exact/flanders", "exact:flanders", " ", 'l\'aisne "est"'])
def test_a_name_that_mlflow_or_its_filters_do_not_take_is_refused_by_the_first_step(name):
    with pytest.raises(ConfigError, match="Take another, for example"):
        check_model_name(name)
    with pytest.raises(ConfigError, match="Take another, for example"):
        check_parameters({"model": name})


def test_mlflow_s_own_rule_is_the_one_that_is_checked(tracking_file):
    client = MlflowClient(tracking_uri=tracking_uri())
    for name in ("exact/flanders", "exact:flanders"):
        with pytest.raises(MlflowException):
            client.create_registered_model(name)


@pytest.mark.parametrize("name", ["l'aisne", 'say "exact"', "exact-flanders", "Flandre orientale"])
def test_a_name_with_quotes_or_spaces_is_found_again(name, config, tracking_file):
    with open_stage("champion", config) as tracker:
        registry = Registry.of(tracker)
        assert registry.alias_version(name, CHAMPION) is None
        registry.client.create_registered_model(name)
        version = registry.client.create_model_version(name, "file:///nothing", tracker.run_id).version
        registry.set_alias(name, CHAMPION, version)
        assert registry.alias_version(name, CHAMPION) == str(version)
