"""The configuration of a run: frozen pydantic models, unknown keys refused.

A recipe (`exact_core.recipes`) returns a `RunConfig`. YAML is its saved form. `override` changes single keys by
dotted path. Sources named "paper" are Zhu et al., CVPR 2025 (arXiv 2412.03968).
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticUndefined

from exact_core.errors import ConfigError
from exact_core.yaml_values import read_yaml

Precision = Literal["auto", "fp32", "bf16"]


class Settings(BaseModel):
    """Base of every part: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RETIRED = (("masks", "judged"),)
"""Settings of earlier versions, all of the way to a model. A model keeps what it was made with."""


class SyntheticConfig(Settings):
    """The generated season (`exact_core.data.synthetic` states the formula)."""

    scenes: int = Field(12, ge=3, description="number of independent scenes")
    scene_size: int = Field(120, ge=24, description="side of a scene, pixels of 10 m")
    crops: int = Field(6, ge=1, le=18, description="number of crop classes")
    dates: int = Field(
        20, ge=1, description="mean number of acquisitions in the season, irregular and different in each scene"
    )
    season_days: int = Field(300, ge=30, description="length of the season, days")
    cloud_share: float = Field(0.25, ge=0.0, le=0.95, description="mean share of pixels under cloud or shadow")
    background_share: float = Field(0.2, ge=0.0, le=0.9, description="share of fields without a crop")
    void_share: float = Field(0.02, ge=0.0, le=0.5, description="share of fields with unknown truth (void)")
    field_size: float = Field(14.0, gt=2.0, description="typical field side, pixels")
    variation: float = Field(1.0, ge=0.0, description="variation of phenology among fields, 1 is realistic")
    crops_per_neighbourhood: float = Field(2.0, gt=0.0, description="approximate number of crops in a window")
    imbalance: float = Field(
        0.0,
        ge=0.0,
        description="crop k of 1..K is sown in proportion to k^-imbalance (0 is equal shares, 1 is Zipf's law)",
    )
    tag_noise: float = Field(
        0.0,
        ge=0.0,
        le=0.5,
        description="share of wrong tags in training and validation windows. This share of true tags is left out, and "
        "as many absent crops are tagged instead",
    )


class PastisConfig(Settings):
    """Official folds of PASTIS for each split, and reading of its dates."""

    train_folds: tuple[int, ...] = Field((1, 2, 3), description="folds of the training split (paper)")
    validation_folds: tuple[int, ...] = Field((4,), description="folds of the validation split (paper)")
    test_folds: tuple[int, ...] = Field((5,), description="folds of the test split (paper)")
    classes: int = Field(
        18, ge=1, le=254, description="number of crop classes K. Label 0 is background, labels 1..K are crops"
    )
    void_label: int | None = Field(None, description="label of void pixels. If None, K + 1, as in PASTIS")
    date_limit: Literal["thin", "cut"] = Field(
        "thin",
        description="rule for more than data.max_dates dates. `thin` spreads the kept dates over the season. `cut` "
        "keeps the first by day of year in any year, as published",
    )
    day_rounding: Literal["exact", "published"] = Field(
        "exact",
        description="rounding of days. `published` reads 19 days of the year as the day before, because float32 "
        "scaling by 365.0001 and truncation lose them",
    )

    @model_validator(mode="after")
    def _disjoint(self) -> PastisConfig:
        folds = [*self.train_folds, *self.validation_folds, *self.test_folds]
        if len(set(folds)) != len(folds):
            raise ValueError(f"a fold serves two splits: {sorted(folds)}. Name each fold once")
        if not self.train_folds:
            raise ValueError("train_folds is empty. Name at least one fold")
        return self


GermanyBand = Literal[
    "B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "B10"
]  # fmt: skip


class GermanyConfig(Settings):
    """Tiles of the Germany dataset to read. "MTLCC" is Russwurm and Koerner 2018."""

    years: tuple[Literal[2016, 2017], ...] = Field(
        (2016, 2017),
        min_length=1,
        description="seasons to read, each from a folder dataYY (MTLCC has both, TSViT has 2016)",
    )
    fold: int = Field(
        0,
        ge=0,
        description="number N of the lists of training and validation tiles, train_foldN and test_foldN (TSViT has 0)",
    )
    bands: tuple[GermanyBand, ...] = Field(
        get_args(GermanyBand),
        min_length=1,
        description="bands to read, in their stored order (MTLCC and TSViT have all 13)",
    )
    unknown: Literal["background", "void"] = Field(
        "background",
        description="class of land without a declared field of the 17 crops. It is `background`, as in PASTIS, or "
        "`void`, which is never scored and no target, as in MTLCC and TSViT",
    )

    @model_validator(mode="after")
    def _once(self) -> GermanyConfig:
        for name in ("years", "bands"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)} name one twice")
        return self


Outside = Literal["pixels", "borders", "background"]
"""What pixels outside all outlines of fields are: what they look like, background beside a field, or all background."""
OffsetRule = Literal["correct", "refuse", "stated", 0, 1000]


