"""Recipes: functions that return a RunConfig. A number that is not the paper's says why it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exact_core.config import (
    AffinityConfig,
    ClassifierConfig,
    DataConfig,
    EncoderConfig,
    GermanyConfig,
    LossConfig,
    MasksConfig,
    PastisConfig,
    PrototypeConfig,
    RelearnConfig,
    RunConfig,
    SegmenterConfig,
    SyntheticConfig,
    TrainingConfig,
    UtaeConfig,
    as_recipe,
    build,
    override,
    read_settings,
)
from exact_core.errors import ConfigError
from exact_core.json_values import read_json

__all__ = ["RECIPES", "demo", "germany", "pastis24", "portable", "resolve", "season"]


def demo() -> RunConfig:
    """Generated season, six crops, small models: minutes on two CPU cores, the whole method in it."""
    encoder = EncoderConfig(dim=32, temporal_depth=2, spatial_depth=1, heads=2, head_dim=16, mlp_ratio=2)
    # A small model on few windows learns in a few hundred steps what the paper's takes 15,000 for: a higher rate, held
    # in check by clipping, small batches for the segmenter, and prototypes that follow faster. Of the classifier the
    # last epoch is delivered: no sign without masks picked a better one (docs/results.md).
    return RunConfig(
        recipe="demo",
        data=DataConfig(synthetic=SyntheticConfig(scenes=16)),
        classifier=ClassifierConfig(
            encoder=encoder,
            prototypes=PrototypeConfig(momentum=0.95),
            training=TrainingConfig(
                epochs=24,
                batch=16,
                learning_rate=6e-3,
                warmup_epochs=2,
                clip_norm=1.0,
                keep_dates=0.6,
                keep_best=False,
            ),
        ),
        segmenter=SegmenterConfig(
            encoder=encoder,
            utae=_small_utae(),
            pixel_weight=0.5,
            training=TrainingConfig(
                epochs=16, batch=4, learning_rate=2e-3, warmup_epochs=1, clip_norm=1.0, keep_dates=0.4, prefixes=0.5
            ),
        ),
    )


def season() -> RunConfig:
    """One region, one season of Sentinel-2 from disk, on a CPU or one GPU.

    Windows of 120 m instead of the paper's 240 m: where a few crops dominate, nearly every 240 m square holds them all,
    and a tag that is always there teaches nothing (docs/results.md). Of 25 squares, a batch of 16 would make 60 steps.
    Windows of a small scene overlap seven-fold: half of them an epoch, and all of rare crops, give as good masks and
    maps (docs/experiments.md).
    """
    encoder = EncoderConfig(dim=64, temporal_depth=2, spatial_depth=2, heads=4, head_dim=16, mlp_ratio=2)
    return RunConfig(
        recipe="season",
        data=DataConfig(window=12, window_metres=120, max_dates=30),
        classifier=ClassifierConfig(
            encoder=encoder,
            prototypes=PrototypeConfig(momentum=0.95),
            training=TrainingConfig(
                epochs=30,
                batch=16,
                fewest_steps=8,
                most_looks=3.5,
                learning_rate=3e-3,
                warmup_epochs=2,
                clip_norm=1.0,
                keep_dates=0.5,
                keep_best=False,
            ),
        ),
        # Windows of one scene overlap, and patches are shared by the windows of a batch (docs/results.md).
        masks=MasksConfig(batch=128),
        segmenter=SegmenterConfig(
            encoder=encoder,
            utae=_small_utae(),
            pixel_weight=0.5,
            training=TrainingConfig(
                epochs=30,
                batch=8,
                fewest_steps=8,
                most_looks=3.5,
                learning_rate=2e-3,
                warmup_epochs=1,
                clip_norm=1.0,
                keep_dates=0.5,
                prefixes=0.5,
            ),
        ),
    )


def pastis24() -> RunConfig:
    """PASTIS in 24-pixel windows with the paper's sizes and budget. Requires a GPU.

    Dates, padding, learning and masks follow the published behaviour, option by option. What does not: void is
    ignored, the best epochs are chosen without training masks, and so is the threshold (docs/method.md lists each
    departure).
    """
    published = {"dates": "day_of_year", "mask_padding": False, "mask_clouds": False}
    shared = {"schedule": "published", "precision": "bf16", "flips": False}
    return RunConfig(
        recipe="pastis24",
        data=DataConfig(void_tags="complete", pastis=PastisConfig(date_limit="cut", day_rounding="published")),
        classifier=ClassifierConfig(
            encoder=EncoderConfig.model_validate({"residual": "normed", **published}),
            prototypes=PrototypeConfig(
                assignment="gumbel", momentum_warmup=False, present_only=False, weights="published"
            ),
            affinity=AffinityConfig(time_weights="double_softmax"),
            loss=LossConfig(),
            training=TrainingConfig.model_validate({"epochs": 20, "start_rate": 1e-6, **shared}),
        ),
        masks=MasksConfig(
            stretch="min_max",
            shifts=False,
            diffusion=0,
            align_corners=True,
            overlaps=False,
            relearn=RelearnConfig(rounds=0),
        ),
        segmenter=SegmenterConfig(
            encoder=EncoderConfig.model_validate(
                {"temporal_depth": 4, "head_dim": 32, "residual": "double", **published}
            ),
            training=TrainingConfig.model_validate({"epochs": 100, "start_rate": 1e-8, **shared}),
            balance=0.0,
            layout="published",
        ),
    )


def germany() -> RunConfig:
    """The Germany dataset (MTLCC) with the paper's sizes and budget, as `pastis24`. Requires a GPU.

    The season of 2016, all 13 bands and fold 0, as TSViT's published reader has them, on which the paper's code is
    built. Nothing else of the paper's settings for Germany is published: models, learning and masks are those for
    PASTIS, and which pixels it scored is not known (docs/results.md).
    """
    data = DataConfig(void_tags="complete", germany=GermanyConfig(years=(2016,)))
    return pastis24().model_copy(update={"recipe": "germany", "data": data})


def _small_utae() -> UtaeConfig:
    """A U-TAE of about the cost of the small TSViT. Three levels leave 6 x 6 cells of a 24-pixel window."""
    return UtaeConfig(
        encoder_widths=(16, 32, 32), decoder_widths=(16, 32, 32), heads=4, attention_width=64, dropout=0.0
    )


FILES = (".yaml", ".yml")
"""Endings of a recipe that is a file."""
RECIPES: dict[str, Callable[[], RunConfig]] = {"demo": demo, "season": season, "pastis24": pastis24, "germany": germany}


def resolve(recipe: str, *, seed: int | None = None, overrides: list[str] | None = None) -> RunConfig:
    """The configuration of a run: a recipe, its seed, and single keys changed.

    Args:
        recipe: a name, a file (.yaml), or the text that `portable` makes of one. A file has all keys, or some keys and
            the `recipe` that supplies the others.
        seed: If None, that of the file, or 0.
        overrides: as `exact_core.config.override` takes them.

    Raises:
        ConfigError: unknown recipe, key or value.
    """
    config = as_recipe(_started_from(recipe))
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    return override(config, overrides or [])


def portable(recipe: str) -> str:
    """A recipe as every step of a pipeline understands it, on whichever machine: a file as what it changes, in JSON.

    Raises:
        ConfigError: as `resolve`.
    """
    if not recipe.endswith(FILES):
        return recipe
    config = _started_from(recipe)
    known = RECIPES[config.recipe]().model_dump(mode="json")
    return json.dumps({"recipe": config.recipe, **_changes(known, config.model_dump(mode="json"))})


def _started_from(recipe: str) -> RunConfig:
    if recipe in RECIPES:
        return RECIPES[recipe]()
    if recipe.endswith(FILES):
        return _completed(read_settings(Path(recipe)), recipe)
    if recipe.startswith("{"):
        try:
            return _completed(read_json(recipe), "recipe")
        except ValueError as error:
            raise ConfigError(f"recipe {recipe[:80]!r}: not valid JSON: {error}") from error
    raise ConfigError(f"unknown recipe {recipe!r}. Choose one of {', '.join(RECIPES)}, or a file (.yaml)")


def _completed(given: dict[str, Any], where: str) -> RunConfig:
    """What a file says, over the recipe that it names."""
    name = given.get("recipe")
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(
            f"{where}: recipe is {name!r}. Name the one that has all other settings: {', '.join(RECIPES)}"
        )
    known = RECIPES[name]().model_dump(mode="json")
    if isinstance(stated := given.get("data"), dict) and "window" in stated and "window_metres" not in stated:
        known["data"]["window_metres"] = None
    return build(_updated(known, given), where=where)


def _updated(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    both = {key: value for key, value in given.items() if isinstance(value, dict) and isinstance(known.get(key), dict)}
    return {**known, **given, **{key: _updated(known[key], value) for key, value in both.items()}}


def _changes(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration in which it differs from another."""
    changed: dict[str, Any] = {}
    for key, value in found.items():
        if value != known[key]:
            whole = not (isinstance(value, dict) and isinstance(known[key], dict))
            changed[key] = value if whole else _changes(known[key], value)
    return changed
