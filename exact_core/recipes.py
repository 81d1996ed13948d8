"""Recipes: functions that return a RunConfig. A number that is not the paper's says why it stands."""

from __future__ import annotations

from collections.abc import Callable
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
    override,
)
from exact_core.errors import ConfigError

__all__ = ["RECIPES", "demo", "germany", "pastis24", "resolve", "season"]


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
            training=TrainingConfig(
                epochs=24, batch=8, learning_rate=3e-3, warmup_epochs=1, clip_norm=1.0, keep_dates=0.6
            ),
        ),
    )


def season() -> RunConfig:
    """One region, one season of Sentinel-2 from disk, on a CPU or one GPU.

    Windows of 120 m instead of the paper's 240 m: where a few crops dominate, nearly every 240 m square holds them all,
    and a tag that is always there teaches nothing (docs/results.md).
    """
    encoder = EncoderConfig(dim=64, temporal_depth=2, spatial_depth=2, heads=4, head_dim=16, mlp_ratio=2)
    return RunConfig(
        recipe="season",
        data=DataConfig(window=12, max_dates=30),
        classifier=ClassifierConfig(
            encoder=encoder,
            prototypes=PrototypeConfig(momentum=0.95),
            training=TrainingConfig(
                epochs=30,
                batch=16,
                learning_rate=3e-3,
                warmup_epochs=2,
                clip_norm=1.0,
                keep_dates=0.5,
                keep_best=False,
            ),
        ),
        segmenter=SegmenterConfig(
            encoder=encoder,
            utae=_small_utae(),
            training=TrainingConfig(
                epochs=30, batch=8, learning_rate=2e-3, warmup_epochs=1, clip_norm=1.0, keep_dates=0.5
            ),
        ),
    )


def pastis24() -> RunConfig:
    """PASTIS in 24-pixel windows with the paper's sizes and budget; wants a GPU.

    Dates, padding, learning and masks follow the published behaviour, option by option. What does not: void is
    ignored, the best epochs are chosen without training masks, and so is the threshold (docs/method.md lists each
    departure).
    """
    published = {"dates": "day_of_year", "mask_padding": False, "mask_clouds": False}
    shared = {"schedule": "published", "precision": "bf16", "flips": False}
    return RunConfig(
        recipe="pastis24",
        data=DataConfig(pastis=PastisConfig(date_limit="cut", day_rounding="published")),
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
            stretch="min_max", shifts=False, diffusion=0, align_corners=True, relearn=RelearnConfig(rounds=0)
        ),
        segmenter=SegmenterConfig(
            encoder=EncoderConfig.model_validate(
                {"temporal_depth": 4, "head_dim": 32, "residual": "double", **published}
            ),
            training=TrainingConfig.model_validate({"epochs": 100, "start_rate": 1e-8, **shared}),
            layout="published",
        ),
    )


def germany() -> RunConfig:
    """The Germany dataset (MTLCC) with the paper's sizes and budget, as `pastis24`; wants a GPU.

    The season of 2016, all 13 bands and fold 0, as TSViT's published reader has them, on which the paper's code is
    built. Nothing else of the paper's settings for Germany is published: models, learning and masks are those for
    PASTIS, and which pixels it scored is not known (docs/results.md).
    """
    data = DataConfig(germany=GermanyConfig(years=(2016,)))
    return pastis24().model_copy(update={"recipe": "germany", "data": data})


def _small_utae() -> UtaeConfig:
    """A U-TAE of about the cost of the small TSViT; three levels leave 6 x 6 cells of a 24-pixel window."""
    return UtaeConfig(
        encoder_widths=(16, 32, 32), decoder_widths=(16, 32, 32), heads=4, attention_width=64, dropout=0.0
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {"demo": demo, "season": season, "pastis24": pastis24, "germany": germany}


def resolve(recipe: str, *, seed: int = 0, overrides: list[str] | None = None) -> RunConfig:
    """The configuration of a run: a recipe by name, its seed, and single keys changed.

    Raises:
        ConfigError: unknown recipe, key or value.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    changes: dict[str, Any] = {"seed": seed}
    config = RECIPES[recipe]().model_copy(update=changes)
    return override(config, overrides or [])