class SeasonConfig(Settings):
    """Season of Sentinel-2 L2A on disk. The source's own `season.yaml` may set each key."""

    start: dt.date | None = Field(
        None,
        description="first day of the season. If None, first day of the quarter that contains the first acquisition",
    )
    days: int | None = Field(
        None, ge=1, le=3660, description="length of the season, days. If None, the season ends at the last acquisition"
    )
    until: dt.date | None = Field(
        None,
        description="last day whose images are used, for a map within the season. Days count as for the whole season. "
        "If None, all images of the season are used",
    )
    bands: tuple[str, ...] = Field(
        ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
        min_length=1,
        description="band names, in the order in which they are stored",
    )
    labels: str | None = Field(
        None,
        description="label raster, parcel layer or table of tags (.csv). If None, the first of labels/crop_type.tif, "
        "labels/parcels.* and labels/tags.*",
    )
    outlines: str | None = Field(
        None,
        description="layer of field outlines without crops, which groups pixels into fields. `segments` finds fields "
        "in the images instead. If None, labels/outlines.* if it exists",
    )
    segment_hectares: float = Field(
        0.1, gt=0, description="minimum area of a field that `outlines: segments` finds, hectares"
    )
    attribute: str | None = Field(None, description="parcel attribute with the crop code. If None, crop_code")
    classes: dict[int | str, str] | None = Field(
        None, description="crop code -> class name. If None, labels/legend.csv"
    )
    legend: str | None = Field(
        None,
        min_length=1,
        description="meaning of crop codes. `hcat` is the legend of EuroCrops (attribute EC_hcat_c), `worldcereal` "
        "that of WorldCereal (attribute ewoc_code). In both, an unlisted code has the name of its parent. "
        "`eurocrops:TABLE` has the national codes of a country, for example eurocrops:nl_2020. Otherwise a file in "
        "the layout of legend.csv or of EuroCrops' country mappings. If None, labels/legend.csv",
    )
    level: Literal["name", "group"] = Field(
        "name", description="column of the legend that defines the classes, one class for each name or for each group"
    )
    overlap_order: str | None = Field(
        None,
        description="parcel attribute that orders overlapping parcels of different crops, lowest number first. If "
        "None, overlaps are void",
    )
    void_codes: tuple[int | str, ...] = Field(
        (),
        description="codes of the label layer with unknown truth. With 0 among them, all land that is not declared is "
        "unknown, and no background is learned from it",
    )
    missing_code: Literal["void", "background", "refuse"] = Field(
        "void",
        description="rule for parcels without a code (null or empty, for numbers and text). `void` is unknown truth, "
        "`background` is no crop, and `refuse` rejects the layer",
    )
    offset: OffsetRule = Field(
        "correct",
        description="rule if metadata and pixels disagree on the offset of 1000 of baseline 04.00. `correct` follows "
        "the pixels and notes it, `refuse` rejects the season, and `stated` follows the metadata without "
        "a check. A number is the offset of all dates, and overrides metadata and pixels",
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="reflectance of a stored 1 in all dates, for example 0.0001. If None, the metadata decide. "
        "Without them, whole numbers have 0.0001 and fractions 1, within the bounds of land reflectance",
    )
    clear_classes: tuple[int, ...] = Field(
        (4, 5, 6, 7, 11),
        description="classes of the scene classification that show the ground (vegetation, bare soil, water, "
        "unclassified, snow)",
    )
    cloud_erosion: int = Field(
        0,
        ge=0,
        le=50,
        description="unclear areas narrower than twice this, pixels, count as clear, as errors of the scene "
        "classification",
    )
    cloud_dilation: int = Field(0, ge=0, le=200, description="margin around clouds that also counts as unclear, pixels")
    min_clear: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="minimum clear share of a date. Dates below it are left out. If 0, the clear parts of every date "
        "are used",
    )
    leave_out: tuple[dt.date, ...] = Field(
        (), description="dates that are not read, for example one with clouds that the scene classification calls clear"
    )
    longest_gap: int = Field(
        120, ge=1, description="maximum days of the season without a clear acquisition at an average pixel"
    )

    @model_validator(mode="after")
    def _bands_once(self) -> SeasonConfig:
        if len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands {list(self.bands)} name a band twice")
        return self


