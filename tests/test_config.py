from operator import attrgetter

import pytest
import yaml

from exact_core.config import RETIRED, RunConfig, load_config, override
from exact_core.errors import ConfigError
from exact_core.recipes import RECIPES, resolve


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_saved_form(name, tmp_path):
    config = resolve(name, seed=7)
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config.recipe == name
    assert config.seed == 7


def test_every_setting_and_every_part_says_what_it_means():
    def walk(model, path):
        for name, field in model.model_fields.items():
            yield ".".join([*path, name]), field.description
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from walk(inner, [*path, name])

    described = dict(walk(RunConfig, []))
    assert len(described) > 150
    assert [key for key, words in described.items() if not words] == []
    # A part says what it is for where it stands: the classifier's encoder is not the segmenter's.
    assert described["classifier.encoder"] != described["segmenter.encoder"]


def test_override_changes_one_key_and_keeps_the_rest():
    config = resolve("demo")
    changed = override(config, ["classifier.training.epochs=5", "masks.threshold=0.3"])
    assert changed.classifier.training.epochs == 5
    assert changed.masks.threshold == 0.3
    assert changed.segmenter == config.segmenter
    assert changed.digest("segmenter") == config.digest("segmenter")
    assert changed.digest("classifier") != config.digest("classifier")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("classifier.training.epoch=5", ["classifier.training.epoch", "did you mean", "epochs"]),
        ("clasifier.training.epochs=5", ["clasifier", "did you mean 'classifier'"]),
        ("classifier.training.epochs=many", ["classifier.training.epochs", "'many'"]),
        ("classifier.training.epochs=0", ["classifier.training.epochs", "0", "greater"]),
        ("epochs", ["epochs", "key=value"]),
        ("data.window=25", ["25", "multiple"]),
        ("data.synthetic.scene_size=49", ["49", "even"]),
        ("classifier.encoder.patch=3", ["patch 3", "even", "classifier.encoder.mask_clouds=false"]),
        ("seed=-1", ["seed", "-1"]),
        ("device=gpu7", ["device", "'gpu7'"]),
        ("masks.threshold=2", ["masks.threshold", "2"]),
        ("masks.threshold=.nan", ["masks.threshold"]),
        ("classifier.training.learning_rate=.inf", ["learning_rate", "inf"]),
        ("classifier.loss.contrast_start=1", ["contrast_start"]),
        ("data.season.bands=[B02, B02]", ["B02", "twice"]),
        ("data.season.start=2018-13-01", ["2018-13-01"]),
        ("data.test_share=0.9", ["nothing to train on"]),
        ("data.synthetic=[", ["YAML"]),
    ],
)
def test_a_wrong_override_names_key_value_and_way_out(assignment, words):
    with pytest.raises(ConfigError) as error:
        resolve("demo", overrides=[assignment])
    for word in words:
        assert word in str(error.value)


def test_an_odd_patch_is_refused_only_where_clouds_are_masked():
    odd = ["segmenter.encoder.patch=3", "segmenter.encoder.mask_clouds=false"]
    assert resolve("demo", overrides=odd).segmenter.encoder.patch == 3


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ConfigError, match="'corn'.*demo, season, pastis24, germany"):
        resolve("corn")