class DataConfig(Settings):
    """Windows and splits of a source."""

    window: int = Field(24, ge=4, description="window side, pixels (paper)")
    window_metres: float | None = Field(
        None,
        gt=0,
        description="window side of a season in metres, rounded to the nearest even number of pixels, at least 4. If "
        "None, or if only data.window is set, data.window applies",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="step between windows, pixels. If None, one window, or a third of it in a scene too small to split",
    )
    tag_share: float = Field(0.01, ge=0.0, lt=1.0, description="share of a window that a crop must exceed to be tagged")
    min_support: int = Field(
        0,
        ge=0,
        description="minimum number of training windows of a season with the tag of a crop. A crop with fewer is "
        "refused. If 0, it is noted at most",
    )
    void_tags: Literal["positive", "complete"] = Field(
        "positive",
        description="meaning of tags in a window with void pixels. `positive` leaves a crop that could grow there "
        "untagged neither present nor absent, void pixels give no training signal, and all-void windows "
        "are left out. `complete` treats void as no crop (paper)",
    )
    max_dates: int = Field(
        60, ge=2, description="maximum number of dates. Longer series are thinned over the whole season"
    )
    validation_share: float = Field(0.15, ge=0.0, lt=1.0, description="share of blocks or scenes for validation")
    test_share: float = Field(0.25, ge=0.0, lt=1.0, description="share of blocks or scenes for testing")
    fewest_squares: int = Field(
        100,
        ge=1,
        description="minimum number of separate squares in a table of tags for a split. With fewer, all are used for "
        "training, and metrics are computed on them",
    )
    shard_windows: int = Field(64, ge=1, description="windows in a shard file")
    synthetic: SyntheticConfig = Field(SyntheticConfig(), description="generated season of a synthetic source")
    pastis: PastisConfig = Field(
        PastisConfig(), description="folds of a PASTIS source for each split, and reading of its dates"
    )
    germany: GermanyConfig = Field(GermanyConfig(), description="tiles of the Germany dataset to read, and how")
    season: SeasonConfig = Field(SeasonConfig(), description="bands, clouds and labels of a season folder")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> DataConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share:g} and test_share {self.test_share:g} leave "
                f"nothing to train on"
            )
        return self


class EncoderConfig(Settings):
    """The TSViT encoder: patches, then time, then space (paper)."""

    patch: int = Field(2, ge=1, description="patch side, pixels (paper)")
    dim: int = Field(128, ge=4, description="embedding width D (paper)")
    temporal_depth: int = Field(8, ge=1, description="blocks over dates (paper: 8, segmenter 4)")
    spatial_depth: int = Field(4, ge=1, description="blocks over patches (paper: 4)")
    heads: int = Field(4, ge=1, description="attention heads (paper)")
    head_dim: int = Field(64, ge=1, description="width of a head (paper: 64, segmenter 32)")
    mlp_ratio: int = Field(4, ge=1, description="hidden width of a block's MLP over D (paper)")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="dropout probability (paper: 0)")
    residual: Literal["pre_norm", "normed", "double"] = Field(
        "pre_norm",
        description="input that attention adds to. `pre_norm` is x. `normed` is LN(x), as in the published "
        "classifier. `double` is x + LN(x), as in the published segmenter",
    )
    dates: Literal["season_day", "day_of_year"] = Field(
        "season_day",
        description="date embedding. `season_day` has Fourier features of days since season start. `day_of_year` has "
        "a learned table, as published",
    )
    mask_padding: bool = Field(
        True, description="exclude padding dates from attention. False reproduces the published code"
    )
    pad_dates: int = Field(
        60,
        ge=1,
        description="without mask_padding, pad series to this many dates and attend to all of them (published)",
    )
    mask_clouds: bool = Field(
        True,
        description="exclude cloudy dates from a patch's attention if clouds are known. Dates that did not measure a "
        "patch are excluded anyway, except without mask_padding",
    )
    checkpointing: bool = Field(
        False,
        description="keep only each block's input for the backward pass and recompute the block. Memory falls to a "
        "fraction for about a third more time, with the same gradients",
    )


class PrototypeConfig(Settings):
    """Spatial clues (paper)."""

    per_class: int = Field(
        2, ge=1, description="number of foreground and background prototypes of a class, N_p (paper)"
    )
    foreground: float = Field(0.4, ge=0, le=1, description="minimum normalised CAM of foreground pixels (paper)")
    background: float = Field(0.2, ge=0, le=1, description="normalised CAM below which pixels are background (paper)")
    iterations: int = Field(3, ge=1, description="Sinkhorn iterations (paper)")
    epsilon: float = Field(0.05, gt=0, description="Sinkhorn temperature (paper)")
    assignment: Literal["argmax", "gumbel"] = Field(
        "argmax",
        description="prototype that a pixel updates. `argmax` is its likeliest by Sinkhorn. `gumbel` draws one by a "
        "hard Gumbel-softmax with the Sinkhorn matrix as logits, as published",
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="weight of the old prototype (paper)")
    momentum_warmup: bool = Field(
        True,
        description="use a running mean until `momentum` is reached. If False, use `momentum` from the first update "
        "(published)",
    )
    weights: Literal["cam", "published"] = Field(
        "cam",
        description="weight of a pixel in the mean of its prototype. `cam` is CAM for foreground and 1 - CAM for "
        "background. `published` is CAM squared for both, which gives the surest background no weight",
    )
    temperature: float = Field(0.1, gt=0, description="temperature of the contrastive softmax (paper)")
    present_only: bool = Field(
        True,
        description="average the contrast over classes with pixels. If False, average over all classes, with absent "
        "classes as 0 (published)",
    )


class AffinityConfig(Settings):
    """Temporal clues (paper)."""

    dilation: int = Field(2, ge=1, description="distance of the 8 neighbours, patches (paper)")
    iterations: int = Field(3, ge=0, description="propagation steps (paper)")
    temperature: float = Field(0.3, gt=0, description="divisor of cosine / std before the softmax (paper)")
    time_weights: Literal["attention", "double_softmax"] = Field(
        "attention",
        description="class-to-time weights. `attention` is renormalised over real dates. `double_softmax` is a second "
        "softmax over attention, as published",
    )


class TrainingConfig(Settings):
    """Training of either model, in one loop."""

    epochs: int = Field(20, ge=1, description="passes over the training windows (paper: 20, segmenter 100)")
    batch: int = Field(48, ge=1, description="windows in a step, over all processes (paper)")
    fewest_steps: int = Field(
        1, ge=1, description="minimum steps in an epoch. With too few windows, the batch is smaller"
    )
    most_looks: float | None = Field(
        None,
        ge=1,
        description="number of training windows that show a pixel in an epoch, on average at most. Where windows "
        "overlap more, an epoch takes a random share of them, and so does a step. Windows of crops that few windows "
        "have come first. If None, all",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW (paper)")
    minimum_rate: float = Field(5e-6, ge=0, description="rate at the end of the cosine (paper)")
    start_rate: float = Field(1e-5, ge=0, description="rate at the first step of the warm-up")
    warmup_epochs: float = Field(3.0, ge=0, description="length of the linear warm-up, epochs (paper)")
    schedule: Literal["cosine", "published"] = Field(
        "cosine",
        description="learning-rate schedule. `cosine` changes at every step, with a continuous warm-up. `published` "
        "changes once an epoch, with the cosine counted from the first step",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay (paper: 0)")
    clip_norm: float | None = Field(None, gt=0, description="maximum gradient norm. If None, off")
    precision: Precision = Field(
        "auto",
        description="numeric precision of training. `bf16` runs the forward pass under autocast. `auto` is as for the "
        "trained models (`precision`)",
    )
    compile: bool = Field(
        False, description="compile the transformer blocks with torch.compile, which pays on a GPU and not on a CPU"
    )
    flips: bool = Field(True, description="apply random flips and quarter turns to training windows")
    keep_dates: float = Field(
        1.0, gt=0, le=1, description="minimum share of dates that random date dropping keeps. 1 is off"
    )
    prefixes: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of training windows cut at a random day of the season, for maps within the season "
        "(`exact map --until`). 0 is off",
    )
    shortest_prefix: float = Field(
        0.3, gt=0, lt=1, description="shortest part of the season that such a window shows, share of its days"
    )
    keep_best: bool = Field(
        True, description="deliver the checkpoint with the best validation metric instead of the last"
    )

    def batch_of(self, windows: int, share: float = 1.0) -> int:
        """Windows a step of a training on so many windows. Where an epoch takes a share of them, a step does, too."""
        return max(1, round(share * min(self.batch, windows // self.fewest_steps)))


class LossConfig(Settings):
    """Weights of the classifier's loss (paper)."""

    auxiliary: float = Field(1.0, ge=0, description="weight of the mean of the two patch losses (paper)")
    contrast: float = Field(0.01, ge=0, description="weight of L_cbl (paper)")
    affinity: float = Field(0.015, ge=0, description="weight of L_tap (paper)")
    contrast_start: float = Field(
        4000 / 15000, ge=0, lt=1, description="share of the steps before prototypes start (paper: 4,000 of 15,000)"
    )


class ClassifierConfig(Settings):
    """Tag classifier and its training."""

    encoder: EncoderConfig = Field(EncoderConfig(), description="the classifier's TSViT encoder")
    prototypes: PrototypeConfig = Field(
        PrototypeConfig(), description="spatial clues, with the update and contrast of prototypes"
    )
    affinity: AffinityConfig = Field(
        AffinityConfig(),
        description="temporal clues, with which patches that look alike at a crop's dates share their CAM",
    )
    loss: LossConfig = Field(LossConfig(), description="weights of the terms of the classifier's loss")
    training: TrainingConfig = Field(TrainingConfig(), description="training of the classifier")


class RelearnConfig(Settings):
    """Pixel self-training of the masks (not in the paper, see `exact_core.clues.pixels`)."""

    rounds: int = Field(
        2,
        ge=0,
        description="number of times that the pixel classifier is trained. If 0, masks stay as the CAMs give them "
        "(paper)",
    )
    margin: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="minimum distance of a training pixel's strongest CAM from the threshold, at most three quarters "
        "of the way to 0 or 1",
    )
    tags: bool = Field(
        True,
        description="two more regressions on single pixels learn from the tags alone, and the mean of all three "
        "teaches the last one",
    )
    few_windows: int = Field(
        60,
        ge=0,
        description="number of training windows below which the confident pixels of the CAMs teach it instead, where "
        "one of the two confirms them. 0: never",
    )
    pixels: int = Field(40_000, ge=100, description="number of training pixels, over all windows")
    ridge: float = Field(0.03, gt=0, description="inverse strength of the regression's ridge penalty")
    balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="exponent of the weight of training pixels, (share of their class) ** -balance. 0 gives pixels "
        "equal weight, 1 gives classes equal weight",
    )


class MasksConfig(Settings):
    """From CAMs to pseudo masks (paper)."""

    cam: Literal["clue", "fused"] = Field("clue", description="clue-based CAM (paper) or the fused CAM (baseline)")
    stretch: Literal["maximum", "min_max"] = Field(
        "maximum",
        description="scaling of a window's CAM of a class to [0, 1]. `maximum` divides by its maximum. `min_max` "
        "(paper) turns the weakest part of a single-crop window into background",
    )
    propagation: bool = Field(
        True, description="average the clue-based CAM with its propagation along the temporal clues (paper)"
    )
    shifts: bool = Field(
        True,
        description="average CAMs over windows shifted within a patch, for pixel resolution. False is as in the paper",
    )
    diffusion: int = Field(
        8, ge=0, description="steps of diffusion among similar neighbouring pixels. 0 is none, as in the paper"
    )
    diffusion_temperature: float = Field(
        0.3, gt=0, description="contrast that a step of diffusion hardly crosses, in medians of the window"
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["borders", "otsu", "valley"] = Field(
        "borders", description="background plane in CAM units, or the rule that chooses it without masks"
    )
    overlaps: bool = Field(
        True,
        description="exclude a crop from the shared part if an overlapping window has no tag for it. If False, use "
        "each window's own tags alone (paper)",
    )
    fields: bool = Field(
        True,
        description="give each known field one crop by the mean score of its pixels. Outlines that contradict images "
        "or tags are left out",
    )
    outside: Outside = Field(
        "pixels",
        description="class of pixels outside all outlines. `pixels` classifies them by appearance, because outlines "
        "may be missing. `borders` does the same but makes pixels beside a field background. `background` "
        "assumes that every field has an outline",
    )
    relearn: RelearnConfig = Field(RelearnConfig(), description="pixel self-training of the masks")
    validation_masks: bool = Field(
        False,
        description="choose the threshold by mIoU against dense labels of the validation split instead, and report it",
    )
    align_corners: bool = Field(False, description="align corners in bilinear upsampling, as published")
    batch: int = Field(32, ge=1, description="windows in a forward pass")
    minimum_quality: float = Field(
        0.0, ge=0, le=1, description="fail a run before the segmenter if the expected mIoU of its masks is below this"
    )


class UtaeConfig(Settings):
    """U-TAE segmenter ("U-TAE" is Garnot & Landrieu, ICCV 2021)."""

    encoder_widths: tuple[int, ...] = Field(
        (64, 64, 64, 128), min_length=2, description="channels of the encoder's levels, finest first (U-TAE)"
    )
    decoder_widths: tuple[int, ...] = Field(
        (32, 32, 64, 128),
        min_length=2,
        description="channels of the decoder's levels, finest first. The last level is that of the temporal attention "
        "(U-TAE)",
    )
    heads: int = Field(16, ge=1, description="heads of the temporal attention, G (U-TAE)")
    key_dim: int = Field(4, ge=1, description="width of a head's keys and master query (U-TAE)")
    attention_width: int = Field(256, ge=2, description="total channels of all attention heads (L-TAE)")
    period: float = Field(1000.0, gt=1, description="base of the sinusoidal date encoding, days (L-TAE)")
    groups: int = Field(4, ge=1, description="groups of the encoder's group normalisation (U-TAE)")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout of the temporal attention (L-TAE)")

    @model_validator(mode="after")
    def _divisible(self) -> UtaeConfig:
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise ValueError(
                f"encoder_widths {list(self.encoder_widths)} and decoder_widths {list(self.decoder_widths)} must have "
                f"one entry a level each"
            )
        for width in (*self.encoder_widths, self.decoder_widths[-1]):
            if width < 1 or width % self.heads or width % self.groups:
                raise ValueError(f"width {width} is no multiple of heads {self.heads} and groups {self.groups}")
        if min(self.decoder_widths) < 1:
            raise ValueError(f"decoder_widths {list(self.decoder_widths)} must be positive")
        if self.attention_width % (2 * self.heads):
            raise ValueError(
                f"attention_width {self.attention_width} is no multiple of 2 x heads = {2 * self.heads}: each head "
                f"needs as many sines as cosines"
            )
        return self


class SegmenterConfig(Settings):
    """Segmenter and its training."""

    model: Literal["tsvit", "utae"] = Field(
        "tsvit", description="TSViT (paper, set by `encoder`) or U-TAE (set by `utae`)"
    )
    encoder: EncoderConfig = Field(
        EncoderConfig(temporal_depth=4, head_dim=32), description="the encoder of a TSViT segmenter"
    )
    utae: UtaeConfig = Field(UtaeConfig(), description="the layers of a U-TAE segmenter")
    training: TrainingConfig = Field(TrainingConfig(epochs=100), description="training of the segmenter")
    balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="exponent of the weight of training pixels of few windows, (share of their class) ** -balance. 0 "
        "gives pixels equal weight, 1 gives classes equal weight",
    )
    few_windows: int = Field(60, ge=0, description="number of training windows below which `balance` applies")
    pixel_weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="weight of a regression of single pixels, fitted to the same targets, in the mean of its "
        "probabilities and the network's. 0 is the network alone (paper)",
    )
    season_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.4, 0.6, 0.8),
        description="parts of the season, from its start, that the model is also calibrated and evaluated on, for maps "
        "within the season",
    )
    calibrate_on: Literal["targets", "labels"] = Field(
        "targets",
        description="labels that calibrate the temperature of confidence on the validation split. `targets` are those "
        "that the segmenter is trained on, pseudo masks or dense labels. `labels` are dense labels if "
        "they exist, even for training from tags",
    )
    layout: Literal["patch", "published"] = Field(
        "patch",
        description="order of a patch's outputs. `patch` keeps its own pixels. `published` is the published order "
        "(see docs/method.md)",
    )

    @model_validator(mode="after")
    def _of_seasons(self) -> SegmenterConfig:
        if self.pixel_weight and (self.reading.dates != "season_day" or not self.reading.mask_padding):
            raise ValueError(
                f"pixel_weight {self.pixel_weight} needs the days of a season, without padding. With encoder.dates "
                f"{self.reading.dates} and encoder.mask_padding {str(self.reading.mask_padding).lower()} set it to 0"
            )
        return self

    @property
    def title(self) -> str:
        """The model's name as its paper writes it."""
        return {"tsvit": "TSViT", "utae": "U-TAE"}[self.model]

    @property
    def reading(self) -> EncoderConfig:
        """The dates and masks that the model needs in its batches.

        U-TAE counts days since the season's start and never attends to padding, unlike TSViT with published settings.
        """
        if self.model == "tsvit":
            return self.encoder
        return self.encoder.model_copy(update={"dates": "season_day", "mask_padding": True})