def test_a_saved_configuration_with_an_unknown_key_names_file_and_key(tmp_path):
    path = tmp_path / "mine.yaml"
    data = yaml.safe_load(yaml.safe_dump(resolve("demo").model_dump(mode="json")))
    data["data"]["windows"] = 24
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'data.windows' \(did you mean 'data.window'"):
        load_config(path)
    with pytest.raises(ConfigError, match="no such configuration"):
        load_config(tmp_path / "other.yaml")


def test_the_paper_recipe_has_the_papers_numbers():
    config = resolve("pastis24")
    classifier, segmenter = config.classifier, config.segmenter
    assert (classifier.encoder.dim, classifier.encoder.temporal_depth, classifier.encoder.spatial_depth) == (128, 8, 4)
    assert (classifier.encoder.heads, classifier.encoder.head_dim) == (4, 64)
    assert (classifier.training.epochs, classifier.training.batch, classifier.training.learning_rate) == (20, 48, 1e-3)
    assert (classifier.loss.contrast, classifier.loss.affinity) == (0.01, 0.015)
    assert classifier.loss.contrast_start == pytest.approx(4000 / 15000)
    assert classifier.prototypes.momentum == 0.999
    assert (segmenter.encoder.temporal_depth, segmenter.encoder.head_dim, segmenter.training.epochs) == (4, 32, 100)
    assert config.data.pastis.train_folds == (1, 2, 3)


def test_germany_is_learned_as_pastis_is():
    config, pastis = resolve("germany"), resolve("pastis24")
    assert (config.recipe, config.data.germany.years, len(config.data.germany.bands)) == ("germany", (2016,), 13)
    for part in ("classifier", "masks", "segmenter"):
        assert getattr(config, part) == getattr(pastis, part)


def test_only_the_paper_recipes_take_the_published_options():
    """tests/parity shows what they do; here, that the other recipes leave them alone."""
    published = {
        "data.pastis.date_limit": "cut",
        "data.pastis.day_rounding": "published",
        "classifier.encoder.dates": "day_of_year",
        "classifier.encoder.mask_padding": False,
        "classifier.encoder.residual": "normed",
        "classifier.affinity.time_weights": "double_softmax",
        "classifier.prototypes.weights": "published",
        "classifier.prototypes.present_only": False,
        "classifier.prototypes.momentum_warmup": False,
        "classifier.training.schedule": "published",
        "classifier.training.flips": False,
        "masks.stretch": "min_max",
        "masks.shifts": False,
        "masks.align_corners": True,
        "segmenter.layout": "published",
        "segmenter.encoder.residual": "double",
        "segmenter.encoder.mask_padding": False,
    }
    configs = {name: resolve(name) for name in RECIPES}
    for key, value in published.items():
        for name, config in configs.items():
            papers = ("pastis24",) if key.startswith("data.pastis") else ("pastis24", "germany")
            assert (attrgetter(key)(config) == value) == (name in papers), (name, key)
    # Truth is never read to choose: the threshold is a rule's.
    for config in configs.values():
        assert isinstance(config.masks.threshold, str)


@pytest.mark.parametrize(("windows", "expected"), [(196, 16), (128, 16), (100, 12), (25, 3), (3, 1)])
def test_a_batch_is_smaller_where_windows_are_few(windows: int, expected: int) -> None:
    """At least 8 steps an epoch, where there are 8 windows; a recipe that asks for one has a batch of all of few."""
    assert resolve("season").classifier.training.batch_of(windows) == expected
    assert resolve("pastis24").classifier.training.batch_of(windows) == min(48, windows)
    # Where an epoch takes half of the windows it has as many steps.
    assert resolve("season").classifier.training.batch_of(windows, 0.5) == max(1, round(expected / 2))


def test_settings_of_earlier_versions_stop_no_model_of_theirs(tmp_path):
    """Only where a model's folder has them: who asks for one is told that there is none."""
    config = resolve("season", seed=0, overrides=[])
    config.save(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for *sections, name in RETIRED:
        place = saved
        for section in sections:
            place = place[section]
        assert name not in place
        place[name] = 7
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert load_config(tmp_path / "config.yaml") == config
    with pytest.raises(ConfigError, match=r"unknown key 'masks\.judged'"):
        override(config, ["masks.judged=7"])
    saved["masks"]["judge"] = 7
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    with pytest.raises(ConfigError, match=r"unknown key 'masks\.judge'"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("masks: 7")
    with pytest.raises(ConfigError, match="masks = 7"):
        load_config(tmp_path / "config.yaml")