class EvaluationConfig(Settings):
    """Metrics and report."""

    batch: int = Field(32, ge=1, description="windows in a forward pass")
    panels: int = Field(6, ge=0, description="windows in the report")


class MappingConfig(Settings):
    """Mapping of a whole area."""

    batch: int | None = Field(
        None,
        ge=1,
        description="windows in a forward pass. If None, as many as fit into a share of free memory. Another number "
        "changes rounding in the last bits",
    )
    stride: Annotated[int, Field(ge=2, multiple_of=2)] | None = Field(
        None,
        description="step between windows, pixels. If None, three quarters of a window, the widest without loss "
        "(docs/results.md). A step of a whole window leaves no overlap",
    )
    probabilities: bool = Field(
        False, description="also write the probability of every class, one byte for each pixel and class"
    )
    rows: int = Field(64, ge=2, description="rows in memory at a time, saved when finished")
    majority: int | None = Field(
        None,
        ge=3,
        le=51,
        description="side in pixels, odd, of a majority filter over the classes. If None, there is no filter",
    )
    minimum_hectares: float | None = Field(
        None,
        gt=0,
        description="minimum mapping unit: smaller regions take the class of their longest border, after the majority "
        "filter. If None, all regions stay",
    )
    cropland: str | None = Field(
        None,
        description="raster or vector mask outside of which nothing is mapped, as a path, s3:// or https://. {year} "
        "stands for that of the season. If None, there is no mask",
    )
    cropland_values: tuple[int, ...] = Field(
        (), description="values of the raster `cropland` that are cropland. If empty, all but 0"
    )
    outlines: str | None = Field(
        None, description="layer of field outlines, each of which gets one crop in the map, named like `cropland`"
    )
    outside: Outside = Field(
        "pixels",
        description="pixels outside all `outlines`: as mapped, background beside a field (`borders`), or all "
        "`background`",
    )
    polygons: bool = Field(False, description="also write the fields of the map as polygons, polygons.gpkg")

    @field_validator("majority")
    @classmethod
    def _around_a_pixel(cls, majority: int | None) -> int | None:
        if majority is not None and majority % 2 == 0:
            raise ValueError("expected an odd number of pixels, as 3 or 5")
        return majority

    @model_validator(mode="after")
    def _values_of_a_raster(self) -> MappingConfig:
        if self.cropland_values and self.cropland is None:
            raise ValueError(f"cropland_values {list(self.cropland_values)}: of which raster? Name it by cropland")
        return self

    @model_validator(mode="after")
    def _outside_of_outlines(self) -> MappingConfig:
        if self.outside != "pixels" and self.outlines is None:
            raise ValueError(f"outside {self.outside}: of which outlines? Name them by outlines")
        return self


class TransferConfig(Settings):
    """Limits of difference between a new season and the training season, for publishing its map."""

    windows: int = Field(128, ge=4, description="number of sampled windows of a season")
    pixels: int = Field(2048, ge=64, description="number of sampled pixel series of a season, spread over the windows")
    held_out_dates: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of dates in the series of each held-out window, drawn anew for each. Another season has "
        "other dates, and their effect belongs to the difference between two samples of one season. 1 "
        "keeps all dates",
    )
    reach: int = Field(
        15, ge=1, description="maximum days from a day to a clear acquisition for the day to count as seen"
    )
    neighbours: int = Field(
        5, ge=1, description="number n of the nearest training series that sets the distance of a series from training"
    )
    parts: int = Field(
        4, ge=1, le=16, description="number of parts of the season for separate comparisons of reflectance"
    )
    bands: tuple[float, float] = Field(
        (0.3, 0.8),
        description="Wasserstein-1 distance of a band's reflectance over the season, in standard deviations of "
        "training, beyond that of held-out windows of the training season (from which to look, from which "
        "not to publish)",
    )
    part_bands: tuple[float, float] = Field(
        (0.6, 1.2),
        description="distance as in `bands`, in a single part of the season (from which to look, from which not to "
        "publish)",
    )
    outside: tuple[float, float] = Field(
        (0.1, 0.35),
        description="share of series outside the range of training, beyond that of held-out windows, 5 % (from which "
        "to look, from which not to publish)",
    )
    shift: tuple[float, float] = Field(
        (15.0, 30.0),
        description="days by which the season is early or late (from which to look, from which not to publish)",
    )
    confidence: tuple[float, float] = Field(
        (0.1, 0.25),
        description="loss of a class's mean confidence against held-out windows, of 1 (from which to look, from which "
        "not to publish)",
    )
    dates: tuple[float, float] = Field(
        (0.05, 0.34),
        description="share of unseen key dates, weighted by their information on the classes (from which to look, "
        "from which not to publish)",
    )
    smallest_class: float = Field(
        0.01, ge=0, lt=1, description="minimum share of the sampled pixels for a class to be judged"
    )
    refuse: Literal["never", "look", "do_not_publish"] = Field(
        "never", description="verdict from which the stage fails and makes no map. `never` only warns"
    )

    @model_validator(mode="after")
    def _ascending(self) -> TransferConfig:
        for name in ("bands", "part_bands", "outside", "shift", "confidence", "dates"):
            look, stop = getattr(self, name)
            if not 0 <= look <= stop:
                raise ValueError(f"{name} = ({look:g}, {stop:g}): expected two values from 0, the smaller first")
        return self


class PromotionConfig(Settings):
    """Conditions for a new segmenter to replace the champion."""

    minimum_gain: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="value that the lower end of the difference's confidence interval must exceed, of 1",
    )
    first_floor: Annotated[float, Field(ge=0, le=1)] | Literal["majority"] = Field(
        "majority",
        description="what a first model, without a champion to compare with, must exceed to become champion. "
        "`majority` is the map of the most frequent class alone, in mIoU and OA, with the confidence interval of each "
        "difference. Without dense labels, the lower end of the masks' expected mIoU must exceed the highest mIoU that "
        "such a map can have. With no test split either, the tags of left-out squares must beat a guess. A number is a "
        "minimum mIoU (F1 of tags without dense labels). 0 accepts any model",
    )
    largest_class_loss: float = Field(0.1, ge=0, le=1, description="maximum loss of any class in its own metric, of 1")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the confidence interval of the difference")
    samples: int = Field(2000, ge=100, description="draws of the paired bootstrap")


class RunConfig(Settings):
    """All settings of a run except its source."""

    recipe: str = Field(description="name of the recipe on which this configuration is based")
    seed: int = Field(0, ge=0, le=2**53 - 1, description="seed of generation, initialisation, order and augmentation")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="compute device, 'auto' (CUDA if available), 'cpu' or 'cuda'",
    )
    precision: Precision = Field(
        "auto",
        description="numeric precision of trained models in masks, scores and maps. `auto` is `bf16` for models with "
        "transformers where the GPU or processor (AVX512_BF16) has instructions for it, otherwise `fp32`",
    )
    data: DataConfig = Field(DataConfig(), description="reading of a source, windows and splits")
    classifier: ClassifierConfig = Field(ClassifierConfig(), description="tag classifier and its training")
    masks: MasksConfig = Field(MasksConfig(), description="conversion of CAMs to pseudo masks")
    segmenter: SegmenterConfig = Field(SegmenterConfig(), description="segmenter and its training")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="metrics and report")
    promotion: PromotionConfig = Field(
        PromotionConfig(), description="conditions for a new segmenter to become champion"
    )
    mapping: MappingConfig = Field(MappingConfig(), description="mapping of a whole area")
    transfer: TransferConfig = Field(
        TransferConfig(),
        description="limits of difference between a new season and the training season, for publishing its map",
    )

    @model_validator(mode="after")
    def _window_of_patches(self) -> RunConfig:
        for name, encoder in (("classifier", self.classifier.encoder), ("segmenter", self.segmenter.encoder)):
            if self.data.window % encoder.patch:
                raise ValueError(
                    f"data.window {self.data.window} is not a multiple of {name}.encoder.patch {encoder.patch}"
                )
            if encoder.mask_clouds and encoder.patch != 1 and encoder.patch % 2:
                raise ValueError(
                    f"{name}.encoder.patch {encoder.patch} is neither 1 nor even: clouds are known per 2 x 2 pixels; "
                    f"choose another patch, or set {name}.encoder.mask_clouds=false"
                )
        if self.data.window % 2 or self.data.synthetic.scene_size % 2:
            raise ValueError(
                f"data.window {self.data.window} and data.synthetic.scene_size {self.data.synthetic.scene_size} must "
                f"be even: clouds are known per 2 x 2 pixels"
            )
        return self

    def digest(self, *parts: str) -> str:
        """SHA-256 (hex) of the named parts, or of everything: equal configurations have equal digests."""
        data = self.model_dump(mode="json")
        chosen = {part: data[part] for part in parts} if parts else data
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the resolved configuration as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def load_config(path: Path) -> RunConfig:
    """Read the configuration of a model folder.

    Those of earlier versions may have settings that no longer exist. A trained model does not depend on them.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a key or value is wrong.
    """
    data = read_settings(path)
    for *sections, name in RETIRED:
        place: Any = data
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(name, None)
    return build(data, where=str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """A mapping of settings as a file has it.

    Raises:
        ConfigError: the file is missing, or is no YAML mapping.
    """
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file. Write one with `exact config RECIPE`") from None
    except OSError as error:
        raise ConfigError(f"{path}: not a readable configuration file: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML in UTF-8: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(data).__name__}")
    return data


def build(data: dict[str, Any], *, where: str) -> RunConfig:
    """A validated RunConfig. `where` names the origin of the values in an error."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe(error, where=where, model=RunConfig)) from error


def describe(error: ValidationError, *, where: str, model: type[BaseModel]) -> str:
    """One line a problem: the key, the value, what is expected, and the nearest existing key."""
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path) or "(whole)"
        if problem["type"] == "extra_forbidden":
            near = _nearest(path, model)
            lines.append(f"{where}: unknown key {key!r}{near}; `exact config` lists every key")
        else:
            value = problem.get("input")
            # A whole mapping or file as the value would bury the message.
            shown = "" if isinstance(value, dict | bytes | str) and len(str(value)) > 200 else f" = {value!r}"
            lines.append(f"{where}: {key}{shown}: {problem['msg']}{_example(path, model)}")
    return "\n".join(lines)


def _example(path: list[str], model: type[BaseModel]) -> str:
    """'; for example KEY=VALUE' with the default of a field, where it has a plain one."""
    field = None
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    default = None if field is None else field.get_default(call_default_factory=True, validated_data={})
    if default is None or default is PydanticUndefined or isinstance(default, BaseModel | dict) or default == "":
        return ""
    plain = list(default) if isinstance(default, tuple) else default
    return f"; for example {'.'.join(path)}={yaml.safe_dump(plain, default_flow_style=True).partition(chr(10))[0]}"


def _nearest(path: list[str], model: type[BaseModel]) -> str:
    """' (did you mean …?)' from the fields beside the unknown one."""
    for part in path[:-1]:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return ""
        model = field.annotation
    close = difflib.get_close_matches(path[-1], list(model.model_fields), n=1)
    return f" (did you mean {'.'.join([*path[:-1], close[0]])!r}?)" if close else ""


def as_recipe(config: RunConfig) -> RunConfig:
    """The same values as those of a recipe: what a region's `season.yaml` says goes before them."""
    return _with_set(config, frozenset(), stride=False)


def _with_set(config: RunConfig, names: frozenset[str], *, stride: bool) -> RunConfig:
    """The same values. Of `data.season` these are set by the run, and so is `data.stride` or not.

    What is set goes before `season.yaml`, whether or not it is the default (`model_fields_set`).
    """
    data = config.data
    season = SeasonConfig.model_construct(_fields_set=set(names), **dict(data.season))
    fields = (data.model_fields_set | {"season"}) - {"stride"} | ({"stride"} if stride else set())
    values = {**dict(data), "season": season}
    return config.model_copy(update={"data": DataConfig.model_construct(_fields_set=fields, **values)})


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """A copy with single keys changed. Each assignment is `dotted.key=value`, the value in YAML.

    Changed keys of `data.season`, and `data.stride`, go before a region's `season.yaml`, whatever their value.

    Raises:
        ConfigError: an assignment without `=`, an unknown key, or a value that does not fit.
    """
    data = config.model_dump(mode="json")
    names, stride = set(config.data.season.model_fields_set), "stride" in config.data.model_fields_set
    sized: set[str] = set()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {assignment!r}: expected key=value, for example classifier.training.epochs=5")
        parts = key.strip().split(".")
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {assignment!r}: the value is not valid YAML: {error}") from error
        node = data
        for depth, part in enumerate(parts[:-1]):
            if not isinstance(node.get(part), dict):
                near = _nearest(parts[: depth + 1], RunConfig)
                raise ConfigError(f"override {assignment!r}: unknown key {'.'.join(parts[: depth + 1])!r}{near}")
            node = node[part]
        node[parts[-1]] = value
        sized |= set(_below(parts, value, ["data"])) & {"window", "window_metres"}
        names |= set(_below(parts, value, ["data", "season"]))
        stride |= "stride" in _below(parts, value, ["data"])
    if sized == {"window"}:
        data["data"]["window_metres"] = None
    return _with_set(build(data, where="override"), frozenset(names), stride=stride)


def _below(parts: list[str], value: Any, above: list[str]) -> list[str]:
    """Keys right below a part of the configuration that an assignment changes."""
    if len(parts) > len(above):
        return [parts[len(above)]] if parts[: len(above)] == above else []
    for part in above[len(parts) :] if above[: len(parts)] == parts else ["a key of no mapping"]:
        value = value.get(part) if isinstance(value, dict) else None
    return list(value) if isinstance(value, dict) else []
